"""Files of pictures: found in folders and WebDataset tar shards, read in order, and decoded.

What cannot be read is skipped and counted.
"""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from titokcodec.cli.picture_files import is_foreign_picture, is_picture
from titokcodec.errors import TitokError
from titokcodec.io.names import shown
from titokcodec.io.walk import AGAIN, NOWHERE, walk
from titokcodec.pictures import images

from . import progress

LARGEST = 1 << 27  # bytes of a picture's file; a hundred megapixels have fewer
LONGEST = 16  # pictures more elongated than this are cropped to it: few pixels can make one of any length
CLASS = ".cls"  # suffix of a file beside a picture that holds its class, a whole number
LONGEST_CLASS = 32  # bytes of it
LARGEST_CLASS = 9999  # of such numbers; every one below the largest of a set is a class

Lost: TypeAlias = Callable[[str, "str | None", str], None]  # as Rejects.add
Beside: TypeAlias = Callable[[str, str, bytes], None]  # as ClassFiles.add


class Rejects:
    """What could not be read, counted.

    Args:
        verbose: Warn on stderr as well, in one line for each shard or folder at most.

    Attributes:
        skipped: Pictures that could not be decoded.
        damaged: Shards whose rest is lost and folders that cannot be listed, each with the reason, one line each.
    """

    def __init__(self, verbose: bool = False) -> None:
        self.skipped, self.verbose = 0, verbose
        self.damaged: list[str] = []
        self._warned: set[str] = set()

    def add(self, where: str, name: str | None, reason: str) -> None:
        """Picture ``name`` of the shard or folder ``where`` is lost, or (None) all that was still to be read there."""
        line = shown(f"{where}: {reason}" if name is None else f"{where}: {name} {reason}")
        if name is not None:
            self.skipped += 1
        elif line not in self.damaged:
            self.damaged.append(line)
        if self.verbose and where not in self._warned:
            self._warned.add(where)
            rest = "the rest of it is left out" if name is None else "it is skipped, and so are all such"
            progress.clear()
            print(f"warning: {line}; {rest}", file=sys.stderr, flush=True)

    def nothing_in(self, sources: Iterable[Path]) -> TitokError:
        """The end of a run that found no picture at all."""
        line = f"no readable pictures in {', '.join(map(str, sources))}"
        if self.skipped or self.damaged:
            line += f" ({self.skipped} cannot be decoded; damaged shards or folders: {len(self.damaged)})"
        return TitokError(f"{shown(line)}: give folders or tar shards of whole pictures")


class ClassFiles:
    """Classes of pictures from files beside them, as ImageNet in WebDataset has them: ``00000000.cls`` holds the number
    of what ``00000000.jpg`` shows, as text. Anything else in such a file, or more than ``LARGEST_CLASS``, is no class.

    Args:
        folders: As for ``key_of``.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(folders)
        self._found: dict[tuple[str, str], str] = {}

    def add(self, where: str, name: str, text: bytes) -> None:
        """A file that ``read_files`` met, with what is in it."""
        number = int(text) if text.strip().isdigit() else LARGEST_CLASS + 1
        label = str(number) if number <= LARGEST_CLASS else ""
        self._found[where, key_of(where, name, self.folders)] = sys.intern(label)  # a million share a few

    def of(self, where: str, key: str) -> str | None:
        """The class of the picture ``key`` of a shard or folder; empty if its file says none, None without a file."""
        return self._found.get((where, key))


def find(sources: Iterable[Path], lost: Lost) -> list[str]:
    """Paths of the tar shards and pictures that are given or lie in given folders, those of each folder sorted.

    Raises:
        TitokError: a source does not exist.
    """
    paths: list[str] = []
    for source in map(os.fspath, sources):
        if os.path.isdir(source):
            found = walk(source, lambda path: is_shard(path.name) or is_picture(path), is_foreign_picture)
            for path, reason in found.left_out:
                _leave_out(path, reason, lost)
            for error in found.problems:
                lost(error.filename, None, error.strerror)
            paths += found.files
        elif os.path.exists(source):
            paths.append(source)
        else:
            raise TitokError(f"{shown(source)} does not exist or may not be read: check the path")
    return paths


def _leave_out(path: str, reason: str, lost: Lost) -> None:
    """A picture is one lost; with a shard, or a link to a folder, it is all that lies in it."""
    folder, name = os.path.split(path)
    if reason == NOWHERE or is_shard(path):
        lost(path, None, f"is {reason}")
    elif reason != AGAIN:  # nothing is lost
        lost(folder, name, f"is {reason}")


def is_shard(path: str) -> bool:
    """Whether a path is a tar shard's rather than a picture's."""
    return path.lower().endswith(".tar")


def read_files(
    paths: Iterable[str], lost: Lost, first: int = 0, stride: int = 1, beside: Beside | None = None
) -> Iterator[tuple[str, str, bytes]]:
    """Shard or folder, name and bytes of the pictures that ``paths`` are or hold, in order.

    Of all of them together every ``stride``-th is read, from number ``first`` on. A shard that turns out damaged is
    left at that point. A file that cannot be read, or has more than ``LARGEST`` bytes, comes without any, like a
    picture that cannot be decoded: a sparse file of gigabytes takes no space on disk, but it would in memory.

    ``beside`` is given the class files that are met: all of a shard, and in a folder those of the pictures read.
    """
    turns = cycle([number == first for number in range(stride)])
    for path in paths:
        if is_shard(path):
            yield from _read_shard(path, lost, turns, beside)
        elif next(turns):
            folder, name = os.path.split(path)
            if beside and (text := _read_file(os.path.splitext(path)[0] + CLASS, LONGEST_CLASS)):
                beside(folder or ".", os.path.splitext(name)[0] + CLASS, text)
            yield folder or ".", name, _read_file(path)


def _read_file(path: str, most: int = LARGEST) -> bytes:
    try:
        fits = os.path.isfile(path) and os.path.getsize(path) <= most  # reading a pipe could block for ever
        return Path(path).read_bytes() if fits else b""
    except OSError:
        return b""


def _read_shard(
    path: str, lost: Lost, turns: Iterator[bool], beside: Beside | None
) -> Iterator[tuple[str, str, bytes]]:
    try:
        if not os.path.isfile(path):
            raise OSError("not a file")
        end = os.path.getsize(path)
        with tarfile.open(path, "r:") as shard:
            for member in iter(shard.next, None):
                shard.members.clear()  # tarfile keeps all of them: a gigabyte for a million pictures
                plain = member.isfile() and not member.issparse()  # a sparse one may claim any size, and is no picture
                if member.size < 0 or (plain and member.offset_data + member.size > end):
                    raise tarfile.ReadError(f"cut short within {member.name}")
                if plain and is_picture(Path(member.name)) and next(turns):
                    yield path, member.name, shard.extractfile(member).read() if member.size <= LARGEST else b""
                elif plain and is_foreign_picture(Path(member.name)) and next(turns):
                    yield path, member.name, b""
                elif beside and plain and member.name.endswith(CLASS) and member.size <= LONGEST_CLASS:
                    beside(path, member.name, shard.extractfile(member).read())
            # To tarfile a broken header is an end like any other; a real one is a block of zeros.
            shard.fileobj.seek(shard.offset)
            if shard.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"cut short or damaged at byte {shard.offset}")
    except Exception as error:  # tarfile raises half a dozen types on damaged headers
        lost(path, None, f"not a whole tar file ({' '.join(str(error).split()) or type(error).__name__})")


def key_of(where: str, name: str, folders: Iterable[Path]) -> str:
    """A picture's key in tables of labels, given where ``read_files`` found it: its path without the suffix.

    That is relative to the first of ``folders`` that holds it, or the name alone if none does. In a shard it ends at
    the first dot of its last part, as in WebDataset.
    """
    if is_shard(where) and not os.path.isdir(where):
        folder, base = posixpath.split(posixpath.normpath(name))
        return posixpath.join(folder, base.partition(".")[0] or base)
    path = Path(where, name)
    inside = next((path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), Path(name))
    return inside.with_suffix("").as_posix()


def read_picture(data: bytes) -> np.ndarray | None:
    """The upright sRGB picture as (h, w, 3) uint8, just as the codec sees it; None if it is damaged or too large."""
    try:
        return images.load(data).pixels  # Pillow's limit is checked first, so that a bomb costs no memory
    except Exception:  # ImageError and LimitExceeded, but also what Pillow may raise besides
        return None


def decode(data: bytes, side: int, largest: int | None = None) -> np.ndarray | None:
    """The picture as (h, w, 3) uint8, or None if it cannot be read. Its shorter side has ``side`` pixels or, if
    ``largest`` is given, as many as it came with, but no fewer than ``side`` and no more than ``largest``."""
    pixels = read_picture(data)
    if pixels is None:
        return None
    return resized(pixels, min(max(min(pixels.shape[:2]), side), largest or side))


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 with ``side`` pixels on the shorter side; of a picture beyond ``LONGEST``, its middle.

    Just as torchvision's ``Resize`` makes it, with which published models are trained and evaluated: bicubic with
    antialiasing, the longer side rounded down.
    """
    short = min(pixels.shape[:2])
    top, left = (max(length - short * LONGEST, 0) // 2 for length in pixels.shape[:2])
    pixels = pixels[top : top + short * LONGEST, left : left + short * LONGEST]
    height, width = (side * length // short for length in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
