"""What a generator learns to predict, and how well it does: masked tokens, coarse to fine, or each in its turn.

MaskGIT (Chang et al. 2022, section 3.1) masks a share of the tokens, drawn from its schedule, and predicts them from
the others. Where tokens are nested they come in parts, as they are sampled: the first prefix by itself, then what the
next prefix adds to it, given those before. Every update trains one part, so that the first and most important tokens
are learned at a fraction of the cost of a pass over all.

An autoregressive model predicts each token from those before it, all of them in one pass. Prefixes need no training of
their own, but the first tokens deserve most of it here too: an update sees one of the prefixes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.generator_config import GeneratorConfig

from . import parallel, progress
from .hyper import Masking
from .masking import draw_masks, masked_loss
from .token_sets import TokenSet

MASKS = 4  # masks that each held-out picture is scored under; fewer for parts that cost more
ROWS = 64  # pictures that are scored at once
GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of it lie evenly between whole numbers

Autocast = Callable[[], AbstractContextManager]


class Part(NamedTuple):
    """Tokens that are sampled together: those from ``first`` to ``end``, given those before."""

    first: int
    end: int


def parts_of(config: GeneratorConfig) -> tuple[Part, ...]:
    """The parts that a generator's tokens come in."""
    prefixes = config.prefixes or (config.tokens,)
    return tuple(map(Part, (0, *prefixes), prefixes))


class Predictor(nn.Module):
    """A generator as training asks it: for the logits of some positions only, where it can tell these apart."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, labels: Tensor, first: int = 0) -> Tensor:
        """(B, k) tokens with masks, (B,) labels, -1 for none -> (B, k - first, N) logits of the positions from
        ``first`` on."""
        if not hasattr(self.model, "hidden"):
            return self.model(tokens, labels)[:, first:]
        return self.model.logits_of(self.model.hidden(tokens, labels)[:, first:], first)


class Objective(ABC):
    """A loss for batches of tokens and a score for sets of them.

    Args:
        config: The generator's.
        hyper: Smoothing, dropped labels and so on.
        autocast: The context of passes.
    """

    def __init__(self, config: GeneratorConfig, hyper: Masking, autocast: Autocast) -> None:
        self.config, self.hyper, self.autocast = config, hyper, autocast
        self.parts = parts_of(config)
        costs = torch.tensor([float(part.end) for part in self.parts], dtype=torch.float64)
        self.shares = (costs**-hyper.part_balance / (costs**-hyper.part_balance).sum()).tolist()

    @property
    def turns(self) -> int:
        """Updates in a row that have every part among them, wherever they begin."""
        return math.ceil((1 + GOLDEN) ** 2 / min(self.shares)) if len(self.parts) > 1 else 1

    def part_at(self, step: int) -> Part:
        """The part that an update trains. Parts take turns as evenly as their shares allow."""
        place = step * GOLDEN % 1
        for part, share in zip(self.parts, self.shares, strict=True):
            place -= share
            if place < 0:
                return part
        return self.parts[-1]

    @abstractmethod
    def loss(
        self, forward: nn.Module, target: Tensor, labels: Tensor, step: int, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and what else is worth a log.

        Args:
            forward: The ``Predictor``.
            target: (B, K) int64 tokens, this rank's rows of the batch.
            labels: (B,) int64 classes, -1 for none.
            step: Number of the update.
            rng: Drawn from alike by all ranks.
        """

    @abstractmethod
    def counts(self, predict: Predictor, val: TokenSet) -> list[tuple[float, int, int]]:
        """For each part: sum of the cross entropies, tokens predicted right, and tokens predicted."""

    def score(self, model: Any, val: TokenSet) -> dict[str, float]:
        """``entropy``, the mean cross entropy in nats of a held-out token, ``top1``, and ``entropy/k`` of each part.

        Of masked tokens it is that of the schedule's masks, each given what is not masked, so less than what sampling
        them all would have: it compares masked models with one another. Of an autoregressive model it is the exact
        log-likelihood of the pictures' tokens. The two are not the same quantity.
        """
        with torch.no_grad():
            found = self.counts(Predictor(model), val)
        if len(found) == 1:
            (total, right, count) = found[0]
            return {"entropy": total / count, "top1": right / count}
        shares = [(end - first) / self.config.tokens for first, end in self.parts]
        entropy = sum(share * total / count for share, (total, _, count) in zip(shares, found, strict=True))
        top1 = sum(share * right / count for share, (_, right, count) in zip(shares, found, strict=True))
        each = {f"entropy/{part.end}": total / count for part, (total, _, count) in zip(self.parts, found, strict=True)}
        return {**each, "entropy": entropy, "top1": top1}

    def shown(self, end: int, device: torch.device) -> dict[str, Tensor]:
        """What the log says of an update's part, where there are several."""
        return {"tokens": torch.tensor(float(end), device=device)} if len(self.parts) > 1 else {}

    def share_of(self, rows: int) -> tuple[int, slice]:
        """Rows of the whole batch, of which a rank has so many, and where its own are."""
        return rows * parallel.count(), slice(parallel.rank() * rows, (parallel.rank() + 1) * rows)


class MaskedTokens(Objective):
    """Masked tokens of one part, given what is not masked of it and what comes before.

    Args:
        schedule: What masks are drawn by, a name of ``schedules.SCHEDULES``.
    """

    def __init__(self, config: GeneratorConfig, hyper: Masking, autocast: Autocast, schedule: str) -> None:
        super().__init__(config, hyper, autocast)
        self.schedule = schedule

    def loss(
        self, forward: nn.Module, target: Tensor, labels: Tensor, step: int, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hyper, device = self.hyper, target.device
        (first, end), (whole, mine) = self.part_at(step), self.share_of(len(target))
        masks = draw_masks((whole, end - first), self.schedule, rng)
        dropped = (torch.rand(whole, generator=rng, device=device) < hyper.label_drop)[mine]
        masked = masks[mine]
        hidden = masked
        if first:  # what is given while sampling may be wrong: no token of it should count for everything
            lost = torch.rand((whole, first), generator=rng, device=device) < hyper.given_drop
            hidden = torch.cat([lost[mine], masked], dim=1)
        shown = target[:, :end].masked_fill(hidden, self.config.mask_id)
        with self.autocast():
            logits = forward(shown, labels.masked_fill(dropped, -1), first)
        wanted = target[:, first:end]
        loss = masked_loss(logits.float(), wanted, masks, hyper.smoothing, hyper.unmasked, mine)
        with torch.no_grad():
            right = ((logits.argmax(-1) == wanted) & masked).sum() / masked.sum()
        return loss, {"top1": right, **self.shown(end, device)}

    def counts(self, predict: Predictor, val: TokenSet) -> list[tuple[float, int, int]]:
        """Under the same masks at every score, fewer for longer prefixes: all parts cost about the same."""
        rng = torch.Generator(val.tokens.device).manual_seed(0)
        masks = [max(MASKS * self.parts[0].end // part.end, 1) for part in self.parts]
        with progress.Progress("scoring", sum(masks) * len(val.labels), "masked pictures") as shown:
            return [
                self.count(predict, val, part, count, rng, shown.add)
                for part, count in zip(self.parts, masks, strict=True)
            ]

    def count(
        self,
        predict: Predictor,
        val: TokenSet,
        part: Part,
        masks: int,
        rng: torch.Generator,
        done: Callable[[int], None],
    ) -> tuple[float, int, int]:
        """What ``counts`` gives, of one part, under so many masks of each picture."""
        first, end = part
        target, labels = val.tokens[0, :, :end].long(), val.labels
        total, right, count = 0.0, 0, 0
        for _ in range(masks):
            drawn = draw_masks((len(target), end - first), self.schedule, rng)
            for rows in torch.arange(len(target), device=target.device).split(ROWS):
                masked = drawn[rows]
                hidden = F.pad(masked, (first, 0))
                with self.autocast():
                    logits = predict(target[rows].masked_fill(hidden, self.config.mask_id), labels[rows], first)
                logits, wanted = logits.float()[masked], target[rows][:, first:][masked]
                total += F.cross_entropy(logits, wanted, reduction="sum").item()
                right += (logits.argmax(-1) == wanted).sum().item()
                count += len(wanted)
                done(len(rows))
        return total, right, count


class NextToken(Objective):
    """Every token of a prefix, given those before it."""

    def loss(
        self, forward: nn.Module, target: Tensor, labels: Tensor, step: int, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        end, (whole, mine) = self.part_at(step).end, self.share_of(len(target))
        target = target[:, :end]
        dropped = (torch.rand(whole, generator=rng, device=target.device) < self.hyper.label_drop)[mine]
        with self.autocast():
            logits = forward(target, labels.masked_fill(dropped, -1))
        flat = logits.float().flatten(0, 1)
        loss = F.cross_entropy(flat, target.flatten(), label_smoothing=self.hyper.smoothing)
        with torch.no_grad():
            right = (logits.argmax(-1) == target).float().mean()
        return loss, {"top1": right, **self.shown(end, target.device)}

    def counts(self, predict: Predictor, val: TokenSet) -> list[tuple[float, int, int]]:
        target = val.tokens[0].long()
        found = torch.zeros(2, self.config.tokens, dtype=torch.float64)
        for rows in progress.batches("scoring", len(target), ROWS):
            rows = rows.to(target.device)
            with self.autocast():
                logits = predict(target[rows], val.labels[rows]).float()
            each = F.cross_entropy(logits.transpose(1, 2), target[rows], reduction="none")
            found += torch.stack([each.sum(0), (logits.argmax(-1) == target[rows]).sum(0)]).cpu()
        sums = [found[:, first:end].sum(1).tolist() for first, end in self.parts]
        return [
            (total, int(right), len(target) * (end - first))
            for (total, right), (first, end) in zip(sums, self.parts, strict=True)
        ]


def objective_of(
    config: GeneratorConfig, hyper: Masking, autocast: Autocast, schedule: str
) -> MaskedTokens | NextToken:
    """What a generator of this architecture learns."""
    if config.causal:
        return NextToken(config, hyper, autocast)
    return MaskedTokens(config, hyper, autocast, schedule)
