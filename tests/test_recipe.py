"""The whole chain in one command, on a handful of pictures: it ends with a weight file that works."""

import json

import pytest
from PIL import Image, ImageOps

import titokcodec
from tests.conftest import DATA
from titokcodec.models.config import PRESETS
from titokcodec.weights import read
from training import recipe


@pytest.fixture
def tiny_preset(monkeypatch, tiny_path):
    monkeypatch.setitem(PRESETS, "tiny", read(tiny_path).config)


def test_recipe_leaves_a_scored_model_that_compresses(tiny_preset, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        ImageOps.fit(Image.open(DATA / f"{name}.jpg"), (256, 256)).save(photos / f"{name}.png")
    out = tmp_path / "out"
    given = f"--data {photos} --val {photos} --out {out} --minutes 0.1 --name mine --preset tiny --batch 4 --no-bf16"
    recipe.run(*recipe.parse(given.split()))

    scores = json.loads((out / "scores.json").read_text())
    assert (scores["model"], scores["pictures"]) == ("mine", 3)
    assert scores["psnr/16"] > 8
    assert (out / "sheet.png").exists()
    codec = titokcodec.Codec.from_pretrained(out / "model.safetensors", device="cpu")
    data = codec.compress(DATA / "coffee.jpg")
    assert codec.decompress(data).size == (600, 400)
    assert len(codec.compress(photos / "coffee.png")) <= scores["bytes/16"]
