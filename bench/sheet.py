"""A contact sheet: pictures, their reconstructions at every number of tokens, and the best WebP of equal bytes.

    python -m bench.sheet [weights.safetensors] --data DIR|TAR ... --out sheet.png

One column a picture, one labelled row a number of tokens. The last row is the WebP thumbnail with the highest PSNR that
has at most as many bytes as the picture's own file at the most tokens; where no WebP is that small the cell is grey.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from titokcodec.training.argtypes import whole
from titokcodec.training.data import Pictures
from titokcodec.training.evaluate import effort_of, file_sizes, token_counts, tokens_of
from titokcodec.training.sheet import images, reconstructions
from torch import Tensor

from titokcodec import Codec, TitokError
from titokcodec.cli.picture_files import format_of
from titokcodec.cli.script import Parser, start
from titokcodec.metrics import psnr
from titokcodec.models.tokenizer import TiTok

from .thumbnails import best_thumbnail

MARGIN = 84  # pixels left of the pictures, for labels
BLANK = (200, 200, 200)

Row = tuple[str, Sequence[Image.Image | None]]


def labelled_sheet(rows: Sequence[Row]) -> Image.Image:
    """Rows of pictures of one size under each other, each with its label at the left; None leaves its cell grey.

    Returns:
        RGB, ``MARGIN`` plus the widths of a row's pictures wide.
    """
    width, height = next(picture.size for _, row in rows for picture in row if picture)
    sheet = Image.new("RGB", (MARGIN + width * max(len(row) for _, row in rows), height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (label, row) in enumerate(rows):
        draw.multiline_text((4, y * height + 4), label, fill="black")
        for x, picture in enumerate(row):
            corner = MARGIN + x * width, y * height
            if picture:
                sheet.paste(picture, corner)
            else:
                sheet.paste(BLANK, (*corner, corner[0] + width, corner[1] + height))
                draw.text((corner[0] + 4, corner[1] + 4), "none fits", fill="black")
    return sheet


def comparison(model: TiTok, pixels: Tensor, tokens: Tensor, sizes: dict[int, list[int]]) -> Image.Image:
    """The labelled sheet of (B, 3, H, W) pixels in [0, 1] and their (B, K) tokens.

    Args:
        sizes: Bytes of each picture's file for every number of tokens, as ``file_sizes`` gives them; empty: the sheet
            has no thumbnails.
    """
    counts = token_counts(model)
    originals = images(pixels)
    rows: list[Row] = [("original", originals)]
    for count, decoded in zip(counts, reconstructions(model, tokens, counts), strict=True):
        rows.append((f"{count} tokens" + (f"\n{_span(sizes[count])}" if sizes else ""), images(decoded)))
    if sizes:
        rows.append(_thumbnails(originals, pixels, sizes[counts[-1]]))
    return labelled_sheet(rows)


def _thumbnails(originals: list[Image.Image], pixels: Tensor, budgets: list[int]) -> Row:
    """The best WebP thumbnail of each picture within its number of bytes."""
    found = [
        best_thumbnail(picture, budget, "webp", lambda image, truth=truth: _psnr_of(image, truth))
        for picture, truth, budget in zip(originals, pixels, budgets, strict=True)
    ]
    sizes = [len(thumbnail.data) for thumbnail in found if thumbnail]
    return f"best WebP\n{_span(sizes)}" if sizes else "best WebP", [best and best.picture for best in found]


def _psnr_of(image: Image.Image, truth: Tensor) -> float:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*truth.shape[1:], 3).permute(2, 0, 1)
    return psnr(pixels[None] / 255, truth[None].cpu()).item()


def _span(sizes: list[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low} bytes" if low == high else f"{low}-{high} bytes"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("weights", type=Path, nargs="?", help="weight file (default: the bundled one)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--out", type=Path, required=True, help="picture file to write")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="fp32", help="fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--effort", type=whole(0), help="steps of the search for tokens (default: as when compressing)")
    parser.add_argument("--limit", type=whole(1), default=6, help="pictures to show (default: the first %(default)s)")
    options = parser.parse_args(arguments)
    if not options.out.parent.is_dir():
        raise TitokError(f"there is no folder {options.out.parent} to write {options.out.name} to: make it first")
    format_of(options.out)  # or an error, before the work
    codec = Codec.from_pretrained(options.weights, device=options.device, dtype=options.dtype)
    pictures = Pictures(options.data, codec.weights.config.image_size, options.limit, codec.device)
    for problem in pictures.damaged:
        print(f"warning: {problem}", file=sys.stderr)
    tokens = tokens_of(codec, pictures, effort_of(codec, options.effort))
    sizes = file_sizes(codec, tokens, token_counts(codec.model))
    pixels = pictures.centre_crops(torch.arange(len(pictures)))
    comparison(codec.model, pixels, tokens, sizes).save(options.out)


if __name__ == "__main__":
    start(main)
