"""The README's edits: three sheets and their figures, written by one command."""

import json

import pytest
from PIL import Image

from bench import edits, gallery, tables
from tests.conftest import DATA, TINY
from tests.models.test_maskgit import build
from titokcodec import Codec, TitokError
from titokcodec.generator import save
from titokcodec.models.generator_config import GeneratorConfig

PHOTOS = [str(DATA / name) for name in ("coffee.jpg", "chelsea.jpg")]


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Options of the command for tiny models."""
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    config = GeneratorConfig("bert", 12, codes=64, classes=4, width=32, layers=1, heads=4, mlp=40)
    fingerprint = Codec.from_pretrained(TINY, device="cpu").weights.fingerprint
    save(path, build(config), "small", tokenizer=fingerprint, class_names=("ant", "bee", "cat", "dog"))
    return ["--model", str(TINY), "--generator", str(path), "--count", "2"]


def test_the_command_writes_sheets_and_figures(line, tmp_path, monkeypatch):
    regions = ["--regions", "40,5,150,135", "0,0,128,128"]
    edits.main([*PHOTOS, *regions, "--classes", "-", "bee", *line, "--out", str(tmp_path)])
    across = 256 + gallery.GAP
    for name, columns in (("regions", 4), ("variations", 5)):
        assert Image.open(tmp_path / f"edit-{name}.webp").width == columns * across - gallery.GAP
    assert Image.open(tmp_path / "edit-ways.webp").width == 7 * (edits.SMALL + gallery.GAP) - gallery.GAP
    found = json.loads((tmp_path / "edits.json").read_text())
    assert (found["generator"], found["model"], found["pictures"], found["each"]) == ("small", "tiny", 2, 2)
    assert found["region/outside"] > found["region/inside"]
    assert found["region/area"] == pytest.approx((150 * 135 + 128 * 128) / 2 / 256**2, abs=1e-3)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert f"| {found['region/outside']:.1f} dB |" in tables.edits() and "first 3 tokens" in tables.edits()


def test_regions_and_classes_are_one_a_picture(line, tmp_path):
    for added in (["--regions", "0,0,9,9"], ["--regions", "0,0,9,9", "0,0,9,9", "--classes", "bee"]):
        with pytest.raises(TitokError, match="2 pictures: give as many regions"):
            edits.main([*PHOTOS, *added, *line, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
