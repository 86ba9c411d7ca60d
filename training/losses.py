"""Perceptual distance: LPIPS v0.1 with the SqueezeNet 1.1 trunk (Zhang et al. 2018), weights given by path."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

_FIRES = ((), (3, 4), (6, 7), (9,), (10,), (11,), (12,))  # fire modules before each of the seven taps
_POOLED = {1, 2, 3}  # taps whose modules follow a max pooling


class LPIPS(nn.Module):
    """Frozen; differentiable in its inputs.

    Args:
        path: safetensors file with torchvision's ``features.N[.part].{weight,bias}`` and ``lin.0`` to ``lin.6``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        for name, value in load_file(path).items():
            self.register_buffer(name.replace(".", "_"), value.float(), persistent=False)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 3, H, W) twice, RGB in [0, 1] (not [-1, 1]) -> (B,) distances. Raises ``ValueError`` far out of range."""
        if a.detach().amin() < -1 or a.detach().amax() > 2:
            raise ValueError("LPIPS takes pictures in [0, 1]")
        total = torch.zeros(len(a), device=a.device)
        for tap, (f, g) in enumerate(zip(self.taps(a), self.taps(b), strict=True)):
            difference = (F.normalize(f.float(), dim=1) - F.normalize(g.float(), dim=1)).square()
            total = total + (difference * getattr(self, f"lin_{tap}")).sum(1).mean((1, 2))
        return total

    def taps(self, pixels: Tensor) -> list[Tensor]:
        """The seven feature maps of (B, 3, H, W) pixels in [0, 1]."""
        x = (pixels * 2 - 1 - self.shift) / self.scale
        x = self._conv(x, "features_0", stride=2).relu()
        maps = []
        for tap, fires in enumerate(_FIRES):
            if tap in _POOLED:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for number in fires:
                x = self._fire(x, f"features_{number}")
            maps.append(x)
        return maps

    def _fire(self, x: Tensor, name: str) -> Tensor:
        x = self._conv(x, f"{name}_squeeze").relu()
        return torch.cat(
            [self._conv(x, f"{name}_expand1x1"), self._conv(x, f"{name}_expand3x3", padding=1)], dim=1
        ).relu()

    def _conv(self, x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), **options)
