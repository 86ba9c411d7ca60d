"""The rivals at these sizes: the best thumbnail that fits the same number of bytes, enlarged again.

    python -m bench.thumbnails --data DIR|TAR ... --lpips FILE --out bench/results/webp-val60.json --limit 60
    python -m bench.thumbnails --data DIR|TAR ... --lpips FILE --out bench/results/jxl-val60.json --limit 60 \\
        --format jxl

For each picture and budget every side is tried at the highest quality that fits, the smallest ones losslessly as well,
and the best is taken for each metric by itself, which favours the rival. Pictures are 256 x 256 centre crops, scaled
down with Lanczos and up with bicubic. JPEG XL needs ``pillow-jxl-plugin``.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.data import Pictures
from training.losses import LPIPS
from training.metrics import psnr
from training.sheet import eight_bit

BUDGETS = (60, 108, 156, 204)
SIDES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128)
LOSSLESS_SIDES = (2, 3, 4, 5, 6, 8)  # JPEG XL's best below 100 bytes


@dataclass(frozen=True)
class Format:
    """How Pillow is asked for the smallest file at a quality.

    Attributes:
        name: Pillow's name of it.
        options: What ``Image.save`` takes besides the quality.
        best: The highest quality; 0 is the lowest.
        plugin: Module to import first, if any.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    best: int = 100
    plugin: str | None = None

    def encode(self, image: Image.Image, quality: int | None) -> bytes:
        """The file at this quality; None is lossless."""
        buffer = io.BytesIO()
        kind = {"lossless": True} if quality is None else {"quality": quality}
        image.save(buffer, self.name, **kind, **self.options)
        return buffer.getvalue()


FORMATS = MappingProxyType({
    "webp": Format("WEBP", {"method": 6}),
    # A bare codestream, and effort 9: at these sizes 10 takes longer and is no smaller. The plugin fails at 100.
    "jxl": Format("JXL", {"effort": 9, "use_container": False, "num_threads": 0}, best=99, plugin="pillow_jxl"),
})


def installed(kind: str) -> bool:
    """Whether the format can be written here; registers its plugin."""
    plugin = FORMATS[kind].plugin
    try:
        return not plugin or bool(importlib.import_module(plugin))
    except ImportError:
        return False


@dataclass(frozen=True)
class Thumbnail:
    """A picture that went through a small file.

    Attributes:
        data: The file.
        side: Its pixels, in each direction.
        quality: The encoder's, None if lossless.
        picture: What it shows, enlarged to the size of the original.
    """

    data: bytes
    side: int
    quality: int | None
    picture: Image.Image


class Thumbnails:
    """One picture's thumbnails of one format, no file made twice."""

    def __init__(self, picture: Image.Image, kind: str = "webp") -> None:
        self.picture, self.format = picture, FORMATS[kind]
        self._small: dict[int, Image.Image] = {}
        self._files: dict[tuple[int, int | None], bytes] = {}

    def fitting(self, budget: int) -> list[Thumbnail]:
        """Of each side the thumbnail of the highest quality in ``budget`` bytes, and the lossless ones, where any."""
        lossy = [(side, self._best_quality(side, budget)) for side in SIDES]
        kept = [(side, quality) for side, quality in lossy if quality is not None]
        kept += [(side, None) for side in LOSSLESS_SIDES if len(self._file(side, None)) <= budget]
        return [self._thumbnail(side, quality) for side, quality in kept]

    def _best_quality(self, side: int, budget: int) -> int | None:
        """By bisection; None if even quality 0 is too long."""
        low, high, found = 0, self.format.best, None
        while low <= high and len(self._file(side, 0)) <= budget:
            middle = (low + high) // 2
            if len(self._file(side, middle)) <= budget:
                low, found = middle + 1, middle
            else:
                high = middle - 1
        return found

    def _file(self, side: int, quality: int | None) -> bytes:
        if side not in self._small:
            self._small[side] = self.picture.resize((side, side), Image.Resampling.LANCZOS)
        if (side, quality) not in self._files:
            self._files[side, quality] = self.format.encode(self._small[side], quality)
        return self._files[side, quality]

    def _thumbnail(self, side: int, quality: int | None) -> Thumbnail:
        data = self._file(side, quality)
        small = Image.open(io.BytesIO(data)).convert("RGB")
        return Thumbnail(data, side, quality, small.resize(self.picture.size, Image.Resampling.BICUBIC))


def best_thumbnail(
    picture: Image.Image, budget: int, kind: str, measure: Callable[[Image.Image], float]
) -> Thumbnail | None:
    """The thumbnail in ``budget`` bytes that ``measure`` likes most when enlarged, or None if none fits.

    Args:
        picture: RGB.
        budget: Bytes of the whole file.
        kind: A name of ``FORMATS``.
        measure: Of a picture as large as the original; larger is better.
    """
    return max(Thumbnails(picture, kind).fitting(budget), key=lambda found: measure(found.picture), default=None)


@torch.no_grad()
def compare(pictures: Pictures, kind: str, lpips: LPIPS | None = None) -> dict[str, float]:
    """Means over the pictures of what the best thumbnail reaches.

    Returns:
        ``psnr/B``, ``lpips/B`` and ``fits/B``, the number of pictures that have a thumbnail at all, for every budget;
        without the budgets that no picture fits.
    """
    scores: dict[str, list[float]] = {}
    for number in range(len(pictures)):
        truth = pictures.centre_crops(torch.tensor([number]))
        thumbnails = Thumbnails(Image.fromarray(eight_bit(truth[0])), kind)
        for budget in BUDGETS:
            drawn = [np.asarray(found.picture) for found in thumbnails.fitting(budget)]
            if not drawn:
                continue
            stack = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 255
            same = truth.expand(len(stack), -1, -1, -1)
            scores.setdefault(f"psnr/{budget}", []).append(float(psnr(stack, same).max()))
            if lpips:
                scores.setdefault(f"lpips/{budget}", []).append(float(lpips(stack, same).min()))
    fits = {f"fits/{name.split('/')[1]}": len(values) for name, values in scores.items() if name.startswith("psnr")}
    return {name: round(sum(values) / len(values), 4) for name, values in scores.items()} | fits


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--format", choices=FORMATS, default="webp", help="default: %(default)s")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--limit", type=int, help="the first pictures only")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    if not installed(options.format):
        print(f"skipped {options.format}: it needs the module {FORMATS[options.format].plugin}, which is not installed")
        return
    pictures = Pictures(options.data, 256, options.limit)
    lpips = LPIPS(options.lpips) if options.lpips else None
    found = {"pictures": len(pictures), **compare(pictures, options.format, lpips)}
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
