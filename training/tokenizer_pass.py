"""A tokenizer's forward pass in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from titokcodec.models.quantizer import Quantized
from titokcodec.models.tokenizer import TiTok

from .compute import Runtime
from .prefixes import decode_prefixes


class Passed(NamedTuple):
    """What a pass gives.

    Attributes:
        decoded: (B, C, h, w) float32 output of the decoder, unclamped.
        order: Where its pictures are in the batch, an index or a slice.
        quantized: The quantizer's output, None if tokens were given.
        latents: (B, K, d), None if tokens were given.
    """

    decoded: Tensor
    order: Tensor | slice
    quantized: Quantized | None
    latents: Tensor | None


class TokenizerPass(nn.Module):
    """From pixels through tokens to the decoder's output, in one call.

    Args:
        model: The tokenizer.
        runtime: What compiles its parts.
        to_pixels: Whether the output is pixels, also of models whose decoder gives logits over proxy codes.
    """

    def __init__(self, model: TiTok, runtime: Runtime, to_pixels: bool = True) -> None:
        super().__init__()
        self.model, self.autocast = model, runtime.autocast
        # In a tuple, so that nothing is registered twice.
        parts: list[nn.Module] = [model.encoder, model.decoder]
        parts += [model.pixel_decoder] if to_pixels and model.config.head == "proxy" else []
        self.calls: tuple[Callable, ...] = tuple(runtime.compiled(part) for part in parts)
        self.to_pixels = to_pixels

    def forward(self, pixels: Tensor, lengths: list[int], quantize: bool, tokens: Tensor | None = None) -> Passed:
        """(B, 3, H, H) pixels in [0, 1], decoded from prefixes of these ``lengths`` of their tokens, or of others.

        Args:
            quantize: Whether to decode codes; else latents as they are.
            tokens: (B, K) to decode instead of the encoder's.
        """
        with self.autocast():
            if tokens is not None:
                return Passed(*self._decoded(self.model.quantize.lookup(tokens), lengths), None, None)
            frozen = not self.model.latent_tokens.requires_grad
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                latents = self.calls[0](pixels, self.model.latent_tokens)
                found = self.model.quantize(latents)
            codes = found.codes if quantize else self.model.quantize.normalize(latents.float())
            return Passed(*self._decoded(codes, lengths), found, latents)

    def _decoded(self, codes: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | slice]:
        decoded, order = decode_prefixes(self._decode, codes, lengths)
        return decoded.float(), order

    def _decode(self, codes: Tensor) -> Tensor:
        cells = self.calls[1](codes)
        return self.model.to_pixels(cells, *self.calls[2:]) if self.to_pixels else cells
