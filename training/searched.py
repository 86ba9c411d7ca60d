"""Pictures with tokens that were searched for them, as files will have them: what a decoder is tuned on last.

A search takes several drawings of a picture, so it is done once for a fixed number of crops, which are kept with their
tokens; training then neither encodes nor searches.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from titokcodec.models.tokenizer import TiTok
from titokcodec.search import default_steps, search

from .data import Held, Repeatable
from .progress import Progress
from .streaming import Stream


class Searched(Repeatable):
    """Batches of crops and their tokens, from a set of ``count`` that is searched now.

    Args:
        source: Where crops come from, and how many a batch has.
        model: Whose encoder guesses the tokens and whose decoder judges them, on the device of ``source``.
        count: Crops of all ranks together; rounded up to whole batches.
        autocast: Context to draw in.
        until: When to be content with what was searched, in seconds since the epoch; None: never.
        order: As for ``Repeatable``, from the size of a batch on.

    Attributes:
        pictures: The number of crops held by this rank. skipped, damaged: those of ``source``.
    """

    def __init__(
        self,
        source: Held | Stream,
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
                crops = source.batch(-1 - number if isinstance(source, Held) else number)  # unlike those of any step
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
        """(n, 3, side, side) float32 in [0, 1] and (n, K) int64, n being this rank's share; ``augment`` is for others,
        as tokens are of the crops as these are."""
        share = self.mine.stop - self.mine.start
        which = torch.randint(len(self.crops), (share,), generator=self.chance(step), device=self.crops.device)
        return self.crops[which].float().div_(255), self.tokens[which].long()
