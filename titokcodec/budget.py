"""Meeting a size in bytes: which scale, layout and number of tokens to take for a given picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from titokcodec.errors import TitokError
from titokcodec.layout import FIT_SIDE, TILE, choose_layout
from titokcodec.models.config import TiTokConfig

_STEP = 0.9  # sizes tried are this factor apart


@dataclass(frozen=True)
class Choice:
    """A way to write a picture: the size it is scaled to, its layout and its tokens a tile."""

    width: int
    height: int
    layout: str
    tokens: int


def scaled(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """The size with its longer side at most ``max_side``, never enlarged, in its own aspect."""
    if max_side is None or max(width, height) <= max_side:
        return width, height
    if max_side < 1:
        raise TitokError(f"max_side is {max_side}: give 1 or more")
    factor = max_side / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def choose(
    width: int, height: int, layout: str, target: int, config: TiTokConfig, size: Callable[[Choice], int]
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

    Raises:
        TitokError: no choice is small enough; the message says what the least would be.
    """
    fair = max(config.min_tokens, config.tokens // 2)
    *scaled_down, smallest = _candidates(width, height, layout)
    for choice, least in [*((choice, fair) for choice in scaled_down), (smallest, config.min_tokens)]:
        if size(replace(choice, tokens=least)) <= target:
            counts = range(config.tokens, least - 1, -1)
            return next(c for k in counts if size(c := replace(choice, tokens=k)) <= target)
    least = size(replace(smallest, tokens=config.min_tokens))
    raise TitokError(f"cannot make this picture {target} bytes: the least that this model can promise is {least}")


def _candidates(width: int, height: int, layout: str) -> list[Choice]:
    """From the picture's own size down to a single tile. A fitted tile keeps the size, whatever it is."""
    if layout not in ("auto", "fit", "tile"):
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
