"""What every stage shares: a schedule fitted to the clock, optimizers, EMA, logs."""

from __future__ import annotations

import copy
import json
import math
import re
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from titokcodec.cli.script import UsageError

from . import progress
from .checkpoint import take
from .hyper import Hyper
from .muon import Muon

LOG, BOARD = "log.jsonl", "tensorboard"  # in the folder of a run

# Of tokenizers, of generators, and of the 2D tokenizer.
_BLOCKS = re.compile(r"(^|\.)(transformer|layer|in_blocks|mid_block|out_blocks|block|mid|upsample_conv)\.")


class Clock:
    """Progress through a budget of minutes or of steps or until a deadline, whichever ends first, counting what came
    before a resume.

    Args:
        minutes: The whole budget of time, if there is one.
        steps: The whole number of updates, if there is one.
        spent: Seconds already used by earlier runs.
        deadline: When the time is over, in seconds since the epoch, if there is such a moment.
    """

    def __init__(
        self, minutes: float | None, steps: int | None = None, spent: float = 0.0, deadline: float | None = None
    ) -> None:
        for value, unit in ((minutes, "minutes"), (steps, "steps")):
            if value is not None and not value > 0:
                raise UsageError(f"the budget is {value} {unit}: give more than 0")
        self.minutes, self.steps, self.deadline = minutes, steps, deadline
        self.go(spent)

    def go(self, spent: float | None = None) -> None:
        """Count from now on; what was spent before is kept unless given. Until a deadline there is what was spent and
        what is left."""
        self.before = spent if spent is not None else self.before
        self.began = time.monotonic() - self.before
        self.seconds = self.minutes * 60 if self.minutes else math.inf
        if self.deadline is not None:
            self.seconds = min(self.seconds, self.before + self.deadline - time.time())

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return time.monotonic() - self.began

    def progress(self, step: int) -> float:
        """Share of the budget used after ``step`` updates, 0 to 1."""
        by_time = self.spent / self.seconds if self.seconds > 0 else 1.0
        by_steps = step / self.steps if self.steps else 0.0
        return min(max(by_time, by_steps), 1.0)


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Learning-rate factor: a linear rise over the ``warmup`` share of the run, then half a cosine to ``floor``."""
    if progress < warmup:
        return max(progress / warmup, floor)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def flat(progress: float, share: float, floor: float = 0.01) -> float:
    """Learning-rate factor: 1 for a ``share`` of the run, then down to ``floor`` in a straight line."""
    return 1.0 if progress <= share else floor + (1 - floor) * (1 - progress) / (1 - share)


def schedule(progress: float, step: int, hyper: Hyper) -> float:
    """Learning-rate factor of a step, as ``hyper`` says: a rise, then a plateau and a line or half a cosine.

    A rise of so many steps lets optimizers find their moments, which takes no longer in a longer run; a run of few
    steps has a tenth for it.
    """
    warmup, floor = 0.0 if hyper.warmup_steps else hyper.warmup, hyper.floor
    if hyper.warmup_steps:
        rise = max((step + 1) / hyper.warmup_steps, progress / 0.1)
    else:
        rise = progress / warmup if warmup else 1.0
    fall = flat(progress, hyper.flat, floor) if hyper.flat else cosine(max(progress, warmup), warmup, floor)
    return min(max(rise, floor), fall)


class Optimizers:
    """Muon for the blocks' matrices and kernels, AdamW for the rest; no decay on vectors, embeddings, tokens.

    Muon is worth one to two decibels in short runs with a 2D start.
    """

    def __init__(self, model: nn.Module, hyper: Hyper) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if hyper.muon_rate and _BLOCKS.search(name) and p.ndim > 1]
        chosen = {id(p) for p in matrices}
        # Linear paths are set in closed form, so they have little left to learn.
        linear = [p for name, p in named if ".linear." in name and id(p) not in chosen]
        chosen |= {id(p) for p in linear}
        rest = [(name, p) for name, p in named if id(p) not in chosen]
        plain = [p for name, p in rest if p.ndim < 2 or "embed" in name or "token" in name]
        decayed = [p for name, p in rest if not (p.ndim < 2 or "embed" in name or "token" in name)]
        groups = [{"params": decayed, "weight_decay": hyper.decay}, {"params": plain, "weight_decay": 0.0}]
        groups += [{"params": linear, "weight_decay": 0.0, "lr": hyper.linear_rate}] if linear else []
        betas = (hyper.beta1, hyper.beta2)
        fused = any(p.is_cuda for _, p in rest) or None
        self.all: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=hyper.rate, betas=betas, fused=fused)]
        if matrices:
            self.all.append(Muon(matrices, lr=hyper.muon_rate, weight_decay=hyper.decay))
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def step(self, factor: float) -> None:
        """One update at ``factor`` times the peak learning rates; gradients are cleared."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        """Take moments from a checkpoint; peak rates stay those that this run was given."""
        for optimizer, state in zip(self.all, states, strict=True):
            peaks = [group["peak"] for group in optimizer.param_groups]
            take(optimizer, state)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak


class EMA:
    """A slowly following copy of a model, the one that is evaluated and shipped."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow ``model``; early steps follow faster: min(decay, (1 + t) / (10 + t))."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(mine, theirs, weight)


class Log:
    """Metrics as JSON lines, to TensorBoard where it is installed, and in short to the terminal; nowhere if ``quiet``,
    as all ranks but the first are. A run from step 0 begins a new log; one that goes on from later adds to its own."""

    def __init__(self, folder: Path, step: int = 0, quiet: bool = False) -> None:
        self.file = self.board = None
        if quiet:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / LOG).open("a" if step else "w", buffering=1)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / BOARD), purge_step=step)
        except ImportError:
            pass

    def write(self, step: int, **values: float | Tensor) -> None:
        """Record one row of named numbers."""
        if not self.file:
            return
        row = {name: float(value.detach() if isinstance(value, Tensor) else value) for name, value in values.items()}
        self.file.write(json.dumps({"step": step, **{name: round(value, 5) for name, value in row.items()}}) + "\n")
        self.say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if self.board:
            for name, value in row.items():
                self.board.add_scalar(name, value, step)

    def say(self, line: str) -> None:
        """Tell the terminal."""
        if self.file:
            progress.clear()
            print(line, flush=True)

    def picture(self, name: str, pixels: Tensor, step: int) -> None:
        """Show a (3, H, W) picture in [0, 1] on TensorBoard."""
        if self.board:
            self.board.add_image(name, pixels, step)

    def close(self) -> None:
        """Write out what is still held back."""
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()
