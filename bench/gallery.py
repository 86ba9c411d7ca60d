"""The README's gallery: pictures, and what is left of them at each rate.

    python -m bench.gallery tests/data/*.jpg --out bench/results/gallery.webp
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from titokcodec import Codec

GAP, PAD = 6, 3  # pixels between pictures, and around a caption
LETTERS = 10  # pixels of its font


def square(path: Path, side: int = 256) -> Image.Image:
    """The middle of the picture as an RGB square."""
    return ImageOps.fit(Image.open(path).convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def rows(codec: Codec, pictures: list[Image.Image], counts: list[int]) -> list[list[tuple[str, Image.Image]]]:
    """For each picture: itself and its decoded files, each with a caption."""
    table = [[("original", picture)] for picture in pictures]
    for count in counts:
        files = codec.compress_batch(pictures, tokens=count)
        for row, data, decoded in zip(table, files, codec.decompress_batch(files), strict=True):
            row.append((f"{count} tokens, {len(data)} bytes", decoded))
    return table


def sheet(table: list[list[tuple[str, Image.Image]]], letters: int = LETTERS) -> Image.Image:
    """All pictures of the table, which are of one size, on one white sheet, captions of so many pixels below."""
    width, height = table[0][0][1].size
    line = round(1.2 * letters)
    lines = max(caption.count("\n") + 1 for row in table for caption, _ in row)
    across, down = width + GAP, height + line * lines + 2 * PAD + GAP
    canvas = Image.new("RGB", (across * len(table[0]) - GAP, down * len(table)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(letters)
    for y, row in enumerate(table):
        for x, (caption, picture) in enumerate(row):
            canvas.paste(picture, (x * across, y * down))
            for number, text in enumerate(caption.split("\n")):
                draw.text((x * across + 2, y * down + height + PAD + line * number), text, fill="black", font=font)
    return canvas


def save(image: Image.Image, path: Path, quality: int = 82) -> None:
    """Write small: these pictures live in the repository."""
    buffer = io.BytesIO()
    image.save(buffer, path.suffix[1:], quality=quality, method=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128])
    options = parser.parse_args()
    codec = Codec.from_pretrained(options.model)
    save(sheet(rows(codec, [square(path) for path in options.images], options.tokens)), options.out)


if __name__ == "__main__":
    main()
