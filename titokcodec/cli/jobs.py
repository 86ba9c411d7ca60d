"""Which files to read and where their results go: arguments to jobs."""

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
class Job:
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
class Kind:
    """What a command reads and writes.

    Attributes:
        noun: What its inputs are called.
        wanted: Whether a file found in a folder is one of them, by its name.
        suffix: Of the results, with the dot.
        check: Raises ``click.UsageError`` for a file name that no result may have.
        foreign: Whether it is one that cannot be read here, which is told rather than passed over in silence.
    """

    noun: str
    wanted: ByName
    suffix: str
    check: Callable[[Path], None]
    foreign: ByName = lambda path: False


class Plan(NamedTuple):
    """What a command is to do: its jobs, and what it leaves out of folders, as path and reason."""

    jobs: list[Job]
    left_out: list[tuple[str, str]]


def plan_jobs(arguments: tuple[str, ...], output: str | None, kind: Kind) -> Plan:
    """Jobs for the arguments of a command, in an order that is the same on every machine.

    Without ``output``, one argument is an input whose result lies beside it and two are INPUT OUTPUT. With it, all
    are inputs; ``output`` is a folder, or for a single input a file if it has a suffix.

    Raises:
        click.UsageError: the arguments can be understood in more than one way, or in none.
    """
    if output is None:
        return Plan([_checked(_pair(arguments, kind), kind)], [])
    is_file = output == "-" or (Path(output).suffix and not is_folder_name(output))
    if is_file and len(arguments) == 1 and not os.path.isdir(arguments[0]):
        return Plan([_checked(Job(_path(arguments[0]), result_of(output, kind.check)), kind)], [])
    if output == "-":
        raise click.UsageError("Standard output takes one file: give -o a folder.")
    is_result = Path(output).suffix.lower() == kind.suffix and not is_folder_name(output)
    if is_result or (os.path.exists(output) and not os.path.isdir(output)):
        raise click.UsageError(f"-o {shown(output)} is a file: several inputs need a folder.")
    left_out: list[tuple[str, str]] = []
    jobs = list(_without_collisions(_into_folder(arguments, Path(output), kind, left_out), kind))
    return Plan(jobs, left_out)


def result_of(output: str, check: Callable[[Path], None]) -> Path | None:
    """A single file to write, None for standard output. Raises ``click.UsageError`` for a name that none may have."""
    target = _path(output)
    if is_folder_name(output):
        raise click.UsageError(f"{shown(output)} is a folder: name the file to write.")
    if target and not is_stream(target):
        check(target)
    return target


def inputs(arguments: tuple[str, ...], kind: Kind) -> Plan:
    """Jobs that only read: files, standard input, and all that is wanted in folders."""
    if arguments == ("-",):
        return Plan([Job(None, None)], [])
    left_out: list[tuple[str, str]] = []
    jobs = [replace(job, target=None) for job in _into_folder(arguments, Path(), kind, left_out)]
    return Plan(jobs, left_out)


def shard(jobs: list[Job], part: tuple[int, int]) -> list[Job]:
    """Every n-th job, for machine i of n."""
    index, count = part
    return jobs[index::count]


def _pair(arguments: tuple[str, ...], kind: Kind) -> Job:
    """INPUT, or INPUT OUTPUT."""
    if len(arguments) > 2:
        raise click.UsageError(f"Several inputs need -o FOLDER{_as_typed(arguments[-1])}.")
    if os.path.isdir(arguments[0]):
        raise click.UsageError(f"{shown(arguments[0])} is a folder: say with -o FOLDER where its results go.")
    source = _path(arguments[0])
    if len(arguments) == 1:
        return Job(source, source.with_suffix(kind.suffix) if source else None)
    if is_folder_name(arguments[1]):
        raise click.UsageError(
            f"{shown(arguments[1])} is a folder: name it with -o to write into it{_as_typed(arguments[1])}."
        )
    target = _path(arguments[1])
    if target and kind.wanted(target) and target.is_file():
        # A shell pattern that matched two files looks the same as INPUT OUTPUT, and --force would destroy the second.
        raise click.UsageError(f"{shown(target)} looks like a second input: several inputs need -o FOLDER.")
    return Job(source, result_of(arguments[1], kind.check))


def _as_typed(folder: str) -> str:
    """What to type for a folder that stands last, as for cp."""
    return f": type -o {shown(folder)}" if is_folder_name(folder) else ""


def _into_folder(
    arguments: tuple[str, ...], folder: Path, kind: Kind, left_out: list[tuple[str, str]]
) -> Iterator[Job]:
    """Files become folder/NAME, what lies in folders keeps its place in the tree; adds to ``left_out``."""
    for argument in arguments:
        if argument == "-":
            raise click.UsageError("Standard input does not go together with other inputs or a folder.")
        path = Path(argument)
        if not path.is_dir():
            yield Job(path, folder / Path(path.name).with_suffix(kind.suffix), True)
            continue
        found = walk(path, kind.wanted, kind.foreign)
        left_out += found.left_out
        for source in map(Path, found.files):
            yield Job(source, folder / source.relative_to(path).with_suffix(kind.suffix), True)
        for problem in found.problems:
            yield Job(Path(problem.filename), None, problem=f"cannot be listed: {problem.strerror}")
        if not found.files and not found.problems:
            yield Job(path, None, problem=f"no {kind.noun} in this folder")


def _without_collisions(jobs: Iterator[Job], kind: Kind) -> Iterator[Job]:
    """photo.jpg and photo.png in one folder would both be photo.titok: the second is refused, wherever it runs."""
    taken: dict[Path, Path | None] = {}
    for job in jobs:
        job = _checked(job, kind)
        first = taken.setdefault(job.target, job.source) if job.target else job.source
        if first != job.source:
            where = f"{shown(job.target)}, which is for {shown(first)}"
            job = replace(job, problem=f"would be written to {where}: rename one, or use another -o")
        yield job


def _checked(job: Job, kind: Kind) -> Job:
    """A result must not replace its own input, however either is spelt."""
    if job.problem or not (job.source and job.target and job.source.exists() and job.target.exists()):
        return job
    if not job.source.samefile(job.target):
        return job
    problem = _mistaken(job.source, kind) or "would be replaced by its own result: name another output"
    return replace(job, problem=problem)


def _mistaken(source: Path, kind: Kind) -> str | None:
    """What a file is that has the name of its result already, if it is such a result."""
    with suppress(OSError), source.open("rb") as file:
        head = file.read(kinds.HEAD)
        found = kinds.kind_of(head)
        if kind.suffix == ".titok":
            return kinds.ALREADY if found == kinds.TITOK else None
        return f"not a .titok file: {kinds.otherwise(head)}" if found and found.format else None
    return None


def is_folder_name(output: str) -> bool:
    """Whether an output is a folder, or named as one."""
    return os.path.isdir(output) or output.endswith(("/", os.sep))


def _path(argument: str) -> Path | None:
    """A path, or None for a standard stream."""
    return None if argument == "-" else Path(argument)
