"""Pictures as tokens: a set that a tokenizer has named once, so that a generator's training never sees a pixel.

Every picture is named several times, from its middle and from random crops, half of them flipped, as the published
pre-tokenization does with ten crops. Labels come from a table beside the pictures.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.data import Pictures, mix, share_of

Encode = Callable[[Tensor], Tensor]
"""(B, 3, side, side) pixels in [0, 1] -> (B, K) int64 tokens."""
HELD_OUT = 20  # one picture in so many, chosen by its name, is kept for scores


def read_labels(path: Path | None) -> dict[str, str]:
    """Class by picture, from a table of two columns, ``key`` and ``label``, with tabs between them.

    Raises:
        SystemExit: it cannot be read as such a table.
    """
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return {row["key"]: row["label"] for row in rows if row["label"]}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise SystemExit(f"{path} is no table of key and label, with a tab between: {error}") from None


def is_held_out(name: str) -> bool:
    """Whether a picture is for scores alone: its name says, so that it is the same for every order and subset."""
    return int.from_bytes(hashlib.blake2b(Path(name).stem.encode(), digest_size=4).digest(), "big") % HELD_OUT == 0


@dataclass
class Named:
    """Tokens of a set of pictures.

    Attributes:
        tokens: (V, n, K) int32, V namings of each picture, the first of its middle.
        labels: (n,) int64 class, -1 for none.
    """

    tokens: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        self.pictures, self.skipped, self.damaged = len(self.labels), 0, []

    def to(self, device: torch.device) -> Named:
        """The same on a device."""
        return Named(self.tokens.to(device), self.labels.to(device))

    def part(self, which: Tensor) -> Named:
        """The pictures that a (n,) bool mask or an index asks for."""
        return Named(self.tokens[:, which], self.labels[which])


@torch.no_grad()
def name(encode: Encode, pictures: Pictures, variants: int, seed: int = 0, batch: int = 32) -> Tensor:
    """(variants, n, K) int32 tokens of n pictures: their middles, then random crops, half of them flipped."""
    whole = torch.arange(len(pictures), device=pictures.pixels.device)
    found = []
    for variant in range(variants):
        for which in whole.split(batch):
            if variant == 0:
                pixels = pictures.centre_crops(which)
            else:
                pixels = pictures.crops(which, *windows(pictures, which, mix(seed, variant, int(which[0]))))
            found.append(encode(pixels).to(torch.int32).cpu())
    return torch.cat(found).view(variants, len(pictures), -1)


def windows(pictures: Pictures, which: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Corners (n, 2) of random crops of the pictures asked for, and flips (n,)."""
    device = pictures.pixels.device
    generator = torch.Generator(device).manual_seed(seed)
    spare = pictures.sizes[which] - pictures.side
    corner = (torch.rand(len(which), 2, generator=generator, device=device) * (spare + 1)).long()
    return corner, torch.rand(len(which), generator=generator, device=device) < 0.5


class Drawn:
    """Batches of named pictures, as ``training.data.Held`` draws pixels: each rank its part of one global batch, that
    depends on nothing but ``seed`` and the step.

    Raises:
        SystemExit: ``ranks`` do not divide ``size``.
    """

    def __init__(self, named: Named, size: int, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        share = share_of(size, ranks)
        self.named, self.size, self.seed = named, size, seed
        self.mine = slice(rank * share, (rank + 1) * share)
        self.generator = torch.Generator(named.tokens.device)
        self.pictures, self.skipped, self.damaged = named.pictures, named.skipped, named.damaged

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(size / ranks, K) int64 tokens and (size / ranks,) labels, -1 for none, without waiting for the device."""
        device = self.named.tokens.device
        self.generator.manual_seed(mix(self.seed, step))
        variants, pictures, _ = self.named.tokens.shape
        which = torch.randint(pictures, (self.size,), generator=self.generator, device=device)[self.mine]
        variant = torch.randint(variants, (self.size,), generator=self.generator, device=device)[self.mine]
        return self.named.tokens[variant, which].long(), self.named.labels[which]

    def close(self) -> None:
        """Nothing to end; here because streams have something."""


class Live:
    """The same from pictures that are named anew for every batch: no crop comes twice, at the tokenizer's cost."""

    def __init__(
        self, encode: Encode, pictures: Pictures, kept: Tensor, labels: Tensor, size: int, seed: int = 0,
        rank: int = 0, ranks: int = 1,
    ) -> None:
        share = share_of(size, ranks)
        self.encode, self.store, self.kept, self.labels = encode, pictures, kept, labels
        self.size, self.seed = size, seed
        self.mine = slice(rank * share, (rank + 1) * share)
        self.generator = torch.Generator(pictures.pixels.device)
        self.pictures, self.skipped, self.damaged = len(kept), pictures.skipped, pictures.damaged

    @torch.no_grad()
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """As ``Drawn.batch``."""
        self.generator.manual_seed(mix(self.seed, step))
        device = self.kept.device
        which = self.kept[torch.randint(len(self.kept), (self.size,), generator=self.generator, device=device)]
        corner, flips = windows(self.store, which, mix(self.seed, step, 1))
        which, corner, flips = which[self.mine], corner[self.mine], flips[self.mine]
        return self.encode(self.store.crops(which, corner, flips)), self.labels[which]

    def close(self) -> None:
        """Nothing to end; here because streams have something."""
