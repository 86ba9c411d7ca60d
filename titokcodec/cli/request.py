"""What ``titok-generate`` is asked for, and where the results go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import picture_files
from titokcodec.cli.paths import is_folder_name
from titokcodec.cli.picture_files import PNG, PictureFormat
from titokcodec.cli.sampling_options import OF_MASKED
from titokcodec.cli.streams import exists, in_the_way
from titokcodec.errors import TitokError
from titokcodec.io.names import shown
from titokcodec.region import Region

if TYPE_CHECKING:
    from titokcodec.generator import Generator

TITOK = PictureFormat("TITOK", ".titok")  # the one format that is not Pillow's
MOST = 100_000  # pictures of a command: their names are held in memory


@dataclass(frozen=True)
class Edit:
    """What to do with a compressed picture.

    Attributes:
        source: The .titok file, ``-`` for standard input.
        last: Another one: the pictures are those between the two.
        region: What to fill anew.
        keep: How many of the first tokens stay as they are.
        share: Which part of the others to sample again, or of those that the region moves most.
    """

    source: str
    last: str | None = None
    region: Region | None = None
    keep: int = 0
    share: float = 1.0

    def described(self, count: int) -> str:
        """So many results, in words."""
        source = named(self.source)
        if self.last is not None:
            what = f"{count} pictures" if count > 1 else "a picture"
            return f"{what} from {source} to {named(self.last)}"
        if self.region is not None:
            what = f"{count} fillings" if count > 1 else "a filling"
            return f"{what} of {self.region} in {source}"
        what = f"{count} variations" if count > 1 else "a variation"
        return f"{what} of {source}"


@dataclass(frozen=True)
class Request:
    """The pictures to generate.

    Attributes:
        labels: A class for each picture as it was given, by name or number; None for any.
        seed: Of the random generators.
        edit: What to make of a compressed picture; None for new pictures.
        tokens: How many a picture has; None for the most, or for those of the file to edit.
        settings: Of ``titokcodec.sampling.Settings``, those that were given.
    """

    labels: list[str | None]
    seed: int
    edit: Edit | None
    tokens: int | None
    settings: dict[str, Any]

    @property
    def between(self) -> bool:
        """Whether the pictures are those on the way from one to another, which are not sampled."""
        return self.edit is not None and self.edit.last is not None

    @property
    def sampled_with(self) -> int | None:
        """The seed, None where nothing is sampled."""
        return None if self.between else self.seed

    def check(self, generator: Generator) -> None:
        """Raise ``TitokError`` if the generator lacks a class, a number of tokens or a setting."""
        for label in dict.fromkeys(self.labels):
            class_number(generator, label)
        generator.count_of(self.tokens)
        idle = [f"--{name.replace('_', '-')}" for name in OF_MASKED if name in self.settings]
        if idle and generator.config.causal:
            raise TitokError(f"generator {generator.name} samples one token after the other: leave {idle[0]} out")

    def __str__(self) -> str:
        count, kinds = len(self.labels), list(dict.fromkeys(self.labels))
        what = f"{count} pictures" if count > 1 else "a picture"
        if self.edit is not None:
            what = self.edit.described(count)
        if kinds == [None]:
            return what
        classes = ", ".join(shown(kind) for kind in kinds) if len(kinds) < 4 else f"{len(kinds)} classes"
        return f"{what} {'of' if self.edit is None else 'as'} {classes}"


def named(source: str) -> str:
    """A file that is read, as messages call it."""
    return shown(None if source == "-" else source, "stdin")


def in_turns(classes: tuple[str, ...], count: int | None) -> list[str | None]:
    """A class for each picture, the classes taking turns; None for any."""
    kinds = classes or (None,)
    if count is not None and count < len(kinds):
        raise click.UsageError(f"{len(kinds)} classes need as many pictures: give -n {len(kinds)} or more.")
    return [kinds[number % len(kinds)] for number in range(count or len(kinds))]


def class_number(generator: Generator, label: str | None) -> int:
    """-1 for any class. Names go first, since a class may be called 7. Raises ``TitokError`` if there is none."""
    if label and label.isdecimal() and label not in (generator.class_names or ()):
        return generator.class_number(int(label))
    return generator.class_number(label)


@dataclass(frozen=True)
class Destination:
    """Where pictures go.

    Attributes:
        output: As it was given.
        format: ``TITOK``, or a name of Pillow's.
        targets: A file for each picture; or a single one, None for standard output, that shows all of them.
        folder: They go into a folder, which is made if it is missing.
    """

    output: str
    format: str
    targets: list[Path | None]
    folder: bool = False

    def check(self, force: bool) -> None:
        """Raise ``OSError`` if writing is bound to fail, before any work is done."""
        if self.folder and os.path.lexists(self.output.rstrip("/")) and not os.path.isdir(self.output):
            raise OSError(f"{shown(self.output)} is not a folder: name another")
        for target in self.targets:
            if in_the_way(target) and not force:
                raise OSError(exists(target))
            if target and not self.folder and not target.parent.is_dir():
                raise OSError(f"cannot write {shown(target)}: there is no folder {shown(target.parent)}")


def destination(output: str, format_: PictureFormat | None, request: Request) -> Destination:
    """A name with a suffix is a file, any other a folder, as for the other commands.

    Raises:
        click.UsageError: several pictures are to be one .titok file.
        ImageError: no format has this suffix.
    """
    if _is_folder(output):
        name, suffix = format_ or PNG
        return Destination(output, name, [Path(output, f"{stem}{suffix}") for stem in _stems(request)], True)
    target = None if output == "-" else Path(output)
    name = format_.name if format_ else _by_suffix(target)
    if name == TITOK.name and len(request.labels) > 1:
        raise click.UsageError("A .titok file holds one picture: give -o a folder, and --format titok.")
    return Destination(output, name, [target])


def _is_folder(output: str) -> bool:
    if output == "-":
        return False
    path = Path(output)
    return is_folder_name(output) or not (path.suffix or os.path.lexists(path))


def _by_suffix(target: Path | None) -> str:
    return TITOK.name if target and picture_files.is_titok(target) else picture_files.format_of(target)


def _stems(request: Request) -> Iterator[str]:
    """tench-000, kite-001, tench-002 ...: what a picture shows or comes from, and its number."""
    digits = max(3, len(str(len(request.labels) - 1)))
    for number, label in enumerate(request.labels):
        name = label or "any"
        if request.edit is not None:
            name = "variation" if request.edit.source == "-" else Path(request.edit.source).stem
        # A class may have any name: nothing of it may look like a folder, or be longer than a file's name can be.
        plain = re.sub(r"\W+", "-", name).strip("-")[:40] or "class"
        yield f"{plain}-{number:0{digits}}"
