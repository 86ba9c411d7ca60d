"""The README's figure: titok over bytes per picture, beside thumbnails and files of other formats.

    python -m bench.rate_distortion --images DIR --lpips FILE --out RESULTS
    python -m bench.headline RESULTS --out headline.svg

Three metrics: LPIPS, which titok is trained by and best at, and PSNR and MS-SSIM, where thumbnails overtake it. For
each metric the thumbnails are those that are best by it, as in the report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError

from . import curves, plots
from .curves import Method, Metric, metric_of

METRICS = ("lpips-squeeze", "psnr-rgb", "ms-ssim-rgb")
TICKS, LIMITS = (50, 100, 200, 500, 1000, 2000), (42.0, 2200.0)  # bytes
OURS = ("#d55e00", "#000000", "#8a5a00")  # colours of titok's methods; all but the last are of Okabe and Ito 2008
FORMATS = {  # colour and marker
    "webp": ("#0072b2", "s"),
    "jxl": ("#009e73", "^"),
    "avif": ("#cc79a7", "D"),
    "jpeg": ("#56b4e9", "v"),
    "raw": ("#767676", "P"),
}
OTHER = ("#e69f00", "X")  # of other formats
STYLES = {"titok": "-", "thumbnail": "-", "native": "--"}
HOLLOW: dict[str, Any] = {"linestyle": "", "markerfacecolor": "white"}


def plot(folder: Path) -> Figure:
    """The figure for a folder of results.

    Raises:
        TitokError: The folder holds no results, none of titok's, or not every metric.
    """
    methods = curves.read_methods(folder)
    ours = [method for method in methods if method.kind == "titok"]
    if not ours:
        raise TitokError(f"{folder} holds no results of titok: run python -m bench.rate_distortion again")
    for key in METRICS:
        if not any(key in point.values for point in ours[0].points):
            raise TitokError(f"{folder} lacks {key}: run python -m bench.rate_distortion with it")
    metrics = [metric_of(key) for key in METRICS]
    methods = [method for method in methods if any(_inside(method, metric) for metric in metrics)]
    count = curves.most_pictures(methods)
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(10, 4.3), layout="constrained")
        for axes, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
            _panel(axes, metric, methods, count)
        note = f"Means over {count:g} pictures; shaded: 95 % interval; thumbnails: the best by each metric and budget"
        figure.legend(
            handles=_legend(methods, count), title=note, title_fontsize=9, loc="outside lower center", ncols=5
        )
    return figure


def _panel(axes: Axes, metric: Metric, methods: Sequence[Method], count: float) -> None:
    name = ", ".join(filter(None, (metric.name, metric.unit)))
    axes.set_title(f"{name}: {'lower is better ↓' if metric.lower else 'higher is better ↑'}")
    axes.set_xscale("log")
    axes.set_xlim(LIMITS)
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlabel("bytes per picture")
    for method in reversed(methods):  # ours on top
        _curve(axes, metric, method, methods, count)
    seen = [value for method in methods for value in _inside(method, metric)]
    margin = 0.04 * (max(seen) - min(seen))
    axes.set_ylim(min(seen) - margin, max(seen) + margin)


def _curve(axes: Axes, metric: Metric, method: Method, methods: Sequence[Method], count: float) -> None:
    """A method's line, with hollow marks for means over fewer pictures; titok's has its name and its intervals."""
    points = method.known(metric.key)
    sizes, values = [point.size(metric.key) for point in points], [point.values[metric.key] for point in points]
    look = _look(method, methods)
    axes.plot(sizes, values, **look, gid=method.slug)
    fewer = [(size, y) for size, y, p in zip(sizes, values, points, strict=True) if (p.pictures or count) < count]
    if fewer:
        axes.plot(*zip(*fewer, strict=True), **look | HOLLOW, gid=f"{method.slug}-hollow")
    if method.kind == "titok" and points:
        bounds = [point.intervals.get(metric.key) for point in points]
        if all(bounds):
            axes.fill_between(sizes, *zip(*bounds, strict=True), color=look["color"], alpha=0.2, linewidth=0)
        bound = (bounds[-1] or [values[-1]] * 2)[not metric.lower]
        place: dict[str, Any] = {"xytext": (6, -6 if metric.lower else 6), "textcoords": "offset points", "ha": "right"}
        text = {"color": look["color"], "weight": "bold", "va": "top" if metric.lower else "bottom"}
        axes.annotate(method.name, (sizes[-1], bound), **place, **text)


def _inside(method: Method, metric: Metric) -> list[float]:
    """The values whose bytes are on the x axis."""
    known = method.known(metric.key)
    return [point.values[metric.key] for point in known if LIMITS[0] <= point.size(metric.key) <= LIMITS[1]]


def _look(method: Method, methods: Sequence[Method]) -> dict[str, Any]:
    """Colour, marker and style of a method's line."""
    look = {"linestyle": STYLES[method.kind], "linewidth": 1.5, "markersize": 5}
    if method.kind != "titok":
        return look | dict(zip(("color", "marker"), FORMATS.get(method.family, OTHER), strict=True))
    ours = [other.slug for other in methods if other.kind == "titok"]
    return look | {"color": OURS[ours.index(method.slug) % len(OURS)], "marker": "o", "linewidth": 3}


def _legend(methods: Sequence[Method], count: float) -> list[Line2D]:
    """titok's methods, a colour for each format, and what the styles of lines and marks mean."""
    ours, formats = [], {}
    for method in methods:
        handle = Line2D([], [], **_look(method, methods), label=method.name)
        if method.kind == "titok":
            ours.append(handle)
        elif method.family not in formats:
            handle.set(linestyle="", label=re.sub(" (thumbnail|native)$", "", method.name))
            formats[method.family] = handle
    order = sorted(formats, key=lambda family: [*FORMATS, family].index(family))
    styles = {"thumbnail": "thumbnail, enlarged", "native": "file in native size"}
    kinds = [kind for kind in styles if any(method.kind == kind for method in methods)]
    lines = [Line2D([], [], color=plots.GREY, linestyle=STYLES[kind], label=styles[kind]) for kind in kinds]
    if any((point.pictures or count) < count for method in methods for point in method.points):
        lines.append(Line2D([], [], **HOLLOW, color=plots.GREY, marker="o", label="mean over fewer pictures"))
    return [*ours, *(formats[family] for family in order), *lines]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    options = parser.parse_args(arguments)
    plots.save(plot(options.folder), options.out)


if __name__ == "__main__":
    start(main)
