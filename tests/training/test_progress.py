"""What is said on the way, on a terminal and in a log, by a clock that nothing else moves."""

import io
from types import SimpleNamespace

import pytest
import torch

from training import parallel, progress
from training.progress import Progress, Updates, clock, words


class Screen(io.StringIO):
    """Standard error as a terminal shows it, or as a log keeps it."""

    terminal = False

    def isatty(self):
        return self.terminal

    @property
    def lines(self):
        """What there is to be seen: a return goes back, and what is written there replaces what was."""
        return [line.split("\r")[-1].replace("\x1b[K", "") for line in self.getvalue().split("\n")]


@pytest.fixture
def screen(monkeypatch):
    found = Screen()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found))
    monkeypatch.setattr(progress, "_shown", False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return found


@pytest.fixture
def wait(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait(seconds):
        now[0] += seconds

    return wait


# ---- phases that are counted -----------------------------------------------------------------------------------


def test_a_log_has_a_line_now_and_then(screen, wait):
    with Progress("tokenizing", 2000, "crops") as shown:
        for _ in range(100):
            wait(1)
            shown.add(20)
    assert screen.lines[:2] == [
        "tokenizing: 80 of 2,000 crops, 20/s, 1:36 left",
        "tokenizing: 280 of 2,000 crops, 20/s, 1:26 left",
    ]
    assert screen.lines[-2:] == ["tokenizing: 1,880 of 2,000 crops, 20/s, 0:06 left", ""] and len(screen.lines) == 11


def test_a_terminal_has_one_line_that_rewrites_itself_and_is_gone_in_the_end(screen, wait, monkeypatch):
    screen.terminal = True
    with Progress("reading pictures") as shown:
        for _ in range(30):
            wait(0.5)
            shown.add(4)
        assert screen.lines == ["reading pictures: 120 pictures, 8/s"]
        assert screen.getvalue().count("\r") == 15, "one/s"
        progress.message("a line that stays")
        wait(1)
        shown.add(4)
        assert screen.lines == ["a line that stays", "reading pictures: 124 pictures, 7.75/s"]
    assert screen.lines == ["a line that stays", ""]
    monkeypatch.setenv("COLUMNS", "20")
    with pytest.raises(KeyboardInterrupt), Progress("reading pictures") as shown:
        wait(2)
        shown.add()
        assert screen.lines[-1] == "reading pictures: 1", "it never fills the last column"
        raise KeyboardInterrupt
    assert screen.lines[-1] == ""


def test_phases_that_are_over_soon_say_nothing_in_a_log(screen, wait):
    with Progress("reading pictures", 10) as shown:
        for _ in range(3):
            wait(1)
            shown.add()
    assert screen.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_ranks_but_the_first_say_nothing(screen, wait, monkeypatch, terminal):
    screen.terminal = terminal
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    updates = Updates("single", 64)
    with Progress("reading pictures") as shown:
        for step in range(100):
            wait(10)
            shown.add()
            updates.at(step, step / 100, None)
    progress.message("a line")
    assert screen.getvalue() == ""


def test_a_terminal_that_is_none_or_gone_ends_no_run(wait, monkeypatch):
    def broken(text):
        raise BrokenPipeError

    for stderr in (None, SimpleNamespace(isatty=lambda: True, write=broken)):
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stderr))
        with Progress("reading pictures") as shown:
            wait(100)
            shown.add()
        progress.message("a line")


# ---- updates ---------------------------------------------------------------------------------------------------


def updates(wait, seconds, budget, batch=64, steps=None, first=0, last=10**9):
    """A run of updates that take so many ``seconds`` each, for a ``budget`` of seconds or ``steps``."""
    shown, spent, step = Updates("single", batch, steps), 0.0, first

    def share():
        return min(max(spent / budget, step / steps if steps else 0), 1)

    while share() < 1 and step < last:
        shown.at(step, share(), torch.tensor(1 / (step + 1)))
        wait(seconds)
        spent, step = spent + seconds, step + 1
    shown.close(step, torch.tensor(0.5))


def test_a_run_in_which_few_updates_fit_says_so_after_the_first_one_and_what_to_do(screen, wait):
    updates(wait, 20, 180)
    assert screen.lines[0] == "single: 9 steps fit in 3 minutes at batch 64; try --batch 8"
    assert screen.lines[1] == "single: step 1, 11%, 2:40 left, loss 0.5, 0.05 steps/s, 3.2 pictures/s"
    assert screen.lines[2] == "single: step 2, 22%, 2:20 left, loss 0.3333, 0.05 steps/s, 3.2 pictures/s"
    assert screen.lines[-2:] == ["single: 9 steps in 3 minutes, loss 0.5", ""]


def test_the_advice_fits_the_number_of_ranks_and_ends_somewhere(screen, wait, monkeypatch):
    monkeypatch.setattr(parallel, "count", lambda: 3)
    updates(wait, 20, 180, batch=96)
    assert screen.lines[0].endswith("9 steps fit in 3 minutes at batch 96; try --batch 12")
    monkeypatch.setattr(parallel, "count", lambda: 1)
    updates(wait, 100, 200, batch=64)
    assert "single: 2 steps fit in 3.3 minutes at batch 64; try --batch 4" in screen.lines
    updates(wait, 100, 150, batch=4)
    assert "single: 2 steps fit in 2.5 minutes at batch 4; give it more time" in screen.lines


def test_a_run_with_room_for_many_says_how_many_and_one_of_steps_how_long_it_takes(screen, wait):
    updates(wait, 0.5, 1200, last=6)
    assert screen.lines == [
        "single: 2,400 steps fit in 20 minutes at batch 64",
        "single: 6 steps in 3 seconds, loss 0.5",
        "",
    ]
    updates(wait, 2, 1e12, steps=20_000, last=4)
    assert "single: 20,000 steps at batch 64 take about 11 hours" in screen.lines


def test_a_slow_first_update_is_not_taken_for_the_pace(screen, wait):
    shown, spent = Updates("single", 64), 0
    for step, seconds in enumerate((4, 1, 1, 1, 1, 1)):
        shown.at(step, spent / 104)
        wait(seconds)
        spent += seconds
    assert "single: 101 steps fit in 104 seconds at batch 64" in screen.lines


def test_a_resumed_run_counts_what_is_left(screen, wait):
    updates(wait, 2, 1e12, steps=1000, first=900, last=940)
    assert screen.lines[0] == "single: step 902, 90%, 3:16 left, loss 0.001107, 0.5 steps/s, 32 pictures/s"
    assert screen.lines[1] == "single: 100 steps at batch 64 take about 3.3 minutes"
    assert screen.lines[-2] == "single: 40 steps in 80 seconds, loss 0.5"


def test_the_device_is_waited_for_only_when_a_line_is_due(screen, wait):
    class Loss:
        asked = 0

        def item(self):
            Loss.asked += 1
            return 1.0

    shown = Updates("single", 64)
    for step in range(1000):
        shown.at(step, step / 1000, Loss())
        wait(0.1)
    assert Loss.asked == len([line for line in screen.lines if "loss" in line]) == 10


def test_lengths_of_time():
    assert [clock(seconds) for seconds in (-1, 0.4, 42, 61, 3723)] == ["0:00", "0:00", "0:42", "1:01", "1:02:03"]
    assert [words(seconds) for seconds in (0.2, 1, 90, 119.6, 180, 7000, 7200)] == [
        "0 seconds",
        "1 second",
        "90 seconds",
        "120 seconds",
        "3 minutes",
        "117 minutes",
        "2 hours",
    ]
