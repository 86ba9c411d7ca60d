"""TiTok with its generators and DiT at the published sizes, with random weights, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from titokcodec import Codec
from titokcodec.generator import PUBLISHED, Card, Generator
from titokcodec.models.config import PRESETS, TiTokConfig
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.meta import on_meta
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights.tokenizers import Weights

from .dit import Decoder, Diffusion, DiT, DiTConfig

Network = TypeVar("Network", bound=nn.Module)
COMPILED = {"mode": "reduce-overhead", "dynamic": False}  # of DiT: CUDA graphs and a kernel for every shape, as ours


@dataclass(frozen=True)
class TiTokSize:
    """A tokenizer, its generator and the sampler's settings."""

    name: str
    tokenizer: TiTokConfig
    generator: GeneratorConfig
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class DiTSize:
    """A DiT, the decoder of its latents (arguments of ``Decoder``) and the sampler's settings."""

    name: str
    model: DiTConfig = field(default_factory=DiTConfig)
    decoder: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 250
    guidance: float = 1.5


Size = TiTokSize | DiTSize


def _published(name: str, tokenizer: str, **changes: Any) -> TiTokSize:
    generator = f"generator_{tokenizer}"
    return TiTokSize(name, PRESETS[tokenizer], GENERATOR_PRESETS[generator], {**PUBLISHED[generator], **changes})


SIZES = (
    DiTSize("DiT-XL/2"),
    _published("TiTok-L-32", "titok_l32"),
    _published("TiTok-S-128", "titok_s128", steps=8),
    _published("TiTok-S-128", "titok_s128"),
)


class TiTokModel:
    """A TiTok with its generator, called through the public interface."""

    def __init__(self, size: TiTokSize, device: torch.device, dtype: torch.dtype) -> None:
        tokenizer = with_random_weights(lambda: TiTok(size.tokenizer), device, dtype)
        network = with_random_weights(lambda: make(size.generator), device, dtype)
        self.codec = Codec(Weights(Path(), size.name, size.tokenizer, bytes(8), None), tokenizer, device, dtype)
        self.generator = Generator(network, Card(size.name, size.generator), device, dtype)
        self.name, self.settings, self.device, self.dtype = size.name, size.settings, device, dtype
        self.steps = size.settings["steps"]
        self.parameters = _count(network) + _count(tokenizer) - _count(tokenizer.encoder)

    def generate(self, batch: int, steps: int | None = None) -> Tensor:
        """(B, 3, 256, 256) uint8 on the device, in so many steps (default: the published number)."""
        labels = (torch.arange(batch) % self.generator.config.classes).tolist()
        return eight_bit(
            self.codec.decode(self.generator.sample(labels, **{**self.settings, "steps": steps or self.steps}))
        )

    def compile(self) -> None:
        self.generator.compile()
        self.codec.compile()


class DiTModel:
    """A DiT; the same interface."""

    def __init__(self, size: DiTSize, device: torch.device, dtype: torch.dtype) -> None:
        model = with_random_weights(lambda: DiT(size.model), device, dtype)
        model.set_positions()
        decoder = with_random_weights(lambda: Decoder(**size.decoder), device, dtype)
        decoder.to(memory_format=torch.channels_last)  # as in our codec
        self.diffusion = Diffusion(model, decoder, size.steps, size.guidance)
        self.name, self.steps, self.device, self.dtype = size.name, size.steps, device, dtype
        self.parameters = _count(model) + _count(decoder)

    def generate(self, batch: int, steps: int | None = None) -> Tensor:
        labels = torch.arange(batch, device=self.device) % self.diffusion.config.classes
        return eight_bit(self.diffusion.decode(self.diffusion.sample(labels, steps)))

    def compile(self) -> None:
        self.diffusion.model = torch.compile(self.diffusion.model, **COMPILED)
        self.diffusion.decoder = torch.compile(self.diffusion.decoder, **COMPILED)


Model = TiTokModel | DiTModel


def build(size: Size, device: torch.device, dtype: torch.dtype) -> Model:
    """The model of a size, with random weights."""
    return (TiTokModel if isinstance(size, TiTokSize) else DiTModel)(size, device, dtype)


def with_random_weights(construct: Callable[[], Network], device: torch.device, dtype: torch.dtype) -> Network:
    """The network, created in its precision and on its device, so that no weight is ever in memory twice."""
    network = on_meta(construct).to(dtype).to_empty(device=device).requires_grad_(False).eval()
    for name, value in network.named_parameters():
        if value.ndim > 1:
            nn.init.uniform_(value, -0.02, 0.02)
        else:
            nn.init.constant_(value, float(name.endswith("weight")))  # of a norm
    return network


def eight_bit(pixels: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8."""
    return (pixels * 255).round().to(torch.uint8)


def _count(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())
