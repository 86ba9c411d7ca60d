"""Tables of time and memory, from condensed pytest-benchmark runs and from ``bench.scaling``.

Every table takes what a result file holds, so that figures of a GPU, in files of their own, are shown alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cells import duration, rate, rows, size

Found = dict[str, Any]  # a result file
KEPT = ("precision", "tokens", "pictures", "bytes", "memory", "device_memory", "tiles")  # of a benchmark's extra_info


def condensed(raw: Sequence[Path]) -> Found:
    """What the tables need of pytest-benchmark JSONs of one machine: a row for each benchmark, groups together."""
    runs = [json.loads(path.read_text()) for path in raw]
    found = [
        {
            "group": b["group"],
            "name": re.sub(r"^test_\w+?(\[|$)", r"\1", b["name"]).strip("[]") or b["name"],
            **{key: b["extra_info"][key] for key in KEPT if key in b.get("extra_info", {})},
            "median": b["stats"]["median"],
            "rounds": b["stats"]["rounds"],
        }
        for run in runs
        for b in run["benchmarks"]
    ]
    return {**_about(runs[0]["machine_info"]), "benchmarks": sorted(found, key=lambda row: row["group"])}


def _about(info: dict[str, Any]) -> Found:
    if "titokcodec" in info:
        return info["titokcodec"]
    cpu = info["cpu"]
    machine = f"{cpu.get('brand_raw', 'unknown CPU')}, {cpu.get('count')} cores"
    return {"machine": machine, "python": info["python_version"]}


def medians(found: Found) -> str:
    """Everything in a file, one after the other."""
    body = [[row["group"], row["name"], duration(row["median"])] for row in found["benchmarks"]]
    return rows(["what", "case", "median"], body) + _note(found)


def codec(found: Found) -> str:
    """Pictures to files and back, beside other formats."""
    body = [
        [row["group"], row["name"], str(row.get("bytes", "-")), duration(row["median"]), *_rate_and_memory(row)]
        for row in _of(found, "compress", "decompress")
    ]
    head = ["what", "with", "bytes", "median", "pictures a second", "peak memory"]
    return rows(head, body) + _note(found, found["benchmarks"])


def network(found: Found) -> str:
    """Tokens from pixels and back."""
    body = []
    for row in _of(found, "network encode", "network decode"):
        about = [row["group"].split()[1], row["precision"], str(row["pictures"]), str(row["tokens"])]
        body.append([*about, duration(row["median"]), *_rate_and_memory(row)])
    head = ["network", "precision", "batch", "tokens", "median", "pictures a second", "peak memory"]
    return rows(head, body) + _note(found, found["benchmarks"])


def cold(found: Found) -> str:
    """Whole processes."""
    body = [[f"`{row['name']}`", duration(row["median"])] for row in _of(found, "cold start")]
    return rows(["process", "median"], body) + _note(found)


def entropy(found: Found) -> str:
    """The exact layer: a row for each way to code, a column for each direction and number of tiles."""
    coded = [row for row in found["benchmarks"] if row["group"].startswith("header+entropy")]
    cells = {(row["name"], (_way(row["group"]), row["tiles"])): duration(row["median"]) for row in coded}
    names, columns = (list(dict.fromkeys(column)) for column in zip(*cells, strict=True))
    columns.sort(key=lambda column: (column[1], column[0] != "encode"))
    body = [[name, *(cells[name, column] for column in columns)] for name in names]
    head = [f"{way}, {tiles} tile{'s' * (tiles > 1)}" for way, tiles in columns]
    return rows(["tokens as", *head], body) + _note(found)


def _way(group: str) -> str:
    """``encode`` or ``decode``."""
    return group.split(",")[0].removeprefix("header+entropy ")


def scaling(found: Found) -> str:
    """How cost grows with the picture and with tokens: compressing and decompressing side by side."""
    cells: dict[tuple, dict[str, Found]] = {}
    for row in found["results"]:
        cells.setdefault((row["megapixels"], row["tiles"], row["tokens"]), {})[row["job"]] = row
    body = []
    for (megapixels, tiles, tokens), both in cells.items():
        costs = [cell for job in ("compress", "decompress") for cell in _costs(both[job])]
        body.append([f"{megapixels:.3g}", str(tiles), str(tokens), f"{both['compress']['bytes']:,}", *costs])
    head = ["megapixels", "tiles", "tokens a tile", "bytes", "compress", "peak memory", "decompress", "peak memory"]
    return rows(head, body) + _note(found, found["results"])


def _costs(row: Found) -> list[str]:
    return [duration(row["seconds"]), _memory(row)]


def pipeline(found: Found) -> str:
    """What each part of the way through a device buys: a row a part, a column for each direction and batch."""
    cells = {(row["way"], (row["direction"], row["batch"])): row for row in found["results"]}
    ways, columns = (list(dict.fromkeys(column)) for column in zip(*cells, strict=True))
    columns.sort(key=lambda column: (column[0] != "encode", column[1]))
    text = lambda row: f"{rate(row['pictures_per_second'])} ({row['times_first']:.2f} times)"  # noqa: E731
    body = [[way, *(text(cells[way, column]) for column in columns)] for way in ways]
    head = [f"{direction}, batch {batch}" for direction, batch in columns]
    return rows(["pictures a second", *head], body) + _note(found)


def _of(found: Found, *groups: str) -> list[Found]:
    """The rows of these groups, in this order."""
    return [row for group in groups for row in found["benchmarks"] if row["group"] == group]


def _rate_and_memory(row: Found) -> list[str]:
    return [rate(row["pictures"] / row["median"]), _memory(row)]


def _memory(row: Found) -> str:
    """Of the process, and behind it that of the GPU."""
    found = [size(row[key]) for key in ("memory", "device_memory") if key in row]
    return " + ".join(found) or "-"


def _note(found: Found, measured: Sequence[Found] = ()) -> str:
    """Where it was measured and, if the peaks of memory of some rows are shown, what they are."""
    known = [found["machine"], found.get("dtype", "")]
    known += [f"{name} {found[name.lower()]}" for name in ("Python", "torch") if name.lower() in found]
    about = ""
    if any("memory" in row for row in measured):
        about = " Peak memory is that of a process that does nothing else, with Python and whatever libraries it loads"
        about += ", plus that on the GPU." if any("device_memory" in row for row in measured) else "."
    return f"\n{', '.join(filter(None, known))}.{about}\n"
