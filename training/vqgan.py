"""Stage 0: the 2D tokenizer that stage 1 takes its targets from, a MaskGIT-VQGAN (Chang et al. 2022).

    python -m training.vqgan --data train/ --lpips lpips_squeeze.safetensors --minutes 30 --out runs/vqgan

Sixteen pixels a side become one of 1024 codes: squared error, LPIPS, a hinge adversary, and the quantizer's terms. The
``light`` preset trains in minutes; ``published`` has the sizes of the released weights, which legacy TiTok models need.
OUT/vqgan.safetensors is what ``training.stage1 --proxies`` reads.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from titokcodec.cli.script import start
from titokcodec.metrics import psnr
from titokcodec.models import vqgan
from titokcodec.models.quantizer import Quantized
from titokcodec.models.vqgan import VQGAN, VQGANConfig

from . import progress, proxies, stage
from .data import Pictures
from .sheet import SHOWN, stacked
from .stage import Outcome, Stage


class Pass(nn.Module):
    """From pixels through codes to a drawing, in one call. ``quantize`` off hands latents on as they are."""

    def __init__(self, model: VQGAN, run: Stage) -> None:
        super().__init__()
        self.model = model
        self.calls = run.compiled(model.encoder), run.compiled(model.decoder)
        self.autocast = run.autocast

    def forward(self, pixels: Tensor, quantize: bool) -> tuple[Tensor, Quantized, Tensor]:
        """Drawn pixels (unclamped), the quantizer's findings, (B, h*w, d) latents."""
        with self.autocast():
            grid = self.calls[0](pixels)
            latents = grid.flatten(2).transpose(1, 2)
            found = self.model.quantize(latents)
            codes = found.codes if quantize else latents.float()
            drawn = self.calls[1](codes.transpose(1, 2).unflatten(2, grid.shape[2:]))
        return drawn.float(), found, latents


class ProxyTokenizer(Stage):
    """Encoder, codebook and decoder of the 2D tokenizer."""

    name = "vqgan"
    presets = vqgan.PRESETS
    results = ("vqgan.safetensors",)
    preset_option = "--proxy-preset"  # so that the recipe can hand --preset to the stages after it

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--side", type=int, default=256, help="side of training crops (default: %(default)s)")

    def architecture(self) -> VQGANConfig:
        return vqgan.PRESETS[self.options.preset]

    def build(self) -> VQGAN:
        return VQGAN(self.config)

    def forward_pass(self) -> nn.Module:
        return Pass(self.model, self)

    def losses(self, pixels: Tensor) -> Outcome:
        drawn, found, latents = self.forward(pixels, self.started)
        loss, parts = self.pixel_loss(drawn, pixels, self.progress)
        both = found.codebook_loss + self.hyper.commitment * found.commitment_loss
        loss = loss + (self.hyper.quantizer if self.started else 0) * both
        parts |= {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return Outcome(loss, parts, found.tokens, latents, drawn, pixels)

    @torch.no_grad()
    def score(self, val: Pictures) -> dict[str, float]:
        """PSNR, LPIPS and use of the codebook."""
        model, total, sums = self.ema.model, len(val), {"psnr": 0.0}
        used = torch.zeros(self.config.codes, dtype=torch.bool, device=self.device)
        for which in progress.batches("scoring", total, 16):
            pixels = val.centre_crops(which)
            tokens = model.encode(pixels)
            drawn = model.decode(tokens)
            used[tokens.flatten()] = True
            sums["psnr"] += psnr(drawn, pixels).sum().item() / total
            if self.lpips:
                sums["lpips"] = sums.get("lpips", 0) + self.lpips(drawn, pixels).sum().item() / total
        return sums | {"usage": used.float().mean().item()}

    @torch.no_grad()
    def sheet(self, val: Pictures) -> Tensor:
        pixels = val.centre_crops(torch.arange(min(SHOWN, len(val))))
        rows = pixels, self.ema.model.decode(self.ema.model.encode(pixels))
        return stacked(rows)

    def finish(self) -> None:
        proxies.save(self.options.out / self.results[0], self.ema.model)


def main(arguments: list[str] | None = None) -> VQGAN:
    """Command line; returns the averaged model."""
    return stage.main(ProxyTokenizer, __doc__, arguments)


if __name__ == "__main__":
    start(main)
