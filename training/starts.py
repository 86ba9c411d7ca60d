"""Initial weights.

``start_in_2d``: patches, cells and latents begin with the positional code of a point of the picture. Attention then
finds content by position at once instead of discovering space first, which is worth several decibels in a short run.

``start_linear``: the linear paths are set in closed form, from pictures. What comes out is a transform coder: principal
components of low frequencies, a rate for each by reverse water-filling, k-means for the codes. No gradient is taken.

All but scales and the choice of components stays learnable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from titokcodec.models.linear import LOW, SIDE, Spectrum
from titokcodec.models.quantizer import nearest_weighted
from titokcodec.models.tokenizer import TiTok

from . import progress
from .progress import Progress

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
    if not model.config.spectrum:
        torch.nn.init.normal_(model.decoder.decoder_embed.weight, std=1.0)
        return
    # Entries of these codes have unit variance each, and pixels of the sketch deviate by a quarter.
    for enters, deviation in (
        (model.encoder.linear_embed, 1),
        (model.decoder.decoder_embed, 1),
        (model.decoder.sketch_embed, 0.25),
    ):
        torch.nn.init.normal_(enters.weight, std=enters.weight.shape[1] ** -0.5 / deviation)


KMEANS = 6  # rounds
SAMPLED = {"cpu": 1 << 16, "cuda": 1 << 18}  # latents that the codes of one codebook are found from
NOTHING = 1e-6  # a component of so small a share of the largest variance, or what is left of it, counts as none
REMAINDERS = {"cpu": 1 << 14, "cuda": 1 << 16}  # pictures whose remainders are measured


@torch.no_grad()
def start_linear(model: TiTok, pictures: Iterable[Tensor], report: Callable[[str], None] = progress.message) -> None:
    """Set the linear paths and codebooks of ``model`` in place, so that it compresses before it has learned anything.

    Args:
        model: With linear paths and components; on the device where the pictures are.
        pictures: Batches (B, 3, H, H) in [0, 1], some tens of thousands of pictures in all. H is a multiple of 64.
        report: Called with a line about each step.

    Mirror images count as seen, as far as means and covariances go. Deterministic: equal pictures give equal weights.

    The tokens of one codebook share out the rate among the components by what those before have left of them, so that
    every codebook ends near the best that its number of tokens allows: Gaussian sources are successively refinable
    (Equitz and Cover 1991).
    """
    config, spectrum = model.config, model.encoder.linear.spectrum
    coefficients = torch.cat([spectrum.coefficients(batch) for batch in pictures])
    report(f"linear start: {len(coefficients)} crops")
    mean, covariance = _statistics(coefficients, spectrum)
    variance, basis = torch.linalg.eigh(covariance)
    floor, basis = variance[-1].item() * NOTHING, basis.flip(1)[:, : config.components]
    basis = basis * basis.sum(0).sign()  # an eigenvector's sign is arbitrary
    deviation = covariance.diagonal().sqrt().clamp_min(1e-6)
    for path in (model.encoder.linear, model.decoder.linear):
        path.spectrum.mean.copy_(mean)
        path.spectrum.deviation.copy_(deviation)
    model.encoder.linear.weight.copy_((basis * deviation[:, None]).T)
    model.decoder.linear.weight.copy_(basis / deviation[:, None])

    device = coefficients.device.type
    rng = torch.Generator(coefficients.device).manual_seed(0)
    order = torch.randperm(len(coefficients), generator=rng, device=coefficients.device)
    left = (coefficients[order[: REMAINDERS.get(device, 1 << 14)]] - mean.float()) @ basis.float()
    new = torch.ones(left.shape[1], dtype=torch.bool, device=left.device)  # components that no token describes yet
    share = config.tokens // config.codebooks
    with Progress("linear start: k-means", config.codebooks * KMEANS, "rounds") as shown:
        for book in range(config.codebooks):
            variance = left.double().square().mean(0)
            component, scale = _allocate(variance, share, config.code_width, math.log2(config.codes), floor)
            used = scale > 0
            latents = left[:, component.flatten()].view(-1, *component.shape) / scale.clamp_min(1e-30) * used
            sampled = latents[: max(SAMPLED.get(device, 1 << 16) // share, 1)]
            codes = _start_codes(sampled, scale, config.codes, rng, shown)
            _set_codebook(model, book, codes, component, scale, new[component] & used)
            for few, part in zip(latents.split(1024), left.split(1024), strict=True):
                decoded = codes[nearest_weighted(few, scale.square(), codes)] * scale
                part.index_add_(1, component.flatten(), -decoded.flatten(1))
            new[component[used]] = False
    report(f"linear start: {int((~new).sum())} components, {config.codebooks} codebooks of {config.codes} codes")


def _set_codebook(model: TiTok, book: int, codes: Tensor, component: Tensor, scale: Tensor, first: Tensor) -> None:
    """Write one codebook and what its positions mean, in place.

    Args:
        codes: (N, d).
        component, scale: (positions, d) as ``_allocate`` gives them.
        first: (positions, d) entries that are the first to describe their component: the encoder hands it to these.
    """
    quantizer, encoder, decoder = model.quantize, model.encoder.linear, model.decoder.linear
    rows = slice(book * len(codes), (book + 1) * len(codes))
    positions = slice(book * len(component), (book + 1) * len(component))
    entries = slice(book * component.numel(), (book + 1) * component.numel())
    quantizer.embedding.weight[rows] = codes
    quantizer.importance[positions] = scale / math.sqrt(3 * SIDE * SIDE)
    for part in (quantizer, encoder, decoder):
        part.component[entries] = component.flatten()
    encoder.gain[entries] = (first / scale.clamp_min(1e-30)).flatten()
    decoder.gain[entries] = scale.flatten()


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


def _allocate(variance: Tensor, tokens: int, width: int, bits: float, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """Which components go into which token, from coarse to fine: reverse water-filling (Cover and Thomas, 10.3.3).

    A component of variance v is worth log2(v / level) / 2 bits; the level is such that all of them use up the rate. A
    token takes the components, from the greatest on, whose bits are its own. Up to ``floor``, a variance is none.

    Returns:
        (tokens, width) indices of components and their deviations, 0 where a token has fewer.
    """
    variance, order = variance.clamp_min(1e-12).sort(descending=True, stable=True)
    low, high = variance.min() * 2.0**-200, variance.max()  # below the least variance, if there is rate for all
    for _ in range(80):
        level = (low * high).sqrt()
        worth = (variance / level).clamp_min(1).log2() / 2
        low, high = (level, high) if worth.sum() > tokens * bits else (low, level)
    token = ((worth.cumsum(0) - 1e-4) / bits).floor().long()
    token[(worth <= 0) | (variance <= floor)] = tokens
    component = torch.zeros(tokens, width, dtype=torch.long, device=variance.device)
    scale = torch.zeros(tokens, width, device=variance.device)
    for t in range(tokens):
        mine = (token == t).nonzero().flatten()[:width]
        component[t, : len(mine)] = order[mine]
        scale[t, : len(mine)] = variance[mine].sqrt().float()
    return component, scale


def _start_codes(
    latents: Tensor, scale: Tensor, count: int, rng: torch.Generator, shown: Progress | None = None
) -> Tensor:
    """(count, d) codes for latents (n, K, d) of positions whose entries have deviations (K, d) in the picture.

    Positions use different numbers of entries and weigh them differently: codes are nearest, and means are taken, by
    what an entry is worth in the picture.
    """
    worth = scale.square().expand_as(latents).flatten(0, 1)
    # Entries that a position lacks are filled with what they would be, so that every code starts complete.
    noise = torch.randn(latents.shape, generator=rng, device=latents.device)
    filled = torch.where(scale > 0, latents, noise).flatten(0, 1)
    return _kmeans(filled, worth, count, rng, shown)


def _kmeans(points: Tensor, worth: Tensor, count: int, rng: torch.Generator, shown: Progress | None = None) -> Tensor:
    """(n, d) points, each with its own weights (n, d) of entries -> (count, d) codes; rounds are ``shown``."""
    codes = points[torch.randperm(len(points), generator=rng, device=points.device)[:count]].clone()
    if len(codes) < count:  # fewer points than codes: some stand twice, slightly apart
        more = torch.randn(count - len(codes), points.shape[1], generator=rng, device=points.device)
        codes = torch.cat([codes, more])
    for _ in range(KMEANS):
        parts = zip(points.split(8192), worth.split(8192), strict=True)
        near = torch.cat([nearest_weighted(p, w, codes) for p, w in parts])
        total = torch.zeros_like(codes).index_add_(0, near, points * worth)
        mass = torch.zeros_like(codes).index_add_(0, near, worth)
        codes = torch.where(mass > 0, total / mass.clamp_min(1e-12), codes)
        if shown:
            shown.add()
    return codes
