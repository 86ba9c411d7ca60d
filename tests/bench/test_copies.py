"""Whether copies of training pictures are found, by hand and by the whole command on tiny models."""

import json

import pytest
import torch
from PIL import Image

from bench import copies
from bench.copies import NEAREST, Nearest, nearest, summary
from bench.sheet import MARGIN
from tests.conftest import DATA
from tests.models.test_maskgit import build
from titokcodec import generator as generators
from titokcodec.errors import TitokError
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.weights import tokenizers


def test_a_copy_and_its_mirror_image_are_found():
    torch.manual_seed(0)
    training = torch.rand(200, 3, copies.SIDE, copies.SIDE)
    pictures = torch.stack([training[7] + 0.01, training[9].flip(2), torch.rand(3, copies.SIDE, copies.SIDE)])
    found = nearest(pictures, training)
    assert found.which[:2].tolist() == [7, 9]
    assert found.ratio[:2].max() < 0.1 and found.ratio[2] > 0.9
    with pytest.raises(TitokError, match="3 training pictures are too few"):
        nearest(pictures, training[:3])


def test_the_share_of_what_is_nearer_than_usual():
    held_out = Nearest(torch.linspace(0.5, 1, 101), torch.zeros(101))
    found = summary(Nearest(torch.tensor([0.1, 0.4, 0.8, 0.9]), torch.zeros(4)), held_out)
    assert (found["share"], found["ratio"]) == (0.5, 0.505)
    assert found["interval"][0] < 0.5 < found["interval"][1]
    assert summary(held_out, held_out)["share"] == pytest.approx(copies.USUAL, abs=0.001)


def test_the_whole_command(tmp_path, tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(copies, "is_held_out", lambda key: key.endswith(("1", "2")))
    model = build(GeneratorConfig("bert", 8, codes=64, classes=3, width=32, layers=1, heads=2, mlp=32))
    generators.save(tmp_path / "g.safetensors", model, "tiny g", tokenizer=tokenizers.read(tiny_path).fingerprint)
    (tmp_path / "crops").mkdir()
    picture = Image.open(DATA / "chelsea.jpg").convert("RGB")
    for number in range(NEAREST + 20):
        picture.crop((2 * number, number, 2 * number + 160, number + 160)).resize((64, 64)).save(
            tmp_path / "crops" / f"{number}.png"
        )
    line = ["--generator", str(tmp_path / "g.safetensors"), "--model", str(tiny_path), "--device", "cpu"]
    copies.main([*line, "--data", str(tmp_path / "crops"), "--out", str(tmp_path / "out"), "--samples", "12"])
    result = json.loads((tmp_path / "out" / "copies.json").read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert (result["generator"], result["tokens"], result["samples"], result["held_out"]) == ("tiny g", 8, 12, 12)
    assert result["training"] == NEAREST + 20 - 14 and 0 <= result["share"] <= 1
    size = Image.open(tmp_path / "out" / "nearest.png").size
    assert size == (MARGIN + copies.SHOWN * copies.CELL, 4 * copies.CELL)
    monkeypatch.setattr(copies, "is_held_out", lambda key: False)
    with pytest.raises(TitokError, match="no picture that training held out"):
        copies.main([*line, "--data", str(tmp_path / "crops"), "--out", str(tmp_path / "out")])
