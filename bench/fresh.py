"""A workload in a process of its own: the most memory that it ever has and, if asked, how long it takes.

    measure_fresh(workloads.compress, options=CodecOptions(), count=1, effort=0)

A process cannot reset its peak, so everything that is to be compared needs a new one. The peak is that of the whole
process: Python, torch where the workload imports it, and the weights.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure_fresh(
    make: Callable[..., Callable[[], Any]], time_for: float | None = None, **given: Any
) -> dict[str, Any]:
    """Prepare a workload in a new process, and run it there.

    Args:
        make: A function of a module, which returns the workload; it needs no torch unless it is timed.
        time_for: Seconds to repeat it for after a first run, once at least. None to run it once, untimed.
        given: Arguments of ``make``, which must pickle.

    Returns:
        ``memory`` and, where CUDA was used, ``device_memory``, in bytes; if timed, ``seconds`` (the median) and
        ``rounds``.

    Raises:
        subprocess.CalledProcessError: the workload failed; its message is on stderr.
    """
    command, paths = [sys.executable, "-m", f"{__package__}.fresh"], os.pathsep.join(filter(None, sys.path))
    workload = pickle.dumps((make, time_for, given))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, input=workload, stdout=subprocess.PIPE, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def timed(work: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """``seconds``, the median, and ``rounds`` of a workload that is repeated for so long."""
    import torch
    from torch.utils.benchmark import Timer

    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    found = timer.blocked_autorange(min_run_time=seconds)
    return {"seconds": found.median, "rounds": len(found.raw_times)}


def peaks() -> dict[str, int]:
    """``memory`` of this process and, where it used CUDA, ``device_memory``: the most bytes so far."""
    found = {"memory": _resident()}
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        found["device_memory"] = sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    return found


def _resident() -> int:
    status = Path("/proc/self/status")
    text = status.read_text() if status.is_file() else ""
    if "VmHWM:" in text:  # getrusage's may be that of the parent process
        return int(text.split("VmHWM:")[1].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """What the new process does."""
    make, time_for, given = pickle.load(sys.stdin.buffer)
    work, found = make(**given), {}
    if time_for is None:
        work()
    else:
        found = timed(work, time_for)
    print(json.dumps({**found, **peaks()}))


if __name__ == "__main__":
    main()
