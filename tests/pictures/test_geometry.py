"""Tiles cover every canvas, lie inside it, and come back together to exactly what was cut."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from titokcodec.errors import TitokError
from titokcodec.format.layout import (
    FIT,
    OVERLAP,
    TILE,
    Grid,
    Plan,
    grids,
    nearest_grid,
    plan,
    spread,
    spread_grid,
)
from titokcodec.pictures.geometry import Canvas, _windows, cut, seam_contrast

sides = st.integers(TILE, 700)
across = st.integers(1, 4)
quick = settings(max_examples=30, deadline=None)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width, height):
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (30 + 9 * c) + y / (40 - 7 * c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def rebuild(pixels, layout, batch=3):
    canvas = Canvas(layout)
    for start in range(0, layout.tiles, batch):
        canvas.add(cut(pixels, layout, start, min(start + batch, layout.tiles)))
    return canvas.finish()


# ---- the plan ----------------------------------------------------------------------------------------------------


def test_a_grid_is_part_of_the_format():
    assert plan(Grid(3, 1)) == Plan(704, 256, (0, 224, 448), (0,))
    assert plan(Grid(1, 2)) == Plan(256, 480, (0,), (0, 224))
    assert plan(FIT) == Plan(256, 256, (0,), (0,))
    assert plan(Grid(256, 256)).tiles == 65536


@pytest.mark.parametrize("grid", [Grid(0, 1), Grid(1, 257), Grid(-1, 3)])
def test_a_grid_that_no_file_holds_is_an_error(grid):
    with pytest.raises(TitokError, match="give 1 to 256 columns and rows"):
        plan(grid)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((256, 256), (1, 1)),
        ((1, 1), (1, 1)),
        ((367, 256), (1, 1)),
        ((369, 256), (2, 1)),
        ((768, 512), (3, 2)),
        ((4000, 3000), (18, 13)),
        ((20_000, 20_000), (89, 89)),
        ((1, 2**21), (1, 256)),
    ],
)
def test_the_nearest_grid_has_the_pictures_resolution(size, grid):
    assert nearest_grid(*size) == grid


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.none() | st.integers(1, 500))
@example(1489, 7609, None)
@settings(deadline=None)
def test_grids_to_choose_from_grow_from_one_tile_and_keep_the_aspect(width, height, most):
    found = grids(width, height, most)
    own = nearest_grid(width, height)
    assert found[0] == FIT
    counts = [grid.tiles for grid in found]
    assert counts == sorted(set(counts)) and (most is None or counts[-1] <= most)
    for grid in found:
        plan(grid)
        assert grid.columns <= 2 * own.columns and grid.rows <= 2 * own.rows
        if min(grid) > 2:
            assert 0.6 < (grid.columns / grid.rows) / (width / height) < 1.6
    if most is None and max(own) < 256:
        assert counts[-1] >= own.tiles, "a picture can be drawn at its own resolution"
        assert own.tiles > 16 or counts[-1] >= 2 * own.tiles, "and beyond"


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
def test_tiles_of_version_1_lie_where_they_lay(length, starts):
    assert spread(length, 1).lefts == starts
    assert spread(1, length).tops == starts


@given(st.integers(1, 20_000))
@settings(deadline=None)
def test_tiles_of_version_1_cover_any_side_evenly(length):
    starts = spread(length, 1).lefts
    assert spread_grid(length, 1) == (len(starts), 1)
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
    for starts, side in ((spread(length, 1).lefts, length), (plan(Grid(length % 256 + 1, 1)).lefts, None)):
        total = np.zeros(side or starts[-1] + TILE)
        for start, window in zip(starts, _windows(starts, len(total)), strict=True):
            assert (window > 0).all()
            assert (window <= 1).all()
            total[start : start + TILE] += window
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_counting_the_tiles_of_an_enormous_picture_builds_nothing():
    assert spread_grid(10**15, 10**15) == ((-(-(10**15 - OVERLAP) // (TILE - OVERLAP))),) * 2


# ---- cutting and blending ----------------------------------------------------------------------------------------


@given(across, across, st.integers(1, 9))
@quick
def test_exact_cuts_give_back_the_exact_canvas(columns, rows, batch):
    laid = plan(Grid(columns, rows))
    pixels = noise(laid.width, laid.height)
    np.testing.assert_array_equal(rebuild(pixels, laid, batch), pixels)


@given(sides, sides, st.integers(1, 9))
@example(481, 511, 2)
@quick
def test_and_so_they_do_where_version_1_had_them(width, height, batch):
    pixels = noise(width, height)
    np.testing.assert_array_equal(rebuild(pixels, spread(width, height), batch), pixels)


def test_of_a_picture_smaller_than_its_tile_version_1_shows_the_beginning():
    canvas, tile = Canvas(spread(90, 3)), noise(TILE, TILE)
    canvas.add(tile[None])
    np.testing.assert_array_equal(canvas.finish(), tile[:3, :90])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiles_are_in_zero_to_one_and_clipped(dtype):
    pixels = noise(300, 280)
    layout = spread(300, 280)
    canvas = Canvas(layout)
    canvas.add(cut(pixels, layout).astype(dtype) / dtype(255))
    np.testing.assert_array_equal(canvas.finish(), pixels)
    canvas = Canvas(plan(FIT))
    canvas.add(np.where(np.arange(TILE)[:, None] < 100, -0.5, 1.5).astype(dtype) * np.ones((1, TILE, TILE, 3), dtype))
    assert set(np.unique(canvas.finish())) == {0, 255}


def test_tiles_are_numbered_row_by_row_and_batches_agree_with_the_whole():
    pixels = noise(600, 500)
    layout = spread(600, 500)
    whole = cut(pixels, layout)
    assert whole.shape == (9, TILE, TILE, 3)
    np.testing.assert_array_equal(whole[5], pixels[122 : 122 + TILE, 344 : 344 + TILE])
    np.testing.assert_array_equal(cut(pixels, layout, 4, 6), whole[4:6])
    assert cut(pixels, layout, 2, 2).shape == (0, TILE, TILE, 3)


@pytest.mark.parametrize("width", [257, 480, 481, 500, 600, 1000])
def test_tiles_of_different_brightness_meet_without_a_step(width):
    layout = spread(width, 1)
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
    layout = spread(width, height)
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
    layout = spread(300, 300)
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
    layout = spread(300, 300)
    with pytest.raises(TitokError, match="plan is for"):
        cut(noise(300, 299), layout)
    with pytest.raises(TitokError, match="tiles 2 to 5"):
        cut(noise(300, 300), layout, 2, 5)
    with pytest.raises(TitokError, match="300x200 pixels holds no tile"):
        cut(noise(300, 200), spread(300, 200))


# ---- seams -------------------------------------------------------------------------------------------------------


def test_seam_contrast_is_one_without_seams_and_large_with_them():
    layout = spread(600, 700)
    assert seam_contrast(noise(600, 700), layout) == pytest.approx(1, abs=0.02)
    stepped = smooth(600, 700) // 2
    stepped[:, layout.lefts[1] :] += 60
    stepped[layout.tops[1] + TILE :] += 60
    assert seam_contrast(stepped, layout) > 5


def test_seam_contrast_agrees_with_its_definition():
    pixels = smooth(500, 600)
    layout = spread(500, 600)
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
    assert seam_contrast(flat, spread(300, 300)) == 1
    assert seam_contrast(noise(256, 256), plan(FIT)) == 1
    flat[:, 44:] = 9
    assert seam_contrast(flat, spread(300, 300)) == float("inf")
