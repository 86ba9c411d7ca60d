"""Tokens as callers hand them in: of any type of integer, and checked before a network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from titokcodec.errors import TitokError

INTEGERS = {torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.int64}


def shaped(tokens: object, counts: Sequence[int] = ()) -> Tensor:
    """The (B, K) tokens as int64, which every operation knows, where torch's unsigned types lack most.

    Args:
        counts: What K may be; any number but 0 unless given.

    Raises:
        TitokError: something else.
    """
    if isinstance(tokens, Tensor) and tokens.dtype in INTEGERS and tokens.ndim == 2 and not tokens.is_meta:
        count = tokens.shape[1]
        if count and (not counts or count in counts):
            return tokens.long()
    wanted = f"(B, {counts[0]})" if len(counts) == 1 else "(B, K)" + (f" with K {either(counts)}" if counts else "")
    raise TitokError(f"tokens must be a tensor of integers, {wanted}, not {described(tokens)}")


def either(counts: Sequence[int]) -> str:
    """Numbers of tokens, one of which is to be chosen: 32, 64 or 128."""
    *some, last = map(str, counts)
    return f"{', '.join(some)} or {last}" if some else last


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
