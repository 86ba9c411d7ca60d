"""Better tokens than the encoder's, found by decoding them: analysis by synthesis.

The encoder predicts the tokens of a picture in one pass. ``search`` decodes them, finds by backpropagation how each
code should move to bring the result nearer to the picture, moves the latents that way and looks up the nearest codes
again. It costs time when compressing and nothing else: files, decoder and model stay as they are. Search over the
tokens of a frozen decoder is known from editing (Beyer et al. 2025, "Highly Compressed Tokenizer Can Generate Without
Training"); here the aim is the picture itself.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.checks import whole
from titokcodec.errors import TitokError
from titokcodec.metrics.similarity import ssim_terms
from titokcodec.models.config import SKETCH, TiTokConfig
from titokcodec.models.tokenizer import TiTok

STEPS = 4
NEWTON_STEPS = 8  # of models with linear paths, whose steps are longer and decode once each
MOST_STEPS = 1000
# Of a first Newton step, falling to half: all tokens move at once, and each reckons with the others standing still.
# Half as much where several entries describe one component.
DAMPING = 0.16
# What a lack of structural similarity counts beside squared error, at full size and at that of a sketch. The first
# keeps contrasts where they were; the second, coarser, is what MS-SSIM and LPIPS gain by.
SIMILARITY = 0.01
SSIM_K2 = 0.055  # its K2. By the paper's .03, faint marks on flat grounds are so steep that steps overshoot
TOLERANCE = 0.1  # by how much a search may let squared error grow for the sake of similarity
RATE = 0.08  # of the first step, as a share of a code's typical entry
# What an error of colour counts beside one of grey. Squared error alone makes brown hair green if that is a bit nearer;
# with this, colours and LPIPS gain much and PSNR loses next to nothing.
COLOUR = 6.0
EVENNESS = 0.75  # of the lengths of latents' steps: 0 is in proportion to their slopes, 1 all the same


def check_steps(effort: int) -> int:
    """Steps of a search as a caller hands them in. Raises ``TitokError`` unless they are a whole number in range."""
    steps = whole("effort", effort, 0)
    if steps > MOST_STEPS:
        raise TitokError(f"effort is {effort}: give {MOST_STEPS} at most; little is gained beyond {NEWTON_STEPS}")
    return steps


def default_steps(config: TiTokConfig, tiles: int) -> int:
    """Steps for a picture of so many tiles by default.

    None for large pictures, which would take minutes, and none for the published architectures: their tokens stay those
    that the published encoder gives.
    """
    if tiles > 1 or config.head not in ("upsampler", "refiner"):
        return 0
    return NEWTON_STEPS if config.spectrum else STEPS


def bulk_steps(config: TiTokConfig, layout: str) -> int | None:
    """Steps for each of many pictures by default: a single one where a picture by itself would have more than that, so
    that a folder takes minutes rather than an hour. None leaves it to ``default_steps``."""
    return min(1, default_steps(config, 1)) if layout != "tile" else None


def prefix_lengths(config: TiTokConfig, tokens: int) -> list[int]:
    """Numbers of tokens that are settled before the next are searched, doubling: 32, 64 and 128 by default."""
    found = [config.min_tokens]
    while found[-1] < tokens:
        found.append(min(2 * found[-1], config.tokens))
    return found


def search(model: TiTok, pixels: Tensor, tokens: int, steps: int) -> Tensor:
    """Tokens that decode to something nearer to the picture than the encoder's own.

    Near is squared error in which colour counts more than grey and, of a model with linear paths, structural
    similarity; all of its tokens move together. Of other models the first tokens are settled before the next are
    searched, at every one of ``prefix_lengths``. Either way a shorter answer is a prefix of a longer one, as without a
    search.

    Args:
        model: Frozen or not; it is not changed.
        pixels: (B, 3, H, H) of any float type in [0, 1].
        tokens: How many, from the model's ``min_tokens`` to its ``tokens``.
        steps: Each takes two to three times as long as decoding the pictures. With linear paths the first takes half
            of that, and more than one are followed by a check that decodes them six times. Without linear paths there
            are as many at every length, and half as many again at the last.

    Returns:
        (B, tokens) int64.
    """
    with torch.inference_mode(False), torch.no_grad():
        pixels = pixels.clone()  # one made in inference mode has no part in backpropagation
        if not len(pixels):
            return model.encode(pixels, tokens)
        if model.config.spectrum:
            return _descend(model, pixels, steps)[:, :tokens]
        latents = model.quantize.normalize(model.latents(pixels).float())
        found = torch.empty(len(pixels), 0, dtype=torch.long, device=pixels.device)
        for length in prefix_lengths(model.config, tokens):
            longer = steps // 2 if length == model.config.tokens else 0
            found = _settle(model, pixels, found, latents[:, found.shape[1] : length], steps + longer)
        return found[:, :tokens]


def _descend(model: TiTok, pixels: Tensor, steps: int) -> Tensor:
    """All K tokens at once: damped Newton steps, each along the slopes of a single decoding.

    The importance of a latent's entry says how the error curves along it, so a slope gives the distance. Numbers of
    tokens follow ``prefix_schedule``, so that prefixes stay good pictures too. The first is a mere sketch: cheap, and
    right about most. After more than that one the encoder's own tokens stand where what was found is no nearer, see
    ``_nearer``.
    """
    quantizer, lengths = model.quantize, prefix_lengths(model.config, model.config.tokens)
    assert quantizer.importance is not None, "models with linear paths have it"
    curvature = 2 * quantizer.importance.square()
    damping = DAMPING / 2 if model.config.components else DAMPING
    truth = pixels.float()
    small = F.avg_pool2d(truth, truth.shape[-1] // SKETCH)
    latents = model.latents(pixels).float()
    found = own = quantizer.nearest(latents)
    for number, length in enumerate(prefix_schedule(lengths, steps)):
        codes = quantizer.lookup(found[:, :length])
        decode, target = (model.decode_codes, truth) if number else (model.sketch, small)
        _, slopes = _with_slopes(decode, _distortion, target, codes)
        share, curve = damping * (1 - number / (2 * steps)), curvature[:length]
        latents[:, :length] -= share * torch.where(curve > 0, slopes / curve.clamp_min(1e-30), 0.0)
        found = quantizer.nearest(latents)
    if steps == 1:
        return found
    return torch.where(_nearer(model, found, own, truth, lengths)[:, None], found, own)


def _nearer(model: TiTok, found: Tensor, own: Tensor, truth: Tensor, lengths: list[int]) -> Tensor:
    """(B,) whether tokens decode to pictures that are nearer to the truth than by the encoder's own.

    On the mean of all lengths they must be, and at no length may squared error have grown by more than ``TOLERANCE``:
    on flat grounds it pays in similarity to trade a faint grain for a few strong marks.
    """

    def judged(tokens: Tensor) -> tuple[Tensor, Tensor]:
        decoded = [model.decode(tokens[:, :length]) for length in lengths]
        errors, distortions = (
            torch.stack([measure(pixels, truth) for pixels in decoded]) for measure in (squared_error, _distortion)
        )
        return errors, distortions.mean(0)

    (errors, distortion), (own_errors, own_distortion) = judged(found), judged(own)
    return (errors <= (1 + TOLERANCE) * own_errors).all(0) & (distortion < own_distortion)


def prefix_schedule(lengths: list[int], steps: int) -> list[int]:
    """How many tokens are decoded in each step: all in the last one and every second before it, else the other lengths
    in turn."""
    others = cycle(lengths[:-1] or lengths)
    return [lengths[-1] if (steps - number) % 2 else next(others) for number in range(steps)]


def _settle(model: TiTok, pixels: Tensor, settled: Tensor, latents: Tensor, steps: int) -> Tensor:
    """The settled tokens (B, s) and the best found to follow them, one for each of (B, n, d) latents: (B, s + n).

    Latents take steps of nearly equal length, however steep the error is for each: the few steepest would take all of
    the step, and the many others add up to more.
    """
    quantizer, first, truth = model.quantize, settled.shape[1], pixels.float()
    step = RATE * quantizer.codebook().square().mean().sqrt()

    def followed_by(latents: Tensor) -> Tensor:
        return torch.cat([settled, quantizer.nearest(latents, first)], 1)

    best = tokens = followed_by(latents)
    least: Tensor | None = None
    for number in range(steps):
        decoded, slopes = _with_slopes(model.decode_codes, squared_error, truth, quantizer.lookup(tokens))
        best, least = _better(tokens, squared_error(decoded.clamp(0, 1), truth), best, least)
        slopes = slopes[:, first:]
        moves = slopes / _length(slopes, 2) ** EVENNESS
        latents = quantizer.normalize(latents - step * (1 - number / steps) * moves / _length(moves, (1, 2)))
        tokens = followed_by(latents)
    if not steps:
        return best
    errors = squared_error(model.decode_codes(quantizer.lookup(tokens)).float().clamp(0, 1), truth)
    return _better(tokens, errors, best, least)[0]


def _better(tokens: Tensor, errors: Tensor, best: Tensor, least: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of two answers for each picture the one with the smaller error, and that error; ``least`` is None at first."""
    if least is None:
        return tokens, errors
    better = errors < least
    return torch.where(better[:, None], tokens, best), torch.where(better, errors, least)


def _length(vectors: Tensor, axes: int | tuple[int, ...]) -> Tensor:
    """Root of the mean square, never 0, over axes that are kept."""
    return vectors.square().mean(axes, keepdim=True).sqrt().clamp_min(1e-30)


def _with_slopes(
    decode: Callable[[Tensor], Tensor], measure: Callable[[Tensor, Tensor], Tensor], truth: Tensor, codes: Tensor
) -> tuple[Tensor, Tensor]:
    """The pixels of (B, K, d) codes, and the gradient of their distance from the truth with respect to the codes.

    Pixels are not clamped to [0, 1]: a clamped one would have no gradient to bring it back.
    """
    with torch.enable_grad():
        codes = codes.detach().requires_grad_()
        decoded = decode(codes).float()
        slopes = torch.autograd.grad(measure(decoded, truth).sum(), codes)[0]
    return decoded.detach(), slopes


def _distortion(decoded: Tensor, truth: Tensor) -> Tensor:
    """(B, 3, H, H) twice -> (B,) squared errors, and what is lacking in contrast and structure, as SSIM measures them.

    Its third term, of luminance, is left out: it is as steep as a wall where pictures are black.
    """
    total = squared_error(decoded, truth)
    if decoded.shape[-1] > SKETCH:
        total = total + SIMILARITY * _dissimilarity(decoded, truth)
        decoded, truth = (F.avg_pool2d(pixels, pixels.shape[-1] // SKETCH) for pixels in (decoded, truth))
    return total + SIMILARITY * _dissimilarity(decoded, truth)


def _dissimilarity(decoded: Tensor, truth: Tensor) -> Tensor:
    with torch.autocast(decoded.device.type, enabled=False):  # variances are small differences of large numbers
        return 1 - ssim_terms(decoded, truth, SSIM_K2)[1].mean(1)


def squared_error(decoded: Tensor, truth: Tensor) -> Tensor:
    """(B, 3, H, H) twice -> (B,) means in which both differences of colour count ``COLOUR`` times what grey does.

    The weights' mean is 1: an error that is as large in colour as in grey has its plain mean square.
    """
    apart = decoded - truth
    grey = apart.mean(1).square().mean((1, 2))  # a third of the square of what all three have in common
    whole = apart.square().mean((1, 2, 3))
    return 3 * (grey + COLOUR * (whole - grey)) / (1 + 2 * COLOUR)
