"""Markdown tables, and numbers and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def listed(names: Sequence[str]) -> str:
    """One, one and another, or several with an "and" before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def setting(value: object) -> str:
    """The value of a setting: a name, a number, or the two ends of a span."""
    if isinstance(value, (list, tuple)):
        return " to ".join(map(setting, value))
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def duration(seconds: float) -> str:
    """Seconds in a unit that leaves one to three digits before the point."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def size(count: float) -> str:
    """Bytes in a unit of powers of a thousand."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"


def rate(count: float) -> str:
    """How many a second: three digits, or all of them before the point."""
    return f"{count:.3g}" if count < 100 else f"{count:,.0f}"
