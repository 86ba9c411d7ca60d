"""Ctrl-C and SIGTERM: an interrupted run ends after its step, and leaves a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work; the text is for the user, ``number`` for the exit code."""

    def __init__(self, number: int, text: str = "interrupted") -> None:
        super().__init__(text)
        self.number = number


class Postponed:
    """Within this context a signal does not end the process but is kept: ``number`` is the signal, 0 for none yet.

    A second one ends it at once, by ``Interrupted``: a file that is being written is left out. A signal that was
    ignored before, as in a background job of a shell, still is. Outside the main thread, where Python has no signals,
    the context does nothing.
    """

    number = 0

    def __enter__(self) -> Postponed:
        main = threading.current_thread() is threading.main_thread()
        kept = [number for number in SIGNALS if main and signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._keep) for number in kept}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _keep(self, number: int, _: FrameType | None) -> None:
        if self.number:
            raise Interrupted(number)
        self.number = number


def leave_process_group(_: int = 0) -> None:
    """For a worker process: what a terminal or ``torchrun`` sends to a whole group shall not reach it, since its parent
    needs it until the step is done."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
