"""Random views of pictures: squares that are zoomed, stretched and tinted, sampled by one gather."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError


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

    ``torch.compile`` makes one kernel of it: the four neighbours of every position are gathered where they are mixed.
    Where a box is as large as what becomes of it and begins at a whole pixel, the picture's own pixels come out.

    Args:
        pixels: (P, 3) uint8, pictures end to end.
        starts: (n,) int64, where in ``pixels`` each box's picture starts.
        sizes: (n, 2) int64, height and width of each box's picture.
    """
    centres = torch.arange(side, device=pixels.device) + 0.5
    positions = boxes.corners[:, :, None] + centres * (boxes.sizes / side)[:, :, None] - 0.5  # (n, 2, side)
    last = sizes[:, :, None] - 1
    positions = torch.minimum(positions.clamp(min=0), last)
    rows, columns = positions.unbind(1)
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
