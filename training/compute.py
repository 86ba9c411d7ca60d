"""What networks run with: device, precision and compiler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from titokcodec.runtime.devices import choose_dtype

from . import parallel

SHAPES = 64  # shapes that one function may be compiled for: every prefix of every tower, with gradients and without


M = TypeVar("M", bound=nn.Module)


def default_device() -> str:
    """Where commands of training compute unless told otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def to_device(module: M, device: torch.device) -> M:
    """Move a module, with channels last in memory, as convolutions like it."""
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Runtime:
    """Where and how a run computes.

    Attributes:
        device: Where models and batches are.
        dtype: float32, or bfloat16 under autocast.
        compiles: Whether networks go through ``torch.compile``.
    """

    device: torch.device
    dtype: torch.dtype
    compiles: bool = False

    @classmethod
    def start(cls, device: str, bf16: bool | None, compiles: bool) -> Runtime:
        """Join the other ranks, if any; ``bf16`` None takes bfloat16 where the device multiplies it natively."""
        chosen = parallel.start(device)
        return cls(chosen, choose_dtype(chosen, {None: "auto", True: "bf16", False: "fp32"}[bf16]), compiles)

    def autocast(self) -> AbstractContextManager:
        """The context for passes of what is trained: bfloat16 if ``dtype`` is that."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def compiled(self, module: nn.Module | Callable) -> Any:
        """The module, or function, as ``torch.compile`` makes it, if this run compiles.

        Of a transformer the blocks are compiled, in chosen, and the head after them: blocks are alike and need one
        compilation for all, where a whole tower takes as many times longer as it has blocks.
        """
        if not self.compiles:
            return module
        for limit in ("recompile_limit", "cache_size_limit"):  # the latter before torch 2.7
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, SHAPES)
        if not hasattr(module, "transformer"):
            return torch.compile(module, dynamic=False)
        for part in (*module.transformer, *([module.ffn] if hasattr(module, "ffn") else [])):
            part.compile(dynamic=False)
        return module
