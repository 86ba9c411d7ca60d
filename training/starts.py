"""Places to start from.

``start_in_2d``: patches, cells and latents begin with the positional code of a point of the picture. Attention then
finds content by position at once instead of discovering space first, which is worth several decibels in a short run.

``start_linear``: the linear paths are set in closed form, from pictures. What comes out is a transform coder: principal
components of low frequencies, a rate for each by reverse water-filling, k-means for the codes. No gradient is taken.

Everything stays learnable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from titokcodec.models.linear import LOW, SIDE, Spectrum
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
    for tower in (model.encoder, model.decoder):  # their output layers stay as they are: silent, with linear paths
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


KMEANS = 6  # rounds
SAMPLED = {"cpu": 1 << 15, "cuda": 1 << 18}  # latents that the codes of one codebook are found from


@torch.no_grad()
def start_linear(model: TiTok, pictures: Iterable[Tensor], say: Callable[[str], None] = print) -> None:
    """Set the linear paths and codebooks of ``model`` in place, so that it compresses before it has learned anything.

    Args:
        model: With linear paths; on the device where the pictures are.
        pictures: Batches (B, 3, H, H) in [0, 1], some tens of thousands of pictures in all. H is a multiple of 64.
        say: Told about each step, in a line.

    Mirror images count as seen too. Deterministic: equal pictures give equal weights.
    """
    encoder, decoder, config = model.encoder.linear, model.decoder.linear, model.config
    spectrum = encoder.spectrum
    coefficients = torch.cat([spectrum.coefficients(batch) for batch in pictures])
    say(f"linear start: {len(coefficients)} pictures")
    mean, covariance = _statistics(coefficients, spectrum)
    variance, basis = torch.linalg.eigh(covariance)
    variance, basis = variance.flip(0).clamp_min(1e-9), basis.flip(1)
    basis = basis * basis.sum(0).sign()  # an eigenvector's sign is chance
    place, importance = _allocate(variance, config.tokens, config.code_width, math.log2(config.codes))
    say(f"linear start: {int((importance > 0).sum())} components in {config.tokens} tokens")

    deviation = covariance.diagonal().sqrt().clamp_min(1e-6)
    used = importance.flatten() > 0
    analysis = torch.zeros_like(encoder.weight)
    synthesis = torch.zeros_like(decoder.weight)
    directions = basis[:, place.flatten()[used]]
    scale = variance[place.flatten()[used]].sqrt()
    analysis[used] = ((directions * deviation[:, None]) / scale).T.float()
    synthesis[:, used] = ((directions * scale) / deviation[:, None]).float()
    encoder.weight.copy_(analysis)
    decoder.weight.copy_(synthesis)
    for part in (encoder.spectrum, decoder.spectrum):
        part.mean.copy_(mean)
        part.deviation.copy_(deviation)
    model.quantize.importance.copy_(importance / math.sqrt(3 * SIDE * SIDE))
    _start_codes(model, (coefficients - spectrum.mean) / spectrum.deviation, say)


def _statistics(coefficients: Tensor, spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), float64, of coefficients (n, C) and of those of their mirror images."""
    columns = spectrum.chosen % LOW
    mirror = 1 - 2 * (columns % 2).double()  # a mirrored picture has the odd columns negated
    mean = coefficients.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mirror), len(mirror), dtype=torch.float64, device=mean.device)
    mean = (mean + mean * mirror) / 2
    for part in coefficients.split(4096):
        centred = part.double() - mean
        covariance += centred.T @ centred
    covariance /= len(coefficients)
    return mean, (covariance + mirror[:, None] * covariance * mirror) / 2


def _allocate(variance: Tensor, tokens: int, width: int, bits: float) -> tuple[Tensor, Tensor]:
    """Which components go into which token, from coarse to fine: reverse water-filling (Cover and Thomas, 10.3.3).

    A component of variance v is worth log2(v / level) / 2 bits; the level is such that all of them use up the rate. A
    token takes the components, in order, whose bits are its own.

    Returns:
        (tokens, width) indices of components and their deviations, 0 where a token has fewer.
    """
    low, high = variance.min() * 2.0**-200, variance.max()  # below the least variance, if there is rate for all
    for _ in range(80):
        level = (low * high).sqrt()
        worth = (variance / level).clamp_min(1).log2() / 2
        low, high = (level, high) if worth.sum() > tokens * bits else (low, level)
    token = ((worth.cumsum(0) - 1e-4) / bits).floor().long()
    token[worth <= 0] = tokens
    place = torch.zeros(tokens, width, dtype=torch.long, device=variance.device)
    importance = torch.zeros(tokens, width, device=variance.device)
    for t in range(tokens):
        mine = (token == t).nonzero().flatten()[:width]
        place[t, : len(mine)] = mine
        importance[t, : len(mine)] = variance[mine].sqrt().float()
    return place, importance


def _start_codes(model: TiTok, whitened: Tensor, say: Callable[[str], None]) -> None:
    """k-means for every codebook, over the latents of the positions that share it.

    Positions use different numbers of entries and weigh them differently: codes are nearest, and means are taken, by
    what an entry is worth in the picture.
    """
    quantizer, config = model.quantize, model.config
    chance = torch.Generator(whitened.device).manual_seed(0)
    for book in range(config.codebooks):
        positions = slice(book * quantizer.share, (book + 1) * quantizer.share)
        rows = max(min(len(whitened), SAMPLED.get(whitened.device.type, 1 << 15) // quantizer.share), 1)
        picks = torch.randperm(len(whitened), generator=chance, device=whitened.device)[:rows]
        weight = model.encoder.linear.weight.unflatten(0, (config.tokens, -1))[positions].flatten(0, 1)
        latents = (whitened[picks] @ weight.T).view(rows * quantizer.share, -1)
        worth = quantizer.importance[positions].square().repeat(rows, 1)
        # Entries that a position lacks are filled with what they would be, so that every code starts complete.
        filled = torch.where(worth > 0, latents, torch.randn(latents.shape, generator=chance, device=latents.device))
        codes = _kmeans(filled, worth, config.codes, chance)
        quantizer.embedding.weight[book * config.codes : (book + 1) * config.codes] = codes
    say(f"linear start: {config.codebooks} codebooks of {config.codes} codes")


def _kmeans(points: Tensor, worth: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """(n, d) points, each with its own weights (n, d) of entries -> (count, d) codes."""
    codes = points[torch.randperm(len(points), generator=chance, device=points.device)[:count]].clone()
    if len(codes) < count:  # fewer points than codes: some stand twice, slightly apart
        more = torch.randn(count - len(codes), points.shape[1], generator=chance, device=points.device)
        codes = torch.cat([codes, more])
    for _ in range(KMEANS):
        near = [
            ((2 * p * w) @ codes.T - w @ codes.square().T).argmax(1)
            for p, w in zip(points.split(8192), worth.split(8192), strict=True)
        ]
        near = torch.cat(near)
        total = torch.zeros_like(codes).index_add_(0, near, points * worth)
        mass = torch.zeros_like(codes).index_add_(0, near, worth)
        codes = torch.where(mass > 0, total / mass.clamp_min(1e-12), codes)
    return codes
