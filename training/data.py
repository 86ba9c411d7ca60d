"""Training pictures: decoded once and kept as uint8 on the device.

All pictures lie end to end in one flat (P, 3) tensor, whatever their sizes, and a batch of random crops is a single
gather from it: no workers, no queues, and on a GPU no traffic from the host. So is a batch of random views. Sets too
large for memory are for ``streaming.py``.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import progress
from .reading import ClassFiles, Rejects, decode, find, key_of, read_files
from .views import PLAIN, Boxes, Views, sample

AHEAD = 64  # files that wait for a decoder or for their turn, at most


class Pictures:
    """A set of pictures in memory, each with its shorter side at ``side`` pixels.

    Args:
        sources: Tar shards, pictures, and folders of both.
        side: Side of the crops.
        limit: Hold the first pictures only.
        device: Where to hold them.
        largest: Hold pictures as large as they are, if they have from ``side`` to so many pixels on the shorter side;
            smaller ones are enlarged, larger ones reduced.
        only: Keys of the pictures to hold; None for all.

    Attributes:
        names: File names, in order.
        keys: Keys of the pictures in tables of labels, see ``key_of``.
        noted: Classes in files beside them, as ``ClassFiles.of`` gives them.
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
        only: Container[str] | None = None,
    ) -> None:
        self.side, self.one_size = side, not largest or largest <= side
        self.names: list[str] = []
        self.keys: list[str] = []
        rejects = Rejects()
        pieces: deque[Tensor] = deque()
        sizes = []
        folders = [source for source in sources if os.path.isdir(source)]
        beside, places = ClassFiles(folders), []
        files = read_files(find(sources, rejects.add), rejects.add, beside=beside.add)
        if only is not None:
            files = (file for file in files if key_of(file[0], file[1], folders) in only)
        files = islice(files, limit)
        with progress.Progress("reading pictures") as shown:
            for where, name, pixels in decoded(files, side, largest):
                shown.add()
                if pixels is None:
                    rejects.add(where, name, "cannot be read as a picture")
                    continue
                self.names.append(name)
                self.keys.append(key_of(where, name, folders))
                places.append(where)
                pieces.append(torch.from_numpy(pixels.reshape(-1, 3)))
                sizes.append(pixels.shape[:2])
        self.noted = [beside.of(where, key) for where, key in zip(places, self.keys, strict=True)]
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

    def windows(self, which: Tensor, generator: torch.Generator, shift: float = 1.0) -> tuple[Tensor, Tensor]:
        """For the pictures asked for, (n,): corners (n, 2) of random crops, as row and column, and flips (n,).

        Args:
            shift: How far crops lie from the middle at most, 0 to 1, as a share of the way to the picture's edges.
        """
        count, device = len(which), self.pixels.device
        spare = self.sizes[which] - self.side
        corner = (torch.rand(count, 2, generator=generator, device=device) * (spare + 1)).long()
        corner = torch.minimum(corner, spare)  # a product of floats may round up to the next whole number
        if shift < 1:
            middle = _half(spare)
            corner = (middle + shift * (corner - middle)).round().long()
        return corner, torch.rand(count, generator=generator, device=device) < 0.5

    def centre_crops(self, which: Tensor) -> Tensor:
        """(len(which), 3, side, side) float32 in [0, 1]: the middle of the pictures asked for, all that there is of it
        on the shorter side.

        Of an odd number of pixels that are left over, half a pixel is rounded to even, as torchvision does it: these
        are the pixels that published models are evaluated on.
        """
        which = which.to(self.pixels.device)
        if not self.one_size:
            return self.views(self.middles(which))
        corners = _half(self.sizes[which] - self.side)
        return self.crops(which, corners, torch.zeros_like(which, dtype=torch.bool))

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
        return Boxes(which, _half(sizes - short).float(), short.expand(-1, 2).float(), flips, ones, ones - 1)

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
        """(n, 3, side, side) float32 in [0, 1]: the contents of the boxes, by ``sample`` or a compiled one."""
        return sampler(self.pixels, self.starts[boxes.which], self.sizes[boxes.which], boxes, self.side)


def _half(lengths: Tensor) -> Tensor:
    """Half of whole numbers, rounded to whole ones, and to the even one of two that are as near."""
    return (lengths / 2).round().long()


def decoded(
    files: Iterable[tuple[str, str, bytes]], side: int, largest: int | None = None
) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """Where, name and pixels of files, as ``decode`` gives them: in threads and in order, reading no further ahead than
    it must."""
    waiting: deque = deque()
    with ThreadPoolExecutor() as pool:
        for where, name, data in files:
            waiting.append((where, name, pool.submit(decode, data, side, largest)))
            if len(waiting) > AHEAD:
                where, name, found = waiting.popleft()
                yield where, name, found.result()
        while waiting:
            where, name, found = waiting.popleft()
            yield where, name, found.result()
