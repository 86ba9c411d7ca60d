"""DiT and all it needs to make pictures, as one writes them down in PyTorch: what the generators are timed against.

The network is that of Peebles & Xie 2023, section 3 (figure 3, adaLN-Zero). Around it are the diffusion of Ho et al.
2020 with the learned variances and respaced steps of Nichol & Dhariwal 2021, sections 3.1 and 4, guidance without a
classifier (Ho & Salimans 2022), and the decoder of the autoencoder of Rombach et al. 2022, appendix G.

    noise (B,4,32,32) -> 250 steps: [DiT of 2B, guidance, a little less noise] -> latents (B,4,32,32)
    latents (B,4,32,32) -> Decoder -> pixels (B,3,256,256)

Weights are whatever the caller puts in. None were published in this layout, and only time is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.layers import attention

WAVES = 256  # numbers that a timestep is written as
TRAINED_STEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 0.02
LATENT_SCALE = 0.18215  # DiT's latents are the autoencoder's times this
GROUPS = 32  # of the decoder's norms


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT; the defaults are XL/2 for 256 pixels (Peebles & Xie 2023, table 1).

    Attributes:
        width, layers, heads: Of the transformer.
        patch: Side of the squares of latents that are one position.
        side, channels: Of the latents.
        classes: It can be asked for; one more stands for none.
    """

    width: int = 1152
    layers: int = 28
    heads: int = 16
    patch: int = 2
    side: int = 32
    channels: int = 4
    classes: int = 1000

    @property
    def grid(self) -> int:
        """Positions along one side."""
        return self.side // self.patch


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the autoencoder's decoder; the defaults are Stable Diffusion's, eight-fold with 4 channels.

    Attributes:
        latents: Channels that come in.
        channels: By level, finest first; every level but the finest doubles both sides.
        blocks: Residual blocks a level. The middle has two, and attention between them.
    """

    latents: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 3


class DiTBlock(nn.Module):
    """Attention and MLP on (B, L, W), each of which the condition (B, W) shifts, scales and gates."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)  # without parameters, hence for both
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        parts = self.modulate(F.silu(condition))[:, None].chunk(6, dim=-1)
        x = x + parts[2] * self.attend(_modulated(self.norm(x), *parts[:2]))
        return x + parts[5] * self.fc2(F.gelu(self.fc1(_modulated(self.norm(x), *parts[3:5])), approximate="tanh"))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))


class DiT(nn.Module):
    """Noise, and how much of it the next step takes away, from noisy latents, a timestep and a class."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patches = nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.empty(config.grid**2, width), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(config.classes + 1, width)
        self.blocks = nn.ModuleList(DiTBlock(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, config.patch**2 * 2 * config.channels)

    @torch.no_grad()
    def place(self) -> None:
        """Set the positions to the sines and cosines that they are, half of them for rows and half for columns."""
        width, grid = self.config.width, self.config.grid
        line = waves(torch.arange(grid, device=self.positions.device), width // 2)
        rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
        self.positions.copy_(torch.cat([rows, columns], dim=-1).flatten(0, 1))

    def forward(self, latents: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """What is noise in the latents, and where its variance lies.

        Args:
            latents: (B, C, S, S) of any float type.
            times: (B,) timesteps in [0, 1000).
            labels: (B,) int64 in [0, classes]; the last stands for none.

        Returns (B, 2C, S, S) float32: noise, then the variance from -1, the least, to 1, the most.
        """
        dtype = self.positions.dtype
        x = self.patches(latents.to(dtype)).flatten(2).transpose(1, 2) + self.positions
        condition = self.time(waves(times, WAVES).to(dtype)) + self.classes(labels)
        for block in self.blocks:
            x = block(x, condition)
        x = self.out(_modulated(self.norm(x), *self.modulate(F.silu(condition))[:, None].chunk(2, dim=-1)))
        grid, patch = self.config.grid, self.config.patch
        x = x.view(len(x), grid, grid, patch, patch, -1)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, grid * patch, grid * patch).float()


def waves(numbers: Tensor, width: int) -> Tensor:
    """(n,) -> (n, width) float32: cosines and sines of the numbers at falling frequencies (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=numbers.device) * (-math.log(10_000) / half))
    angles = numbers[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a residual, (B, C, H, W) -> (B, D, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = _norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class PixelAttention(nn.Module):
    """Attention of one head between all places of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        return x + self.proj(attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Decoder(nn.Module):
    """(B, 4, S, S) latents -> (B, 3, 8S, 8S) pixels, nominally in [-1, 1], by the config's levels."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        deepest = config.channels[-1]
        self.scale = nn.Conv2d(config.latents, config.latents, 1)
        self.first = nn.Conv2d(config.latents, deepest, 3, padding=1)
        self.middle = nn.Sequential(ResBlock(deepest, deepest), PixelAttention(deepest), ResBlock(deepest, deepest))
        above = (*config.channels[1:], deepest)
        levels = [_level(above[i], out, config.blocks, finest=i == 0) for i, out in enumerate(config.channels)]
        self.levels = nn.Sequential(*reversed(levels))
        self.norm, self.last = _norm(config.channels[0]), nn.Conv2d(config.channels[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.levels(self.middle(self.first(self.scale(latents))))
        return self.last(F.silu(self.norm(x)))


def _level(inputs: int, outputs: int, blocks: int, finest: bool) -> nn.Sequential:
    level = nn.Sequential(*(ResBlock(outputs if i else inputs, outputs) for i in range(blocks)))
    if not finest:
        level.extend([nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(outputs, outputs, 3, padding=1)])
    return level


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


@dataclass(frozen=True)
class Step:
    """The numbers of one step back, from latents x to ones with less noise.

    Attributes:
        time: The timestep, as it was counted in training.
        x, noise: Clean latents are ``x * latents - noise * guessed noise``.
        keep, take: The mean of the next latents is ``keep * latents + take * clean latents``.
        least, most: Logarithms of the variances between which the network chooses.
    """

    time: int
    x: float
    noise: float
    keep: float
    take: float
    least: float
    most: float


def respaced(steps: int) -> list[Step]:
    """The steps in the order of sampling, evenly spread over those of training, from the last to the first.

    Their betas are such that as much of the picture is left at each as in training (Nichol & Dhariwal 2021, section 4).
    """
    left = torch.linspace(FIRST_BETA, LAST_BETA, TRAINED_STEPS, dtype=torch.float64).neg().add(1).cumprod(0).tolist()
    times = [round(i * (TRAINED_STEPS - 1) / max(1, steps - 1)) for i in range(steps)]
    found, before, variance = [], 1.0, 0.0
    for number, time in enumerate(times):
        now = left[time]
        alpha, beta = now / before, 1 - now / before
        variance = beta * (1 - before) / (1 - now)
        found.append(
            Step(
                time,
                now**-0.5,
                (1 / now - 1) ** 0.5,
                alpha**0.5 * (1 - before) / (1 - now),
                beta * before**0.5 / (1 - now),
                math.log(variance) if number else -math.inf,
                math.log(beta),
            )
        )
        before = now
    return found[::-1]


class Diffusion:
    """Pictures of classes, with both branches of guidance in one batch.

    Args:
        model, decoder: In the precision they are to compute in. What is between them is float32.
        steps: Passes through the model.
        guidance: The scale w: noise is that of no class plus w times the difference that the class makes.
    """

    def __init__(self, model: DiT, decoder: Decoder, steps: int = 250, guidance: float = 1.5) -> None:
        self.model, self.decoder, self.guidance = model, decoder, guidance
        self.config, self.device, self.dtype = model.config, model.positions.device, model.positions.dtype
        self.steps = respaced(steps)

    def start(self, count: int) -> Tensor:
        """(count, C, S, S) of noise."""
        side = self.config.side
        return torch.randn(count, self.config.channels, side, side, device=self.device)

    @torch.inference_mode()
    def step(self, latents: Tensor, labels: Tensor, step: Step) -> Tensor:
        """(B, C, S, S) float32 latents and (B,) int64 labels on the device -> latents one step on."""
        both = torch.cat([labels, torch.full_like(labels, self.config.classes)])
        times = torch.full_like(both, step.time)
        noise, variance = self.model(torch.cat([latents, latents]), times, both).chunk(2, dim=1)
        (wanted, other), share = noise.chunk(2), (variance.chunk(2)[0] + 1) / 2
        noise = other + self.guidance * (wanted - other)
        mean = step.keep * latents + step.take * (step.x * latents - step.noise * noise)
        if not step.time:
            return mean
        deviation = torch.exp(0.5 * (share * step.most + (1 - share) * step.least))
        return mean + deviation * torch.randn_like(latents)

    def walk(self, labels: Tensor) -> Iterator[Tensor]:
        """(B,) int64 on the device -> the latents after every step, (B, C, S, S) float32."""
        latents = self.start(len(labels))
        for step in self.steps:
            latents = self.step(latents, labels, step)
            yield latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 3, 8S, 8S) float32 in [0, 1]."""
        pixels = self.decoder((latents / LATENT_SCALE).to(self.dtype))
        return (pixels.float() / 2 + 0.5).clamp(0, 1)
