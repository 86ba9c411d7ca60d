"""The classifier of TiTok's perceptual loss: ConvNeXt-S on ImageNet-1k, weights given by path.

Liu et al. 2022, "A ConvNet for the 2020s". Yu et al. 2024 train the pixels of their tokenizers by the squared error of
its logits. Files by torchvision, timm and the paper's authors are read, each with its own names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.errors import WeightsError
from titokcodec.models.shapes import shapes_of
from titokcodec.weights.state_dicts import StateDict, open_state_dict

SIDE = 224  # pixels that the network was trained at

_CLASSES = 1000
_EPSILON = 1e-6  # of every LayerNorm
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, as all publishers have them

Layout = Mapping[str, str]  # our name of a module or parameter, and the file's; "odd" and "even" are 2 stage + 1, + 0

_TORCHVISION: Layout = {
    "stem.0": "features.0.0",
    "stem.1": "features.0.1",
    "stages.{stage}.halving.0": "features.{even}.0",
    "stages.{stage}.halving.1": "features.{even}.1",
    "stages.{stage}.blocks.{block}.spatial": "features.{odd}.{block}.block.0",
    "stages.{stage}.blocks.{block}.norm": "features.{odd}.{block}.block.2",
    "stages.{stage}.blocks.{block}.widen": "features.{odd}.{block}.block.3",
    "stages.{stage}.blocks.{block}.narrow": "features.{odd}.{block}.block.5",
    "stages.{stage}.blocks.{block}.scale": "features.{odd}.{block}.layer_scale",
    "norm": "classifier.0",
    "fc": "classifier.2",
}
_TIMM: Layout = {
    "stem.0": "stem.0",
    "stem.1": "stem.1",
    "stages.{stage}.halving.0": "stages.{stage}.downsample.0",
    "stages.{stage}.halving.1": "stages.{stage}.downsample.1",
    "stages.{stage}.blocks.{block}.spatial": "stages.{stage}.blocks.{block}.conv_dw",
    "stages.{stage}.blocks.{block}.norm": "stages.{stage}.blocks.{block}.norm",
    "stages.{stage}.blocks.{block}.widen": "stages.{stage}.blocks.{block}.mlp.fc1",
    "stages.{stage}.blocks.{block}.narrow": "stages.{stage}.blocks.{block}.mlp.fc2",
    "stages.{stage}.blocks.{block}.scale": "stages.{stage}.blocks.{block}.gamma",
    "norm": "head.norm",
    "fc": "head.fc",
}
_AUTHORS: Layout = {
    "stem.0": "downsample_layers.0.0",
    "stem.1": "downsample_layers.0.1",
    "stages.{stage}.halving.0": "downsample_layers.{stage}.0",
    "stages.{stage}.halving.1": "downsample_layers.{stage}.1",
    "stages.{stage}.blocks.{block}.spatial": "stages.{stage}.{block}.dwconv",
    "stages.{stage}.blocks.{block}.norm": "stages.{stage}.{block}.norm",
    "stages.{stage}.blocks.{block}.widen": "stages.{stage}.{block}.pwconv1",
    "stages.{stage}.blocks.{block}.narrow": "stages.{stage}.{block}.pwconv2",
    "stages.{stage}.blocks.{block}.scale": "stages.{stage}.{block}.gamma",
    "norm": "norm",
    "fc": "head",
}


class ConvNeXt(nn.Module):
    """ConvNeXt-S, frozen; differentiable in its input.

    Args:
        path: ``.safetensors`` or PyTorch file with the names of torchvision's ``convnext_small``, timm's or the
            authors', in any float type. Other sizes of the network are refused: a loss by them is another loss.
        dtype: What the weights are kept in, and what the network computes in. The published loss has float32.

    Raises:
        WeightsError: the file is not of this network.
    """

    depths: ClassVar[tuple[int, ...]] = (3, 3, 27, 3)  # blocks of each stage (Liu et al. 2022, section 3)
    widths: ClassVar[tuple[int, ...]] = (96, 192, 384, 768)

    mean: Tensor
    deviation: Tensor

    def __init__(self, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.device("meta"):  # no random start: it would take time and move the caller's generator
            self.stem = nn.Sequential(nn.Conv2d(3, self.widths[0], 4, 4), _Norm(self.widths[0]))
            befores = (None, *self.widths[:-1])
            self.stages = nn.Sequential(*map(_Stage, befores, self.widths, self.depths))
            self.norm = nn.LayerNorm(self.widths[-1], _EPSILON)
            self.fc = nn.Linear(self.widths[-1], _CLASSES)
        state = self._read(open_state_dict(Path(path)))
        self.load_state_dict({name: value.to(dtype) for name, value in state.items()}, assign=True)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) RGB -> (B, 1000) logits of the ImageNet-1k classes.

        Pixels are in [0, 1] where they are a picture's. Those of a decoder go beyond and are not clamped: the loss is
        to see it. They are resized to 224 x 224, bilinear and antialiased.
        """
        if pixels.shape[-2:] != (SIDE, SIDE):
            pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = ((pixels - self.mean) / self.deviation).to(self.fc.weight.dtype)
        x = self.stages(self.stem(x))
        found: Tensor = self.fc(self.norm(x.mean((2, 3))))
        return found

    def _read(self, file: StateDict) -> dict[str, Tensor]:
        """The file's tensors by our names."""
        shapes = shapes_of(self)
        names = self._names(file)
        # Of torchvision's, the scale of a block has two more axes of one.
        stored = {names[name]: shape + (1, 1) * names[name].endswith("layer_scale") for name, shape in shapes.items()}
        try:
            file.check(stored)
        except WeightsError as error:
            raise WeightsError(f"{error}; ConvNeXt-S is needed, torchvision's convnext_small, say") from None
        return {name: file.tensor(names[name]).view(shape) for name, shape in shapes.items()}

    def _names(self, file: StateDict) -> dict[str, str]:
        """The file's name of each of our parameters."""
        for layout in (_TORCHVISION, _TIMM, _AUTHORS):
            if f"{layout['stem.0']}.weight" in file.shapes:
                modules = dict(_modules(layout, self.depths))
                split = {name: name.rpartition(".") for name in shapes_of(self)}
                return {n: modules.get(n) or f"{modules[module]}.{kind}" for n, (module, _, kind) in split.items()}
        raise WeightsError(
            f"{file.path} is of another network: it has no {_TORCHVISION['stem.0']}.weight; ConvNeXt-S is needed, "
            "with torchvision's names, timm's or the authors'"
        )


class _Norm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W) maps."""

    def __init__(self, width: int) -> None:
        super().__init__(width, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normal.permute(0, 3, 1, 2)


class _Stage(nn.Sequential):
    """``depth`` blocks, at half the side of what came before unless nothing did."""

    def __init__(self, before: int | None, width: int, depth: int) -> None:
        super().__init__()
        if before:
            self.halving = nn.Sequential(_Norm(before), nn.Conv2d(before, width, 2, 2))
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))


class _Block(nn.Module):
    """Filter each channel by 7 x 7, then an MLP over the channels at each place; scaled, and added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, _EPSILON)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        scaled: Tensor = self.scale * self.narrow(F.gelu(self.widen(y)))
        return x + scaled.permute(0, 3, 1, 2)


def _modules(layout: Layout, depths: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Our name and the file's of every module, and of every scale, for stages of ``depths`` blocks."""
    for ours, theirs in layout.items():
        if "{stage}" not in ours:
            yield ours, theirs
            continue
        for stage, depth in enumerate(depths):
            for block in range(depth if "{block}" in ours else stage > 0):
                places = {"stage": stage, "block": block, "even": 2 * stage, "odd": 2 * stage + 1}
                yield ours.format(**places), theirs.format(**places)
