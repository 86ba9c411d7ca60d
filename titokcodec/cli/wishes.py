"""What ``titok-generate`` is asked for, and where it goes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import pictures
from titokcodec.cli.jobs import is_folder_name
from titokcodec.cli.tool import exists, in_the_way
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.generator import Generator

TITOK = "TITOK"  # the one format that is not Pillow's


@dataclass(frozen=True)
class Wish:
    """What to make.

    Attributes:
        labels: A class for each picture as it was given, by name or number; None for any.
        seed: Where chance starts.
        source: The .titok file to vary, ``-`` for standard input; None for pictures out of nothing.
        share: Which part of its tokens is chosen anew.
        settings: Of ``titokcodec.sampling.Settings``.
    """

    labels: list[str | None]
    seed: int
    source: str | None
    share: float
    settings: dict[str, Any]

    def check_labels(self, generator: Generator) -> None:
        """Raise ``TitokError`` if the generator lacks a class."""
        for label in dict.fromkeys(self.labels):
            class_number(generator, label)

    def __str__(self) -> str:
        count, kinds = len(self.labels), list(dict.fromkeys(self.labels))
        what = f"{count} pictures" if count > 1 else "a picture"
        if self.source is not None:
            what = f"{count} variations" if count > 1 else "a variation"
            what += f" of {shown(None if self.source == '-' else self.source, 'stdin')}"
        if kinds == [None]:
            return what
        named = ", ".join(shown(kind) for kind in kinds) if len(kinds) < 4 else f"{len(kinds)} classes"
        return f"{what} {'of' if self.source is None else 'as'} {named}"


def taking_turns(classes: tuple[str, ...], count: int | None) -> list[str | None]:
    """Classes that take turns."""
    kinds = classes or (None,)
    if count is not None and count < len(kinds):
        raise click.UsageError(f"{len(kinds)} classes on {count} pictures: give -n {len(kinds)} or more.")
    return [kinds[number % len(kinds)] for number in range(count or len(kinds))]


def class_number(generator: Generator, label: str | None) -> int:
    """-1 for any class. Names go first, since a class may be called 7. Raises ``TitokError`` if there is none."""
    if label and label.isdecimal() and label not in (generator.class_names or ()):
        return generator.class_number(int(label))
    return generator.class_number(label)


@dataclass(frozen=True)
class Place:
    """Where pictures go.

    Attributes:
        output: As it was given.
        format: ``TITOK``, or what Pillow calls it.
        targets: A file for each picture; or a single one, None for standard output, that shows all of them.
        folder: They lie in a folder that is made for them.
    """

    output: str
    format: str
    targets: list[Path | None]
    folder: bool = False

    def check(self, force: bool) -> None:
        """Raise ``OSError`` if writing is bound to fail: known before the work rather than after it."""
        if self.folder and os.path.lexists(self.output.rstrip("/")) and not os.path.isdir(self.output):
            raise OSError(f"{shown(self.output)} is no folder: name another")
        for target in self.targets:
            if in_the_way(target) and not force:
                raise OSError(exists(target))
            if target and not self.folder and not target.parent.is_dir():
                raise OSError(f"cannot write {shown(target)}: there is no folder {shown(target.parent)}")


def placed(output: str, format_name: str | None, wish: Wish) -> Place:
    """A name with a suffix is a file, any other a folder, as for the other commands.

    Raises:
        click.UsageError: several pictures are to be one .titok file.
        ImageError: a suffix that no format has.
    """
    if _is_folder(output):
        name = format_name or "PNG"
        suffix = ".titok" if name == TITOK else pictures.suffix_of(name)
        return Place(output, name, [Path(output, f"{stem}{suffix}") for stem in _stems(wish)], True)
    target = None if output == "-" else Path(output)
    name = format_name or (_by_suffix(target) if target else "PNG")
    if name == TITOK and len(wish.labels) > 1:
        raise click.UsageError("A .titok file holds one picture: give -o a folder, and --format titok.")
    return Place(output, name, [target])


def _is_folder(output: str) -> bool:
    if output == "-":
        return False
    path = Path(output)
    return is_folder_name(output) or not (path.suffix or os.path.lexists(path))


def _by_suffix(target: Path) -> str:
    return TITOK if pictures.is_titok(target) else pictures.format_of(target)


def _stems(wish: Wish) -> Iterator[str]:
    """tench-000, kite-001, tench-002 ...: what a picture shows or comes from, and its number."""
    digits = max(3, len(str(len(wish.labels) - 1)))
    for number, label in enumerate(wish.labels):
        name = label or "any"
        if wish.source is not None:
            name = "variation" if wish.source == "-" else Path(wish.source).stem
        # A class may have any name: nothing of it may look like a folder, or be longer than a file's name can be.
        plain = re.sub(r"\W+", "-", name).strip("-")[:40] or "class"
        yield f"{plain}-{number:0{digits}}"
