"""Elongated pictures in about 200 bytes: squeezed into one tile, padded, or on two or three tiles of fewer tokens?

    python -m bench.elongated --images DIR|TAR ... [--lpips FILE] --out bench/results/elongated.json

Every picture is cut to aspects of 1.5 to 6 around its middle, as wide or as high as it is, and compressed in four ways,
all of at most as many tokens as one tile has: the whole picture squeezed into a tile, as ``fit`` does; scaled into it
and continued by its mirror image; and on two or three tiles in a row. Tokens are the encoder's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.format.layout import FIT, Grid
from titokcodec.format.limits import TILE
from titokcodec.metrics.scores import Judge
from titokcodec.pictures import images

from . import inputs, originals, records

ASPECTS = (1.5, 2, 3, 6)
METRICS = ("psnr-rgb", "ssim-rgb", "lpips-squeeze")


def cut_to(picture: Image.Image, aspect: float) -> Image.Image:
    """The middle of a picture, its longer side kept, ``aspect`` times as long as it is wide; never padded."""
    wide = picture.width >= picture.height
    long = max(picture.size)
    short = min(round(long / aspect), min(picture.size))
    long = min(long, round(short * aspect))
    width, height = (long, short) if wide else (short, long)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def on_grid(codec: Codec, pixels: np.ndarray, grid: Grid) -> np.ndarray:
    """(H, W, 3) uint8 of a picture on a grid, whose tiles share the tokens of one."""
    tokens = codec.weights.config.tokens // grid.tiles
    rows = codec.encode_canvas(images.to_canvas(pixels, grid), grid, 0)[:, :tokens]
    return np.asarray(images.to_image(codec.decode_canvas(grid, rows), size=pixels.shape[1::-1]))


def padded(codec: Codec, pixels: np.ndarray) -> np.ndarray:
    """The same on one tile, into which it is scaled without squeezing; the rest is its mirror image."""
    height, width = pixels.shape[:2]
    scale = TILE / max(height, width)
    small = images.resize(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))
    square = np.pad(small, ((0, TILE - small.shape[0]), (0, TILE - small.shape[1]), (0, 0)), "symmetric")
    decoded = codec.decode_canvas(FIT, codec.encode_canvas(square, FIT, 0))[: small.shape[0], : small.shape[1]]
    return np.asarray(images.to_image(np.ascontiguousarray(decoded), size=(width, height)))


def ways(codec: Codec, pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Every way's name and what it decodes to."""
    yield "squeezed", on_grid(codec, pixels, FIT)
    yield "padded", padded(codec, pixels)
    for count in (2, 3):
        grid = Grid(count, 1) if pixels.shape[1] >= pixels.shape[0] else Grid(1, count)
        yield f"{count} tiles", on_grid(codec, pixels, grid)


def compare(codec: Codec, pictures: list[Image.Image], judge: Judge) -> list[dict]:
    """A row of means for every aspect and way."""
    rows = []
    for aspect in ASPECTS:
        found: dict[str, list[dict[str, float]]] = {}
        for picture in pictures:
            cut = cut_to(picture, aspect)
            comparison = judge.against(cut)
            for name, decoded in ways(codec, np.asarray(cut)):
                found.setdefault(name, []).append(comparison.scores(Image.fromarray(decoded)))
        for name, scores in found.items():
            means = {metric: round(float(np.mean([score[metric] for score in scores])), 4) for metric in judge.metrics}
            rows.append({"aspect": aspect, "way": name, **means})
            print(json.dumps(rows[-1]))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    codec = Codec.from_pretrained(options.model)
    pictures = [original.picture for original in originals.read(options.images, "full")]
    smallest = min(round(min(max(picture.size) / max(ASPECTS), min(picture.size))) for picture in pictures)
    judge = Judge(options.lpips, None, smallest, METRICS)
    with torch.inference_mode():
        rows = compare(codec, pictures, judge)
    about = inputs.describe_model(codec) | {"pictures": len(pictures), "tokens": codec.weights.config.tokens}
    records.write(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    start(main)
