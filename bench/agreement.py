"""How often a classifier recognises the class that a generated picture should show.

``class_agreement``, the main figure, works for any classes. A nearest-class-mean classifier (Mensink et al. 2013) over
the generator's own classes is fitted on real labelled pictures, decoded from as many tokens as the samples have, so
that it knows what the codec does to them: in features of a network, the mean of each class, and one covariance within
classes for all, shrunk as Ledoit and Wolf 2004 do it. A picture belongs to the class whose mean is nearest by the
Mahalanobis distance. Real pictures that it was not fitted on, decoded likewise, show how much to expect.

``top1_agreement``: the network's most probable class of ImageNet's 1000 is one of those that ``bench.imagenet`` lists
for the requested class; classes without a list are left out. Blurred pictures nearly always fail that.

Both are means over classes, which count alike. Shuffled labels agree once in as many times as there are classes by
``class_agreement``, and as often as ``top1_by_chance`` by ``top1_agreement``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from titokcodec import TitokError


@dataclass(frozen=True)
class ClassMeans:
    """A nearest-class-mean classifier; linear in the features.

    Attributes:
        weight: (C, d) float64.
        bias: (C,) float64: class scores are ``weight @ x + bias``, and half of what is left of squared distances.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, classes: int) -> ClassMeans:
        """From (n, d) features and (n,) labels below ``classes``.

        Raises:
            TitokError: a class has fewer than two pictures.
        """
        features = features.double()
        counts = torch.bincount(labels, minlength=classes)
        if int(counts.min()) < 2:
            raise TitokError("a class has fewer than two pictures to fit its mean on: give more labelled pictures")
        means = torch.zeros(classes, features.shape[1], dtype=torch.float64).index_add_(0, labels, features)
        means /= counts[:, None]
        weight = torch.linalg.solve(shrunk_covariance(features - means[labels]), means.T).T
        return cls(weight, -(weight * means).sum(1) / 2)

    def predict(self, features: Tensor) -> Tensor:
        """(n,) the nearest class of (n, d) features."""
        return (features.double() @ self.weight.T + self.bias).argmax(1)


def shrunk_covariance(centred: Tensor) -> Tensor:
    """(d, d) covariance of (n, d) vectors of mean 0, mixed with a multiple of the identity; never singular unless all
    vectors are 0. By how much: Ledoit and Wolf 2004, equation 14."""
    count, width = centred.shape
    sample = centred.T @ centred / count
    scale = sample.trace() / width
    spread = sample.square().sum() - width * scale.square()
    error = (centred.square().sum(1).square().sum() / count - sample.square().sum()) / count
    share = (error / spread.clamp_min(1e-300)).clamp(0, 1)
    return (1 - share) * sample + share * scale * torch.eye(width, dtype=sample.dtype)


def class_weights(labels: Tensor) -> Tensor:
    """(n,) float64 weights of pictures, summing to 1, by which every class of (n,) labels counts alike."""
    counts = torch.bincount(labels).double()
    weights = (1 / counts)[labels]
    return weights / weights.sum()


def class_agreement(predicted: Tensor, labels: Tensor) -> float:
    """The share of (n,) predictions that are the (n,) labels, mean over classes."""
    return float(class_weights(labels) @ (predicted == labels).double())


def top1_agreement(top: Tensor, labels: Tensor, masks: Tensor) -> dict[str, float]:
    """``top1_agreement`` and ``top1_by_chance`` in [0, 1]; nothing if none of the labels' classes has a list.

    Args:
        top: (n,) the most probable class of ImageNet for each picture.
        labels: (n,) classes that they should show.
        masks: (C, 1000), see ``bench.imagenet.class_masks``.
    """
    listed = masks.any(1)[labels]
    if not listed.any():
        return {}
    top, labels = top[listed], labels[listed]
    weights = class_weights(labels)
    return {
        "top1_agreement": float(weights @ masks[labels, top].double()),
        "top1_by_chance": float(weights @ masks[masks.any(1)][:, top].double().mean(0)),
    }
