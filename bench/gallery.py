"""The README's gallery: pictures, and what is left of them at each rate.

    python -m bench.gallery tests/data/*.jpg --out bench/results/gallery.webp
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from titokcodec import Codec

GAP, LABEL = 6, 18


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


def sheet(table: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """All pictures of the table on one white sheet, captions below."""
    width, height = table[0][0][1].size
    across, down = width + GAP, height + LABEL + GAP
    canvas = Image.new("RGB", (across * len(table[0]) - GAP, down * len(table)), "white")
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(table):
        for x, (caption, picture) in enumerate(row):
            canvas.paste(picture, (x * across, y * down))
            draw.text((x * across + 2, y * down + height + 3), caption, fill="black")
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
