"""A run's clock, and the learning rate that is fitted to it."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from titokcodec.cli.script import UsageError

from .hyper import Schedule


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
        check_budget(minutes, steps)
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


def check_budget(minutes: float | None, steps: float | None) -> None:
    """Raise ``UsageError`` for a budget of nothing."""
    for value, unit in ((minutes, "minutes"), (steps, "steps")):
        if value is not None and not value > 0:
            raise UsageError(f"the budget is {value} {unit}: give more than 0")


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.01) -> float:
    """Learning-rate factor: a linear rise from 0 over the ``warmup`` share of the run, then half a cosine to
    ``floor``."""
    if progress < warmup:
        return progress / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def flat(progress: float, share: float, floor: float = 0.01) -> float:
    """Learning-rate factor: 1 for a ``share`` of the run, then down to ``floor`` in a straight line."""
    return 1.0 if progress <= share else floor + (1 - floor) * (1 - progress) / (1 - share)


def schedule(progress: float, step: int, hyper: Schedule) -> float:
    """Learning-rate factor of a step, by ``hyper``: a rise, then a plateau and a line or half a cosine.

    A rise over a share of the run begins at 0, as published. One of so many steps begins at the first of them, so that
    short runs lose no update; it lets optimizers find their moments, which takes no longer in a longer run. A run of
    few steps has a tenth for it.
    """
    if not hyper.warmup_steps and progress < hyper.warmup:
        return progress / hyper.warmup
    warmup = 0.0 if hyper.warmup_steps else hyper.warmup
    fall = flat(progress, hyper.flat, hyper.floor) if hyper.flat else cosine(progress, warmup, hyper.floor)
    if not hyper.warmup_steps:
        return fall
    rise = max((step + 1) / hyper.warmup_steps, progress / 0.1)
    return min(max(rise, hyper.floor), fall)


def begun_later(start: float, hyper: Schedule) -> Schedule:
    """The schedule of what begins after the share ``start`` of the run, with as long a rise: to be used with the share
    of what is then left of the run."""
    return replace(hyper, warmup=min(hyper.warmup / (1 - start), 1.0), warmup_steps=0) if start < 1 else hyper
