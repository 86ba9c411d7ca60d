"""A fuzzing engine in plain Python for where atheris is not installed: inputs that reach new lines are mutated on.

Lines are those of ``titokcodec`` alone, as ``sys.settrace`` reports them, which is slow and needs nothing.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

LONGEST = 4096  # bytes of an input
_PACKAGE = str(Path(__file__).parents[2] / "titokcodec")
_NUMBERS = (0, 1, 2, 127, 128, 129, 254, 255)


class Lines:
    """The lines of the package that were reached while this is the context."""

    def __init__(self) -> None:
        self.seen: set[tuple[Any, int]] = set()

    def __enter__(self) -> "Lines":
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == "line":
            self.seen.add((frame.f_code, frame.f_lineno))
        return self._line


def fuzz(
    check: Callable[[bytes], object], corpus: Sequence[bytes], words: Sequence[bytes], seconds: float, seed: int
) -> list[bytes]:
    """Call ``check`` with new inputs for some time; those that reached new lines are returned."""
    draw, pool, found, lines = random.Random(seed), list(corpus), [], Lines()
    deadline = time.monotonic() + seconds
    with lines:
        for data in corpus:
            check(data)
    while time.monotonic() < deadline:
        data = mutated(draw, pool, words)
        before = len(lines.seen)
        with lines:
            check(data)
        if len(lines.seen) > before:
            pool.append(data)
            found.append(data)
    return found


def mutated(draw: random.Random, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """An input that is one of ``pool`` with a few changes."""
    data = bytearray(draw.choice(pool) if pool else b"")
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        _change(draw, data, pool, words)
    return bytes(data[:LONGEST])


def _change(draw: random.Random, data: bytearray, pool: Sequence[bytes], words: Sequence[bytes]) -> None:
    """One change in place: a bit, a byte, a part left out, doubled, or taken from a word or another input."""
    start = draw.randrange(len(data) + 1)
    end = min(len(data), start + draw.choice((1, 1, 2, 4, 16, 64)))
    kind = draw.randrange(7)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << draw.randrange(8)
    elif kind == 1 and start < len(data):
        data[start] = draw.choice(_NUMBERS) if draw.random() < 0.5 else draw.randrange(256)
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end]
    elif kind == 4:
        data[start:start] = draw.randbytes(end - start)
    elif kind == 5 and words:
        data[start : draw.choice((start, end))] = draw.choice(words)
    elif kind == 6 and pool:
        other = draw.choice(pool)
        at = draw.randrange(len(other) + 1)
        data[start:end] = other[at : at + draw.choice((1, 4, 16, 64, 256))]
