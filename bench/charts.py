"""Interactive rate-distortion charts for the report: plotly's JSON, one figure for each metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .curves import Method, Metric, Point, most_pictures

COLOURS = ("#0072b2", "#d55e00", "#008a66", "#b8558d", "#a97500", "#6b7280", "#2b95cf")  # after Okabe and Ito 2008
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "star", "hexagon", "star-diamond", "cross")
TICKS = [factor * 10**power for power in range(1, 7) for factor in (1, 2, 5)]  # bytes


def figures(methods: Sequence[Method], metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """A figure for each metric, with a trace for each method, in the same order in all; the first has the legend."""
    families = list(dict.fromkeys(method.family for method in methods))
    count = most_pictures(methods)
    found = []
    for number, metric in enumerate(metrics):
        traces = [
            _trace(
                method, metric, COLOURS[families.index(method.family) % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)], count
            )
            for i, method in enumerate(methods)
        ]
        unit = f", {metric.unit}" if metric.unit else ""
        title = f"{metric.name}{unit} ({'lower' if metric.lower else 'higher'} is better)"
        found.append({"metric": metric.key, "title": title, "data": traces, "layout": _layout(number == 0)})
    return found


def _trace(method: Method, metric: Metric, colour: str, symbol: str, count: float) -> dict[str, Any]:
    """A line over bytes with hollow marks for means over fewer pictures, and 95 % intervals as error bars."""
    points = method.known(metric.key)
    values = [point.values[metric.key] for point in points]
    bounds = [point.intervals.get(metric.key, (value, value)) for point, value in zip(points, values, strict=True)]
    dash = "dash" if method.kind == "native" else "solid"
    hollow = [(point.pictures or count) < count for point in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _text(method.name),
        "x": [point.size(metric.key) for point in points],
        "y": values,
        "text": [_hover(method, metric, point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "dash": dash, "width": 3 if method.kind == "titok" else 1.8},
        "marker": {"symbol": [symbol + "-open" * fewer for fewer in hollow], "size": 8},
        "error_y": {
            "array": [high - value for value, (_, high) in zip(values, bounds, strict=True)],
            "arrayminus": [value - low for value, (low, _) in zip(values, bounds, strict=True)],
            "thickness": 1,
            "width": 3,
        },
    }


def _hover(method: Method, metric: Metric, point: Point) -> str:
    size = point.size(metric.key)
    lines = [", ".join(filter(None, (method.name, point.label))), f"{size:.4g} bytes"]
    if point.bpp is not None:
        lines[1] += f", {point.bpp * size / point.bytes:.3g} bpp"
    lines.append(f"{metric.name} {metric.text(point.values[metric.key])}")
    if bounds := point.intervals.get(metric.key):
        lines.append("interval {} to {}".format(*map(metric.text, bounds)))
    if point.pictures is not None:
        lines.append(f"{point.pictures} pictures")
    return "<br>".join(map(_text, lines))


def _text(text: str) -> str:
    """Plotly reads some tags in texts: none of ours are."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _layout(legend: bool) -> dict[str, Any]:
    return {
        "xaxis": {"type": "log", "title": {"text": "bytes per picture"}, "tickvals": TICKS},
        "yaxis": {"automargin": True},
        "margin": {"l": 50, "r": 10, "t": 10, "b": 45},
        "height": 460 if legend else 340,
        "showlegend": legend,
        "legend": {"orientation": "h", "y": -0.2},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
