"""A rectangle of a picture, and a mask of it with a soft edge. Needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from titokcodec.checks import whole
from titokcodec.errors import TitokError

if TYPE_CHECKING:
    import numpy as np

EDGE = 1 / 16  # width of the soft edge, as a share of the picture's sides
MOST_EDGE = 1 / 4  # and at most, as a share of the region's


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture, in its pixels. Raises ``TitokError`` if it is empty or begins outside any picture."""

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        for name, least in (("left", 0), ("top", 0), ("width", 1), ("height", 1)):
            whole(name, getattr(self, name), least)

    @classmethod
    def parse(cls, text: str) -> Region:
        """``LEFT,TOP,WIDTH,HEIGHT``, as command lines have it. Raises ``TitokError`` for anything else."""
        try:
            left, top, width, height = map(int, text.split(","))
        except ValueError:
            raise TitokError(
                f"region is {text!r}: give LEFT,TOP,WIDTH,HEIGHT in pixels, such as 64,32,128,96"
            ) from None
        return cls(left, top, width, height)

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    def check_inside(self, width: int, height: int) -> None:
        """Raise ``TitokError`` unless all of the region lies in a picture of this size."""
        if self.left + self.width > width or self.top + self.height > height:
            raise TitokError(f"region {self} is not inside the picture, which has {width}x{height} pixels")

    def mask(self, width: int, height: int, across: int | None = None, down: int | None = None) -> np.ndarray:
        """How far a picture is to change: 0 outside the region, rising over a soft edge within it to 1.

        Where the region reaches the picture's border there is nothing to go over to, and no edge.

        Args:
            width, height: Size of the picture that the region is of.
            across, down: Size of the mask, if the picture is shown at another one.

        Returns:
            (down, across) float32 in [0, 1].

        Raises:
            TitokError: The region is not inside the picture.
        """
        import numpy as np

        self.check_inside(width, height)
        columns = _ramp(self.left, self.width, width, width if across is None else across)
        rows = _ramp(self.top, self.height, height, height if down is None else down)
        return np.minimum(rows[:, None], columns[None])


def _ramp(start: int, length: int, side: int, shown: int) -> np.ndarray:
    """(shown,) float32 along one side of the picture, for the ``length`` of ``side`` pixels from ``start`` on."""
    import numpy as np

    middle = (np.arange(shown) + 0.5) * side / shown
    edge = min(EDGE * side, MOST_EDGE * length)
    before = (middle - start) / edge if start else np.inf
    after = (start + length - middle) / edge if start + length < side else np.inf
    return np.clip(np.minimum(before, after) + np.zeros(shown), 0, 1).astype(np.float32)
