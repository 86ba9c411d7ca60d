"""titok beside the best thumbnail of as many bytes: a table and a reading of it, for the README.

Both come from result folders of ``bench.rate_distortion``. A rival takes part where it makes
every picture of the set so small: a mean over those that it can is none over all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bench import curves
from bench.cells import listed
from bench.curves import Metric, Point, Verdict, metric_of
from titokcodec.errors import TitokError

METRICS = ("lpips-squeeze", "psnr-rgb", "ssim-rgb", "ms-ssim-rgb", "ssimulacra2")
TOKENS = (32, 64, 128)


@dataclass(frozen=True)
class Row:
    """A set of pictures at a number of tokens.

    Attributes:
        pictures: How many.
        layout: How titok lays them on tiles: ``fit`` or ``tile``, empty where it chooses.
        tokens: A tile, of titok's files.
        most: Bytes that neither these nor the thumbnails exceed; of whole pictures, titok's mean, since every thumbnail
            may have as many as titok took.
        verdicts: titok's mean beside the best rival's, by metric.
        wins: The share of pictures on which it beats that rival, by metric.
    """

    pictures: int
    layout: str
    tokens: int
    most: int
    verdicts: dict[str, Verdict]
    wins: dict[str, float]


def rows(folder: Path, tokens: Sequence[int] = TOKENS) -> list[Row]:
    """What the folder says of its methods of titok.

    Raises:
        TitokError: The folder is not there, or lacks something.
    """
    methods = curves.read_methods(folder)
    wins = curves.read_json(folder / "wins.json")
    pairs = curves.paired(wins)
    ours = [method for method in methods if method.kind == "titok"]
    found = []
    for method, label in product(ours, [f"{count} tokens" for count in tokens]):
        point, budget = method.labelled(label), pairs.get((method.slug, label))
        if point is None or budget is None:
            raise TitokError(f"{folder} has no {label} beside thumbnails: run python -m bench.rate_distortion again")
        rivals = {other.name: (other.slug, there) for other in methods if other.kind == "thumbnail"
                  and (there := other.labelled(budget)) and there.pictures == point.pictures}  # fmt: skip
        beaten = {(row["rival"], row["metric"]): row["rate"] for row in wins
                  if (row["titok"], row["label"]) == (method.slug, label)}  # fmt: skip
        found.append(_row(method.slug, point, budget, rivals, beaten))
    if not found:
        raise TitokError(f"{folder} holds no results of titok: run python -m bench.rate_distortion again")
    return found


def _row(slug: str, point: Point, budget: str, rivals: Mapping[str, tuple[str, Point]],
         beaten: Mapping[tuple[str, str], float]) -> Row:  # fmt: skip
    verdicts = {key: _verdict(point, metric_of(key), rivals) for key in METRICS if key in point.values}
    wins = {key: beaten[rivals[verdict.rival][0], key] for key, verdict in verdicts.items() if verdict.rival}
    layout = next((layout for layout in ("fit", "tile") if slug.endswith(f"-{layout}")), "")
    most = int(budget.split()[1]) if budget.startswith("budget ") else round(point.bytes)
    return Row(int(point.pictures), layout, int(point.label.split()[0]), most, verdicts, wins)


def _verdict(point: Point, metric: Metric, rivals: Mapping[str, tuple[str, Point]]) -> Verdict:
    """The point beside the best of the rivals' points."""
    there = [(rival.values[metric.key], name) for name, (_, rival) in rivals.items() if metric.key in rival.values]
    value, name = (min if metric.lower else max)(there, default=(None, ""))
    return Verdict(point, metric, name, value)


def table(found: Mapping[str, Sequence[Row]]) -> tuple[list[str], list[list[str]]]:
    """Head and body of a table of several sets of pictures, each told in a few words."""
    metrics = [verdict.metric for verdict in next(iter(found.values()))[0].verdicts.values()]
    most = "bytes" if any(row.layout for rows in found.values() for row in rows) else "bytes at most"
    head = ["pictures", "tokens", most, *(f"{m.name} {'↓' if m.lower else '↑'}" for m in metrics)]
    body = [
        [", ".join(filter(None, (f"{row.pictures} {words}", row.layout))), str(row.tokens), str(row.most),
         *(_cell(row, metric) for metric in metrics)]
        for words, rows in found.items() for row in rows
    ]  # fmt: skip
    return head, body


def _cell(row: Row, metric: Metric) -> str:
    """Both means, the better one bold, and the share of wins; a dash where it was not measured."""
    if metric.key not in row.verdicts:
        return "-"
    verdict = row.verdicts[metric.key]
    ours, theirs = (f"{value:.{metric.digits}f}" for value in (verdict.ours, verdict.theirs or 0.0))
    if verdict.word == "alone":
        return f"**{ours}** / -"
    if verdict.ours != verdict.theirs:
        ahead = (verdict.ours < verdict.theirs) == metric.lower
        ours, theirs = (f"**{ours}**", theirs) if ahead else (ours, f"**{theirs}**")
    return f"{ours} / {theirs} {verdict.rival.removesuffix(' thumbnail')}, {row.wins[metric.key]:.0%}"


def reading(rows: Sequence[Row]) -> str:
    """Where titok is ahead of the best thumbnail and where it is not; metrics with the same fate share a clause."""
    fates: dict[str, list[str]] = {}
    for key, verdict in rows[0].verdicts.items():
        fates.setdefault(_fate({row.most: row.verdicts[key].word for row in rows}), []).append(verdict.metric.name)
    return "; ".join(f"on {listed(names)} {fate}" for fate, names in fates.items())


def _fate(words: Mapping[int, str]) -> str:
    """What becomes of titok at each number of bytes."""
    sizes: dict[str, list[str]] = {}
    for most, word in words.items():
        sizes.setdefault(word, []).append(str(most))
    if len(sizes) == 1:
        return f"{next(iter(sizes))} at every size"
    return ", ".join(f"{word} at {listed(some)}" for word, some in sizes.items()) + " bytes"
