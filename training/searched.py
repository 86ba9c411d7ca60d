"""Crops with tokens found by search, as files have them: what a decoder is tuned on last.

A search decodes a picture several times, so it is done once for a fixed number of crops, which are kept with their
tokens; training then neither encodes nor searches.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from titokcodec.models.tokenizer import TiTok
from titokcodec.search import default_steps, search

from .batches import Batches, InMemory
from .progress import Progress
from .streaming import Source


class SearchedCrops(Batches):
    """Batches of crops and their tokens, from a set of ``count`` that is searched now.

    Args:
        source: Where crops come from, and how many a batch has.
        model: Its encoder gives the first tokens and its decoder compares; on the device of ``source``.
        count: Crops of all ranks together; rounded up to whole batches.
        autocast: Context to decode in.
        until: When to stop with what was searched, in seconds since the epoch; None: at ``count``.
        order: As for ``Batches``, from the size of a batch on.

    Attributes:
        pictures: The number of crops held by this rank.
        skipped, damaged: Those of ``source``.
    """

    def __init__(
        self,
        source: Source,
        model: TiTok,
        count: int,
        autocast: AbstractContextManager,
        until: float | None,
        *order: int,
    ) -> None:
        parts = []
        training, steps = model.training, default_steps(model.config, 1)
        model.eval()
        batches = -(-count // order[0])
        with autocast, Progress("searching tokens", batches * order[0], "crops") as shown:
            for number in range(batches):
                crops = source.batch(
                    -1 - number if isinstance(source, InMemory) else number
                )  # unlike those of any step
                tokens = search(model, crops, model.config.tokens, steps)
                parts.append((crops.mul(255).round_().byte(), tokens.to(torch.int32)))
                shown.add(order[0])
                if until is not None and time.time() > until:
                    break
        model.train(training)
        self.crops, self.tokens = (torch.cat(part) for part in zip(*parts, strict=True))
        super().__init__(self.crops.device, *order)
        self.pictures, self.skipped, self.damaged = len(self.crops), source.skipped, source.damaged
        source.close()

    def batch(self, step: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """(n, 3, side, side) float32 in [0, 1] and (n, K) int64, n being this rank's share; ``augment`` does
        nothing, as tokens stand for the crops as they are."""
        share = self.mine.stop - self.mine.start
        which = torch.randint(len(self.crops), (share,), generator=self.rng(step), device=self.crops.device)
        return self.crops[which].float().div_(255), self.tokens[which].long()
