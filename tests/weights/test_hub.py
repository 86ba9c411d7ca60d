"""Models from the hub: what is fetched, what a wrong name is answered, and a real cache without a network."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.test_models import make
from titokcodec import Codec
from titokcodec.errors import WeightsError
from titokcodec.models.config import TiTokConfig, Tower
from titokcodec.weights import hub, tokenizers

CONFIG = TiTokConfig(  # a one-stage model whose shapes alone do not tell that its codes are not normalised
    Tower(64, 1, 1), Tower(64, 1, 1), tokens=8, codes=40, code_width=16, l2_normalised=False, head="pixels"
)
PUBLISHED = json.dumps({"model": {"vq_model": {"use_l2_norm": False, "is_legacy": False}}})
NAME = "someone/tokenizer_theirs"


def fake_hub(monkeypatch, get):
    """``get`` in the place of the library."""

    class Hub:
        hf_hub_download = staticmethod(get)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)


def snapshot(folder, with_config=True):
    folder.mkdir(parents=True)
    save_file(make(CONFIG).state_dict(), folder / "model.safetensors")
    if with_config:
        (folder / "config.json").write_text(PUBLISHED)
    return folder


class EntryNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError):
    pass


class RepositoryNotFoundError(OSError):
    pass


class HFValidationError(ValueError):
    pass


def test_hub_names_need_the_hub_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'titokcodec\[hub\]'"):
        tokenizers.locate("hub:someone/something")


@pytest.mark.parametrize(("message", "shown"), [("404\nnot\nfound", "404 not found"), ("", "OSError")])
def test_an_error_of_the_hub_becomes_one_line(monkeypatch, message, shown):
    def get(repository, name):
        assert (repository, name) == ("someone/something", "model.safetensors")
        raise OSError(message)

    fake_hub(monkeypatch, get)
    with pytest.raises(WeightsError, match=f"'someone/something' from the hub: {shown}$"):
        tokenizers.locate("hub:someone/something")


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, HFValidationError])
def test_a_wrong_name_shows_what_the_right_ones_look_like(monkeypatch, kind):
    def get(repository, name):
        raise kind("a page of advice")

    fake_hub(monkeypatch, get)
    with pytest.raises(WeightsError, match=r"no repository 'titok_l32' .* names look like org/name") as caught:
        Codec.from_pretrained("hub:titok_l32", device="cpu")
    assert "\n" not in str(caught.value)
    for which in ("l32", "b64", "s128", "bl64_vq8k", "bl128_vq8k", "sl256_vq8k"):
        assert f"hub:yucornetto/tokenizer_titok_{which}_imagenet" in str(caught.value)
    assert len(hub.PUBLISHED_REPOSITORIES) == 6


def test_one_of_our_own_files_needs_no_config(monkeypatch, tiny_path):
    def get(repository, name):
        if name == "config.json":
            raise EntryNotFoundError("404")
        return str(tiny_path)

    fake_hub(monkeypatch, get)
    opened = tokenizers.read(f"hub:{NAME}")
    assert (opened.name, opened.fingerprint) == ("tiny", tokenizers.read(tiny_path).fingerprint)


@torch.no_grad()
def test_a_published_model_comes_with_its_config_and_goes_by_its_repository(monkeypatch, tmp_path):
    folder, asked = snapshot(tmp_path / "0123abc"), []
    fake_hub(monkeypatch, lambda repository, name: asked.append((repository, name)) or str(folder / name))
    codec = Codec.from_pretrained(f"hub:{NAME}", device="cpu", dtype="fp32")
    assert asked == [(NAME, "model.safetensors"), (NAME, "config.json")]
    assert (codec.weights.name, codec.weights.config) == ("tokenizer_theirs", CONFIG)
    data = codec.compress(np.full((40, 30, 3), 90, np.uint8))
    assert codec.decompress(data).size == (30, 40)
    assert tokenizers.read(folder).fingerprint == codec.weights.fingerprint


def test_a_config_that_is_not_in_the_cache_is_missed_only_where_it_is_needed(monkeypatch, tmp_path):
    folder = snapshot(tmp_path / "0123abc", with_config=False)

    def get(repository, name):
        if name == "config.json":
            raise LocalEntryNotFoundError("offline")
        return str(folder / name)

    fake_hub(monkeypatch, get)
    with pytest.raises(WeightsError, match="l2-normalised: give the published config"):
        tokenizers.read(f"hub:{NAME}")

    def broken(repository, name):
        if name == "config.json":
            raise OSError("disk full")
        return str(folder / name)

    fake_hub(monkeypatch, broken)
    with pytest.raises(WeightsError, match=r"could not get config.json of .*: disk full"):
        tokenizers.read(f"hub:{NAME}")


def test_the_real_library_finds_its_cache_offline(tmp_path):
    pytest.importorskip("huggingface_hub")
    revision, repository = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--someone--tokenizer_theirs"
    folder = snapshot(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    code = """
import sys
from titokcodec.weights import tokenizers
from titokcodec.errors import WeightsError
theirs = tokenizers.read("hub:someone/tokenizer_theirs")
print(theirs.name, theirs.config.to_json())
for name in ("someone/another", "not a name"):
    try:
        tokenizers.read(f"hub:{name}")
    except WeightsError as error:
        print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found, another, wrong = result.stdout.splitlines()
    assert found == f"tokenizer_theirs {CONFIG.to_json()}"
    assert another.startswith("could not get model.safetensors of 'someone/another' from the hub: ")
    assert wrong.startswith("the hub has no repository 'not a name' ") and hub.PUBLISHED_REPOSITORIES[0] in wrong
    assert tokenizers.read(folder).config == CONFIG
