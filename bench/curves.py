"""Rate-distortion curves, read from the JSONs that ``bench.rate_distortion`` leaves, and compared at equal bytes.

A file holds one method in CompressAI's schema (``name``, ``description``, ``results`` of equally long lists) and may
add ``kind`` and ``points``; metrics and single values may be missing. ``wins.json`` assigns to each of titok's
points a budget of the rivals.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from titokcodec.errors import TitokError

RATES = ("bpp", "bytes", "payload_bytes")  # what a list of results may be besides a metric
KINDS = ("titok", "thumbnail", "native")
Pairs = Mapping[tuple[str, str], str]  # from titok's method and label to the label of the rivals' budget
ABOUT = ("protocol.json", "wins.json", "gallery.json")  # beside the methods, not one of them
EQUAL = 0.02  # bytes that differ by less of themselves count as equal
LEVEL = 0.01  # and so do values of a metric


@dataclass(frozen=True)
class Metric:
    """How to write a metric, and which way it gets better."""

    key: str
    name: str
    unit: str = ""
    digits: int = 3
    lower: bool = False

    def text(self, value: float) -> str:
        """The value with its unit."""
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


_METRICS: dict[str, tuple[Any, ...]] = {
    "psnr-rgb": ("PSNR", "dB", 2),
    "ssim-rgb": ("SSIM",),
    "ms-ssim-rgb": ("MS-SSIM",),
    "ssimulacra2": ("SSIMULACRA2", "", 1),
    "fd-lite0": ("FD (Lite0)", "", 1, True),
    "top1-agreement": ("top-1 agreement",),
    **{f"grain-{period}": (f"grain at {period} px", "", 3, True) for period in (8, 16, 32)},
}


def metric_of(key: str) -> Metric:
    """A metric by its name in the files; one that is not known is taken to be better when higher."""
    if key in _METRICS:
        return Metric(key, *_METRICS[key])
    family, _, network = key.partition("-")
    name = f"{family.upper()} ({network})" if network else family.upper()
    lower = family in ("lpips", "dists", "fd", "fid", "mse")
    return Metric(key, name, "", 1 if family in ("fd", "fid") else 3, lower)


@dataclass(frozen=True)
class Point:
    """One setting of a method: means over ``pictures`` pictures; what is not known is not in the mappings.

    Where each metric has its own best files, ``sizes`` has their bytes by metric.
    """

    label: str
    bytes: float
    payload: float | None
    bpp: float | None
    pictures: int | None
    values: dict[str, float]
    intervals: dict[str, list[float]]
    sizes: dict[str, float]

    def size(self, metric: str) -> float:
        """Bytes behind this metric."""
        return self.sizes.get(metric, self.bytes)


@dataclass(frozen=True)
class Method:
    """A codec and the way it is used, with its points from few bytes to many; ``slug`` is its file's name."""

    slug: str
    name: str
    description: str
    kind: str
    family: str
    points: list[Point]

    def at(self, size: float, metric: str) -> float | None:
        """The metric at that many bytes: straight lines over log bytes, level after the last point.

        None where the method has no files so small.
        """
        known = sorted((point.size(metric), point.values[metric]) for point in self.points if metric in point.values)
        if not known or size < known[0][0] * (1 - EQUAL):
            return None
        below = max((pair for pair in known if pair[0] <= size), default=known[0])
        above = min((pair for pair in known if pair[0] > size), default=below)
        if above[0] == below[0]:
            return below[1]
        share = max(0.0, math.log(size / below[0]) / math.log(above[0] / below[0]))
        return below[1] + share * (above[1] - below[1])

    def known(self, metric: str) -> list[Point]:
        """The points that have the metric, by its bytes."""
        points = (point for point in self.points if metric in point.values)
        return sorted(points, key=lambda point: (point.size(metric), point.bytes))

    def labelled(self, label: str | None) -> Point | None:
        """The point of that label, if there is one."""
        return next((point for point in self.points if point.label == label), None)


@dataclass(frozen=True)
class Verdict:
    """A point beside the best rival that spends as many bytes; no rival where none has files so small."""

    point: Point
    metric: Metric
    rival: str = ""
    theirs: float | None = None

    @property
    def ours(self) -> float:
        return self.point.values[self.metric.key]

    @property
    def word(self) -> str:
        """``ahead``, ``level``, ``behind`` or ``alone``."""
        if self.theirs is None:
            return "alone"
        if abs(self.ours - self.theirs) <= LEVEL * abs(self.theirs):
            return "level"
        return "ahead" if (self.ours < self.theirs) == self.metric.lower else "behind"


def compare(ours: Method, methods: Sequence[Method], metric: Metric, pairs: Pairs) -> list[Verdict]:
    """A verdict for each point of ours that has the metric; every method that is not titok is a rival.

    A rival is taken at the budget that belongs to the point, and where it has none, at the point's bytes.
    """
    found = []
    for point in ours.points:
        if metric.key not in point.values:
            continue
        there = []
        for rival in (method for method in methods if method.kind != "titok"):
            paired = rival.labelled(pairs.get((ours.slug, point.label)))
            value = paired.values.get(metric.key) if paired else rival.at(point.bytes, metric.key)
            there += [] if value is None else [(value, rival.name)]
        value, name = (min if metric.lower else max)(there, default=(None, ""))
        found.append(Verdict(point, metric, name, value))
    return found


def paired(wins: object) -> Pairs:
    """Which budget belongs to which point, from the rows of ``wins.json``."""
    rows = [row for row in wins if isinstance(row, dict)] if isinstance(wins, list) else []
    return {(str(row.get("titok")), str(row.get("label"))): str(row["budget"]) for row in rows if "budget" in row}


def metrics_of(methods: Sequence[Method]) -> list[Metric]:
    """The metrics that any point has, the usual ones first."""
    keys = dict.fromkeys(key for method in methods for point in method.points for key in point.values)
    order = ["psnr", "ssim", "ms", "ssimulacra2", "lpips", "fd", "top1"]
    place = {key: order.index(stem) if (stem := key.split("-")[0]) in order else len(order) for key in keys}
    return [metric_of(key) for key in sorted(keys, key=place.__getitem__)]


def most_pictures(methods: Sequence[Method]) -> float:
    """The number of pictures behind the points of most of them: of the whole set."""
    return max((point.pictures or 0 for method in methods for point in method.points), default=0)


def read_methods(folder: Path) -> list[Method]:
    """Every method of the folder: titok first, then thumbnails, then native files.

    Raises:
        TitokError: The folder holds no results, or a file of it cannot be understood.
    """
    if not folder.is_dir():
        raise TitokError(f"{folder} is not a folder: python -m bench.rate_distortion makes one")
    paths = sorted(path for path in folder.glob("*.json") if path.name not in ABOUT)
    methods = [method for path in paths if (method := _method(path)) is not None]
    if not methods:
        raise TitokError(f"{folder} holds no results: run python -m bench.rate_distortion first")
    return sorted(methods, key=lambda method: KINDS.index(method.kind))


def read_json(path: Path) -> Any:
    """The file's content. Raises ``TitokError`` where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TitokError(f"{path} cannot be read: {error}") from None


def number(value: Any) -> Any:
    """The value where it is a finite number."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if plain and math.isfinite(value) else None


def _method(path: Path) -> Method | None:
    found = read_json(path)
    lists = found.get("results") if isinstance(found, dict) else None
    if not isinstance(lists, dict):
        return None
    lists = {key: values for key, values in lists.items() if isinstance(values, list)}
    if len({len(values) for values in lists.values()}) != 1:
        raise TitokError(f"{path}: lists of one length expected in results")
    if "bytes" not in lists:
        print(f"{path.name} has no bytes and is left out", file=sys.stderr)
        return None
    about = found.get("points") if isinstance(found.get("points"), list) else []
    about = [entry if isinstance(entry, dict) else {} for entry in about] + [{}] * len(lists["bytes"])
    columns = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    points = [_point(*pair) for pair in zip(columns, about, strict=False) if (number(pair[0]["bytes"]) or 0) > 0]
    points.sort(key=lambda point: point.bytes)
    kind = found.get("kind") if found.get("kind") in KINDS else _guess(path.stem)
    family = re.sub(r"-(native|thumbnails?)\b", "", path.stem)
    name, description = (str(found.get(key) or "") for key in ("name", "description"))
    return Method(path.stem, name or path.stem, description, kind, family, points)


def _point(column: dict, about: dict) -> Point:
    """A point from its values in ``results`` and its entry in ``points``; what is not a number is left out."""
    values = {key: value for key, found in column.items() if key not in RATES and (value := number(found)) is not None}
    bounds, sizes = (found if isinstance(found := about.get(key), dict) else {} for key in ("intervals", "mean_bytes"))
    intervals = {key: pair for key, pair in bounds.items() if key in values and _is_interval(pair)}
    sizes = {key: size for key, size in sizes.items() if key in values and (number(size) or 0) > 0}
    bpp, size, payload = (number(column.get(key)) for key in RATES)
    return Point(
        str(about.get("label", "")), size, payload, bpp, number(about.get("pictures")), values, intervals, sizes
    )


def _is_interval(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and None not in map(number, pair)


def _guess(stem: str) -> str:
    return "titok" if stem.startswith("titok") else "thumbnail" if "thumbnail" in stem else "native"
