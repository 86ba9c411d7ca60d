"""Figures by matplotlib in one style, as SVG files that are the same from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "titokcodec",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
BLUE, GREY = "#0072b2", "#767676"
YARDSTICKS = {"real": "-", "tokenizer": "--", "chance": ":"}  # styles of their lines


def save(figure: Figure, path: Path) -> None:
    """Write an SVG file, without a date and with the same identifiers every time."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})


def sweeps(found: Mapping[str, Any], metrics: Mapping[str, str], factors: Mapping[str, Sequence[Any]]) -> Figure:
    """The ablation of the sampler: a row of panels a metric, a column a factor, horizontal lines for yardsticks.

    Args:
        found: The content of ``ablation.json``.
        metrics: Titles by the names of metrics.
        factors: The values that each setting takes, in order.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.1 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(factors), sharey="row", squeeze=False)
        for row, (metric, title) in zip(grid, metrics.items(), strict=True):
            marks = {name: mark[metric] for name, mark in found["yardsticks"].items() if metric in mark}
            for axes, (factor, order) in zip(row, factors.items(), strict=True):
                settings = [setting for setting in found["settings"] if setting["factor"] in (factor, "default")]
                _sweep(axes, settings, factor, order, metric)
                for name, value in marks.items():
                    label = f"{name} {value:.3g}"
                    axes.axhline(value, color=GREY, linestyle=YARDSTICKS.get(name, "-."), linewidth=1.2, label=label)
            row[0].set_title(title)
            row[0].set_ylim(bottom=0)
            row[-1].legend(handles=row[-1].lines[-len(marks) :], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _sweep(axes: Axes, settings: Sequence[Mapping[str, Any]], factor: str, order: Sequence[Any], metric: str) -> None:
    """Bars over names, a line over numbers."""
    settings = sorted(settings, key=lambda setting: order.index(setting[factor]))
    at, values = [setting[factor] for setting in settings], [setting[metric] for setting in settings]
    if isinstance(at[0], str):
        axes.bar(at, values, color=BLUE, width=0.6)
    else:
        axes.plot(range(len(at)), values, "o-", color=BLUE, linewidth=2)
        axes.set_xticks(range(len(at)), [f"{value:g}" for value in at])
    axes.set_xlabel(factor.replace("_", " "))
    axes.grid(axis="x", visible=False)
