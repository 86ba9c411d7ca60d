"""A region of a picture filled anew, through the tokens: erase, sample, paste, encode.

No token belongs to a place: each is a few components that spread over the whole picture. So the region is erased,
filled smoothly from around it, and the picture encoded again; the tokens that this moves most are sampled anew to go
with the others. What that changes outside the region is undone in pixels, where it is easy: the region alone is pasted
into the original, and the result encoded. A few such rounds, each with fewer tokens sampled, let what is new and what
was there get used to each other, as the resampling of RePaint does for diffusion models (Lugmayr et al. 2022, section
4.2). The last encoding is searched (``titokcodec.search``), so that the tokens show the outside as nearly as they can.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.class_labels import Labels
from titokcodec.codec import Codec
from titokcodec.errors import TitokError
from titokcodec.format.limits import TILE
from titokcodec.generator import Generator, uniform
from titokcodec.runtime.isolation import isolated
from titokcodec.runtime.tokens import described
from titokcodec.sampling import Noise, is_number
from titokcodec.search import default_steps

SHARE = 0.6  # of the tokens. With more, what is new minds its surroundings less, with fewer it is vaguer
ROUNDS = (1.0, 0.6, 0.4)  # parts of that, round by round


def inpaint(
    generator: Generator,
    codec: Codec,
    tokens: Tensor,
    mask: Tensor,
    labels: Labels | None = None,
    *,
    share: float = SHARE,
    seed: int | None = None,
    noise: Noise | None = None,
    effort: int | None = None,
    **settings: Any,
) -> Tensor:
    """Fill a region of pictures anew.

    Args:
        generator, codec: They must fit each other, see ``generator.check_fits(codec.weights)``.
        tokens: (B, K) integers in [0, N), no fewer than the generator's fewest. Of more than it makes, the rest are
            found by encoding alone.
        mask: (256, 256) float: 1 where the pictures are to change, 0 where they are not, and a soft edge between.
            ``titokcodec.region.Region.mask`` makes one of a rectangle.
        labels: As in ``Generator.sample``; None for no class anywhere.
        share: Which part of the tokens to sample in the first round, above 0 and up to 1; later rounds sample fewer.
        seed, noise, settings: As in ``Generator.sample``.
        effort: Steps of the last encoding's search, see ``Codec.encode``; None for as many as compressing takes.

    Returns:
        (B, K) int64 on the codec's device. Outside the region they show about what the old ones did; ``paste`` brings
        that back exactly.

    Raises:
        TitokError: wrong shape, type or values.
    """
    if not is_number(share) or not 0 < share <= 1:
        raise TitokError(f"share is {share!r}: give a number above 0, up to 1 for all tokens")
    mask = _checked(mask).to(codec.device)
    noise = noise or uniform(generator.device, seed)
    original = codec.decode(tokens)
    shown = _erased(original, mask)
    count = generator.most(tokens.shape[1])
    order = _movement(codec, original, shown)[:, :count].argsort(1, descending=True)
    for part in ROUNDS:
        hidden = order[:, : max(1, round(part * share * count))]
        keep = torch.ones_like(order, dtype=torch.bool).scatter(1, hidden, False)
        found = generator.inpaint(codec.encode(shown, count), keep, labels, noise=noise, **settings)
        shown = paste(original, codec.decode(found), mask)
    steps = default_steps(codec.weights.config, 1) if effort is None else effort
    return codec.encode(shown, tokens.shape[1], effort=steps)


def paste(original: Tensor, changed: Tensor, mask: Tensor) -> Tensor:
    """(B, 3, H, W) pictures, those of ``changed`` where the (H, W) mask is 1, those of ``original`` where it is 0."""
    return torch.lerp(original, changed, mask.to(original))


def _checked(mask: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.shape != (TILE, TILE) or not mask.is_floating_point():
        raise TitokError(f"the mask must be floats of shape ({TILE}, {TILE}), not {described(mask)}")
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise TitokError("the mask must lie in [0, 1]: give 1 where the picture is to change, 0 where it is to stay")
    if not mask.any():
        raise TitokError("the mask is 0 everywhere, the region too small to change anything: give a larger one")
    return mask.float()


def _erased(pixels: Tensor, mask: Tensor) -> Tensor:
    """(B, 3, H, H) pictures with the region filled smoothly from around it."""
    with isolated(pixels.device):
        return _spread(pixels, (mask == 0).to(pixels).expand(len(pixels), 1, -1, -1))


def _spread(pixels: Tensor, known: Tensor) -> Tensor:
    """What is not known comes from a coarser picture, known where any part is (pull and push, Gortler et al. 1996)."""
    if pixels.shape[-1] == 1:
        return torch.where(known > 0, pixels, 0.5)
    share = F.avg_pool2d(known, 2)
    coarse = F.avg_pool2d(pixels * known, 2) / share.clamp_min(1e-6)
    coarse = _spread(coarse, (share > 0).to(pixels))
    return torch.where(known > 0, pixels, F.interpolate(coarse, scale_factor=2, mode="bilinear"))


def _movement(codec: Codec, before: Tensor, after: Tensor) -> Tensor:
    """(B, K) how far the latents of each token move between two pictures, as a share of how far its codes lie apart.

    Where entries differ in what they are worth, both are measured by the error in the picture.
    """
    model, quantizer = codec.model, codec.model.quantize
    with isolated(codec.device):
        latents = [model(pixels.to(codec.dtype)).latents for pixels in (before, after)]
        worth = torch.ones_like(latents[0][0]) if quantizer.importance is None else quantizer.importance
        spread = quantizer.codebook().unflatten(0, (-1, model.config.codes)).var(1)  # (codebooks, d)
        spread = spread.repeat_interleave(model.config.tokens // len(spread), 0)
        apart = ((latents[0] - latents[1]) * worth).square().sum(2)
        return apart / (spread * worth.square()).sum(1).clamp_min(1e-12)
