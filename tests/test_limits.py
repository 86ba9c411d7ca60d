"""What a picture may cost: its pixels are bounded, and so are its tiles, in every way to read a file."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import titokcodec
from tests.conftest import TINY
from titokcodec import LimitExceeded, editing, files
from titokcodec.format.bitstream import check_pixels, pack
from titokcodec.format.header import Header
from titokcodec.format.layout import Grid, check_tiles, most_tiles, nearest_grid, spread_grid
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, TILE

sides = st.integers(1, 2**21)


def row_of_tiles(codec, length=2**21):
    """A valid file of version 1 of a picture one pixel wide: 2,097,152 pixels, 9,363 tiles."""
    header = Header(1, length, 8, "tile", False, True, 0, 0, codec.weights.fingerprint)
    size = -(-spread_grid(1, length).tiles * 8 * 6 // 8)
    return pack(header, bytes(size), codec.weights.fingerprint)


def test_a_row_of_single_pixels_is_not_worth_nine_thousand_tiles(codec, tmp_path):
    data = row_of_tiles(codec)
    (tmp_path / "long.titok").write_bytes(data)
    for action in (
        lambda: codec.decompress(data),
        lambda: codec.decompress(data, strict=False),
        lambda: codec.read(data),
        lambda: editing.verify(data, TINY),
        lambda: titokcodec.truncate(data, 8, TINY),
        lambda: files.read(io.BytesIO(data)),
        lambda: titokcodec.info(tmp_path / "long.titok"),
    ):
        with pytest.raises(LimitExceeded, match=r"1x2097152 has 9363 tiles, over the 2730 .* max_pixels=306806784 "):
            action()
    assert titokcodec.info(data).tiles == titokcodec.info(tmp_path / "long.titok", max_pixels=None).tiles == 9363
    assert len(codec.read(data, max_pixels=306806784)) == len(codec.read(data, max_pixels=None)) == 9363


def test_refusing_takes_no_time_and_no_memory(codec, tmp_path):
    """In a process of its own, which would take minutes if it drew anything."""
    (tmp_path / "long.titok").write_bytes(row_of_tiles(codec))
    code = f"""
import resource, titokcodec
codec = titokcodec.Codec.from_pretrained({str(TINY)!r}, device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF)
try:
    codec.decompress("long.titok")
except titokcodec.LimitExceeded:
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, timeout=120)
    kilobytes, seconds = map(float, done.stdout.split())
    assert kilobytes < 10_000 and seconds < 1


def test_a_fitted_picture_exists_once(codec, tmp_path):
    """Six bytes of tokens may well be 25 megapixels, but no more than one copy of them."""
    data = pack(
        Header(5000, 5000, 8, "fit", False, True, 0, 0, codec.weights.fingerprint), bytes(6), codec.weights.fingerprint
    )
    (tmp_path / "big.titok").write_bytes(data)
    code = f"""
import resource, titokcodec
codec = titokcodec.Codec.from_pretrained({str(TINY)!r}, device="cpu")
codec.decompress("big.titok", max_side=100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert codec.decompress("big.titok").size == (5000, 5000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True, timeout=120)
    assert float(done.stdout) < 150_000, "100 MB are the picture as Pillow holds it; every copy would be 75 more"


@settings(max_examples=300, deadline=None)
@given(sides, sides, st.sampled_from([1000, 10**6, DEFAULT_MAX_PIXELS]))
def test_a_fitted_picture_may_always_be_read_within_the_limit_that_it_was_written_in(width, height, limit):
    height = max(1, min(height, limit // width))
    if width * height <= limit:
        check_pixels(Header(width, height, 8, "fit", False, True, 0, 1), limit)


@settings(max_examples=100, deadline=None)
@given(st.integers(400, 20_000), st.integers(400, 20_000), st.integers(0, 10))
def test_ordinary_pictures_may_always_be_tiled(width, height, spare):
    """However near to its limit a picture is, overlaps alone never make it too much, in either version."""
    for grid in (nearest_grid(width, height), spread_grid(width, height)):
        check_tiles(width, height, grid.tiles, width * height + spare)


def test_a_limit_below_a_tile_is_no_limit_on_tiles():
    for side in (1, 10, 256, 512):
        for grid in (nearest_grid(side, side), spread_grid(side, side)):
            check_tiles(side, side, grid.tiles, side * side)
    assert most_tiles(0) >= 9 and most_tiles(None) is None
    assert most_tiles(np.int32(2**31 - 1)) == 2**16 - 1, "numpy's integers overflow"
    assert most_tiles(DEFAULT_MAX_PIXELS) * TILE**2 <= 2 * DEFAULT_MAX_PIXELS


def test_a_long_thin_picture_becomes_a_file(codec):
    pixels = np.zeros((700_000, 1), np.uint8)
    data = codec.compress(pixels, effort=0)
    assert titokcodec.info(data).layout == "fit"
    assert codec.decompress(data).size == (1, 700_000)
    assert titokcodec.info(codec.compress(pixels, layout="tile")).tiles == 256
    with pytest.raises(LimitExceeded, match=r"256 tiles, over the 64 .* max_pixels=8388608"):
        codec.compress(pixels, layout="tile", max_pixels=700_000)


def test_a_target_does_not_choose_more_tiles_than_may_be_read(codec):
    pixels = np.zeros((900, 900), np.uint8)
    for most, tiles in ((900 * 900, 64), (None, 64)):
        data = codec.compress(pixels, target_bytes=10_000, max_pixels=most)
        assert titokcodec.info(data).tiles <= tiles
        codec.read(data, max_pixels=most)


@pytest.mark.parametrize("size", [(1, 1), (1, 256), (255, 257), (4000, 3000), (20_000, 1), (1, 20_000), (3, 19_999)])
@pytest.mark.parametrize("grey", [True, False])
def test_no_default_file_of_the_default_model_is_longer_than_210_bytes(size, grey):
    """By arithmetic: packed tokens are the most that a file can take."""
    from titokcodec.format.shape import Shape
    from titokcodec.packing import Packer
    from titokcodec.weights.tokenizers import read

    packer = Packer(read(None))
    shape = Shape(*size, Grid(1, 1), packer.weights.config.tokens)
    assert packer.most(shape, grey) <= 210
    assert packer.most(Shape(20_000, 20_000, Grid(1, 1), packer.weights.config.tokens), grey) <= 210


@pytest.mark.parametrize("limit", [1.5, "9", True, -1])
def test_a_limit_is_a_whole_number_or_none(codec, limit):
    data = row_of_tiles(codec, 300)
    for action in (
        codec.read,
        codec.decompress,
        lambda data, **more: titokcodec.info(io.BytesIO(data), **more),
        lambda data, **more: editing.verify(data, TINY, **more),
    ):
        with pytest.raises(titokcodec.TitokError, match="max_pixels is"):
            action(data, max_pixels=limit)
