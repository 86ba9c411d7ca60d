"""The README's generated pictures: a row a class, the first pictures of a seed."""

import pytest
from PIL import Image

from bench import generated
from bench.sheet import MARGIN
from tests.conftest import TINY
from tests.models.test_maskgit import build
from titokcodec import Codec, Generator, TitokError
from titokcodec.generator import save
from titokcodec.models.generator_config import GeneratorConfig
from training.sheet import images


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A tiny generator's file."""
    file = tmp_path_factory.mktemp("generator") / "g.safetensors"
    config = GeneratorConfig("bert", 12, codes=64, classes=3, width=32, layers=1, heads=4, mlp=40)
    save(file, build(config), "small", class_names=("ant", "bee", "cat"))
    return str(file)


def test_rows_are_the_first_pictures_of_the_seed(path, tmp_path):
    out = tmp_path / "made.png"
    generated.main(
        ["--generator", path, "--model", str(TINY), "--classes", "cat", "ant", "--count", "2", "--out", str(out)]
    )
    codec, generator = Codec.from_pretrained(TINY), Generator.from_pretrained(path)
    expected = images(codec.decode(generator.sample(["ant"] * 2, seed=1).cpu()))[1]
    side = generated.SIDE
    with Image.open(out) as sheet:
        assert sheet.size == (MARGIN + 2 * side, 2 * side)
        found = sheet.crop((MARGIN + side, side, MARGIN + 2 * side, 2 * side))
    assert found.tobytes() == expected.resize((side, side), Image.Resampling.LANCZOS).tobytes()


def test_all_classes_are_shown_unless_some_are_named(path, tmp_path):
    generated.main(["--generator", path, "--model", str(TINY), "--count", "1", "--out", str(tmp_path / "made.png")])
    with Image.open(tmp_path / "made.png") as sheet:
        assert sheet.height == 3 * generated.SIDE
    with pytest.raises(TitokError, match="small has no class 'dog'"):
        generated.main(
            ["--generator", path, "--model", str(TINY), "--classes", "dog", "--out", str(tmp_path / "x.png")]
        )
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", ["made", "made.xyz", "made.psd", "."])
def test_names_that_are_no_picture_s_are_refused_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Codec, "from_pretrained", None)
    with pytest.raises(TitokError, match="is no name for a picture: end it in"):
        generated.main(["--out", str(tmp_path / name)])
