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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.cli.script import UsageError, start
from titokcodec.errors import TitokError
from titokcodec.models.linear import SIDE
from titokcodec.models.quantizer import Quantized
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers

from . import stage
from .data import Held, Pictures
from .evaluate import score, token_counts
from .prefixes import CYCLE, draw_prefixes, prefix_lengths
from .progress import Progress
from .sheet import SHOWN, contact_sheet
from .stage import Outcome, Stage
from .starts import start_in_2d, start_linear
from .streaming import Stream

STATISTICS = 1 << 16  # crops that the linear start is computed from, at most, and at most so many of every picture:
VIEWS = 16


class Pass(nn.Module):
    """From pixels through tokens to a drawing, in one call. ``quantize`` off hands latents on as they are."""

    def __init__(self, model: TiTok, run: Stage) -> None:
        super().__init__()
        self.model = model
        parts = [model.encoder, model.decoder, *([model.pixel_decoder] if model.config.head == "proxy" else [])]
        self.calls = tuple(run.compiled(part) for part in parts)  # a tuple, so that nothing is registered twice
        self.autocast = run.autocast

    def forward(
        self, pixels: Tensor, lengths: list[int], quantize: bool, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | slice, Quantized | None]:
        """Drawn pixels (unclamped), their places in the batch, and the quantizer's findings unless tokens are given."""
        with self.autocast():
            if tokens is not None:
                return *self._drawn(self.model.quantize.lookup(tokens), lengths), None
            frozen = not self.model.latent_tokens.requires_grad
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                latents = self.calls[0](pixels, self.model.latent_tokens)
                found = self.model.quantize(latents)
            codes = found.codes if quantize else self.model.quantize.place(latents.float())
            return *self._drawn(codes, lengths), found

    def _drawn(self, codes: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor | slice]:
        drawn, places = draw_prefixes(self._draw, codes, lengths)
        return drawn.float(), places

    def _draw(self, codes: Tensor) -> Tensor:
        return self.model.paint(self.calls[1](codes), *self.calls[2:])


class Single(Stage):
    """Encoder, quantizer and decoder together."""

    name = "single"
    supply: Held | Stream | None = None

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--init", type=Path, help="start from these weights instead of at random")
        parser.add_argument(
            "--start",
            choices=("linear", "2d", "published"),
            help="how weights begin: in closed form "
            "from the pictures, where the preset has linear paths; with positions of the picture's "
            "plane; at random (default: the first that the preset allows; published for titok_*)",
        )

    def build(self) -> TiTok:
        """A new model, or the one of ``--init``."""
        if self.options.init:
            model = tokenizers.load_model(self.options.init)
            if model.config != self.config:
                raise TitokError(f"{self.options.init} is of another architecture than preset {self.options.preset}")
            self.started = self.config.spectrum > 0
            return self.lean(model.train().requires_grad_(True))
        model, start = TiTok(self.config), self.options.start or self.natural_start()
        if start != "published":
            start_in_2d(model)
        if start == "linear" and not self.resumed:
            if not self.config.components:
                raise UsageError(f"preset {self.options.preset} has no components to start from: give --start 2d")
            model.to(self.device)
            start_linear(model, self.crops())
            self.started = True  # its codebook stands for pictures already
        return self.lean(model)

    def natural_start(self) -> str:
        """The start that suits the architecture."""
        if self.config.components:
            return "linear"
        return "published" if self.options.preset.startswith("titok_") else "2d"

    def lean(self, model: TiTok) -> TiTok:
        """The model, without fine detail if squared error alone is to teach it: that has nothing to say of detail."""
        if self.config.head == "refiner" and not self.hyper.lpips_weight:
            model.decoder.ffn.detailed = False
            model.decoder.ffn.detail.requires_grad_(False)
        return model

    def crops(self) -> Iterator[Tensor]:
        """Random crops of the training pictures, enough for statistics of their low frequencies. Not views that zoom:
        these are smoother than what will be compressed, and leave the last tokens without components."""
        source = self.batches()
        count = min(STATISTICS, VIEWS * (source.pictures or STATISTICS))
        batches = -(-count // self.hyper.batch)
        with Progress("linear start: statistics", batches * self.hyper.batch, "crops") as shown:
            for number in range(batches):
                batch = source.batch(-1 - number if isinstance(source, Held) else number)
                yield F.avg_pool2d(batch, batch.shape[-1] // SIDE)
                shown.add(self.hyper.batch)

    def batches(self) -> Held | Stream:
        """Opened once: the start reads pictures too."""
        if self.supply is None:
            self.supply = super().batches()
        return self.supply

    def forward_pass(self) -> nn.Module:
        self.warmups = CYCLE if self.config.spectrum else self.warmups
        return Pass(self.model, self)

    def drawing(self, pixels: Tensor, tokens: Tensor | None = None) -> tuple[Outcome, Quantized | None]:
        """What is drawn from prefixes of the tokens, the encoder's own unless some are given, and what is lost by
        it in pixels; and the quantizer's findings where it was asked."""
        drawn, places, found = self.forward(pixels, prefix_lengths(self.config, self.step), self.started, tokens)
        truth = pixels[places]
        loss, parts = self.pixel_loss(drawn, truth, self.progress)
        return Outcome(loss, parts, drawn=drawn, truth=truth), found

    def losses(self, pixels: Tensor) -> Outcome:
        made, found = self.drawing(pixels)
        both = found.codebook_loss + self.hyper.commitment * found.commitment_loss
        if self.config.spectrum:
            both = self.hyper.pixels * both  # these are errors of pixels
        loss = made.loss + (self.hyper.quantizer * both if self.started else 0 * both)  # 0 x: all gradients exist
        parts = made.parts | {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return replace(made, loss=loss, parts=parts, tokens=found.tokens, latents=found.latents)

    def score(self, val: Pictures) -> dict[str, float]:
        return score(self.ema.model, val, token_counts(self.ema.model), self.lpips)

    def sheet(self, val: Pictures) -> Tensor:
        pixels = val.centre_crops(torch.arange(min(SHOWN, len(val))))
        return contact_sheet(self.ema.model, pixels, token_counts(self.ema.model))


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return stage.main(Single, __doc__, arguments)


if __name__ == "__main__":
    start(main)
