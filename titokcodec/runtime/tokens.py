"""Tokens as callers hand them in: of any type of integer, and checked before a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.errors import TitokError

INTEGERS = {torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.int64}


def shaped(tokens: object, columns: int | None = None) -> Tensor:
    """The (B, K) tokens as int64, which every operation knows, where torch's unsigned types lack most.

    Args:
        columns: What K has to be; any number but 0 unless given.

    Raises:
        TitokError: something else.
    """
    if isinstance(tokens, Tensor) and tokens.dtype in INTEGERS and tokens.ndim == 2 and not tokens.is_meta:
        count = tokens.shape[1]
        if count and columns in (None, count):
            return tokens.long()
    raise TitokError(f"takes a tensor of integer tokens, (B, {columns or 'K'}), not {described(tokens)}")


def in_range(tokens: Tensor, codes: int) -> Tensor:
    """The tokens, all of them from 0 to below ``codes``. Raises ``TitokError`` otherwise."""
    if ((tokens < 0) | (tokens >= codes)).any():
        raise TitokError(f"a token is out of range: give 0 to {codes - 1}")
    return tokens


def described(given: object) -> str:
    """Type and shape of what should have been a tensor."""
    if not isinstance(given, Tensor):
        return type(given).__name__
    return f"{given.dtype} {tuple(given.shape)}" + ", which is on the meta device and empty" * given.is_meta
