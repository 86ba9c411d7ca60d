"""titok beside the best thumbnail of as many bytes: a table and a summary of it, for the README.

Both come from result folders of ``bench.rate_distortion``. A rival counts where it makes every picture of the set that
small: a mean over some of them cannot be compared with one over all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from titokcodec.errors import TitokError

from . import curves
from .cells import listed
from .curves import Method, Metric, Point, Verdict, metric_of
from .ours import TARGET

METRICS = ("lpips-squeeze", "psnr-rgb", "ssim-rgb", "ms-ssim-rgb", "ssimulacra2")
TOKENS = (32, 64, 128)


@dataclass(frozen=True)
class Row:
    """A set of pictures at a number of tokens or of bytes.

    Attributes:
        pictures: How many.
        layout: How titok lays them on tiles: ``fit`` or ``tile``, empty where it chooses.
        number: Of tokens a tile, or of the bytes that titok's files were made for.
        most: Bytes that neither these nor the thumbnails exceed; of whole pictures at a number of tokens, titok's mean,
            since every thumbnail may have as many as titok took.
        took: Bytes of titok's files, the mean.
        verdicts: titok's mean beside the best rival's, by metric.
        wins: The share of pictures on which it beats that rival, by metric.
    """

    pictures: int
    layout: str
    number: int
    most: int
    took: float
    verdicts: dict[str, Verdict]
    wins: dict[str, float]


def rows(folder: Path, tokens: Sequence[int] = TOKENS) -> list[Row]:
    """The results of titok's methods in a folder at these numbers of tokens.

    Raises:
        TitokError: The folder is not there, or lacks something.
    """
    return _rows(folder, lambda method: [] if _targeted(method) else [f"{count} tokens" for count in tokens])


def target_rows(folder: Path) -> list[Row]:
    """The results of titok's files for numbers of bytes, rising. Raises ``TitokError`` as ``rows`` does."""
    by_number = lambda point: int(point.label.split()[0])  # noqa: E731
    return _rows(folder, lambda m: [p.label for p in sorted(m.points, key=by_number)] if _targeted(m) else [])


def _targeted(method: Method) -> bool:
    return method.slug.endswith(f"-{TARGET}")


def _rows(folder: Path, labels: Callable[[Method], list[str]]) -> list[Row]:
    methods = curves.read_methods(folder)
    wins = curves.read_json(folder / "wins.json")
    budgets = curves.paired(wins)
    rates = {(row["titok"], row["label"], row["rival"], row["metric"]): row["rate"] for row in wins}
    found = []
    for method, label in ((own, label) for own in methods if own.kind == "titok" for label in labels(own)):
        point, budget = method.labelled(label), budgets.get((method.slug, label))
        if point is None or budget is None:
            raise TitokError(f"{folder} has no {label} beside thumbnails: run python -m bench.rate_distortion again")
        rivals = {
            other.name: (other.slug, there)
            for other in methods
            if other.kind == "thumbnail" and (there := other.labelled(budget)) and there.pictures == point.pictures
        }
        verdicts = {key: _verdict(point, metric_of(key), rivals) for key in METRICS if key in point.values}
        won = {k: rates[method.slug, label, rivals[v.rival][0], k] for k, v in verdicts.items() if v.rival}
        layout = next((layout for layout in ("fit", "tile") if method.slug.endswith(f"-{layout}")), "")
        most = int(budget.split()[1]) if budget.startswith("budget ") else round(point.bytes)
        found.append(Row(int(point.pictures or 0), layout, int(label.split()[0]), most, point.bytes, verdicts, won))
    if not found:
        raise TitokError(f"{folder} holds no results of titok: run python -m bench.rate_distortion again")
    return found


def _verdict(point: Point, metric: Metric, rivals: Mapping[str, tuple[str, Point]]) -> Verdict:
    """The point beside the best of the rivals' points."""
    values = [(rival.values[metric.key], name) for name, (_, rival) in rivals.items() if metric.key in rival.values]
    value, name = (min if metric.lower else max)(values, default=(None, ""))
    return Verdict(point, metric, name, value)


def table(found: Mapping[str, Sequence[Row]]) -> tuple[list[str], list[list[str]]]:
    """Head and body of a table of several sets of pictures, by their descriptions."""
    most = "bytes" if any(row.layout for rows in found.values() for row in rows) else "bytes at most"
    return _table(found, ["tokens", most], lambda row: [str(row.number), str(row.most)])


def target_table(found: Mapping[str, Sequence[Row]]) -> tuple[list[str], list[list[str]]]:
    """The same of files for numbers of bytes, with how many of these titok took."""
    return _table(found, ["bytes at most", "titok's"], lambda row: [f"{row.most:,}", f"{row.took:,.0f}"])


def _table(
    found: Mapping[str, Sequence[Row]], columns: Sequence[str], cells: Callable[[Row], list[str]]
) -> tuple[list[str], list[list[str]]]:
    """With these columns between the pictures and the metrics, which are those of any set."""
    measured = {key: verdict.metric for rows in found.values() for row in rows for key, verdict in row.verdicts.items()}
    metrics = [measured[key] for key in METRICS if key in measured]
    head = ["pictures", *columns, *(f"{m.name} {'↓' if m.lower else '↑'}" for m in metrics)]
    body = [
        [
            ", ".join(filter(None, (f"{row.pictures} {words}", row.layout))),
            *cells(row),
            *(_cell(row, metric) for metric in metrics),
        ]
        for words, rows in found.items()
        for row in rows
    ]
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
    """Where titok is ahead of the best thumbnail and where it is not; metrics with the same outcome share a clause."""
    outcomes: dict[str, list[str]] = {}
    for key, verdict in rows[0].verdicts.items():
        outcomes.setdefault(_outcome({row.most: row.verdicts[key].word for row in rows}), []).append(
            verdict.metric.name
        )
    return "; ".join(f"on {listed(names)} {outcome}" for outcome, names in outcomes.items())


def _outcome(words: Mapping[int, str]) -> str:
    """One outcome for all numbers of bytes, or the numbers for each."""
    sizes: dict[str, list[str]] = {}
    for most, word in words.items():
        sizes.setdefault(word, []).append(str(most))
    if len(sizes) == 1:
        return f"{next(iter(sizes))} at every size"
    return ", ".join(f"{word} at {listed(some)}" for word, some in sizes.items()) + " bytes"
