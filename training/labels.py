"""Classes of pictures: from a table of keys and labels, or else from their folders, or from files beside them.

A picture's key is its path below the folder or shard that holds it, without suffix: ``cat/0000``. A table may also have
suffixes, and leave folders out where no two pictures share a name. Without a table the first folder of a key is the
picture's class, as torchvision's ``ImageFolder`` has it, if there are two such folders or more. Without these it is
what a file ``.cls`` beside the picture says, as ImageNet's shards have it: see ``reading.ClassFiles``.

Classes are numbered in the order of their names, unless all are whole numbers: these number themselves, wherever they
come from, so that class 207 of a generator trained on ImageNet's is class 207 of the published ones.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from titokcodec.io.names import examples, shown

from .label_tables import Lookup
from .reading import LARGEST_CLASS


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
        dropped: Labels that were taken away as too few pictures have them, each with their number.
        unknown: Labels that are to be renamed, but which none of the pictures has.
    """

    source: str
    keys: Sequence[str]
    found: Sequence[str | None]
    unused: Sequence[str] = ()
    tried: bool = True
    dropped: Mapping[str, int] = field(default_factory=dict)
    unknown: Sequence[str] = ()

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

    def renamed(self, table: Mapping[str, str]) -> Labels:
        """With the names that a table, as of ``label_tables``, has for labels; those that it does not mention stay."""
        names, labels = Lookup(table), set(self.found)
        unknown = [label for label in names.exact if label not in labels]
        return replace(self, found=[label and _renamed(label, names) for label in self.found], unknown=unknown)

    def without_rare(self, least: int) -> Labels:
        """Without the labels that fewer than ``least`` pictures have."""
        counts = Counter(label for label in self.found if label is not None)
        rare = {label: count for label, count in sorted(counts.items()) if count < least}
        return replace(self, found=[None if label in rare else label for label in self.found], dropped=rare)

    def __str__(self) -> str:
        without = [key for key, label in zip(self.keys, self.found, strict=True) if label is None]
        count, classes = len(self.found), len(self.names)
        labels = f"{classes} label{'s' * (classes != 1)}"
        labels += f", numbers up to {max(map(int, self.names))}" if self.numbered else ""
        line = f"{self.source}: {count - len(without):,} of {count:,} pictures have one of {labels}"
        line += f"; none for {_some(without)}" if without else ""
        line += f"; no picture for {_some(self.unused)} of the table" if self.unused else ""
        line += f"; no label {_some(self.unknown)} to rename" if self.unknown else ""
        dropped = ", ".join(f"{shown(label)} ({count})" for label, count in self.dropped.items())
        return line + (f"; too few pictures for {dropped}" if dropped else "")


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
    found: list[str | None] = []
    used, lookup = set(), Lookup(table)
    for name, key in zip(pictures.names, pictures.keys, strict=True):
        folder, base = posixpath.split(key)
        file = posixpath.basename(name)
        candidates = [posixpath.join(folder, file), key, *([file, base] if bases[base] == 1 else [])]
        match = lookup.find(candidates)
        found.append(None if match is None else table[match] or None)
        used.add(match)
    return Labels(source, pictures.keys, found, [key for key in table if key not in used], bool(table))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and str(int(label)) == label and int(label) <= LARGEST_CLASS


def _renamed(label: str, names: Lookup) -> str | None:
    renamed = names.label(label)
    return label if renamed is None else renamed or None


def _some(names: Sequence[str]) -> str:
    return examples([shown(name) for name in names])
