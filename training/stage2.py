"""Stage 2 of the published recipe: the decoder learns pixels, for tokens that no longer change (TiTok section 3.2).

    python -m training.stage2 --init runs/stage1/state.pt --data train/ --minutes 60 --out runs/c

Encoder, latents and codebook are frozen; decoder and pixel head are tuned with squared error, a perceptual term and a
hinge adversary with LeCam. It finishes what stage 1 began, and sharpens what ``training.single`` trained or a weight
file holds. Files that were compressed before still decode with the new weights to the same scene, but the model is
another one, with another fingerprint.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError, start
from titokcodec.models.tokenizer import TiTok
from titokcodec.search import default_steps
from titokcodec.weights import tokenizers

from . import defaults, initial, loop, parallel, proxies
from .adversarial import Adversary
from .argtypes import whole
from .checkpoint import MISFITS, load_checkpoint, predicts_proxies, tokenizer_of
from .compute import Runtime
from .options import PixelOptions
from .searched import SearchedCrops
from .single import TokenizerStage
from .stage import Moment, Result
from .streaming import Source

HEAD = ("decoder.ffn.", "decoder.conv_out.")  # what turns cells into pixels


@dataclass(frozen=True, kw_only=True)
class Stage2Options(PixelOptions):
    """The options of ``training.stage2``."""

    init: Path
    searched: int
    detail_only: bool
    proxies: Path | None


class Stage2(TokenizerStage[Stage2Options]):
    """The decoder alone, of the architecture that ``--init`` has."""

    name = "stage2"
    options_type = Stage2Options
    defaults = defaults.STAGE2

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--init",
            type=Path,
            required=True,
            help="what to tune: a checkpoint (state.pt) of stage1, single or stage2, or a weight file; the critic of a "
            "stage2 checkpoint is trained further if it is of the same kind",
        )
        parser.add_argument(
            "--searched",
            type=whole(0),
            default=0,
            metavar="N",
            help="tune on N random crops (rounded up to whole batches) with tokens found by search, as files have "
            "them, instead of the encoder's; the search comes before --minutes count, but ends at --deadline",
        )
        parser.add_argument(
            "--detail-only",
            action="store_true",
            help="of a refiner, train the part for fine detail and leave all else as it is",
        )
        parser.add_argument(
            "--proxies",
            type=Path,
            help="2D tokenizer to take a legacy model's pixel decoder from, unless --init holds a trained one",
        )

    def __init__(self, options: Stage2Options, runtime: Runtime) -> None:
        super().__init__(options, runtime)
        self.model, self.critic_state = _load(options.init)
        self.config = self.model.config
        self.hyper = self.chosen(self.config.head not in ("upsampler", "refiner"))
        self.load_networks()
        if options.proxies and self.config.head == "proxy":
            proxies.give_decoder(proxies.load(options.proxies, runtime.device), self.model)
        self.freeze()

    def freeze(self) -> None:
        """Leave gradients to what is tuned alone."""
        model = self.model.train().requires_grad_(False)
        model.decoder.requires_grad_(True)
        if not self.hyper.pixel_loss.lpips_weight:
            initial.without_detail(model)
        if self.options.detail_only:
            if self.config.head != "refiner":
                raise UsageError("--detail-only is for models with the head 'refiner': leave it out")
            model.decoder.requires_grad_(False)
            model.decoder.ffn.detail.requires_grad_(True)
        if self.config.head == "proxy":
            model.pixel_quantize.requires_grad_(True)
            model.pixel_decoder.requires_grad_(True)

    def make_adversary(self) -> Adversary | None:
        """The critic of ``--init``, if that had one of the same kind: a new one takes minutes to be of use."""
        adversary = super().make_adversary()
        if not adversary or self.options.resumes or not self.critic_state:
            return adversary
        try:
            adversary.go_on(self.critic_state)
            message = f"the critic of {self.options.init} goes on"
        except MISFITS:
            adversary = super().make_adversary()  # the first may have taken on half of what does not fit
            message = f"a new critic, as that of {self.options.init} is of another kind"
        if parallel.rank() == 0:
            print(message, flush=True)
        return adversary

    def batches(self, averaged: TiTok) -> Source | SearchedCrops:
        options = self.options
        if not options.searched:
            return self.source
        if not default_steps(self.config, 1):
            raise UsageError("--searched is for models whose tokens are searched: leave it out")
        autocast = self.runtime.autocast()
        return SearchedCrops(self.source, averaged, options.searched, autocast, options.deadline, *self.order)

    def losses(self, batch: Tensor | tuple[Tensor, Tensor], moment: Moment) -> Result:
        if not isinstance(batch, Tensor):
            return self.reconstruct(batch[0], moment, batch[1])[0]
        result, passed = self.reconstruct(batch, moment)
        found = passed.quantized
        result.parts |= {"codebook": found.codebook_loss, "commitment": found.commitment_loss}
        return result


def _load(path: Path) -> tuple[TiTok, dict | None]:
    """The averaged model of a checkpoint and its critic, if it has one, or the model of a weight file. Stage 1's heads
    for proxy codes are left behind."""
    if path.suffix == ".safetensors":
        return tokenizers.load_model(path), None
    state = load_checkpoint(path, torch.device("cpu"))  # where AdamW wants its counts of steps, as in Trainer.load
    return tokenizer_of(path, state, without=HEAD if predicts_proxies(state) else ()), state.get("adversary")


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return loop.main(Stage2, __doc__, arguments)


if __name__ == "__main__":
    start(main)
