"""Structural similarity (Wang et al. 2004): what the search for tokens looks at beside squared error, and a metric.

Pictures are (B, 3, H, W) in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03  # constants of the paper, for a data range of 1


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) structural similarities, 1 for equal pictures (Wang et al. 2004).

    Windows of 11 x 11 weighted by a Gaussian of 1.5 pixels, those that lie inside the picture only. The paper measures
    luma; this is the mean over the RGB channels, each measured by itself, as most published code has it.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    return similarities(a, b)[0].mean(1)


def similarities(a: Tensor, b: Tensor, k2: float = K2) -> tuple[Tensor, Tensor]:
    """What SSIM is made of: (B, 3) means over a channel's windows of all its terms, and without that of luminance.

    Args:
        k2: The larger, the less does contrast count in windows that have hardly any.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of {WINDOW} x {WINDOW} pixels, these are {a.shape[-1]} x {a.shape[-2]}")
    a, b = a - 0.5, b - 0.5  # variances are small differences of large numbers: keep these small
    mean_a, mean_b, square_a, square_b, product = blurred(torch.stack([a, b, a * a, b * b, a * b]))
    variance_a, variance_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)
    structure = (2 * covariance + k2**2) / (variance_a + variance_b + k2**2)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def blurred(pixels: Tensor, window: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """Means of (..., H, W) planes over square windows weighted by a Gaussian; those that lie inside the plane only."""
    offsets = torch.arange(window, device=pixels.device, dtype=pixels.dtype) - window // 2
    weights = (-offsets.square() / (2 * sigma**2)).exp()
    planes = pixels.flatten(0, -3)  # as channels of one picture: on a CPU twice as fast as one after another
    weights = (weights / weights.sum()).expand(len(planes), 1, 1, window)
    across = F.conv2d(planes[None], weights, groups=len(planes))
    down = F.conv2d(across, weights.transpose(2, 3), groups=len(planes))
    return down.unflatten(1, pixels.shape[:-2])[0]
