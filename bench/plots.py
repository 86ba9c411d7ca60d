"""Charts as SVG without a plotting library: panels of lines or bars, each series named where it ends or in a legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from xml.etree import ElementTree as Xml

WIDTH, HEIGHT = 400, 210  # pixels of a panel, with
LEFT, RIGHT, TOP, BOTTOM = 46, 124, 34, 44  # these margins around what is drawn
EDGE = 18  # pixels at the right of a panel whose series are not named there
LINE = 13  # pixels from one line of text to the next
ROW, SAMPLE = 22, 34  # pixels of a row of the legend, and of the line that it shows
RADIUS, MARGIN = 4.4, 5  # pixels of a mark that is no circle, and room for any at the edge of the axes
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart by colour-blind readers too (Okabe and Ito 2008)
INK, FAINT, LEVEL = "#222222", "#dddddd", "#767676"
MARKS = {"circle": (0, 0.0), "square": (4, 1 / 8), "triangle": (3, 0.0), "diamond": (4, 0.0), "wedge": (3, 1 / 2)}
# of each but the circle its corners, and the turn that the first one has made from the top


@dataclass(frozen=True)
class Curve:
    """A line with a look of its own.

    Attributes:
        places: x and y of each mark, from left to right.
        colour, width: Of the line, in pixels.
        mark: One of ``MARKS``.
        hollow: Which marks are; all are full if there are none.
        between: Lowest and highest y at each mark, shaded; not shaded if there are none.
        dashed: The line is.
    """

    places: Sequence[tuple[float, float]]
    colour: str
    width: int = 2
    mark: str = "circle"
    hollow: Sequence[bool] = ()
    between: Sequence[tuple[float, float]] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title, below: What is written above it and under its x axis.
        at: Places on that axis, rising, in any unit.
        ticks: What is written at each of them.
        series: Values of 0 or more by name, one for each place; or curves, whose places are their own.
        levels: Horizontal dashed lines by name.
        bars: Bars instead of lines.
        steps: What is written at the y axis, from its lower end to its upper; round numbers from 0 if not given.
        log: Both ends of an x axis of factors, which cuts off what is beyond; none of an even one.
        named: Series are named where they end.
    """

    title: str
    below: str
    at: Sequence[float]
    ticks: Sequence[str]
    series: Mapping[str, Sequence[float] | Curve]
    levels: Mapping[str, float] = field(default_factory=dict)
    bars: bool = False
    steps: Sequence[float] = ()
    log: tuple[float, float] | None = None
    named: bool = True


def svg(
    rows: Sequence[Sequence[Panel]],
    tall: int = HEIGHT,
    legend: Sequence[Sequence[tuple[str, Curve] | None]] = (),
    note: str = "",
    letters: int = 11,
) -> str:
    """An SVG document of rows of panels; those of a row share their y axis, but for those with steps of their own.

    Args:
        rows: The panels.
        tall: Pixels of a row.
        legend: Rows of names and how their curves look, in columns of equal width, below the panels.
        note: A line below all.
        letters: Pixels of the font.
    """
    width, height = WIDTH * max(map(len, rows)), tall * len(rows)
    floor = height
    height += ROW * (len(legend) + bool(note)) + EDGE * bool(legend or note)
    root = Xml.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "font-family": "sans-serif",
            "font-size": str(letters),
            "fill": INK,
        },
    )
    _add(root, "rect", width=width, height=height, fill="white")
    for y, row in enumerate(rows):
        shared = round_steps(max((_highest(panel) for panel in row if not panel.steps), default=1.0))
        for x, panel in enumerate(row):
            group = _add(root, "g", transform=f"translate({x * WIDTH} {y * tall})")
            _Chart(group, panel, panel.steps or shared, tall, letters).draw()
    for y, entries in enumerate(legend):
        for x, entry in enumerate(entries):
            if entry:
                _sample(root, LEFT + x * (width - LEFT) / len(entries), floor + ROW * (y + 0.7), *entry)
    if note:
        _text(root, LEFT, floor + ROW * (len(legend) + 0.7) + 4, note, fill=LEVEL)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def round_steps(top: float, bottom: float = 0.0) -> list[float]:
    """Round numbers at equal steps, from ``bottom`` or just below to ``top`` or just above: three to seven of them."""
    if top <= bottom:
        return [bottom, bottom + 1.0]
    rough = (top - bottom) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    ends = math.floor(bottom / step + 1e-9), math.ceil(top / step - 1e-9)
    return [round(number * step, 12) for number in range(ends[0], ends[1] + 1)]


def apart(places: Sequence[float], least: float, lowest: float) -> list[float]:
    """The same places, each moved so far that no two are nearer than ``least`` and none is over ``lowest``."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = [min(places[number], lowest - least * (len(order) - 1 - rank)) for rank, number in enumerate(order)]
    for rank in range(1, len(moved)):
        moved[rank] = max(moved[rank], moved[rank - 1] + least)
    return [moved[order.index(number)] for number in range(len(order))]


class _Chart:
    """A panel on its way into an element of its own."""

    def __init__(self, into: Xml.Element, panel: Panel, steps: Sequence[float], tall: int, letters: int) -> None:
        self.into, self.panel, self.steps, self.tall, self.letters = into, panel, steps, tall, letters
        self.right, self.bottom = WIDTH - (RIGHT if panel.named else EDGE), tall - BOTTOM
        room = min((b - a for a, b in pairwise(panel.at)), default=1.0)  # for what stands at one place
        self.low, self.high = panel.at[0] - room / 2, panel.at[-1] + room / 2
        if panel.log:
            self.low, self.high = panel.log
        self.broad = 0.8 * (self.across(room) - self.across(0)) / len(panel.series) if panel.bars else 0.0  # of a bar
        self.names: list[tuple[float, str, str]] = []  # height, text and colour of what is written at the right

    def across(self, x: float) -> float:
        if self.panel.log:
            return LEFT + math.log(x / self.low) / math.log(self.high / self.low) * (self.right - LEFT)
        return LEFT + (x - self.low) / (self.high - self.low) * (self.right - LEFT)

    def down(self, y: float) -> float:
        return self.bottom - (y - self.steps[0]) / (self.steps[-1] - self.steps[0]) * (self.bottom - TOP)

    def draw(self) -> None:
        self.axes()
        inside = self.window() if self.panel.log else self.into
        for number, (name, values) in enumerate(self.panel.series.items()):
            curve = (
                values
                if isinstance(values, Curve)
                else Curve(list(zip(self.panel.at, values, strict=True)), COLOURS[number % len(COLOURS)])
            )
            places = [(self.across(x), self.down(y)) for x, y in curve.places]
            if self.panel.bars:
                shift = (number - len(self.panel.series) / 2) * self.broad
                self.bars([(x + shift, y) for x, y in places], curve.colour)
            else:
                between = [(self.down(low), self.down(high)) for low, high in curve.between]
                _line(inside, replace(curve, places=places, between=between))
                _marks(inside, replace(curve, places=places))
            self.names.append((places[-1][1], name, curve.colour))
        for name, value in self.panel.levels.items():
            self.level(value, LEVEL, stroke_dasharray="5 4")
            self.names.append((self.down(value), f"{name} {value:.3g}", LEVEL))
        if self.panel.named:
            self.write_names()

    def write_names(self) -> None:
        heights = apart([height for height, _, _ in self.names], LINE, self.bottom)
        for height, (_, name, colour) in zip(heights, self.names, strict=True):
            _text(self.into, self.right + 8, height + 4, name, fill=colour)

    def axes(self) -> None:
        _text(self.into, LEFT, TOP - 16, self.panel.title, font_weight="bold", font_size=self.letters + 1)
        _text(self.into, (LEFT + self.right) / 2, self.tall - 10, self.panel.below, text_anchor="middle")
        for value in self.steps:
            self.level(value, FAINT if value != self.steps[0] else INK)
            _text(self.into, LEFT - 6, self.down(value) + 4, f"{value:g}", text_anchor="end")
        for x, tick in zip(self.panel.at, self.panel.ticks, strict=True):
            _text(self.into, self.across(x), self.bottom + 16, tick, text_anchor="middle")
            if self.panel.log:
                _add(self.into, "line", x1=self.across(x), y1=TOP, x2=self.across(x), y2=self.bottom, stroke=FAINT)

    def window(self) -> Xml.Element:
        """An element with the same coordinates that shows nothing beyond the axes, but for halves of marks on them."""
        left, top, width, height = LEFT, TOP - MARGIN, self.right - LEFT, self.bottom - TOP + 2 * MARGIN
        return _add(
            self.into, "svg", x=left, y=top, width=width, height=height, viewBox=f"{left} {top} {width} {height}"
        )

    def level(self, value: float, colour: str, **style: object) -> None:
        y = self.down(value)
        _add(self.into, "line", x1=LEFT, y1=y, x2=self.right, y2=y, stroke=colour, **style)

    def bars(self, corners: Sequence[tuple[float, float]], colour: str) -> None:
        for x, y in corners:
            _add(self.into, "rect", x=x, y=y, width=self.broad - 1, height=self.bottom - y, fill=colour)


def _line(into: Xml.Element, curve: Curve) -> None:
    """The line of a curve whose places are pixels already, and its shade."""
    if curve.between:
        low, high = (
            [(x, pair[end]) for (x, _), pair in zip(curve.places, curve.between, strict=True)] for end in (0, 1)
        )
        _add(into, "polygon", points=_joined([*low, *reversed(high)]), fill=curve.colour, fill_opacity=0.2)
    dashes = {"stroke_dasharray": "5 4"} if curve.dashed else {}
    _add(
        into,
        "polyline",
        points=_joined(curve.places),
        fill="none",
        stroke=curve.colour,
        stroke_width=curve.width,
        **dashes,
    )


def _marks(into: Xml.Element, curve: Curve) -> None:
    """Its marks."""
    corners, turn = MARKS[curve.mark]
    angles = [2 * math.pi * (number / corners + turn) for number in range(corners)]
    for (x, y), hollow in zip(curve.places, curve.hollow or [False] * len(curve.places), strict=True):
        look = {"fill": "white", "stroke": curve.colour, "stroke_width": 1.5} if hollow else {"fill": curve.colour}
        if angles:
            points = [(x + RADIUS * math.sin(angle), y - RADIUS * math.cos(angle)) for angle in angles]
            _add(into, "polygon", points=_joined(points), **look)
        else:
            _add(into, "circle", cx=x, cy=y, r=2 + curve.width // 2, **look)


def _sample(into: Xml.Element, x: float, y: float, name: str, curve: Curve) -> None:
    """What a curve looks like, wherever it goes, and its name."""
    shade = [(y + 6, y - 6)] * 2 if curve.between else ()
    _line(into, replace(curve, places=[(x, y), (x + SAMPLE, y)], between=shade))
    _marks(into, replace(curve, places=[(x + SAMPLE / 2, y)], hollow=curve.hollow[:1]))
    _text(into, x + SAMPLE + 8, y + 4, name)


def _joined(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in places)


def _highest(panel: Panel) -> float:
    values = [[y for _, y in own.places] if isinstance(own, Curve) else own for own in panel.series.values()]
    return max(*map(max, values), *panel.levels.values(), 0)


def _text(into: Xml.Element, x: float, y: float, content: str, **style: object) -> None:
    _add(into, "text", x=x, y=y, **style).text = content


def _add(into: Xml.Element, kind: str, **attributes: object) -> Xml.Element:
    """A new element; underscores in names become hyphens, floats have two digits."""
    return Xml.SubElement(
        into,
        kind,
        {
            name.replace("_", "-"): f"{value:.2f}" if isinstance(value, float) else str(value)
            for name, value in attributes.items()
        },
    )
