"""The README's plot: titok over bytes a picture, beside thumbnails and files of other formats.

    python -m bench.rate_distortion --images DIR --lpips FILE --out RESULTS
    python -m bench.headline RESULTS --out headline.svg

Three metrics: LPIPS, which titok is trained by and best at, and PSNR and MS-SSIM, where thumbnails overtake it. Of
thumbnails each metric has its own best ones, as in the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError

from . import curves
from .curves import Method, Metric, Point, metric_of
from .plots import Curve, Panel, round_steps, svg

METRICS = ("lpips-squeeze", "psnr-rgb", "ms-ssim-rgb")
TICKS, ENDS = (50, 100, 200, 500, 1000, 2000), (42.0, 2200.0)  # bytes
TALL, LETTERS, BROAD = 340, 13, 4  # pixels: the panels, the font, titok's line
OURS = ("#d55e00", "#000000", "#8a5a00")  # colours of titok's methods; all but the last are of Okabe and Ito 2008
LOOKS = {
    "webp": ("#0072b2", "square"),
    "jxl": ("#009e73", "triangle"),
    "avif": ("#cc79a7", "diamond"),
    "jpeg": ("#56b4e9", "wedge"),
    "raw": ("#767676", "circle"),
}
OTHER = ("#e69f00", "square")  # of formats that are not usual


def plot(folder: Path) -> str:
    """The SVG document for a folder of results.

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
    most = curves.most_pictures(methods)
    metrics = [metric_of(key) for key in METRICS]
    methods = [method for method in methods if any(_in_sight(method, metric) for metric in metrics)]
    panels = [_panel(methods, metric, most) for metric in metrics]
    note = (
        f"Means over {most:g} pictures, hollow marks: over those of them that can be made so small. Shaded: 95 % "
        "interval. Thumbnails: the best for each picture, budget and metric, enlarged again."
    )
    return svg([panels], TALL, _legend(methods), note, LETTERS)


def _panel(methods: Sequence[Method], metric: Metric, most: float) -> Panel:
    drawn = [method for method in methods if _in_sight(method, metric)]
    series = {method.name: _curve(methods, method, metric, most) for method in reversed(drawn)}  # ours on top
    seen = [y for method in drawn for _, y in _in_sight(method, metric)]
    seen += [
        end
        for curve in series.values()
        for (x, _), pair in zip(curve.places, curve.between, strict=False)
        if ENDS[0] <= x <= ENDS[1]
        for end in pair
    ]
    name = ", ".join(filter(None, (metric.name, metric.unit)))
    way = "lower is better ↓" if metric.lower else "higher is better ↑"
    return Panel(
        f"{name}: {way}",
        "bytes a picture",
        TICKS,
        [str(tick) for tick in TICKS],
        series,
        steps=round_steps(max(seen), min(seen)),
        log=ENDS,
        named=False,
    )


def _curve(methods: Sequence[Method], method: Method, metric: Metric, most: float) -> Curve:
    """A method's line for a metric: hollow where it is of fewer than the most pictures, titok's shaded."""
    points = _known(method, metric)
    hollow = [(point.pictures or most) < most for point in points]
    bounds = [point.intervals.get(metric.key) for point in points]
    between = [(low, high) for low, high in bounds] if method.kind == "titok" and all(bounds) else []
    return _look(methods, method, _places(method, metric), hollow, between)


def _look(
    methods: Sequence[Method],
    method: Method,
    places: Sequence[tuple[float, float]] = (),
    hollow: Sequence[bool] = (),
    between: Sequence[tuple[float, float]] = (),
) -> Curve:
    """The method's colour and mark on these places."""
    if method.kind == "titok":
        ours = [other.slug for other in methods if other.kind == "titok"]
        colour, mark, width = OURS[ours.index(method.slug) % len(OURS)], "circle", BROAD
    else:
        (colour, mark), width = LOOKS.get(method.family, OTHER), 2
    return Curve(places, colour, width, mark, hollow, between, method.kind == "native")


def _known(method: Method, metric: Metric) -> list[Point]:
    """The points that have the metric, by rising bytes."""
    return sorted(
        (point for point in method.points if metric.key in point.values),
        key=lambda point: (point.size(metric.key), point.bytes),
    )


def _places(method: Method, metric: Metric) -> list[tuple[float, float]]:
    return [(point.size(metric.key), point.values[metric.key]) for point in _known(method, metric)]


def _in_sight(method: Method, metric: Metric) -> list[tuple[float, float]]:
    """The places that are on the x axis."""
    return [(x, y) for x, y in _places(method, metric) if ENDS[0] <= x <= ENDS[1]]


def _legend(methods: Sequence[Method]) -> list[list[tuple[str, Curve] | None]]:
    """titok's methods in the first column, then a column a format: thumbnails above, native files below."""
    found = {
        method.slug: (method.name, _look(methods, method, between=[(0, 0)] * (method.kind == "titok")))
        for method in methods
    }
    ours = [found[method.slug] for method in methods if method.kind == "titok"]
    others = dict.fromkeys(method.family for method in methods if method.kind != "titok")
    families = [family for family in dict.fromkeys((*LOOKS, *others)) if family in others]
    rows = [[found.get(f"{family}-{kind}") for family in families] for kind in ("thumbnail", "native")]
    rows += [[None] * len(families) for _ in ours[2:]]
    return [[own, *row] for own, row in zip([*ours, *[None] * (len(rows) - len(ours))], rows, strict=True)]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote")
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    options = parser.parse_args(arguments)
    options.out.write_text(plot(options.folder), encoding="utf-8")


if __name__ == "__main__":
    start(main)
