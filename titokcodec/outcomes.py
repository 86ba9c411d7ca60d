"""What becomes of a batch when some of its inputs are broken."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, TypeVar, get_args

from titokcodec.errors import SkippedWarning, TitokError

T = TypeVar("T")

OnError: TypeAlias = Literal["raise", "skip", "return"]


class Outcomes:
    """Follows the inputs of a batch in order, and remembers which of them failed.

    Args:
        errors: ``raise`` ends the batch with the first error. ``skip`` leaves a broken input out of the results, with a
            ``SkippedWarning`` with its index and the error. ``return`` puts the error in the result's place.

    Raises:
        TitokError: ``errors`` is something else.
    """

    def __init__(self, errors: OnError) -> None:
        if errors not in get_args(OnError):
            raise TitokError(f"errors is {errors!r}: give 'raise', 'skip' or 'return'")
        self._mode = errors
        self._failed: dict[int, TitokError] = {}
        self._seen = 0

    def attempt(self, work: Callable[..., T], *args: object) -> T | None:
        """What the work on the next input gives, or None if it failed and the batch goes on."""
        index, self._seen = self._seen, self._seen + 1
        try:
            return work(*args)
        except TitokError as error:
            if self._mode == "raise":
                raise
            if self._mode == "skip":
                warnings.warn(f"input {index} is left out: {error}", SkippedWarning, stacklevel=2)
            self._failed[index] = error
            return None

    def with_errors(self, results: Iterable[T]) -> list[T | TitokError]:
        """The results of those that did not fail, in order, with the errors in between if they are to be returned."""
        if self._mode == "skip":
            return list(results)
        rest = iter(results)
        return [self._failed[index] if index in self._failed else next(rest) for index in range(self._seen)]
