"""The report: one HTML page with the results of ``bench.rate_distortion`` that needs no network and no server.

python -m bench.rate_distortion --images DIR --out RESULTS
python -m bench.report RESULTS --speed bench/results/speed.json --out report.html
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError

from . import charts, curves
from .cells import duration, listed, size
from .curves import Method, Metric, Pairs, Verdict, compare, metric_of, number, read_json

PAGE = Path(__file__).parent / "page"
TYPES = {".webp": "image/webp", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
LARGE = 30e6  # bytes of a page that a phone may not want
SECONDS, BYTES = ("median", "seconds", "latency", "mean"), ("memory", "device_memory")  # units by names of figures

_PHRASES = {
    "ahead": "ahead of the best rival",
    "level": "level with the best rival",
    "behind": "behind the best rival",
    "alone": "without a rival of so few bytes",
}
Cell = str | tuple[str, str]  # text, or text and the class of its cell


@dataclass(frozen=True)
class Table:
    caption: str
    head: Sequence[str]
    body: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """Tables under a heading, with a note and explained terms; not shown without tables."""

    id: str
    title: str
    tables: Sequence[Table]
    note: str = ""
    terms: Sequence[tuple[str, str]] = field(default_factory=list)


def page(folder: Path, speeds: Sequence[Path] = ()) -> str:
    """The whole page for a folder of results."""
    methods = curves.read_methods(folder)
    metrics = curves.metrics_of(methods)
    wins = read_wins(folder)
    pairs = curves.paired(wins)
    gallery, pictures = read_gallery(folder, methods)
    data = {
        "figures": charts.figures(methods, metrics),
        "metrics": {metric.key: asdict(metric) for metric in metrics},
        "gallery": gallery,
        "pictures": pictures,
    }
    protocol = folder / "protocol.json"
    sections = [
        equal_bytes(methods, metrics, pairs),
        win_table(wins, methods),
        point_table(methods, metrics),
        Section("speed", "Speed", [speed_table(path) for path in speeds]),
    ]
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # captions keep the order of metrics
    environment.filters["plain"] = lambda value: plain("", value)
    return environment.get_template("report.html").render(
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        scripts=[_script(get_plotlyjs()), _script("".join(map(_own_script, ("gallery.js", "charts.js"))))],
        data=_finite(data),
        headline=headline(methods, metrics, pairs),
        sections=sections,
        protocol=read_json(protocol) if protocol.is_file() else None,
    )


def _own_script(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _script(text: str) -> dict[str, str]:
    """A script with the hash by which the page's content security policy admits it: no other may run."""
    return {"text": text, "digest": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}


def _finite(data: object) -> object:
    """The same without NaN and infinity, which browsers do not read."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return number(data) if isinstance(data, float) else data


def plain(key: str, value: object) -> str:
    """A value as a table shows it; by their names, times are in seconds and memory in bytes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is None:
        return "-" if value is None else str(value)
    if key in SECONDS:
        return duration(value)
    if key in BYTES:
        return size(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- what comes out of the curves -------------------------------------------------------------------------------


def headline(methods: Sequence[Method], metrics: Sequence[Metric], pairs: Pairs) -> list[str]:
    """Where each titok model is ahead of the best rival at equal bytes and where it is not, in words."""
    ours = [method for method in methods if method.kind == "titok" and any(point.values for point in method.points)]
    texts = [_summary(method, [compare(method, methods, metric, pairs) for metric in metrics]) for method in ours]
    counts = [point.pictures for method in methods for point in method.points if point.pictures]
    if counts and min(counts) < max(counts):
        texts.append(
            f"Some methods cannot make every picture so small: hollow marks are means over fewer than the "
            f"{max(counts)} pictures: those that fitted."
        )
    return texts


def _summary(method: Method, rows: Sequence[list[Verdict]]) -> str:
    """One sentence; metrics with the same outcome at the same sizes share a clause."""
    sizes = [f"{point.bytes:.0f}" for point in method.points]
    outcomes: dict[tuple, list[str]] = {}
    for row in filter(None, rows):
        outcome = tuple((verdict.word, f"{verdict.point.bytes:.0f}") for verdict in row)
        outcomes.setdefault(outcome, []).append(row[0].metric.name)
    clauses = [f"on {listed(names)} {_outcome(outcome, len(sizes))}" for outcome, names in outcomes.items()]
    first, rival, rest = "; ".join(clauses).partition("the best rival")
    outcomes = first + rival + rest.replace("the best rival", "it")
    return f"{method.name}, in {' to '.join(dict.fromkeys((sizes[0], sizes[-1])))} bytes a picture: {outcomes}."


def _outcome(outcome: tuple[tuple[str, str], ...], points: int) -> str:
    words = list(dict.fromkeys(word for word, _ in outcome))
    if len(words) == 1 and len(outcome) == points:
        return _PHRASES[words[0]] + " at every size" * (points > 1)
    sizes = [listed([size for other, size in outcome if other == word]) for word in words]
    return ", ".join(f"{_PHRASES[word]} at {size} bytes" for word, size in zip(words, sizes, strict=True))


def equal_bytes(methods: Sequence[Method], metrics: Sequence[Metric], pairs: Pairs) -> Section:
    """A table for each titok model: every point beside the best rival of as many bytes."""
    tables = []
    for method in (method for method in methods if method.kind == "titok"):
        verdicts = {(id(v.point), m.key): v for m in metrics for v in compare(method, methods, m, pairs)}
        body = [
            [f"{point.bytes:.4g}", *(_verdict(verdicts.get((id(point), metric.key))) for metric in metrics)]
            for point in method.points
        ]
        tables.append(Table(method.name, ["bytes", *map(_direction, metrics)], body))
    note = (
        "Each cell: titok, and below it the best rival at as many bytes: under the same budget, or where it has "
        "none, between its points over log bytes. Differences under one per cent count as level."
    )
    return Section("equal", "At equal bytes", tables, note)


def _direction(metric: Metric) -> str:
    return f"{metric.name} {'↓' if metric.lower else '↑'}"


def _verdict(verdict: Verdict | None) -> Cell:
    if verdict is None:
        return "-"
    ours = verdict.metric.text(verdict.ours)
    if verdict.theirs is None:
        return f"{ours}, alone\nno rival so small", "alone"
    return f"{ours}, {verdict.word}\n{verdict.metric.text(verdict.theirs)} {verdict.rival}", verdict.word


def point_table(methods: Sequence[Method], metrics: Sequence[Metric]) -> Section:
    """Every point of every method."""
    head = ["method", "setting", "bytes", "payload", "bpp", "pictures", *map(_direction, metrics)]
    body = []
    for method in methods:
        for point in method.points:
            counts = (point.bytes, point.payload, point.bpp, point.pictures)
            cells = ["-" if value is None else f"{value:.4g}" for value in counts]
            for metric in metrics:
                value, bounds = point.values.get(metric.key), point.intervals.get(metric.key, [])
                between = " to ".join(f"{bound:.{metric.digits}f}" for bound in bounds)
                cells.append("-" if value is None else metric.text(value) + f" ({between})" * bool(bounds))
            body.append([method.name, point.label, *cells])
    names_by_text: dict[str, list[str]] = {}
    for method in methods:
        names_by_text.setdefault(method.description, []).append(method.name)
    terms = [(listed(names), text) for text, names in names_by_text.items() if text]
    table = Table("Means over the pictures, 95 % intervals", head, body)
    return Section("points", "All points", [table] if body else [], terms=terms)


# ---- what lies beside the curves --------------------------------------------------------------------------------


def read_wins(folder: Path) -> list[dict]:
    """The rows of ``wins.json``; none without the file."""
    path = folder / "wins.json"
    found = read_json(path) if path.is_file() else []
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def win_table(rows: Sequence[dict], methods: Sequence[Method]) -> Section:
    """How often titok beats each rival, picture by picture."""
    names = {method.slug: method.name for method in methods}
    lines: dict[tuple[str, ...], dict[str, Cell]] = {}
    for row in rows:
        ours, rival = (str(row.get(key, "")) for key in ("titok", "rival"))
        pictures, without = (number(row.get(key)) for key in ("pictures", "without"))
        seen = "-" if pictures is None else f"{pictures:g} of {pictures + (without or 0):g}"
        place = (
            names.get(ours, ours),
            str(row.get("label", "")),
            names.get(rival, rival),
            str(row.get("budget", "")),
            seen,
        )
        lines.setdefault(place, {})[str(row.get("metric"))] = _win(row)
    keys = [key for key in dict.fromkeys(key for line in lines.values() for key in line) if key != "None"]
    body = [[*place, *(line.get(key, "-") for key in keys)] for place, line in lines.items()]
    head = ["method", "setting", "rival", "its bytes", "pictures", *(metric_of(key).name for key in keys)]
    note = (
        "Share of pictures on which titok is better, a tie being half a win, with 95 % intervals; of the pictures "
        "that the rival can make so small."
    )
    tables = [Table("titok against each rival in as many bytes", head, body)] if lines else []
    return Section("wins", "Wins, picture by picture", tables, note)


def _win(row: dict) -> Cell:
    rate, bounds = number(row.get("rate")), row.get("interval")
    if rate is None:
        return "-"
    if not isinstance(bounds, list) or len(bounds) != 2 or None in map(number, bounds):
        return f"{rate:.0%}"
    outcome = "level" if bounds[0] <= 0.5 <= bounds[1] else "ahead" if rate > 0.5 else "behind"
    return f"{rate:.0%} ({bounds[0]:.0%} to {bounds[1]:.0%})", outcome


def read_gallery(folder: Path, methods: Sequence[Method] = ()) -> tuple[list[dict], dict[str, str]]:
    """The gallery's entries, and its pictures as data URIs by the names that entries use; each picture once.

    An entry that is there for several reasons comes once, with the places that it has among the pictures of each.
    """
    path = folder / "gallery" / "gallery.json"
    found = read_json(path) if path.is_file() else []
    known = {method.slug: method for method in methods} | {method.name: method for method in methods}
    entries: dict[tuple[str, str], dict] = {}
    pictures: dict[str, str] = {}
    for place, entry in enumerate(entry for entry in found if isinstance(entry, dict)):
        original = _picture(folder, entry.get("original"), pictures)
        shown = [
            _version(version, known, name)
            for version in entry.get("shown", [])
            if (name := _picture(folder, version.get("file"), pictures))
        ]
        if original and shown:
            name = str(entry.get("name", ""))
            fresh = {"name": name, "original": original, "shown": shown, "why": {}}
            entries.setdefault((name, original), fresh)["why"][str(entry.get("why", ""))] = place
    return list(entries.values()), pictures


def _version(version: dict, known: dict[str, Method], name: str) -> dict:
    """What is shown of a method, under the name and with the kind that the curves have."""
    method = str(version.get("method", ""))
    kind = "titok" if method.startswith("titok") else "thumbnail"
    if method in known:
        method, kind = known[method].name, known[method].kind
    return {**version, "method": method, "label": str(version.get("label", "")), "kind": kind, "file": name}


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


def speed_table(path: Path) -> Table:
    """A table of timings: pytest-benchmark's, condensed or not, or any list of rows under a name."""
    found = read_json(path)
    lists = [value for value in found.values() if isinstance(value, list)] if isinstance(found, dict) else []
    rows = [_timing(row) for row in next(iter(lists), []) if isinstance(row, dict)]
    if not rows:
        raise TitokError(f"{path} holds no timings")
    about = [f"{key}: {plain(key, value)}" for key, value in found.items() if not isinstance(value, (list, dict))]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    body = [[plain(key, row.get(key)) for key in keys] for row in rows]
    return Table(", ".join([path.stem.replace("-", " "), *about]), [key.replace("_", " ") for key in keys], body)


def _timing(row: dict) -> dict:
    stats = row.get("stats")
    if isinstance(stats, dict):  # as pytest-benchmark writes it, with much that nobody reads
        extra = row.get("extra_info")
        kept = {key: (row | stats).get(key) for key in ("group", "name", "median", "rounds")}
        row = kept | (extra if isinstance(extra, dict) else {})
    found = {key: value for key, value in row.items() if not isinstance(value, (list, dict))}
    pictures, median = number(row.get("pictures")), number(row.get("median"))
    return found | ({"pictures_a_second": pictures / median} if pictures and median else {})


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote")
    parser.add_argument("--speed", type=Path, nargs="+", default=[], metavar="JSON", help="timings to show as well")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="default: %(default)s")
    options = parser.parse_args()
    text = page(options.folder, options.speed)
    try:
        options.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TitokError(f"{options.out} cannot be written: {error.strerror}") from None
    written = options.out.stat().st_size
    print(
        f"{options.out}: {written / 1e6:.1f} MB{', much for a phone: a smaller gallery helps' * (written > LARGE)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    start(main)
