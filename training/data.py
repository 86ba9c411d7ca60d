"""Training pictures: WebDataset tar shards or plain folders, decoded once and kept as uint8 on the device.

All pictures lie end to end in one flat (P, 3) tensor, whatever their sizes, and a batch of random crops is a single
gather from it: no workers, no queues, and on a GPU no traffic from the host.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}
LONGEST = 2.0  # pictures more elongated than this are cropped to it


def read_files(sources: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of every picture in the given tar shards, folders and folders of shards, in sorted order."""
    for source in sources:
        if source.is_dir():
            inside = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES | {".tar"})
            yield from read_files(inside)
        elif source.suffix == ".tar":
            with tarfile.open(source) as shard:
                for member in shard:
                    if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                        yield member.name, shard.extractfile(member).read()
        else:
            yield source.name, source.read_bytes()


def decode(data: bytes, side: int) -> np.ndarray | None:
    """The picture as (h, w, 3) uint8 with its shorter side at ``side`` pixels, or None if it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image = image.convert("RGB")
    except Exception:  # damaged files make Pillow raise a dozen types, by format
        return None
    width, height = image.size
    short = min(width, height)
    keep_w, keep_h = min(width, int(short * LONGEST)), min(height, int(short * LONGEST))
    left, top = (width - keep_w) / 2, (height - keep_h) / 2
    size = max(side, round(side * keep_w / short)), max(side, round(side * keep_h / short))
    box = (left, top, left + keep_w, top + keep_h)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


class Pictures:
    """A set of pictures in memory, each with its shorter side at ``side`` pixels.

    Attributes:
        names: File names, in order.
        skipped: Files that could not be read as pictures.
    """

    def __init__(
        self, sources: list[Path], side: int = 256, limit: int | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.side = side
        self.names: list[str] = []
        self.skipped = 0
        pieces, sizes = [], []
        with ThreadPoolExecutor() as pool:
            files = islice(read_files(sources), limit)
            for name, pixels in pool.map(lambda file: (file[0], decode(file[1], side)), files):
                if pixels is None:
                    self.skipped += 1
                    continue
                self.names.append(name)
                pieces.append(torch.from_numpy(pixels.reshape(-1, 3).copy()))
                sizes.append(pixels.shape[:2])
        if not pieces:
            raise SystemExit(f"no readable pictures in {', '.join(map(str, sources))}")
        self.pixels = torch.cat(pieces).to(device)
        self.sizes = torch.tensor(sizes, device=device)
        self.starts = torch.cat([self.sizes.new_zeros(1), self.sizes.prod(1).cumsum(0)[:-1]])

    def __len__(self) -> int:
        return len(self.names)

    def random_crops(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, side, side) float32 in [0, 1]: random pictures, positions and flips."""
        device = self.pixels.device
        which = torch.randint(len(self), (count,), generator=generator, device=device)
        spare = self.sizes[which] - self.side
        corner = (torch.rand(count, 2, generator=generator, device=device) * (spare + 1)).long()
        flips = torch.rand(count, generator=generator, device=device) < 0.5
        return self._crops(which, corner, flips)

    def centre_crops(self, which: Tensor) -> Tensor:
        """(len(which), 3, side, side) float32 in [0, 1]: the middle of the pictures asked for."""
        which = which.to(self.pixels.device)
        return self._crops(which, (self.sizes[which] - self.side) // 2, torch.zeros_like(which, dtype=torch.bool))

    def _crops(self, which: Tensor, corner: Tensor, flips: Tensor) -> Tensor:
        steps = torch.arange(self.side, device=self.pixels.device)
        rows = corner[:, :1] + steps
        columns = corner[:, 1:] + torch.where(flips[:, None], steps.flip(0), steps)
        index = (self.starts[which, None] + rows * self.sizes[which, 1:])[:, :, None] + columns[:, None, :]
        return self.pixels[index].permute(0, 3, 1, 2).float().div_(255)
