"""What a command prints about its work: lines for people, or JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from titokcodec.cli.process import write_stderr
from titokcodec.cli.streams import write_line

if TYPE_CHECKING:
    from titokcodec.files import FileInfo


class Reporter:
    """Decides what is printed, and where.

    Standard output carries the result if that is a stream, else JSON. Lines for people go to standard error, and so
    does JSON when standard output carries a result.

    Args:
        command: Name of the command.
        stream: Standard output carries a result.
        quiet: Print nothing but errors.
        verbose: Print details too.
        as_json: Print JSON objects, one a line, instead of text.

    Attributes:
        failed: Number of errors so far.
    """

    def __init__(
        self,
        command: str,
        *,
        stream: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        as_json: bool = False,
    ) -> None:
        self.command, self.stream, self.as_json = command, stream, as_json
        self.silent, self.quiet = quiet, quiet or as_json
        self.verbose = verbose and not self.quiet
        self.failed = 0
        self.counting = False  # whether there is a line on the terminal that is to be rewritten

    @property
    def exit_code(self) -> int:
        """1 if anything failed, else 0."""
        return 1 if self.failed else 0

    def text(self, line: str) -> None:
        """A line for people."""
        if not self.quiet:
            self._line(line)

    def detail(self, line: str) -> None:
        """A line for people who asked for details."""
        if self.verbose:
            self._line(line)

    def warning(self, message: str) -> None:
        """A remark on how the work is done."""
        if self.silent:
            return
        if self.as_json and self.stream:
            self.record({"warning": message})
        else:
            self._line(f"{self.command}: {message}")

    def error(self, message: str, facts: dict[str, Any] | None = None) -> None:
        """Something failed; ``facts`` are its JSON object, if it has one."""
        self.failed += 1
        if not (facts and self.as_json and self.stream):  # standard error is for one of the two
            self._line(f"{self.command}: {message}")
        if facts:
            self.record(facts)

    def record(self, facts: dict[str, Any]) -> None:
        """A JSON object, if these are asked for."""
        if not self.as_json:
            return
        if self.stream:
            self._line(json.dumps(facts))
        else:
            write_line(json.dumps(facts))

    def count(self, done: int, total: int) -> None:
        """So many of several are done: on a terminal, in a line that is rewritten."""
        if not self.silent and total > 1 and sys.stderr is not None and sys.stderr.isatty():
            self.counting = True
            write_stderr(f"\r{done} of {total}", end="")

    def clear(self) -> None:
        """Wipe the line of ``count``."""
        if self.counting:
            self.counting = False
            write_stderr("\r\x1b[K", end="")

    def _line(self, text: str) -> None:
        self.clear()
        write_stderr(text)


def describe(about: FileInfo) -> str:
    """A .titok file in a few words."""
    how = f"fit, {about.tokens} tokens"
    if about.layout == "tile":
        how = f"{about.columns}x{about.rows} tiles, {about.tokens} tokens each"
    return f"{about.width}x{about.height}  {how}  {about.bytes} bytes  {about.bits_per_pixel:.3f} bpp"
