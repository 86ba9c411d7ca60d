"""Values as callers hand them in: one clear error for those that make no sense, before any work is done."""

from __future__ import annotations

import operator
from typing import overload

from titokcodec.errors import TitokError


def whole(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """An option as an ``int``; numpy's integers are welcome, booleans are not.

    Raises:
        TitokError: it is no whole number, or less than ``least``, or more than ``most``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TitokError(f"{name} is {value!r}: give a whole number")
    if least is not None and number < least:
        raise TitokError(f"{name} is {number}: give {least} or more")
    if most is not None and number > most:
        raise TitokError(f"{name} is {number}: give {most} at most")
    return number


@overload
def whole_or_none(name: str, value: None, least: int) -> None: ...
@overload
def whole_or_none(name: str, value: object, least: int) -> int | None: ...
def whole_or_none(name: str, value: object, least: int) -> int | None:
    """Likewise, where None stands for the default or for no limit."""
    return None if value is None else whole(name, value, least)
