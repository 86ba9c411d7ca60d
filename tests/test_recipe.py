"""The whole chain in one command, on a handful of pictures: it ends with a weight file that works."""

import json
import sys

import pytest
import torch
from PIL import Image, ImageOps

import titokcodec
from tests.conftest import DATA
from titokcodec.models import vqgan
from titokcodec.models.config import PRESETS
from titokcodec.models.vqgan import VQGANConfig
from titokcodec.weights import read
from training import recipe


@pytest.fixture
def tiny_preset(monkeypatch, tiny_path):
    monkeypatch.setitem(PRESETS, "tiny", read(tiny_path).config)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        ImageOps.fit(Image.open(DATA / f"{name}.jpg"), (256, 256)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("chain", "last"), [("single", "single"), ("sharpened", "stage2"), ("two-stage", "stage2")])
def test_recipe_leaves_a_scored_model_that_compresses(chain, last, tiny_preset, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(vqgan.PRESETS, "tiny", VQGANConfig(channels=(32,) * 5, blocks=1, code_width=8))
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(0))
    out = tmp_path / "out"
    given = f"--data {photos} --val {photos} --out {out} --minutes 0.1 --name mine --preset tiny --batch 4 --no-bf16 " \
            f"--no-compile --chain {chain} --proxy-preset tiny --side 64 --adversary 0 --device cpu"
    if chain != "two-stage":
        given = given.replace("--proxy-preset tiny --side 64", "")
    recipe.run(*recipe.parse(given.split()))
    assert len(resets) == len(recipe.CHAINS[chain])  # shapes of one stage are none of the next one's

    scores = json.loads((out / "scores.json").read_text())
    assert (scores["model"], scores["pictures"]) == ("mine", 3)
    assert scores["psnr/16"] > (8 if chain == "single" else 4)
    assert (out / "sheet.png").exists() and (out / last / "state.pt").exists()
    codec = titokcodec.Codec.from_pretrained(out / "model.safetensors", device="cpu")
    data = codec.compress(DATA / "coffee.jpg")
    assert codec.decompress(data).size == (600, 400)
    assert len(codec.compress(photos / "coffee.png")) <= scores["bytes/16"]


def test_the_recipe_names_words_that_no_stage_knows(photos, tmp_path):
    line = f"--data {photos} --val {photos} --out {tmp_path} --minutes 0.1 --chain two-stage --beta9 3"
    with pytest.raises(SystemExit, match="no stage of the chain two-stage knows --beta9"):
        recipe.run(*recipe.parse(line.split()))


def test_a_sharpened_run_draws_by_squared_error_before_anything_else(photos, tmp_path):
    line = f"--data {photos} --val {photos} --out {tmp_path} --minutes 1 --chain sharpened --lpips-weight 0.2"
    (_, first), (_, second) = recipe.plan(*recipe.parse(line.split()))
    assert (first.hyper_lpips_weight, first.hyper_features) == (0, 0)
    assert second.hyper_lpips_weight == 0.2 and first.minutes == 3 * second.minutes
