"""Which tokens a generator has to predict, and the loss of its predictions (MaskGIT, Chang et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.schedules import mask_fraction


def draw_masks(shape: tuple[int, int], schedule: str, generator: torch.Generator) -> Tensor:
    """(B, K) bool, true where a token is masked: the schedule's share at a uniform ratio, at least one a row."""
    count, device = shape[1], generator.device
    share = mask_fraction(schedule, torch.rand(shape[0], generator=generator, device=device))
    masked = (share * count).round().clamp(min=1)
    ranks = torch.rand(shape, generator=generator, device=device).argsort(1).argsort(1)
    return ranks < masked[:, None]


def masked_loss(
    logits: Tensor, target: Tensor, masks: Tensor, smoothing: float, unmasked: float, mine: slice = slice(None)
) -> Tensor:
    """Mean cross entropy over (B, K) tokens, where what was not masked weighs ``unmasked``.

    Args:
        masks: (B', K) of the batch of all ranks, of which these are the rows ``mine``. Ranks mask unequal numbers of
            tokens; what each counts is measured by all, so that the mean over ranks is that over all tokens.
    """
    each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing, reduction="none")
    weights = torch.where(masks, 1.0, unmasked)
    return (each * weights[mine].flatten()).sum() / (weights.sum() * (len(target) / len(masks)))
