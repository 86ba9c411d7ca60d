"""Classes of pictures: from a table of keys and labels, or else from their folders, or from files beside them.

A picture's key is its path below the folder or shard that holds it, without suffix: ``cat/0000``. A table may also have
suffixes, and leave folders out where no two pictures share a name. Without a table the first folder of a key is the
picture's class, as torchvision's ``ImageFolder`` has it, if there are two such folders or more. Without these it is
what a file ``.cls`` beside the picture says, as ImageNet's shards have it: see ``reading.ClassFiles``.

Classes are numbered in the order of their names, unless all are whole numbers: these number themselves, wherever they
come from, so that class 207 of a generator trained on ImageNet's is class 207 of the published ones.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from titokcodec.errors import TitokError
from titokcodec.io.names import examples, shown

from .reading import LARGEST_CLASS

KEYS = {"key", "name", "file", "filename", "file_name", "path", "image"}  # what a header may call the one column
LABELS = {"label", "class", "category"}  # and the other


class Listed(Protocol):
    """Pictures by their names, keys, and the classes noted beside them, as ``Pictures`` has them."""

    names: list[str]
    keys: list[str]
    noted: list[str | None]


@dataclass(frozen=True)
class Labels:
    """The classes of a set of pictures.

    Attributes:
        source: What they are from, for messages.
        keys: Those of the pictures, in order.
        found: Label of each picture, None where it has none.
        unused: Keys of the table that none of the pictures has.
        tried: Whether there was anything to take labels from.
    """

    source: str
    keys: Sequence[str]
    found: Sequence[str | None]
    unused: Sequence[str] = ()
    tried: bool = True

    @property
    def names(self) -> list[str]:
        """All labels that pictures have, sorted."""
        return sorted({label for label in self.found if label is not None})

    @property
    def numbered(self) -> bool:
        """Whether the labels are the numbers of their classes, see ``are_numbers``."""
        return are_numbers(self.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class, see ``classes_of``."""
        return classes_of(self.names)

    def numbers(self, classes: Sequence[str]) -> Tensor:
        """(n,) int64 index of each picture's label among ``classes``, -1 for none."""
        index = {label: number for number, label in enumerate(classes)}
        return torch.tensor([index.get(label, -1) for label in self.found], dtype=torch.int64)

    def __str__(self) -> str:
        without = [key for key, label in zip(self.keys, self.found, strict=True) if label is None]
        count, classes = len(self.found), len(self.names)
        labels = f"{classes} label{'s' * (classes != 1)}"
        labels += f", numbers up to {max(map(int, self.names))}" if self.numbered else ""
        line = f"{self.source}: {count - len(without):,} of {count:,} pictures have one of {labels}"
        line += f"; none for {_some(without)}" if without else ""
        return line + (f"; no picture for {_some(self.unused)} of the table" if self.unused else "")


def are_numbers(labels: Collection[str]) -> bool:
    """Whether all of some labels are whole numbers up to ``LARGEST_CLASS``, written as such: they number classes."""
    return bool(labels) and all(_is_number(label) for label in labels)


def classes_of(labels: Collection[str]) -> tuple[str, ...]:
    """A name for each class, in their order: all labels, sorted, or all whole numbers up to the largest among them."""
    return tuple(map(str, range(max(map(int, labels)) + 1)) if are_numbers(labels) else sorted(set(labels)))


def labels_of(pictures: Listed, table: Mapping[str, str] | None, source: str = "table") -> Labels:
    """The labels that a table, from the file ``source``, has for the pictures; or without one those of their folders or
    else of the files beside them."""
    if table is not None:
        return _by_table(pictures, table, source)
    folders = [key.partition("/")[0] if "/" in key else None for key in pictures.keys]
    if len(set(folders) - {None}) > 1:
        return Labels("folders as classes", pictures.keys, folders)
    noted, tried = [label or None for label in pictures.noted], any(label is not None for label in pictures.noted)
    return Labels("classes in .cls files", pictures.keys, noted, tried=tried)


def _by_table(pictures: Listed, table: Mapping[str, str], source: str) -> Labels:
    bases = Counter(posixpath.basename(key) for key in pictures.keys)
    found, used = [], set()
    for name, key in zip(pictures.names, pictures.keys, strict=True):
        folder, base = posixpath.split(key)
        file = posixpath.basename(name)
        candidates = [posixpath.join(folder, file), key, *([file, base] if bases[base] == 1 else [])]
        match = next((candidate for candidate in candidates if candidate in table), None)
        found.append(None if match is None else table[match])
        used.add(match)
    return Labels(source, pictures.keys, found, [key for key in table if key not in used], bool(table))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and str(int(label)) == label and int(label) <= LARGEST_CLASS


def read_table(path: Path) -> dict[str, str]:
    """Label by key, from a table of two columns with tabs, commas or semicolons between them, or from JSON.

    A header names the columns ``key`` and ``label`` (or the like: ``file_name``, ``class``), among others perhaps;
    there may be none if there are two columns. JSON is an object of keys and labels, a list of pairs or of objects, or
    an object with such a list called ``labels``. Empty labels are none.

    Raises:
        TitokError: it cannot be read as such a table, or has two labels for one key.
    """
    table: dict[str, str] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a byte order mark
        for key, label in _json_rows(text) if path.suffix.lower() == ".json" else _rows(text):
            key = key.removeprefix("./")
            if label and table.setdefault(key, label) != label:
                raise ValueError(f"{key!r} has two labels, {table[key]!r} and {label!r}")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise TitokError(f"{path} is no table of key and label: {reason}") from None
    return table


def _rows(text: str) -> Iterator[tuple[str, str]]:
    text = text.lstrip("\r\n")
    delimiter = next((mark for mark in "\t,;" if mark in text.partition("\n")[0]), None)
    if delimiter is None:
        raise ValueError("its first line has neither tab nor comma")
    rows = ([cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    first = next(rows)
    key, label = (_column(first, names) for names in (KEYS, LABELS))
    if (key is None) != (label is None):
        raise ValueError(f"its header, {', '.join(first)}, does not name both columns")
    if key is None:
        if len(first) != 2:
            raise ValueError(f"it has {len(first)} columns and no header that names key and label")
        key, label = 0, 1
        yield first[0], first[1]
    for number, row in enumerate(rows, 2):
        if any(row):
            if len(row) <= max(key, label):
                raise ValueError(f"row {number} has {len(row)} columns")
            yield row[key], row[label]


def _column(header: Sequence[str], names: set[str]) -> int | None:
    return next((number for number, cell in enumerate(header) if cell.lower() in names), None)


def _json_rows(text: str) -> Iterator[tuple[str, str]]:
    found = json.loads(text)
    if isinstance(found, dict):
        found = found["labels"] if isinstance(found.get("labels"), list) else list(found.items())
    if not isinstance(found, list):
        raise ValueError("its JSON is neither an object nor a list")
    for entry in found:
        if isinstance(entry, dict):
            entry = [next((entry[name] for name in entry if name.lower() in names), None) for names in (KEYS, LABELS)]
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ValueError(f"{json.dumps(entry)[:60]} is no pair of key and label")
        if not isinstance(entry[1], (str, int, type(None))):
            raise ValueError(f"the label of {entry[0]!r} is neither text nor a whole number")
        yield entry[0], "" if entry[1] is None else str(entry[1])


def _some(names: Sequence[str]) -> str:
    return examples([shown(name) for name in names])
