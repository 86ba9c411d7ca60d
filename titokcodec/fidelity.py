"""How near a decoded picture is to its original, as one number: the larger, the nearer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from titokcodec.errors import ImageError

if TYPE_CHECKING:
    import torch

    from titokcodec.metrics.lpips import LPIPS

Fidelity: TypeAlias = Callable[[np.ndarray], float]  # of (H, W, 3) uint8 as large as the original; larger is better


def negative_error(pixels: np.ndarray) -> Fidelity:
    """Of a picture, (H, W, 3) uint8: minus the mean squared error."""
    return lambda decoded: -_squared_error(decoded, pixels)


def psnr(pixels: np.ndarray) -> Fidelity:
    """Of a picture, (H, W, 3) uint8: PSNR in dB."""

    def decibels(decoded: np.ndarray) -> float:
        error = _squared_error(decoded, pixels)
        return float(10 * np.log10(255**2 / error)) if error else math.inf

    return decibels


def negative_lpips(network: LPIPS, pixels: np.ndarray) -> Fidelity:
    """Of a picture, (H, W, 3) uint8: minus LPIPS. Raises ``ImageError`` if it is too small for that."""
    import torch

    from titokcodec.metrics.lpips import LPIPS_SIDE

    def tensor(shown: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(shown.transpose(2, 0, 1)[None] / np.float32(255))

    if min(pixels.shape[:2]) < LPIPS_SIDE:
        raise ImageError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} has no LPIPS, which takes {LPIPS_SIDE} "
            "pixels a side or more: give target_psnr or target_bytes"
        )
    with torch.inference_mode():
        directions = network.directions(tensor(pixels))

    def likeness(decoded: np.ndarray) -> float:
        with torch.inference_mode():
            return -float(network.distance(network.directions(tensor(decoded)), directions))

    return likeness


def _squared_error(decoded: np.ndarray, pixels: np.ndarray) -> float:
    """In bands of rows: as floats, a large picture would take eight times its memory."""
    total = sum(
        float(np.square(decoded[band].astype(np.float32) - pixels[band]).sum(dtype=np.float64))
        for band in (slice(top, top + 256) for top in range(0, len(pixels), 256))
    )
    return total / pixels.size
