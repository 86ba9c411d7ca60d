"""How much of a codebook is in use."""

from __future__ import annotations

import torch
from torch import Tensor


def codebook_usage(tokens: Tensor, codes: int) -> dict[str, float | list[int] | list[float]]:
    """How (N, K) tokens use a codebook of ``codes`` codes, over all positions and at each.

    Returns:
        ``usage``, the share of codes that occur, and ``distinct``, their number; ``entropy`` of the empirical
        distribution in bits a token, log2(N K) at most; and a list over positions of each of these:
        ``usage_by_position``, ``distinct_by_position``, ``entropy_by_position`` (log2(N) at most).
    """
    distinct, entropy = _distinct_and_entropy(tokens.flatten(), codes)
    each = [_distinct_and_entropy(column, codes) for column in tokens.T]
    return {
        "usage": distinct / codes,
        "entropy": entropy,
        "distinct": distinct,
        "usage_by_position": [found / codes for found, _ in each],
        "distinct_by_position": [found for found, _ in each],
        "entropy_by_position": [bits for _, bits in each],
    }


def _distinct_and_entropy(tokens: Tensor, codes: int) -> tuple[int, float]:
    counts = torch.bincount(tokens, minlength=codes)
    share = counts[counts > 0].float() / len(tokens)
    return len(share), float(-(share * share.log2()).sum()) + 0.0  # not -0.0
