"""The README's edits of pictures: a region filled anew, variations, and the way from one picture to another.

    python -m bench.edits kodim12.webp kodim19.webp tests/data/coffee.jpg --classes sea house food \\
        --regions 35,20,110,185 110,0,90,160 40,5,150,135 --out bench/results

Pictures are squares as ``bench.gallery`` takes them, compressed with all tokens; seeds are the first ones. Writes
``edit-regions.webp``, ``edit-variations.webp``, ``edit-ways.webp`` and what ``bench.tables`` tells of them,
``edits.json``. Figures are of the decoded pictures before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image, ImageDraw
from titokcodec.training.argtypes import whole
from titokcodec.training.sheet import images
from torch import Tensor

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import Parser, start
from titokcodec.inpainting import inpaint, paste
from titokcodec.interpolation import interpolate
from titokcodec.region import Region

from . import records
from .gallery import Cell, save, sheet, square
from .inputs import describe_model

SHARE = 0.3  # of the tokens, as ``titok-generate --vary`` has it
SMALL = 192  # pixels of a picture on the way, of which there are many in a row
QUALITY = 78  # of the WebP files


@dataclass(frozen=True)
class Editor:
    """The models, and how many pictures to make of each."""

    codec: Codec
    generator: Generator
    count: int

    def sampled(self, tokens: Tensor, hidden: Tensor, labels: list[str | None], **settings: Any) -> Tensor:
        """Pixels of variations: those tokens of a row chosen anew that (B, K) ``hidden`` says."""
        return self.codec.decode(self.generator.inpaint(tokens, ~hidden, labels, **settings))

    def some(self, tokens: Tensor) -> Tensor:
        """(B, K) bool, true for ``SHARE`` of each row's places at random."""
        order = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
        return order < max(1, round(SHARE * tokens.shape[1]))

    def shared(self, tokens: Tensor) -> Tensor:
        """As many rows of a picture's tokens as pictures are made of it, as long as the generator makes them."""
        return tokens[:, : self.generator.most(tokens.shape[1])].expand(self.count, -1)


def filled(editor: Editor, tokens: Tensor, region: Region, label: str | None) -> tuple[list[Cell], dict[str, float]]:
    """A picture, what its region was filled with, and what the tokens alone show of the first; and figures of all.

    Around the region PSNR is that of the filled pictures' tokens, and of variations for comparison, which no one has
    pasted back.
    """
    codec, labels = editor.codec, [label] * editor.count
    mask = torch.from_numpy(region.mask(*[codec.weights.config.image_size] * 2)).to(codec.device)
    before = codec.decode(tokens)
    after = codec.decode(inpaint(editor.generator, codec, tokens.expand(editor.count, -1), mask, labels, seed=0))
    rows = editor.shared(tokens)
    varied = editor.sampled(rows, editor.some(rows), labels, seed=0)
    figures = {
        "area": round(region.width * region.height / mask.numel(), 4),
        "outside": _psnr(after, before, mask == 0),
        "inside": _psnr(after, before, mask == 1),
        "outside varied": _psnr(varied, codec.decode(rows[:1]), mask == 0),
    }
    (original,) = images(before)
    box = (region.left, region.top, region.left + region.width - 1, region.top + region.height - 1)
    ImageDraw.Draw(original).rectangle(box, outline="red", width=2)
    named = "" if label is None else f" as {label}"
    cells = [("the region", original)]
    cells += [(f"filled{named}, {n}", image) for n, image in enumerate(images(paste(before, after, mask)), 1)]
    cells.append((f"1, as a .titok file\n{_psnr(after[:1], before, mask == 0):.1f} dB around", images(after[:1])[0]))
    return cells, figures


def varied(editor: Editor, tokens: Tensor, label: str | None) -> tuple[list[Cell], dict[str, float]]:
    """A picture, variations of its later tokens, and of some of all; and how near they are to it."""
    labels, rows = [label] * editor.count, editor.shared(tokens)
    before = editor.codec.decode(rows[:1])
    keep = rows.shape[1] // 4
    fine = torch.zeros(rows.shape, dtype=torch.bool)
    fine[:, keep:] = True
    cells, figures = [(f"{rows.shape[1]} tokens", images(before)[0])], {}
    for name, hidden in ((f"first {keep} kept", fine), (f"{SHARE:.0%} of all anew", editor.some(rows))):
        after = editor.sampled(rows, hidden, labels, seed=0)
        cells += [(f"{name}, {n}", image) for n, image in enumerate(images(after), 1)]
        kind = "fine" if hidden is fine else "some"
        figures[kind] = _psnr(after, before)
        coarse = [torch.nn.functional.avg_pool2d(pixels, 16) for pixels in (after, before)]
        figures[f"{kind} coarse"] = _psnr(*coarse)
    return cells, figures


def way(codec: Codec, first: Tensor, last: Tensor, count: int) -> list[Cell]:
    """Pictures from one to another."""
    shown = images(codec.decode(interpolate(codec, first, last, count)))
    return [(f"{n / (count - 1):.0%}", image.resize((SMALL, SMALL))) for n, image in enumerate(shown)]


def _psnr(after: Tensor, before: Tensor, where: Tensor | None = None) -> float:
    """dB over all of (B, 3, H, W) pictures, or where an (H, W) mask is true."""
    error = (after - before).square().mean((0, 1))
    mean = error.mean() if where is None else error[where].mean()
    return round(-10 * mean.clamp_min(1e-10).log10().item(), 2)


def edit(
    editor: Editor, pictures: Sequence[Image.Image], regions: Sequence[Region], labels: Sequence[str | None], out: Path
) -> None:
    """Write the sheets and the figures of all pictures into a folder."""
    codec = editor.codec
    files = codec.compress_batch(pictures, layout="fit")
    tokens = [codec.read(data) for data in files]
    fillings = [filled(editor, *one) for one in zip(tokens, regions, labels, strict=True)]
    variations = [varied(editor, *one) for one in zip(tokens, labels, strict=True)]
    ways = [way(codec, first, last, 7) for first, last in zip(tokens, [*tokens[1:], tokens[0]], strict=True)]
    write = partial(save, quality=QUALITY)
    write(sheet([cells for cells, _ in fillings]), out / "edit-regions.webp")
    write(sheet([cells for cells, _ in variations]), out / "edit-variations.webp")
    write(sheet(ways), out / "edit-ways.webp")
    found: dict[str, Any] = {"generator": editor.generator.name, **describe_model(codec)}
    found |= {"pictures": len(tokens), "each": editor.count, "share": SHARE}
    found |= {"tokens": tokens[0].shape[1], "varied": editor.shared(tokens[0]).shape[1]}
    for name, parts in (("region", fillings), ("variation", variations)):
        for key in parts[0][1]:
            found[f"{name}/{key}"] = round(fmean(figures[key] for _, figures in parts), 3)
    records.write(out / "edits.json", found)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("images", type=square, nargs="+", metavar="FILE[@LEFT,TOP,SIDE]")
    parser.add_argument("--regions", nargs="+", required=True, metavar="LEFT,TOP,WIDTH,HEIGHT", help="one a picture")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="one a picture, - for none (default: none)")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--model", help="weight file of the tokenizer (default: the bundled one)")
    parser.add_argument("--generator", help="weight file of the generator (default: the bundled one)")
    parser.add_argument("--count", type=whole(1), default=3, help="pictures of each kind (default: %(default)s)")
    options = parser.parse_args(arguments)
    labels = [None if name == "-" else name for name in options.classes or ["-"] * len(options.images)]
    if not len(options.images) == len(options.regions) == len(labels):
        raise TitokError(f"{len(options.images)} pictures: give as many regions, and as many classes or none")
    codec, generator = Codec.from_pretrained(options.model), Generator.from_pretrained(options.generator)
    generator.check_fits(codec.weights)
    editor = Editor(codec, generator, options.count)
    edit(editor, options.images, [Region.parse(text) for text in options.regions], labels, options.out)


if __name__ == "__main__":
    start(main)
