"""The convolutional decoder of MaskGIT-VQGAN (Chang et al. 2022), through which legacy TiTok models draw pixels.

Sixteen-fold upsampling, 1024 codes of width 256, no attention. Parameter names and quirks are the published ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CODE_WIDTH = 256
_CHANNELS = (128, 128, 256, 256, 512)  # by level, finest first


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a residual.

    Where the number of channels changes, the published 1x1 shortcut reads the *output* of the convolutions and the
    block's input is dropped. It looks like a slip, but the weights were trained with it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.same = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.same else self.nin_shortcut(h))


class Level(nn.Module):
    """Two residual blocks and, on all but the finest level, a doubling of both sides."""

    def __init__(self, inputs: int, outputs: int, last: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList([ResBlock(inputs, outputs), ResBlock(outputs, outputs)])
        self.last = last
        if not last:
            self.upsample_conv = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.last else self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Decoder(nn.Module):
    """(B, 256, h, w) codes -> (B, 3, 16h, 16w) pixels, nominally in [0, 1] but not clamped."""

    def __init__(self) -> None:
        super().__init__()
        deepest = _CHANNELS[-1]
        self.conv_in = nn.Conv2d(CODE_WIDTH, deepest, 3, padding=1)
        self.mid = nn.ModuleList([ResBlock(deepest, deepest), ResBlock(deepest, deepest)])
        above = (*_CHANNELS[1:], deepest)
        self.up = nn.ModuleList(Level(above[i], out, last=i == 0) for i, out in enumerate(_CHANNELS))
        self.norm_out = _norm(_CHANNELS[0])
        self.conv_out = nn.Conv2d(_CHANNELS[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
