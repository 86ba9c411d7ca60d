"""Which files to read and where their results go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import click

from titokcodec.io import kinds
from titokcodec.io.atomic import is_stream
from titokcodec.io.names import shown
from titokcodec.io.walk import ByName, walk


@dataclass(frozen=True)
class FileJob:
    """One file to make from another.

    Attributes:
        source: What to read; None is standard input.
        target: What to write; None is standard output.
        makes_folder: The folder of ``target`` is made if it is not there.
        problem: Why this cannot be done, if that is known beforehand.
    """

    source: Path | None
    target: Path | None
    makes_folder: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class FileTypes:
    """The files that a command reads and writes.

    Attributes:
        noun: What its inputs are called.
        wanted: Whether a file found in a folder is one of them, by its name.
        suffix: Of the results, with the dot.
        check: Raises ``click.UsageError`` for a file name that no result may have.
        foreign: Whether a file is one that cannot be read here, so that leaving it out is reported.
        unnamed: Likewise, for the paths of files without a suffix.
    """

    noun: str
    wanted: ByName
    suffix: str
    check: Callable[[Path], None]
    foreign: ByName = lambda path: False
    unnamed: ByName = lambda path: False


class JobList(NamedTuple):
    """What a command is to do: its jobs, and the files in folders that it leaves out, as path and reason."""

    jobs: list[FileJob]
    left_out: list[tuple[str, str]]

    @property
    def stream(self) -> bool:
        """Standard output carries a result."""
        return any(job.target is None and not job.problem for job in self.jobs)

    def shard(self, part: tuple[int, int] | None) -> JobList:
        """Every n-th job, for machine i of n; all jobs for None."""
        if part is None:
            return self
        index, count = part
        return self._replace(jobs=self.jobs[index::count])


def plan_jobs(arguments: tuple[str, ...], output: str | None, types: FileTypes) -> JobList:
    """Jobs for the arguments of a command, in an order that is the same on every machine.

    Without ``output``, one argument is an input whose result lies beside it and two are INPUT OUTPUT. With it, all
    are inputs; ``output`` is a folder, or for a single input a file if it has a suffix.

    Raises:
        click.UsageError: the arguments can be understood in more than one way, or in none.
    """
    if output is None:
        return JobList([_checked(_pair(arguments, types), types)], [])
    is_file = output == "-" or is_stream(Path(output)) or (Path(output).suffix and not is_folder_name(output))
    if is_file and len(arguments) == 1 and not os.path.isdir(arguments[0]):
        return JobList([_checked(FileJob(_path(arguments[0]), output_path(output, types.check)), types)], [])
    if output == "-":
        raise click.UsageError("Standard output takes one file: give -o a folder.")
    is_result = Path(output).suffix.lower() == types.suffix and not is_folder_name(output)
    if is_result or (os.path.exists(output) and not os.path.isdir(output)):
        raise click.UsageError(f"-o {shown(output)} is a file: several inputs need a folder.")
    left_out: list[tuple[str, str]] = []
    jobs = list(_without_collisions(_into_folder(arguments, Path(output), types, left_out), types))
    return JobList(jobs, left_out)


def output_path(output: str, check: Callable[[Path], None]) -> Path | None:
    """A single file to write, None for standard output. Raises ``click.UsageError`` for a name that none may have."""
    target = _path(output)
    if is_folder_name(output):
        raise click.UsageError(f"{shown(output)} is a folder: name the file to write.")
    if target and not is_stream(target):
        check(target)
    return target


def plan_inputs(arguments: tuple[str, ...], types: FileTypes) -> JobList:
    """Jobs that only read: files, standard input, and all wanted files in folders."""
    if arguments == ("-",):
        return JobList([FileJob(None, None)], [])
    left_out: list[tuple[str, str]] = []
    jobs = [replace(job, target=None) for job in _into_folder(arguments, Path(), types, left_out)]
    return JobList(jobs, left_out)


def _pair(arguments: tuple[str, ...], types: FileTypes) -> FileJob:
    """INPUT, or INPUT OUTPUT."""
    if len(arguments) > 2:
        raise click.UsageError(f"Several inputs need -o FOLDER{_as_typed(arguments[-1])}.")
    if os.path.isdir(arguments[0]):
        raise click.UsageError(f"{shown(arguments[0])} is a folder: name one for its results with -o FOLDER.")
    source = _path(arguments[0])
    if len(arguments) == 1:
        return FileJob(source, source.with_suffix(types.suffix) if source else None)
    if is_folder_name(arguments[1]):
        raise click.UsageError(
            f"{shown(arguments[1])} is a folder: name it with -o to write into it{_as_typed(arguments[1])}."
        )
    target = _path(arguments[1])
    if target and types.wanted(target) and target.is_file():
        # A shell pattern that matched two files looks the same as INPUT OUTPUT, and --force would destroy the second.
        raise click.UsageError(f"{shown(target)} looks like a second input: several inputs need -o FOLDER.")
    return FileJob(source, output_path(arguments[1], types.check))


def _as_typed(folder: str) -> str:
    """What to type for a folder in the last place, where cp takes it."""
    return f": type -o {shown(folder)}" if is_folder_name(folder) else ""


def _into_folder(
    arguments: tuple[str, ...], folder: Path, types: FileTypes, left_out: list[tuple[str, str]]
) -> Iterator[FileJob]:
    """Files become folder/NAME, files in folders keep their place in the tree; adds to ``left_out``."""
    for argument in arguments:
        if argument == "-":
            raise click.UsageError("Standard input does not go together with other inputs or a folder.")
        path = Path(argument)
        if not path.is_dir():
            yield FileJob(path, folder / Path(path.name).with_suffix(types.suffix), True)
            continue
        found = walk(path, types.wanted, types.foreign, types.unnamed)
        left_out += found.left_out
        for source in map(Path, found.files):
            yield FileJob(source, folder / source.relative_to(path).with_suffix(types.suffix), True)
        for problem in found.problems:
            yield FileJob(Path(problem.filename), None, problem=f"cannot be listed: {problem.strerror}")
        if not found.files and not found.problems:
            yield FileJob(path, None, problem=f"no {types.noun} in this folder")


def _without_collisions(jobs: Iterator[FileJob], types: FileTypes) -> Iterator[FileJob]:
    """photo.jpg and photo.png in one folder would both be photo.titok: the second is refused, wherever it runs."""
    taken: dict[Path, Path | None] = {}
    for job in jobs:
        job = _checked(job, types)
        first = taken.setdefault(job.target, job.source) if job.target else job.source
        if first != job.source:
            where = f"{shown(job.target)}, which is for {shown(first)}"
            job = replace(job, problem=f"would be written to {where}: rename one, or use another -o")
        yield job


def _checked(job: FileJob, types: FileTypes) -> FileJob:
    """A result must not replace its own input, however either is spelt."""
    if job.problem or not (job.source and job.target and job.source.exists() and job.target.exists()):
        return job
    if not job.source.samefile(job.target):
        return job
    problem = _mistaken(job.source, types) or "would be replaced by its own result: name another output"
    return replace(job, problem=problem)


def _mistaken(source: Path, types: FileTypes) -> str | None:
    """What a file is that already has the name of its result, if it is such a result."""
    with suppress(OSError), source.open("rb") as file:
        head = file.read(kinds.HEAD)
        found = kinds.kind_of(head)
        if types.suffix == ".titok":
            return kinds.ALREADY if found == kinds.TITOK else None
        return f"not a .titok file: {kinds.otherwise(head)}" if found and found.format else None
    return None


def is_folder_name(output: str) -> bool:
    """Whether an output is a folder, or named as one."""
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _path(argument: str) -> Path | None:
    """A path, or None for a standard stream."""
    return None if argument == "-" else Path(argument)
