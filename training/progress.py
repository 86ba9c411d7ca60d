"""Progress of long phases on stderr: on a terminal in one line that is rewritten, in a log in a line now and then.

Only the first of several ranks prints. Counting costs a look at the clock; a line is composed, and the device waited
for, only when it is due.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from . import parallel

TERMINAL = 1.0  # seconds between lines on a terminal
LOG = 10.0  # and in a log, where
FIRST = 4.0  # the first one comes after so many: shorter phases print nothing
SOON = 5.0  # seconds after which the length of a run is forecast, if its updates take that long
FEW = 64  # updates; in fewer a run learns next to nothing
MEASURED = 4  # updates, the first one included, that a forecast is made from, unless they take long
SMALL = 4  # pictures; smaller batches are never advised

_shown = False  # whether there is a line on the terminal that is to be rewritten


def clear() -> None:
    """Wipe the line that is rewritten, if there is one: something else is about to be printed."""
    global _shown
    if _shown:
        _shown = False
        _write("\r\x1b[K")


def message(line: str) -> None:
    """Print a line that stays."""
    if parallel.rank() == 0:
        clear()
        _write(f"{line}\n")


Self = TypeVar("Self", bound="Line")


class Line:
    """A phase that shows its progress. As a context manager it wipes its line at the end, whatever happens."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.shown = parallel.rank() == 0 and sys.stderr is not None
        self.terminal = self.shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.due = self.began + (TERMINAL if self.terminal else FIRST) if self.shown else math.inf

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        clear()

    def show(self, line: str, now: float) -> None:
        """Write a line; the next one is due when it should be."""
        global _shown
        if self.terminal:
            _write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            _shown = True
        else:
            message(line)
        self.due = now + (TERMINAL if self.terminal else LOG)


class Progress(Line):
    """A phase of which so much is done, by count.

    Args:
        phase: What is being done.
        total: How many there are to do; None if unknown.
        unit: What is counted, in the plural.
    """

    def __init__(self, phase: str, total: int | None = None, unit: str = "pictures") -> None:
        super().__init__()
        self.phase, self.total, self.unit, self.done = phase, total, unit, 0

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if now < self.due:
            return
        rate = max(self.done, 1) / (now - self.began)
        of = "" if self.total is None else f" of {self.total:,}"
        left = "" if self.total is None else f", {clock((self.total - self.done) / rate)} left"
        self.show(f"{self.phase}: {self.done:,}{of} {self.unit}, {rate:.3g}/s{left}", now)


def batches(phase: str, count: int, size: int, unit: str = "pictures") -> Iterator[Tensor]:
    """(size,) int64 numbers, the next of ``count`` each time, for a phase that takes so many at once."""
    with Progress(phase, count, unit) as shown:
        for which in torch.arange(count).split(size):
            yield which
            shown.add(len(which))


class Mark(NamedTuple):
    """A moment of a run: updates made, share of the budget used up, seconds by the clock."""

    step: int
    share: float
    time: float


class Updates(Line):
    """The updates of a training run, with a forecast after the first ones.

    Args:
        name: The stage's.
        batch: Pictures an update, over all ranks.
        steps: Updates that the run is limited to, if it is.
    """

    def __init__(self, name: str, batch: int, steps: int | None = None) -> None:
        super().__init__()
        self.name, self.batch, self.steps = name, batch, steps
        self.marks: list[Mark] = []  # where the run began, and after its first update, which is slower than others
        self.forecasted = False

    def at(self, step: int, share: float, loss: Tensor | None = None) -> None:
        """So many updates were made, and this share of the budget is used up, 0 to 1."""
        now = time.monotonic()
        if len(self.marks) < 2:
            self.marks.append(Mark(step, share, now))
        made = step - self.marks[0].step
        if not self.forecasted and made and (made >= MEASURED or now > self.began + SOON):
            self.forecasted = True
            if line := self.forecast(Mark(step, share, now)):
                message(f"{self.name}: {line}")
        if now < self.due or not made:
            return
        since = self.since(step)
        pace = (step - since.step) / (now - since.time)
        left = (now - since.time) * (1 - share) / max(share - since.share, 1e-9)
        line = f"{self.name}: step {step:,}, {share:.0%}, {clock(left)} left"
        line += f", loss {loss.item():.4g}" if loss is not None else ""
        self.show(f"{line}, {pace:.3g} steps/s, {pace * self.batch:.3g} pictures/s", now)

    def since(self, step: int) -> Mark:
        """What to measure the pace from."""
        return self.marks[-1] if step > self.marks[-1].step else self.marks[0]

    def forecast(self, now: Mark) -> str:
        """How many updates the budget allows or, if it is of updates, how long they take, at the pace so far."""
        begin, since = self.marks[0], self.since(now.step)
        if now.share <= since.share:
            return ""
        more = (1 - since.share) / (now.share - since.share)
        span = words(since.time - begin.time + (now.time - since.time) * more)
        if self.steps and now.share == now.step / self.steps:
            return f"{self.steps - begin.step:,} steps at batch {self.batch} take about {span}"
        fit = since.step - begin.step + round((now.step - since.step) * more)
        line = f"{fit:,} {'step fits' if fit == 1 else 'steps fit'} in {span} at batch {self.batch}"
        return line if begin.step + fit >= FEW else f"{line}; {self.advice(fit)}"

    def advice(self, fit: int) -> str:
        """What to do if so few updates fit: the largest power of two, times the ranks, of which there are enough."""
        ranks = parallel.count()
        wanted = ranks * 2 ** int(math.log2(max(self.batch * fit / FEW / ranks, 1)))
        wanted = max(wanted, SMALL, ranks)
        return f"try --batch {wanted}" if wanted < self.batch else "give it more time"

    def close(self, step: int, loss: Tensor | None = None) -> None:
        """The last update was made."""
        clear()
        made = step - self.marks[0].step if self.marks else 0
        if made:
            last = f", loss {loss.item():.4g}" if loss is not None else ""
            message(f"{self.name}: {made:,} step{'s' * (made > 1)} in {words(time.monotonic() - self.began)}{last}")


def clock(seconds: float) -> str:
    """A length of time as 0:42 or 1:02:03."""
    minutes, seconds = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def words(seconds: float) -> str:
    """A length of time as 42 seconds, 2.5 minutes or 11 hours."""
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            count = seconds / unit
            return f"{count:.0f} {name}" if count >= 9.95 else f"{count:.1f} {name}".replace(".0 ", " ")
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"


def _write(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # a closed terminal ends no run
            sys.stderr.write(text)
            sys.stderr.flush()
