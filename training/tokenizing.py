"""Pictures to tokens while they are read: of a picture nothing is kept but its tokens, its key and its class.

So a set may be of any size, ImageNet's for example. Every rank reads and tokenizes its share of the pictures, one in so
many as there are ranks; then all have the tokens of all of them, in the order of the pictures. They are kept in a file,
with all that they depend on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from .batches import mix
from .data import decoded
from .progress import Progress
from .reading import ClassFiles, Rejects, find, is_shard, key_of, read_files, resized

Encode = Callable[[Tensor], Tensor]
"""(B, 3, side, side) pixels in [0, 1] -> (B, K) int64 tokens."""
T = TypeVar("T")
LARGEST = 4  # times the side of crops: what pictures that are zoomed into are reduced to if they have more
BATCH = 32  # crops that are encoded at once, or the variants of one picture


class Cut(NamedTuple):
    """Which crops of a picture are tokenized.

    Attributes:
        side: Pixels of their sides.
        variants: How many. The first is the middle of the picture, and every other one is mirrored.
        shift: How far the others lie from the middle at most, 0 to 1, as a share of the way to the picture's edges.
        seed: What these places depend on, besides the number of the picture.
        zoom: The others are of squares with sides from 1 - zoom to 1 of the picture's shorter side, taken from the
            picture at the resolution that it came with.
    """

    side: int
    variants: int = 1
    shift: float = 0.0
    seed: int = 0
    zoom: float = 0.0

    @property
    def largest(self) -> int | None:
        """Pixels on the shorter side that pictures are to have at most; None if all are to have ``side``."""
        return LARGEST * self.side if self.zoom else None

    def crops(self, pixels: np.ndarray, number: int) -> np.ndarray:
        """(variants, side, side, 3) of an (h, w, 3) picture, the one of this number in its set.

        Its shorter side has ``side`` pixels or, with a zoom, any number from there up.
        """
        rng = random.Random(mix(self.seed, number))
        whole = resized(pixels, self.side) if self.zoom else pixels
        found = []
        for variant in range(self.variants):
            zoomed = variant > 0 and self.zoom > 0
            crop = self.square(pixels if zoomed else whole, rng, variant > 0)
            found.append(crop[:, ::-1] if variant % 2 else crop)
        return np.stack(found)

    def square(self, pixels: np.ndarray, rng: random.Random, anywhere: bool) -> np.ndarray:
        """(side, side, 3): a square from the middle of a picture or from ``anywhere``, zoomed then."""
        short = min(pixels.shape[:2])
        size = max(round(short * (1 - rng.random() * self.zoom)), 1) if anywhere and self.zoom else short
        room = [length - size for length in pixels.shape[:2]]
        middle = [round(spare / 2) for spare in room]  # ties to even, as torchvision's CenterCrop
        places = [rng.randint(0, spare) for spare in room] if anywhere else middle
        top, left = (round(m + self.shift * (place - m)) for m, place in zip(middle, places, strict=True))
        part = pixels[top : top + size, left : left + size]
        return part if size == self.side else resized(part, self.side)


@dataclass
class TokenizedPictures:
    """What is left of pictures.

    Attributes:
        tokens: (V, n, K) int32, V variants of each picture.
        numbers: Those of the pictures among all of their set, readable or not.
        names, keys, noted, skipped, damaged: See ``Pictures``.
    """

    tokens: Tensor
    numbers: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    noted: list[str | None] = field(default_factory=list)
    skipped: int = 0
    damaged: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


def tokenize(
    encode: Encode,
    sources: list[Path],
    cut: Cut,
    device: str | torch.device,
    limit: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> TokenizedPictures:
    """The tokens of a rank's share of the pictures, which may be none.

    Args:
        encode: The tokenizer.
        sources: Tar shards, pictures, and folders of both.
        limit: Read the first pictures only.
        device: Where the tokenizer is.

    Raises:
        TitokError: a source does not exist.
    """
    rejects = Rejects()
    folders = [source for source in sources if os.path.isdir(source)]
    beside, found, places = ClassFiles(folders), TokenizedPictures(torch.empty(0)), []
    paths = find(sources, rejects.add if rank == 0 else lambda *event: None)
    share = None if limit is None else len(range(rank, limit, ranks))
    files = islice(read_files(paths, rejects.add, rank, ranks, beside.add), share)
    total = None if any(map(is_shard, paths)) else min(len(paths), limit or len(paths))
    tokens = bytearray()  # a million small tensors would lie between the large ones of batches, and keep them apart
    waiting: list[np.ndarray] = []
    with Progress("tokenizing", total) as shown:
        for turn, (where, name, pixels) in enumerate(decoded(files, cut.side, cut.largest)):
            number = rank + turn * ranks
            shown.add(ranks if total is None else min(ranks, total - turn * ranks))
            if pixels is None:
                rejects.add(where, name, "cannot be read as a picture")
                continue
            found.numbers.append(number)
            found.names.append(name)
            found.keys.append(key_of(where, name, folders))
            places.append(where)
            waiting.append(cut.crops(pixels, number))
            if len(waiting) * cut.variants >= BATCH:
                tokens += _encoded(encode, waiting, device)
                waiting.clear()
        if waiting:
            tokens += _encoded(encode, waiting, device)
    found.noted = [beside.of(where, key) for where, key in zip(places, found.keys, strict=True)]
    if tokens:
        found.tokens = torch.frombuffer(tokens, dtype=torch.int32).view(len(found), cut.variants, -1).transpose(0, 1)
    found.skipped, found.damaged = rejects.skipped, rejects.damaged
    return found


@torch.no_grad()
def _encoded(encode: Encode, pictures: list[np.ndarray], device: str | torch.device) -> bytes:
    """The int32 tokens of pictures' crops, one picture after another."""
    crops = torch.from_numpy(np.concatenate(pictures)).to(device)
    tokens = [encode(part.permute(0, 3, 1, 2).float().div_(255)) for part in crops.split(BATCH)]
    return torch.cat(tokens).to(torch.int32).cpu().numpy().tobytes()


def merged(parts: list[TokenizedPictures], sources: list[Path]) -> TokenizedPictures:
    """The shares of all ranks as one, in the order of the pictures.

    Raises:
        TitokError: there is not one picture.
    """
    rejects = Rejects()
    rejects.skipped = sum(part.skipped for part in parts)
    rejects.damaged = list(dict.fromkeys(line for part in parts for line in part.damaged))  # all ranks read all shards
    numbers = [number for part in parts for number in part.numbers]
    if not numbers:
        raise rejects.nothing_in(sources)
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    columns: tuple[list[list[Any]], ...] = (
        [part.names for part in parts],
        [part.keys for part in parts],
        [part.noted for part in parts],
    )
    names, keys, noted = (_in_order(column, order) for column in columns)
    tokens = torch.cat([part.tokens for part in parts if part.keys], dim=1)[:, order]
    return TokenizedPictures(tokens, sorted(numbers), names, keys, noted, rejects.skipped, rejects.damaged)


def _in_order(lists: Sequence[list[T]], order: list[int]) -> list[T]:
    whole = list(chain(*lists))
    return [whole[place] for place in order]
