"""MaskGIT's sampler: start from masks, predict every token, keep the most confident, mask the rest again.

Chang et al. 2022, section 3.2; Yu et al. 2024 for the numbers in ``PUBLISHED``. Step t
of T goes by two clocks: guidance reads t/T, with t counted from 0; masks and temperatures read (t+1)/T.

    logits (B,K,N), guided -> + noise, argmax -> tokens (B,K)
    their logits (B,K) -> + noise again -> the least confident are masked again

Tokens of a nested tokenizer are sampled coarse to fine: part by part, by as many steps each, given the parts before.

Nothing in the loop waits for the device: all that steers it is known before it starts.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from titokcodec.errors import TitokError
from titokcodec.guidance import NEUTRAL, guidance_scale_at, guide
from titokcodec.runtime.transfer import to_device
from titokcodec.schedules import SCHEDULES, masked_counts

Logits = Callable[[Tensor, Tensor], Tensor]
"""(B, K) tokens with masks and (B,) labels, -1 for no class -> (B, K, N) float32."""
Noise = Callable[[int, tuple[int, ...]], Tensor]
"""Step and shape -> float32 of that shape, uniform in [0, 1). Asked twice a step, for (B, K, N) and (B, K), where K are
the positions of a part and steps are counted through all parts; by autoregressive generators once, for (B, 1, N)."""

ORDERS = ("confidence", "random", "sequential")
MOST_STEPS = 10_000
LARGEST = torch.finfo(torch.float32).max  # logits are of that type


@dataclass(frozen=True)
class Settings:
    """How to sample. Raises ``TitokError`` for values that make no sense.

    Attributes:
        steps: T, passes through the network for each part of the tokens. More than tokens are of no use.
        guidance_scale: How far to go from what fits any class to what fits the one asked for.
        guidance: How that scale changes over the steps: ``constant``, ``linear``, ``cosine``, ``linear-decay`` or
            ``power-cosine``, see ``titokcodec.guidance``.
        guidance_interval: From which share of the steps on there is guidance, and from which on no more.
        schedule: How many tokens stay masked: ``arccos``, ``linear``, ``cosine`` or ``root``.
        order: Which tokens are decided first: ``confidence``, those predicted most surely (MaskGIT); ``random``,
            any (masked diffusion: Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models");
            ``sequential``, the first of a part, which in a nested tokenizer are the coarsest.
        temperature: Of the noise, 0 always takes the likeliest. In the order of ``confidence`` it falls to 0 at the
            last step, otherwise it is the usual one, that of the softmax, at every step.
        fine_temperature: What the temperature is multiplied by in all parts of the tokens but the first.
        softmax_temperature: Divide logits by a temperature that falls from 1.3 to 0.5.
        top_p: Sample from the likeliest codes that have this much of the probability together (nucleus sampling,
            Holtzman et al. 2020); 1 for all codes.

    An autoregressive generator takes a step a token: ``steps``, ``schedule`` and ``softmax_temperature`` have no say
    there, nor has ``order``, and its temperature is the usual one too.
    """

    steps: int = 8
    guidance_scale: float = 4.5
    guidance: str = "linear"
    schedule: str = "arccos"
    temperature: float = 1.0
    softmax_temperature: bool = False
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    top_p: float = 1.0
    order: str = "confidence"
    fine_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not is_whole(self.steps) or not 1 <= self.steps <= MOST_STEPS:
            raise TitokError(f"steps is {reprlib.repr(self.steps)}: give a whole number from 1 to {MOST_STEPS}")
        for name, least in (("guidance_scale", -LARGEST), ("temperature", 0), ("fine_temperature", 0)):
            value: Any = getattr(self, name)
            if not is_number(value) or not least <= value <= LARGEST:
                raise TitokError(
                    f"{name} is {reprlib.repr(value)}: give a finite number{' from 0 up' if least == 0 else ''}"
                )
        for name, known in (("guidance", NEUTRAL), ("schedule", SCHEDULES), ("order", ORDERS)):
            if getattr(self, name) not in tuple(known):
                raise TitokError(f"{name} is {reprlib.repr(getattr(self, name))}: give one of {', '.join(known)}")
        if type(self.softmax_temperature) is not bool:
            raise TitokError(f"softmax_temperature is {reprlib.repr(self.softmax_temperature)}: give True or False")
        if not is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise TitokError(f"top_p is {reprlib.repr(self.top_p)}: give a number above 0, up to 1 for all codes")
        given: Any = self.guidance_interval
        pair = isinstance(given, tuple | list) and len(given) == 2 and all(map(is_number, given))
        if not pair or not 0 <= given[0] < given[1] <= 1:
            raise TitokError(f"guidance_interval is {reprlib.repr(given)}: give two rising numbers from 0 to 1")
        object.__setattr__(self, "guidance_interval", (float(given[0]), float(given[1])))

    def scale_at(self, step: int, steps: int) -> float | None:
        """The guidance scale of one step of so many, counted from 0; None if it changes nothing."""
        scale = guidance_scale_at(self.guidance, self.guidance_scale, step, steps, self.guidance_interval)
        return None if scale == NEUTRAL[self.guidance] else scale

    def of_part(self, first: int) -> Settings:
        """Those of the part of the tokens that begins at a position."""
        temperature = self.temperature * (self.fine_temperature if first else 1)
        return replace(self, temperature=temperature, fine_temperature=1.0)

    def temperature_at(self, ratio: float) -> float:
        """The temperature of the noise at a ratio that ends at 1."""
        return self.temperature * (1 - ratio) if self.order == "confidence" else self.temperature


def is_number(value: Any) -> bool:
    """Whether it is a number, Python's or NumPy's."""
    return isinstance(value, Real)


def is_whole(value: object) -> bool:
    """Whether it is a whole number, Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


# What the published generators are sampled with (inference configurations of Yu et al. 2024), and their demo.
PUBLISHED: dict[str, dict[str, Any]] = {
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
    first: int = 0,
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
        first: Where the positions begin that are sampled; all before it are known.
    """
    steps = settings.steps
    by_count = {count: masked_counts(settings.schedule, steps, count) for count in set(hidden)}
    counts = to_device(np.array([by_count[c] for c in hidden], np.int64).reshape(len(hidden), steps), tokens.device)
    none = torch.full_like(labels, -1)
    for step in range(steps):
        ratio = (step + 1) / steps
        temperature = settings.temperature_at(ratio)
        scale = settings.scale_at(step, steps) if guided else None
        if scale is None:
            logits = logits_of(tokens, labels)[:, first:]
        else:
            both = logits_of(torch.cat([tokens, tokens]), torch.cat([labels, none]))[:, first:]
            logits = guide(settings.guidance, scale, *both.chunk(2))
        if settings.softmax_temperature:
            logits = logits / softmax_temperature(ratio)
        if settings.order != "confidence" and temperature:
            logits, temperature = logits / temperature, 1.0  # the nucleus is of what is sampled
        logits = nucleus(logits, settings.top_p)
        predicted = _noisy(logits, temperature, noise, step).argmax(-1)
        if settings.order == "confidence":
            # The published sampler adds noise a second time, to the predictions' own logits.
            found = logits.gather(-1, predicted[..., None]).squeeze(-1)
            confidence = _noisy(found, temperature, noise, step)
        elif settings.order == "random":
            confidence = noise(step, tuple(predicted.shape))
        else:
            confidence = -torch.arange(predicted.shape[1], device=tokens.device).expand(predicted.shape).float()
        known, part = tokens[:, :first], tokens[:, first:]
        masked = part == mask_id
        confidence = confidence.masked_fill(~masked, math.inf)  # what is decided stays
        ranks = confidence.argsort(dim=-1, stable=True).argsort(dim=-1)
        part = torch.where(masked, predicted, part).masked_fill(ranks < counts[:, step, None], mask_id)
        tokens = torch.cat([known, part], 1) if first else part
        yield tokens


def walk_parts(
    logits_of: Logits,
    tokens: Tensor,
    labels: Tensor,
    masked: np.ndarray,
    ends: Sequence[int],
    mask_id: int,
    settings: Settings,
    noise: Noise,
    guided: bool = True,
) -> Tensor:
    """(B, K) tokens, all decided, coarse to fine: the parts one after the other, each given those before it.

    Args:
        masked: (B, K) bool on the host, where ``tokens`` are ``mask_id``.
        ends: Where parts end, rising; the last one is K.
        logits_of, tokens, labels, mask_id, settings, noise, guided: As of ``walk``; the network takes as many tokens
            as there are up to any of the ends.
    """
    first = begun = 0
    for end in ends:
        hidden, own = masked[:, first:end].sum(1).tolist(), settings.of_part(first)
        later = partial(_later, noise, begun)
        if any(hidden):
            for step in walk(logits_of, tokens[:, :end], labels, hidden, mask_id, own, later, guided, first):
                found = step
            tokens = torch.cat([found, tokens[:, end:]], 1)
        else:
            # What a row's later parts are must not depend on what other rows have masked: the same noise is drawn.
            _spend(later, own, (len(tokens), end - first, mask_id))
        first, begun = end, begun + settings.steps
    return tokens


def _later(noise: Noise, begun: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Noise of a part, which counts its steps from 0, when as many steps are over."""
    return noise(begun + step, shape)


def _spend(noise: Noise, settings: Settings, shape: tuple[int, int, int]) -> None:
    """Draw what ``walk`` would have drawn for logits of that shape."""
    for step in range(settings.steps):
        noisy = bool(settings.temperature_at((step + 1) / settings.steps))
        if noisy:
            noise(step, shape)
        if settings.order == "random" or (settings.order == "confidence" and noisy):
            noise(step, shape[:2])


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """(..., N) logits, -inf for all but the likeliest codes that have ``top_p`` of the probability together."""
    if top_p == 1:
        return logits
    ordered, order = logits.softmax(-1).sort(dim=-1, descending=True)
    without = ordered.cumsum(-1) - ordered >= top_p  # those before are enough; the likeliest always stays
    return logits.masked_fill(torch.zeros_like(without).scatter(-1, order, without), -math.inf)


def _noisy(logits: Tensor, temperature: float, noise: Noise, step: int) -> Tensor:
    return logits + temperature * gumbel(noise(step, tuple(logits.shape))) if temperature else logits
