"""Values as callers hand them in: one clear error for those that make no sense, before any work is done."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from titokcodec.errors import TitokError

T = TypeVar("T")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """An option as an ``int``; numpy's integers are welcome, booleans are not.

    Raises:
        TitokError: it is no whole number, or less than ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TitokError(f"{name} is {value!r}: give a whole number")
    if least is not None and number < least:
        raise TitokError(f"{name} is {number}: give {least} or more")
    return number


def whole_or_none(name: str, value: Any, least: int | None = None) -> int | None:
    """Likewise, where None stands for the default or for no limit."""
    return None if value is None else whole(name, value, least)


def several(name: str, values: Iterable[T], instead: str) -> Iterator[T]:
    """What a batch is made of, one after the other. A single path or the bytes of one file could be gone through too,
    letter by letter.

    Args:
        instead: The function that takes a single one.

    Raises:
        TitokError: it is a single one, or nothing that can be gone through.
    """
    if not isinstance(values, str | bytes | bytearray | memoryview | os.PathLike):
        try:
            return iter(values)
        except TypeError:
            pass
    raise TitokError(f"{name} is a single {type(values).__name__}: give a list, or use {instead}")
