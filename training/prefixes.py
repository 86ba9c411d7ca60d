"""Tail drop: a nested model learns every rate at once, by decoding parts of each batch from prefixes of their tokens.

One-D-Piece (Miwa et al. 2025) uses one length for a whole batch; here pictures of a batch have different ones, or one
batch has one and the next another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from titokcodec.models.config import TiTokConfig

SHORTER = (4, 2, 6, 2, 4, 3)  # halves of the least number of tokens that every other step keeps, with linear paths
CYCLE = 2 * len(SHORTER)  # steps until all lengths have had their turn


def prefix_lengths(config: TiTokConfig, step: int) -> list[int]:
    """Tokens kept by each equal share of the batch: most keep all, the rest takes turns on shorter prefixes.

    A fixed ladder, so that compiled graphs see few shapes. Five eighths keep all: with half of the batch at full
    length, tokens beyond the 64th learned little. With linear paths, which give every token its role, every other step
    is at full length, and a whole batch has one length: a GPU waits less for its host.
    """
    if not config.nested:
        return [config.tokens]
    if config.spectrum:
        if step % 2 == 0:
            return [config.tokens]
        return [min(SHORTER[step % CYCLE // 2] * config.min_tokens // 2, config.tokens)]
    span = config.tokens - config.min_tokens
    turn = (span // 6, span * 2 // 3) if step % 2 else (span // 3, span // 3)
    return [config.tokens] * 5 + [config.min_tokens + extra for extra in (*turn, 0)]


def decode_prefixes(
    decode: Callable[[Tensor], Tensor], codes: Tensor, lengths: list[int]
) -> tuple[Tensor, Tensor | slice]:
    """Decode (B, K, d) codes, the i-th picture from its first ``lengths[i % len(lengths)]`` of them.

    Returns:
        What ``decode`` made of them, one call for each length, and (B,) the pictures' indices in the batch, or a slice
        of all if there is one length.
    """
    if len(set(lengths)) == 1:
        return decode(codes[:, : lengths[0]]), slice(None)
    groups = _groups(len(codes), tuple(lengths), codes.device)
    decoded = torch.cat([decode(codes[which, :length]) for length, which in groups.items()])
    return decoded, torch.cat(list(groups.values()))


@lru_cache(maxsize=16)
def _groups(count: int, lengths: tuple[int, ...], device: torch.device) -> dict[int, Tensor]:
    """Which of ``count`` pictures have each length. Kept, as the host would wait for a GPU to hand it an index."""
    kept = torch.tensor(lengths).repeat(-(-count // len(lengths)))[:count]
    return {length: (kept == length).nonzero().flatten().to(device) for length in sorted(set(kept.tolist()))}
