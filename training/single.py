"""One-stage training in pixel space: a usable tokenizer from pictures alone, within a given number of minutes.

    python -m training.single --data train/ --val val.tar --lpips lpips_squeeze.safetensors --minutes 30 --out runs/a
    python -m training.single ... --out runs/a --resume        # goes on after a stop or a kill
    torchrun --nproc-per-node 8 -m training.single ...         # the same on eight GPUs

The published recipe needs a pretrained 2D tokenizer and two stages (TiTok section 3.2); here the loss is on pixels from
the first step: squared error, later LPIPS and, if asked for, an adversary as well, plus the quantizer's two terms.
Nested presets learn every rate at once.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from titokcodec.cli.script import start
from titokcodec.models.config import PRESETS, TiTokConfig, preset
from titokcodec.models.tokenizer import TiTok

from . import defaults, initial, loop
from .compute import Runtime
from .data import Pictures
from .evaluate import score, token_counts
from .hyper import AutoencoderHyper
from .initial import StartOptions
from .options import PixelOptions
from .pixel_stage import P, PixelStage
from .prefixes import CYCLE, prefix_lengths
from .sheet import contact_sheet, first_crops
from .stage import Moment, Result
from .tokenizer_pass import Passed, TokenizerPass


@dataclass(frozen=True, kw_only=True)
class SingleOptions(PixelOptions, StartOptions):
    """The options of ``training.single``."""


class TokenizerStage(PixelStage[P]):
    """A stage that trains a tokenizer, or parts of it, to reconstruct pixels."""

    config: TiTokConfig
    model: TiTok

    def forward_pass(self) -> nn.Module:
        self.rehearsal = CYCLE if self.config.spectrum else self.rehearsal
        return TokenizerPass(self.model, self.runtime)

    def latents(self, batch: Tensor) -> Tensor:
        return self.model.latents(batch)

    def reconstruct(self, pixels: Tensor, moment: Moment, tokens: Tensor | None = None) -> tuple[Result, Passed]:
        """The pixel loss of what prefixes of the tokens decode to: of the encoder's tokens unless some are given."""
        passed = self.forward(pixels, prefix_lengths(self.config, moment.step), moment.quantize, tokens)
        target = pixels[passed.order]
        loss, parts = self.pixel_loss(passed.decoded, target, moment.progress)
        return Result(loss, parts, decoded=passed.decoded, target=target), passed

    def score(self, model: TiTok, val: Pictures) -> dict[str, float]:
        return score(model, val, token_counts(model), self.lpips)

    def sheet(self, model: TiTok, val: Pictures) -> Tensor:
        return contact_sheet(model, first_crops(val), token_counts(model))


class Single(TokenizerStage[SingleOptions]):
    """Encoder, quantizer and decoder together."""

    name = "single"
    options_type = SingleOptions
    defaults = defaults.SINGLE
    presets: ClassVar = PRESETS
    hyper: AutoencoderHyper

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        initial.add_start_options(parser)

    def __init__(self, options: SingleOptions, runtime: Runtime) -> None:
        super().__init__(options, runtime)
        self.config = preset(options.preset)
        self.hyper = self.chosen(initial.is_published(options.preset))
        self.load_networks()
        self.model, self.quantized, self.start_codebook = initial.initial(
            self.config, options, lambda: self.source, runtime.device
        )
        self.quantizer = self.model.quantize
        if not self.hyper.pixel_loss.lpips_weight:
            initial.without_detail(self.model)

    @property
    def continuous(self) -> float:
        return self.hyper.codebook.continuous

    def losses(self, batch: Tensor, moment: Moment) -> Result:
        result, passed = self.reconstruct(batch, moment)
        found, hyper = passed.quantized, self.hyper.codebook
        both = found.codebook_loss + hyper.commitment * found.commitment_loss
        if self.config.spectrum:
            both = self.hyper.pixel_loss.pixels * both  # these are errors of pixels
        loss = result.loss + (hyper.quantizer * both if moment.quantize else 0 * both)  # 0 x: all gradients exist
        parts = result.parts | {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return replace(result, loss=loss, parts=parts, tokens=found.tokens, latents=found.latents)


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return loop.main(Single, __doc__, arguments)


if __name__ == "__main__":
    start(main)
