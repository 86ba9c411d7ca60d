"""Training pictures from sets too large to hold: worker processes read, decode and crop them while the device works.

Shards are taken in another order each epoch, split over all workers of all ranks, and shuffled through a buffer, like
the WebDataset loader that TiTok was published with. Unlike ``batches.InMemory``, a stream does not promise that a
resumed run sees what an uninterrupted one would: it starts new epochs, under another seed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError

from . import interrupt
from .batches import InMemory, mix, share_of
from .data import Pictures
from .reading import Lost, Rejects, find, is_shard, read_files, read_picture, resized
from .views import PLAIN, Views

BLOCK = 256  # files of a folder that are one unit of work, at most
ROOM = 1.25  # times a crop's side that pictures held for random views have on their shorter side, at most
PATIENCE = 300  # seconds without a batch after which the disk, or a worker, is taken for stuck

Item = TypeVar("Item")


def units_of(paths: list[str], workers: int, seed: int) -> list[list[str]]:
    """What is given to workers as a whole: each shard by itself, and other files, shuffled, in blocks.

    Files are cheap to read in any order, and often sorted by class. Blocks are small enough for all workers to get
    several, if there are so many files at all.
    """
    files = [path for path in paths if not is_shard(path)]
    random.Random(mix(seed)).shuffle(files)
    block = max(1, min(BLOCK, len(files) // (4 * workers)))
    shards = [[path] for path in paths if is_shard(path)]
    return shards + [files[start : start + block] for start in range(0, len(files), block)]


def portion(units: list[list[str]], worker: int, workers: int, seed: int, epoch: int) -> tuple[list[str], int, int]:
    """What one of ``workers`` reads in an epoch: paths, and the first and the stride of the pictures in them.

    The portions of an epoch are disjoint and together complete. There are whole units for everybody, or else all read
    the same units, each its own pictures of them. Turns go round: where there are fewer pictures than workers, or
    some units hold none, no worker is left without for ever.
    """
    order = units.copy()
    random.Random(mix(seed, epoch)).shuffle(order)
    turn = (worker + epoch) % workers
    if len(units) >= workers:
        return list(itertools.chain(*order[turn::workers])), 0, 1
    return list(itertools.chain(*order)), turn, workers


def shuffled(items: Iterable[Item], buffer: int, rng: random.Random) -> Iterator[Item]:
    """All items once, each drawn at random from about ``buffer`` that were read ahead."""
    ahead: list[Item] = []
    for item in items:
        ahead.append(item)
        if len(ahead) > buffer:
            drawn = rng.randrange(len(ahead))
            ahead[drawn], ahead[-1] = ahead[-1], ahead[drawn]
            yield ahead.pop()
    rng.shuffle(ahead)
    while ahead:
        yield ahead.pop()


def random_crop(pixels: np.ndarray, side: int, rng: random.Random) -> Tensor:
    """(side, side, 3) uint8 of an (h, w, 3) picture: shorter side to ``side``, a random square, flipped at random."""
    whole = resized(pixels, side)
    left, top = (rng.randint(0, length - side) for length in (whole.shape[1], whole.shape[0]))
    crop = whole[top : top + side, left : left + side]
    return torch.from_numpy((crop[:, ::-1] if rng.random() < 0.5 else crop).copy())


class Parcel(NamedTuple):
    """What a worker sends: (share, side, side, 3) uint8 and what it had to leave out on the way; no pixels if there is
    nothing to be read at all."""

    pixels: Tensor | None
    rejected: list[tuple[str, str | None, str]]


class Portions(IterableDataset):
    """Endless parcels; in each worker process those of its own portion."""

    def __init__(
        self, units: list[list[str]], share: int, side: int, seed: int, rank: int, ranks: int, buffer: int
    ) -> None:
        self.units, self.share, self.side, self.seed = units, share, side, seed
        self.rank, self.ranks, self.buffer = rank, ranks, buffer

    def __iter__(self) -> Iterator[Parcel]:
        here = get_worker_info()
        mine, each = (here.id, here.num_workers) if here else (0, 1)
        rejected: list[tuple[str, str | None, str]] = []
        crops = self.crops(self.rank * each + mine, self.ranks * each, lambda *event: rejected.append(event))
        while len(batch := list(itertools.islice(crops, self.share))) == self.share:
            yield Parcel(torch.stack(batch), rejected.copy())
            rejected.clear()
        yield Parcel(None, rejected)

    def crops(self, worker: int, workers: int, lost: Lost) -> Iterator[Tensor]:
        """(side, side, 3) uint8 crops, epoch after epoch; ends only if there is not one readable picture."""
        rng = random.Random(mix(self.seed, worker, workers))
        for epoch in itertools.count():
            paths, first, stride = portion(self.units, worker, workers, self.seed, epoch)
            empty = True
            for where, name, data in shuffled(read_files(paths, lost, first, stride), self.buffer, rng):
                if (pixels := read_picture(data)) is None:
                    lost(where, name, "cannot be read as a picture")
                    continue
                empty = False
                yield random_crop(pixels, self.side, rng)
            if empty and not self.anything():
                return

    def anything(self) -> bool:
        """Whether some picture can be read: asked when one's own portion had none, as others' may have."""
        files = read_files(itertools.chain(*self.units), lambda *event: None)
        return any(read_picture(data) is not None for _, _, data in files)


class Stream:
    """Batches from pictures on disk, for sets of any size; never the same for two ranks within an epoch.

    An epoch ends for each worker by itself. Shards of like size are seen equally often.

    Args:
        sources: Tar shards, pictures, and folders of both.
        size: Pictures in a global batch; a multiple of ``ranks``.
        side: Side of the crops in pixels.
        workers: Processes of each rank that read and decode; 0 does it in this one.
        buffer: Pictures that each worker shuffles among, held as files.

    Attributes:
        pictures: None, their number is not known.
        skipped: Pictures that could not be decoded, each time that one was met.
        damaged: Shards that were not read to their end, each with the reason, one line each. What is lost is printed
            on stderr too, as it is found during the run.

    Raises:
        TitokError: a source does not exist, all are empty, or ``ranks`` do not divide ``size``.
    """

    pictures = None

    def __init__(
        self,
        sources: list[Path],
        size: int,
        side: int = 256,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 4,
        device: str | torch.device = "cpu",
        buffer: int = 1000,
    ) -> None:
        self.size, self.share = size, share_of(size, ranks)
        if workers < 0:
            raise UsageError(f"{workers} workers cannot read pictures: give 0 or more")
        self.sources, self.side, self.seed, self.buffer = sources, side, seed, buffer
        self.rank, self.ranks, self.workers, self.device = rank, ranks, workers, torch.device(device)
        self.rejects = Rejects(verbose=True)
        paths = find(sources, self.rejects.add)
        if not paths:
            raise self.rejects.nothing_in(sources)
        self.units = units_of(paths, ranks * max(workers, 1), seed)
        self._parcels: Iterator[Parcel] | None = None

    @property
    def skipped(self) -> int:
        return self.rejects.skipped

    @property
    def damaged(self) -> list[str]:
        return self.rejects.damaged

    def batch(self, step: int, augment: bool = False) -> Tensor:
        """(size / ranks, 3, side, side) float32 in [0, 1] on the device. Only the first call looks at ``step``: it
        seeds all that follows, so that a resumed run does not see the same pictures again. Streams have plain crops
        alone, even where ``augment`` asks for more: they are for sets that are large enough without.

        Raises:
            TitokError: there is no readable picture, or the workers died or are stuck.
        """
        if self._parcels is None:
            self._parcels = iter(self._loader(mix(self.seed, step)))
        try:
            parcel, problem = next(self._parcels), ""
        except RuntimeError as error:  # a worker died, or none sent anything in time
            parcel, problem = Parcel(None, []), str(error).partition("\n")[0]
        for event in parcel.rejected:
            self.rejects.add(*event)
        if parcel.pixels is None:
            self.close()
            raise (
                TitokError(
                    f"no pictures come from the workers ({problem}): check the disk, give fewer workers or more memory"
                )
                if problem
                else self.rejects.nothing_in(self.sources)
            )
        return parcel.pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)

    def close(self) -> None:
        """End the workers; a further ``batch`` would start new ones."""
        self._parcels = None

    def _loader(self, seed: int) -> DataLoader:
        portions = Portions(self.units, self.share, self.side, seed, self.rank, self.ranks, self.buffer)
        return DataLoader(
            portions,
            batch_size=None,
            num_workers=self.workers,
            timeout=PATIENCE if self.workers else 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=interrupt.leave_process_group,
            generator=torch.Generator(),  # or the loader would draw from the one that training draws from
        )


Source: TypeAlias = InMemory | Stream


def open_source(
    sources: list[Path],
    size: int,
    side: int = 256,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    device: str | torch.device = "cpu",
    stream: bool = False,
    workers: int = 4,
    limit: int | None = None,
    how: Views = PLAIN,
    compiled: bool = False,
) -> Source:
    """Where a trainer's batches come from: ``batch(step)`` gives this rank's (size / ranks, 3, side, side) float32 in
    [0, 1], ``batch(step, True)`` augmented ones; ``pictures``, ``skipped`` and ``damaged`` describe what was found;
    ``close()`` ends it.

    Args:
        sources: Tar shards, pictures, and folders of both.
        stream: Read them during training instead of holding all of them on the device.
        workers: Processes that read a stream, for each rank.
        limit: Hold the first pictures only.
        how: What augmented views of held pictures are like; if they zoom, the pictures keep more of their pixels.
        compiled: Whether such views are sampled by a compiled kernel.

    Raises:
        TitokError: a source does not exist, nothing in them can be read, or the numbers do not fit together.
    """
    if not stream:
        share_of(size, ranks)  # complain before minutes of decoding, not after
        largest = int(side * ROOM) if how.zoom > 1 else None
        pictures = Pictures(sources, side, limit, device, largest)
        return InMemory(pictures, size, seed, rank, ranks, how=how, compiled=compiled)
    if limit is not None:
        raise UsageError("a limit is for pictures that are held: leave it out, or do not stream")
    return Stream(sources, size, side, seed, rank, ranks, workers, device)
