"""How sure a mean over pictures or seeds is, and how often one method beats another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

RESAMPLES, SEED = 2000, 0
TAIL = 0.025  # on each side of an interval
NORMAL = 1.959964  # the quantile of the normal distribution that leaves such a tail
# The same of Student's t distribution, by degrees of freedom from 1 up.
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)

Interval = tuple[float, float]


def bootstrap(values: Sequence[float]) -> Interval:
    """The 95 % interval of the mean of (n,) values: percentiles over resamples of the pictures (Efron 1979).

    All metrics and methods of the same pictures share their resamples, so the same call gives the same answer.
    """
    array = np.asarray(values, dtype=np.float64)
    means = _resamples(len(array)) @ array / len(array)
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(count: int) -> np.ndarray:
    """(RESAMPLES, count): how often each picture is in each resample."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def student(values: Sequence[float]) -> Interval | None:
    """The 95 % interval of the mean of 2 to 10 values, of a normal distribution each (Student 1908); None of one.

    For few values, as of several seeds: a bootstrap's would be far too narrow.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    reach = STUDENT[len(array) - 2] * array.std(ddof=1) / math.sqrt(len(array))
    return float(array.mean() - reach), float(array.mean() + reach)


def win_rate(ours: Sequence[float], theirs: Sequence[float], higher: bool) -> float:
    """The share of pictures on which ours is the better value; a tie is half a win."""
    apart = (np.asarray(ours) - np.asarray(theirs)) * (1 if higher else -1)
    return float(np.mean(0.5 + 0.5 * np.sign(apart)))


def wilson(share: float, count: int) -> Interval:
    """The 95 % interval of a share of ``count`` trials (Wilson 1927); unlike a bootstrap's, honest at 0 and 1 too."""
    spread = NORMAL**2 / count
    centre = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - reach), min(1.0, centre + reach)
