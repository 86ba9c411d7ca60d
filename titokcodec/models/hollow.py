"""Models without memory or random numbers, for tensors that are about to be set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Model = TypeVar("Model", bound=nn.Module)


def hollow(make: Callable[[], Model]) -> Model:
    """What ``make`` builds, on the meta device: names and shapes, and nothing behind them."""
    with torch.device("meta"), _Unfilled():
        return make()


class _Unfilled(TorchFunctionMode):
    """Skips the initialisation: for arithmetic on the meta device torch imports its compiler, a second's work."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function.__name__, kwargs or {}
        if name in ("mul", "__mul__") or (name.endswith("_") and not name.endswith("__")):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **kwargs)
