"""Charts as SVG without a plotting library: panels of lines or bars from zero up, each series named where it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.etree import ElementTree as Xml

WIDTH, HEIGHT = 400, 210  # pixels of a panel, with
LEFT, RIGHT, TOP, BOTTOM = 46, 124, 34, 44  # these margins around what is drawn
LINE = 13  # pixels from one line of text to the next
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by colour-blind readers too (Okabe and Ito 2008)
INK, FAINT, LEVEL = "#222222", "#dddddd", "#767676"


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title, below: What is written above it and under its x axis.
        at: Places on that axis, rising, in any unit.
        ticks: What is written at each of them.
        series: Values of 0 or more by name, one for each place.
        levels: Horizontal dashed lines by name.
        bars: Bars instead of lines.
    """

    title: str
    below: str
    at: Sequence[float]
    ticks: Sequence[str]
    series: Mapping[str, Sequence[float]]
    levels: Mapping[str, float] = field(default_factory=dict)
    bars: bool = False


def svg(rows: Sequence[Sequence[Panel]]) -> str:
    """An SVG document of rows of panels; those of a row share their y axis."""
    width, height = WIDTH * max(map(len, rows)), HEIGHT * len(rows)
    root = Xml.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}", "width": str(width),
        "height": str(height), "font-family": "sans-serif", "font-size": "11", "fill": INK,
    })  # fmt: skip
    _add(root, "rect", width=width, height=height, fill="white")
    for y, row in enumerate(rows):
        steps = round_steps(max(map(_highest, row)))
        for x, panel in enumerate(row):
            _Chart(_add(root, "g", transform=f"translate({x * WIDTH} {y * HEIGHT})"), panel, steps).draw()
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def round_steps(top: float) -> list[float]:
    """Round numbers at equal steps, from 0 to ``top`` or just above: three to six of them."""
    rough = top / 5 if top > 0 else 0.2
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    return [round(number * step, 12) for number in range(math.ceil(top / step - 1e-9) + 1)] if top > 0 else [0.0, 1.0]


def apart(places: Sequence[float], least: float, lowest: float) -> list[float]:
    """The same places, each moved so far that no two are nearer than ``least`` and none is over ``lowest``."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = [min(places[number], lowest - least * (len(order) - 1 - rank)) for rank, number in enumerate(order)]
    for rank in range(1, len(moved)):
        moved[rank] = max(moved[rank], moved[rank - 1] + least)
    return [moved[order.index(number)] for number in range(len(order))]


class _Chart:
    """A panel on its way into an element of its own."""

    def __init__(self, into: Xml.Element, panel: Panel, steps: Sequence[float]) -> None:
        self.into, self.panel, self.steps = into, panel, steps
        self.right, self.bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        room = min((b - a for a, b in pairwise(panel.at)), default=1.0)  # for what stands at one place
        self.low, self.high = panel.at[0] - room / 2, panel.at[-1] + room / 2
        self.broad = 0.8 * (self.across(room) - self.across(0)) / len(panel.series)  # a bar
        self.names: list[tuple[float, str, str]] = []  # height, text and colour of what is written at the right

    def across(self, x: float) -> float:
        return LEFT + (x - self.low) / (self.high - self.low) * (self.right - LEFT)

    def down(self, y: float) -> float:
        return self.bottom - y / self.steps[-1] * (self.bottom - TOP)

    def draw(self) -> None:
        self.axes()
        for number, (name, values) in enumerate(self.panel.series.items()):
            colour = COLOURS[number % len(COLOURS)]
            places = [(self.across(x), self.down(y)) for x, y in zip(self.panel.at, values, strict=True)]
            if self.panel.bars:
                self.bars([(x + (number - len(self.panel.series) / 2) * self.broad, y) for x, y in places], colour)
            else:
                self.line(places, colour)
            self.names.append((places[-1][1], name, colour))
        for name, value in self.panel.levels.items():
            self.level(value, LEVEL, stroke_dasharray="5 4")
            self.names.append((self.down(value), f"{name} {value:.3g}", LEVEL))
        heights = apart([height for height, _, _ in self.names], LINE, self.bottom)
        for height, (_, name, colour) in zip(heights, self.names, strict=True):
            _text(self.into, self.right + 8, height + 4, name, fill=colour)

    def axes(self) -> None:
        _text(self.into, LEFT, TOP - 16, self.panel.title, font_weight="bold", font_size=12)
        _text(self.into, (LEFT + self.right) / 2, HEIGHT - 10, self.panel.below, text_anchor="middle")
        for value in self.steps:
            self.level(value, FAINT if value else INK)
            _text(self.into, LEFT - 6, self.down(value) + 4, f"{value:g}", text_anchor="end")
        for x, tick in zip(self.panel.at, self.panel.ticks, strict=True):
            _text(self.into, self.across(x), self.bottom + 16, tick, text_anchor="middle")

    def level(self, value: float, colour: str, **style: object) -> None:
        y = self.down(value)
        _add(self.into, "line", x1=LEFT, y1=y, x2=self.right, y2=y, stroke=colour, **style)

    def bars(self, corners: Sequence[tuple[float, float]], colour: str) -> None:
        for x, y in corners:
            _add(self.into, "rect", x=x, y=y, width=self.broad - 1, height=self.bottom - y, fill=colour)

    def line(self, places: Sequence[tuple[float, float]], colour: str) -> None:
        points = " ".join(f"{x:.2f},{y:.2f}" for x, y in places)
        _add(self.into, "polyline", points=points, fill="none", stroke=colour, stroke_width=2)
        for x, y in places:
            _add(self.into, "circle", cx=x, cy=y, r=3, fill=colour)


def _highest(panel: Panel) -> float:
    return max(*map(max, panel.series.values()), *panel.levels.values(), 0)


def _text(into: Xml.Element, x: float, y: float, content: str, **style: object) -> None:
    _add(into, "text", x=x, y=y, **style).text = content


def _add(into: Xml.Element, kind: str, **attributes: object) -> Xml.Element:
    """A new element; underscores in names become hyphens, floats have two digits."""
    return Xml.SubElement(into, kind, {
        name.replace("_", "-"): f"{value:.2f}" if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    })  # fmt: skip
