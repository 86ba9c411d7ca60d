"""Training pictures: WebDataset tar shards or plain folders, decoded once and kept as uint8 on the device.

All pictures lie end to end in one flat (P, 3) tensor, whatever their sizes, and a batch of random crops is a single
gather from it: no workers, no queues, and on a GPU no traffic from the host. So is a batch of random views, which are
zoomed, stretched and tinted besides. What cannot be read is skipped and counted. Sets too large to hold are for
``training.streaming``.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from titokcodec.cli.pictures import is_foreign_picture, is_picture
from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from titokcodec.io.names import shown
from titokcodec.io.walk import AGAIN, NOWHERE, walk
from titokcodec.pictures import images

from . import progress

LONGEST = 2.0  # pictures more elongated than this are cropped to it
ROOM = 1.25  # times a crop's side that pictures held for random views have on their shorter side, at most
LARGEST = 1 << 27  # bytes of a picture's file; a hundred megapixels have fewer
AHEAD = 64  # files that wait for a decoder or for their turn, at most

Lost: TypeAlias = Callable[[str, "str | None", str], None]  # as Rejects.add


class Rejects:
    """What could not be read, counted.

    Args:
        tell: Say so on stderr as well, in one line for each shard or folder at most.

    Attributes:
        skipped: Pictures that could not be decoded.
        damaged: Shards whose rest is lost and folders that cannot be listed, each with the reason, one line each.
    """

    def __init__(self, tell: bool = False) -> None:
        self.skipped, self.tell = 0, tell
        self.damaged: list[str] = []
        self._told: set[str] = set()

    def add(self, where: str, name: str | None, reason: str) -> None:
        """Picture ``name`` of the shard or folder ``where`` is lost, or (None) all that was still to be read there."""
        line = shown(f"{where}: {reason}" if name is None else f"{where}: {name} {reason}")
        if name is not None:
            self.skipped += 1
        elif line not in self.damaged:
            self.damaged.append(line)
        if self.tell and where not in self._told:
            self._told.add(where)
            rest = "the rest of it is left out" if name is None else "it is skipped, and so are all such"
            progress.clear()
            print(f"warning: {line}; {rest}", file=sys.stderr, flush=True)

    def nothing_in(self, sources: Iterable[Path]) -> TitokError:
        """The end of a run that found no picture at all."""
        line = f"no readable pictures in {', '.join(map(str, sources))}"
        if self.skipped or self.damaged:
            line += f" ({self.skipped} cannot be decoded; damaged shards or folders: {len(self.damaged)})"
        return TitokError(f"{shown(line)}: give folders or tar shards of whole pictures")


def find(sources: Iterable[Path], lost: Lost) -> list[str]:
    """Paths of the tar shards and pictures that are given or lie in given folders, those of each folder sorted.

    Raises:
        TitokError: a source does not exist.
    """
    paths: list[str] = []
    for source in map(os.fspath, sources):
        if os.path.isdir(source):
            found = walk(source, lambda path: is_shard(path.name) or is_picture(path), is_foreign_picture)
            for path, reason in found.left_out:
                _leave_out(path, reason, lost)
            for error in found.problems:
                lost(error.filename, None, error.strerror)
            paths += found.files
        elif os.path.exists(source):
            paths.append(source)
        else:
            raise TitokError(f"{shown(source)} does not exist or may not be read: check the path")
    return paths


def _leave_out(path: str, reason: str, lost: Lost) -> None:
    """A picture is one lost; with a shard, or a link to a folder, it is all that lies in it."""
    folder, name = os.path.split(path)
    if reason == NOWHERE or is_shard(path):
        lost(path, None, f"is {reason}")
    elif reason != AGAIN:  # nothing is lost
        lost(folder, name, f"is {reason}")


def is_shard(path: str) -> bool:
    """Whether a path is a tar shard's rather than a picture's."""
    return path.lower().endswith(".tar")


def read_files(paths: Iterable[str], lost: Lost, first: int = 0, stride: int = 1) -> Iterator[tuple[str, str, bytes]]:
    """Shard or folder, name and bytes of the pictures that ``paths`` are or hold, in order.

    Of all of them together every ``stride``-th is read, from number ``first`` on. A shard that turns out damaged is
    left at that point. A file that cannot be read, or has more than ``LARGEST`` bytes, comes without any, as good as a
    picture that cannot be decoded: on disk a file of gigabytes may take no place, in memory it does.
    """
    turns = cycle([number == first for number in range(stride)])
    for path in paths:
        if is_shard(path):
            yield from _read_shard(path, lost, turns)
        elif next(turns):
            folder, name = os.path.split(path)
            yield folder or ".", name, _read_file(path)


def _read_file(path: str) -> bytes:
    try:
        fits = os.path.isfile(path) and os.path.getsize(path) <= LARGEST  # reading a pipe could wait for ever
        return Path(path).read_bytes() if fits else b""
    except OSError:
        return b""


def _read_shard(path: str, lost: Lost, turns: Iterator[bool]) -> Iterator[tuple[str, str, bytes]]:
    try:
        if not os.path.isfile(path):
            raise OSError("not a file")
        end = os.path.getsize(path)
        with tarfile.open(path, "r:") as shard:
            for member in iter(shard.next, None):
                shard.members.clear()  # tarfile keeps all of them: a gigabyte for a million pictures
                plain = member.isfile() and not member.issparse()  # a sparse one may claim any size, and is no picture
                if member.size < 0 or (plain and member.offset_data + member.size > end):
                    raise tarfile.ReadError(f"cut short within {member.name}")
                if plain and is_picture(Path(member.name)) and next(turns):
                    yield path, member.name, shard.extractfile(member).read() if member.size <= LARGEST else b""
                elif plain and is_foreign_picture(Path(member.name)) and next(turns):
                    yield path, member.name, b""
            # To tarfile a broken header is an end like any other; a real one is a block of zeros.
            shard.fileobj.seek(shard.offset)
            if shard.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"cut short or damaged at byte {shard.offset}")
    except Exception as error:  # tarfile raises half a dozen types on damaged headers
        lost(path, None, f"not a whole tar file ({' '.join(str(error).split()) or type(error).__name__})")


def key_of(where: str, name: str, folders: Iterable[Path]) -> str:
    """What a picture goes by, given where ``read_files`` found it: its path without the suffix.

    That is below the first of ``folders`` that it lies in, or the name alone if in none. In a shard it ends at the
    first dot of its last part, as WebDataset has it.
    """
    if is_shard(where) and not os.path.isdir(where):
        folder, base = posixpath.split(posixpath.normpath(name))
        return posixpath.join(folder, base.partition(".")[0] or base)
    path = Path(where, name)
    inside = next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), Path(name))
    return inside.with_suffix("").as_posix()


def read_picture(data: bytes) -> np.ndarray | None:
    """The upright sRGB picture as (h, w, 3) uint8, just as the codec sees it; None if it is damaged or too large."""
    try:
        return images.load(data).pixels  # Pillow's limit is checked first, so that a bomb costs no memory
    except Exception:  # ImageError and LimitExceeded, but also what Pillow may raise besides
        return None


def decode(data: bytes, side: int, largest: int | None = None) -> np.ndarray | None:
    """The picture as (h, w, 3) uint8, or None if it cannot be read. Its shorter side has ``side`` pixels or, if
    ``largest`` is given, as many as it came with, but no fewer than ``side`` and no more than ``largest``."""
    pixels = read_picture(data)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    short = min(width, height)
    keep_w, keep_h = min(width, int(short * LONGEST)), min(height, int(short * LONGEST))
    left, top = (width - keep_w) / 2, (height - keep_h) / 2
    side = min(max(short, side), largest or side)
    size = max(side, round(side * keep_w / short)), max(side, round(side * keep_h / short))
    box = (left, top, left + keep_w, top + keep_h)
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=box))


def _decoded(
    files: Iterable[tuple[str, str, bytes]], side: int, largest: int | None
) -> Iterator[tuple[str, str, np.ndarray | None, bytes]]:
    """Decodes in threads and in order, reading no further ahead than it must; with digests of the files' bytes."""

    def decoded(data: bytes) -> tuple[np.ndarray | None, bytes]:
        return decode(data, side, largest), hashlib.blake2b(data, digest_size=16).digest()

    waiting: deque = deque()
    with ThreadPoolExecutor() as pool:
        for where, name, data in files:
            waiting.append((where, name, pool.submit(decoded, data)))
            if len(waiting) > AHEAD:
                where, name, found = waiting.popleft()
                yield where, name, *found.result()
        while waiting:
            where, name, found = waiting.popleft()
            yield where, name, *found.result()


@dataclass(frozen=True)
class Views:
    """How far random views go beyond plain crops, which are squares as large as the picture is on its shorter side.

    Attributes:
        zoom: The smallest view has a side of one part in ``zoom`` of that; 1 takes no part of it away.
        stretch: .15 makes a view up to 15 % wider than high before it becomes a square, or higher than wide.
        colour: .05 moves brightness, contrast and the gain of each channel by up to 5 %.

    Raises:
        TitokError: a strength makes no sense.
    """

    zoom: float = 1.0
    stretch: float = 0.0
    colour: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.zoom < math.inf and 0 <= self.stretch < math.inf and 0 <= self.colour < 1):
            raise UsageError("a zoom is 1 or more, a stretch 0 or more, and a change of colour from 0 to 1")


PLAIN = Views()


class Boxes(NamedTuple):
    """Parts of n pictures, each to become a square of pixels.

    Attributes:
        which: (n,) int64 number of the picture.
        corners: (n, 2) float32 row and column where the part begins, in pixels of the picture.
        sizes: (n, 2) float32 height and width of it, in pixels of the picture.
        flips: (n,) bool, whether it is mirrored.
        gains: (n, 3) float32 that the channels, from 0 to 1, are multiplied by.
        lifts: (n, 3) float32 that is added to them then.
    """

    which: Tensor
    corners: Tensor
    sizes: Tensor
    flips: Tensor
    gains: Tensor
    lifts: Tensor

    def part(self, mine: slice) -> Boxes:
        """Some of them."""
        return Boxes(*(value[mine] for value in self))


def sample(pixels: Tensor, starts: Tensor, sizes: Tensor, boxes: Boxes, side: int) -> Tensor:
    """(n, 3, side, side) float32 in [0, 1]: parts of pictures, resized bilinearly.

    ``torch.compile`` makes one kernel of it: the four neighbours of every place are gathered where they are mixed.
    Where a box is as large as what becomes of it and begins at a whole pixel, the picture's own pixels come out.

    Args:
        pixels: (P, 3) uint8, pictures end to end.
        starts: (n,) int64, where in ``pixels`` each box's picture starts.
        sizes: (n, 2) int64, height and width of each box's picture.
    """
    centres = torch.arange(side, device=pixels.device) + 0.5
    places = boxes.corners[:, :, None] + centres * (boxes.sizes / side)[:, :, None] - 0.5  # (n, 2, side)
    last = sizes[:, :, None] - 1
    places = torch.minimum(places.clamp(min=0), last)
    rows, columns = places.unbind(1)
    columns = torch.where(boxes.flips[:, None], columns.flip(1), columns)
    top, left = rows.long(), columns.long()
    bottom, right = torch.minimum(top + 1, last[:, 0]), torch.minimum(left + 1, last[:, 1])
    down, across = (rows - top)[:, :, None, None], (columns - left)[:, None, :, None]

    def gathered(row: Tensor, column: Tensor) -> Tensor:
        return pixels[(starts[:, None] + row * sizes[:, 1:])[:, :, None] + column[:, None, :]].float()

    upper = torch.lerp(gathered(top, left), gathered(top, right), across)  # (n, side, side, 3)
    lower = torch.lerp(gathered(bottom, left), gathered(bottom, right), across)
    found = torch.lerp(upper, lower, down)
    tinted = found / 255 * boxes.gains[:, None, None] + boxes.lifts[:, None, None]
    return tinted.clamp(0, 1).permute(0, 3, 1, 2)  # channels last in memory, as ``crops`` are and models like it


class Pictures:
    """A set of pictures in memory, each with its shorter side at ``side`` pixels.

    Args:
        sources: Tar shards, pictures, and folders of both.
        side: Side of the crops.
        limit: Hold the first pictures only.
        device: Where to hold them.
        largest: Hold pictures as large as they are, if they have from ``side`` to so many pixels on the shorter side;
            smaller ones are enlarged, larger ones reduced.

    Attributes:
        names: File names, in order.
        keys: What tables of labels go by, see ``key_of``.
        digest: Of their files' bytes, in order, and of the sizes they are held at: other pictures have another one.
        skipped: Files that could not be read as pictures.
        damaged: Shards that were not read to their end, each with the reason, one line each.

    Raises:
        TitokError: a source does not exist, or there is no readable picture in any.
    """

    def __init__(
        self,
        sources: list[Path],
        side: int = 256,
        limit: int | None = None,
        device: str | torch.device = "cpu",
        largest: int | None = None,
    ) -> None:
        self.side, self.alike = side, not largest or largest <= side
        self.names: list[str] = []
        self.keys: list[str] = []
        rejects, seen = Rejects(), hashlib.blake2b(repr((side, largest)).encode(), digest_size=16)
        pieces: deque[Tensor] = deque()
        sizes = []
        files = islice(read_files(find(sources, rejects.add), rejects.add), limit)
        folders = [source for source in sources if os.path.isdir(source)]
        with progress.Progress("reading pictures") as shown:
            for where, name, pixels, digest in _decoded(files, side, largest):
                shown.add()
                if pixels is None:
                    rejects.add(where, name, "cannot be read as a picture")
                    continue
                self.names.append(name)
                self.keys.append(key_of(where, name, folders))
                seen.update(digest)
                pieces.append(torch.from_numpy(pixels.reshape(-1, 3)))
                sizes.append(pixels.shape[:2])
        self.digest = seen.hexdigest()
        if not pieces:
            raise rejects.nothing_in(sources)
        self.skipped, self.damaged = rejects.skipped, rejects.damaged
        self.sizes = torch.tensor(sizes, device=device)
        self.starts = torch.cat([self.sizes.new_zeros(1), self.sizes.prod(1).cumsum(0)[:-1]])
        self.pixels = torch.empty(sum(map(len, pieces)), 3, dtype=torch.uint8, device=device)
        for start in self.starts.tolist():  # torch.cat would need all of it twice
            piece = pieces.popleft()
            self.pixels[start : start + len(piece)] = piece

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random pictures (count,), their crops' corners (count, 2) as row and column, and flips (count,)."""
        which = torch.randint(len(self), (count,), generator=generator, device=self.pixels.device)
        return which, *self.windows(which, generator)

    def windows(self, which: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For the pictures asked for, (n,): corners (n, 2) of random crops, as row and column, and flips (n,)."""
        count, device = len(which), self.pixels.device
        spare = self.sizes[which] - self.side
        corner = (torch.rand(count, 2, generator=generator, device=device) * (spare + 1)).long()
        corner = torch.minimum(corner, spare)  # a product of floats may round up to the next whole number
        return corner, torch.rand(count, generator=generator, device=device) < 0.5

    def random_crops(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side) float32 in [0, 1]: random pictures, positions and flips."""
        return self.crops(*self.draw(count, generator))

    def centre_crops(self, which: Tensor) -> Tensor:
        """(len(which), 3, side, side) float32 in [0, 1]: the middle of the pictures asked for, all that there is of it
        on the shorter side."""
        which = which.to(self.pixels.device)
        if not self.alike:
            return self.views(self.middles(which))
        return self.crops(which, (self.sizes[which] - self.side) // 2, torch.zeros_like(which, dtype=torch.bool))

    def crops(self, which: Tensor, corner: Tensor, flips: Tensor) -> Tensor:
        """(len(which), 3, side, side) float32 in [0, 1]: the windows that ``draw`` chose."""
        steps = torch.arange(self.side, device=self.pixels.device)
        rows = corner[:, :1] + steps
        columns = corner[:, 1:] + torch.where(flips[:, None], steps.flip(0), steps)
        index = (self.starts[which, None] + rows * self.sizes[which, 1:])[:, :, None] + columns[:, None, :]
        return self.pixels[index].permute(0, 3, 1, 2).float().div_(255)

    def middles(self, which: Tensor) -> Boxes:
        """The largest square in the middle of the pictures asked for."""
        sizes = self.sizes[which]
        short = sizes.amin(1, keepdim=True)
        ones = torch.ones(len(which), 3, device=sizes.device)
        flips = torch.zeros_like(which, dtype=torch.bool)
        return Boxes(which, ((sizes - short) // 2).float(), short.expand(-1, 2).float(), flips, ones, ones - 1)

    def draw_views(self, count: int, generator: torch.Generator, how: Views = PLAIN) -> Boxes:
        """Boxes of random pictures, sizes, proportions, positions, flips and colours, each within its picture.

        Zooms and proportions are uniform in their logarithms. Without zoom and stretch, and where a picture has
        ``side`` pixels on its shorter side, these are the crops that ``draw`` gives for the same random numbers.
        """
        device = self.pixels.device
        which = torch.randint(len(self), (count,), generator=generator, device=device)
        where = torch.rand(count, 2, generator=generator, device=device)
        flips = torch.rand(count, generator=generator, device=device) < 0.5
        zoom, stretch, light, contrast, *gains = torch.rand(count, 7, generator=generator, device=device).unbind(1)
        whole = self.sizes[which].float()
        wider = torch.exp((stretch - 0.5) * math.log1p(how.stretch))  # each side bears half of it
        side = whole.amin(1) * torch.exp(zoom * -math.log(how.zoom))
        sizes = torch.minimum(torch.stack([side / wider, side * wider], dim=1), whole)
        spare = whole - sizes
        corners = torch.minimum((where * (spare.floor() + 1)).floor(), spare)  # at whole pixels, so as not to blur
        gain = 1 + how.colour * (2 * torch.stack(gains, dim=1) - 1)
        contrast, light = 1 + how.colour * (2 * contrast - 1), how.colour * (2 * light - 1)
        lift = (0.5 - 0.5 * contrast + light)[:, None] * gain  # contrast turns about the middle grey
        return Boxes(which, corners, sizes, flips, contrast[:, None] * gain, lift)

    def views(self, boxes: Boxes, sampler: Callable[..., Tensor] = sample) -> Tensor:
        """(n, 3, side, side) float32 in [0, 1]: what lies in the boxes, as ``sample`` or what is made of it says."""
        return sampler(self.pixels, self.starts[boxes.which], self.sizes[boxes.which], boxes, self.side)


class Repeatable:
    """Batches from a set in memory, shared out to ``ranks`` processes.

    Every rank draws the same global batch and gathers its own slice of it, and a step's batch depends on nothing but
    ``seed`` and the step: a resumed run sees what an uninterrupted one would, and two ranks see together, in order,
    what one process does (on devices of one kind, as CPUs and GPUs draw other numbers).

    Args:
        device: Where the set lies; it is the same on every rank.
        size: Pictures in a global batch; a multiple of ``ranks``.

    Attributes:
        mine: The slice of a global batch that is this rank's.

    Raises:
        TitokError: ``ranks`` do not divide ``size``.
    """

    def __init__(self, device: torch.device, size: int, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        share = share_of(size, ranks)
        self.size, self.seed = size, seed
        self.mine = slice(rank * share, (rank + 1) * share)
        self.generator = torch.Generator(device)

    def chance(self, step: int) -> torch.Generator:
        """The random numbers of a step."""
        return self.generator.manual_seed(mix(self.seed, step))

    def close(self) -> None:
        """Nothing to end; here because streams have something."""


class Held(Repeatable):
    """Batches of random crops or views.

    Args:
        pictures: The set. order: As for ``Repeatable``, from the size on.
        how: What views are like where a batch is to be augmented.
        compiled: Whether to sample them by a compiled kernel.

    Attributes:
        pictures: Their number. skipped, damaged: see ``Pictures``.
    """

    def __init__(
        self, pictures: Pictures, *order: int, how: Views = PLAIN, compiled: bool = False, **named: int
    ) -> None:
        super().__init__(pictures.pixels.device, *order, **named)
        self.store, self.how = pictures, how
        self.sampler = torch.compile(sample, dynamic=False) if compiled else sample
        self.pictures, self.skipped, self.damaged = len(pictures), pictures.skipped, pictures.damaged

    def batch(self, step: int, augment: bool = False) -> Tensor:
        """(size / ranks, 3, side, side) float32 in [0, 1] on the pictures' device, without waiting for it.

        Args:
            step: What the batch depends on, besides the seed.
            augment: Whether to take the views that ``how`` describes, rather than plain crops.
        """
        chance, how = self.chance(step), self.how if augment else PLAIN
        if how == PLAIN and self.store.alike:
            return self.store.crops(*(choice[self.mine] for choice in self.store.draw(self.size, chance)))
        return self.store.views(self.store.draw_views(self.size, chance, how).part(self.mine), self.sampler)


def share_of(size: int, ranks: int) -> int:
    """Pictures that each of ``ranks`` processes takes of a batch."""
    if size < 1 or size % ranks:
        raise UsageError(f"a batch of {size} cannot be shared by {ranks} processes: give a multiple of {ranks}")
    return size // ranks


def mix(*numbers: int) -> int:
    """A seed of 63 bits from several numbers, unlike for (0, 1) and (1, 0), and good in its low 32 bits, which are all
    that PyTorch's CPU generator looks at."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little") >> 1
