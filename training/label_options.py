"""Where classes come from, as a command line says: tables, their renaming, and how many pictures a class must have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError

from . import progress
from .argtypes import whole
from .label_tables import read_tables
from .labels import Labels, Listed, labels_of


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--labels``, ``--no-labels``, ``--rename`` and ``--least-pictures``."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        help="tables of key and label (tsv, csv, json), later ones winning; a key is the path of a picture below "
        "--data or in its shard, without suffix, or a pattern such as cub_*, which keys that are written out win "
        "over; an empty label or - takes one away (default: a picture's folder is its class, if there are two or "
        "more, or else a file .cls beside it says it)",
    )
    either.add_argument(
        "--no-labels", action="store_true", help="no picture has a class, whatever folders and files there are"
    )
    parser.add_argument(
        "--rename",
        type=Path,
        nargs="+",
        help="tables of label and class, as those of --labels: rose and flower, for example; - drops a label",
    )
    parser.add_argument(
        "--least-pictures",
        type=whole(1),
        default=1,
        metavar="N",
        help="drop labels that fewer pictures have (default: %(default)s)",
    )


@dataclass(frozen=True)
class LabelSource:
    """What labels pictures.

    Attributes:
        name: The tables, for messages.
        table: Label by key, see ``label_tables``; None for the pictures' folders or the files beside them.
        renames: Class by label, likewise.
        least: Pictures that a class must have.
        wanted: Whether labels are asked for at all.
    """

    name: str
    table: dict[str, str] | None
    renames: dict[str, str]
    least: int = 1
    wanted: bool = True

    @classmethod
    def read(cls, tables: Sequence[Path] | None, none: bool, renames: Sequence[Path] | None, least: int) -> LabelSource:
        """What the options of these names say.

        Raises:
            UsageError: there are to be no labels, and something is to be done with them.
            TitokError: a file is no table.
        """
        if none and (renames or least > 1):
            raise UsageError("--no-labels leaves nothing to rename or to count: leave the other options of labels out")
        table = read_tables(tables) if tables else {} if none else None
        return cls(", ".join(map(str, tables or ())), table, read_tables(renames or (), renaming=True), least, not none)

    def of(self, pictures: Listed, least: int | None = None) -> Labels:
        """The labels of pictures, but for those of fewer than ``least``, by default those that were asked for; prints
        how many there are."""
        found = labels_of(pictures, self.table, self.name).renamed(self.renames)
        found = found.without_rare(self.least if least is None else least)
        if found.tried:
            progress.message(str(found))
        elif self.wanted:
            progress.message("no picture has a class: folders or --labels would give them one")
        return found

    def of_training(self, pictures: Listed) -> Labels:
        """The same. Raises ``TitokError`` if there are tables, but no picture has a label in the end."""
        found = self.of(pictures)
        if not self.table or found.classes:
            return found
        if any(labels_of(pictures, self.table).found):
            raise TitokError("no label is left: give a smaller --least-pictures, or other classes by --rename")
        if len(found.unused) < len(self.table):
            raise TitokError(f"{self.name} gives no label to any picture, it only takes some away: give another table")
        raise TitokError(
            f"{self.name} has a label for none of the {len(pictures.keys)} pictures: their keys are like "
            f"{pictures.keys[0]}, the table's like {next(iter(self.table))}"
        )
