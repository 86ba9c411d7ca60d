"""Metrics that compare pixel with pixel; they need no weights. Pictures are (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB of pixels in [0, 1]; 100 at most."""
    return -10 * (a - b).square().mean((1, 2, 3)).clamp_min(1e-10).log10()
