"""Structural similarity at one scale (SSIM) and at several (MS-SSIM). Pictures are (B, 3, H, W) in [0, 1].

The search for tokens (:mod:`titokcodec.search`) uses the terms of SSIM beside squared error.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels
K1, K2 = 0.01, 0.03  # constants of the paper, for a data range of 1
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, from the finest scale on
MS_SSIM_SIDE = WINDOW << (len(SCALES) - 1)  # pixels: the smallest side that leaves a window at the coarsest scale


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) structural similarities, 1 for equal pictures (Wang et al. 2004).

    Windows of 11 x 11 weighted by a Gaussian of 1.5 pixels, those that lie inside the picture only. The paper measures
    luma; this is the mean over the RGB channels, each measured by itself, as most published code has it.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    return ssim_terms(a, b)[0].mean(1)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) multi-scale structural similarities, 1 for equal pictures (Wang, Simoncelli and Bovik 2003).

    Five scales, each half as large as the one before, by means of 2 x 2 pixels. Contrast and structure count at every
    scale, luminance at the coarsest only, with the paper's exponents. A negative factor has no such power and counts as
    0. Channels as in ``ssim``.

    Raises:
        ValueError: a side is below 176 pixels.
    """
    return ms_ssim_after(ssim_terms(a, b)[1], a, b)


def ms_ssim_after(finest: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``ms_ssim`` where the (B, 3) contrast and structure of the finest scale are known from ``ssim_terms`` already."""
    if min(a.shape[-2:]) < MS_SSIM_SIDE:
        raise ValueError(
            f"MS-SSIM needs pictures of {MS_SSIM_SIDE} x {MS_SSIM_SIDE} pixels, these are {a.shape[-1]} x {a.shape[-2]}"
        )
    product = finest.clamp_min(0) ** SCALES[0]
    for power in SCALES[1:]:
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        whole, structure = ssim_terms(a, b)
        product = product * (whole if power == SCALES[-1] else structure).clamp_min(0) ** power
    return product.mean(1)


def ssim_terms(a: Tensor, b: Tensor, k2: float = K2) -> tuple[Tensor, Tensor]:
    """Means over the windows of each channel, (B, 3) twice: of all terms of SSIM, and of contrast and structure alone.

    Args:
        k2: The larger it is, the less contrast counts in windows that have hardly any.

    Raises:
        ValueError: a side is below 11 pixels.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs pictures of {WINDOW} x {WINDOW} pixels, these are {a.shape[-1]} x {a.shape[-2]}")
    a, b = a - 0.5, b - 0.5  # variances are small differences of large numbers: keep these small
    mean_a, mean_b, square_a, square_b, product = gaussian_blur(torch.stack([a, b, a * a, b * b, a * b]))
    variance_a, variance_b = square_a - mean_a.square(), square_b - mean_b.square()
    covariance = product - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)
    structure = (2 * covariance + k2**2) / (variance_a + variance_b + k2**2)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def gaussian_blur(pixels: Tensor, window: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """(..., H, W) planes -> (..., H - window + 1, W - window + 1): means over square windows weighted by a Gaussian."""
    offsets = torch.arange(window, device=pixels.device, dtype=pixels.dtype) - window // 2
    weights = (-offsets.square() / (2 * sigma**2)).exp()
    planes = pixels.flatten(0, -3)  # as channels of one picture: on a CPU twice as fast as one after another
    weights = (weights / weights.sum()).expand(len(planes), 1, 1, window)
    across = F.conv2d(planes[None], weights, groups=len(planes))
    down = F.conv2d(across, weights.transpose(2, 3), groups=len(planes))
    restored: Tensor = down.unflatten(1, pixels.shape[:-2])[0]
    return restored
