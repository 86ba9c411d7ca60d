"""Contact sheets: pictures side by side, their reconstructions below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from titokcodec.models.tokenizer import TiTok

from .data import Pictures

SHOWN = 6  # pictures on a sheet


def eight_bit(pixels: Tensor) -> np.ndarray:
    """A (3, H, W) picture in [0, 1] as (H, W, 3) uint8."""
    return (pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def images(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) pixels in [0, 1] as Pillow images."""
    return [Image.fromarray(eight_bit(picture)) for picture in pixels]


def save_picture(pixels: Tensor, path: Path) -> None:
    """Write a (3, H, W) picture in [0, 1]."""
    Image.fromarray(eight_bit(pixels)).save(path)


def first_crops(pictures: Pictures) -> Tensor:
    """The centres of the first pictures, as many as a sheet shows, (B, 3, side, side) in [0, 1]."""
    return pictures.centre_crops(torch.arange(min(SHOWN, len(pictures))))


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Rows (B, 3, H, W) as one (3, rows * H, B * W) picture: one column a picture, one row each."""
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


@torch.no_grad()
def reconstructions(model: TiTok, tokens: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """(B, K) tokens decoded from their first ``count``, (B, 3, H, W) for each of ``counts``."""
    return [model.decode(tokens[:, :count]) for count in counts]


@torch.no_grad()
def contact_sheet(model: TiTok, pixels: Tensor, counts: tuple[int, ...], tokens: Tensor | None = None) -> Tensor:
    """(B, 3, H, W) -> (3, H', W'): the originals on top, below them their reconstructions at every number of tokens.

    Args:
        tokens: (B, K) of the pictures; by default the encoder's.
    """
    return stacked([pixels, *reconstructions(model, model.encode(pixels) if tokens is None else tokens, counts)])
