"""Pictures as tokens: a set that a tokenizer has named once, so that a generator's training never sees a pixel.

Every picture is named several times, from its middle and from random crops, half of them flipped, as the published
pre-tokenization does with ten crops. What was named is kept in a file, with all that it depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from titokcodec.errors import WeightsError

from .checkpoint import load_state, save_state
from .data import Pictures, Repeatable, mix
from .progress import Progress

Encode = Callable[[Tensor], Tensor]
"""(B, 3, side, side) pixels in [0, 1] -> (B, K) int64 tokens."""
HELD_OUT = 20  # one picture in so many, chosen by its key, is kept for scores


def is_held_out(key: str) -> bool:
    """Whether a picture is for scores alone: its key says, so that it is the same for every order and subset."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % HELD_OUT == 0


@dataclass
class Named:
    """Tokens of a set of pictures.

    Attributes:
        tokens: (V, n, K) int32, V namings of each picture, the first of its middle.
        labels: (n,) int64 class, -1 for none.
    """

    tokens: Tensor
    labels: Tensor

    def part(self, which: Tensor) -> Named:
        """The pictures that a (n,) bool mask or an index asks for."""
        return Named(self.tokens[:, which], self.labels[which])


@torch.no_grad()
def name(encode: Encode, pictures: Pictures, variants: int, seed: int = 0, batch: int = 32) -> Tensor:
    """(variants, n, K) int32 tokens of n pictures: their middles, then random crops, half of them flipped."""
    whole = torch.arange(len(pictures), device=pictures.pixels.device)
    chance = torch.Generator(pictures.pixels.device)
    found = []
    with Progress("naming tokens", variants * len(pictures), "crops") as shown:
        for variant in range(variants):
            for which in whole.split(batch):
                if variant == 0:
                    pixels = pictures.centre_crops(which)
                else:
                    chance.manual_seed(mix(seed, variant, int(which[0])))
                    pixels = pictures.crops(which, *pictures.windows(which, chance))
                found.append(encode(pixels).to(torch.int32).cpu())
                shown.add(len(which))
    return torch.cat(found).view(variants, len(pictures), -1)


def keep(file: Path, found: Tensor, of: dict[str, object]) -> None:
    """Leave tokens in a file, with what they depend on: plain values, by what people call them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_state(file, {"of": of, "tokens": found})


def kept(file: Path, of: dict[str, object]) -> tuple[Tensor | None, str]:
    """The tokens that ``keep`` left there of the very same, else None; and what speaks against those that lie there."""
    if not file.exists():
        return None, ""
    try:
        state = load_state(file, torch.device("cpu"))
        before, found = state["of"], state["tokens"]
    except (WeightsError, KeyError):  # they can be made anew
        return None, "damaged"
    if not isinstance(before, dict):
        return None, "of an older version"
    other = [name for name, value in of.items() if before.get(name) != value]
    return (None, f"of other {' and '.join(other)}") if other else (found, "")


class Drawn(Repeatable):
    """Batches of pictures that are named already. ``order``: as for ``Repeatable``, from the size on."""

    def __init__(self, named: Named, *order: int, **more: int) -> None:
        super().__init__(named.tokens.device, *order, **more)
        self.named, self.pictures = named, len(named.labels)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(size / ranks, K) int64 tokens and (size / ranks,) labels, -1 for none, without waiting for the device."""
        chance, device = self.chance(step), self.named.tokens.device
        variants, pictures, _ = self.named.tokens.shape
        which = torch.randint(pictures, (self.size,), generator=chance, device=device)[self.mine]
        variant = torch.randint(variants, (self.size,), generator=chance, device=device)[self.mine]
        return self.named.tokens[variant, which].long(), self.named.labels[which]


class Live(Repeatable):
    """The same from pictures that are named anew for every batch: no crop comes twice, at the tokenizer's cost.

    Args:
        encode: The tokenizer.
        kept: (m,) index of the pictures to draw from.
        labels: (n,) class of every picture, -1 for none.
        order: As for ``Repeatable``, from the size on.
    """

    def __init__(self, encode: Encode, pictures: Pictures, kept: Tensor, labels: Tensor, *order: int) -> None:
        super().__init__(pictures.pixels.device, *order)
        self.encode, self.store, self.kept, self.labels, self.pictures = encode, pictures, kept, labels, len(kept)

    @torch.no_grad()
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """As ``Drawn.batch``."""
        chance = self.chance(step)
        which = self.kept[torch.randint(len(self.kept), (self.size,), generator=chance, device=self.kept.device)]
        corner, flips = self.store.windows(which, chance)
        which = which[self.mine]
        return self.encode(self.store.crops(which, corner[self.mine], flips[self.mine])), self.labels[which]
