"""The report: one HTML page with the results of ``bench.rate_distortion``, that needs no network and no server.

    python -m bench.rate_distortion --images DIR --out RESULTS
    python -m bench.report RESULTS --speed bench/results/speed.json --out report.html
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template

from bench.curves import Method, Metric, Verdict, compare, metric_of, metrics_of, number, read_json, read_methods
from bench.tables import duration

PAGE = Path(__file__).parent / "page"
TYPES = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
HEAVY = 30e6  # bytes of a page that a phone may not want
Cell = str | tuple[str, str]  # text, or text and the class of its cell

_PHRASES = {
    "ahead": "ahead of the best rival", "level": "level with the best rival", "behind": "behind the best rival",
    "alone": "without a rival of so few bytes",
}  # fmt: skip


def page(folder: Path, speeds: Sequence[Path] = ()) -> str:
    """The whole page for a folder of results."""
    methods = read_methods(folder)
    metrics = metrics_of(methods)
    gallery, pictures = read_gallery(folder)
    data = {
        "methods": [asdict(method) for method in methods], "metrics": [asdict(metric) for metric in metrics],
        "gallery": gallery, "pictures": pictures,
    }  # fmt: skip
    style = (PAGE / "style.css").read_text()
    script = "".join((PAGE / name).read_text() for name in ("common.js", "plots.js", "gallery.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # no other script may run
    return Template((PAGE / "page.html").read_text()).substitute(
        style=style, script=script, digest=digest, data=embedded(data), headline=headline(methods, metrics),
        equal=equal_bytes(methods, metrics), wins=wins(folder), points=point_table(methods, metrics),
        speed=section("speed", "Speed", "".join(map(speed_table, speeds))), protocol=protocol(folder),
    )  # fmt: skip


# ---- what comes out of the curves -------------------------------------------------------------------------------


def headline(methods: Sequence[Method], metrics: Sequence[Metric]) -> str:
    """Where each titok model is ahead of the best rival at equal bytes and where it is not, in words."""
    ours = [method for method in methods if method.kind == "titok"]
    texts = [_summary(method, [compare(method, methods, metric) for metric in metrics]) for method in ours]
    counts = [point.pictures for method in methods for point in method.points if point.pictures]
    if counts and min(counts) < max(counts):
        texts.append(
            f"Some methods cannot make every picture so small: hollow marks are means over fewer than the "
            f"{max(counts)} pictures, those that fitted, which are the easier ones."
        )
    return "".join(f'<p class="headline">{escape(text)}</p>\n' for text in texts if text)


def _summary(method: Method, rows: Sequence[list[Verdict]]) -> str:
    """One sentence; metrics with the same fate at the same sizes share a clause."""
    fates: dict[tuple, list[str]] = {}
    for row in filter(None, rows):
        fate = tuple((verdict.word, round(verdict.point.bytes)) for verdict in row)
        fates.setdefault(fate, []).append(row[0].metric.name)
    clauses = [f"{_fate(fate)} on {_and(names)}" for fate, names in fates.items()]
    sizes = [round(point.bytes) for point in method.points]
    return f"In {min(sizes)} to {max(sizes)} bytes a picture, {method.name} is {'; '.join(clauses)}." if clauses else ""


def _fate(fate: tuple[tuple[str, int], ...]) -> str:
    words = list(dict.fromkeys(word for word, _ in fate))
    if len(words) == 1:
        return f"{_PHRASES[words[0]]} at every size"
    parts = [f"{_PHRASES[word]} at {_and([str(size) for other, size in fate if other == word])} bytes"
             for word in words]  # fmt: skip
    return ", ".join(parts)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def equal_bytes(methods: Sequence[Method], metrics: Sequence[Metric]) -> str:
    """A table for each titok model: every point beside the best rival of as many bytes."""
    tables = []
    for method in (method for method in methods if method.kind == "titok"):
        verdicts = {(id(v.point), m.key): v for m in metrics for v in compare(method, methods, m)}
        body = [
            [f"{point.bytes:.4g}", *(_verdict(verdicts.get((id(point), metric.key))) for metric in metrics)]
            for point in method.points
        ]
        tables.append(table(["bytes", *map(_direction, metrics)], body, method.name))
    note = (
        "<p>Each cell: titok, against the best rival at as many bytes (interpolated between its points over log "
        "bytes). Differences under one per cent count as level.</p>"
    )
    return section("equal", "At equal bytes", "".join(tables), note)


def _direction(metric: Metric) -> str:
    return f"{metric.name} {'↓' if metric.lower else '↑'}"


def _verdict(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return "-"
    ours = verdict.metric.text(verdict.ours)
    if verdict.theirs is None:
        return f"{ours}, no rival so small", "alone"
    return f"{verdict.word}: {ours} against {verdict.metric.text(verdict.theirs)}, {verdict.rival}", verdict.word


def point_table(methods: Sequence[Method], metrics: Sequence[Metric]) -> str:
    """Every point of every method."""
    head = ["method", "setting", "bytes", "payload", "bpp", "pictures", *map(_direction, metrics)]
    body = []
    for method in methods:
        for point in method.points:
            plain = (point.bytes, point.payload, point.bpp, point.pictures)
            cells = ["-" if value is None else f"{value:.4g}" for value in plain]
            for metric in metrics:
                value, bounds = point.values.get(metric.key), point.intervals.get(metric.key, [])
                between = " to ".join(f"{bound:.{metric.digits}f}" for bound in bounds)
                cells.append("-" if value is None else metric.text(value) + f" ({between})" * bool(bounds))
            body.append([method.name, point.label, *cells])
    notes = "".join(
        f"<dt>{escape(method.name)}</dt><dd>{escape(method.description)}</dd>"
        for method in methods if method.description
    )  # fmt: skip
    return section("points", "All points", table(head, body, "Means over the pictures, 95 % intervals"),
                   f"<dl>{notes}</dl>" if notes else "")  # fmt: skip


# ---- what lies beside the curves --------------------------------------------------------------------------------


def wins(folder: Path) -> str:
    """How often titok beats each rival, picture by picture."""
    path = folder / "wins.json"
    rows = list(_win_rows(read_json(path))) if path.is_file() else []
    keys = list(dict.fromkeys(row["metric"] for row in rows))
    places = list(dict.fromkeys((row["ours"], row["rival"], row["budget"]) for row in rows))
    cells = {(row["ours"], row["rival"], row["budget"], row["metric"]): row["cell"] for row in rows}
    body = [[*place, *(cells.get((*place, key), "-") for key in keys)] for place in places]
    head = ["method", "rival", "bytes at most", *(metric_of(key).name for key in keys)]
    note = "<p>Share of pictures on which titok is better, with its interval; half is level.</p>"
    return section("wins", "Wins, picture by picture", table(head, body, "titok against each rival") if rows else "",
                   note)  # fmt: skip


def _win_rows(found: object) -> Iterable[dict]:
    """Rows of a list anywhere in the file that name a metric and a rate."""
    rate = number(_first(found, "rate", "win_rate")) if isinstance(found, dict) and "metric" in found else None
    if rate is not None:
        low, high = (number(bound) for bound in _pair(found.get("interval")))
        bounds = "" if low is None or high is None else f" ({low:.0%} to {high:.0%})"
        fate = "level" if not bounds or low <= 0.5 <= high else "ahead" if rate > 0.5 else "behind"
        yield {
            "ours": str(_first(found, "method", "ours", "titok")), "rival": str(found.get("rival", "")),
            "budget": str(_first(found, "budget", "bytes")), "metric": str(found["metric"]),
            "cell": (f"{rate:.0%}{bounds}", fate),
        }  # fmt: skip
    elif isinstance(found, (dict, list)):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _win_rows(part)


def _first(found: dict, *keys: str) -> object:
    return next((found[key] for key in keys if key in found), "")


def _pair(value: object) -> tuple[object, object]:
    return tuple(value) if isinstance(value, list) and len(value) == 2 else (None, None)


def read_gallery(folder: Path) -> tuple[list[dict], dict[str, str]]:
    """The gallery's entries, and its pictures as data URIs by the names that entries use; each picture once."""
    path = folder / "gallery.json"
    found = read_json(path) if path.is_file() else []
    entries, pictures = [], {}
    for entry in found if isinstance(found, list) else []:
        original = _picture(folder, entry.get("original"), pictures)
        shown = [{**version, "file": name} for version in entry.get("shown", [])
                 if (name := _picture(folder, version.get("file"), pictures))]  # fmt: skip
        if original and shown:
            entries.append({"name": str(entry.get("name", "")), "why": str(entry.get("why", "")), "original": original,
                            "shown": shown})  # fmt: skip
    return entries, pictures


def _picture(folder: Path, name: object, pictures: dict[str, str]) -> str | None:
    """The name under which the file is among the pictures now; None where there is no such picture in the folder."""
    for path in (folder / str(name), folder / "gallery" / str(name)):
        inside = path.resolve().is_relative_to(folder.resolve())
        if inside and path.is_file() and path.suffix.lower() in TYPES:
            content = path.read_bytes()
            key = hashlib.sha256(content).hexdigest()[:16]
            pictures[key] = f"data:{TYPES[path.suffix.lower()]};base64,{base64.b64encode(content).decode()}"
            return key
    print(f"gallery: there is no picture {name}", file=sys.stderr)
    return None


def speed_table(path: Path) -> str:
    """A table of timings: pytest-benchmark's, condensed or not, or any list of rows under a name."""
    found = read_json(path)
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else []
    rows = [_timing(row) for row in next(iter(lists), []) if isinstance(row, dict)]
    if not rows:
        raise SystemExit(f"{path} holds no timings")
    about = [f"{key}: {_plain(key, value)}" for key, value in found.items() if not isinstance(value, (list, dict))]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    body = [[_plain(key, row.get(key)) for key in keys] for row in rows]
    return table([key.replace("_", " ") for key in keys], body, ", ".join([path.stem.replace("-", " "), *about]))


def _timing(row: dict) -> dict:
    stats = row.get("stats")
    if isinstance(stats, dict):  # as pytest-benchmark writes it, with much that nobody reads
        return {key: (row | stats).get(key) for key in ("group", "name", "median", "rounds")}
    return {key: value for key, value in row.items() if not isinstance(value, (list, dict))}


def _plain(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is None:
        return "-" if value is None else str(value)
    if key in ("median", "seconds", "latency", "mean"):
        return duration(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def protocol(folder: Path) -> str:
    """Everything that ``protocol.json`` says, to be unfolded."""
    path = folder / "protocol.json"
    if not path.is_file():
        return ""
    outline = _outline(read_json(path))
    return section("protocol", "Protocol", f"<details><summary>How this was measured</summary>{outline}</details>")


def _outline(value: object) -> str:
    if isinstance(value, dict):
        parts = (f"<dt>{escape(str(key))}</dt><dd>{_outline(part)}</dd>" for key, part in value.items())
        return f"<dl>{''.join(parts)}</dl>"
    if isinstance(value, list):
        return f"<ul>{''.join(f'<li>{_outline(part)}</li>' for part in value)}</ul>"
    return escape(_plain("", value))


# ---- HTML -------------------------------------------------------------------------------------------------------


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote")
    parser.add_argument("--speed", type=Path, nargs="+", default=[], metavar="JSON", help="timings to show as well")
    parser.add_argument("--out", type=Path, default=Path("report.html"))
    options = parser.parse_args()
    text = page(options.folder, options.speed)
    options.out.write_text(text, encoding="utf-8")
    size = options.out.stat().st_size
    print(f"{options.out}: {size / 1e6:.1f} MB{', much for a phone: a smaller gallery helps' * (size > HEAVY)}",
          file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
