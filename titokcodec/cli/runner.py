"""One file or a million: jobs go through the network in groups, and a file that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import click

from titokcodec.cli.batch_reporter import BatchReporter
from titokcodec.cli.errors import out_of_memory, reason
from titokcodec.cli.paths import FileJob, JobList
from titokcodec.cli.streams import exists, in_the_way, write_target
from titokcodec.errors import TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.codec import Codec

# Enough that the last, smaller forward pass of a group is a small part of it; little enough to hold in memory.
GROUP_FILES = 64
GROUP_PIXELS = 1 << 25


@dataclass(frozen=True)
class RunOptions:
    """The options that all commands with a network and many files share (``options.network`` and ``options.bulk``).

    Raises:
        click.UsageError: two of them contradict each other.
    """

    model: str | None
    device: str
    dtype: str
    batch_size: int
    output: str | None
    force: bool
    skip_existing: bool
    max_pixels: int | None
    shard: tuple[int, int] | None
    quiet: bool
    verbose: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.force and self.skip_existing:
            raise click.UsageError("Give --force or --skip-existing, not both.")
        if self.quiet and self.verbose:
            raise click.UsageError("Give --quiet or --verbose, not both.")

    def reporter(self, command: str, jobs: JobList, stream: bool = False) -> BatchReporter:
        """The reporter for these jobs, which begins with the files that are left out."""
        options = {"quiet": self.quiet, "verbose": self.verbose, "as_json": self.as_json}
        reporter = BatchReporter(command, jobs.jobs, stream=stream, **options)
        reporter.leave_out(jobs.left_out)
        return reporter


@dataclass
class Item:
    """A job whose input has been read."""

    job: FileJob
    content: Any
    pixels: int
    seconds: float


@dataclass(frozen=True)
class Result:
    """What a task gives for one file.

    Attributes:
        data: The bytes to write.
        titok: The .titok file to report on.
        extra: What to report besides, see ``BatchReporter.wrote``.
    """

    data: bytes
    titok: bytes
    extra: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """What is done to each file, in three steps; the middle one is shared by a group."""

    def check(self, codec: Codec) -> None:
        """Raise ``TitokError`` or ``click.UsageError`` if the model cannot do what is asked for."""

    def read(self, job: FileJob) -> tuple[Any, int]:
        """The content of the source, and its number of pixels."""

    def convert(self, codec: Codec, contents: list[Any]) -> list[Any]:
        """The network's part."""

    def finish(self, job: FileJob, content: Any, converted: Any) -> Result:
        """What to write and to report."""


class Runner:
    """Does the jobs of one command.

    Args:
        command: Its name.
        jobs: What to read and to write.
        task: What to do in between.
        options: How.
    """

    def __init__(self, command: str, jobs: JobList, task: Task, options: RunOptions) -> None:
        self.jobs, self.task, self.options = jobs.shard(options.shard), task, options
        self.reporter = options.reporter(command, self.jobs, self.jobs.stream)
        self._codec: Codec | None = None

    def run(self) -> int:
        """Do all jobs, and return the exit code.

        The model is loaded when the first group of inputs has been read, so that errors in them show at once.

        Raises:
            TitokError: the model cannot be loaded.
            OSError: standard output cannot be written.
        """
        import logging

        # Pillow logs what it raises besides; without a handler Python would print it among our own lines.
        logging.getLogger("PIL").addHandler(logging.NullHandler())
        with self.reporter.library_warnings():
            for group in _groups(self._read()):
                codec = self._loaded()
                started = time.perf_counter()
                converted = self._convert(codec, [item.content for item in group])
                share = (time.perf_counter() - started) / len(group)
                for item, result in zip(group, converted, strict=True):
                    self._deliver(item, result, share)
        self.reporter.finish()
        return self.reporter.exit_code

    def _loaded(self) -> Codec:
        if self._codec is None:
            from titokcodec.codec import Codec

            given = self.options
            codec = Codec.from_pretrained(
                given.model, device=given.device, dtype=given.dtype, batch_size=given.batch_size
            )
            self.task.check(codec)
            model = codec.weights
            self.reporter.detail(
                f"model {model.name} ({model.fingerprint.hex()}) on {codec.device} in {str(codec.dtype)[6:]}"
            )
            self._codec = codec
        return self._codec

    def _read(self) -> Iterator[Item]:
        """Inputs that can be read and whose outputs may be written."""
        for job in self.jobs.jobs:
            started = time.perf_counter()
            if job.problem:
                self.reporter.fail(job, job.problem)
            elif in_the_way(job.target) and self.options.skip_existing:
                self.reporter.skip(job)
            elif in_the_way(job.target) and not self.options.force:
                self.reporter.fail(job, exists(job.target))
            else:
                try:
                    content, pixels = self.task.read(job)
                except (TitokError, OSError, MemoryError) as error:
                    self._fail(job, error)
                else:
                    yield Item(job, content, pixels, time.perf_counter() - started)

    def _convert(self, codec: Codec, contents: list[Any]) -> list[Any]:
        """Results in order, with an exception in the place of each failed one. If a group fails, its files are tried
        one by one."""
        try:
            return self.task.convert(codec, contents)
        except (TitokError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise
            if len(contents) == 1:
                return [error]
        return [result for content in contents for result in self._convert(codec, [content])]

    def _deliver(self, item: Item, converted: Any, share: float) -> None:
        from titokcodec.files import info

        job, started = item.job, time.perf_counter()
        try:
            if isinstance(converted, BaseException):
                raise converted
            result = self.task.finish(job, item.content, converted)
            if job.makes_folder and job.target:
                job.target.parent.mkdir(parents=True, exist_ok=True)
            write_target(job.target, result.data, self.options.force)
        except (TitokError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise
            self._fail(job, error)
        else:
            seconds = item.seconds + share + time.perf_counter() - started
            self.reporter.wrote(job, info(result.titok), seconds, result.extra)

    def _fail(self, job: FileJob, error: BaseException) -> None:
        self.reporter.fail(job, reason(error, shown(job.source, "picture")))


def _groups(items: Iterator[Item]) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        if group and (len(group) == GROUP_FILES or sum(held.pixels for held in group) + item.pixels > GROUP_PIXELS):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
