"""Mask schedules: how many tokens are still masked, from all of them to none (Chang et al. 2022, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "arccos": lambda ratio: torch.arccos(ratio) * (2 / math.pi),
    "linear": lambda ratio: 1 - ratio,
    "cosine": lambda ratio: torch.cos(ratio * (math.pi / 2)),
    "root": lambda ratio: 1 - torch.sqrt(ratio),
}


def mask_fraction(schedule: str, ratio: float | Tensor) -> float | Tensor:
    """The share of tokens that is masked, falling from 1 at ratio 0 to 0 at ratio 1.

    Sampling goes through the ratios in order; training draws them uniformly (a tensor gives a tensor of its shape).
    """
    if isinstance(ratio, Tensor):
        return SCHEDULES[schedule](ratio)
    return SCHEDULES[schedule](torch.tensor(ratio, dtype=torch.float64, device="cpu")).item()


def masked_counts(schedule: str, steps: int, hidden: int) -> list[int]:
    """How many of ``hidden`` masked tokens are masked after each step.

    The schedule's share, rounded down; but every step reveals one at least, and one at least is left to the last step,
    which reveals all. As published, a step that finds a single one left before the last masks it again.
    """
    counts: list[int] = []
    for step in range(1, steps):
        # The tiny extra is for shares that are whole numbers but for rounding; no arccos at a published size is.
        share = math.floor(hidden * mask_fraction(schedule, step / steps) + 1e-9)
        before = counts[-1] if counts else hidden
        counts.append(min(before, max(1, min(before - 1, share))))
    return [*counts, 0]
