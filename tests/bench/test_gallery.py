"""The README's first picture: originals, titok's versions and WebP thumbnails of as many bytes."""

import re

import numpy as np
import pytest
from PIL import Image

from bench import gallery
from bench.gallery import GAP
from tests.conftest import DATA, TINY
from titokcodec import Codec
from titokcodec.errors import TitokError

PHOTO = DATA / "coffee.jpg"


@pytest.fixture(scope="module")
def codec():
    return Codec.from_pretrained(TINY, device="cpu")


def test_the_middle_of_a_picture_or_a_named_part():
    whole, part = gallery.square(str(PHOTO)), gallery.square(f"{PHOTO}@10,20,256")
    assert whole.size == part.size == (256, 256)
    assert part.tobytes() == Image.open(PHOTO).convert("RGB").crop((10, 20, 266, 276)).tobytes() != whole.tobytes()


@pytest.mark.parametrize("place", ["-1,0,64", "0,0,0", "400,0,256", "0,200,256", "1,2", "left"])
def test_parts_that_are_not_there_are_refused(place, tmp_path):
    with pytest.raises(TitokError, match=place):
        gallery.main([f"{PHOTO}@{place}", "--out", str(tmp_path / "x.webp")])
    assert not list(tmp_path.iterdir())


def test_thumbnails_fit_the_budget_and_get_better_with_it():
    picture = gallery.square(str(PHOTO))
    pixels = np.asarray(picture, dtype=float)
    errors = []
    for budget in (60, 108, 204):
        caption, shown = gallery.thumbnail(picture, budget)
        assert int(re.match(r"WebP, (\d+) bytes\n\d+ x \d+ pixels", caption)[1]) <= budget
        errors.append(np.square(np.asarray(shown) - pixels).mean())
    assert errors == sorted(errors, reverse=True)


def test_no_thumbnail_leaves_a_gap():
    caption, shown = gallery.thumbnail(gallery.square(str(PHOTO)), 30)
    assert caption == "WebP\nhas no file so small" and shown.getcolors() == [(256 * 256, (238, 238, 238))]


def test_a_row_is_the_original_then_titok_beside_webp(codec):
    (row,) = gallery.table(codec, [gallery.square(str(PHOTO))], [8, 16])
    assert [re.split("[,\n]", caption)[0] for caption, _ in row] == ["original", *["titok", "WebP"] * 2]
    data = codec.compress(row[0][1], tokens=8)
    assert row[1][0] == f"titok, {len(data)} bytes\n8 tokens"
    assert row[1][1].tobytes() == codec.decompress(data).convert("RGB").tobytes()


def test_the_command_writes_the_sheet(tmp_path):
    out = tmp_path / "sheet.webp"
    gallery.main([str(PHOTO), f"{PHOTO}@0,0,64", "--out", str(out), "--model", str(TINY), "--tokens", "16"])
    shown = Image.open(out)
    assert shown.format == "WEBP" and shown.width == 3 * 256 + 2 * GAP and 2 * 256 < shown.height < 2.5 * 256
