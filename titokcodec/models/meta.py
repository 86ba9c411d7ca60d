"""Models on the meta device: names and shapes without memory or random numbers, for weights that are loaded next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Model = TypeVar("Model", bound=nn.Module)


def on_meta(make: Callable[[], Model]) -> Model:
    """The model that ``make`` builds, on the meta device; ``load_state_dict(..., assign=True)`` fills it."""
    with torch.device("meta"), _SkipInit():
        return make()


class _SkipInit(TorchFunctionMode):
    """Skips initialisation: for arithmetic on the meta device torch imports its compiler, a second's work."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = function.__name__, kwargs or {}
        if name in ("mul", "__mul__") or (name.endswith("_") and not name.endswith("__")):
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **kwargs)
