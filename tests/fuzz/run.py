"""Fuzzing one target for some time, in processes that may die of it."""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.fuzz import child, corpus

PATIENCE = 300.0  # seconds without a new input after which a process waits for something that will not come


@dataclass
class Outcome:
    """What came of a target.

    Attributes:
        tried: Inputs.
        slowest: Seconds of the processor that the slowest took.
        findings: Inputs that broke the library's word, each with what happened.
        new: Inputs that reached lines that no others had.
    """

    tried: int = 0
    slowest: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)


def engine() -> str:
    """The best engine that is installed, with its version: ``atheris``, or the one in ``mutate``."""
    try:
        return f"atheris {version('atheris')}"
    except PackageNotFoundError:
        return "own"


def run(
    name: str, inputs: list[bytes], seconds: float, engine: str = "own", seed: int = 0, limit: float = child.SECONDS
) -> Outcome:
    """Fuzz a target; if its process dies, that is a finding, and another goes on.

    Args:
        name: ``module:function``; a ``words`` attribute of the function holds what its inputs are made of.
        inputs: What to begin with.
        seconds: How long, the start of processes not counted.
        engine: ``own`` or ``atheris``, a version may follow.
        seed: Of the mutations.
        limit: Seconds of the processor that one input may take.

    Raises:
        RuntimeError: the target could not even be started.
    """
    outcome, left = Outcome(), seconds
    while left > 0:  # a process ends when its time is up, when it has tried enough, or of what it found
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            started = time.monotonic()
            code = _process(name, inputs, left, engine.partition(" ")[0], seed, limit, folder)
            left, seed = left - (time.monotonic() - started), seed + 1
            tried, slowest, current = child.Shared(folder / "shared").read()
            if code and not tried and not current:
                raise RuntimeError(f"{name} could not be started: exit code {code}")
            if code:
                child.keep(folder, current, f"the process died with exit code {code}\n")
                inputs = [data for data in inputs if data != current]
            outcome.tried, outcome.slowest = outcome.tried + tried, max(outcome.slowest, slowest)
            for path in sorted(folder.glob("*.bin")):
                outcome.findings.append((path.read_bytes(), path.with_suffix(".txt").read_text(encoding="utf-8")))
            outcome.new += corpus.read("new", folder)
    return outcome


def _process(
    name: str, inputs: list[bytes], seconds: float, engine: str, seed: int, limit: float, folder: Path
) -> int | None:
    """One process's exit code."""
    (folder / "shared").touch()
    process = multiprocessing.get_context("spawn").Process(
        target=child.main, args=(name, inputs, seconds, seed, engine, folder, limit)
    )
    process.start()
    shared, before, since = child.Shared(folder / "shared"), None, time.monotonic()
    while process.exitcode is None:
        process.join(1.0)
        now = shared.read()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE + limit:
            process.kill()
    return process.exitcode
