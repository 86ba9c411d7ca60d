"""DiT and all that it needs to generate pictures, in plain PyTorch: the baseline that our generators are timed against.

The network is that of Peebles & Xie 2023, section 3 (figure 3, adaLN-Zero). Around it are the diffusion of Ho et al.
2020 with the learned variances and respaced steps of Nichol & Dhariwal 2021, sections 3.1 and 4, classifier-free
guidance (Ho & Salimans 2022), and the decoder of the autoencoder of Rombach et al. 2022, appendix G.

    noise (B,4,32,32) -> 250 steps: [DiT of 2B, guidance, a little less noise] -> latents (B,4,32,32)
    latents (B,4,32,32) -> Decoder -> pixels (B,3,256,256)

Weights are whatever the caller loads: only time is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.layers import attention

FREQUENCIES = 256  # values of a timestep's sinusoidal embedding
TRAINED_STEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 0.02
LATENT_SCALE = 0.18215  # DiT's latents are the autoencoder's times this


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT; the defaults are XL/2 for 256 pixels (Peebles & Xie 2023, table 1).

    Attributes:
        width, layers, heads: Of the transformer.
        patch: Side of the squares of latents that become one position.
        side, channels: Of the latents.
        classes: Number of classes; one more embedding stands for no class.
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


class DiTBlock(nn.Module):
    """Attention and MLP on (B, L, W), each shifted, scaled and gated by the condition (B, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)  # no parameters, so one serves both
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(F.silu(condition))[:, None].chunk(6, dim=-1)
        q, k, v = (
            self.qkv(self.norm(x) * (1 + scale1) + shift1).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        x = x + gate1 * self.proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """Predicts the noise in latents, and the variance of the next step, from a timestep and a class."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.patches = nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.empty(config.grid**2, width), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(config.classes + 1, width)
        self.blocks = nn.ModuleList(DiTBlock(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, config.patch**2 * 2 * config.channels)

    @torch.no_grad()
    def set_positions(self) -> None:
        """Fill the fixed position embeddings: the first half encodes the row, the second the column."""
        line = sinusoids(torch.arange(self.config.grid, device=self.positions.device), self.config.width // 2)
        rows, columns = line[:, None].expand(-1, len(line), -1), line[None].expand(len(line), -1, -1)
        self.positions.copy_(torch.cat([rows, columns], dim=-1).flatten(0, 1))

    def forward(self, latents: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noise and variance.

        Args:
            latents: (B, C, S, S) of any float type.
            times: (B,) timesteps in [0, 1000).
            labels: (B,) int64 in [0, classes]; the last stands for no class.

        Returns:
            (B, 2C, S, S) float32: noise, then the variance from -1, the least, to 1, the most.
        """
        dtype = self.positions.dtype
        x = self.patches(latents.to(dtype)).flatten(2).transpose(1, 2) + self.positions
        condition = self.time(sinusoids(times, FREQUENCIES).to(dtype)) + self.classes(labels)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulate(F.silu(condition))[:, None].chunk(2, dim=-1)
        x = self.out(self.norm(x) * (1 + scale) + shift)
        grid, patch = self.config.grid, self.config.patch
        x = x.view(len(x), grid, grid, patch, patch, -1)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, grid * patch, grid * patch).float()


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """(n,) -> (n, width) float32: cosines, then sines, at falling frequencies (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000) / half))
    angles = positions[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


# ---- the decoder ------------------------------------------------------------------------------------------------


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a residual, (B, C, H, W) -> (B, D, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.convs = nn.Sequential(*_norm_silu_conv(inputs, outputs), *_norm_silu_conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.convs(x)


class PixelAttention(nn.Module):
    """Attention of one head between all positions of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        return x + self.proj(attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Decoder(nn.Sequential):
    """(B, 4, S, S) latents -> (B, 3, 8S, 8S) pixels, nominally in [-1, 1]; by default Stable Diffusion's.

    Args:
        channels: By level, finest first; every level but the finest doubles both sides.
        blocks: Residual blocks a level. In front of all are two with attention between them.
        latents: Channels of the latents.
    """

    def __init__(self, channels: Sequence[int] = (128, 256, 512, 512), blocks: int = 3, latents: int = 4) -> None:
        finest, coarsest = channels[0], channels[-1]
        layers: list[nn.Module] = [nn.Conv2d(latents, latents, 1), nn.Conv2d(latents, coarsest, 3, padding=1)]
        layers += [ResBlock(coarsest, coarsest), PixelAttention(coarsest), ResBlock(coarsest, coarsest)]
        for inputs, outputs in pairwise((coarsest, *reversed(channels))):
            layers += [ResBlock(outputs if i else inputs, outputs) for i in range(blocks)]
            layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(outputs, outputs, 3, padding=1)]
        super().__init__(*layers[:-2], *_norm_silu_conv(finest, 3))  # nothing is enlarged after the finest level


def _norm_silu_conv(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.GroupNorm(32, inputs, eps=1e-6), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)


# ---- diffusion --------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """The coefficients of one reverse step, from latents x to less noisy ones.

    Clean latents are ``x * latents - noise * predicted noise``, the mean of the next latents is
    ``keep * latents + take * clean latents``, and the logarithm of their variance lies between ``least`` and ``most``.
    """

    time: int  # as counted in training
    x: float
    noise: float
    keep: float
    take: float
    least: float
    most: float


def respaced(steps: int) -> list[Step]:
    """Steps in the order of sampling, evenly spaced over those of training, from the last to the first.

    Betas are such that as much of the picture is left at each as in training (Nichol & Dhariwal 2021, section 4).
    """
    betas = torch.linspace(FIRST_BETA, LAST_BETA, TRAINED_STEPS, dtype=torch.float64)
    times = torch.linspace(0, TRAINED_STEPS - 1, steps, dtype=torch.float64).round().long()
    now = (1 - betas).cumprod(0)[times]  # the share of the picture in the variance
    before = torch.cat([now.new_ones(1), now[:-1]])
    beta = 1 - now / before
    keep, take = (now / before).sqrt() * (1 - before) / (1 - now), beta * before.sqrt() / (1 - now)
    least = (beta * (1 - before) / (1 - now)).log()  # -inf at the last step, which adds no noise
    columns = (times, now.rsqrt(), (1 / now - 1).sqrt(), keep, take, least, beta.log())
    return [Step(*row) for row in zip(*(column.tolist() for column in columns), strict=True)][::-1]


class Diffusion:
    """Samples pictures of classes, with both branches of guidance in one batch.

    Args:
        model, decoder: In the precision that they compute in; what lies between them is float32.
        steps: Passes through the model.
        guidance: The scale w: the noise of no class plus w times the difference that the class makes.
    """

    def __init__(self, model: DiT, decoder: nn.Module, steps: int = 250, guidance: float = 1.5) -> None:
        self.model, self.decoder, self.guidance = model, decoder, guidance
        self.config, self.device, self.dtype = model.config, model.positions.device, model.positions.dtype
        self.steps = respaced(steps)

    @torch.inference_mode()
    def step(self, latents: Tensor, labels: Tensor, step: Step) -> Tensor:
        """(B, C, S, S) float32 latents and (B,) int64 labels on the device -> latents one step on."""
        both = torch.cat([labels, torch.full_like(labels, self.config.classes)])
        times = torch.full_like(both, step.time)
        noise, variance = self.model(torch.cat([latents, latents]), times, both).chunk(2, dim=1)
        (conditional, unconditional), share = noise.chunk(2), (variance.chunk(2)[0] + 1) / 2
        noise = unconditional + self.guidance * (conditional - unconditional)
        mean = step.keep * latents + step.take * (step.x * latents - step.noise * noise)
        if not step.time:
            return mean
        deviation = torch.exp(0.5 * (share * step.most + (1 - share) * step.least))
        return mean + deviation * torch.randn_like(latents)

    def sample(self, labels: Tensor, steps: int | None = None) -> Tensor:
        """(B,) int64 on the device -> (B, C, S, S) float32 latents, after the first ``steps`` steps (default: all)."""
        side = self.config.side
        latents = torch.randn(len(labels), self.config.channels, side, side, device=self.device)
        for step in self.steps[:steps]:
            latents = self.step(latents, labels, step)
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, 3, 8S, 8S) float32 in [0, 1]."""
        pixels = self.decoder((latents / LATENT_SCALE).to(self.dtype))
        return (pixels.float() / 2 + 0.5).clamp(0, 1)
