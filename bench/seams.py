"""Do tiles leave seams? The step across tile borders against the step elsewhere, and a picture of it.

    python -m bench.seams DIR|FILE ... --out bench/results/seams.json --picture bench/results/seams.webp

Contrast 1.0 means that borders are like any other place. ``blended`` is what the codec draws; ``butted`` are the same
tiles laid edge to edge without blending, to show what there would be to see; ``original`` is the picture itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image, ImageDraw

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.format import layout
from titokcodec.format.limits import TILE
from titokcodec.pictures import geometry, images

from .gallery import GAP, save

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def opened(path: Path) -> np.ndarray:
    """A picture scaled to the canvas of its own grid, so that borders lie where they are looked for."""
    pixels = images.load(path).pixels
    return images.to_canvas(pixels, layout.nearest_grid(pixels.shape[1], pixels.shape[0]))


def draw_tiles(codec: Codec, pixels: np.ndarray, tokens: int) -> tuple[geometry.Plan, np.ndarray, np.ndarray]:
    """The plan, the blended picture and the butted one, of a picture that has the size of a canvas."""
    plan = layout.plan(layout.nearest_grid(pixels.shape[1], pixels.shape[0]))
    whole = codec.compress(pixels, tokens=tokens, layout="tile", effort=0)
    blended = np.asarray(codec.decompress(whole).convert("RGB"))
    butted = np.empty_like(pixels)
    for index in range(plan.tiles):
        left, top = plan.corner(index)
        own = pixels[top : top + TILE, left : left + TILE]
        tile = np.asarray(codec.decompress(codec.compress(own, tokens=tokens, layout="fit", effort=0)).convert("RGB"))
        butted[top : top + TILE, left : left + TILE] = tile
    return plan, blended, butted


def measure(codec: Codec, paths: list[Path], counts: list[int]) -> dict:
    """Mean contrasts over the pictures for each number of tokens."""
    pictures = [opened(path) for path in paths]
    plans = [layout.plan(layout.nearest_grid(p.shape[1], p.shape[0])) for p in pictures]
    table = {"original": mean(geometry.seam_contrast(p, plan) for p, plan in zip(pictures, plans, strict=True))}
    for count in counts:
        drawn = [draw_tiles(codec, pixels, count) for pixels in pictures]
        table[f"blended/{count}"] = mean(geometry.seam_contrast(blended, plan) for plan, blended, _ in drawn)
        table[f"butted/{count}"] = mean(geometry.seam_contrast(butted, plan) for plan, _, butted in drawn)
    return {"pictures": len(paths), **{name: round(value, 3) for name, value in table.items()}}


def picture(codec: Codec, path: Path, tokens: int) -> Image.Image:
    """Butted above, blended below, with ticks in the margin where tile borders are."""
    pixels = opened(path)
    plan, blended, butted = draw_tiles(codec, pixels, tokens)
    height, width = pixels.shape[:2]
    margin = 10
    canvas = Image.new("RGB", (width * 2 + GAP, height + margin), "white")
    draw = ImageDraw.Draw(canvas)
    for x0, shown in ((0, butted), (width + GAP, blended)):
        canvas.paste(Image.fromarray(shown), (x0, margin))
        for left in plan.lefts:
            for x in (left, left + TILE):
                if 0 < x < width:
                    draw.line([(x0 + x, 1), (x0 + x, margin - 2)], fill="black", width=2)
    return canvas


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("images", type=Path, nargs="+", help="pictures larger than one tile, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--picture", type=Path, help="where to save the first picture, butted beside blended")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128])
    options = parser.parse_args()
    paths = [path for given in options.images for path in (sorted(given.iterdir()) if given.is_dir() else [given])]
    paths = [path for path in paths if path.suffix.lower() in SUFFIXES]
    codec = Codec.from_pretrained(options.model)
    options.out.write_text(json.dumps(measure(codec, paths, options.tokens), indent=2) + "\n")
    if options.picture:
        save(picture(codec, paths[0], max(options.tokens)), options.picture)


if __name__ == "__main__":
    start(main)
