"""Do tiles leave seams? The step across tile borders against the step elsewhere, and a picture of it.

    python -m bench.seams DIR|FILE ... --out bench/results/seams.json --picture bench/results/seams.webp

A contrast of 1 means that borders are like any other place. ``blended`` is what the codec decodes; ``butted`` are the
same tiles laid edge to edge without blending, to show what there would be to see; ``original`` is the picture itself.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image, ImageDraw

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.format import layout
from titokcodec.format.limits import TILE
from titokcodec.pictures import geometry, images

from . import records
from .gallery import GAP, save

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
TICKS = 10  # pixels of margin that they are drawn in


class Canvas:
    """A picture scaled to the canvas of its own grid, so that tile borders lie where they are looked for.

    Attributes:
        pixels: (H, W, 3) uint8.
        plan: Where the tiles lie.
    """

    def __init__(self, path: Path) -> None:
        pixels = images.load(path).pixels
        grid = layout.nearest_grid(pixels.shape[1], pixels.shape[0])
        self.pixels, self.plan = images.to_canvas(pixels, grid), layout.plan(grid)

    def blended(self, codec: Codec, tokens: int) -> np.ndarray:
        """What the codec makes of it."""
        return _through(codec, self.pixels, tokens, "tile")

    def butted(self, codec: Codec, tokens: int) -> np.ndarray:
        """Its tiles, each compressed by itself, laid edge to edge."""
        found = np.empty_like(self.pixels)
        for left, top in map(self.plan.corner, range(self.plan.tiles)):
            place = slice(top, top + TILE), slice(left, left + TILE)
            found[place] = _through(codec, self.pixels[place], tokens, "fit")
        return found


def _through(codec: Codec, pixels: np.ndarray, tokens: int, layout: str) -> np.ndarray:
    return np.asarray(codec.decompress(codec.compress(pixels, tokens=tokens, layout=layout, effort=0)).convert("RGB"))


def contrasts(codec: Codec, canvases: list[Canvas], counts: list[int]) -> dict[str, float]:
    """Mean contrasts over the pictures for each number of tokens."""

    def contrast(pictures: list[np.ndarray]) -> float:
        pairs = zip(pictures, canvases, strict=True)
        return round(mean(geometry.seam_contrast(picture, canvas.plan) for picture, canvas in pairs), 3)

    table = {"original": contrast([canvas.pixels for canvas in canvases])}
    for count in counts:
        table[f"blended/{count}"] = contrast([canvas.blended(codec, count) for canvas in canvases])
        table[f"butted/{count}"] = contrast([canvas.butted(codec, count) for canvas in canvases])
    return table


def picture(codec: Codec, canvas: Canvas, tokens: int) -> Image.Image:
    """Butted at the left, blended at the right, with ticks in the margin where tile borders are."""
    height, width = canvas.pixels.shape[:2]
    sheet = Image.new("RGB", (width * 2 + GAP, height + TICKS), "white")
    draw = ImageDraw.Draw(sheet)
    borders = {x for left in canvas.plan.lefts for x in (left, left + TILE) if 0 < x < width}
    for x0, shown in ((0, canvas.butted(codec, tokens)), (width + GAP, canvas.blended(codec, tokens))):
        sheet.paste(Image.fromarray(shown), (x0, TICKS))
        for x in borders:
            draw.line([(x0 + x, 1), (x0 + x, TICKS - 2)], fill="black", width=2)
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("images", type=Path, nargs="+", help="pictures larger than one tile, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--picture", type=Path, help="where to save the first picture, butted beside blended")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128])
    options = parser.parse_args(arguments)
    paths = [path for given in options.images for path in (sorted(given.iterdir()) if given.is_dir() else [given])]
    canvases = [Canvas(path) for path in paths if path.suffix.lower() in SUFFIXES]
    codec = Codec.from_pretrained(options.model)
    records.write(options.out, {"pictures": len(canvases), **contrasts(codec, canvases, options.tokens)})
    if options.picture:
        save(picture(codec, canvases[0], max(options.tokens)), options.picture)


if __name__ == "__main__":
    start(main)
