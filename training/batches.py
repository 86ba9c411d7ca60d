"""Batches from sets in memory: alike on every rank, and the same after a resume."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError

from .data import Pictures
from .views import PLAIN, Views, sample


class Order(NamedTuple):
    """How batches are made.

    Attributes:
        size: Pictures in a global batch; a multiple of ``ranks``.
        seed: What random choices depend on, besides the step.
        rank, ranks: This process and how many there are.
    """

    size: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1


class Batches:
    """Batches from a set in memory, shared out to ``ranks`` processes.

    Every rank draws the same global batch and gathers its own slice of it, and a step's batch depends on nothing but
    ``seed`` and the step: a resumed run sees what an uninterrupted one would, and two ranks together see, in order,
    what one process does (on devices of one kind, as CPUs and GPUs draw other numbers).

    Args:
        device: Where the set is held; it is the same on every rank.
        size: Pictures in a global batch; a multiple of ``ranks``.

    Attributes:
        mine: The slice of a global batch that is this rank's.

    Raises:
        TitokError: ``ranks`` do not divide ``size``.
    """

    pictures: int
    skipped: int
    damaged: list[str]

    def __init__(self, device: torch.device, size: int, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        share = share_of(size, ranks)
        self.size, self.seed = size, seed
        self.mine = slice(rank * share, (rank + 1) * share)
        self.generator = torch.Generator(device)

    def rng(self, step: int) -> torch.Generator:
        """The random numbers of a step."""
        return self.generator.manual_seed(mix(self.seed, step))

    def batch(self, step: int, augment: bool = False) -> Any:
        """This rank's part of a step's batch; ``augment`` asks for random views, if there are any."""
        raise NotImplementedError

    def close(self) -> None:
        """Do nothing; a ``Stream`` has workers to end."""


class InMemory(Batches):
    """Batches of random crops or views of pictures in memory.

    Args:
        pictures: The set.
        order: As for ``Batches``, from the size on.
        how: What views are like where a batch is to be augmented.
        compiled: Whether to sample them by a compiled kernel.

    Attributes:
        pictures: Their number.
        skipped, damaged: See ``Pictures``.
    """

    def __init__(
        self, pictures: Pictures, *order: int, how: Views = PLAIN, compiled: bool = False, **more: int
    ) -> None:
        super().__init__(pictures.pixels.device, *order, **more)
        self.store, self.how = pictures, how
        self.sampler = torch.compile(sample, dynamic=False) if compiled else sample
        self.pictures, self.skipped, self.damaged = len(pictures), pictures.skipped, pictures.damaged

    def batch(self, step: int, augment: bool = False) -> Tensor:
        """(size / ranks, 3, side, side) float32 in [0, 1] on the pictures' device, without waiting for it.

        Args:
            step: What the batch depends on, besides the seed.
            augment: Whether to take the views that ``how`` describes, rather than plain crops.
        """
        rng, how = self.rng(step), self.how if augment else PLAIN
        if how == PLAIN and self.store.one_size:
            return self.store.crops(*(choice[self.mine] for choice in self.store.draw(self.size, rng)))
        return self.store.views(self.store.draw_views(self.size, rng, how).part(self.mine), self.sampler)


def share_of(size: int, ranks: int) -> int:
    """Pictures that each of ``ranks`` processes takes of a batch."""
    if size < 1 or size % ranks:
        raise UsageError(f"a batch of {size} cannot be shared by {ranks} processes: give a multiple of {ranks}")
    return size // ranks


def mix(*numbers: int) -> int:
    """A seed of 63 bits from several numbers, unlike for (0, 1) and (1, 0), and good in its low 32 bits, which are all
    that PyTorch's CPU generator looks at."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little") >> 1
