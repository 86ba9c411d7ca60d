"""Dropout for several processes: every rank draws the masks of the whole batch and takes the rows that are its own.

As all ranks seed a step alike, N of them drop what one process would. Drawing is cheap, the more so under
``torch.compile``, which makes no number that is not asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import parallel


class Dropout(nn.Module):
    """In training, a ``share`` of activations, 0 to 1, becomes 0 and all others grow by 1 / (1 - share)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.kept, self.rank, self.ranks = 1 - share, parallel.rank(), parallel.count()

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...), the rows of this rank out of B * ranks -> the same shape."""
        if not self.training:
            return x
        rows = len(x)
        whole = torch.empty(rows * self.ranks, *x.shape[1:], dtype=torch.bool, device=x.device).bernoulli_(self.kept)
        mine = whole[self.rank * rows : (self.rank + 1) * rows]
        return x * mine * (1 / self.kept if self.kept else 0.0)
