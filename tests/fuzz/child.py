"""The process that runs one target: each input within a budget of time and memory, each failure written down.

The parent must know what was tried when this process dies: the current input lies in a file that both have mapped.
"""

import faulthandler
import hashlib
import importlib
import mmap
import os
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz import corpus, mutate

Target = Callable[[bytes], object]

SECONDS = 10.0  # of a processor that an input may take: plenty, on a slow machine, for what should be milliseconds
MEGABYTES = 512  # all inputs may take, beyond what the libraries have mapped after the corpus
RUNS = 200_000  # inputs that libFuzzer tries in a process: what it keeps of them itself takes memory, which counts
_NUMBERS = struct.Struct("<QdI")  # inputs tried, seconds of the slowest, length of the current one


class Shared:
    """What the parent may read at any time, also after this process is gone."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(_NUMBERS.size + mutate.LONGEST)
            self._map = mmap.mmap(file.fileno(), 0)

    def write(self, tried: int, slowest: float, current: bytes) -> None:
        current = current[: mutate.LONGEST]
        self._map[: _NUMBERS.size + len(current)] = _NUMBERS.pack(tried, slowest, len(current)) + current

    def read(self) -> tuple[int, float, bytes]:
        tried, slowest, length = _NUMBERS.unpack_from(self._map)
        return tried, slowest, self._map[_NUMBERS.size : _NUMBERS.size + length]


class Check:
    """Calls a target with an input. What it raises is a finding, kept once for each place that raises it.

    Args:
        target: The function.
        shared: Where to say what is being tried.
        findings: Folder for inputs that fail.
        alarm: Seconds of the processor after which this process dies.
    """

    def __init__(self, target: Target, shared: Shared, findings: Path, alarm: float) -> None:
        self.target, self.shared, self.findings, self.alarm = target, shared, findings, alarm
        self.tried, self.slowest = 0, 0.0
        self._places: set[tuple[str, int]] = set()

    def __call__(self, data: bytes) -> None:
        self.shared.write(self.tried, self.slowest, data)
        signal.setitimer(signal.ITIMER_PROF, self.alarm)
        started = time.process_time()
        try:
            self.target(data)
        except Exception as error:
            self._keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.tried, self.slowest = self.tried + 1, max(self.slowest, time.process_time() - started)
        self.shared.write(self.tried, self.slowest, data)

    def _keep(self, data: bytes, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = (last.filename, last.lineno or 0)
        if place not in self._places:
            self._places.add(place)
            keep(self.findings, data, "".join(traceback.format_exception(error)))


def keep(folder: Path, data: bytes, why: str) -> None:
    """Write a finding: the input, and beside it what it did."""
    name = hashlib.sha256(data).hexdigest()[:12]
    (folder / f"{name}.bin").write_bytes(data)
    (folder / f"{name}.txt").write_text(why, encoding="utf-8")


def load(name: str) -> Target:
    """The function called ``module:name``."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def main(
    name: str, inputs: list[bytes], seconds: float, seed: int, engine: str, folder: Path, limit: float = SECONDS
) -> None:
    """Fuzz a target, and leave in ``folder`` what it found; returns when the time is up, or dies on the way."""
    warnings.simplefilter("ignore")  # Pillow's, of every damaged picture
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "16"  # else it takes hundreds of megabytes, one shape after another
    faulthandler.register(signal.SIGPROF, chain=True)  # a traceback, and then the signal's own end
    shared = Shared(folder / "shared")
    if engine == "atheris":
        _atheris(name, inputs, seconds, seed, shared, folder, limit)
        return
    target = load(name)
    check = Check(target, shared, folder, limit)
    for data in inputs:
        check(data)
    limit_memory()
    corpus.add("new", mutate.fuzz(check, inputs, words_of(target), seconds, seed), folder)


def limit_memory() -> None:
    """No more than some megabytes from here on: asking for more raises ``MemoryError``, a finding. On Linux alone."""
    import resource

    size = Path("/proc/self/statm")
    if not size.exists():
        return
    mapped = int(size.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (MEGABYTES << 20),) * 2)


def words_of(target: Target) -> Sequence[bytes]:
    """What inputs of a target are made of."""
    return getattr(target, "words", ())


def _atheris(
    name: str, inputs: list[bytes], seconds: float, seed: int, shared: Shared, folder: Path, limit: float
) -> None:
    """The same by libFuzzer, which ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["titokcodec"]):
        target = load(name)
    check = Check(target, shared, folder, limit)
    for data in inputs:
        check(data)
    limit_memory()
    seeds, dictionary = folder / "seeds", folder / "words"
    seeds.mkdir()
    for number, data in enumerate(inputs):
        (seeds / str(number)).write_bytes(data)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words_of(target))
    dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={max(1, round(seconds))}",
            "-timeout=100000",
            f"-seed={seed + 1}",
            f"-max_len={mutate.LONGEST}",
            f"-runs={RUNS}",
            "-rss_limit_mb=0",
            "-verbosity=0",
            f"-artifact_prefix={folder}/",
            f"-dict={dictionary}",
            str(seeds),
        ],
        check,
    )
    atheris.Fuzz()
