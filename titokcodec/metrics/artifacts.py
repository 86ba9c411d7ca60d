"""Marks that a decoder leaves on a grid, such as that of its patches. Pictures are (B, 3, H, W) in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.metrics.similarity import gaussian_blur

PERIODS = (8, 16, 32)  # pixels: the grids on which decoders leave marks
_WINDOW, _SIGMA = 9, 2.0  # pixels: fine detail is what this blur takes away


def grain(pixels: Tensor, period: int) -> Tensor:
    """(B,) measures of how unevenly fine detail is spread over the cells of a grid of ``period`` pixels: 0 is evenly.

    A decoder can leave the same marks in every cell of its own grid, in any sign and colour. Photographs have no grid:
    their average is .014, .022 and .032 at 8, 16 and 32 pixels. No original is needed. Differentiable.

    Raises:
        ValueError: a side is below two periods.
    """
    return unevenness(detail_energy(pixels), period)


def detail_energy(pixels: Tensor) -> Tensor:
    """(B, H, W) squares of fine detail, summed over the channels."""
    return fine_detail(pixels).square().sum(1)


def fine_detail(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) pixels in [0, 1] -> what a Gaussian blur of two pixels takes away from them, times 255."""
    with torch.autocast(pixels.device.type, enabled=False):  # small differences of large numbers
        values = pixels.float() * 255
        padded = F.pad(values, (_WINDOW // 2,) * 4, mode="reflect")
        return values - gaussian_blur(padded, _WINDOW, _SIGMA)


def unevenness(energy: Tensor, period: int) -> Tensor:
    """(B,) variances within a ``period`` x ``period`` cell of (B, H, W) energy that is averaged over all cells.

    Cells are first scaled to the same mean, so that none outweighs the others; flat ones stay near 0. The variance that
    is expected by chance is subtracted, so the result can be a little below 0. Rows and columns beyond the last whole
    cell are left out.

    Raises:
        ValueError: a side is below two periods.
    """
    rows, columns = (side // period for side in energy.shape[-2:])
    if min(rows, columns) < 2:
        raise ValueError(
            f"grain at {period} needs pictures of {2 * period} x {2 * period} pixels, these are "
            f"{energy.shape[-1]} x {energy.shape[-2]}"
        )
    whole: Tensor = energy[:, : rows * period, : columns * period]
    cells: Tensor = whole.unflatten(1, (rows, period)).unflatten(3, (columns, period))
    cells = cells / (cells.mean((2, 4), keepdim=True) + 1)
    average, spread = cells.mean((1, 3)), cells.var((1, 3)).mean((1, 2))
    return average.var((1, 2)) - spread / (rows * columns)
