"""Tiles of many pictures as one stream: full batches for the network, and whole pictures out of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from titokcodec.format.layout import Plan
from titokcodec.format.limits import TILE
from titokcodec.pictures.geometry import Canvas


class TileChunk(NamedTuple):
    """Tiles to encode, with what is asked for each of them.

    Attributes:
        tiles: (n, 256, 256, 3) uint8.
        tokens: (n,) int64, how many tokens.
        effort: (n,) int64, steps of the search for them.
    """

    tiles: np.ndarray
    tokens: np.ndarray
    effort: np.ndarray

    @classmethod
    def alike(cls, tiles: np.ndarray, tokens: int, effort: int) -> TileChunk:
        """Tiles of which the same is asked."""
        return cls(tiles, np.full(len(tiles), tokens), np.full(len(tiles), effort))


def rebatch_chunks(chunks: Iterable[TileChunk], size: int) -> Iterator[TileChunk]:
    """The same tiles in chunks of ``size``, the last one maybe shorter."""
    return (TileChunk(*columns) for columns in _rebatch(chunks, size))


def rebatch(chunks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of ``size``, the last one maybe shorter."""
    return (rows for (rows,) in _rebatch(((chunk,) for chunk in chunks), size))


def compose(plans: list[Plan], batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Deal decoded tiles out to one canvas after the other; yields finished (H, W, 3) uint8 canvases."""
    left = np.empty((0, TILE, TILE, 3), np.uint8)
    for plan in plans:
        canvas, missing = Canvas(plan), plan.tiles
        while missing:
            if not len(left):
                left = next(batches)
            canvas.add(left[:missing])
            taken = min(missing, len(left))
            left, missing = left[taken:], missing - taken
        yield canvas.finish()


def _rebatch(chunks: Iterable[tuple[np.ndarray, ...]], size: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Columns of equal length, regrouped; holds no more than it must."""
    held: list[tuple[np.ndarray, ...]] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk[0])
        while count >= size:
            columns = _joined(held)
            yield tuple(column[:size] for column in columns)
            held, count = [tuple(column[size:] for column in columns)], count - size
    if count:
        yield _joined(held)


def _joined(held: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(map(np.concatenate, zip(*held, strict=True))) if len(held) > 1 else held[0]
