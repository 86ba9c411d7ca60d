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
from pathlib import Path

import torch
from torch import Tensor, nn

from titokcodec import weights
from titokcodec.models.quantizer import Quantized
from titokcodec.models.tokenizer import TiTok
from training import stage
from training.data import Pictures
from training.evaluate import first_pictures, rates, score
from training.prefixes import draw_prefixes, prefix_lengths
from training.stage import Outcome, Stage
from training.starts import start_in_2d


class Pass(nn.Module):
    """From pixels through tokens to a drawing, in one call. ``quantize`` off hands latents on as they are."""

    def __init__(self, model: TiTok, run: Stage) -> None:
        super().__init__()
        self.model = model
        parts = [model.encoder, model.decoder, *([model.pixel_decoder] if model.config.head == "proxy" else [])]
        self.calls = tuple(run.compiled(part) for part in parts)  # a tuple, so that nothing is registered twice
        self.autocast = run.autocast

    def forward(self, pixels: Tensor, lengths: list[int], quantize: bool) -> tuple[Tensor, Tensor, Quantized, Tensor]:
        """Drawn pixels (unclamped), their places in the batch, the quantizer's findings, latents."""
        with self.autocast():
            frozen = not self.model.latent_tokens.requires_grad
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                latents = self.calls[0](pixels, self.model.latent_tokens)
                found = self.model.quantize(latents)
            codes = found.codes if quantize else self.model.quantize.place(latents.float())
            drawn, places = draw_prefixes(self._draw, codes, lengths)
        return drawn.float(), places, found, latents

    def _draw(self, codes: Tensor) -> Tensor:
        return self.model.paint(self.calls[1](codes), *self.calls[2:])


class Single(Stage):
    """Encoder, quantizer and decoder together."""

    name = "single"

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--init", type=Path, help="start from these weights instead of at random")
        parser.add_argument("--start", choices=("2d", "published"), help="how random weights begin (default: as "
                            "published for titok_* presets, else with positions of the picture's plane)")

    def build(self) -> TiTok:
        """A new model, or the one of ``--init``."""
        if self.options.init:
            model = weights.load_model(self.options.init)
            if model.config != self.config:
                raise SystemExit(f"{self.options.init} is of another architecture than preset {self.options.preset}")
            return model.train().requires_grad_(True)
        model = TiTok(self.config)
        published = self.options.preset.startswith("titok_")
        if (self.options.start or ("published" if published else "2d")) == "2d":
            start_in_2d(model)
        return model

    def forward_pass(self) -> nn.Module:
        return Pass(self.model, self)

    def losses(self, pixels: Tensor) -> Outcome:
        drawn, places, found, latents = self.forward(pixels, prefix_lengths(self.config, self.step), self.started)
        truth = pixels[places]
        with self.autocast():
            loss, parts = self.pixel_loss(drawn, truth, self.progress)
        both = found.codebook_loss + self.hyper.commitment * found.commitment_loss
        loss = loss + (self.hyper.quantizer * both if self.started else 0 * both)  # 0 x: all gradients exist
        parts |= {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return Outcome(loss, parts, found.tokens, latents, drawn, truth)

    def score(self, val: Pictures) -> dict[str, float]:
        return score(self.ema.model, val, rates(self.ema.model), self.pixel_loss.lpips)

    def sheet(self, val: Pictures) -> Tensor:
        return first_pictures(self.ema.model, val)


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return stage.main(Single, __doc__, arguments)


if __name__ == "__main__":
    main()
