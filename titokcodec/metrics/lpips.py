"""LPIPS v0.1 with the SqueezeNet 1.1 trunk (Zhang et al. 2018): the distance of two pictures as a network sees them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.errors import WeightsError
from titokcodec.weights.state_dicts import open_state_dict

LPIPS_SIDE = 17  # pixels of the shortest side that survives all poolings

_FIRES = ((), (3, 4), (6, 7), (9,), (10,), (11,), (12,))  # fire modules before each of the seven taps
_POOLED = {1, 2, 3}  # taps whose modules follow a max pooling
_PARTS = (
    "0",
    *(f"{fire}.{part}" for fires in _FIRES for fire in fires for part in ("squeeze", "expand1x1", "expand3x3")),
)
_NAMES = [
    *(f"features.{part}.{kind}" for part in _PARTS for kind in ("weight", "bias")),
    *(f"lin.{tap}" for tap in range(len(_FIRES))),
]


class LPIPS(nn.Module):
    """Frozen; differentiable in its inputs.

    Args:
        path: safetensors file with torchvision's ``features.N[.part].{weight,bias}`` and ``lin.0`` to ``lin.6``.
        dtype: What the trunk is kept in and computes in. Its feature maps are compared in float32 in any case.

    Raises:
        WeightsError: the file is not of this network.
    """

    shift: Tensor
    scale: Tensor
    features_0_weight: Tensor

    def __init__(self, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        path = Path(path)
        file = open_state_dict(path)
        missing = [name for name in _NAMES if name not in file.shapes]
        if missing:
            raise WeightsError(f"{path} is not of LPIPS with SqueezeNet: it lacks {missing[0]}")
        for name in _NAMES:  # and not the classifier, which some files have as well
            kept = dtype if name.startswith("features") else torch.float32
            self.register_buffer(name.replace(".", "_"), file.tensor(name).to(kept), persistent=False)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)
        self._check(path)

    @torch.no_grad()
    def _check(self, path: Path) -> None:
        """Raise ``WeightsError`` unless the tensors' shapes go together."""
        try:
            maps = self.taps(torch.zeros(1, 3, LPIPS_SIDE, LPIPS_SIDE))
            fit = all(getattr(self, f"lin_{tap}").shape == (1, found.shape[1], 1, 1) for tap, found in enumerate(maps))
        except RuntimeError:
            fit = False
        if not fit:
            raise WeightsError(f"{path} is not of LPIPS with SqueezeNet: the shapes of its tensors do not go together")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 3, H, W) twice, RGB in [0, 1] (not [-1, 1]) -> (B,) distances. Raises ``ValueError`` far out of range."""
        if not a.requires_grad and (a.amin() < -1 or a.amax() > 2):  # in training it would wait for the device
            raise ValueError("LPIPS takes pictures in [0, 1]")
        return self.distance(self.directions(a), self.directions(b))

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """(B,) distances of pictures whose ``directions`` are known: one against many needs its own only once."""
        total = torch.zeros(max(len(a[0]), len(b[0])), device=a[0].device)
        for tap, (f, g) in enumerate(zip(a, b, strict=True)):
            total = total + ((f - g).square() * getattr(self, f"lin_{tap}")).sum(1).mean((1, 2))
        return total

    def directions(self, pixels: Tensor) -> list[Tensor]:
        """The feature maps with the vector at each position scaled to length 1."""
        return [F.normalize(features.float(), dim=1) for features in self.taps(pixels)]

    def taps(self, pixels: Tensor) -> list[Tensor]:
        """The seven feature maps of (B, 3, H, W) pixels in [0, 1]."""
        x = ((pixels * 2 - 1 - self.shift) / self.scale).to(self.features_0_weight.dtype)
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
