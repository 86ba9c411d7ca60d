"""MaskGIT's sampler: start from masks, predict every token, keep the most confident, mask the rest again.

Chang et al. 2022, sections 3.2 (decoding) and 3.3 (schedules); Yu et al. 2024 for the numbers in ``PUBLISHED``. Step t
of T goes by two clocks: guidance reads t/T, with t counted from 0; masks and temperatures read (t+1)/T.

    logits (B,K,N), guided -> + noise, argmax -> tokens (B,K)
    their logits (B,K) -> + noise again -> the least confident are masked again

Nothing in the loop waits for the device: all that steers it is known before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from titokcodec.errors import TitokError
from titokcodec.runtime.transfer import to_device

Logits = Callable[[Tensor, Tensor], Tensor]
"""(B, K) tokens with masks and (B,) labels, -1 for no class -> (B, K, N) float32."""
Noise = Callable[[int, tuple[int, ...]], Tensor]
"""Step and shape -> float32 of that shape, uniform in [0, 1). Asked twice a step: for (B, K, N), then for (B, K)."""

SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "arccos": lambda ratio: torch.arccos(ratio) * (2 / math.pi),
    "linear": lambda ratio: 1 - ratio,
    "cosine": lambda ratio: torch.cos(ratio * (math.pi / 2)),
    "root": lambda ratio: 1 - torch.sqrt(ratio),
}
# The guidance scale at which the guided logits are the conditional ones, so that the other branch can be spared.
NEUTRAL = {"constant": 0.0, "linear": 0.0, "power-cosine": 1.0}
POWER = 3  # of the power-cosine decay
MOST_STEPS = 10_000
LARGEST = torch.finfo(torch.float32).max  # logits are of that type


@dataclass(frozen=True)
class Settings:
    """How to sample. Raises ``TitokError`` for values that make no sense.

    Attributes:
        steps: T, passes through the network. More than tokens are of no use.
        guidance_scale: How far to go from what fits any class to what fits the one asked for.
        guidance: How that scale changes over the steps: ``constant``, ``linear`` or ``power-cosine``.
        schedule: How many tokens stay masked: ``arccos``, ``linear``, ``cosine`` or ``root``.
        temperature: Of the noise at the start; it falls to 0 at the last step. 0 always takes the likeliest.
        softmax_temperature: Divide logits by a temperature that falls from 1.3 to 0.5.
    """

    steps: int = 8
    guidance_scale: float = 4.5
    guidance: str = "linear"
    schedule: str = "arccos"
    temperature: float = 1.0
    softmax_temperature: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.steps) or not 1 <= self.steps <= MOST_STEPS:
            raise TitokError(f"steps is {self.steps!r}: give a whole number from 1 to {MOST_STEPS}")
        for name, least in (("guidance_scale", -LARGEST), ("temperature", 0)):
            value: Any = getattr(self, name)
            if not is_number(value) or not least <= value <= LARGEST:
                raise TitokError(f"{name} is {value!r}: give a finite number{' from 0 up' if least == 0 else ''}")
        for name, known in (("guidance", NEUTRAL), ("schedule", SCHEDULES)):
            if getattr(self, name) not in tuple(known):
                raise TitokError(f"{name} is {getattr(self, name)!r}: give one of {', '.join(known)}")
        if type(self.softmax_temperature) is not bool:
            raise TitokError(f"softmax_temperature is {self.softmax_temperature!r}: give True or False")


def is_number(value: Any) -> bool:
    """Whether it is a number, Python's or NumPy's."""
    return isinstance(value, Real)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


# What the published generators are sampled with (inference configurations of Yu et al. 2024), and their demo.
PUBLISHED: dict[str, dict[str, object]] = {
    "generator_titok_l32": {
        "steps": 8,
        "temperature": 9.5,
        "guidance_scale": 4.5,
        "guidance": "linear",
        "softmax_temperature": True,
    },
    "generator_titok_b64": {
        "steps": 8,
        "temperature": 11.0,
        "guidance_scale": 3.0,
        "guidance": "linear",
        "softmax_temperature": True,
    },
    "generator_titok_s128": {
        "steps": 64,
        "temperature": 2.8,
        "guidance_scale": 6.9,
        "guidance": "power-cosine",
        "softmax_temperature": True,
    },
    "demo": {
        "steps": 8,
        "temperature": 1.0,
        "guidance_scale": 4.5,
        "guidance": "constant",
        "softmax_temperature": False,
    },
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


def guidance_scale_at(guidance: str, scale: float, step: int, steps: int) -> float:
    """The guidance scale of one step, counted from 0.

    ``linear`` grows from 0, no guidance at all, at the first step to (T-1)/T of the scale at the last, as published.
    ``power-cosine`` grows from 1, the neutral value of its own rule, to nearly all of it (MDT, Gao et al. 2023).
    """
    if guidance == "linear":
        return scale * step / steps
    if guidance == "power-cosine":
        return (scale - 1) * (1 - math.cos(math.pi * (step / steps) ** POWER)) / 2 + 1
    return scale


def guide(guidance: str, scale: float, conditional: Tensor, unconditional: Tensor) -> Tensor:
    """Logits beyond the conditional ones, as seen from the unconditional ones.

    The published kinds count the scale from different ends: ``power-cosine`` from the unconditional logits, the others
    from the conditional ones, so that a scale of 4.5 there is one of 5.5 here.
    """
    start = unconditional if guidance == "power-cosine" else conditional
    return start + scale * (conditional - unconditional)


def softmax_temperature(ratio: float) -> float:
    """What logits are divided by, if at all: near 1.3 at the start, 0.5 at ratio 1."""
    return 0.5 + 0.8 * (1 - ratio)


def gumbel(uniform: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) -> Gumbel noise; adding it before an argmax samples from the softmax."""
    return -_log(-_log(uniform))


def _log(x: Tensor) -> Tensor:
    return x.clamp(min=1e-20).log()


def walk(
    logits_of: Logits,
    tokens: Tensor,
    labels: Tensor,
    hidden: Sequence[int],
    mask_id: int,
    settings: Settings,
    noise: Noise,
    guided: bool = True,
) -> Iterator[Tensor]:
    """The tokens after every step, (B, K) int64 with ``mask_id`` where they are not decided; the last are all decided.

    Args:
        logits_of: The network. Both branches of guidance reach it as one batch of 2B, those with labels first.
        tokens: (B, K) int64 to start from. What is not ``mask_id`` stays as it is.
        labels: (B,) int64, -1 for no class.
        hidden: How many of each row are masked; on the host, so that it need not ask the device.
        mask_id: N.
        settings: Steps, schedules and temperatures.
        noise: The source of random numbers.
        guided: False if no row has a label, since both branches are the same then.
    """
    steps = settings.steps
    by_count = {count: masked_counts(settings.schedule, steps, count) for count in set(hidden)}
    counts = to_device(np.array([by_count[c] for c in hidden], np.int64).reshape(len(hidden), steps), tokens.device)
    none = torch.full_like(labels, -1)
    for step in range(steps):
        ratio = (step + 1) / steps
        temperature = settings.temperature * (1 - ratio)
        scale = guidance_scale_at(settings.guidance, settings.guidance_scale, step, steps)
        if guided and scale != NEUTRAL[settings.guidance]:
            both = logits_of(torch.cat([tokens, tokens]), torch.cat([labels, none]))
            logits = guide(settings.guidance, scale, *both.chunk(2))
        else:
            logits = logits_of(tokens, labels)
        if settings.softmax_temperature:
            logits = logits / softmax_temperature(ratio)
        predicted = _noisy(logits, temperature, noise, step).argmax(-1)
        confidence = logits.gather(-1, predicted[..., None]).squeeze(-1)
        masked = tokens == mask_id
        # The published sampler adds noise a second time, to the predictions' own logits. What is decided stays.
        confidence = _noisy(confidence.masked_fill(~masked, math.inf), temperature, noise, step)
        ranks = confidence.argsort(dim=-1, stable=True).argsort(dim=-1)
        tokens = torch.where(masked, predicted, tokens).masked_fill(ranks < counts[:, step, None], mask_id)
        yield tokens


def _noisy(logits: Tensor, temperature: float, noise: Noise, step: int) -> Tensor:
    return logits + temperature * gumbel(noise(step, tuple(logits.shape))) if temperature else logits
