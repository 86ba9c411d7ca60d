"""What result files say of the machine that they were measured on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def processor() -> str:
    """What the CPU calls itself."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def name_of(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else f"{platform.machine()} {device.type}"


def synchronize(device: torch.device) -> None:
    """Wait for all that the device was given to do."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)  # not whichever one is current
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: str = "auto") -> dict[str, Any]:
    """``machine`` (a CPU with the threads that torch uses), and the versions of ``python`` and ``torch``."""
    import torch

    from titokcodec.runtime.devices import choose_device

    chosen, threads = choose_device(device), torch.get_num_threads()
    name = name_of(chosen) + f", {threads} thread{'s' * (threads > 1)}" * (chosen.type == "cpu")
    return {"machine": name, "python": platform.python_version(), "torch": torch.__version__}
