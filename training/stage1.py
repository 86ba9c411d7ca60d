"""Stage 1 of the published recipe: TiTok learns to name a 2D tokenizer's codes (TiTok section 3.2, "proxy codes").

    python -m training.stage1 --proxies runs/vqgan/vqgan.safetensors --data train/ --minutes 60 --out runs/stage1

The target is not the picture but the 16 x 16 codes that a frozen MaskGIT-VQGAN has for it, one of 1024 each: cross
entropy, plus the quantizer's terms. Published two-stage models draw such codes anyway; others get a head for them that
stage 2 replaces by one for pixels. Nested presets drop tails here already.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.cli.script import start
from titokcodec.errors import TitokError
from titokcodec.models.config import PROXY_CODES, TiTokConfig
from titokcodec.models.quantizer import Quantized
from titokcodec.models.tokenizer import TiTok

from . import progress, proxies, stage
from .data import Pictures
from .prefixes import draw_prefixes, prefix_lengths
from .single import Single
from .stage import Outcome, Stage

DOWNSAMPLING = 16  # pixels a side that one proxy code stands for


class ProxyHead(nn.Module):
    """Logits over the codes of a 2D tokenizer, from cells of any size: the published head, then sub-cells."""

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        finer, rest = divmod(config.patch_size, DOWNSAMPLING)
        if rest:
            raise TitokError(f"stage 1 needs cells of a multiple of {DOWNSAMPLING} pixels, not {config.patch_size}")
        width = config.decoder.width
        self.layers = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.Tanh(),
            nn.Conv2d(2 * width, PROXY_CODES * finer**2, 1),
            nn.PixelShuffle(finer),
        )

    def forward(self, cells: Tensor) -> Tensor:
        return self.layers(cells)


class Pass(nn.Module):
    """From pixels through tokens to logits over proxy codes, in one call."""

    def __init__(self, model: TiTok, run: Stage) -> None:
        super().__init__()
        self.model = model
        self.calls = run.compiled(model.encoder), run.compiled(model.decoder)
        self.autocast = run.autocast

    def forward(self, pixels: Tensor, lengths: list[int], quantize: bool) -> tuple[Tensor, Tensor, Quantized, Tensor]:
        """(B, 1024, h, w) logits, their places in the batch, the quantizer's findings, latents."""
        with self.autocast():
            latents = self.calls[0](pixels, self.model.latent_tokens)
            found = self.model.quantize(latents)
            codes = found.codes if quantize else self.model.quantize.place(latents.float())
            logits, places = draw_prefixes(self.calls[1], codes, lengths)
        return logits.float(), places, found, latents


class Stage1(Single):
    """Encoder, quantizer and decoder against frozen proxies."""

    name = "stage1"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            "--proxies",
            type=Path,
            required=True,
            help="the 2D tokenizer: what training.vqgan left, or the published MaskGIT-VQGAN (.safetensors, .bin)",
        )

    def build(self) -> TiTok:
        """The model, drawing proxy codes; what stage 2 will draw pixels with is at hand, but not trained here."""
        self.proxies = proxies.load(self.options.proxies, self.device)
        if self.proxies.config.codes != PROXY_CODES:
            raise TitokError(f"{self.options.proxies} has {self.proxies.config.codes} codes, not {PROXY_CODES}")
        model = super().build()
        if self.config.head == "proxy":
            proxies.hand_on(self.proxies, model)
            model.pixel_quantize.requires_grad_(False)
            model.pixel_decoder.requires_grad_(False)
        else:
            model.decoder.ffn, model.decoder.conv_out = ProxyHead(self.config), nn.Identity()
        return model

    def forward_pass(self) -> nn.Module:
        return Pass(self.model, self)

    def losses(self, pixels: Tensor) -> Outcome:
        logits, places, found, latents = self.forward(pixels, prefix_lengths(self.config, self.step), self.started)
        target = self.targets(pixels)[places]
        entropy = F.cross_entropy(logits.flatten(2), target)
        both = found.codebook_loss + self.hyper.commitment * found.commitment_loss
        loss = entropy + (self.hyper.quantizer if self.started else 0) * both
        with torch.no_grad():
            top1 = (logits.flatten(2).argmax(1) == target).float().mean()
        parts = {"entropy": entropy, "top1": top1, "codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return Outcome(loss, parts, found.tokens, latents)

    @torch.no_grad()
    def targets(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, cells) int64 proxy codes, row-major."""
        with self.autocast():
            return self.proxies.encode(pixels)

    @torch.no_grad()
    def score(self, val: Pictures) -> dict[str, float]:
        """Cross entropy and top-1 of the proxy codes at full length, and the codebook's use."""
        model, total = self.ema.model, len(val)
        entropy, hits, used = 0.0, 0.0, torch.zeros(self.config.codes, dtype=torch.bool, device=self.device)
        for which in progress.batches("scoring", total, 16):
            pixels = val.centre_crops(which)
            tokens, target = model.encode(pixels), self.targets(pixels)
            used[tokens.flatten()] = True
            logits = model.decoder(model.quantize.lookup(tokens)).flatten(2)
            entropy += F.cross_entropy(logits, target).item() * len(pixels) / total
            hits += (logits.argmax(1) == target).float().mean().item() * len(pixels) / total
        return {"entropy": entropy, "top1": hits, "usage": used.float().mean().item()}

    def sheet(self, val: Pictures) -> Tensor | None:
        return super().sheet(val) if self.config.head == "proxy" else None


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return stage.main(Stage1, __doc__, arguments)


if __name__ == "__main__":
    start(main)
