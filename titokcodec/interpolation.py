"""Pictures between two pictures: the vectors of their codes mixed, and encoded again. Needs no generator."""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.checks import whole
from titokcodec.codec import Codec
from titokcodec.errors import TitokError
from titokcodec.runtime.isolation import isolated

# Vectors that have nothing in common mix to shorter ones, and contrast fades on the way. 1 would keep their length, but
# overdraw what the pictures do have in common.
CONTRAST = 0.5


def interpolate(codec: Codec, first: Tensor, last: Tensor, count: int) -> Tensor:
    """Tokens of ``count`` pictures from the first to the last, at even distances.

    The vectors of the codes are mixed and decoded, and the picture that this shows is encoded like any other: the mixed
    vectors' nearest codes are farther from it.

    Args:
        first, last: (1, K) integers in [0, N); the same K.
        count: Both ends are counted; of a single one, it is the middle.

    Returns:
        (count, K) int64 on the codec's device; the ends are the tokens that were given.

    Raises:
        TitokError: wrong shape, type or values.
    """
    count = whole("count", count, 1)
    first, last = codec.check_tokens(first), codec.check_tokens(last)
    if first.shape != last.shape or len(first) != 1:
        shapes = f"{tuple(first.shape)} and {tuple(last.shape)}"
        raise TitokError(f"the tokens have the shapes {shapes}: give one picture each, of as many tokens")
    first, last = first.to(codec.device), last.to(codec.device)
    shares = torch.linspace(0, 1, count) if count > 1 else torch.tensor([0.5])
    rows = [
        _between(codec, first, last, share) if 0 < share < 1 else (last if share else first)
        for share in shares.tolist()
    ]
    with isolated(codec.device):
        return torch.cat(rows)


def _between(codec: Codec, first: Tensor, last: Tensor, share: float) -> Tensor:
    model = codec.model
    with isolated(codec.device):
        start, end = model.quantize.lookup(first), model.quantize.lookup(last)
        mixed = ((1 - share) * start + share * end) / ((1 - share) ** 2 + share**2) ** (CONTRAST / 2)
        pixels = model.decode_codes(model.quantize.normalize(mixed)).float().clamp(0, 1)
    return codec.encode(pixels, first.shape[1])
