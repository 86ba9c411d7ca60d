"""What a ``.titok`` file says of itself; :mod:`titokcodec.format.bitstream` describes and reads its bytes."""

from __future__ import annotations

from dataclasses import dataclass

from titokcodec.errors import TitokError
from titokcodec.format.layout import FIT, Grid, Plan, check_grid_of, plan, spread, spread_grid
from titokcodec.format.limits import FINGERPRINT_BYTES, LAYOUTS, MAX_SIDE, MAX_TOKENS


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        width, height: size of the picture in pixels, each 1 to 2**21.
        tokens: tokens per tile, 1 to 256.
        layout: ``"tile"`` (overlapping tiles) or ``"fit"`` (the whole picture on one tile).
        grid: with layout ``"tile"``, the columns and rows of a file of version 2; None in version 1.
        grey: the picture was greyscale and is to be given back as such.
        nested: every prefix of a tile's tokens is a picture.
        mode: how the payload is coded, 0 to 2 (see :mod:`titokcodec.format.entropy`).
        model_id: 1 to 255 for a released model, 0 for any other.
        fingerprint: the 8 bytes stored in the file when ``model_id`` is 0; None for a released model, whose
            fingerprint the file does not hold.

    Raises:
        TitokError: a value is outside the range that the format can hold.
    """

    width: int
    height: int
    tokens: int
    layout: str
    grey: bool
    nested: bool
    mode: int
    model_id: int
    fingerprint: bytes | None = None
    grid: Grid | None = None

    def __post_init__(self) -> None:
        _check_range("width", self.width, 1, MAX_SIDE)
        _check_range("height", self.height, 1, MAX_SIDE)
        _check_range("tokens", self.tokens, 1, MAX_TOKENS)
        _check_range("mode", self.mode, 0, 2)
        _check_range("model_id", self.model_id, 0, 255)
        if self.layout not in LAYOUTS:
            raise TitokError(f"layout is {self.layout!r}; give one of {', '.join(LAYOUTS)}")
        if self.grid is not None:
            check_grid_of(self.width, self.height, self.grid)
            if self.layout != "tile" or self.grid == FIT:
                raise TitokError("a grid has two tiles or more, and layout 'tile': give None for layout 'fit'")
        if self.model_id == 0:
            check_fingerprint(self.fingerprint)
        elif self.fingerprint is not None:
            raise TitokError(f"model id {self.model_id} stores no fingerprint; leave it None, or use model id 0")

    @property
    def version(self) -> int:
        """Of the format."""
        return 1 if self.grid is None else 2

    @property
    def tiling(self) -> Grid:
        """Columns and rows of tiles, in every version: by arithmetic alone, so safe to ask before checking a limit."""
        if self.layout == "fit":
            return FIT
        return self.grid or spread_grid(self.width, self.height)

    @property
    def tiles(self) -> int:
        """How many there are."""
        return self.tiling.tiles

    def plan(self) -> Plan:
        """Where they lie on their canvas, which is then scaled to the picture's size."""
        if self.layout == "fit":
            return plan(FIT)
        return plan(self.grid) if self.grid else spread(self.width, self.height)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value <= high:
        raise TitokError(f"{name} is {value!r}; give an integer from {low} to {high}")


def check_fingerprint(fingerprint: bytes | None) -> None:
    if not isinstance(fingerprint, bytes) or len(fingerprint) != FINGERPRINT_BYTES:
        raise TitokError(f"fingerprint is {fingerprint!r}; give the model's {FINGERPRINT_BYTES} bytes")
