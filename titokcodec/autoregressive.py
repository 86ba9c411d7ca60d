"""Autoregressive sampling: one token after the other, each from the distribution that those before it leave.

One pass a token over what is new alone: the keys and values of what is there already are kept (Shazeer 2019). Both
branches of guidance go through it in one batch.

    class, tokens so far -> logits (B,N), guided -> / temperature, nucleus -> + noise, argmax -> the next token (B,)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from titokcodec.guidance import guide
from titokcodec.models.code_transformer import Block, CodeTransformer
from titokcodec.models.layers import attention
from titokcodec.sampling import Noise, Settings, gumbel, nucleus


def sample(
    model: CodeTransformer,
    tokens: Tensor,
    labels: Tensor,
    masked: np.ndarray,
    ends: Sequence[int],
    settings: Settings,
    noise: Noise,
    guided: bool = True,
) -> Tensor:
    """(B, K) int64 tokens, all decided.

    Args:
        model: A causal one, in evaluation mode.
        tokens: (B, K) int64; those that are not masked stay as they are. They have a say in later ones alone.
        labels: (B,) int64, -1 for no class.
        masked: (B, K) bool on the host, the tokens to sample.
        ends: Where parts end, rising; the last one is K. The guidance scale goes through its course in each of them.
        settings: Guidance, ``temperature`` (0 for the likeliest code) and ``top_p``.
        noise: The source of random numbers, asked for each position once, whether it is sampled or not.
        guided: False if no row has a label, since both branches are the same then.
    """
    spans = [(k, a, b) for a, b in _spans(ends) for k in range(a, b)]
    scales = [settings.scale_at(k - a, b - a) if guided else None for k, a, b in spans]
    settings_at = [settings.of_part(a) for _, a, _ in spans]
    copies = 2 if any(scale is not None for scale in scales) else 1
    if copies == 2:
        labels = torch.cat([labels, torch.full_like(labels, -1)])
    given = torch.from_numpy(~masked).to(tokens.device)
    start = int((~masked).all(0).argmin()) if masked.any() else len(scales)  # all rows know their tokens up to here
    cache, new = Cache(model, labels, len(scales)), tokens[:, :start]
    for position, scale in enumerate(scales):
        own = settings_at[position]
        drawn = noise(position, (len(tokens), 1, model.config.codes)) if own.temperature else None
        if position < start:
            continue
        logits = cache.next_logits(new.repeat(copies, 1))
        if scale is not None:
            logits = guide(settings.guidance, scale, *logits.chunk(2))
        choice = choose(logits[: len(tokens)], own, None if drawn is None else drawn[:, 0])
        new = torch.where(given[:, position], tokens[:, position], choice)[:, None]
        tokens = torch.cat([tokens[:, :position], new, tokens[:, position + 1 :]], 1)
    return tokens


def choose(logits: Tensor, settings: Settings, uniform: Tensor | None) -> Tensor:
    """(B, N) logits and as many numbers uniform in [0, 1), None at temperature 0 -> (B,) codes."""
    if uniform is None:
        return logits.argmax(-1)
    return (nucleus(logits / settings.temperature, settings.top_p) + gumbel(uniform)).argmax(-1)


def _spans(ends: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip([0, *ends[:-1]], ends, strict=True))


class Cache:
    """A causal model over sequences that grow: what it made of their beginnings is kept.

    Args:
        model: In evaluation mode.
        labels: (B,) int64, -1 for no class.
        tokens: K, how many there will be.
    """

    def __init__(self, model: CodeTransformer, labels: Tensor, tokens: int) -> None:
        config, like = model.config, model.positions
        self.model, self.count = model, 0  # of inputs so far: the class, then tokens
        self.label = model.labelled(labels)
        shape = (2, config.layers, len(labels), config.heads, tokens, config.width // config.heads)
        self.keys, self.values = torch.empty(shape, device=like.device, dtype=like.dtype)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """(B, n) tokens that come after those so far, at first (B, 0) or more of them -> (B, N) float32 logits of what
        comes next."""
        model, start = self.model, self.count
        x = model.entered(tokens, max(start - 1, 0))
        if start == 0:
            x = torch.cat([self.label, x], 1)
        self.count += x.shape[1]
        x = x + model.positions[start : self.count] + self.label
        for layer, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            x = self._through(layer, block, x, start)
        return model.logits_of(model.norm(x[:, -1:]), self.count - 1)[:, 0]

    def _through(self, layer: int, block: Block, x: Tensor, start: int) -> Tensor:
        q, k, v = block.projected(x)
        self.keys[layer, :, :, start : self.count] = k
        self.values[layer, :, :, start : self.count] = v
        keys, values = self.keys[layer, :, :, : self.count], self.values[layer, :, :, : self.count]
        x = x + block.joined(attention(q, keys, values, causal=start == 0))
        return x + block.feed_forward(x)
