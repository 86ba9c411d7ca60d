"""The README's worst and best pictures of titok, as the benchmark chose them, beside thumbnails of as many bytes.

    python -m bench.rate_distortion --images DIR --lpips FILE --out RESULTS
    python -m bench.extremes RESULTS --out extremes.webp

A row a picture, the worst first: the original, then for the fewest and the most tokens what titok makes of it and the
thumbnails that ``bench.exhibits`` chose, captions from ``gallery/gallery.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError
from titokcodec.pictures.formats import open_picture

from . import curves
from .curves import metric_of
from .gallery import NOTHING, Cell, save, sheet

TOKENS = (32, 128)
RIVALS = ("webp-thumbnail", "jxl-thumbnail")
METRICS = ("lpips-squeeze", "psnr-rgb")  # of the captions
QUALITY = 72  # of the WebP file
RANKS = ("", "second ", "third ")


def chosen(folder: Path, each: int) -> list[dict[str, Any]]:
    """The gallery's entries of the worst pictures and of the best, so many of each.

    Raises:
        TitokError: The folder has no gallery, or one without them.
    """
    path = folder / "gallery" / "gallery.json"
    if not path.is_file():
        raise TitokError(f"{path} is not there: python -m bench.rate_distortion makes it")
    rows = curves.read_json(path)
    found = [[row for row in rows if row["why"] == why][:each] for why in ("worst", "best")]
    if not all(found):
        raise TitokError(f"{path} names no worst and best: run python -m bench.rate_distortion with --extremes")
    return [{**row, "why": rank + row["why"]} for part in found for rank, row in zip(RANKS, part, strict=False)]


def table(folder: Path, each: int = 2, tokens: Sequence[int] = TOKENS) -> list[list[Cell]]:
    """For each picture its captions and what they stand under.

    Raises:
        TitokError: Something of it is not in the folder.
    """
    entries = chosen(folder, each)
    methods = curves.read_methods(folder)
    names = {method.slug: method.name.removesuffix(" thumbnail") for method in methods}
    ours = next((method.slug for method in methods if method.kind == "titok"), "")
    pairs = curves.paired(curves.read_json(folder / "wins.json"))
    labels = [f"{count} tokens" for count in tokens]
    for label in labels:
        if (ours, label) not in pairs:
            raise TitokError(f"{folder} has no thumbnails beside {label} of titok: choose others with --tokens")
    budgets = [pairs[ours, label] for label in labels]
    most = curves.most_pictures(methods)
    return [[_original(folder, entry, most), *_versions(folder, entry, labels, budgets, names)] for entry in entries]


def _original(folder: Path, entry: dict[str, Any], most: float) -> Cell:
    return f"{entry['why']} of {most:g}:\n{Path(entry['name']).stem}", _opened(folder, entry["original"])


def _versions(
    folder: Path, entry: dict[str, Any], labels: Sequence[str], budgets: Sequence[str], names: dict[str, str]
) -> Iterator[Cell]:
    """Of each number of tokens titok's version and the rivals' in as many bytes."""
    for label, budget in zip(labels, budgets, strict=True):
        yield _cell(folder, "titok", _shown(entry, "titok", label))
        for rival in RIVALS:
            if rival in names:
                yield _cell(folder, names[rival], _shown(entry, rival, budget))


def _shown(entry: dict[str, Any], method: str, label: str) -> dict[str, Any] | None:
    """The version of that method whose label ends so."""
    fitting = (shown for shown in entry["shown"] if shown["method"] == method)
    return next((shown for shown in fitting if shown["label"].split(", ")[-1] == label), None)


def _cell(folder: Path, name: str, shown: dict[str, Any] | None) -> Cell:
    if shown is None:
        return f"{name}\nhas no file so small", Image.new("RGB", (256, 256), NOTHING)
    if missing := [key for key in METRICS if key not in shown]:
        raise TitokError(f"{folder} lacks {missing[0]}: run python -m bench.rate_distortion with it")
    lpips, psnr = (metric_of(key).text(shown[key]) for key in METRICS)
    return f"{name}, {shown['bytes']} bytes\nLPIPS {lpips}, {psnr}", _opened(folder, shown["file"])


def _opened(folder: Path, name: str) -> Image.Image:
    path = folder / "gallery" / name
    if not path.is_file():
        raise TitokError(f"{path} is not there: python -m bench.rate_distortion makes it")
    return open_picture(path, name).convert("RGB")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what bench.rate_distortion wrote, with its pictures")
    parser.add_argument("--out", type=Path, required=True, help="WebP file")
    parser.add_argument(
        "--each",
        type=int,
        default=2,
        choices=range(1, len(RANKS) + 1),
        help="pictures of each sort (default: %(default)s)",
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, help=f"default: {' '.join(map(str, TOKENS))}")
    options = parser.parse_args(arguments)
    save(sheet(table(options.folder, options.each, options.tokens)), options.out, QUALITY)


if __name__ == "__main__":
    start(main)
