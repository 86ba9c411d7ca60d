"""Contact sheets: pictures side by side, what is left of them below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from titokcodec.models.tokenizer import TiTok

MARGIN = 84  # pixels left of the pictures, for labels
BLANK = (200, 200, 200)

Row = tuple[str, Sequence[Image.Image | None]]


def eight_bit(pixels: Tensor) -> np.ndarray:
    """A (3, H, W) picture in [0, 1] as (H, W, 3) uint8."""
    return (pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def images(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) pixels in [0, 1] as Pillow images."""
    return [Image.fromarray(eight_bit(picture)) for picture in pixels]


def save_picture(pixels: Tensor, path: Path) -> None:
    """Write a (3, H, W) picture in [0, 1]."""
    Image.fromarray(eight_bit(pixels)).save(path)


@torch.no_grad()
def drawn_rows(model: TiTok, tokens: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """What (B, K) tokens draw, (B, 3, H, W) for each number of them."""
    return [model.decode(tokens[:, :count]) for count in counts]


@torch.no_grad()
def contact_sheet(model: TiTok, pixels: Tensor, counts: tuple[int, ...]) -> Tensor:
    """(B, 3, H, W) -> (3, H', W'): one column a picture, the original on top and every rate below."""
    rows = [pixels, *drawn_rows(model, model.encode(pixels), counts)]
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def labelled_sheet(rows: Sequence[Row]) -> Image.Image:
    """Rows of pictures of one size under each other, each with its label at the left; None leaves its place grey.

    Returns:
        RGB, ``MARGIN`` plus the widths of a row's pictures wide.
    """
    side = next(picture.size for _, row in rows for picture in row if picture)
    width, height = side
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
