"""What is printed about many files: a line or a JSON object each, a counter, and a total."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from titokcodec.cli.paths import FileJob
from titokcodec.cli.reporter import Reporter, describe
from titokcodec.errors import TitokWarning
from titokcodec.io.names import shown
from titokcodec.io.walk import summary

if TYPE_CHECKING:
    from titokcodec.files import FileInfo
    from titokcodec.format.canonical import Spelling

# About where titok stops making sense: on whole Kodak pictures it beats thumbnails at 400 bytes, and loses to them at
# 1,000, by all metrics but the one that it was trained with (bench/results/kodak-targets).
SENSIBLE_BYTES = 700

_QUALITY = {"psnr": "PSNR {:.2f} dB", "lpips": "LPIPS {:.3f}"}


class BatchReporter(Reporter):
    """Records the outcome of each job.

    Args:
        command: Name of the command.
        jobs: All that will be reported on.
        options: Of ``Reporter``; ``verbose`` prints a line for every file also if there are many.
    """

    def __init__(self, command: str, jobs: list[FileJob], **options: bool) -> None:
        super().__init__(command, **options)
        self.total = len(jobs)
        self.lines = not self.quiet and (self.verbose or self.total == 1)
        self.done = self.skipped = self.bytes = self.large = 0
        self.started = time.perf_counter()

    def leave_out(self, left_out: list[tuple[str, str]]) -> None:
        """Files in folders that are not read, as path and reason."""
        if left_out:
            self.text(f"{self.command}: {summary(left_out)}")
        for path, why in left_out:
            self.detail(f"{shown(path)} is {why}")
            self.record({"input": path, "output": None, "left_out": why})

    def wrote(self, job: FileJob, about: FileInfo, seconds: float, extra: dict[str, Any] | None = None) -> None:
        """A job is done.

        Args:
            job: Which one.
            about: Its .titok file.
            seconds: What it took.
            extra: What else to report: ``psnr`` or ``lpips`` that a target reached, or ``arrived``, the number of
                tokens that a partial file still has.
        """
        extra = extra or {}
        self.done += 1
        self.bytes += about.bytes
        self.large += about.bytes > SENSIBLE_BYTES
        if extra.get("arrived", about.tokens) < about.tokens:
            self.warning(
                f"{shown(job.source, 'stdin')}: {extra['arrived']} of {about.tokens} tokens a tile have arrived"
            )
        elif "arrived" in extra and about.intact is False:
            self.warning(f"{shown(job.source, 'stdin')}: the checksum does not match, so the picture may be wrong")
        if self.lines:
            arrow = f"{shown(job.source, 'stdin')} -> {shown(job.target, 'stdout')}"
            quality = [text.format(extra[name]) for name, text in _QUALITY.items() if name in extra]
            self.text("  ".join([arrow, describe(about), *quality]))
        self.record(
            {
                **self._names(job),
                "width": about.width,
                "height": about.height,
                "layout": about.layout,
                "columns": about.columns,
                "rows": about.rows,
                "tiles": about.tiles,
                "tokens": about.tokens,
                "bytes": about.bytes,
                "bpp": round(about.bits_per_pixel, 6),
                **{name: round(value, 4) for name, value in extra.items()},
                "seconds": round(seconds, 4),
            }
        )
        self._count()

    def checked(self, job: FileJob, about: FileInfo, spelling: Spelling) -> None:
        """A file is intact, and nothing was to be written; ``spelling`` says whether it is canonical."""
        self.done += 1
        name = shown(job.source, "stdin")
        self.detail(f"{name}  {describe(about)}  ok")
        if spelling.canonical is False:
            self.text(f"{name}  not canonical: {spelling.why}")
        self.record(
            {
                "input": str(job.source or "-"),
                "bytes": about.bytes,
                "ok": True,
                "canonical": spelling.canonical,
                "why": spelling.why,
            }
        )

    def skip(self, job: FileJob) -> None:
        """The result exists already."""
        self.skipped += 1
        self.detail(f"{shown(job.target)} exists already: skipped")
        self.record({**self._names(job), "skipped": True})
        self._count()

    def fail(self, job: FileJob, message: str) -> None:
        """A job cannot be done; the others go on."""
        self.error(f"{shown(job.source, 'stdin')}: {message}", {**self._names(job), "error": message})
        self._count()

    def finish(self) -> None:
        """The total, if there was more than one file; and advice if files are large."""
        self.clear()
        if self.large and self.command == "titok-compress":
            which = "this file" if self.total == 1 else f"{self.large} of these files"
            self.text(
                f"{which}: above {SENSIBLE_BYTES} bytes, an AVIF or WebP thumbnail of the same size is closer to the "
                "picture by PSNR and SSIMULACRA2; titok is ahead by LPIPS alone"
            )
        if self.total < 2:
            return
        more = "".join(
            f", {count} {what}" for count, what in ((self.skipped, "skipped"), (self.failed, "failed")) if count
        )
        seconds = time.perf_counter() - self.started
        self.text(f"{self.done} of {self.total} files{more}, {self.bytes} bytes in .titok files, {seconds:.1f} s")

    @contextmanager
    def library_warnings(self) -> Iterator[None]:
        """Print the library's own warnings, unless the user has set Python's warning options."""
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("always", TitokWarning)
            show = warnings.showwarning

            def report(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, TitokWarning):
                    self.warning(str(message))
                else:
                    show(message, category, *where, **more)

            warnings.showwarning = report
            yield

    def _names(self, job: FileJob) -> dict[str, Any]:
        target = job.target or ("-" if self.stream else None)
        return {"input": str(job.source or "-"), "output": target and str(target)}

    def _count(self) -> None:
        self.count(self.done + self.skipped + self.failed, self.total)
