"""A place to start from: patches, cells and latents begin with the positional code of a point of the picture.

Attention then finds content by position at once instead of discovering space first, which is worth several decibels in
a short run. Everything stays learnable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.models.tokenizer import TiTok

_PLASTIC = 1.32471795724474602596  # real root of x^3 = x + 1


def spread_points(count: int) -> Tensor:
    """(count, 2) points of the R2 sequence in the unit square: every prefix covers the square evenly, so the first
    tokens of a nested model see the whole picture coarsely and later ones fill in between."""
    steps = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.stack([0.5 + steps / _PLASTIC, 0.5 + steps / _PLASTIC**2], dim=1) % 1.0


def grid_points(side: int) -> Tensor:
    """(side * side, 2) centres of a grid's cells in the unit square, row-major."""
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    return torch.cartesian_prod(centres, centres)


def sine_cosine(points: Tensor, width: int, longest: float = 4.0, shortest: float = 1 / 16) -> Tensor:
    """(n, 2) points in the unit square -> (n, width) codes of unit variance; wavelengths in picture sides."""
    bands = width // 4
    waves = longest * (shortest / longest) ** (torch.arange(bands, dtype=torch.float64) / max(bands - 1, 1))
    angles = points[:, :, None] * (2 * torch.pi / waves)
    return (torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1) * 2**0.5).float()


@torch.no_grad()
def start_in_2d(model: TiTok, scale: float = 0.5) -> None:
    """Overwrite the positions of ``model`` in place; ``scale`` is their deviation."""
    points = spread_points(model.config.tokens)
    for tower in (model.encoder, model.decoder):
        width = tower.class_embedding.shape[1]
        tower.positional_embedding[1:] = sine_cosine(grid_points(model.config.grid), width) * scale
        tower.latent_token_positional_embedding.copy_(sine_cosine(points, width) * scale)
    model.latent_tokens.mul_(scale)
