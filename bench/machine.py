"""What result files say of the machine that they were measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any


def processor() -> str:
    """What the CPU calls itself."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def describe(device: str = "auto") -> dict[str, Any]:
    """``machine`` (a CPU with the threads that torch uses), and the versions of ``python`` and ``torch``."""
    import torch

    from titokcodec.devices import choose_device

    chosen, threads = choose_device(device), torch.get_num_threads()
    if chosen.type == "cuda":
        name = torch.cuda.get_device_name(chosen)
    elif chosen.type == "cpu":
        name = f"{processor()}, {threads} thread{'s' * (threads > 1)}"
    else:
        name = f"{platform.machine()} {chosen.type}"
    return {"machine": name, "python": platform.python_version(), "torch": torch.__version__}
