"""Pictures of more than 8 bits a channel: which value is white, and all of them brought to 0..255.

For 16 bits the type decides: 65535 is white. Floats and 32-bit integers have no such convention, so the values decide:
the least of 1 (floats alone), 255 and 65535 is white that no more than one value in a thousand exceeds twofold. A few
values that overshoot, as scaling and sharpening leave them, are clipped and change nothing else. Floats up to 1 are
taken as they are; everything else is a guess, with a warning. There is one too if many values are below 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from titokcodec.errors import ImageError, RangeWarning, TitokError

_WHITES = tuple(map(np.float64, (1, 255, 65535)))
_OVERSHOOT = 1e-3  # the share of values that may exceed twice the white
_DARK = 4095  # 16-bit pictures with nothing above this are likely ones of 12 bits or fewer, and nearly black


def check_white(white: Any) -> None:
    """Raise ``TitokError`` unless it is None or a number above 0."""
    if white is None:
        return
    good = isinstance(white, int | float | np.number) and not isinstance(white, bool)
    if not good or not math.isfinite(white) or white <= 0:
        raise TitokError(f"white is {white!r}: give a number above 0, such as 4095 for values of 12 bits")


def find_white(bands: Iterable[np.ndarray], white: float | None, name: str, certain: bool = False) -> float:
    """The value that is white in a picture.

    Args:
        bands: All of its values, in arrays of one type: uint16, int32 or floats.
        white: What the caller says; None to find out.
        name: What messages call the picture.
        certain: The format says that 65535 is white.

    Raises:
        ImageError: some values are not finite numbers.
    """
    beyond, count, least, largest, kind = np.zeros(len(_WHITES), int), 0, math.inf, -math.inf, "u"
    below = 0
    for values in bands:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ImageError(
                f"{name}: holds values that are no finite numbers (NaN or infinity); replace them, by "
                "numpy.nan_to_num for one"
            )
        kind, count, largest = values.dtype.kind, count + values.size, max(largest, values.max())
        if kind != "u":
            least, below = min(least, values.min()), below + np.count_nonzero(values < 0)
            beyond += [np.count_nonzero(values > 2 * candidate) for candidate in _WHITES]
    if below > _OVERSHOOT * count:
        _warn(
            f"{name}: values go down to {least:g}, and all below 0 are black; undo a normalisation first "
            "(x / 2 + 0.5 from -1..1)"
        )
    if white is not None:
        return float(white)
    if kind == "u" or certain:
        if 0 < largest <= _DARK and not certain:
            likely = 2 ** max(8, int(largest).bit_length()) - 1
            _warn(
                f"{name}: no value is above {largest} of 65535, so it is nearly black; if {likely} is white, say so "
                f"with white={likely} (--white {likely})"
            )
        return 65535.0
    start = 0 if kind == "f" else 1
    fits = [
        candidate for candidate, over in zip(_WHITES[start:], beyond[start:], strict=True) if over <= _OVERSHOOT * count
    ]
    guess = fits[0] if fits else _WHITES[-1]
    if kind != "f" or largest > 1:
        _warn(
            f"{name}: values reach {largest:g}, and {guess:g} is taken for white; say which it is with white= (--white)"
        )
    return float(guess)


def eight_bit(values: np.ndarray, white: float) -> np.ndarray:
    """Any numbers as uint8: 0 is black, ``white`` is 255, what lies outside is clipped."""
    return np.rint((values * np.float64(255 / white)).clip(0, 255)).astype(np.uint8)


def _warn(message: str) -> None:
    warnings.warn(message, RangeWarning, stacklevel=2)
