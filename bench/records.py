"""Measurements as JSON: a file a method in CompressAI's schema, and win rates.

CompressAI's plots read ``name`` and, under ``results``, lists of equal length, of which ``bpp`` is the rate. What
stands beside them is ours: ``kind``, and ``points`` with the intervals and every picture's values behind each mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from titokcodec.metrics.scores import METRICS, of_sets

from .intervals import bootstrap, wilson, win_rate
from .measure import Entry, Finding, Key

KINDS = {
    "titok": "Whole .titok files",
    "native": "Files of the picture at its own size, at the format's lowest qualities",
    "thumbnail": "The best thumbnail under each budget of bytes, for each picture and metric by itself, enlarged again",
}

SHORT = 240  # characters


def kind_of(method: str) -> str:
    """``titok``, ``native`` or ``thumbnail``."""
    return "titok" if method.startswith("titok") else method.rsplit("-", 1)[1]


def record(method: str, name: str, findings: Sequence[Finding], pixels: Sequence[int], chooser: str) -> dict[str, Any]:
    """A method's file.

    Args:
        method: Its slug.
        name: As plots show it.
        findings: Of all pictures.
        pixels: Number of each picture's.
        chooser: The metric whose best thumbnail the set metrics take.
    """
    labels = dict.fromkeys(label for found in findings for own, label in found.entries if own == method)
    points = [_point((method, label), findings, pixels) for label in labels]
    points.sort(key=lambda point: point[0]["bpp"])
    columns = [column for column, _ in points]
    thumbnails = f"; bytes are those of the longest of them, set metrics those of the best by {chooser}"
    return {
        "name": name,
        "description": KINDS[kind_of(method)] + thumbnails * (kind_of(method) == "thumbnail"),
        "results": {key: [column[key] for column in columns] for key in columns[0]} if columns else {"bpp": []},
        "kind": kind_of(method),
        "points": [about for _, about in points],
    }


def _point(key: Key, findings: Sequence[Finding], pixels: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A column of ``results``, and what belongs to it."""
    entries = [found.entries.get(key) for found in findings]
    values = _values(entries, findings)
    reached = {name: [value for value in column if value is not None] for name, column in values.items()}
    count = len(reached["bytes"])
    rates = [8 * entry.bytes / area for entry, area in zip(entries, pixels, strict=True) if entry]
    column = {"bpp": round(sum(rates) / count, 6)}
    column |= {name: round(sum(reached[name]) / count, 6) for name in METRICS if name in reached}
    column |= _distance(entries, findings)
    column |= {name: round(sum(reached[name]) / count, 2) for name in ("bytes", "payload_bytes")}
    intervals = {name: [round(end, 6) for end in bootstrap(reached[name])] for name in reached}
    about = {"label": key[1], "pictures": count, "intervals": intervals, "values": values, **_choices(entries)}
    return column, about


def _values(entries: Sequence[Entry | None], findings: Sequence[Finding]) -> dict[str, list[float | None]]:
    """Every picture's values, None where it does not reach the point."""
    some = next(entry for entry in entries if entry)
    columns: dict[str, list[float | None]] = {
        "bytes": [entry and entry.bytes for entry in entries],
        "payload_bytes": [entry and entry.bytes - entry.fixed for entry in entries],
    }
    for metric in some.scores:
        columns[metric] = [entry and round(entry.scores[metric], 4) for entry in entries]
    if some.look:
        columns["top1-agreement"] = [
            entry and int(entry.look.label == found.look.label) for entry, found in zip(entries, findings, strict=True)
        ]
    return columns


def _distance(entries: Sequence[Entry | None], findings: Sequence[Finding]) -> dict[str, float | None]:
    """The Frechet distance, where all pictures have a file: it depends on their number, and on which they are."""
    if not findings[0].look:
        return {}
    if not all(entries):
        return {"fd-lite0": None}
    apart = of_sets([found.look for found in findings], [entry.look for entry in entries])["fd-lite0"]
    return {"fd-lite0": None if apart is None else round(apart, 4)}


def _choices(entries: Sequence[Entry | None]) -> dict[str, Any]:
    """Of thumbnails: each picture's best [side, quality] by metric (quality null: lossless), and their mean bytes."""
    reached = [entry for entry in entries if entry]
    metrics = list(reached[0].chosen)
    if not metrics:
        return {}
    return {
        "chosen": {name: [entry and list(entry.chosen[name]) for entry in entries] for name in metrics},
        "mean_bytes": {name: round(sum(entry.sizes[name] for entry in reached) / len(reached), 2) for name in metrics},
    }


def wins(findings: Sequence[Finding], equal: Mapping[Key, str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """How often titok beats each rival's best thumbnail of as many bytes.

    Args:
        findings: Of all pictures.
        equal: For titok's points the label of the budget that is as large.
        methods: The rivals' thumbnails.

    Returns:
        A row for each point, rival and metric: ``rate`` is the share of pictures that titok wins, a tie being half a
        win, of the ``pictures`` that have such a thumbnail; ``without`` have none.
    """
    rows = []
    for (key, label), method in product(equal.items(), methods):
        pairs = [(found.entries[key], found.entries.get((method, label))) for found in findings]
        met = [(ours.scores, theirs.scores) for ours, theirs in pairs if theirs]
        about = {"titok": key[0], "label": key[1], "rival": method, "budget": label}
        for metric in met[0][0] if met else ():
            rate = win_rate(*zip(*((a[metric], b[metric]) for a, b in met), strict=True), METRICS[metric].higher)
            interval = [round(end, 4) for end in wilson(rate, len(met))]
            rows.append(
                {
                    **about,
                    "metric": metric,
                    "rate": round(rate, 4),
                    "interval": interval,
                    "pictures": len(met),
                    "without": len(pairs) - len(met),
                }
            )
        if not met:
            rows.append({**about, "metric": None, "rate": None, "interval": None, "pictures": 0, "without": len(pairs)})
    return rows


def write(path: Path, found: Any) -> None:
    """Indented, but with what is short, and lists of numbers however long, on one line."""
    path.write_text(_text(found, "") + "\n", encoding="utf-8")


def _text(value: Any, margin: str) -> str:
    deeper, line = margin + "  ", json.dumps(value)
    if len(line) <= SHORT:
        return line
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(name)}: {_text(item, deeper)}" for name, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{margin}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(f"{deeper}{_text(item, deeper)}" for item in value) + f"\n{margin}]"
    return line
