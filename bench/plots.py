"""Figures by matplotlib in one style, as SVG files that are the same from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from titokcodec import TitokError

from .cells import setting as cell

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
BLUE, GREY, BLACK = "#0072b2", "#767676", "#222222"
YARDSTICKS = {"real": "-", "tokens": "--", "chance": ":"}  # styles of their lines, by the last word of their names


def save(figure: Figure, path: Path) -> None:
    """Write an SVG file, without a date and with the same identifiers every time."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})


def sweeps(found: Mapping[str, Any], metrics: Mapping[str, str], factors: Mapping[str, Sequence[Any]]) -> Figure:
    """The ablation of the sampler: a row of panels a metric, a column a factor that was varied, 95 % intervals as bars,
    horizontal lines for yardsticks.

    Args:
        found: The content of ``ablation.json``.
        metrics: Titles by the names of metrics.
        factors: The values that each setting takes, in order.
    """
    settings, about = found["settings"], found["protocol"]
    varied = [factor for factor in factors if any(setting["factor"] == factor for setting in settings)]
    if not varied:
        raise TitokError("nothing was varied: there is no figure of one setting alone")
    marks = {name: found["yardsticks"][name] for name in ("real", f"{about['tokens']} tokens", "chance")}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * len(varied) + 2, 2.1 * len(metrics)), layout="constrained")
        grid = figure.subplots(len(metrics), len(varied), sharey="row", squeeze=False)
        for row, (metric, title) in zip(grid, metrics.items(), strict=True):
            for axes, factor in zip(row, varied, strict=True):
                _sweep(axes, [of for of in settings if of["factor"] in (factor, "default")], factor, metric)
                for name, mark in marks.items():
                    if metric in mark:
                        label, line = f"{name} {mark[metric]:.3g}", YARDSTICKS[name.split()[-1]]
                        axes.axhline(mark[metric], color=GREY, linestyle=line, linewidth=1.2, label=label)
            row[0].set_title(title)
            row[0].set_ylim(bottom=0)
            lines = [line for line in row[-1].lines if line.get_color() == GREY]
            row[-1].legend(handles=lines, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _sweep(axes: Axes, settings: Sequence[Mapping[str, Any]], factor: str, metric: str) -> None:
    """Bars over names and intervals, a line over numbers."""
    named = not isinstance(settings[0][factor], (int, float))
    settings = settings if named else sorted(settings, key=lambda setting: setting[factor])
    values = [setting[metric] for setting in settings]
    ends = [setting["intervals"].get(metric) for setting in settings]
    reach = [[value - end[0], end[1] - value] if end else [0, 0] for value, end in zip(values, ends, strict=True)]
    places = range(len(values))
    if named:
        axes.bar(places, values, color=BLUE, width=0.6)
    else:
        axes.plot(places, values, "o-", color=BLUE, linewidth=2)
    axes.errorbar(places, values, yerr=[*zip(*reach, strict=True)], fmt="none", ecolor=BLACK, capsize=2, linewidth=1)
    axes.set_xticks(places, [cell(setting[factor]) for setting in settings], rotation=30 if named else 0)
    axes.set_xlabel(factor.replace("_", " "))
    axes.grid(axis="x", visible=False)
