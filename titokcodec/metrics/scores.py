"""How like its original a picture is: every metric of the rate-distortion benchmark.

Metrics of pictures give a number for each; those of sets (Frechet distance, agreement of classes) compare all pictures
of a method with all originals by the features of EfficientNet-Lite0. Feature networks need weight files and
SSIMULACRA2 the package ``ssimulacra2``: a metric without them is left out, and ``skipped`` says why.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from titokcodec.metrics import LPIPS, psnr
from titokcodec.metrics.artifacts import PERIODS, detail_energy, unevenness
from titokcodec.metrics.distributions import frechet_distance
from titokcodec.metrics.efficientnet import Lite0
from titokcodec.metrics.lpips import LPIPS_SIDE
from titokcodec.metrics.similarity import MS_SSIM_SIDE, WINDOW, ms_ssim_after, ssim_terms


@dataclass(frozen=True)
class Metric:
    """Which way it gets better, what it is, and whether it is one of sets."""

    higher: bool
    about: str
    of_sets: bool = False


METRICS = {
    "psnr-rgb": Metric(True, "dB; mean of each picture's"),
    "ssim-rgb": Metric(True, "mean over the channels, windows of 11 x 11"),
    "ms-ssim-rgb": Metric(True, "five scales, mean over the channels"),
    "ssimulacra2": Metric(True, "100 for equal pictures; below 0 it only orders"),
    "lpips-squeeze": Metric(False, "LPIPS 0.1, SqueezeNet 1.1"),
    **{
        f"grain-{period}": Metric(
            False, f"unevenness of fine detail on a grid of {period} pixels, of the picture alone"
        )
        for period in PERIODS
    },
    "fd-lite0": Metric(False, "Frechet distance of EfficientNet-Lite0 features", of_sets=True),
    "top1-agreement": Metric(True, "share that EfficientNet-Lite0 takes for the original's class", of_sets=True),
}
SSIMULACRA2_SIDE = 8  # pixels; below, the package finds all pictures alike
GRAINS = {f"grain-{period}": period for period in PERIODS}
SETS = {name for name, metric in METRICS.items() if metric.of_sets}


@dataclass(frozen=True)
class Look:
    """What Lite0 makes of a picture: (1280,) float32 features, and the number of the class."""

    features: np.ndarray
    label: int


class Judge:
    """The metrics that can be had, with their networks on the CPU.

    Args:
        lpips, lite0: Weight files, or None.
        smallest: Pixels of the shortest side of any picture.
        wanted: Names of the metrics that are asked for; None for all. PSNR always is, and those of sets together.

    Attributes:
        metrics: Names of what can be measured of a picture.
        skipped: Names of what cannot, each with the reason.
    """

    def __init__(
        self,
        lpips: Path | None = None,
        lite0: Path | None = None,
        smallest: int = 1 << 30,
        wanted: Collection[str] | None = None,
    ) -> None:
        asked = {"psnr-rgb", *(wanted or METRICS)}  # PSNR chooses where nothing better does
        asked |= SETS if asked & SETS else set()
        unasked = dict.fromkeys(METRICS.keys() - asked, "not asked for (--metrics)")
        self.lpips = LPIPS(lpips) if lpips and "lpips-squeeze" in asked else None
        self.lite0 = Lite0(lite0) if lite0 and asked >= SETS else None
        reasons = {
            "ssim-rgb": _too_small(smallest, WINDOW),
            "ms-ssim-rgb": _too_small(smallest, MS_SSIM_SIDE),
            "ssimulacra2": _too_small(smallest, SSIMULACRA2_SIDE)
            or (None if _has("ssimulacra2") else "the package ssimulacra2 is not installed"),
            "lpips-squeeze": _too_small(smallest, LPIPS_SIDE) or (None if lpips else "no weights (--lpips)"),
            **{name: _too_small(smallest, 2 * period) for name, period in GRAINS.items()},
            **dict.fromkeys(SETS, None if lite0 else "no weights (--lite0)"),
            **unasked,
        }
        self.skipped = {name: reason for name, reason in reasons.items() if reason}
        self.metrics = [name for name in METRICS if name not in self.skipped and not METRICS[name].of_sets]

    @property
    def chooser(self) -> str:
        """The metric whose best thumbnails stand for a method in the metrics of sets."""
        return "lpips-squeeze" if "lpips-squeeze" in self.metrics else "psnr-rgb"

    @property
    def display_metric(self) -> str:
        """The metric whose best thumbnails are shown: LPIPS likes few blurred pixels better than people do."""
        return "ssimulacra2" if "ssimulacra2" in self.metrics else "psnr-rgb"

    def against(self, original: Image.Image) -> Comparison:
        """Everything that is compared with this original."""
        return Comparison(self, original)

    @torch.inference_mode()
    def look(self, picture: Image.Image) -> Look | None:
        """What Lite0 makes of it; None without Lite0."""
        if not self.lite0:
            return None
        features = self.lite0.pooled(as_tensor(picture))
        return Look(features[0].numpy().copy(), int(self.lite0.classify(features).argmax()))


class Comparison:
    """One original, and what of it every comparison needs."""

    def __init__(self, judge: Judge, original: Image.Image) -> None:
        self.judge, self.original, self.pixels = judge, original, as_tensor(original)

    @torch.inference_mode()
    def scores(self, picture: Image.Image) -> dict[str, float]:
        """Every metric of a picture that has the original's size, the quick ones first."""
        pixels, wanted = as_tensor(picture), self.judge.metrics
        found: dict[str, Tensor | float] = {"psnr-rgb": psnr(pixels, self.pixels)}
        if {"ssim-rgb", "ms-ssim-rgb"} & {*wanted}:
            whole, structure = ssim_terms(pixels, self.pixels)
            found["ssim-rgb"] = whole.mean(1)
            if "ms-ssim-rgb" in wanted:
                found["ms-ssim-rgb"] = ms_ssim_after(structure, pixels, self.pixels)
        if grains := [name for name in wanted if name in GRAINS]:
            energy = detail_energy(pixels)
            found |= {name: unevenness(energy, GRAINS[name]) for name in grains}
        if "ssimulacra2" in wanted:
            found["ssimulacra2"] = ssimulacra2(self.original, picture)
        if self.judge.lpips is not None and "lpips-squeeze" in wanted:
            found["lpips-squeeze"] = self.judge.lpips.distance(self.judge.lpips.directions(pixels), self._directions)
        return {name: float(found[name]) for name in found if name in wanted}

    @cached_property
    def _directions(self) -> list[Tensor]:
        assert self.judge.lpips is not None
        return self.judge.lpips.directions(self.pixels)


def of_sets(originals: Sequence[Look], decoded: Sequence[Look]) -> dict[str, float | None]:
    """The metrics of a set of pictures; a distance needs two pictures at least."""
    apart = None
    if len(decoded) > 1:
        a, b = (torch.from_numpy(np.stack([look.features for look in looks])) for looks in (originals, decoded))
        apart = frechet_distance(a, b)
    same = [one.label == other.label for one, other in zip(originals, decoded, strict=True)]
    return {"fd-lite0": apart, "top1-agreement": float(np.mean(same))}


def better(metric: str, one: float, other: float) -> bool:
    """Whether the first value of a metric is the better one."""
    return one > other if METRICS[metric].higher else one < other


def as_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def ssimulacra2(original: Image.Image, picture: Image.Image) -> float:
    """SSIMULACRA 2.1 of two pictures of one size, by the package of that name, which reads files."""
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(*map(_file, (original, picture))))


def _file(picture: Image.Image) -> io.BytesIO:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "BMP")
    buffer.seek(0)
    return buffer


def _too_small(smallest: int, least: int) -> str | None:
    return f"a picture is smaller than {least} x {least}" if smallest < least else None


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
