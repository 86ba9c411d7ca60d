"""Tiles of many pictures as one stream: full batches for the network, and whole pictures out of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from titokcodec.format.layout import TILE, Plan
from titokcodec.pictures.geometry import Canvas


def rebatch(chunks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of ``size``, the last one maybe shorter; holds no more than it must."""
    held: list[np.ndarray] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        while count >= size:
            rows = np.concatenate(held) if len(held) > 1 else held[0]
            yield rows[:size]
            held, count = [rows[size:]], count - size
    if count:
        yield np.concatenate(held)


def paint(plans: list[Plan], batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Deal tiles out to one canvas after the other; yields finished (H, W, 3) uint8 pictures."""
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
