"""One file or a million: jobs go through the network in groups, and a file that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from titokcodec.cli import pictures
from titokcodec.cli.jobs import Job
from titokcodec.cli.report import Report, warnings_told
from titokcodec.cli.tool import exists, in_the_way, out_of_memory, picture_source, reason, stdin, write_target
from titokcodec.errors import CorruptFile, TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.codec import Codec

# Enough that the last, smaller forward pass of a group is a small part of it; little enough to hold in memory.
GROUP_FILES = 64
GROUP_PIXELS = 1 << 25


@dataclass
class Item:
    """A job whose input has been read."""

    job: Job
    content: Any
    pixels: int
    seconds: float


class Task(Protocol):
    """What is done to each file, in three steps; the middle one is shared by a group."""

    def read(self, job: Job) -> tuple[Any, int]:
        """What is in the source, and its number of pixels."""

    def convert(self, codec: Codec, contents: list[Any]) -> list[Any]:
        """The network's part."""

    def finish(self, job: Job, content: Any, result: Any) -> tuple[bytes, bytes]:
        """The bytes to write, and the .titok file to report on."""


def run(
    jobs: list[Job], task: Task, load: Callable[[], Codec], report: Report, *, force: bool, skip_existing: bool
) -> None:
    """Do all jobs; ``report`` holds what became of them.

    The model is loaded when the first group of inputs has been read, so what is wrong with them shows at once.

    Raises:
        TitokError: the model cannot be loaded.
        OSError: standard output cannot be written.
    """
    import logging

    # Pillow logs what it raises besides; without a handler Python would print it among our own lines.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    codec: Codec | None = None
    with warnings_told(report):
        for group in _groups(_read(jobs, task, report, force, skip_existing)):
            codec = codec or load()
            started = time.perf_counter()
            results = _convert(task, codec, [item.content for item in group])
            share = (time.perf_counter() - started) / len(group)
            for item, result in zip(group, results, strict=True):
                _deliver(item, result, share, task, report, force)
    report.finish()


def _read(jobs: list[Job], task: Task, report: Report, force: bool, skip_existing: bool) -> Iterator[Item]:
    """Inputs that can be read and whose outputs may be written."""
    for job in jobs:
        started = time.perf_counter()
        if job.problem:
            report.fail(job, job.problem)
        elif in_the_way(job.target) and skip_existing:
            report.skip(job)
        elif in_the_way(job.target) and not force:
            report.fail(job, exists(job.target))
        else:
            try:
                content, pixels = task.read(job)
            except (TitokError, OSError, MemoryError) as error:
                report.fail(job, _reason(job, error))
            else:
                yield Item(job, content, pixels, time.perf_counter() - started)


def _groups(items: Iterator[Item]) -> Iterator[list[Item]]:
    group: list[Item] = []
    for item in items:
        if group and (len(group) == GROUP_FILES or sum(held.pixels for held in group) + item.pixels > GROUP_PIXELS):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _convert(task: Task, codec: Codec, contents: list[Any]) -> list[Any]:
    """Results in order, with an exception in the place of each failed one: a bad file costs its group a second try."""
    try:
        return task.convert(codec, contents)
    except (TitokError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        if len(contents) == 1:
            return [error]
    return [result for content in contents for result in _convert(task, codec, [content])]


def _deliver(item: Item, result: Any, share: float, task: Task, report: Report, force: bool) -> None:
    from titokcodec.files import info

    started = time.perf_counter()
    try:
        if isinstance(result, BaseException):
            raise result
        data, titok = task.finish(item.job, item.content, result)
        if item.job.makes_folder and item.job.target:
            item.job.target.parent.mkdir(parents=True, exist_ok=True)
        write_target(item.job.target, data, force)
    except (TitokError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        report.fail(item.job, _reason(item.job, error))
    else:
        report.wrote(item.job, info(titok), item.seconds + share + time.perf_counter() - started)


def _reason(job: Job, error: BaseException) -> str:
    return reason(error, shown(job.source, "picture"))


_TARGETS = ("target_bytes", "target_psnr", "target_lpips")


@dataclass
class Compress:
    """Pictures to .titok files; ``options`` are those of ``Codec.compress_batch``."""

    options: dict[str, Any]
    many: bool = False  # they go into a folder

    def read(self, job: Job) -> tuple[Any, int]:
        from titokcodec.pictures import images

        self.many = job.makes_folder  # of all jobs of a command, or of none
        reading = {name: self.options[name] for name in ("background", "max_pixels", "frame", "white")}
        with picture_source(job.source) as source:
            picture = images.load(source, **reading)
        return picture, picture.pixels.size // 3

    def convert(self, codec: Codec, contents: list[Any]) -> list[bytes]:
        from titokcodec.search import bulk_steps

        options = self.options
        if self.many and options["effort"] is None and not any(options[name] for name in _TARGETS):
            options = options | {"effort": bulk_steps(codec.weights.config, options["layout"])}
        return codec.compress_batch(contents, **options)

    def finish(self, job: Job, content: Any, result: bytes) -> tuple[bytes, bytes]:
        return result, result


@dataclass
class Decompress:
    """.titok files to pictures of ``format`` (None: as the target's suffix says)."""

    format: str | None
    strict: bool
    max_pixels: int | None

    def read(self, job: Job) -> tuple[bytes, int]:
        from titokcodec.format import bitstream
        from titokcodec.weights import releases

        self._format(job)  # before the network runs for nothing
        data = read_titok(job, self.max_pixels)
        header, offset = bitstream.parse(data)
        if self.strict:
            try:
                bitstream.verify(data, header, offset, releases.fingerprint_for(header))
            except CorruptFile as error:
                raise CorruptFile(f"{error}, or decode what has arrived of it with --partial") from None
        return data, header.width * header.height

    def convert(self, codec: Codec, contents: list[bytes]) -> list[Any]:
        return codec.decompress_batch(contents, strict=self.strict, max_pixels=self.max_pixels)

    def finish(self, job: Job, content: bytes, result: Any) -> tuple[bytes, bytes]:
        return pictures.to_bytes(result, self._format(job)), content

    def _format(self, job: Job) -> str:
        return self.format or (pictures.format_of(job.target) if job.target else "PNG")


def read_titok(job: Job, max_pixels: int | None) -> bytes:
    """The .titok file that a job names. Raises ``TitokError`` or ``OSError``."""
    from titokcodec.files import read

    if job.source is None:
        return read(stdin(), max_pixels)
    with job.source.open("rb") as file:
        return read(file, max_pixels)
