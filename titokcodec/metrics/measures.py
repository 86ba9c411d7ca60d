"""Measures of pictures and of sets of pictures; none of them needs weights.

Pictures are (B, 3, H, W) in [0, 1]. Sets are compared by the features that some network gave them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.metrics.ssim import WINDOW, blurred, similarities

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, from the finest scale on
MS_SSIM_SIDE = WINDOW << (len(SCALES) - 1)  # pixels: the smallest side that leaves a window at the coarsest scale
DETAIL_WINDOW, DETAIL_SIGMA = 9, 2.0  # pixels: fine detail is what this blur takes away
PERIODS = (8, 16, 32)  # pixels: the grids on which decoders leave marks
NEIGHBOURS = 3  # of the manifolds behind precision and recall
ROWS = 1024  # of a set, whose distances to all of another are held at a time


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) multi-scale structural similarities, 1 for equal pictures (Wang, Simoncelli and Bovik 2003).

    Five scales, each half as large as the one before, by means of 2 x 2 pixels. Contrast and structure count at every
    scale, luminance at the coarsest only, with the paper's exponents. A negative factor has no such power and counts as
    0. Channels as in ``ssim``.

    Raises:
        ValueError: a side is below 176 pixels.
    """
    return ms_ssim_after(similarities(a, b)[1], a, b)


def ms_ssim_after(finest: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``ms_ssim`` when the (B, 3) contrast and structure of the finest scale is known already from ``similarities``."""
    if min(a.shape[-2:]) < MS_SSIM_SIDE:
        raise ValueError(
            f"MS-SSIM needs pictures of {MS_SSIM_SIDE} x {MS_SSIM_SIDE} pixels, these are {a.shape[-1]} x {a.shape[-2]}"
        )
    product = finest.clamp_min(0) ** SCALES[0]
    for power in SCALES[1:]:
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        whole, structure = similarities(a, b)
        product = product * (whole if power == SCALES[-1] else structure).clamp_min(0) ** power
    return product.mean(1)


def grain(pixels: Tensor, period: int) -> Tensor:
    """(B,) figures that say how unevenly a picture's fine detail lies on a grid of ``period`` pixels: 0 for evenly.

    A decoder can draw the same marks in every cell of its own grid, in any sign and colour; photographs know no grid
    and have .014, .022 and .032 at 8, 16 and 32 pixels on average. No original is needed. Differentiable.

    Raises:
        ValueError: a side is below two periods.
    """
    return unevenness(fine_detail(pixels), period)


def fine_detail(pixels: Tensor) -> Tensor:
    """(B, H, W) squares of fine detail, summed over the channels."""
    return detail(pixels).square().sum(1)


def detail(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) of what a blur of two pixels takes away, for values up to 255."""
    with torch.autocast(pixels.device.type, enabled=False):  # small differences of large numbers
        values = pixels.float() * 255
        padded = F.pad(values, (DETAIL_WINDOW // 2,) * 4, mode="reflect")
        return values - blurred(padded, DETAIL_WINDOW, DETAIL_SIGMA)


def unevenness(energy: Tensor, period: int) -> Tensor:
    """(B,) variances over the places of a ``period`` x ``period`` cell of (B, H, W) energy averaged over the cells.

    Cells are first scaled to the same mean, so that none outweighs the others; flat ones stay near 0. What chance alone
    would give is subtracted, so that the result can be a little below 0. Rows and columns beyond the last whole cell
    are left out.
    """
    rows, columns = (side // period for side in energy.shape[-2:])
    if min(rows, columns) < 2:
        raise ValueError(
            f"grain at {period} needs pictures of {2 * period} x {2 * period} pixels, these are "
            f"{energy.shape[-1]} x {energy.shape[-2]}"
        )
    whole = energy[:, : rows * period, : columns * period]
    cells = whole.unflatten(1, (rows, period)).unflatten(3, (columns, period))
    cells = cells / (cells.mean((2, 4), keepdim=True) + 1)
    average, spread = cells.mean((1, 3)), cells.var((1, 3)).mean((1, 2))
    return average.var((1, 2)) - spread / (rows * columns)


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two Gaussians that have the means and covariances of (N, d) and (M, d) features.

    |mean difference|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) for covariances A and B (Dowson and Landau 1982; the FID of
    Heusel et al. 2017, where the features are Inception's). The estimate falls as N grows: compare at equal N only.

    Raises:
        ValueError: fewer than two rows, or rows of different lengths.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"two sets of two features or more expected, not {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    distance = (a.mean(0) - b.mean(0)).square().sum()
    x, y = _centred(a), _centred(b)
    # With A = X'X and B = Y'Y, the roots of the eigenvalues of AB are the singular values of XY'. Neither covariance
    # is formed, so nothing is lost to the square root of one that has no full rank, as it cannot have when N < d.
    cross = torch.linalg.svdvals(x @ y.T).sum()
    return float((distance + x.square().sum() + y.square().sum() - 2 * cross).clamp_min(0))


def precision_recall(real: Tensor, made: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """How much of what is made looks real, and how much of what is real can be made (Kynkaanniemi et al. 2019).

    The manifold of a set of features is the union of balls around each, that reach to its third nearest other one
    (section 2; k = 3 as published). Precision is the share of (M, d) made features inside the manifold of (N, d) real
    ones, recall the share of real ones inside that of the made ones. Both depend on N and M: compare at equal N and M.

    Raises:
        ValueError: a set has no more rows than neighbours, or rows of different lengths.
    """
    if real.ndim != 2 or made.ndim != 2 or real.shape[1] != made.shape[1] or min(len(real), len(made)) <= neighbours:
        raise ValueError(
            f"two sets of more than {neighbours} features expected, not {tuple(real.shape)} and {tuple(made.shape)}"
        )
    real, made = (features.detach().cpu().double() for features in (real, made))
    return _share_inside(made, real, neighbours), _share_inside(real, made, neighbours)


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """Mean and standard deviation over ``splits`` consecutive parts of (N, classes) of exp(E[KL(p(y|x) || p(y))]).

    Salimans et al. 2016. A score of a part lies between 1 and the number of its rows or of classes.

    Raises:
        ValueError: fewer rows than parts.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} rows cannot be split into {splits}")
    chances = logits.detach().cpu().double().softmax(1)
    entropy = torch.special.entr  # -p log p, 0 where p is
    parts = chances.tensor_split(splits)
    found = torch.stack([(entropy(part.mean(0)).sum() - entropy(part).sum(1).mean()).exp() for part in parts])
    return float(found.mean()), float(found.std(correction=0))


def use_of_codes(tokens: Tensor, codes: int) -> dict[str, float | int | list]:
    """How (N, K) tokens use a codebook of ``codes`` codes, over all positions and at each.

    Returns:
        ``usage``, the share of codes that some token took, and ``distinct``, their number; ``entropy``, bits a token of
        the empirical distribution, which N K tokens hold to log2(N K) at most; and each of these as a list over
        positions: ``usage_by_position``, ``distinct_by_position``, ``entropy_by_position`` (log2(N) at most).
    """
    distinct, entropy = _spread(tokens.flatten(), codes)
    each = [_spread(column, codes) for column in tokens.T]
    return {
        "usage": distinct / codes,
        "entropy": entropy,
        "distinct": distinct,
        "usage_by_position": [found / codes for found, _ in each],
        "distinct_by_position": [found for found, _ in each],
        "entropy_by_position": [bits for _, bits in each],
    }


def _share_inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of ``points`` in the manifold of ``centres``."""
    # Of the distances among centres the least is to the centre itself.
    radii = torch.cat([torch.cdist(part, centres).kthvalue(neighbours + 1).values for part in centres.split(ROWS)])
    inside = torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in points.split(ROWS)])
    return float(inside.double().mean())


def _spread(tokens: Tensor, codes: int) -> tuple[int, float]:
    counts = torch.bincount(tokens, minlength=codes)
    share = counts[counts > 0].float() / len(tokens)
    return len(share), float(-(share * share.log2()).sum()) + 0.0  # not -0.0


def _centred(features: Tensor) -> Tensor:
    """X with X'X the covariance; no more rows than columns."""
    x = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x
