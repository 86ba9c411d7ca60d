"""The benchmark of the search: on the tiny model, what it writes and that it writes the truth."""

import json

import pytest
import torch

from bench import effort
from tests.conftest import TINY
from titokcodec.errors import TitokError
from titokcodec.models.tokenizer import TiTok


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Each case is timed once: how well is not what is tested."""
    monkeypatch.setattr(effort, "SECONDS", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Sixteen views of one photograph."""
    path = tmp_path_factory.mktemp("views")
    for number in range(16):
        photo.rotate(20 * number).resize((256, 256)).save(path / f"{number:02}.png")
    return path


def test_quality_grows_with_effort_and_nothing_is_missing(folder, tmp_path):
    out = tmp_path / "effort.json"
    given = ["--data", str(folder), "--model", str(TINY), "--device", "cpu"]
    effort.main([*given, "--efforts", "0", "3", "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["pictures"], found["device"], found["threads"]) == (16, "cpu", torch.get_num_threads())
    plain, searched = found["rows"]
    assert [row["effort"] for row in (plain, searched)] == [0, 3]
    assert plain.keys() == searched.keys() >= {"psnr/8", "psnr/16", "ssim/16", "seconds/1", "seconds/16"}
    assert all(searched[f"psnr/{k}"] > plain[f"psnr/{k}"] + 0.02 for k in (8, 16))


def test_seconds_are_of_the_effort_asked_for(codec, monkeypatch):
    """Counted in decodings: one of the start, one a step, and half as many more steps where all tokens are there."""
    decoded = []
    real = TiTok.decode_codes
    monkeypatch.setattr(TiTok, "decode_codes", lambda self, codes: decoded.append(codes.shape[1]) or real(self, codes))
    effort.seconds(codec, torch.rand(1, 3, 256, 256), 2)
    assert decoded == [8, 8, 8, 16, 16, 16, 16] * (len(decoded) // 7) and decoded


def test_too_few_pictures_are_refused(folder, tmp_path):
    with pytest.raises(TitokError, match="15 pictures are too few"):
        effort.main(["--data", str(folder), "--model", str(TINY), "--limit", "15", "--out", str(tmp_path / "o.json")])
