"""Pictures as tokens: a set that is tokenized once, so that a generator's training never sees a pixel.

Every picture is tokenized several times, from its centre and from random crops, half of them flipped, as the published
pre-tokenization does with ten crops. The tokens are kept in a file, with all that they depend on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from titokcodec.errors import WeightsError

from .batches import Batches, mix
from .checkpoint import load_state, save_state
from .data import Pictures
from .progress import Progress

Encode = Callable[[Tensor], Tensor]
"""(B, 3, side, side) pixels in [0, 1] -> (B, K) int64 tokens."""
HELD_OUT = 20  # one picture in so many, chosen by its key, is kept for scores


def is_held_out(key: str) -> bool:
    """Whether a picture is for scores alone: decided by its key, so that it is the same for every order and subset."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % HELD_OUT == 0


@dataclass
class TokenSet:
    """Tokens of a set of pictures.

    Attributes:
        tokens: (V, n, K) int32, V variants of each picture, the first of its centre crop.
        labels: (n,) int64 class, -1 for none.
    """

    tokens: Tensor
    labels: Tensor

    def part(self, which: Tensor) -> TokenSet:
        """The pictures that a (n,) bool mask or an index asks for."""
        return TokenSet(self.tokens[:, which], self.labels[which])


@torch.no_grad()
def tokenize(encode: Encode, pictures: Pictures, variants: int, seed: int = 0, batch: int = 32) -> Tensor:
    """(variants, n, K) int32 tokens of n pictures: their centres, then random crops, half of them flipped."""
    whole = torch.arange(len(pictures), device=pictures.pixels.device)
    rng = torch.Generator(pictures.pixels.device)
    parts = []
    with Progress("tokenizing", variants * len(pictures), "crops") as shown:
        for variant in range(variants):
            for which in whole.split(batch):
                if variant == 0:
                    pixels = pictures.centre_crops(which)
                else:
                    rng.manual_seed(mix(seed, variant, int(which[0])))
                    pixels = pictures.crops(which, *pictures.windows(which, rng))
                parts.append(encode(pixels).to(torch.int32).cpu())
                shown.add(len(which))
    return torch.cat(parts).view(variants, len(pictures), -1)


def save_tokens(file: Path, tokens: Tensor, of: dict[str, object]) -> None:
    """Write tokens to a file, with what they depend on: plain values by their names in messages."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_state(file, {"of": of, "tokens": tokens})


def load_tokens(file: Path, of: dict[str, object]) -> tuple[Tensor | None, str]:
    """The tokens that ``save_tokens`` left there of the very same, else None and why those in the file do not fit."""
    if not file.exists():
        return None, ""
    try:
        state = load_state(file, torch.device("cpu"))
        before, found = state["of"], state["tokens"]
    except (WeightsError, KeyError):  # pictures can be tokenized again
        return None, "damaged"
    if not isinstance(before, dict):
        return None, "of an older version"
    other = [name for name, value in of.items() if before.get(name) != value]
    return (None, f"of other {' and '.join(other)}") if other else (found, "")


class TokenBatches(Batches):
    """Batches of a set that is tokenized already. ``order``: as for ``Batches``, from the size on."""

    def __init__(self, tokens: TokenSet, *order: int, **more: int) -> None:
        super().__init__(tokens.tokens.device, *order, **more)
        self.set, self.pictures = tokens, len(tokens.labels)

    def batch(self, step: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """(size / ranks, K) int64 tokens and (size / ranks,) labels, -1 for none, without waiting for the device."""
        rng, device = self.rng(step), self.set.tokens.device
        variants, pictures, _ = self.set.tokens.shape
        which = torch.randint(pictures, (self.size,), generator=rng, device=device)[self.mine]
        variant = torch.randint(variants, (self.size,), generator=rng, device=device)[self.mine]
        return self.set.tokens[variant, which].long(), self.set.labels[which]


class LiveTokens(Batches):
    """The same from pictures that are tokenized for every batch: no crop comes twice, at the tokenizer's cost.

    Args:
        encode: The tokenizer.
        kept: (m,) index of the pictures to draw from.
        labels: (n,) class of every picture, -1 for none.
        order: As for ``Batches``, from the size on.
    """

    def __init__(self, encode: Encode, pictures: Pictures, kept: Tensor, labels: Tensor, *order: int) -> None:
        super().__init__(pictures.pixels.device, *order)
        self.encode, self.store, self.kept, self.labels, self.pictures = encode, pictures, kept, labels, len(kept)

    @torch.no_grad()
    def batch(self, step: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """As ``TokenBatches.batch``."""
        rng = self.rng(step)
        which = self.kept[torch.randint(len(self.kept), (self.size,), generator=rng, device=self.kept.device)]
        corner, flips = self.store.windows(which, rng)
        which = which[self.mine]
        return self.encode(self.store.crops(which, corner[self.mine], flips[self.mine])), self.labels[which]
