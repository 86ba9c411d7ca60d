"""The rows of the ablation, settings of the sampler, one changed at a time; and the file that keeps them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from titokcodec.training import progress

from titokcodec.cli.script import UsageError
from titokcodec.guidance import NEUTRAL
from titokcodec.runtime.tokens import either
from titokcodec.sampling import Settings
from titokcodec.schedules import SCHEDULES

from .records import write

# The rows: each factor takes these values while the others stay as they are by default. Numbers of tokens are all that
# the generator can make.
SWEEPS: dict[str, tuple] = {
    "tokens": (),
    "steps": (1, 2, 4, 8, 16),
    "schedule": tuple(SCHEDULES),
    "order": ("confidence", "random", "sequential"),
    "guidance_scale": (0.0, 1.0, 1.5, 2.0, 3.0, 4.5),
    "guidance": tuple(NEUTRAL),
    "guidance_interval": ((0.0, 1.0), (0.0, 0.5), (0.25, 0.75), (0.5, 1.0)),
    "temperature": (0.0, 0.5, 0.8, 1.0, 2.0, 4.0),
    "fine_temperature": (0.0, 0.5, 0.8, 1.0),
    "top_p": (0.8, 0.9, 0.95, 1.0),
}
SPAN = r"[\d.]+[-,][\d.]+"  # two numbers, as rows and the command line of titok-generate have them
OF_MASKED = ("steps", "schedule", "order")  # factors that autoregressive generators do not have


@dataclass(frozen=True)
class Row:
    """One setting of the sampler: what was changed, the number of tokens, and everything else."""

    factor: str
    tokens: int
    settings: Settings

    @property
    def about(self) -> dict[str, Any]:
        """As result files have it."""
        return {"factor": self.factor, "tokens": self.tokens, **asdict(self.settings)}

    @property
    def name(self) -> str:
        """``default``, or the factor and its value: ``steps=4``, ``guidance_interval=0.25-0.75``."""
        value = self.about.get(self.factor)
        text = "-".join(f"{end:g}" for end in value) if isinstance(value, tuple) else value
        return self.factor if self.factor == "default" else f"{self.factor}={text}"


def rows_of(base: Settings, counts: Sequence[int], causal: bool = False, tokens: int | None = None) -> list[Row]:
    """The default settings first, then every other one once.

    Args:
        base: The defaults.
        counts: Numbers of tokens that the generator makes.
        causal: Whether it is autoregressive.
        tokens: The default number of tokens; None for the last of ``counts``.
    """
    first = Row("default", tokens or counts[-1], base)
    parts = counts.index(first.tokens) + 1  # a picture of the first one has no finer tokens
    rows = [Row("tokens", count, base) for count in counts]
    for factor, values in SWEEPS.items():
        if not (causal and factor in OF_MASKED) and not (factor == "fine_temperature" and parts == 1):
            rows += [Row(factor, first.tokens, replace(base, **{factor: value})) for value in values]
    return [first, *(row for row in rows if (row.tokens, row.settings) != (first.tokens, base))]


def chosen(rows: Sequence[Row], asked: Sequence[str] | None) -> list[Row]:
    """Some of the rows, in their order.

    Args:
        rows: All, the default one first.
        asked: Factors (``steps``) or values (``steps=4``), others than those of ``rows`` too; None for all.

    Raises:
        TitokError: there is no such factor, or it cannot have this value.
    """
    if asked is None:
        return list(rows)
    factors = list(dict.fromkeys(row.factor for row in rows))
    if unknown := [name for name in asked if name.partition("=")[0] not in factors]:
        wanted = f"give some of {', '.join(factors)}, or a value, as {rows[-1].name}"
        raise UsageError(f"no rows are called {', '.join(unknown)}: {wanted}")
    found = [row for name in asked for row in _named(rows, name)]
    return sorted(set(found), key=lambda row: _place(row.about))


def _named(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of a factor, or the one of a value."""
    factor, given, value = name.partition("=")
    if not given:
        return [row for row in rows if row.factor == factor]
    first = rows[0]
    if factor == "tokens":
        counts = sorted({row.tokens for row in rows})
        if value not in map(str, counts):
            raise UsageError(f"{name} is no number of tokens that it makes: give {either(counts)}")
        row = Row(factor, int(value), first.settings)
    else:
        row = Row(factor, first.tokens, settings_of([name], first.settings))
    return [first if (row.tokens, row.settings) == (first.tokens, first.settings) else row]


def settings_of(words: Sequence[str], base: Settings) -> Settings:
    """The settings ``base`` but for NAME=VALUE. Raises ``TitokError`` for others than those of the sampler."""
    known = {field.name for field in fields(Settings)}
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in known or not text:
            raise UsageError(f"{word} is no setting: give NAME=VALUE, where NAME is one of {', '.join(sorted(known))}")
        values[name] = _value(text)
    return replace(base, **values)


def _value(text: str) -> Any:
    """What a command line has for a setting: a number, the two ends of a span, something else in JSON, or a name."""
    if re.fullmatch(SPAN, text):
        return [float(end) for end in re.split("[-,]", text)]
    for read in (int, float, json.loads):
        with suppress(ValueError):
            return read(text)
    return text


def _place(about: Mapping[str, Any]) -> tuple[int, Any]:
    """What rows are sorted by: their factor, and its value."""
    factor, value = about["factor"], about.get(about["factor"])
    if factor == "default":
        return -1, 0
    return list(SWEEPS).index(factor), SWEEPS[factor].index(value) if isinstance(value, str) else value


class Results:
    """``ablation.json``, written anew with every row.

    Raises:
        UsageError: there is one of a run that did something else.
    """

    def __init__(self, path: Path, protocol: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {"protocol": _plain(protocol), "settings": [], "yardsticks": {}}
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            names = sorted(name for name in protocol if before["protocol"].get(name) != self.found["protocol"][name])
            if names:
                wanted = "give another --out, or delete its folder"
                raise UsageError(f"{path} is of another run, which differs in {', '.join(names)}: {wanted}")
            self.found = before
        self.save()

    def of(self, row: Row) -> dict[str, Any]:
        """What was measured of a row; nothing if it was not."""
        about = _plain(row.about)
        return next((of for of in self.found["settings"] if about == {name: of[name] for name in about}), {})

    def has(self, row: Row) -> bool:
        """Whether the row is measured."""
        return bool(self.of(row))

    def add(self, row: Row, scores: dict[str, Any]) -> None:
        """Keep what was measured."""
        about = _plain(row.about)
        self.found["settings"].append({**about, **scores})
        self.found["settings"].sort(key=_place)
        self.save()

    def mark(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Keep a yardstick, measured if it is not there."""
        if name not in self.found["yardsticks"]:
            progress.message(f"yardstick: {name}")
            self.found["yardsticks"][name] = measure()
            self.save()

    def chance(self) -> None:
        """What shuffled labels would have: one class in all by ``class_agreement``, see ``bench.agreement``."""
        real, classes = self.found["yardsticks"]["real"], len(self.found["protocol"]["classes"])
        found = {name: round(1 / classes, 4) for name in real if name.startswith("class_agreement")}
        by_chance = {name: value for name, value in real.items() if name.startswith("top1_by_chance")}
        found |= {name.replace("by_chance", "agreement"): value for name, value in by_chance.items()}
        self.found["yardsticks"]["chance"] = found
        self.save()

    def save(self) -> None:
        """Write the file."""
        write(self.path, self.found)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain
