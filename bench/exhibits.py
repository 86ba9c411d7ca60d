"""Pictures of the rate-distortion benchmark to look at: originals, titok, and every rival in as many bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from titokcodec.metrics.scores import Judge, better

from . import records, rivals
from .measure import Entry, Finding, Key
from .originals import Original
from .ours import Entrant, slug

QUALITY = 90  # of the WebP files that are shown


def picked(findings: Sequence[Finding], key: Key, metric: str, first: int, extremes: int) -> Iterator[tuple[int, str]]:
    """Numbers of the pictures to show, and why: the first, and those with the worst and best values at a point."""
    yield from ((number, "first") for number in range(min(first, len(findings))))
    values = [found.entries[key].scores[metric] for found in findings]
    worst = sorted(range(len(values)), key=lambda number: (values[number], number))
    if better(metric, 0.0, 1.0):  # small is good
        worst.reverse()
    yield from ((number, "worst") for number in worst[:extremes])
    yield from ((number, "best") for number in worst[::-1][:extremes])


def gallery(
    folder: Path,
    entrant: Entrant,
    originals: Sequence[Original],
    findings: Sequence[Finding],
    equal: dict[Key, str],
    judge: Judge,
    first: int = 12,
    extremes: int = 3,
) -> None:
    """Write ``gallery.json`` and the pictures that it lists.

    Args:
        folder: Made if it is not there.
        entrant: The model that is shown.
        equal: For its points the labels of the budgets that are as large.
        judge: Says by which metrics pictures are the worst and best, and thumbnails the best to look at.
        first, extremes: How many pictures of each sort.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, done = [], {}
    way = entrant.ways[0]
    worst_at = entrant.method(way), [*entrant.points(way).values()][-1]
    for number, why in picked(findings, worst_at, judge.chooser, first, extremes):
        if number not in done:
            done[number] = _shown(
                folder, number, entrant, originals[number], findings[number], equal, judge.display_metric
            )
        rows.append({"name": originals[number].name, "why": why, **done[number]})
    records.write(folder / "gallery.json", rows)


def _shown(
    folder: Path, number: int, entrant: Entrant, original: Original, found: Finding, equal: dict[Key, str], metric: str
) -> dict[str, Any]:
    stem = f"{number:03d}-{slug(Path(original.name).stem)}"

    def keep(picture: Image.Image, what: str) -> str:
        name = f"{stem}-{what}.webp"
        picture.save(folder / name, quality=QUALITY, method=6)
        return name

    shown = []
    for way in entrant.ways:
        method, points = entrant.method(way), entrant.points(way)
        counts = [*points]
        tail = "" if way == "auto" else f"-{way}"
        for count in sorted({counts[0], counts[len(counts) // 2], counts[-1]}):
            entry = found.entries[method, points[count]]
            file = keep(entrant.decoded([entry.data])[0], f"titok{tail}-{count}")
            label = points[count] + (f", {way}" if way in ("fit", "tile") else "")
            shown.append({"method": "titok", "label": label, **_figures(entry, file)})
        for count in sorted({counts[0], counts[-1]}):
            budget = equal[method, points[count]]
            for rival in dict.fromkeys(name for name, at in found.entries if at == budget):
                entry = found.entries[rival, budget]
                side, quality = entry.chosen[metric]
                picture = rivals.thumbnails(original.picture, rival).thumbnail(side, quality).picture
                file = keep(picture, f"{rival}{tail}-{count}")
                label = f"{side} pixels, {_setting(rival, quality)}, {budget}"
                shown.append({"method": rival, "label": label, **_figures(entry, file)})
    return {"original": keep(original.picture, "original"), "shown": shown}


def _figures(entry: Entry, file: str) -> dict[str, Any]:
    return {"bytes": len(entry.data), "file": file, **{name: round(value, 4) for name, value in entry.shown.items()}}


def _setting(rival: str, quality: int | None) -> str:
    if rivals.family(rival) == "raw":
        return f"{quality} bits a channel"
    return "lossless" if quality is None else f"quality {quality}"
