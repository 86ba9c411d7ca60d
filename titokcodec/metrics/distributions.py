"""How alike two sets of pictures are, by the features or logits that some network gave them. Computed in float64.

FID is ``frechet_distance`` of features of :class:`titokcodec.metrics.inception.Inception`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOURS = 3  # k of the manifolds behind precision and recall
_ROWS = 1024  # of a set, whose distances to all of another are held at a time


class Gaussian(NamedTuple):
    """What is left of a set of features where only this was published.

    Attributes:
        mean: (d,).
        covariance: (d, d), symmetric.
    """

    mean: Tensor
    covariance: Tensor


def frechet_distance(a: Tensor, b: Tensor | Gaussian) -> float:
    """Frechet distance of two Gaussians that have the means and covariances of (N, d) and (M, d) features.

    |mean difference|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) for covariances A and B (Dowson and Landau 1982; the FID of
    Heusel et al. 2017, where the features are Inception's). The estimate falls as N grows: compare at equal N only.

    Raises:
        ValueError: fewer than two rows, or rows of different lengths.
    """
    if isinstance(b, Gaussian):
        a, _ = _comparable(a, b.covariance, least=2)
        mean, y = b.mean.detach().cpu().double(), _root(b.covariance)
    else:
        a, b = _comparable(a, b, least=2)
        mean, y = b.mean(0), _centred(b)
    distance, x = (a.mean(0) - mean).square().sum(), _centred(a)
    # With A = X'X and B = Y'Y, the roots of the eigenvalues of AB are the singular values of XY'. Neither covariance
    # is formed, so nothing is lost to the square root of one that has no full rank, as it cannot have when N < d.
    cross = torch.linalg.svdvals(x @ y.T).sum()
    return float((distance + x.square().sum() + y.square().sum() - 2 * cross).clamp_min(0))


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of generated features that look real, and of real ones that are covered (Kynkaanniemi et al. 2019).

    The manifold of a set of features is the union of balls around each, which reach to its third nearest neighbour in
    the set (section 2; k = 3 as published). Precision is the share of the (M, d) generated features inside the manifold
    of the (N, d) real ones, recall the share of real ones inside that of the generated ones. Both depend on N and M:
    compare at equal N and M.

    Raises:
        ValueError: a set has no more rows than neighbours, or rows of different lengths.
    """
    real, generated = _comparable(real, generated, least=neighbours + 1)
    return _share_inside(generated, real, neighbours), _share_inside(real, generated, neighbours)


def inception_score(logits: Tensor, splits: int = 1) -> tuple[float, float]:
    """exp(E[KL(p(y|x) || p(y))]) of (N, classes): mean and standard deviation over ``splits`` consecutive parts.

    Salimans et al. 2016 took ten parts; the evaluations of ADM, TF-GAN and TiTok take all rows as one. A score lies
    between 1 and the number of a part's rows or of classes, so that parts need rows in random order: of pictures that
    are sorted by class, each part holds few classes and scores low.

    Raises:
        ValueError: fewer rows than parts.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} rows cannot be split into {splits}")
    probabilities = logits.detach().cpu().double().softmax(1)
    entropy = torch.special.entr  # -p log p, 0 where p is
    parts = probabilities.tensor_split(splits)
    found = torch.stack([(entropy(part.mean(0)).sum() - entropy(part).sum(1).mean()).exp() for part in parts])
    return float(found.mean()), float(found.std(correction=0))


def _comparable(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU. Raises ``ValueError`` unless they are sets of ``least`` features of one length."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least:
        raise ValueError(f"two sets of {least} features or more expected, not {tuple(a.shape)} and {tuple(b.shape)}")
    return a.detach().cpu().double(), b.detach().cpu().double()


def _share_inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of ``points`` in the manifold of ``centres``."""
    # Of the distances among centres the least is to the centre itself.
    radii = torch.cat([torch.cdist(part, centres).kthvalue(neighbours + 1).values for part in centres.split(_ROWS)])
    inside = torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in points.split(_ROWS)])
    return float(inside.double().mean())


def _root(covariance: Tensor) -> Tensor:
    """Y with Y'Y the covariance."""
    values, vectors = torch.linalg.eigh(covariance.detach().cpu().double())
    root: Tensor = (vectors * values.clamp_min(0).sqrt()).T
    return root


def _centred(features: Tensor) -> Tensor:
    """X with X'X the covariance; no more rows than columns."""
    x: Tensor = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    if len(x) > x.shape[1]:
        x = torch.linalg.qr(x, mode="r").R
    return x
