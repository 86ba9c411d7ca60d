"""The README's gallery: pictures, and what is left of them at each rate, beside WebP thumbnails of as many bytes.

    python -m bench.gallery tests/data/astronaut.jpg@96,0,256 tests/data/coffee.jpg --out gallery.webp

A row a picture: the original, then for each number of tokens what titok makes of it, and of all WebP files of any side
and quality that are no longer than titok's of so many tokens can be, the one with the highest PSNR when it is enlarged
again. Pictures are cropped to their middle; of ``FILE@LEFT,TOP,SIDE`` the square of so many pixels at that place is
taken.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from titokcodec import Codec
from titokcodec.cli import picture_files
from titokcodec.cli.script import Parser, start
from titokcodec.errors import ImageError, TitokError
from titokcodec.pictures.formats import open_picture

from .ours import Entrant
from .thumbnails import best_thumbnail

GAP, PAD = 6, 3  # pixels between pictures, and around a caption
LETTERS = 20  # pixels of its font, for a sheet that is shown at half its size
QUALITY = 82  # of the WebP file
NOTHING = "#eeeeee"  # stands where no file is so small

Cell = tuple[str, Image.Image]  # a caption and what it stands under


def square(given: str, side: int = 256) -> Image.Image:
    """The middle of a file's picture as an RGB square, or of ``FILE@LEFT,TOP,SIDE`` that part.

    Raises:
        argparse.ArgumentTypeError: There is no such picture, or what stands behind the @ is no square inside it.
    """
    path, _, place = given.partition("@")
    try:
        picture = open_picture(path, path).convert("RGB")
        left, top, length = map(int, place.split(",")) if place else (0, 0, min(picture.size))
    except ImageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{place} is not LEFT,TOP,SIDE") from None
    if place:
        if min(left, top, length - 1) < 0 or left + length > picture.width or top + length > picture.height:
            raise argparse.ArgumentTypeError(f"{place} is not inside {path}")
        picture = picture.crop((left, top, left + length, top + length))
    return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)


def table(codec: Codec, pictures: Sequence[Image.Image], counts: Sequence[int]) -> list[list[Cell]]:
    """For each picture itself, and for each number of tokens what titok and a WebP thumbnail keep of it."""
    rows = [[("original", picture)] for picture in pictures]
    entrant = Entrant(codec, codec.weights.name)
    for count in counts:
        files = codec.compress_batch(pictures, tokens=count)
        for row, data, decoded in zip(rows, files, codec.decompress_batch(files), strict=True):
            row.append((f"titok, {len(data)} bytes\n{count} tokens", decoded.convert("RGB")))
            row.append(thumbnail(row[0][1], entrant.ceiling(count)))
    return rows


def thumbnail(picture: Image.Image, budget: int) -> Cell:
    """The WebP thumbnail of the highest PSNR in so many bytes."""
    pixels = np.asarray(picture, dtype=np.float64)
    found = best_thumbnail(picture, budget, "webp", lambda shown: -np.square(shown - pixels).mean())
    if found is None:
        return "WebP\nhas no file so small", Image.new("RGB", picture.size, NOTHING)
    return f"WebP, {len(found.data)} bytes\n{found.side} x {found.side} pixels", found.picture


def sheet(rows: Sequence[Sequence[Cell]], letters: int = LETTERS) -> Image.Image:
    """All pictures of a table, which are of one size, on one white sheet, captions of so many pixels below."""
    width, height = rows[0][0][1].size
    line = round(1.2 * letters)
    lines = max(caption.count("\n") + 1 for row in rows for caption, _ in row)
    across, down = width + GAP, height + line * lines + 2 * PAD + GAP
    canvas = Image.new("RGB", (across * len(rows[0]) - GAP, down * len(rows)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(letters)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            canvas.paste(picture, (x * across, y * down))
            for number, text in enumerate(caption.split("\n")):
                pen.text((x * across + 2, y * down + height + PAD + line * number), text, fill="black", font=font)
    return canvas


def format_of(path: Path) -> str:
    """The format that a picture's suffix asks for. Raises ``TitokError`` if it asks for none that can be written."""
    try:
        return picture_files.format_of(path)
    except ImageError:  # whose advice is for commands with --format
        raise TitokError(f"{path} is no name for a picture: end it in .webp or .png") from None


def save(image: Image.Image, path: Path, quality: int = QUALITY) -> None:
    """Write small: these pictures live in the repository. Raises ``TitokError`` for a suffix of no picture."""
    buffer = io.BytesIO()
    image.save(buffer, format_of(path), quality=quality, method=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("images", type=square, nargs="+", metavar="FILE[@LEFT,TOP,SIDE]")
    parser.add_argument("--out", type=Path, required=True, help="WebP file")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128], help="default: 32 64 128")
    options = parser.parse_args(arguments)
    format_of(options.out)  # complain before the work
    save(sheet(table(Codec.from_pretrained(options.model), options.images, options.tokens)), options.out)


if __name__ == "__main__":
    start(main)
