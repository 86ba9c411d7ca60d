"""Tiles cover every picture, lie inside it, and come back together to exactly what was cut."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from titokcodec.errors import TitokError
from titokcodec.geometry import (
    FIT_SIDE,
    OVERLAP,
    TILE,
    Canvas,
    _windows,
    choose_layout,
    cut,
    plan,
    seam_contrast,
    tile_count,
)

sides = st.integers(1, 700)
quick = settings(max_examples=30, deadline=None)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width, height):
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (30 + 9 * c) + y / (40 - 7 * c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def rebuild(pixels, layout="tile", batch=3):
    layout = plan(pixels.shape[1], pixels.shape[0], layout)
    canvas = Canvas(layout)
    for start in range(0, layout.tiles, batch):
        canvas.add(cut(pixels, layout, start, min(start + batch, layout.tiles)))
    return canvas.finish()


# ---- the plan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1, (0,)),
        (256, (0,)),
        (257, (0, 1)),
        (480, (0, 224)),
        (481, (0, 113, 225)),
        (704, (0, 224, 448)),
        (705, (0, 150, 299, 449)),
        (1000, (0, 186, 372, 558, 744)),
    ],
)
def test_tiles_along_a_side_are_part_of_the_format(length, starts):
    assert plan(length, 1, "tile").lefts == starts
    assert plan(1, length, "tile").tops == starts


@given(st.integers(1, 20_000))
@settings(deadline=None)
def test_tiles_of_any_side_cover_it_evenly_inside_it_and_no_more_than_needed(length):
    starts = plan(length, 1, "tile").lefts
    assert len(starts) == tile_count(length, 1, "tile")
    assert starts[0] == 0
    if length <= TILE:
        assert starts == (0,)
        return
    assert starts[-1] == length - TILE
    gaps = np.diff(starts)
    assert gaps.max() <= TILE - OVERLAP
    assert gaps.max() - gaps.min() <= 1
    assert (len(starts) - 1) * (TILE - OVERLAP) + OVERLAP < length  # one tile less would not reach


@given(st.integers(1, 3000))
@example(481)
@example(511)
@settings(deadline=None)
def test_weights_are_positive_and_sum_to_one_at_every_pixel(length):
    starts = plan(length, 1, "tile").lefts
    total = np.zeros(length)
    for start, window in zip(starts, _windows(starts, length), strict=True):
        assert (window > 0).all()
        assert (window <= 1).all()
        total[start : start + TILE] += window
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_fit_plan_is_one_tile_and_auto_fits_what_one_tile_holds():
    assert plan(5000, 40, "fit").tiles == tile_count(5000, 40, "fit") == 1
    assert choose_layout(FIT_SIDE, 1) == choose_layout(256, 256) == "fit"
    assert choose_layout(1, FIT_SIDE + 1) == choose_layout(1000, 1000) == "tile"


def test_counting_the_tiles_of_an_enormous_picture_builds_nothing():
    assert tile_count(10**15, 10**15, "tile") == (-(-(10**15 - OVERLAP) // (TILE - OVERLAP))) ** 2


@pytest.mark.parametrize("bad", [(0, 5, "tile"), (5, -1, "fit"), (5, 5, "auto"), (5, 5, "")])
def test_an_empty_picture_or_an_unknown_layout_is_an_error(bad):
    for function in (plan, tile_count):
        with pytest.raises(TitokError) as caught:
            function(*bad)
        assert "\n" not in str(caught.value)


# ---- cutting and blending ----------------------------------------------------------------------------------------


@given(sides, sides, st.integers(1, 9))
@example(1, 1, 1)
@example(481, 511, 2)
@quick
def test_exact_cuts_give_back_the_exact_picture(width, height, batch):
    pixels = noise(width, height)
    np.testing.assert_array_equal(rebuild(pixels, batch=batch), pixels)


@pytest.mark.parametrize(("width", "height"), [(5000, 40), (40, 2000), (900, 1400), (3, 300)])
def test_exact_cuts_of_panoramas_and_portraits(width, height):
    pixels = noise(width, height)
    np.testing.assert_array_equal(rebuild(pixels, batch=7), pixels)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiles_are_in_zero_to_one_and_clipped(dtype):
    pixels = noise(300, 280)
    layout = plan(300, 280, "tile")
    canvas = Canvas(layout)
    canvas.add(cut(pixels, layout).astype(dtype) / dtype(255))
    np.testing.assert_array_equal(canvas.finish(), pixels)
    canvas = Canvas(plan(256, 256, "tile"))
    canvas.add(np.where(np.arange(TILE)[:, None] < 100, -0.5, 1.5).astype(dtype) * np.ones((1, TILE, TILE, 3), dtype))
    assert set(np.unique(canvas.finish())) == {0, 255}


def test_tiles_are_numbered_row_by_row_and_batches_agree_with_the_whole():
    pixels = noise(600, 500)
    layout = plan(600, 500, "tile")
    whole = cut(pixels, layout)
    assert whole.shape == (9, TILE, TILE, 3)
    np.testing.assert_array_equal(whole[5], pixels[122 : 122 + TILE, 344 : 344 + TILE])
    np.testing.assert_array_equal(cut(pixels, layout, 4, 6), whole[4:6])
    assert cut(pixels, layout, 2, 2).shape == (0, TILE, TILE, 3)


def test_small_sides_are_reflected_as_often_as_needed():
    pixels = np.arange(3, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    tile = cut(pixels, plan(3, 1, "tile"))[0]
    assert tile[0, :9, 0].tolist() == [0, 1, 2, 2, 1, 0, 0, 1, 2]
    assert (tile == tile[0]).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (256, 256), (5000, 40), (90, 1200)])
def test_fit_gives_back_the_size_and_nearly_the_picture(width, height):
    pixels = smooth(width, height)
    tiles = cut(pixels, plan(width, height, "fit"))
    assert tiles.shape == (1, TILE, TILE, 3)
    again = rebuild(pixels, "fit")
    assert again.shape == pixels.shape
    assert again.dtype == np.uint8
    if (width, height) == (256, 256):
        np.testing.assert_array_equal(again, pixels)
    if width < 1000:
        assert np.abs(again.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("width", [257, 480, 481, 500, 600, 1000])
def test_tiles_of_different_brightness_meet_without_a_step(width):
    layout = plan(width, 1, "tile")
    levels = np.linspace(20, 220, layout.tiles).astype(np.uint8)
    canvas = Canvas(layout)
    canvas.add(np.ones((layout.tiles, TILE, TILE, 3), np.uint8) * levels[:, None, None, None])
    row = canvas.finish()[0, :, 0].astype(int)
    steps = np.diff(row)
    assert row[0] == 20
    assert row[-1] == 220
    assert (steps >= 0).all()
    shared = TILE - np.diff(layout.lefts).max()
    assert steps.max() <= np.pi / 2 * np.diff(levels.astype(int)).max() / shared + 1


def test_blending_keeps_one_row_of_tiles_beside_the_result():
    width, height = 700, 6000
    layout = plan(width, height, "tile")
    tiles = np.full((4, TILE, TILE, 3), 200, np.uint8)
    tracemalloc.start()
    try:
        canvas = Canvas(layout)
        for start in range(0, layout.tiles, 4):
            canvas.add(tiles[: min(4, layout.tiles - start)])
        result = canvas.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result == 200).all()
    row_of_tiles = width * TILE * 3 * 4
    assert peak < result.nbytes + 2 * row_of_tiles + 6 * TILE * TILE * 3 * 4


def test_wrong_tiles_are_refused_in_one_line():
    layout = plan(300, 300, "tile")
    good = np.zeros((1, TILE, TILE, 3), np.uint8)
    for bad in (good[0], good[:, :-1], good.transpose(0, 3, 1, 2), good.astype(int), np.repeat(good, 5, axis=0)):
        with pytest.raises(TitokError) as caught:
            Canvas(layout).add(bad)
        assert "\n" not in str(caught.value)
    canvas = Canvas(layout)
    canvas.add(good)
    with pytest.raises(TitokError, match="1 of 4"):
        canvas.finish()


def test_wrong_cuts_are_refused():
    layout = plan(300, 300, "tile")
    with pytest.raises(TitokError, match="plan is for"):
        cut(noise(300, 299), layout)
    with pytest.raises(TitokError, match="tiles 2 to 5"):
        cut(noise(300, 300), layout, 2, 5)


# ---- seams -------------------------------------------------------------------------------------------------------


def test_seam_contrast_is_one_without_seams_and_large_with_them():
    layout = plan(600, 700, "tile")
    assert seam_contrast(noise(600, 700), layout) == pytest.approx(1, abs=0.02)
    stepped = smooth(600, 700) // 2
    stepped[:, layout.lefts[1] :] += 60
    stepped[layout.tops[1] + TILE :] += 60
    assert seam_contrast(stepped, layout) > 5


def test_seam_contrast_agrees_with_its_definition():
    pixels = smooth(500, 600)
    layout = plan(500, 600, "tile")
    seams, others = [], []
    for axis, starts in ((1, layout.lefts), (0, layout.tops)):
        steps = np.abs(np.diff(pixels.astype(int), axis=axis)).swapaxes(0, axis)
        lines = {edge for start in starts for edge in (start, start + TILE)}
        for place, step in enumerate(steps, start=1):
            (seams if place in lines else others).append(step.ravel())
    expected = np.concatenate(seams).mean() / np.concatenate(others).mean()
    assert seam_contrast(pixels, layout) == pytest.approx(expected)


def test_seam_contrast_of_flat_and_single_tile_pictures():
    flat = np.zeros((300, 300, 3), np.uint8)
    assert seam_contrast(flat, plan(300, 300, "tile")) == 1
    assert seam_contrast(noise(300, 300), plan(300, 300, "fit")) == 1
    flat[:, 44:] = 9
    assert seam_contrast(flat, plan(300, 300, "tile")) == float("inf")
