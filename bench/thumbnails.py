"""The rival at these sizes: the best WebP thumbnail that fits the same number of bytes, enlarged again.

    python -m bench.thumbnails --data DIR|TAR ... --lpips FILE --out bench/results/webp-val.json [--limit 60]

For each picture and budget every side is tried at the highest quality that fits, and the best is taken for each metric
by itself, which favours WebP. Pictures are 256 x 256 centre crops, scaled down with Lanczos and up with bicubic.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data import Pictures
from training.evaluate import eight_bit, psnr
from training.losses import LPIPS

BUDGETS = (60, 108, 156, 204)
SIDES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128)


def webp(image: Image.Image, quality: int) -> bytes:
    """The smallest file that Pillow's encoder makes at this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=quality, method=6)
    return buffer.getvalue()


def best_quality(image: Image.Image, budget: int) -> bytes | None:
    """The file of the highest quality within the budget, by bisection, or None if even quality 0 is too long."""
    low, high, found = 0, 100, None
    while low <= high:
        middle = (low + high) // 2
        data = webp(image, middle)
        if len(data) <= budget:
            found, low = data, middle + 1
        else:
            high = middle - 1
    return found


def candidates(image: Image.Image, budget: int) -> list[Image.Image]:
    """The picture after a trip through a thumbnail of each side that fits."""
    small = (best_quality(image.resize((side, side), Image.Resampling.LANCZOS), budget) for side in SIDES)
    return [
        Image.open(io.BytesIO(data)).convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
        for data in small if data is not None
    ]


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--limit", type=int, help="the first pictures only")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    pictures = Pictures(options.data, 256, options.limit)
    lpips = LPIPS(options.lpips) if options.lpips else None
    scores: dict[str, list[float]] = {}
    for number in range(len(pictures)):
        truth = pictures.centre_crops(torch.tensor([number]))
        image = Image.fromarray(eight_bit(truth[0]))
        for budget in BUDGETS:
            drawn = candidates(image, budget)
            if not drawn:
                continue
            stack = torch.from_numpy(np.stack([np.asarray(d) for d in drawn])).permute(0, 3, 1, 2) / 255
            same = truth.expand(len(stack), -1, -1, -1)
            scores.setdefault(f"psnr/{budget}", []).append(float(psnr(stack, same).max()))
            if lpips:
                scores.setdefault(f"lpips/{budget}", []).append(float(lpips(stack, same).min()))
    kept = {f"fits/{name.split('/')[1]}": len(values) for name, values in scores.items() if name.startswith("psnr")}
    means = {name: round(sum(values) / len(values), 4) for name, values in scores.items()}
    options.out.write_text(json.dumps({"pictures": len(pictures), **means, **kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
