"""Better tokens than the encoder's, found by drawing them: analysis by synthesis.

The encoder guesses the tokens of a picture in one pass. ``search`` draws the guess, asks by backpropagation how each
code should move to bring the drawing nearer to the picture, moves the latents that way and looks up the nearest codes
again. It costs time when compressing and nothing else: files, decoder and model stay as they are. Search over the
tokens of a frozen decoder is known from editing (Beyer et al. 2025, "Highly Compressed Tokenizer Can Generate Without
Training"); here the aim is the picture itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.models.config import TiTokConfig
from titokcodec.models.tokenizer import TiTok

STEPS = 4
NEWTON_STEPS = 3  # of models with linear paths, whose steps are longer
# Of a first Newton step: all tokens move at once, and each reckons with the others standing still. Half as much where
# several entries describe one component.
DAMPING = 0.2
RATE = 0.08  # of the first step, as a share of a code's typical entry
# What an error of colour counts beside one of grey. Squared error alone makes brown hair green if that is a bit nearer;
# with this, colours and LPIPS gain much and PSNR loses next to nothing.
COLOUR = 4.0
LEVELLED = 0.75  # how alike latents are in the lengths of their steps: 0 as their slopes are, 1 all the same


def default_steps(config: TiTokConfig, tiles: int) -> int:
    """Steps for a picture of so many tiles when nobody says how many.

    None for large pictures, which would take minutes, and none for the published architectures: their tokens stay those
    that the published encoder gives.
    """
    if tiles > 1 or config.head not in ("upsampler", "refiner"):
        return 0
    return NEWTON_STEPS if config.spectrum else STEPS


def rungs(config: TiTokConfig, tokens: int) -> list[int]:
    """Numbers of tokens at which the search stops to settle them, doubling: 32, 64 and 128 for the default model."""
    found = [config.min_tokens]
    while found[-1] < tokens:
        found.append(min(2 * found[-1], config.tokens))
    return found


def search(model: TiTok, pixels: Tensor, tokens: int, steps: int) -> Tensor:
    """Tokens whose drawing is nearer to the picture than that of the encoder's own, by squared error in which colour
    counts more than grey.

    A model with linear paths is searched as ``_search_all`` says. Otherwise the first tokens are settled before the
    next are looked for, at every one of ``rungs``. Either way a shorter answer is a prefix of a longer one, as
    without a search.

    Args:
        model: Frozen or not; it is not changed.
        pixels: (B, 3, H, H) of any float type in [0, 1].
        tokens: How many, from the model's ``min_tokens`` to its ``tokens``.
        steps: On every rung, and half as many again on the last, where most tokens are; with linear paths, on all of
            them at once. Each takes about three times as long as drawing the pictures.

    Returns:
        (B, tokens) int64.
    """
    with torch.inference_mode(False), torch.no_grad():
        pixels = pixels.clone()  # one made in inference mode has no part in backpropagation
        if model.config.spectrum:
            return _search_all(model, pixels, steps)[:, :tokens]
        latents = model.quantize.place(model.latents(pixels).float())
        found = torch.empty(len(pixels), 0, dtype=torch.long, device=pixels.device)
        for rung in rungs(model.config, tokens):
            longer = steps // 2 if rung == model.config.tokens else 0
            found = _settle(model, pixels, found, latents[:, found.shape[1] : rung], steps + longer)
        return found[:, :tokens]


def _search_all(model: TiTok, pixels: Tensor, steps: int) -> Tensor:
    """All K tokens at once, by the mean error of the drawings from all ``rungs``: prefixes stay good pictures too.

    The importance of a latent's entry says how the error curves along it, so a slope tells how far to go: a damped
    Newton step. Every picture keeps the best tokens that were met, of those that spoil no prefix for another's sake.
    """
    quantizer, lengths = model.quantize, rungs(model.config, model.config.tokens)
    drawn = torch.tensor([sum(n > k for n in lengths) for k in range(model.config.tokens)], device=pixels.device)
    curvature = 2 * quantizer.importance.square() * drawn[:, None] / len(lengths)
    latents = model.latents(pixels).float()
    best = quantizer.nearest(latents)
    first, slopes = _mean_slopes(model, pixels, best, lengths)
    least = first.mean(0)
    damping = DAMPING / 2 if model.config.components else DAMPING
    for number in range(steps):
        share = damping * (1 - number / (steps + 1))
        latents = latents - share * torch.where(curvature > 0, slopes / curvature.clamp_min(1e-30), 0.0)
        tokens = quantizer.nearest(latents)
        errors, slopes = _mean_slopes(model, pixels, tokens, lengths, number + 1 < steps)
        better = (errors.mean(0) < least) & (errors <= first).all(0)
        best, least = torch.where(better[:, None], tokens, best), torch.where(better, errors.mean(0), least)
    return best


def _mean_slopes(
    model: TiTok, pixels: Tensor, tokens: Tensor, lengths: list[int], wanted: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``_slopes`` of drawings from several numbers of tokens: their errors (lengths, B), their slopes averaged."""
    errors, total = [], torch.zeros(*tokens.shape, model.config.code_width, device=pixels.device)
    for length in lengths:
        error, slopes = _slopes(model, pixels, tokens[:, :length], wanted)
        errors.append(error)
        if wanted:
            total[:, :length] += slopes / len(lengths)
    return torch.stack(errors), total if wanted else None


def _settle(model: TiTok, pixels: Tensor, settled: Tensor, latents: Tensor, steps: int) -> Tensor:
    """The settled tokens (B, s) and the best found to follow them, one for each of (B, n, d) latents: (B, s + n).

    Latents go nearly equally far in a step, however steep it is for each: the few steepest would take all of it, and
    the many others add up to more.
    """
    step = RATE * model.quantize.codebook().square().mean().sqrt()
    first = settled.shape[1]
    best = torch.cat([settled, model.quantize.nearest(latents, first)], 1)
    least, slopes = _slopes(model, pixels, best)
    for number in range(steps):
        slopes = slopes[:, first:]
        moves = slopes / _length(slopes, 2) ** LEVELLED
        latents = model.quantize.place(latents - step * (1 - number / steps) * moves / _length(moves, (1, 2)))
        tokens = torch.cat([settled, model.quantize.nearest(latents, first)], 1)
        errors, slopes = _slopes(model, pixels, tokens, number + 1 < steps)
        better = errors < least
        best, least = torch.where(better[:, None], tokens, best), torch.where(better, errors, least)
    return best


def _length(vectors: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    """Root of the mean square, never 0, over axes that are kept."""
    return vectors.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-30)


def _slopes(model: TiTok, pixels: Tensor, tokens: Tensor, wanted: bool = True) -> tuple[Tensor, Tensor | None]:
    """(B,) errors of what tokens draw, see ``_error``, and, if wanted, where they grow with the codes, (B, K, d).

    The errors are those of the pixels that ``decode`` gives, within [0, 1]; the slopes are taken before they are cut
    off, so that what has gone beyond finds back.
    """
    truth = pixels.float()
    with torch.set_grad_enabled(wanted):
        codes = model.quantize.lookup(tokens).detach().requires_grad_(wanted)
        drawn = model.draw(codes).float()
        total = _error(drawn - truth).sum()
        slopes = torch.autograd.grad(total, codes)[0] if wanted else None
    return _error(drawn.detach().clamp(0, 1) - truth), slopes


def _error(difference: Tensor) -> Tensor:
    """(B, 3, H, H) -> (B,) mean squares in which both differences of colour count ``COLOUR`` times what grey does.

    The weights' mean is 1: a difference that is as large in colour as in grey has its plain mean square.
    """
    grey = difference.mean(1).square().mean((1, 2))  # a third of the square of what all three have in common
    whole = difference.square().mean((1, 2, 3))
    return 3 * (grey + COLOUR * (whole - grey)) / (1 + 2 * COLOUR)
