"""titok measured anew beside rivals that were measured before: minutes for a new model, where all would take hours.

    python -m bench.refresh bench/results/kodak-256 --images kodak/ --lpips FILE --lite0 FILE [--model M ...]

For folders that ``bench.rate_distortion`` made of crops, and the same pictures. titok's files, ``wins.json`` and
``protocol.json`` are written again, with what the rivals were measured with under ``rivals``; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from titokcodec import TitokError
from titokcodec.cli.script import Parser, start

from . import curves, inputs, originals, records
from .measure import Entry, Finding, Key, Setup
from .originals import Original
from .ours import entrants
from .protocol import commit, described, versions
from .rate_distortion import benchmark, budgets_for

SIZE = "256"  # of whole pictures the rivals' budgets are titok's own bytes, which change


def check_pictures(pictures: Sequence[Original], protocol: dict[str, Any]) -> None:
    """Raise ``TitokError`` unless these are the pictures of the protocol."""
    if protocol["size"] != SIZE:
        raise TitokError(f"these results are of size {protocol['size']}: run python -m bench.rate_distortion again")
    then = [(about["name"], about["sha256"]) for about in protocol["pictures"]]
    if then != [(original.name, original.sha256) for original in pictures]:
        raise TitokError(f"these are not the {len(then)} pictures of the results: give the same ones, in their order")


def earlier(folder: Path) -> list[dict[Key, Entry]]:
    """For each picture what the rivals' thumbnails reached."""
    found: list[dict[Key, Entry]] = []
    for path in sorted(folder.glob("*-thumbnail.json")):
        for point in curves.read_json(path)["points"]:
            values = dict(point["values"])
            sizes = values.pop("bytes")
            found = found or [{} for _ in sizes]
            for number, (own, size) in enumerate(zip(found, sizes, strict=True)):
                if size is not None:
                    scores = {metric: column[number] for metric, column in values.items()}
                    own[path.stem, point["label"]] = Entry(b"", 0, scores, None, scores, sizes={"": size})
    return found


def joined(findings: Sequence[Finding], rivals: Sequence[dict[Key, Entry]]) -> list[Finding]:
    """titok's findings with those of the rivals beside them."""
    return [replace(found, entries=found.entries | own) for found, own in zip(findings, rivals, strict=True)]


def renewed(protocol: dict[str, Any], models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The protocol with these models, and what it said of the rivals' measurement set apart."""
    rivals = protocol.get("rivals") or {key: protocol[key] for key in ("commit", "date", "versions")}
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {
        **protocol,
        "models": list(models),
        "versions": versions(),
        "commit": commit(),
        "date": date,
        "rivals": rivals,
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote, of the same pictures"
    )
    inputs.add_pictures(parser, every=True)
    inputs.add_models(parser)
    inputs.add_networks(parser)
    options = parser.parse_args(arguments)
    folder = options.folder
    protocol = curves.read_json(folder / "protocol.json")
    pictures = originals.read(options.images, SIZE, options.limit, options.every)
    check_pictures(pictures, protocol)
    setup = Setup((), options.lpips, options.lite0, originals.SIDE, list(protocol["metrics"]))
    judge = setup.judge()
    for metric in protocol["metrics"].keys() & judge.skipped.keys():
        raise TitokError(f"{metric} was measured then and cannot be now: {judge.skipped[metric]}")
    models = entrants(inputs.open_models(options), effort=options.effort, tokens=tuple(protocol["models"][0]["tokens"]))
    findings = joined(benchmark(pictures, models, setup, SIZE, (), options.workers), earlier(folder))

    for path in folder.glob("titok-*.json"):
        path.unlink()
    pixels = [original.pixels for original in pictures]
    for entrant in models:
        method = entrant.method("auto")
        records.write(
            folder / f"{method}.json", records.record(method, f"titok {entrant.name}", findings, pixels, judge.chooser)
        )
    thumbnails = [method for method in protocol["methods"] if method.endswith("thumbnail")]
    records.write(folder / "wins.json", records.wins(findings, budgets_for(models, SIZE), thumbnails))
    records.write(folder / "protocol.json", renewed(protocol, list(map(described, models))))


if __name__ == "__main__":
    start(main)
