"""Where the 256x256 tiles of a picture lie. Integers only: no numpy, no Pillow.

Tiles lie on a canvas, to which the picture is scaled, whatever its aspect; the decoder scales the canvas back to the
picture's size. A plan is a pure function of what the header says, because the decoder derives it from that alone. It
is part of the file format: other constants need another version.

Layout ``fit`` is one tile: the whole picture squeezed into 256x256 pixels. Layout ``tile`` is a grid of them, whose
neighbours overlap by 32 pixels; its numbers of columns and rows stand in the file. In files of version 1 the canvas is
the picture itself, and its tiles overlap by 32 pixels or more, spread evenly: such are read, and no longer written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from titokcodec.errors import LimitExceeded, TitokError
from titokcodec.format.limits import MAX_ACROSS, TILE

OVERLAP = 32  # of two neighbours, in version 1 at least; half of it would be .06 dB better, but skies show their tiles

# How many times over tiles may cover the pixels that a caller allows. Overlaps alone make it 1.31 for a large picture
# at its own resolution; long thin ones have more, up to 256 times for a row of single
# pixels, and their work has to be bounded too.
_COVER = 2
_STEP = 1.15  # in tiles, from grid to grid: fine enough to pass over few
_ENLARGED = 64  # tiles, up to which a picture may be enlarged
_FREE_TILES = 64  # what costs little however few pixels are allowed: small pictures have more overlap


class Grid(NamedTuple):
    """Numbers of tiles from left to right, and from top to bottom."""

    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        return self.columns * self.rows

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"


FIT = Grid(1, 1)


@dataclass(frozen=True)
class Plan:
    """Where tiles lie on a canvas of ``width`` x ``height`` pixels; they are numbered row by row.

    ``lefts`` and ``tops`` are the tiles' corners along each side, ascending, from 0 to the side's length - 256.
    """

    width: int
    height: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return len(self.lefts) * len(self.tops)

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of tile ``index``."""
        row, column = divmod(index, len(self.lefts))
        return self.lefts[column], self.tops[row]


def plan(grid: Grid) -> Plan:
    """The tiles of a grid, on a canvas that they cover. Raises ``TitokError`` if no file can hold such a grid."""
    check_grid(grid)
    lefts, tops = (tuple(number * (TILE - OVERLAP) for number in range(count)) for count in grid)
    return Plan(lefts[-1] + TILE, tops[-1] + TILE, lefts, tops)


def check_grid(grid: Grid) -> None:
    """Raise ``TitokError`` unless both numbers are from 1 to 256."""
    if not all(1 <= count <= MAX_ACROSS for count in grid):
        raise TitokError(f"a grid of {grid[0]}x{grid[1]} tiles is none: give 1 to {MAX_ACROSS} columns and rows")


def nearest_grid(width: float, height: float) -> Grid:
    """The grid whose canvas is nearest to a size in pixels: for a picture's own size what layout ``tile`` means."""
    return Grid(_nearest_count(width), _nearest_count(height))


def check_grid_of(width: int, height: int, grid: Grid) -> None:
    """Raise ``TitokError`` if a grid is far finer than a picture of this size: its work would be out of all proportion.

    64 tiles are always welcome, and beyond them four times as many as have the picture's own resolution.
    """
    check_grid(grid)
    most = max(_FREE_TILES, 4 * nearest_grid(width, height).tiles)
    if grid.tiles > most:
        raise TitokError(f"a grid of {grid} tiles is too fine for a picture of {width}x{height}: give {most} at most")


def grids(width: int, height: int, most: int | None = None) -> list[Grid]:
    """Grids to choose from for a picture, from one tile on, each with up to a third more tiles than the one before.

    All of them have about the picture's aspect, as far as whole tiles can. The last has the picture's own resolution,
    or as far as 64 tiles go twice that: where there are bytes to spare, tiles that show less each show more.

    Args:
        width, height: Size of the picture in pixels.
        most: How many tiles a grid may have; None for no limit.
    """
    own = nearest_grid(width, height)
    last = max(own.tiles, min(4 * own.tiles, _ENLARGED))
    last = last if most is None else min(last, most)
    found, tiles = [FIT], 1.0
    while tiles < last:
        tiles *= _STEP
        columns = min(max(1.0, math.sqrt(tiles * width / height)), tiles)  # a long, thin picture has one row of them
        grid = Grid(min(round(columns), 2 * own.columns), min(round(tiles / columns), 2 * own.rows))
        if found[-1].tiles < grid.tiles <= last and max(grid) <= MAX_ACROSS:
            found.append(grid)
    return [*found, own] if found[-1].tiles < own.tiles <= last else found


def spread(width: int, height: int) -> Plan:
    """The tiles of a file of version 1 with layout ``tile``, on the picture itself."""
    return Plan(width, height, _spread(width), _spread(height))


def spread_grid(width: int, height: int) -> Grid:
    """How many tiles :func:`spread` would have, by arithmetic alone: safe on any size before checking a limit."""
    return Grid(_spread_count(width), _spread_count(height))


def most_tiles(max_pixels: int | None) -> int | None:
    """How many tiles a picture may have where it may have ``max_pixels`` pixels; None is no limit for either.

    The work that a file asks for goes with its tiles, not with its pixels: 1 x 2,000,000 pixels of version 1 are 8,929.
    """
    return None if max_pixels is None else max(_FREE_TILES, _COVER * int(max_pixels) // TILE**2)


def check_tiles(width: int, height: int, tiles: int, max_pixels: int | None) -> None:
    """Raise ``LimitExceeded`` if a picture has more tiles than its caller's limit on pixels allows."""
    most = most_tiles(max_pixels)
    if most is not None and tiles > most:
        enough = -(-tiles * TILE**2 // _COVER)
        raise LimitExceeded(
            f"picture of {width}x{height} has {tiles} tiles, over the {most} that a limit of {max_pixels} pixels "
            f"allows; if you trust it, give max_pixels={enough} (--max-pixels)"
        )


def _nearest_count(length: float) -> int:
    return min(max(1, round((length - OVERLAP) / (TILE - OVERLAP))), MAX_ACROSS)


def _spread_count(length: int) -> int:
    return 1 if length <= TILE else -((OVERLAP - length) // (TILE - OVERLAP))


def _spread(length: int) -> tuple[int, ...]:
    """Tiles along one side, from 0 to ``length - 256``, spread evenly and rounded half up."""
    gaps = _spread_count(length) - 1
    if gaps == 0:
        return (0,)
    return tuple((2 * i * (length - TILE) + gaps) // (2 * gaps) for i in range(gaps + 1))
