"""Static integer frequencies of the codes: what entropy mode 1 knows about tokens before it sees them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from titokcodec.errors import WeightsError
from titokcodec.format.limits import FREQUENCY_TOTAL, MAX_CODEBOOK_SIZE, MAX_TOKENS


@functools.cache
def coder() -> Any:
    """``constriction.stream``, imported late so that reading a header does not load it."""
    from constriction import stream

    return stream


class FrequencyTables:
    """Static integer frequencies of the codes, shared by all token positions or one row for each.

    A stored frequency q is coded as q + 1 out of 2**24: every code can be written, also one never seen in training.
    Objects can be pickled and shared between threads; the coder's own tables are built at first use of a row.

    Args:
        frequencies: integer array (P, N), not negative, each row summing to 2**24 - N exactly. P = 1 serves every
            position; otherwise row p serves position p, and at most P tokens can be coded. P is at most 256, N is 2
            to 65536.

    Raises:
        WeightsError: the array is anything else.
    """

    def __init__(self, frequencies: np.ndarray) -> None:
        array = np.asarray(frequencies)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise WeightsError(f"frequency tables are {array.dtype} {array.shape}; give an integer array (P, N)")
        rows, size = array.shape
        if not (1 <= rows <= MAX_TOKENS and 2 <= size <= MAX_CODEBOOK_SIZE):
            raise WeightsError(f"frequency tables are {rows} x {size}; P is 1 to {MAX_TOKENS}, N 2 to 65536")
        # In range first, so that the sums below cannot wrap around.
        if (
            array.min() < 0
            or array.max() > FREQUENCY_TOTAL
            or (array.sum(1, dtype=np.int64) != FREQUENCY_TOTAL - size).any()
        ):
            raise WeightsError(f"a frequency row does not sum to 2**24 - {size}; make tables with from_counts")
        self.frequencies = np.array(array, dtype=np.uint32, order="C")
        self.frequencies.setflags(write=False)
        self._models: list[Any] = [None] * rows

    @classmethod
    def from_counts(cls, counts: np.ndarray, max_extra_bits: int = 6) -> FrequencyTables:
        """Tables for codes that were seen ``counts`` times, by integer arithmetic alone.

        Each code first gets a uniform share, so that none ever costs more than log2(N) + ``max_extra_bits`` bits; that
        takes 2**-max_extra_bits of all probability and so costs every token -log2(1 - 2**-max_extra_bits) bits (0.023
        at 6). The rest is divided in proportion to the counts: rounded down, then one more for the largest
        remainders, the lower code first among equals. A row with no counts becomes uniform.

        Args:
            counts: integer array (P, N), not negative, each row summing to less than 2**38.
            max_extra_bits: 1 to 24.

        Raises:
            WeightsError: the counts are anything else.
        """
        array = np.asarray(counts)
        if array.ndim != 2 or array.dtype.kind not in "iu" or not 2 <= array.shape[1] <= MAX_CODEBOOK_SIZE:
            raise WeightsError(f"counts are {array.dtype} {array.shape}; give an integer array (P, N), N 2 to 65536")
        if array.size and (array.min() < 0 or array.max() >= 2**38 or array.sum(1, dtype=np.int64).max() >= 2**38):
            raise WeightsError("a row of counts is negative or sums to 2**38 or more; scale the counts down")
        if not 1 <= max_extra_bits <= 24:
            raise WeightsError(f"max_extra_bits is {max_extra_bits}; give 1 to 24")
        return cls(np.array([_quantise(row, max_extra_bits) for row in array.astype(np.int64)], ndmin=2))

    @property
    def positions(self) -> int | None:
        """How many token positions there are rows for; None if one row serves any number."""
        return None if self.shared else len(self.frequencies)

    @property
    def codebook_size(self) -> int:
        """N, the number of codes."""
        return int(self.frequencies.shape[1])

    @property
    def shared(self) -> bool:
        """Whether one row serves every position."""
        return len(self.frequencies) == 1

    def models(self, tokens: int) -> list[Any]:
        """The coder's models for the first ``tokens`` positions; one if the row is shared."""
        rows = self._models[: 1 if self.shared else tokens]
        if None in rows:
            built: dict[bytes, Any] = {}  # positions that share a codebook may have equal rows: they share a model
            for row in self.frequencies[: len(rows)]:
                if (key := row.tobytes()) not in built:
                    built[key] = self._build(row)
            rows = self._models[: len(rows)] = [built[row.tobytes()] for row in self.frequencies[: len(rows)]]
        return rows

    @staticmethod
    def _build(row: np.ndarray) -> Any:
        # perfect=False is part of the file format: only then is q coded as exactly q + 1. Float64 is, too: float32
        # rows can make the coder panic.
        return coder().model.Categorical(row.astype(np.float64), perfect=False)

    def __reduce__(self) -> tuple[type, tuple[np.ndarray]]:
        return FrequencyTables, (self.frequencies,)  # the coder's models cannot be pickled, but be built again


def _quantise(counts: np.ndarray, max_extra_bits: int) -> np.ndarray:
    """One row of frequencies (N,) from one row of counts; see :meth:`FrequencyTables.from_counts`."""
    size = counts.size
    share = -(-FREQUENCY_TOTAL // (size << max_extra_bits)) - 1  # the coder adds one
    rest, total = FREQUENCY_TOTAL - size - share * size, int(counts.sum())
    if total == 0:
        counts, total = np.ones_like(counts), size
    scaled = counts * rest  # below 2**62
    frequencies, remainders = share + scaled // total, scaled % total
    missing = FREQUENCY_TOTAL - size - int(frequencies.sum())
    # A stable sort of the negated remainders: largest first, lower code first among equals.
    frequencies[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return frequencies
