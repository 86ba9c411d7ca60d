"""Rate and distortion: titok beside what people use, at equal bytes.

    python -m bench.rate_distortion --images DIR|TAR ... --out DIR [--model M ...] [--lpips FILE] [--lite0 FILE]

titok at several numbers of tokens, by any models; JPEG, WebP, AVIF and JPEG XL (and BPG and VVC where their programs
are installed), each as files of the picture at its own size and as the best thumbnail under each budget of bytes, for
every picture and metric by itself; and thumbnails of bare pixels. Whole files count, payloads stand beside them. The
model's weights are not part of the rate.

With ``--size 256`` all pictures are 256 x 256 crops and the budgets are the most that titok's files can take, besides
those of ``--budgets``. With ``--size full`` they keep their size, titok lays them on one tile (``fit``) and on many
(``tile``), and thumbnails may have, picture by picture, as many bytes as titok took. With ``--targets`` titok makes
files for so many bytes (``target``), choosing scale, layout and tokens by itself, and thumbnails may have just as many;
the layouts are then measured only where ``--layouts`` asks for them. With ``--score-side`` large pictures are compared
at a smaller size, while titok compresses them whole:

    python -m bench.rate_distortion --images DIR --out DIR --size full --targets 400 1000 2000 4000 --score-side 1024

The folder then holds a file a method in CompressAI's schema (``titok-default-1.json``, ``webp-thumbnail.json``,
``jpeg-native.json``, ..), ``wins.json``, ``protocol.json`` and ``gallery/`` with ``gallery.json`` and the pictures that
it lists: the report reads just that.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from titokcodec.training.argtypes import whole

from titokcodec import TitokError
from titokcodec.cli.script import Parser, start
from titokcodec.metrics.scores import METRICS

from . import curves, exhibits, inputs, originals, records, rivals
from .measure import Case, Finding, Key, Setup, measure_all
from .originals import CROPS, Original
from .ours import TARGET, TOKENS, Entrant, entrants
from .protocol import protocol

BUDGETS = (300, 500, 1000)  # bytes, besides titok's: JPEG and AVIF have no smaller files


def budgets_for(models: Sequence[Entrant], size: str) -> dict[Key, str]:
    """For each of titok's points the label of the budget that rivals have beside it."""
    return {
        (entrant.method(way), label): _budget(entrant, way, number, size)
        for entrant in models
        for way in entrant.ways
        for number, label in entrant.points(way).items()
    }


def _budget(entrant: Entrant, way: str, number: int, size: str) -> str:
    if way == TARGET:
        return f"budget {number}"
    if size == "256":
        return f"budget {entrant.ceiling(number)}"
    return f"bytes of {entrant.method(way)} at {entrant.points(way)[number]}"


def cases(
    pictures: Sequence[Original], models: Sequence[Entrant], equal: dict[Key, str], budgets: Sequence[int]
) -> Iterator[Case]:
    """Every picture with what titok makes of it."""
    batches = zip(*(entrant.files([original.source for original in pictures]) for entrant in models), strict=True)
    for original, parts in zip(pictures, batches, strict=True):
        titok = {key: decoded for part in parts for key, decoded in part.items()}
        own = {
            label: int(label.split()[1]) if label.startswith("budget ") else len(titok[key].data)
            for key, label in equal.items()
        }
        yield Case(original.name, original.picture, titok, own | {f"budget {most}": most for most in budgets})


def benchmark(
    pictures: Sequence[Original],
    models: Sequence[Entrant],
    setup: Setup,
    size: str,
    budgets: Sequence[int],
    workers: int,
) -> list[Finding]:
    """Everything measured, in the order of the pictures; progress goes to stderr."""
    start, found = time.perf_counter(), []
    for finding in measure_all(cases(pictures, models, budgets_for(models, size), budgets), setup, workers):
        found.append(finding)
        seconds = time.perf_counter() - start
        print(f"{len(found)}/{len(pictures)} {finding.name} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return found


def write(
    out: Path,
    pictures: Sequence[Original],
    findings: Sequence[Finding],
    models: Sequence[Entrant],
    methods: Sequence[str],
    equal: dict[Key, str],
    chooser: str,
) -> None:
    """The methods' files and the win rates."""
    pixels = [original.pixels for original in pictures]
    names = {
        entrant.method(way): " ".join(["titok", entrant.name, *([way] * (way != "auto"))])
        for entrant in models
        for way in entrant.ways
    }
    names |= {method: f"{rivals.NAMES[rivals.family(method)]} {method.rsplit('-', 1)[1]}" for method in methods}
    for method, name in names.items():
        records.write(out / f"{method}.json", records.record(method, name, findings, pixels, chooser))
    thumbnails = [method for method in methods if method.endswith("thumbnail")]
    records.write(out / "wins.json", records.wins(findings, equal, thumbnails))


def earlier(out: Path) -> list[Path]:
    """Make the folder, or find the methods' files that an earlier run left in it: the report would show them too.

    Raises:
        TitokError: It cannot be made, or holds something else. Asked before hours of work, which nothing may cost.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TitokError(f"{out} cannot be made: {error.strerror}") from None
    path = out / "protocol.json"
    if not path.exists():
        return []
    protocol = curves.read_json(path)
    try:
        methods = [*protocol["methods"], *(method for model in protocol["models"] for method in model["methods"])]
        return [out / f"{Path(method).name}.json" for method in methods]
    except (KeyError, TypeError):
        raise TitokError(f"{path} is not of this benchmark: give another folder") from None


def wanted(names: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The rivals' methods that are asked for and can be had, and the formats that cannot, with the reasons."""
    chosen = [method for method in rivals.METHODS if not names or {method, rivals.family(method)} & {*names}]
    missing = rivals.unusable(dict.fromkeys(map(rivals.family, chosen)))
    return [method for method in chosen if rivals.family(method) not in missing], missing


LAYOUTS = ("fit", "tile")  # of whole pictures
WHOLE = ("targets", "layouts", "score_side")  # options that only whole pictures have


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line, and what follows from it.

    Raises:
        UsageError: Options are wrong, do not go together, or leave nothing to measure.
    """
    parser = _arguments()
    options = parser.parse_args(arguments)
    crops = options.size == "256"
    for name in WHOLE:
        if crops and getattr(options, name) is not None:
            parser.error(f"--{name.replace('_', '-')} is for whole pictures: give --size full too")
    options.targets = tuple(options.targets or ())
    if options.layouts is None:
        options.layouts = ("auto",) if crops else () if options.targets else LAYOUTS
    if not options.layouts and not options.targets:
        parser.error("nothing of titok's is to be measured: give --layouts or --targets")
    if options.budgets is None:
        options.budgets = BUDGETS if crops else ()
    return options


def _arguments() -> argparse.ArgumentParser:
    parser = Parser(__doc__)
    inputs.add_pictures(parser, every=True)
    inputs.add_models(parser)
    inputs.add_networks(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the results")
    add("--size", choices=CROPS, default="256", help="crops of 256 x 256, or whole pictures (default: %(default)s)")
    text = "files for so many bytes, beside thumbnails of as many; for --size full"
    add("--targets", type=whole(1), nargs="+", metavar="BYTES", help=text)
    text = "layouts of whole pictures for given numbers of tokens: fit, tile (default: both; none with --targets)"
    add("--layouts", choices=LAYOUTS, nargs="*", metavar="LAYOUT", help=text)
    text = "compare larger pictures with their longer side reduced to so many pixels; for --size full"
    add("--score-side", type=whole(1), metavar="PIXELS", help=text)
    usual = " ".join(map(str, BUDGETS))
    text = f"bytes of thumbnails, besides those of titok's files (default: {usual}; none with --size full)"
    add("--budgets", type=whole(1), nargs="*", help=text)
    known = sorted({*rivals.METHODS, *map(rivals.family, rivals.METHODS)})
    add("--methods", nargs="*", choices=known, metavar="METHOD", help=f"rivals (default: all): {', '.join(known)}")
    text = f"default: all that can be had, of {', '.join(METRICS)}"
    add("--metrics", nargs="+", choices=METRICS, metavar="METRIC", help=text)
    usual = " ".join(map(str, TOKENS))
    text = f"numbers of tokens a tile, besides each model's fewest and most (default: {usual})"
    add("--tokens", type=whole(1), nargs="+", default=TOKENS, help=text)
    add("--gallery", type=whole(0), default=12, help="pictures to show from the first on (default: %(default)s)")
    add("--extremes", type=whole(0), default=3, help="and of the worst and of the best (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = _options(arguments)
    left = earlier(options.out)
    pictures = originals.read(options.images, options.size, options.limit, options.every, options.score_side)
    smallest = min(min(original.picture.size) for original in pictures)
    methods, missing = wanted(options.methods)
    setup = Setup(methods, options.lpips, options.lite0, smallest, options.metrics)
    judge = setup.judge()
    models = entrants(
        inputs.open_models(options),
        layouts=tuple(options.layouts),
        effort=options.effort,
        tokens=tuple(options.tokens),
        targets=options.targets,
        max_side=options.score_side,
    )
    skipped = missing | judge.skipped
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    findings = benchmark(pictures, models, setup, options.size, options.budgets, options.workers)
    equal = budgets_for(models, options.size)
    reached = {method for found in findings for method, _ in found.entries}
    skipped |= {method: "none of its files fits any budget" for method in methods if method not in reached}
    methods = [method for method in methods if method in reached]
    for path in left:
        path.unlink(missing_ok=True)
    write(options.out, pictures, findings, models, methods, equal, judge.chooser)
    records.write(options.out / "protocol.json", protocol(pictures, models, methods, judge, skipped, options))
    exhibits.gallery(
        options.out / "gallery", models[0], pictures, findings, equal, judge, options.gallery, options.extremes
    )


if __name__ == "__main__":
    start(main)
