"""Stage 1 of the published recipe: TiTok learns to predict a 2D tokenizer's codes (TiTok section 3.2, "proxy codes").

    python -m training.stage1 --proxies runs/vqgan/vqgan.safetensors --data train/ --minutes 60 --out runs/stage1

The target is not the picture but the 16 x 16 codes that a frozen MaskGIT-VQGAN has for it, one of 1024 each: cross
entropy, plus the quantizer's terms. Published two-stage models predict such codes anyway; others get a head for them
that stage 2 replaces by one for pixels. Nested presets drop tails here already.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.cli.script import start
from titokcodec.errors import TitokError
from titokcodec.models.config import PRESETS, PROXY_CODES, TiTokConfig, preset
from titokcodec.models.tokenizer import TiTok
from titokcodec.models.vqgan import VQGAN

from . import defaults, initial, loop, progress, proxies
from .compute import Runtime
from .data import Pictures
from .evaluate import token_counts
from .hyper import ProxyHyper
from .initial import StartOptions
from .prefixes import CYCLE, prefix_lengths
from .sheet import contact_sheet, first_crops
from .stage import Moment, Result, Stage
from .tokenizer_pass import TokenizerPass

DOWNSAMPLING = 16  # pixels a side that one proxy code stands for


@dataclass(frozen=True, kw_only=True)
class Stage1Options(StartOptions):
    """The options of ``training.stage1``."""

    proxies: Path


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

    def forward(self, cells: Tensor, sketch: Tensor | None = None) -> Tensor:
        """(B, W, h, w) cells -> logits; a sketch, which models with linear paths have as well, is of no use here."""
        return self.layers(cells)


class Stage1(Stage[Stage1Options]):
    """Encoder, quantizer and decoder against frozen proxies."""

    name = "stage1"
    options_type = Stage1Options
    defaults = defaults.STAGE1
    presets: ClassVar = PRESETS
    config: TiTokConfig
    hyper: ProxyHyper
    model: TiTok
    proxies: VQGAN

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        initial.add_start_options(parser)
        parser.add_argument(
            "--proxies",
            type=Path,
            required=True,
            help="the 2D tokenizer: what training.vqgan left, or the published MaskGIT-VQGAN (.safetensors, .bin)",
        )

    def __init__(self, options: Stage1Options, runtime: Runtime) -> None:
        super().__init__(options, runtime)
        self.config = preset(options.preset)
        self.hyper = self.chosen(initial.is_published(options.preset))
        self.proxies = proxies.load(options.proxies, runtime.device)
        if self.proxies.config.codes != PROXY_CODES:
            raise TitokError(f"{options.proxies} has {self.proxies.config.codes} codes, not {PROXY_CODES}")
        self.model, self.quantized, self.start_codebook = initial.initial(
            self.config, options, lambda: self.source, runtime.device
        )
        self.quantizer = self.model.quantize
        self.set_head()

    def set_head(self) -> None:
        """Make the decoder predict proxy codes; what stage 2 will decode pixels with is kept, but not trained here."""
        model = self.model
        if self.config.head == "proxy":
            proxies.give_decoder(self.proxies, model)
            model.pixel_quantize.requires_grad_(False)
            model.pixel_decoder.requires_grad_(False)
        else:
            model.decoder.ffn, model.decoder.conv_out = ProxyHead(self.config), nn.Identity()

    def forward_pass(self) -> nn.Module:
        self.rehearsal = CYCLE if self.config.spectrum else self.rehearsal
        return TokenizerPass(self.model, self.runtime, to_pixels=False)

    @property
    def continuous(self) -> float:
        return self.hyper.codebook.continuous

    def latents(self, batch: Tensor) -> Tensor:
        return self.model.latents(batch)

    def losses(self, batch: Tensor, moment: Moment) -> Result:
        passed = self.forward(batch, prefix_lengths(self.config, moment.step), moment.quantize)
        logits, found = passed.decoded.flatten(2), passed.quantized
        target = self.targets(batch)[passed.order]
        entropy = F.cross_entropy(logits, target)
        both = found.codebook_loss + self.hyper.codebook.commitment * found.commitment_loss
        loss = entropy + (self.hyper.codebook.quantizer if moment.quantize else 0) * both
        with torch.no_grad():
            top1 = (logits.argmax(1) == target).float().mean()
        parts = {"entropy": entropy, "top1": top1, "codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return Result(loss, parts, found.tokens, passed.latents)

    @torch.no_grad()
    def targets(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, cells) int64 proxy codes, row-major; in float32, whatever the model computes
        in."""
        return self.proxies.encode(pixels)

    @torch.no_grad()
    def score(self, model: TiTok, val: Pictures) -> dict[str, float]:
        """Cross entropy and top-1 of the proxy codes at full length, and the codebook's use."""
        total, entropy, hits = len(val), 0.0, 0.0
        used = torch.zeros(self.config.codes, dtype=torch.bool, device=self.runtime.device)
        for which in progress.batches("scoring", total, 16):
            pixels = val.centre_crops(which)
            tokens, target = model.encode(pixels), self.targets(pixels)
            used[tokens.flatten()] = True
            logits = model.decoder(model.quantize.lookup(tokens)).flatten(2)
            entropy += F.cross_entropy(logits, target).item() * len(pixels) / total
            hits += (logits.argmax(1) == target).float().mean().item() * len(pixels) / total
        return {"entropy": entropy, "top1": hits, "usage": used.float().mean().item()}

    def sheet(self, model: TiTok, val: Pictures) -> Tensor | None:
        return contact_sheet(model, first_crops(val), token_counts(model)) if self.config.head == "proxy" else None


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return loop.main(Stage1, __doc__, arguments)


if __name__ == "__main__":
    start(main)
