"""Metrics of sets of pictures beside one reference, and their means over several sets.

Frechet distance, precision and recall are of features of EfficientNet-Lite0. Agreement (``bench.agreement``) is by the
judge: another classifier if one is given, which nothing was trained against, and Lite0 if not. With a judge of its own,
Lite0's agreement is ``..._lite0``. With Inception there are FID and Inception Score besides.

A Frechet distance depends on how many pictures there are. All sets here have as many as the reference, and as many of
each class, so that they compare with one another; not with figures of other numbers of pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from titokcodec.training.progress import Progress
from torch import Tensor

from titokcodec.metrics import EfficientNetLite, Inception, Lite0, frechet_distance, inception_score, precision_recall
from titokcodec.metrics.inception import reference_dtype

from .agreement import ClassMeans, class_agreement, top1_agreement
from .intervals import student

LITE0, JUDGE, INCEPTION = "lite0", "judge", "inception"

Features = dict[str, Tensor]
"""(n, d) float32 on the CPU, by network."""


@dataclass(frozen=True)
class Networks:
    """What pictures are judged by.

    Attributes:
        lite0: The smallest EfficientNet-Lite.
        judge: Another one, or the same.
        inception: None to do without FID and Inception Score.
    """

    lite0: Lite0
    judge: EfficientNetLite
    inception: Inception | None = None

    @classmethod
    def read(cls, lite0: Path, judge: Path | None, inception: Path | None, device: torch.device) -> Networks:
        """From weight files. Raises ``WeightsError`` if one is of another network."""
        first = Lite0(lite0).to(device)
        second = EfficientNetLite(judge).to(device) if judge else first
        third = Inception(inception, reference_dtype(device)).to(device) if inception else None
        return cls(first, second, third)

    @property
    def classifiers(self) -> dict[str, EfficientNetLite]:
        """Those that agreement is measured by, the judge first; one if it is Lite0."""
        return {JUDGE: self.judge} if self.judge is self.lite0 else {JUDGE: self.judge, LITE0: self.lite0}

    @torch.no_grad()
    def look(self, phase: str, count: int, batches: Iterable[Tensor]) -> Features:
        """Features of ``count`` pictures in batches of (B, 3, H, W) in [0, 1], with pixels rounded to 8 bits."""
        networks = {LITE0: self.lite0, **self.classifiers} | ({INCEPTION: self.inception} if self.inception else {})
        found: dict[str, list[Tensor]] = {name: [] for name in networks}
        with Progress(phase, count) as shown:
            for pixels in batches:
                rounded = (pixels * 255).round() / 255
                for name, network in networks.items():
                    again = name == JUDGE and network is self.lite0
                    pooled = found[LITE0][-1] if again else network.pooled(rounded).float().cpu()
                    found[name].append(pooled)
                shown.add(len(pixels))
        return {name: torch.cat(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class Scores:
    """Metrics of sets.

    Attributes:
        networks: Whose features sets are given by.
        reference: Those of the reference.
        masks: (C, 1000), see ``bench.imagenet.class_masks``.
    """

    networks: Networks
    reference: Features
    masks: Tensor

    @torch.no_grad()
    def of(self, found: Features, labels: Tensor, means: Mapping[str, ClassMeans]) -> dict[str, float]:
        """All metrics of a set with (n,) labels; ``means`` are the classifiers fitted on features of each network."""
        precision, recall = precision_recall(self.reference[LITE0], found[LITE0])
        scores = {"fd": frechet_distance(found[LITE0], self.reference[LITE0]), "precision": precision, "recall": recall}
        for name, network in self.networks.classifiers.items():
            end = "" if name == JUDGE else f"_{name}"
            top = network.classify(found[name].to(network.fc.weight)).argmax(1).cpu()
            scores[f"class_agreement{end}"] = class_agreement(means[name].predict(found[name]), labels)
            scores |= {f"{metric}{end}": share for metric, share in top1_agreement(top, labels, self.masks).items()}
        if inception := self.networks.inception:
            scores["fid"] = frechet_distance(found[INCEPTION], self.reference[INCEPTION])
            scores["inception_score"] = inception_score(inception.classify(found[INCEPTION].to(inception.fc.weight)))[0]
        return scores


def over_sets(scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The mean of each metric over sets; ``intervals`` of these means (95 %, Student's t over the sets, if there are
    two or more), and ``values`` of each set."""
    values = {name: [round(of[name], 4) for of in scores] for name in scores[0]}
    intervals = {name: [round(end, 4) for end in found] for name in values if (found := student(values[name]))}
    return {**{name: round(fmean(of), 4) for name, of in values.items()}, "intervals": intervals, "values": values}
