"""The files in a folder: all that are wanted, and the names of those that look like one and are left out.

Links to folders are followed, and each folder is searched once, under its own name if that lies in the tree: links that
lead in circles, or a thousand to one place, add nothing. What is hidden, by a name that begins with a dot, is left out,
files and folders both; so are pipes and devices, since reading them could wait for ever. A link to a file that is gone
counts as the file, so that reading it fails and says why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from titokcodec.io.names import examples, shown

# Why something is left out, so that it can follow "is".
STREAM = "a pipe or device"
HIDDEN = "hidden"
FOREIGN = "in a format that is not read here"
NOWHERE = "a link that leads nowhere"
AGAIN = "a folder searched under another name"
NO_SUFFIX = "a picture without a suffix"

ByName: TypeAlias = Callable[[Path], bool]


@dataclass
class Found:
    """The files of a folder.

    Attributes:
        files: Paths, sorted by their parts: the same on every machine.
        left_out: Path and reason of what was left out, in the same order.
        problems: Folders that could not be listed; each names its folder as ``filename``.
    """

    files: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    problems: list[OSError] = field(default_factory=list)


def walk(
    folder: str | os.PathLike,
    wanted: ByName,
    foreign: ByName = lambda path: False,
    unnamed: ByName = lambda path: False,
) -> Found:
    """Search a folder and all below it.

    Args:
        folder: Where to begin.
        wanted: Whether a file is one of those to find, by its name.
        foreign: Whether users might expect it to be found, so that leaving it out is to be reported.
        unnamed: Whether a file without a suffix, given by its path, is such a one.
    """
    found = Found()
    searched: set[tuple[int, int]] = set()
    trees = deque([os.fspath(folder)])  # links wait for their turn, so that folders' own names go first
    while trees:
        for entry in _tree(trees.popleft(), searched, trees, found):
            name = Path(entry.name)
            if wanted(name):
                if reason := _unfit(entry):
                    found.left_out.append((entry.path, reason))
                else:
                    found.files.append(entry.path)
            elif foreign(name):
                found.left_out.append((entry.path, HIDDEN if entry.name.startswith(".") else FOREIGN))
            elif not name.suffix and _leads_nowhere(entry):  # perhaps to a folder
                found.left_out.append((entry.path, NOWHERE))
            elif not name.suffix and _is_visible_file(entry) and unnamed(Path(entry.path)):
                found.left_out.append((entry.path, NO_SUFFIX))
    found.files.sort(key=lambda path: path.split(os.sep))
    found.left_out.sort(key=lambda left: left[0].split(os.sep))
    return found


def summary(left_out: Sequence[tuple[str, str]]) -> str:
    """How many were left out, and for each reason a few of their names, in one line."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out:
        by_reason.setdefault(reason, []).append(shown(path))
    return f"{len(left_out)} left out: " + "; ".join(f"{examples(names)} ({why})" for why, names in by_reason.items())


def _tree(top: str, searched: set[tuple[int, int]], links: deque[str], found: Found) -> Iterator[os.DirEntry]:
    """What is no folder below ``top``, not following ``links`` to folders, which are collected."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in searched:
                found.left_out.append((folder, AGAIN))
                continue
            searched.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            error.filename = error.filename or folder
            found.problems.append(error)
            continue
        for entry in entries:
            if not _is_folder(entry):
                yield entry
            elif entry.name.startswith("."):
                found.left_out.append((entry.path, HIDDEN))
            elif entry.is_symlink():
                links.append(entry.path)
            else:
                folders.append(entry.path)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead in a circle
        return False


def _unfit(entry: os.DirEntry) -> str | None:
    """Why a file with the right name is left out; None if it is not."""
    if entry.name.startswith("."):
        return HIDDEN
    try:
        return None if entry.is_file() or _leads_nowhere(entry) else STREAM
    except OSError:
        return None


def _is_visible_file(entry: os.DirEntry) -> bool:
    try:
        return not entry.name.startswith(".") and entry.is_file()
    except OSError:
        return False


def _leads_nowhere(entry: os.DirEntry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
