"""A frozen ImageNet classifier for metrics and losses: EfficientNet-Lite0, weights given by path.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as TensorFlow's ``efficientnet/lite``
published it, BatchNorm folded into the convolutions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.shapes import shapes_of
from titokcodec.weights.state_dicts import open_state_dict

SIDE = 224  # pixels that the network was trained at

_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_STAGES = (  # blocks, channels, kernel, stride of the first block, expansion (Tan and Le 2019, table 1)
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class Lite0(nn.Module):
    """EfficientNet-Lite0, frozen; differentiable in its input.

    All methods take (B, 3, H, W) RGB in [0, 1]; all but ``maps`` resize it to 224 x 224 themselves (bicubic,
    antialiased).

    Args:
        path: safetensors file with ``stem``, ``blocks.N.{expand,dw,project}``, ``head`` and ``fc``, each with
            ``.weight`` and ``.bias``, in any float type.
        dtype: What they are kept in, and what the network computes in. Metrics need float32.

    Raises:
        WeightsError: the file is not of this network.
    """

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.device("meta"):  # no random start: it would take time and move the caller's generator
            self.stem = Conv(3, _STEM, 3, stride=2)
            self.blocks = nn.ModuleList()
            self.ends = []  # blocks done at the end of each stage
            width = _STEM
            for count, channels, kernel, stride, expansion in _STAGES:
                for number in range(count):
                    self.blocks.append(_Block(width, channels, kernel, stride if number == 0 else 1, expansion))
                    width = channels
                self.ends.append(len(self.blocks))
            self.head = Conv(width, _HEAD, 1)
            self.fc = nn.Linear(_HEAD, _CLASSES)
        file = open_state_dict(Path(path))
        file.check(shapes_of(self))
        self.load_state_dict({name: value.to(dtype) for name, value in file.tensors().items()}, assign=True)
        self.eval().requires_grad_(False)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Eight feature maps: after each of the seven stages, at strides 2 4 8 16 16 32 32, and the head's."""
        if pixels.shape[-2:] != (SIDE, SIDE):
            pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
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
