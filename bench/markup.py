"""Pieces of HTML for the report; every text that goes in is escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape

from .cells import duration, size
from .curves import number

Cell = str | tuple[str, str]  # text, or text and the class of its cell
TIMES = ("median", "seconds", "latency", "mean")
SIZES = ("memory", "device_memory")


def section(name: str, title: str, content: str, note: str = "") -> str:
    """A section of the page; nothing at all without content."""
    return f'<section id="{name}"><h2>{title}</h2>\n{note}\n{content}</section>\n' if content else ""


def table(head: Sequence[str], body: Iterable[Sequence[Cell]], caption: str) -> str:
    """A table that scrolls on its own where it is too wide."""
    rows = ["".join(f'<th scope="col">{escape(text)}</th>' for text in head)]
    rows += ["".join(map(_cell, row)) for row in body]
    inside = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption>\n{inside}</table></div>\n"
    )


def _cell(cell: Cell) -> str:
    text, kind = cell if isinstance(cell, tuple) else (cell, "")
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def embedded(data: object) -> str:
    """JSON that can stand inside a script element, whatever its texts say."""
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(_finite(data), separators=(",", ":")))


def _finite(data: object) -> object:
    """The same without NaN and infinity, which browsers do not read."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return number(data) if isinstance(data, float) else data


def outline(value: object) -> str:
    """Anything that JSON can hold, as nested lists."""
    if isinstance(value, dict):
        parts = (f"<dt>{escape(str(key))}</dt><dd>{outline(part)}</dd>" for key, part in value.items())
        return f"<dl>{''.join(parts)}</dl>"
    if isinstance(value, list):
        return f"<ul>{''.join(f'<li>{outline(part)}</li>' for part in value)}</ul>"
    return escape(plain("", value))


def plain(key: str, value: object) -> str:
    """A value as a table shows it; by their names, times are in seconds and memory in bytes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is None:
        return "-" if value is None else str(value)
    if key in TIMES:
        return duration(value)
    if key in SIZES:
        return size(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
