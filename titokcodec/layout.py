"""Where the 256x256 tiles of a picture lie. Integers only: no numpy, no Pillow.

A plan is a pure function of width, height and layout, because the decoder derives it again from the header. It is part
of file format version 1: other constants need another version.

Layout ``fit`` scales the whole picture to one tile, whatever its aspect, and back. Layout ``tile`` covers it with
tiles that overlap by 32 pixels or more, spread evenly, so that every side above 256 needs no padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from titokcodec.errors import LimitExceeded, TitokError

TILE = 256
OVERLAP = 32  # the least overlap of two neighbours
FIT_SIDE = 320  # up to here one tile holds the picture at 80 % of its resolution or better

# How many times over tiles may cover the pixels that a caller allows. Overlaps alone make it 1.31 for a large picture;
# long thin ones have more, up to 256 times for a row of single pixels, and their work has to be bounded too.
_COVER = 2
_FREE_TILES = 64  # what costs little however few pixels are allowed: small pictures have more overlap

Layout: TypeAlias = Literal["fit", "tile"]


@dataclass(frozen=True)
class Plan:
    """Where the tiles of a picture lie, in pixels; they are numbered row by row.

    ``lefts`` and ``tops`` are the tiles' corners along each side, ascending, from 0 to the side's length - 256.
    """

    width: int
    height: int
    layout: Layout
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    @property
    def tiles(self) -> int:
        return len(self.lefts) * len(self.tops)

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of tile ``index``."""
        row, column = divmod(index, len(self.lefts))
        return self.lefts[column], self.tops[row]


def choose_layout(width: int, height: int, max_tiles: int | None = None) -> Layout:
    """What ``auto`` means: ``fit`` if the longer side is at most 320, or there would be too many tiles, else ``tile``.

    Only a picture that is long and very thin has more tiles than its pixels allow, see :func:`most_tiles`.
    """
    if max(width, height) <= FIT_SIDE or (max_tiles is not None and tile_count(width, height, "tile") > max_tiles):
        return "fit"
    return "tile"


def most_tiles(max_pixels: int | None) -> int | None:
    """How many tiles a picture may have where it may have ``max_pixels`` pixels; None is no limit for either.

    The work that a file asks for goes with its tiles, not with its pixels: 1 x 2,000,000 pixels are 8,929 tiles.
    """
    return None if max_pixels is None else max(_FREE_TILES, _COVER * int(max_pixels) // TILE**2)


def check_tiles(width: int, height: int, layout: Layout, max_pixels: int | None) -> None:
    """Raise ``LimitExceeded`` if a picture has more tiles than its caller's limit on pixels allows."""
    tiles, most = tile_count(width, height, layout), most_tiles(max_pixels)
    if most is not None and tiles > most:
        enough = -(-tiles * TILE**2 // _COVER)
        raise LimitExceeded(
            f"picture of {width}x{height} has {tiles} tiles, over the {most} that a limit of {max_pixels} pixels "
            f"allows; if you trust it, give max_pixels={enough} (--max-pixels)"
        )


def tile_count(width: int, height: int, layout: Layout) -> int:
    """How many tiles :func:`plan` would have, by arithmetic alone: safe on any size before checking a limit."""
    _check(width, height, layout)
    return 1 if layout == "fit" else _count(width) * _count(height)


def plan(width: int, height: int, layout: Layout) -> Plan:
    """Lays out a picture of ``width`` x ``height`` pixels. Raises ``TitokError`` on an empty size or another layout."""
    _check(width, height, layout)
    if layout == "fit":
        return Plan(width, height, layout, (0,), (0,))
    return Plan(width, height, layout, _starts(width), _starts(height))


def _check(width: int, height: int, layout: str) -> None:
    if width < 1 or height < 1:
        raise TitokError(f"a picture of {width}x{height} has no pixels; give at least 1x1")
    if layout not in ("fit", "tile"):
        raise TitokError(f"layout {layout!r} is unknown; use 'fit' or 'tile'")


def _count(length: int) -> int:
    return 1 if length <= TILE else -((OVERLAP - length) // (TILE - OVERLAP))


def _starts(length: int) -> tuple[int, ...]:
    """Tiles along one side, from 0 to ``length - 256``, spread evenly and rounded half up."""
    gaps = _count(length) - 1
    if gaps == 0:
        return (0,)
    return tuple((2 * i * (length - TILE) + gaps) // (2 * gaps) for i in range(gaps + 1))
