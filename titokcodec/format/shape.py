"""How a picture is written: its size, the grid of tiles that it is laid on, and their tokens."""

from __future__ import annotations

from dataclasses import dataclass

from titokcodec.checks import whole_or_none
from titokcodec.format.layout import FIT, Grid


@dataclass(frozen=True)
class Shape:
    """The size in pixels that is given back, the grid, and the number of tokens of each of its tiles."""

    width: int
    height: int
    grid: Grid
    tokens: int

    @property
    def layout(self) -> str:
        """``fit`` for one tile, ``tile`` for several."""
        return "fit" if self.grid == FIT else "tile"


def scaled(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """The size with its longer side at most ``max_side``, never enlarged, in its own aspect.

    Raises ``TitokError`` unless ``max_side`` is None or a whole number from 1 on.
    """
    side = whole_or_none("max_side", max_side, 1)
    if side is None or max(width, height) <= side:
        return width, height
    factor = side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))
