"""Any picture size on 256x256 tiles: how they are cut out of a canvas, and how they are blended back.

Where they lie on it is :mod:`titokcodec.format.layout`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import numpy as np

from titokcodec.errors import TitokError
from titokcodec.format.layout import Plan
from titokcodec.format.limits import TILE


def cut(pixels: np.ndarray, plan: Plan, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Tiles ``start`` to ``stop`` of an (H, W, 3) uint8 canvas as a new (stop - start, 256, 256, 3) uint8 array.

    Raises ``TitokError`` unless the canvas has the plan's size, and both of its sides 256 pixels or more.
    """
    stop = plan.tiles if stop is None else stop
    if pixels.shape != (plan.height, plan.width, 3):
        raise TitokError(f"the plan is for {plan.height}x{plan.width}x3 pixels, not {pixels.shape}; make a new plan")
    if min(plan.width, plan.height) < TILE:
        raise TitokError(f"a canvas of {plan.width}x{plan.height} pixels holds no tile; scale the picture to a grid's")
    if not 0 <= start <= stop <= plan.tiles:
        raise TitokError(f"tiles {start} to {stop} are not among the plan's {plan.tiles}; ask for fewer")
    tiles = np.empty((stop - start, TILE, TILE, 3), np.uint8)
    for tile, index in zip(tiles, range(start, stop), strict=True):
        left, top = plan.corner(index)
        tile[:] = pixels[top : top + TILE, left : left + TILE]
    return tiles


def cut_batches(pixels: np.ndarray, plan: Plan, size: int) -> Iterator[np.ndarray]:
    """All tiles of a canvas in order, ``size`` at most at a time, as ``cut`` gives them."""
    for start in range(0, plan.tiles, size):
        yield cut(pixels, plan, start, min(start + size, plan.tiles))


class Canvas:
    """Puts decoded tiles together again, in order, a batch at a time.

    Overlaps are blended by raised cosines over the whole width that neighbours share; the weights sum to 1 at
    every pixel, so tiles that are exact cuts give back the exact canvas. A tile's surplus on the right or at the bottom
    of a canvas that is smaller than a tile, as version 1 has them, is cut off. Only the float rows that later tiles can
    still change are kept: the peak is the uint8 result and one row of tiles as float32.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._added = 0
        self._pixels = np.empty((plan.height, plan.width * 3), np.uint8)
        # Rows from the current tops[row] on. Channels lie within the rows, so numpy's inner loops are long.
        self._open = np.zeros((min(TILE, plan.height), plan.width * 3), np.float32)
        self._columns = _windows(plan.lefts, plan.width)
        self._rows = _windows(plan.tops, plan.height)

    def add(self, tiles: np.ndarray) -> None:
        """Takes the next n tiles, (n, 256, 256, 3): uint8 in 0..255, or floats in [0, 1], clipped to that.

        Raises ``TitokError`` on another shape or type, or on more tiles than the plan has.
        """
        if tiles.ndim != 4 or tiles.shape[1:] != (TILE, TILE, 3):
            raise TitokError(f"takes tiles of shape (n, {TILE}, {TILE}, 3), not {tiles.shape}; check the axes")
        if tiles.dtype != np.uint8 and not np.issubdtype(tiles.dtype, np.floating):
            raise TitokError(f"takes uint8 tiles in 0..255 or float tiles in [0, 1], not {tiles.dtype}; convert them")
        if self._added + len(tiles) > self.plan.tiles:
            raise TitokError(f"{self._added + len(tiles)} tiles for a plan of {self.plan.tiles}; check the plan")
        for tile in tiles:
            values = tile if tile.dtype == np.uint8 else tile.astype(np.float32).clip(0, 1) * 255
            self._put(values)
            self._added += 1

    def finish(self) -> np.ndarray:
        """The canvas, (H, W, 3) uint8. Raises ``TitokError`` while tiles are missing."""
        if self._added != self.plan.tiles:
            raise TitokError(f"{self._added} of {self.plan.tiles} tiles are there; add the rest")
        return self._pixels.reshape(self.plan.height, self.plan.width, 3)

    def _put(self, tile: np.ndarray) -> None:
        plan = self.plan
        row, column = divmod(self._added, len(plan.lefts))
        across, down = np.repeat(self._columns[column], 3), self._rows[row]
        part = tile.reshape(TILE, TILE * 3)[: len(down), : len(across)] * across
        part *= down[:, None]
        left = plan.lefts[column] * 3
        self._open[: len(down), left : left + len(across)] += part
        if column == len(plan.lefts) - 1:
            self._close_rows(row)

    def _close_rows(self, row: int) -> None:
        """Rounds the rows that no later tile reaches into the result and moves the others up."""
        tops = self.plan.tops
        last = row == len(tops) - 1
        done = len(self._open) if last else tops[row + 1] - tops[row]
        finished = self._open[:done]
        self._pixels[tops[row] : tops[row] + done] = np.rint(finished, out=finished)
        if last:
            self._open = self._open[:0]
        else:
            self._open[:-done] = self._open[done:]
            self._open[-done:] = 0


def seam_contrast(pixels: np.ndarray, plan: Plan) -> float:
    """How visible the tile borders are in an (H, W, 3) uint8 canvas: 1.0 is not at all.

    The mean absolute step between neighbouring pixels across the lines where a tile begins or ends, divided by the mean
    absolute step everywhere else. 1.0 for a plan with a single tile; infinite if the rest is perfectly flat.
    """
    if plan.tiles == 1:
        return 1.0
    across = np.zeros(plan.width, np.int64)  # entry x: steps from column x - 1 to column x, summed
    down = np.zeros(plan.height, np.int64)
    for top in range(0, plan.height, TILE):
        band = pixels[max(top - 1, 0) : top + TILE].astype(np.int16)
        down[max(top, 1) : top + TILE] = np.abs(np.diff(band, axis=0)).sum(axis=(1, 2))
        band = band[min(top, 1) :]
        across[1:] += np.abs(np.diff(band, axis=1)).sum(axis=(0, 2))
    seam = rest = seam_steps = rest_steps = 0
    for sums, starts, length in ((across, plan.lefts, plan.height), (down, plan.tops, plan.width)):
        lines = _border_lines(starts, len(sums))
        seam += int(sums[lines].sum())
        rest += int(sums.sum() - sums[lines].sum())
        seam_steps += len(lines) * length * 3
        rest_steps += (len(sums) - 1 - len(lines)) * length * 3
    if rest == 0:
        return 1.0 if seam == 0 else float("inf")
    return (seam / seam_steps) / (rest / rest_steps)


def _windows(starts: tuple[int, ...], length: int) -> list[np.ndarray]:
    """Each tile's weights along one side, float32, summing to 1 at every position of the side.

    However long the side, its tiles share a few arrays.
    """
    if len(starts) == 1:
        return [np.ones(min(TILE, length), np.float32)]
    overlaps = [0, *(TILE - (b - a) for a, b in pairwise(starts)), 0]
    windows = [_window(a, b) for a, b in pairwise(overlaps)]
    if len(starts) != 3:
        return windows
    # With three tiles on 481 to 511 pixels the first and the last meet too, and ramps alone do not sum to 1.
    total = np.zeros(length)
    for start, window in zip(starts, windows, strict=True):
        total[start : start + TILE] += window
    return [(w / total[s : s + TILE]).astype(np.float32) for s, w in zip(starts, windows, strict=True)]


@lru_cache(maxsize=64)
def _window(before: int, after: int) -> np.ndarray:
    """256 weights that rise over the first ``before`` positions and fall over the last ``after``, 1 between."""
    window = np.ones(TILE)
    window[:before] *= _rise(before)
    window[TILE - after :] *= _rise(after)[::-1]
    return window.astype(np.float32)


def _rise(width: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / max(width, 1))


def _border_lines(starts: tuple[int, ...], length: int) -> np.ndarray:
    """The positions in 1..length - 1 where a tile begins or the one before it has ended."""
    lines = np.unique([edge for start in starts for edge in (start, start + TILE)])
    return lines[(lines > 0) & (lines < length)]
