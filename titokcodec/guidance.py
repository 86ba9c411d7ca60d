"""Classifier-free guidance: how far logits go beyond those of a class, away from those of none (Ho and Salimans 2022).

The scale changes while a picture is sampled. Step t of T reads t/T, with t counted from 0.
"""

from __future__ import annotations

import math

from torch import Tensor

# The guidance scale at which the guided logits are the conditional ones, so that the other branch can be spared.
NEUTRAL = {"constant": 0.0, "linear": 0.0, "cosine": 0.0, "linear-decay": 0.0, "power-cosine": 1.0}
POWER = 3  # of the power-cosine decay


def guidance_scale_at(
    guidance: str, scale: float, step: int, steps: int, interval: tuple[float, float] = (0.0, 1.0)
) -> float:
    """The guidance scale of one step, counted from 0.

    ``linear`` grows from 0, no guidance at all, at the first step to (T-1)/T of the scale at the last, as published.
    ``cosine`` does so slowly at either end, and ``linear-decay`` falls from the scale to 1/T of it (both as Wang et al.
    2024, "Analysis of classifier-free guidance weight schedulers", compare them). ``power-cosine`` grows from 1, the
    neutral value of its own rule, to nearly all of it (MDT, Gao et al. 2023).

    Args:
        guidance: A key of ``NEUTRAL``.
        scale: The scale at its largest.
        step, steps: t and T.
        interval: From which share of the steps on there is guidance, and from which on no more; the scale is neutral
            outside (Kynkaanniemi et al. 2024).
    """
    ratio = step / steps
    if not interval[0] <= ratio < interval[1]:
        return NEUTRAL[guidance]
    if guidance == "linear":
        return scale * step / steps
    if guidance == "cosine":
        return scale * (1 - math.cos(math.pi * ratio)) / 2
    if guidance == "linear-decay":
        return scale * (1 - ratio)
    if guidance == "power-cosine":
        return (scale - 1) * (1 - math.cos(math.pi * ratio**POWER)) / 2 + 1
    return scale


def guide(guidance: str, scale: float, conditional: Tensor, unconditional: Tensor) -> Tensor:
    """Logits beyond the conditional ones, as seen from the unconditional ones.

    The published kinds count the scale from different ends: ``power-cosine`` from the unconditional logits, the others
    from the conditional ones, so that a scale of 4.5 there is one of 5.5 here.
    """
    start = unconditional if guidance == "power-cosine" else conditional
    return start + scale * (conditional - unconditional)
