"""Stage 0: the 2D tokenizer that stage 1 takes its targets from, a MaskGIT-VQGAN (Chang et al. 2022).

    python -m training.vqgan --data train/ --lpips lpips_squeeze.safetensors --minutes 30 --out runs/vqgan

Sixteen pixels a side become one of 1024 codes: squared error, LPIPS, a hinge adversary, and the quantizer's terms. The
``light`` preset trains in minutes; ``published`` has the sizes of the released weights, which legacy TiTok models need.
OUT/vqgan.safetensors is what ``training.stage1 --proxies`` reads.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from titokcodec.cli.script import start
from titokcodec.metrics import psnr
from titokcodec.models.quantizer import Quantized
from titokcodec.models.vqgan import VQGAN
from titokcodec.models.vqgan_config import VQGAN_PRESETS, VQGANConfig

from . import defaults, initial, loop, progress, proxies
from .compute import Runtime
from .data import Pictures
from .hyper import AutoencoderHyper
from .options import PixelOptions
from .pixel_stage import PixelStage
from .sheet import first_crops, stacked
from .stage import Moment, Result


@dataclass(frozen=True, kw_only=True)
class VQGANOptions(PixelOptions):
    """The options of ``training.vqgan``."""

    preset: str
    side: int


class VQGANPass(nn.Module):
    """From pixels through codes back to pixels, in one call."""

    def __init__(self, model: VQGAN, runtime: Runtime) -> None:
        super().__init__()
        self.model, self.autocast = model, runtime.autocast
        self.calls = runtime.compiled(model.encoder), runtime.compiled(model.decoder)

    def forward(self, pixels: Tensor, quantize: bool) -> tuple[Tensor, Quantized, Tensor]:
        """Decoded pixels (unclamped), the quantizer's output, (B, h*w, d) latents.

        Args:
            quantize: Whether to decode codes; else latents as they are.
        """
        with self.autocast():
            grid = self.calls[0](pixels)
            latents = grid.flatten(2).transpose(1, 2)
            found = self.model.quantize(latents)
            codes = found.codes if quantize else latents.float()
            decoded = self.calls[1](codes.transpose(1, 2).unflatten(2, grid.shape[2:]))
        return decoded.float(), found, latents


class ProxyTokenizer(PixelStage[VQGANOptions]):
    """Encoder, codebook and decoder of the 2D tokenizer."""

    name = "vqgan"
    options_type = VQGANOptions
    defaults = defaults.VQGAN
    presets: ClassVar = VQGAN_PRESETS
    results = ("vqgan.safetensors",)
    preset_option = "--proxy-preset"  # so that the recipe can hand --preset to the stages after it
    config: VQGANConfig
    hyper: AutoencoderHyper
    model: VQGAN

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--side", type=int, default=256, help="side of training crops (default: %(default)s)")

    def __init__(self, options: VQGANOptions, runtime: Runtime) -> None:
        super().__init__(options, runtime)
        self.config = VQGAN_PRESETS[options.preset]
        self.hyper = self.chosen(initial.is_published(options.preset))
        self.load_networks()
        self.model = VQGAN(self.config)
        self.quantizer = self.model.quantize

    @property
    def side(self) -> int:
        return self.options.side

    def forward_pass(self) -> nn.Module:
        return VQGANPass(self.model, self.runtime)

    @property
    def continuous(self) -> float:
        return self.hyper.codebook.continuous

    def latents(self, batch: Tensor) -> Tensor:
        return self.model.latents(batch)

    def losses(self, batch: Tensor, moment: Moment) -> Result:
        decoded, found, latents = self.forward(batch, moment.quantize)
        loss, parts = self.pixel_loss(decoded, batch, moment.progress)
        both = found.codebook_loss + self.hyper.codebook.commitment * found.commitment_loss
        loss = loss + (self.hyper.codebook.quantizer if moment.quantize else 0) * both
        parts |= {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return Result(loss, parts, found.tokens, latents, decoded, batch)

    @torch.no_grad()
    def score(self, model: VQGAN, val: Pictures) -> dict[str, float]:
        """PSNR, LPIPS and use of the codebook."""
        total, sums = len(val), {"psnr": 0.0}
        used = torch.zeros(self.config.codes, dtype=torch.bool, device=self.runtime.device)
        for which in progress.batches("scoring", total, 16):
            pixels = val.centre_crops(which)
            tokens = model.encode(pixels)
            decoded = model.decode(tokens)
            used[tokens.flatten()] = True
            sums["psnr"] += psnr(decoded, pixels).sum().item() / total
            if self.lpips:
                sums["lpips"] = sums.get("lpips", 0) + self.lpips(decoded, pixels).sum().item() / total
        return sums | {"usage": used.float().mean().item()}

    @torch.no_grad()
    def sheet(self, model: VQGAN, val: Pictures) -> Tensor:
        pixels = first_crops(val)
        return stacked([pixels, model.decode(model.encode(pixels))])

    def finish(self, model: VQGAN) -> None:
        proxies.save(self.options.out / self.results[0], model)


def main(arguments: list[str] | None = None) -> VQGAN:
    """Command line; returns the averaged model."""
    return loop.main(ProxyTokenizer, __doc__, arguments)


if __name__ == "__main__":
    start(main)
