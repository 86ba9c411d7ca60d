"""MaskGIT-VQGAN (Chang et al. 2022), the 2D tokenizer that teaches TiTok and decodes for legacy models.

A convolutional encoder and decoder without attention, and a codebook between them. As published: sixteen-fold
downsampling, 1024 codes of width 256. Parameter names and quirks are the published ones, of the checkpoint that TiTok's
authors trained with (Yu et al. 2024, section 3.3). ``light`` is this project's own: it works on squares of pixels, and
keeps one number of channels, so that every block has its residual.

    pixels (B,3,16h,16w) -> Encoder -> latents (B,256,h,w) -> VectorQuantizer -> tokens (B,h*w)
    tokens (B,h*w) -> codes (B,256,h,w) -> Decoder -> pixels (B,3,16h,16w)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.meta import on_meta
from titokcodec.models.quantizer import Quantized, VectorQuantizer
from titokcodec.models.shapes import Shape, Shapes, differences, shape_of, shapes_of
from titokcodec.models.vqgan_config import (
    GROUPS,
    MOST_BLOCKS,
    MOST_LEVELS,
    MOST_PARAMETERS,
    VQGAN_PRESETS,
    VQGANConfig,
    require_vqgan,
)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _silu(x: Tensor) -> Tensor:
    """Of what nothing else needs. In place where nothing is learned: new memory for large maps costs more than SiLU."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _plus(x: Tensor, y: Tensor) -> Tensor:
    """``x``, which nothing else needs, plus ``y``; see ``_silu``."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


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
        h = self.conv1(_silu(self.norm1(x)))
        h = self.conv2(_silu(self.norm2(h)))
        return _plus(h, x if self.same else self.nin_shortcut(h))


def _blocks(inputs: int, outputs: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(ResBlock(outputs if i else inputs, outputs) for i in range(count))


class Shrink(nn.Module):
    """Residual blocks and, on all but the coarsest level, a halving of both sides by averaging."""

    def __init__(self, inputs: int, outputs: int, blocks: int, last: bool) -> None:
        super().__init__()
        self.block = _blocks(inputs, outputs, blocks)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.last else F.avg_pool2d(x, 2)


class Doubling(nn.Conv2d):
    """Every pixel becomes 2x2 alike, then a 3x3 convolution runs over them, which has the parameters.

    A pixel of the result sees 2x2 different pixels at most. So both are one transposed convolution of 4x4 with a step
    of two: four products where the 3x3 kernel takes nine, and the enlarged map never exists.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        kernel = _overlaid(_overlaid(self.weight.float(), 2), 3).to(self.weight.dtype).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def _overlaid(kernel: Tensor, axis: int) -> Tensor:
    """Three entries along an axis as the four of a transposed convolution: those that meet the same pixel add up."""
    before, here, after = kernel.unbind(axis)
    return torch.stack([after, here + after, before + here, before], axis)


class Level(nn.Module):
    """Residual blocks and, on all but the finest level, a doubling of both sides."""

    def __init__(self, inputs: int, outputs: int, blocks: int, last: bool) -> None:
        super().__init__()
        self.block = _blocks(inputs, outputs, blocks)
        self.last = last
        if not last:
            self.upsample_conv = Doubling(outputs)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.last else self.upsample_conv(x)


class Encoder(nn.Module):
    """(B, 3, 16h, 16w) pixels in [0, 1] -> (B, 256, h, w) latents, by the config's factor and code width.

    ``forward`` raises ``ValueError`` for sides that the factor does not divide.
    """

    def __init__(self, config: VQGANConfig = VQGAN_PRESETS["published"]) -> None:
        super().__init__()
        channels, deepest = config.channels, config.channels[-1]
        self.factor, self.patch = config.factor, config.patch
        self.conv_in = nn.Conv2d(config.samples, channels[0], 3, padding=1, bias=False)
        above = (channels[0], *channels[:-1])
        self.down = nn.ModuleList(
            Shrink(above[i], out, config.blocks, last=i == len(channels) - 1) for i, out in enumerate(channels)
        )
        self.mid = _blocks(deepest, deepest, 2)
        self.norm_out = _norm(deepest)
        self.conv_out = nn.Conv2d(deepest, config.code_width, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(f"the sides {width} x {height} are not multiples of {self.factor}: crop the picture")
        x = self.conv_in(F.pixel_unshuffle(pixels, self.patch))
        for level in self.down:
            x = level(x)
        for block in self.mid:
            x = block(x)
        return self.conv_out(_silu(self.norm_out(x)))


class Decoder(nn.Module):
    """(B, 256, h, w) codes -> (B, 3, 16h, 16w) pixels, nominally in [0, 1] but not clamped."""

    def __init__(self, config: VQGANConfig = VQGAN_PRESETS["published"]) -> None:
        super().__init__()
        channels, deepest = config.channels, config.channels[-1]
        self.conv_in = nn.Conv2d(config.code_width, deepest, 3, padding=1)
        self.mid = _blocks(deepest, deepest, 2)
        above = (*channels[1:], deepest)
        self.up = nn.ModuleList(Level(above[i], out, config.blocks, last=i == 0) for i, out in enumerate(channels))
        self.norm_out = _norm(channels[0])
        self.conv_out = nn.Conv2d(channels[0], config.samples, 3, padding=1)
        self.patch = config.patch

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and not torch.is_grad_enabled():
            return torch.cat([self._decoded(one) for one in x.split(1)])  # the memory of one serves the next
        return self._decoded(x)

    def _decoded(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
        return F.pixel_shuffle(self.conv_out(_silu(self.norm_out(x))), self.patch)


class VQGAN(nn.Module):
    """The whole 2D tokenizer. Pixels are RGB in [0, 1], tokens are int64 in [0, codes), row-major."""

    def __init__(self, config: VQGANConfig = VQGAN_PRESETS["published"]) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantize = VectorQuantizer(config.codes, config.code_width, l2_normalised=False)
        self.decoder = Decoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, 16h, 16w) of any float type in [0, 1] -> (B, h*w, d), before quantization.

        Raises ``ValueError`` for sides that the config's factor does not divide; so do ``encode`` and ``forward``.
        """
        return self.encoder(pixels.to(self.encoder.conv_in.weight.dtype)).flatten(2).transpose(1, 2)

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, 16h, 16w) of any float type in [0, 1] -> (B, h*w) int64."""
        return self.quantize.nearest(self.latents(pixels))

    def decode(self, tokens: Tensor, rows: int | None = None) -> Tensor:
        """(B, h*w) int64 -> (B, 3, 16h, 16w) float32 in [0, 1].

        Args:
            tokens: Row-major.
            rows: h; None takes the picture for square. Raises ``ValueError`` if the tokens do not fill such rows.
        """
        count = tokens.shape[1]
        square = rows is None
        rows = math.isqrt(count) if rows is None else rows
        if rows < 1 or count % rows or (square and rows * rows != count):
            shape = "square" if square else f"grid of {rows} rows"
            raise ValueError(f"{count} tokens make no {shape}: give the number of rows")
        return self.decode_codes(self.quantize.lookup(tokens), rows).float().clamp(0, 1)

    def decode_codes(self, codes: Tensor, rows: int) -> Tensor:
        """(B, h*w, d) codes, row-major -> (B, 3, 16h, 16w) pixels, not clamped."""
        grid = codes.transpose(1, 2).unflatten(2, (rows, -1))
        return self.decoder(grid.to(self.decoder.conv_in.weight.dtype))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Quantized]:
        """(B, 3, 16h, 16w) -> decoded pixels of that shape, not clamped, and what the quantizer found, for training."""
        found = self.quantize(self.latents(pixels))
        return self.decode_codes(found.codes, pixels.shape[-2] // self.config.factor), found


def config_of(shapes: Shapes) -> VQGANConfig:
    """The architecture of a checkpoint, from the names and shapes of its tensors alone.

    Allocates nothing, whatever the shapes claim.

    Raises:
        WeightsError: a tensor is missing, unknown or misshapen (it is named), or the sizes are absurd.
    """

    def shape(name: str, axes: int) -> Shape:
        return shape_of(shapes, name, axes, "no MaskGIT-VQGAN")

    codes, code_width = shape("quantize.embedding.weight", 2)
    levels = _count(shapes, "encoder.down", MOST_LEVELS)
    blocks = _count(shapes, "encoder.down.0.block", MOST_BLOCKS)
    channels = [shape(f"encoder.down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)]
    config = VQGANConfig(tuple(channels), blocks, code_width, codes, _patch(shapes))
    expected = shapes_of(on_meta(lambda: VQGAN(config)))
    problems = differences(expected, shapes)
    require_vqgan(not problems, "; ".join(problems))
    size = sum(map(math.prod, expected.values()))
    require_vqgan(size <= MOST_PARAMETERS, f"{size} parameters are more than {MOST_PARAMETERS}")
    return config


def _count(shapes: Shapes, prefix: str, most: int) -> int:
    """How many of ``prefix.0``, ``prefix.1`` ... have a tensor, from one to one more than ``most``."""
    count = 1
    while count <= most and any(name.startswith(f"{prefix}.{count}.") for name in shapes):
        count += 1
    return count


def _patch(shapes: Shapes) -> int:
    """From the first convolution; 1 where that is missing or misshapen, so that it is named as such."""
    _, inputs, *_ = (*shapes.get("encoder.conv_in.weight", ()), 0, 0)
    return max(1, math.isqrt(max(0, inputs) // 3))
