"""Our pixel head: convolutions over the decoder's cells and the linear sketch, on finer and finer grids.

A trunk at 32 x 32 corrects the sketch of 64 x 64 pixels; that is where nearly all of the squared error is. Fine detail
is added at 64, 128 and 256 pixels. Those grids are reached by bilinear enlargement and small convolutions, and carry a
few channels of fixed noise: a network that has only its own grid to invent texture from leaves the same mark in every
cell.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import SKETCH, TiTokConfig

NOISE = {64: 4, 128: 2, 256: 1}  # side of a grid -> its channels of noise
ALIGNMENT = 8  # tensor cores want a multiple of so many channels


class Residual(nn.Module):
    """x + conv(GELU(conv(norm(x)))), all of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_2(F.gelu(self.conv_1(self.norm(x))))


class Detail(nn.Module):
    """What lies between the enlarged sketch and the picture: (B, W, 32, 32) and (B, 3, 64, 64) -> (B, 3, H, H)."""

    def __init__(self, width: int, image_size: int, own_width: int = 0, blocks: int = 1) -> None:
        super().__init__()
        widths = (max(width // 3, 8), max(width // 6, 8), max(width // 8, 8))
        if own_width:
            widths = (own_width, own_width // 2, own_width // 3)
        self.enter = nn.Conv2d(width, widths[0], 3, padding=1)
        self.steps = nn.ModuleList()
        before = widths[0] + 3
        self.sides = [side for side in NOISE if side <= image_size]
        for side, after in zip(self.sides, widths, strict=False):
            self.steps.append(nn.Conv2d(before + NOISE[side], after, 3, padding=1))
            self.register_buffer(f"noise_{side}", torch.from_numpy(fixed_noise(side)), persistent=False)
            before = after
        self.block = Residual(widths[0]) if own_width else nn.Identity()  # at 64 x 64, where detail starts from
        self.finer = nn.ModuleList(Residual(width) for width in widths[1 : min(blocks, len(self.sides))])
        self.leave = nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, x: Tensor, sketch: Tensor) -> Tensor:
        x = torch.cat([_enlarged(self.enter(x), SKETCH), sketch.to(x.dtype) - 0.5], 1)
        step: Any
        for side, step, block in zip_longest(self.sides, self.steps, [self.block, *self.finer]):
            x = F.gelu(self._noisy(step, _enlarged(x, side)))
            x = block(x) if block else x
        return self._convolved(x, self.leave.weight, self.leave.bias)

    def _noisy(self, step: nn.Conv2d, x: Tensor) -> Tensor:
        """``step`` of x with the noise beside it. Each is convolved by itself: all pictures share what the noise gives,
        and nothing as large as they are is copied to put it beside them."""
        noise, width = self._noise(x), x.shape[1]
        shared = F.conv2d(noise, step.weight[:, width:], step.bias, padding=1)
        return self._convolved(x, step.weight[:, :width]) + shared

    def _noise(self, x: Tensor) -> Tensor:
        """The fixed noise; in training another one in every step, so that its positions are not memorised."""
        side = x.shape[-1]
        if self.training:
            return (torch.rand(1, NOISE[side], side, side, device=x.device, dtype=x.dtype) - 0.5) * 12**0.5
        return getattr(self, f"noise_{side}").to(x.dtype)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        convolved = aligned_convolution if self.training and x.is_cuda else F.conv2d
        return convolved(x, weight, bias, padding=1)


class Refiner(nn.Module):
    """(B, W, g, g) cells and (B, 3, 64, 64) sketch -> (B, 3, H, H) pixels, not clamped.

    Attributes:
        detailed: Whether fine detail is added; training by squared error alone leaves it out, since it is worth nothing
            there and costs as much as all the rest.
    """

    rows: Tensor

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        width, finer = config.head_width, config.head_grid // config.grid
        self.size, self.spread = config.image_size, SKETCH // config.head_grid
        self.unfold = nn.Sequential(
            nn.Conv2d(config.decoder.width, width * finer**2, 1), nn.PixelShuffle(finer) if finer > 1 else nn.Identity()
        )
        self.read = nn.Conv2d(3 * self.spread**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(config.head_blocks))
        self.correct = nn.Conv2d(width, 3 * self.spread**2, 3, padding=1)
        self.detail = Detail(width, config.image_size, config.detail_width, config.detail_blocks)
        self.register_buffer("rows", torch.from_numpy(enlargement(SKETCH, config.image_size)), persistent=False)
        self.detailed = True

    def silence(self) -> None:
        """Add nothing to the sketch: zero the last layers."""
        for last in (self.correct, self.detail.leave):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, sketch: Tensor) -> Tensor:
        x, sketch = self.refine_sketch(cells, sketch)
        pixels = self._enlarged(sketch)
        return pixels + self.detail(x, sketch).float() if self.detailed else pixels

    def refine_sketch(self, cells: Tensor, sketch: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk alone: (B, w, 32, 32) that detail starts from, and the (B, 3, 64, 64) sketch, corrected."""
        x = self.unfold(cells) + self.read(F.pixel_unshuffle(sketch - 0.5, self.spread).to(cells.dtype))
        for block in self.blocks:
            x = block(x)
        return x, sketch + F.pixel_shuffle(self.correct(x), self.spread).float()

    def _enlarged(self, sketch: Tensor) -> Tensor:
        """The sketch at full size, bicubic. For gradients by two products with a matrix: on a GPU, PyTorch's own kernel
        adds these up one by one."""
        if not sketch.requires_grad or self.rows.dtype != sketch.dtype:  # a model in bfloat16 has rounded its matrix
            return F.interpolate(sketch, size=self.size, mode="bicubic")
        with torch.autocast(sketch.device.type, enabled=False):
            return self.rows @ (sketch @ self.rows.T)


def aligned_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """``conv2d`` with its channels padded by zeros to multiples of ``ALIGNMENT``: tensor cores do little for 67, 21 or
    3 of them, and least for the gradient of the weights."""
    channels = len(weight)
    more_in, more_out = (-n % ALIGNMENT for n in (x.shape[1], channels))
    weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
    bias = None if bias is None else F.pad(bias, (0, more_out))
    return F.conv2d(F.pad(x, (0, 0, 0, 0, 0, more_in)), weight, bias, padding=padding)[:, :channels]


def _enlarged(x: Tensor, side: int) -> Tensor:
    return x if x.shape[-1] == side else F.interpolate(x, size=side, mode="bilinear")


def enlargement(small: int, large: int) -> np.ndarray:
    """(large, small) float32: the weights that bicubic enlargement, as PyTorch does it, gives the pixels of a column.

    Keys' cubic with a = -0.75 over four neighbours; beyond the border, the outermost pixel stands for what is missing.
    """
    a, rows = -0.75, np.arange(large)
    centres = (rows + 0.5) * small / large - 0.5
    before = np.floor(centres).astype(int)
    matrix = np.zeros((large, small))
    for tap in range(-1, 3):
        x = np.abs(centres - before - tap)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(matrix, (rows, np.clip(before + tap, 0, small - 1)), np.where(x <= 1, near, far))
    return matrix.astype(np.float32)


def fixed_noise(side: int) -> np.ndarray:
    """(1, channels, side, side) float32 of unit variance: the same on every machine, from a hash of integers."""
    count = NOISE[side] * side * side
    x = np.arange(count, dtype=np.uint64) + np.uint64(side * 0x9E3779B97F4A7C15 % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64 (Steele et al. 2014)
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    uniform = (x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return ((uniform - 0.5) * np.float32(12**0.5)).reshape(1, NOISE[side], side, side)
