"""The README's generated pictures: a row for each class, the first pictures of the first seed, none of them chosen.

    python -m bench.generated --out generated.webp [--classes CLASS ...] [--tokens K] [--count N] [--seed S]

A row is ``codec.decode(generator.sample([CLASS] * N, seed=S))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from titokcodec.training.argtypes import whole
from titokcodec.training.sheet import images

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.request import class_number
from titokcodec.cli.script import Parser, start

from .gallery import format_of, save
from .sheet import labelled_sheet

SIDE = 144  # pixels of a picture
QUALITY = 70  # of a WebP file


def sheet(
    generator: Generator, codec: Codec, classes: Sequence[str], count: int, seed: int, tokens: int | None
) -> Image.Image:
    """A labelled row of ``count`` pictures for each class."""
    rows = []
    for name in classes:
        labels = [class_number(generator, name)] * count
        made = images(codec.decode(generator.sample(labels, seed=seed, tokens=tokens).cpu()))
        small = [picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for picture in made]
        rows.append((name.replace("-", "\n"), small))
    return labelled_sheet(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--generator", help="weight file of the generator (default: the bundled one)")
    parser.add_argument("--model", help="weight file of its tokenizer (default: the bundled one)")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="default: all")
    parser.add_argument("--tokens", type=whole(1), metavar="K", help="of a picture (default: as the generator has it)")
    parser.add_argument("--count", type=whole(1), default=8, help="pictures of a class (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="picture file, .webp for example")
    options = parser.parse_args(arguments)
    format_of(options.out)  # complain before the work
    codec, generator = Codec.from_pretrained(options.model), Generator.from_pretrained(options.generator)
    generator.check_fits(codec.weights)
    classes = options.classes or generator.class_names
    if not classes:
        raise TitokError(f"{generator.name} has no names of classes: give numbers by --classes")
    save(sheet(generator, codec, classes, options.count, options.seed, options.tokens), options.out, QUALITY)


if __name__ == "__main__":
    start(main)
