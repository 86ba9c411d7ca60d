"""A job in a process of its own: how long it takes, and the most memory that it ever has.

    measure(jobs.compress, model=Model(), pictures=1, effort=0)

A process remembers its peak and cannot forget it, so every job that is to be compared needs a new one. The peak is that
of all of it: Python, torch where the job imports it, and the weights.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROUNDS = 5


def measure(make: Callable[..., Callable[[], Any]], patience: float = 0.0, **given: Any) -> dict[str, Any]:
    """Make a job ready in a new process, and run it there.

    Args:
        make: A function of a module, which gives the job.
        patience: Seconds within which the job may begin again, up to ``ROUNDS`` times; it is run once anyway.
        given: What ``make`` takes; it goes there by pickle.

    Returns:
        ``seconds`` (the median), ``rounds``, ``memory``, and ``device_memory`` where CUDA was used; memory in bytes.

    Raises:
        subprocess.CalledProcessError: the job failed; its message is on stderr.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "bench.fresh"],
        input=pickle.dumps((make, patience, given)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def times(job: Callable[[], Any], patience: float) -> list[float]:
    """Seconds of each run."""
    found: list[float] = []
    while not found or (len(found) < ROUNDS and sum(found) < patience):
        started = time.perf_counter()
        job()
        found.append(time.perf_counter() - started)
    return found


def peaks() -> dict[str, int]:
    """``memory`` of this process and, where it used CUDA, ``device_memory``: the most bytes so far."""
    found = {"memory": _resident()}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        found["device_memory"] = sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return found


def _resident() -> int:
    """Linux also has a peak of this program alone: getrusage's may be that of the process which started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    if peak := next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None):
        return int(peak) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """What the new process does."""
    make, patience, given = pickle.load(sys.stdin.buffer)
    found = times(make(**given), patience)
    print(json.dumps({"seconds": statistics.median(found), "rounds": len(found), **peaks()}))


if __name__ == "__main__":
    main()
