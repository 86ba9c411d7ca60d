"""Values as callers hand them in: one clear error for those that make no sense, before any work is done."""

from __future__ import annotations

import operator
from typing import Any

from titokcodec.errors import TitokError


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


def whole_or_none(name: str, value: Any, least: int) -> int | None:
    """Likewise, where None stands for the default or for no limit."""
    return None if value is None else whole(name, value, least)
