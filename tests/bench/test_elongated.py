"""The benchmark of elongated pictures: what is decoded in each way, and that the figures are of that."""

import json

import numpy as np
import pytest

from bench import elongated
from tests.conftest import TINY
from titokcodec import info


@pytest.mark.parametrize(
    ("size", "aspect", "cut"),
    [
        ((768, 512), 1.5, (768, 512)),
        ((768, 512), 3, (768, 256)),
        ((512, 768), 6, (128, 768)),
        ((300, 300), 2, (300, 150)),
        ((900, 100), 3, (300, 100)),
        ((5, 5), 6, (5, 1)),
    ],
)
def test_pictures_are_cut_around_their_middle(photo, size, aspect, cut):
    picture = photo.resize(size)
    found = elongated.cut_to(picture, aspect)
    assert found.size == cut
    left, top = (size[0] - cut[0]) // 2, (size[1] - cut[1]) // 2
    assert found.tobytes() == picture.crop((left, top, left + cut[0], top + cut[1])).tobytes()


def test_ways_are_what_the_codec_makes_of_the_picture(codec, photo):
    pixels = np.asarray(photo.resize((600, 200)))
    found = dict(elongated.ways(codec, pixels))
    assert list(found) == ["squeezed", "padded", "2 tiles", "3 tiles"]
    assert {decoded.shape for decoded in found.values()} == {(200, 600, 3)}
    assert np.array_equal(found["squeezed"], codec.decompress(codec.compress(pixels, effort=0)))
    wide = np.asarray(photo.resize((480, 250)))
    tiled = codec.compress(wide, layout="tile", tokens=8, effort=0)
    assert info(tiled).tiles == 2
    assert np.array_equal(dict(elongated.ways(codec, wide))["2 tiles"], codec.decompress(tiled))


def test_figures_are_written_for_every_aspect_and_way(photo, tmp_path):
    photo.resize((300, 200)).save(tmp_path / "a.png")
    photo.rotate(90).resize((200, 300)).save(tmp_path / "b.png")
    out = tmp_path / "elongated.json"
    given = [str(tmp_path / name) for name in ("a.png", "b.png")]
    elongated.main(["--images", *given, "--model", str(TINY), "--out", str(out)])
    found = json.loads(out.read_text())
    assert (found["model"], found["pictures"], found["tokens"]) == ("tiny", 2, 16)
    names = ("squeezed", "padded", "2 tiles", "3 tiles")
    expected = [(aspect, name) for aspect in elongated.ASPECTS for name in names]
    assert [(row["aspect"], row["way"]) for row in found["rows"]] == expected
    assert all(5 < row["psnr-rgb"] < 40 for row in found["rows"])
