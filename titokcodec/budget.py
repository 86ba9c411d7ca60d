"""Meeting a size in bytes: which scale, layout and number of tokens to take for a given picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from titokcodec.checks import whole_or_none
from titokcodec.errors import TitokError
from titokcodec.layout import FIT_SIDE, TILE, choose_layout, tile_count
from titokcodec.models.config import TiTokConfig

LAYOUTS = ("auto", "fit", "tile")  # what a caller may ask for

_STEP = 0.9  # sizes tried are this factor apart


@dataclass(frozen=True)
class Choice:
    """A way to write a picture: the size it is scaled to, its layout and its tokens a tile."""

    width: int
    height: int
    layout: str
    tokens: int


def scaled(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """The size with its longer side at most ``max_side``, never enlarged, in its own aspect.

    Raises ``TitokError`` unless ``max_side`` is None or a whole number from 1 on.
    """
    side = whole_or_none("max_side", max_side, 1)
    if side is None or max(width, height) <= side:
        return width, height
    factor = side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def choose(
    width: int, height: int, layout: str, target: int, config: TiTokConfig, size: Callable[[Choice], int],
    max_tiles: int | None = None,
) -> Choice:
    """The largest scale at which every tile gets a fair number of tokens, with as many of them as fit.

    Half of the model's tokens is fair: fewer on more tiles show less than more on fewer. When even one tile cannot
    have that, it takes what there is.

    Args:
        width, height: Size of the picture.
        layout: ``auto``, ``fit`` or ``tile``.
        target: Bytes that the file may have.
        config: The model's.
        size: Upper bound on the file's bytes for a choice.
        max_tiles: How many tiles it may have; None for no limit.

    Raises:
        TitokError: no choice is small enough; the message says what the least would be.
    """
    fair = max(config.min_tokens, config.tokens // 2)
    *scaled_down, smallest = _candidates(width, height, layout)
    if max_tiles is not None:
        scaled_down = [c for c in scaled_down if tile_count(c.width, c.height, c.layout) <= max_tiles]
    for choice, least in [*((choice, fair) for choice in scaled_down), (smallest, config.min_tokens)]:
        if size(replace(choice, tokens=least)) <= target:
            counts = range(config.tokens, least - 1, -1)
            return next(c for k in counts if size(c := replace(choice, tokens=k)) <= target)
    least = size(replace(smallest, tokens=config.min_tokens))
    raise TitokError(f"cannot make this picture {target} bytes: the least that this model can promise is {least}")


def _candidates(width: int, height: int, layout: str) -> list[Choice]:
    """From the picture's own size down to a single tile. A fitted tile keeps the size, whatever it is."""
    if layout not in LAYOUTS:
        raise TitokError(f"layout {layout!r} is unknown; use 'auto', 'fit' or 'tile'")
    fit = Choice(width, height, "fit", 0)
    if layout == "fit" or (layout == "auto" and choose_layout(width, height) == "fit"):
        return [fit]
    found, factor = [], 1.0
    while max(width, height) * factor > (FIT_SIDE if layout == "auto" else TILE):
        choice = Choice(*scaled(width, height, round(max(width, height) * factor)), "tile", 0)
        if layout == "auto" and found and choice.width * choice.height < TILE**2:
            break  # a long, thin picture: fitted to one tile it keeps more of its pixels than this
        found.append(choice)
        factor *= _STEP
    return [*found, fit if layout == "auto" else Choice(*scaled(width, height, TILE), "tile", 0)]
