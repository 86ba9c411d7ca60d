"""Sets of tokens with their classes, and batches from them: a generator's training need not see a pixel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .batches import Batches
from .data import Pictures
from .tokenizing import Encode

HELD_OUT = 20  # one picture in so many, chosen by its key, is kept for scores in short runs


def is_held_out(key: str, one_in: int = HELD_OUT) -> bool:
    """Whether a picture is for scores alone: decided by its key, so that it is the same for every order and subset;
    none is if it is one in 0."""
    if not one_in:
        return False
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % one_in == 0


def log_frequencies(tokens: Tensor, codes: int, share: int) -> Tensor:
    """(K, N) float32 logarithms of how often each code stands at each position of a set, none of them never.

    A picture counts once, whatever its variants, which are much alike. What a position has not seen often is made up
    for by the frequencies of its codebook, which weigh as much as N pictures, and what the codebook has not, by one
    occurrence of every code.

    Args:
        tokens: (V, n, K) integers below ``codes``.
        codes: N.
        share: Positions in a row that have a codebook in common.
    """
    columns = tokens.flatten(0, 1).T.long().cpu()
    counts = torch.stack([torch.bincount(column, minlength=codes) for column in columns]).double() / len(tokens)
    found = []
    for book in counts.split(share):
        common = book.sum(0) + 1
        smooth = book + codes * common / common.sum()
        found.append((smooth / smooth.sum(1, keepdim=True)).log())
    return torch.cat(found).float()


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
        shift: How far crops lie from the middle of their picture at most, as for ``Pictures.windows``.
        order: As for ``Batches``, from the size on.
    """

    def __init__(
        self, encode: Encode, pictures: Pictures, kept: Tensor, labels: Tensor, shift: float, *order: int
    ) -> None:
        super().__init__(pictures.pixels.device, *order)
        self.encode, self.store, self.kept, self.labels, self.pictures = encode, pictures, kept, labels, len(kept)
        self.shift = shift

    @torch.no_grad()
    def batch(self, step: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """As ``TokenBatches.batch``."""
        rng = self.rng(step)
        which = self.kept[torch.randint(len(self.kept), (self.size,), generator=rng, device=self.kept.device)]
        corner, flips = self.store.windows(which, rng, self.shift)
        which = which[self.mine]
        return self.encode(self.store.crops(which, corner[self.mine], flips[self.mine])), self.labels[which]
