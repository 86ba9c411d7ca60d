"""What a command does to the process that is its own: interrupts, standard streams, and how it ends. Nothing slow."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from titokcodec.io.names import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any


def prepare() -> None:
    """Make the process end quietly when interrupted, and keep its files apart from its standard streams.

    Called before anything slow is imported. It is for processes that run one command and nothing else.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as nohup wants it
        signal.signal(signal.SIGINT, _leave)
    _occupy_standard_streams()


def _leave(*_: Any) -> None:
    """End at once. An exception could be raised anywhere: in an import, which turns it into another one or leaves half
    a library behind, or where Python can but print that it was ignored."""
    modules: list[Any] = [sys.modules.get(name) for name in ("titokcodec.io.atomic", "multiprocessing")]
    atomic, multiprocessing = modules  # None, or perhaps half imported
    if hasattr(atomic, "abandon"):
        atomic.abandon()
    if hasattr(multiprocessing, "active_children"):
        for worker in multiprocessing.active_children():  # which would complain that its pipe is closed
            worker.kill()
    os._exit(130)


def _occupy_standard_streams() -> None:
    """Open those that are closed, the wrong way round so that using them still fails: else the next file that is opened
    would be one of them, and hold what libraries print."""
    for descriptor, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, mode)  # which takes the lowest number that is free


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """For all that a command does: an ``OSError`` ends the process with one line on standard error and status 1.

    What is still to be written to standard output is written, so that it fails here and not when Python exits.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        about = f"{shown(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        write_stderr(f"{name}: {about}{error.strerror or error}")
        raise SystemExit(1) from None


def write_stderr(text: str, end: str = "\n") -> None:
    """Write a line to standard error, unless that is closed."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(f"{text}{end}")
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def discard(stream: IO[Any] | None) -> None:
    """Forget what a standard stream could not write: it would fail once more when Python exits, with a traceback."""
    if stream is not None:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
