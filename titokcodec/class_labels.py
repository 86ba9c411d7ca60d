"""Labels of pictures to generate: classes by number or name, or none at all."""

from __future__ import annotations

import difflib
import operator
import reprlib
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from titokcodec.errors import TitokError
from titokcodec.weights.generators import Card

Labels: TypeAlias = Sequence[int | str | None] | Tensor

MOST_LISTED = 40  # names in an error


def numbers_of(labels: Labels | None, card: Card, count: int | None = None) -> list[int]:
    """The numbers of classes, -1 for none.

    Args:
        labels: A class number, class name or None (-1 in a tensor) for each picture. None for no class anywhere, if
            ``count`` is given.
        card: Of the generator.
        count: How many there have to be; any number unless given.

    Raises:
        TitokError: they are no list, too few or too many, or one is no class.
    """
    if labels is None and count is not None:
        labels = [None] * count
    if labels is None or isinstance(labels, str | bytes) or not hasattr(labels, "__len__"):
        raise TitokError(f"labels is {labels!r}: give a list of them, one a picture")
    dimensions = getattr(labels, "ndim", 1)
    if dimensions != 1:
        raise TitokError(f"labels have {dimensions} dimensions: give one label a picture, in one")
    given = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if count is not None and len(given) != count:
        raise TitokError(f"{len(given)} labels for {count} rows of tokens: give one each")
    return [class_number(label, card) for label in given]


def class_number(label: int | str | None, card: Card) -> int:
    """The number of a class, given by number or name; -1 for None, which tensors have as -1 too.

    Raises:
        TitokError: there is no such class.
    """
    classes = card.config.classes
    if label is None:
        return -1
    if isinstance(label, str):
        names = card.class_names or ()
        if label not in names:
            raise TitokError(f"{card.name} has no class {reprlib.repr(label)}: {_instead(label, names, classes)}")
        return names.index(label)
    try:
        number = None if isinstance(label, bool) else operator.index(label)  # numpy's integers are welcome
    except TypeError:
        number = None
    if number is None:
        raise TitokError(f"label {label!r} is no class: give its number, its name, or None for no class")
    if not -1 <= number < classes:
        raise TitokError(f"no class has the number {number}: give 0 to {classes - 1}")
    return number


def _instead(label: str, names: Sequence[str], classes: int) -> str:
    """What to give instead of a name that is no class's: the nearest one, and all, unless they are very many."""
    if not names:
        return f"give a number, 0 to {classes - 1}"
    by_plain = {name.lower(): name for name in reversed(names)}
    plain = label.strip().lower()
    near = difflib.get_close_matches(plain, by_plain, 1) or [name for name in by_plain if plain and plain in name][:1]
    hint = f"did you mean {by_plain[near[0]]!r}? " if near else ""
    if len(names) > MOST_LISTED:
        return f"{hint}titok-generate --list-classes shows all {len(names)}"
    return f"{hint}{'It' if hint else 'it'} has {', '.join(names)}"
