"""Pixels as callers hand them in: of any floating-point type or uint8, and checked before a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.errors import TitokError
from titokcodec.runtime.tokens import described
from titokcodec.runtime.transfer import Arriving

OVERSHOOT = 0.25
"""How far beyond [0, 1] floats may go. Bicubic and Lanczos resampling overshoot by up to a fifth, at the corners of
black on white. It is clamped, as it would be in a picture of 8 bits."""


def as_pixels(pixels: object, side: int) -> Tensor:
    """The pixels, if they are a (B, 3, side, side) tensor of floats or uint8. Raises ``TitokError`` otherwise."""
    wanted = f"encode takes a tensor of pixels, (B, 3, {side}, {side})"
    if not isinstance(pixels, Tensor):
        raise TitokError(
            f"{wanted}, not {described(pixels)}: for pictures of any kind and size, "
            "codec.read(codec.compress(picture)) gives the tokens"
        )
    if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
        raise TitokError(f"{wanted}, not of shape {tuple(pixels.shape)}: {_reshaping(pixels, side)}")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise TitokError(f"encode takes float pixels in [0, 1] or uint8 in 0..255, not {pixels.dtype}")
    if pixels.is_meta:
        raise TitokError("encode takes pixels, but a tensor on the meta device has none")
    return pixels


def _reshaping(pixels: Tensor, side: int) -> str:
    if pixels.ndim == 3:
        return "pixels[None] makes a batch of one picture"
    if pixels.ndim == 4 and pixels.shape[3] == 3:
        return "pixels.permute(0, 3, 1, 2) puts colours first"
    return "scale or crop them first, or compress pictures of any size by codec.compress"


def unit(pixels: Tensor) -> Tensor:
    """Pixels that passed the checks as float32 in [0, 1]."""
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    return pixels.float().clamp(0, 1)


class RangeCheck:
    """Refuses floats that are no pixels in [0, 1]: normalised ones, those in 0..255, infinite ones and NaN.

    A CUDA device would have to be waited for. So of pixels that lie there, only those of the first call are checked at
    once, since normalised pixels come in every call; every later call is checked in the next one, when the device is
    done with it.
    """

    def __init__(self) -> None:
        self._first = True
        self._coming: Arriving | None = None

    def __call__(self, pixels: Tensor) -> None:
        """Raise ``TitokError`` if these pixels, or those of the call before, are out of range."""
        if pixels.dtype == torch.uint8 or not pixels.numel():
            return
        if pixels.device.type == "cuda" and not self._first:
            self._postpone(pixels)
            return
        _judge(*_extremes(pixels).tolist())
        self._first = self._first and pixels.device.type != "cuda"

    def _postpone(self, pixels: Tensor) -> None:
        if torch.cuda.is_current_stream_capturing():  # nothing may leave a graph that is being recorded
            return
        before, self._coming = self._coming, Arriving(_extremes(pixels))
        if before is not None:
            least, largest = before.numpy().tolist()
            _judge(least, largest, when=" of the call before")

    def __reduce__(self) -> tuple[type[RangeCheck], tuple[()]]:
        """A copy begins anew: what is on its way from a device cannot be copied."""
        return RangeCheck, ()


def _extremes(pixels: Tensor) -> Tensor:
    """(2,) float32: the least and the largest, or NaN twice if there is one."""
    return torch.stack(pixels.aminmax()).float()


def _judge(least: float, largest: float, when: str = "") -> None:
    if least >= -OVERSHOOT and largest <= 1 + OVERSHOOT:
        return
    if not -float("inf") < least <= largest < float("inf"):
        raise TitokError(
            f"pixels{when} are infinite or NaN in places: give numbers in [0, 1]; torch.nan_to_num mends single ones"
        )
    remedy = "divide them by 255, or give them as uint8"
    if least < -OVERSHOOT:
        remedy = "undo the normalisation (pixels * std + mean, or pixels / 2 + 0.5 from -1..1)"
    raise TitokError(f"pixels{when} go from {least:.4g} to {largest:.4g}, but [0, 1] is wanted: {remedy}")
