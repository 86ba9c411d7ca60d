"""The device that a benchmark runs on, and how result files describe it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def select_device(name: str = "auto") -> torch.device:
    """``choose_device``, made the current one: the timers of ``torch.utils.benchmark`` wait for the current device.

    Raises:
        TitokError: there is no such device.
    """
    import torch

    from titokcodec.runtime.devices import choose_device

    device = choose_device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def name_of(device: torch.device) -> str:
    """The model name of a GPU or CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else f"{platform.machine()} {device.type}"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.processor() or platform.machine()


def describe(device: str = "auto") -> dict[str, Any]:
    """``machine`` (a CPU with the threads that torch uses), and the versions of ``python`` and ``torch``."""
    import torch

    chosen, threads = select_device(device), torch.get_num_threads()
    name = name_of(chosen) + f", {threads} thread{'s' * (threads > 1)}" * (chosen.type == "cpu")
    return {"machine": name, "python": platform.python_version(), "torch": torch.__version__}
