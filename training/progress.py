"""How far a long phase is, on stderr: on a terminal in one line that rewrites itself, in a log in a line now and then.

Only the first of several ranks speaks. To report costs a look at the clock; what there is to say is worked out, and
the device waited for, when a line is due.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from contextlib import suppress

from torch import Tensor

from training import parallel

TERMINAL = 1.0  # seconds between lines on a terminal
LOG = 30.0  # and in a log, where
FIRST = 10.0  # the first one comes after so many: phases that are shorter say nothing
FEW = 64  # updates; in fewer a run learns next to nothing
SMALL = 4  # pictures; nobody is advised to take smaller batches

_shown = False  # whether a line is on the terminal that is to be rewritten


def clear() -> None:
    """Wipe the line that rewrites itself, if there is one: something else is about to be printed."""
    global _shown
    if _shown:
        _shown = False
        _write("\r\x1b[K")


def say(line: str) -> None:
    """A line that stays."""
    if parallel.rank() == 0:
        clear()
        _write(f"{line}\n")


class Line:
    """A phase that shows how far it is. As a context manager it leaves a tidy terminal, whatever happens."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.speaks = parallel.rank() == 0 and sys.stderr is not None
        self.terminal = self.speaks and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.due = self.began + (TERMINAL if self.terminal else FIRST) if self.speaks else math.inf

    def __enter__(self) -> Line:
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
            say(line)
        self.due = now + (TERMINAL if self.terminal else LOG)


class Progress(Line):
    """A phase of which so much is done, by count.

    Args:
        phase: What is being done.
        total: How many there are to do; None if nobody knows.
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
        self.show(f"{self.phase}: {self.done:,}{of} {self.unit}, {rate:.3g} a second{left}", now)


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
        self.first: tuple[int, float] | None = None  # step and share that the run began with
        self.foretold = False

    def at(self, step: int, share: float, loss: Tensor | None = None) -> None:
        """So many updates were made, and this share of the budget is used up, 0 to 1."""
        self.first = self.first or (step, share)
        now = time.monotonic()
        if not self.foretold and (step >= self.first[0] + 3 or (step > self.first[0] and now > self.began + FIRST / 2)):
            self.foretold = True
            if line := self.forecast(step, share, now - self.began):
                say(f"{self.name}: {line}")
        if now < self.due or step == self.first[0]:
            return
        pace = (step - self.first[0]) / (now - self.began)
        line = f"{self.name}: step {step:,}, {share:.0%}, {pace:.3g} steps or {pace * self.batch:.3g} pictures a second"
        line += f", loss {loss.item():.4g}" if loss is not None else ""
        self.show(f"{line}, {clock(self.whole(share, now - self.began) * (1 - share))} left", now)

    def forecast(self, step: int, share: float, seconds: float) -> str:
        """How many updates the budget allows, or how long they take, judged by the ``seconds`` of those until now."""
        before, used = self.first
        if share <= used:
            return ""
        left = self.whole(share, seconds) * (1 - used)
        if self.steps and share == step / self.steps:
            return f"{self.steps - before:,} steps at batch {self.batch} take about {words(left)}"
        fit = round((step - before) * (1 - used) / (share - used))
        line = f"{fit:,} {'step fits' if fit == 1 else 'steps fit'} in {words(left)} at batch {self.batch}"
        return line if before + fit >= FEW else f"{line}; {self.advice(fit)}"

    def whole(self, share: float, seconds: float) -> float:
        """Seconds that the whole budget takes, if so many were spent since the run began on what is used by now."""
        return seconds / max(share - self.first[1], 1e-9)

    def advice(self, fit: int) -> str:
        """What to do if so few updates fit: the largest power of two, times the ranks, of which there are enough."""
        ranks = parallel.count()
        wanted = ranks * 2 ** int(math.log2(max(self.batch * fit / FEW / ranks, 1)))
        wanted = max(wanted, SMALL, ranks)
        return f"try --batch {wanted}" if wanted < self.batch else "give it more time"

    def close(self, step: int, loss: Tensor | None = None) -> None:
        """The last update was made."""
        clear()
        if self.first and step > self.first[0]:
            last = f", loss {loss.item():.4g}" if loss is not None else ""
            say(f"{self.name}: {step - self.first[0]:,} steps in {words(time.monotonic() - self.began)}{last}")


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
        with suppress(OSError, ValueError):  # a terminal that has gone away ends no run
            sys.stderr.write(text)
            sys.stderr.flush()
