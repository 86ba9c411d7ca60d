"""What a command says while it works: a line or a JSON object a file, a counter, a total."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from titokcodec.cli.jobs import Job
from titokcodec.cli.process import tell
from titokcodec.cli.tool import complain, write_line
from titokcodec.errors import TitokWarning
from titokcodec.io.names import shown
from titokcodec.io.walk import summary

if TYPE_CHECKING:
    from titokcodec.files import FileInfo
    from titokcodec.format.canonical import Spelling


# About where titok stops making sense: on whole pictures of Kodak it is ahead of thumbnails in 400 bytes, and behind
# them in 1,000, by all metrics but the one that it was trained with (bench/results/kodak-targets).
SENSIBLE_BYTES = 700


class Report:
    """Takes down what becomes of each job.

    Standard output belongs to the stream if there is one, then to JSON; people are talked to on standard error.

    Args:
        tool: Name of the command.
        jobs: All that will be reported on.
        stream: Standard output carries a result.
        quiet: Say nothing but errors.
        verbose: A line for every file also if there are many.
        as_json: A JSON object a line in place of text.
    """

    def __init__(self, tool: str, jobs: list[Job], *, stream: bool, quiet: bool, verbose: bool, as_json: bool) -> None:
        self.tool, self.total, self.stream, self.as_json = tool, len(jobs), stream, as_json
        self.mute, self.quiet = quiet, quiet or as_json
        self.lines = not self.quiet and (verbose or len(jobs) == 1)
        self.verbose = verbose and not self.quiet
        self.counter = not quiet and len(jobs) > 1 and sys.stderr is not None and sys.stderr.isatty()
        self.done = self.skipped = self.failed = self.bytes = self.large = 0
        self.started = time.perf_counter()

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def say(self, text: str) -> None:
        """A remark for those who asked for many."""
        if self.verbose:
            self._err(text)

    def warn(self, message: str) -> None:
        """A remark on how a job is done, for everybody who did not ask for silence."""
        if self.mute:
            return
        self._clear()
        if self.as_json and self.stream:
            self._json({"warning": message})
        else:
            complain(self.tool, message)

    def leave_out(self, left_out: list[tuple[str, str]]) -> None:
        """What lies in folders and is no job of ours, as path and reason."""
        if left_out and not self.quiet:
            self._err(f"{self.tool}: {summary(left_out)}")
        for path, why in left_out:
            if self.verbose:
                self._err(f"{shown(path)} is {why}")
            self._json({"input": path, "output": None, "left_out": why})

    def wrote(self, job: Job, about: FileInfo, seconds: float) -> None:
        """A job is done; ``about`` is its .titok file."""
        self.done += 1
        self.bytes += about.bytes
        self.large += about.bytes > SENSIBLE_BYTES
        names = self._names(job)
        if self.lines:
            arrow = f"{shown(job.source, 'stdin')} -> {shown(job.target, 'stdout')}"
            self._err(f"{arrow}  {describe(about)}")
        self._json(
            {
                **names,
                "width": about.width,
                "height": about.height,
                "layout": about.layout,
                "columns": about.columns,
                "rows": about.rows,
                "tiles": about.tiles,
                "tokens": about.tokens,
                "bytes": about.bytes,
                "bpp": round(about.bits_per_pixel, 6),
                "seconds": round(seconds, 4),
            }
        )
        self._count()

    def checked(self, job: Job, about: FileInfo, spelling: Spelling) -> None:
        """Nothing was to be written, and the file is as it should be; ``spelling`` says whether it is canonical."""
        self.done += 1
        name = shown(job.source, "stdin")
        if self.verbose:
            self._err(f"{name}  {describe(about)}  ok")
        if spelling.canonical is False and not self.quiet:
            self._err(f"{name}  not canonical: {spelling.why}")
        self._json(
            {
                "input": str(job.source or "-"),
                "bytes": about.bytes,
                "ok": True,
                "canonical": spelling.canonical,
                "why": spelling.why,
            }
        )

    def skip(self, job: Job) -> None:
        """The result is there already."""
        self.skipped += 1
        if self.verbose:
            self._err(f"{shown(job.target)} is there already: skipped")
        self._json({**self._names(job), "skipped": True})
        self._count()

    def fail(self, job: Job, message: str) -> None:
        """A job cannot be done; the others go on."""
        self.failed += 1
        self._clear()
        if not (self.as_json and self.stream):  # there the object is the line
            complain(self.tool, f"{shown(job.source, 'stdin')}: {message}")
        self._json({**self._names(job), "error": message})
        self._count()

    def finish(self) -> None:
        """The total, if there was more than one file; and what to do instead of writing large ones."""
        self._clear()
        if self.quiet:
            return
        if self.large and self.tool == "titok-compress":
            which = "this file" if self.total == 1 else f"{self.large} of these files"
            self._err(
                f"{which}: above {SENSIBLE_BYTES} bytes, an AVIF or WebP thumbnail in as many is nearer to the "
                "picture by PSNR and SSIMULACRA2, and titok ahead by LPIPS alone"
            )
        if self.total < 2:
            return
        more = "".join(
            f", {count} {what}" for count, what in ((self.skipped, "skipped"), (self.failed, "failed")) if count
        )
        seconds = time.perf_counter() - self.started
        self._err(f"{self.done} of {self.total} files{more}, {self.bytes} bytes in .titok files, {seconds:.1f} s")

    def _names(self, job: Job) -> dict[str, Any]:
        target = job.target or ("-" if self.stream else None)
        return {"input": str(job.source or "-"), "output": target and str(target)}

    def _json(self, facts: dict[str, Any]) -> None:
        if not self.as_json:
            return
        if self.stream:
            self._err(json.dumps(facts))
        else:
            write_line(json.dumps(facts))

    def _err(self, text: str) -> None:
        self._clear()
        tell(text)

    def _count(self) -> None:
        if self.counter:
            tell(f"\r{self.done + self.skipped + self.failed} of {self.total}", end="")

    def _clear(self) -> None:
        if self.counter:
            tell("\r\x1b[K", end="")


@contextmanager
def warnings_told(report: Report) -> Iterator[None]:
    """The library's warnings are lines of the report, unless the user has told Python what to do with warnings."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("always", TitokWarning)
        show = warnings.showwarning

        def tell_ours(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, TitokWarning):
                report.warn(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = tell_ours
        yield


def describe(about: FileInfo) -> str:
    """A .titok file in a few words."""
    how = f"fit, {about.tokens} tokens"
    if about.layout == "tile":
        how = f"{about.columns}x{about.rows} tiles, {about.tokens} tokens each"
    return f"{about.width}x{about.height}  {how}  {about.bytes} bytes  {about.bits_per_pixel:.3f} bpp"
