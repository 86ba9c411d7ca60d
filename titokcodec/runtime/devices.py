"""Where a network runs and in which precision."""

from __future__ import annotations

import torch

from titokcodec.checks import whole
from titokcodec.errors import TitokError

_DTYPES = {"bf16": torch.bfloat16, "bfloat16": torch.bfloat16, "fp32": torch.float32, "float32": torch.float32}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """``auto`` is CUDA, then MPS, then the CPU. Raises ``TitokError`` for a device that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # of meta, which computes nothing, there are no values
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise TitokError(f"no device {str(name)!r} here: try --device cpu, or auto") from None
    return device


def choose_dtype(device: torch.device, name: str | torch.dtype = "auto") -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it natively, else float32. Raises ``TitokError``."""
    if name == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    dtype = _DTYPES.get(name) if isinstance(name, str) else name
    if dtype not in (torch.bfloat16, torch.float32):
        raise TitokError(f"no precision {str(name)!r}: use auto, bf16 or fp32")
    return dtype


def choose_batch_size(device: torch.device, size: int | None = None) -> int:
    """None is 256 on CUDA, which is idle with less, and 16 elsewhere, where more take memory and gain no time. Raises
    ``TitokError`` for what is no whole number from 1 on."""
    if size is None:
        return 256 if device.type == "cuda" else 16
    return whole("batch_size", size, 1)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        abilities: dict[str, bool] = getattr(
            torch.cpu, "get_capabilities", dict
        )()  # older torch cannot tell: float32 is always right
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False
