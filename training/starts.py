"""A place to start from: patches, cells and latents begin with the positional code of a point of the picture.

Attention then finds content by position at once instead of discovering space first, which is worth several decibels in
a short run. Everything stays learnable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.models.tokenizer import TiTok

MEAN_PIXEL = 0.45  # of photographs
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
def start_in_2d(model: TiTok) -> None:
    """Overwrite the start of ``model`` in place so that it begins close to a working autoencoder.

    Positions get unit variance. Queries equal keys, so that attention first looks at what lies near. What carries the
    picture, the centred patches and the codes, enters as strongly as the positions do: with the published start a
    code of unit length is fifty times weaker than its position, and the first thousand pictures teach nothing.
    """
    points = spread_points(model.config.tokens)
    for tower in (model.encoder, model.decoder):
        width = tower.class_embedding.shape[1]
        tower.positional_embedding[1:] = sine_cosine(grid_points(model.config.grid), width)
        tower.latent_token_positional_embedding.copy_(sine_cosine(points, width))
        for block in tower.transformer:
            block.attn.in_proj_weight[width : 2 * width] = block.attn.in_proj_weight[:width]
            block.attn.out_proj.weight.mul_(3)
    patches = model.encoder.patch_embed
    patches.weight.mul_(3)
    patches.bias.copy_(-MEAN_PIXEL * patches.weight.sum((1, 2, 3)))
    torch.nn.init.normal_(model.decoder.decoder_embed.weight, std=1.0)
