"""One picture through every method: the work that the rate-distortion benchmark shares out to its processes.

A ``Case`` goes in, with what titok made of the picture; a ``Finding`` comes out, small enough to be sent back. Every
file is made once and judged once by all metrics, however many budgets it is a candidate for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image

from titokcodec.metrics.scores import Comparison, Judge, Look, better

from . import rivals
from .thumbnails import Choice

Key = tuple[str, str]  # a method, and the label of one of its points


@dataclass(frozen=True)
class Decoded:
    """A titok file, how many of its bytes are payload, and what it decodes to."""

    data: bytes
    payload: int
    picture: Image.Image


@dataclass(frozen=True)
class Case:
    """A picture to measure.

    Attributes:
        name: Of the picture.
        original: RGB.
        titok: What titok's methods made of it.
        budgets: Bytes that thumbnails may have, by the points' labels.
    """

    name: str
    original: Image.Image
    titok: dict[Key, Decoded]
    budgets: dict[str, int]


@dataclass(frozen=True)
class Entry:
    """One picture at one point of a method.

    Attributes:
        data: The file; of thumbnails the one that is best by ``Judge.display_metric``.
        fixed: Bytes of it that are not payload.
        scores: By metric; of thumbnails each from the one that is best by it.
        chosen: Of thumbnails side and quality of that one, by metric.
        sizes: Of thumbnails the bytes of that one, by metric.
        look: What Lite0 makes of the picture; of thumbnails of the one that is best by ``Judge.chooser``.
        shown: Scores of the file ``data`` by itself.
    """

    data: bytes
    fixed: int
    scores: dict[str, float]
    look: Look | None
    shown: dict[str, float]
    chosen: dict[str, Choice] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of the whole file; of thumbnails that are best by different metrics, those of the longest."""
        return max(self.sizes.values(), default=len(self.data))


@dataclass(frozen=True)
class Finding:
    """All that was measured of a picture: its own look, and an entry for every point that it reaches."""

    name: str
    look: Look | None
    entries: dict[Key, Entry]


@dataclass(frozen=True)
class Setup:
    """What to measure: the rivals' methods, and what ``Judge`` takes."""

    methods: Sequence[str]
    lpips: Path | None
    lite0: Path | None
    smallest: int
    metrics: Sequence[str] | None = None

    def judge(self) -> Judge:
        """The metrics."""
        return Judge(self.lpips, self.lite0, self.smallest, self.metrics)


def measure_case(case: Case, methods: Sequence[str], judge: Judge) -> Finding:
    """One picture through titok and the rivals' methods."""
    comparison = judge.against(case.original)
    entries = {}
    for key, decoded in case.titok.items():
        entries[key] = _entry(decoded.data, len(decoded.data) - decoded.payload, decoded.picture, comparison)
    for method in methods:
        if method.endswith("native"):
            entries |= _natives(case, method, comparison)
        else:
            entries |= _thumbnails(case, method, comparison)
    return Finding(case.name, judge.look(case.original), entries)


def _natives(case: Case, method: str, comparison: Comparison) -> dict[Key, Entry]:
    found = {}
    for file in rivals.natives(case.original, method):
        found[method, f"quality {file.quality}"] = _entry(file.data, rivals.fixed(method), file.picture, comparison)
    return found


def _entry(data: bytes, fixed: int, picture: Image.Image, comparison: Comparison) -> Entry:
    scores = comparison.scores(picture)
    return Entry(data, fixed, scores, comparison.judge.look(picture), scores)


def _thumbnails(case: Case, method: str, comparison: Comparison) -> dict[Key, Entry]:
    """The best thumbnails under every budget that any fits."""
    source, judge = rivals.thumbnails(case.original, method), comparison.judge
    judged: dict[Choice, tuple[dict[str, float], int]] = {}
    looks: dict[Choice, Look | None] = {}
    found = {}
    for label, budget in sorted(case.budgets.items(), key=lambda item: item[1]):
        best: dict[str, Choice] = {}

        def gains(choice: Choice, best: dict[str, Choice] = best) -> bool:
            if choice not in judged:
                file = source.thumbnail(*choice)
                judged[choice] = comparison.scores(file.picture), len(file.data)
            won = [
                metric
                for metric in judge.metrics
                if metric not in best or _beats(metric, judged[choice], judged[best[metric]])
            ]
            best.update(dict.fromkeys(won, choice))
            return bool(won)

        source.climb(budget, gains)
        if not best:
            continue
        taken, shown = best[judge.chooser], best[judge.display_metric]
        if taken not in looks:
            looks[taken] = judge.look(source.thumbnail(*taken).picture)
        scores = {metric: judged[choice][0][metric] for metric, choice in best.items()}
        sizes = {metric: judged[choice][1] for metric, choice in best.items()}
        data, fixed = source.thumbnail(*shown).data, rivals.fixed(method)
        found[method, label] = Entry(data, fixed, scores, looks[taken], judged[shown][0], best, sizes)
    return found


def _beats(metric: str, one: tuple[dict[str, float], int], other: tuple[dict[str, float], int]) -> bool:
    """Whether the first of two files is better by a metric or, where both are equal, shorter."""
    (scores, size), (held, length) = one, other
    if scores[metric] == held[metric]:
        return size < length
    return better(metric, scores[metric], held[metric])


# ---- processes ----------------------------------------------------------------------------------------------------


def measure_all(cases: Iterable[Case], setup: Setup, workers: int) -> Iterator[Finding]:
    """Findings in the order of cases, which are asked for only a little ahead."""
    if workers == 1:
        rivals.register(setup.methods)
        judge = setup.judge()
        yield from (_alone(case, setup, judge) for case in cases)
        return
    # Started afresh: a fork of a process whose libraries have threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (setup,)) as pool:
        cases = iter(cases)
        waiting = [pool.submit(_work, case) for case in islice(cases, 2 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(_work, case) for case in islice(cases, 1)]


def _alone(case: Case, setup: Setup, judge: Judge) -> Finding:
    """With one thread, as in a process of several, since sums in another order differ in their last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure_case(case, setup.methods, judge)
    finally:
        torch.set_num_threads(threads)


_ready: tuple[Setup, Judge] | None = None  # of this process


def _prepare(setup: Setup) -> None:
    """Once a process: loads its networks and registers formats."""
    global _ready
    torch.set_num_threads(1)
    rivals.register(setup.methods)
    _ready = setup, setup.judge()


def _work(case: Case) -> Finding:
    setup, judge = _ready
    return measure_case(case, setup.methods, judge)
