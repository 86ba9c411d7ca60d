"""What every command of training and of the benchmarks shares: its parser, and how it ends.

``main`` of a command is a function like any other, which raises what went wrong. Started from a shell it is handed to
``start``, the one place where an error becomes a line and an exit code: 0 good, 1 something failed, 2 a command
line that makes no sense, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from titokcodec.cli.errors import out_of_memory, reason
from titokcodec.cli.process import one_line, write_stderr
from titokcodec.errors import TitokError


class UsageError(TitokError):
    """A request that makes no sense, whatever the files hold."""


class Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line, and keeps the line breaks of its description.

    Raises:
        UsageError: from ``parse_args``.
    """

    def __init__(self, about: str | None, **settings: Any) -> None:
        spec = getattr(sys.modules["__main__"], "__spec__", None)  # there if started by python -m
        name = spec.name if spec else ""
        if name.startswith("titokcodec."):  # not from a checkout, where training and bench stand alone
            about = re.sub(r"-m (training|bench)\b", r"-m titokcodec.\1", about or "")
        if name.partition("titokcodec.")[2] or name.startswith(("training.", "bench.")):
            settings.setdefault("prog", f"python -m {name}")
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists all options)")


def start(main: Callable[[], object]) -> None:
    """Do what a command does; unless it succeeds, end the process with one line on standard error. What is neither a
    ``TitokError`` nor the system's refusal is a mistake of ours, and keeps its traceback."""
    try:
        with one_line("error"):  # also for standard output, which may be full or closed
            main()
    except KeyboardInterrupt as stop:
        _end(str(stop) or "interrupted", 128 + getattr(stop, "number", signal.SIGINT))
    except (TitokError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            _end("not enough memory: try smaller batches or fewer pictures", 1)
        if isinstance(error, RuntimeError):
            raise
        _end(reason(error), 2 if isinstance(error, UsageError) else 1)


def _end(line: str, code: int) -> NoReturn:
    write_stderr(f"error: {line}")
    raise SystemExit(code)
