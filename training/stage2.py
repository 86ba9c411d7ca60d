"""Stage 2 of the published recipe: the decoder learns pixels, for tokens that no longer change (TiTok section 3.2).

    python -m training.stage2 --init runs/stage1/state.pt --data train/ --minutes 60 --out runs/c

Encoder, latents and codebook are frozen; decoder and pixel head are tuned with squared error, a perceptual term and a
hinge adversary with LeCam. It finishes what stage 1 began, and sharpens what ``training.single`` trained or a weight
file holds: files that were compressed before still decode with the new weights to the same scene, but the model is
another one, with another fingerprint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError, start
from titokcodec.models.config import TiTokConfig
from titokcodec.models.tokenizer import TiTok
from titokcodec.search import default_steps
from titokcodec.weights import tokenizers

from . import parallel, proxies, stage
from .adversarial import Adversary
from .argtypes import whole
from .checkpoint import MISFITS, load_checkpoint, names_proxies, tokenizer_of
from .data import Held
from .searched import Searched
from .single import Single
from .stage import Outcome
from .streaming import Stream

HEAD = ("decoder.ffn.", "decoder.conv_out.")  # what turns cells into pixels


class Stage2(Single):
    """The decoder alone."""

    name = "stage2"
    presets: ClassVar[dict] = {}  # the architecture is that of --init
    restarts = False

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--init",
            type=Path,
            required=True,
            help="what to tune: a checkpoint (state.pt) of stage 1 "
            "or single, or of stage2 itself, whose critic goes on if it is of the same kind; or a "
            "weight file",
        )
        parser.add_argument(
            "--searched",
            type=whole(0),
            default=0,
            metavar="N",
            help="tune on N random crops (rounded "
            "up to whole batches) whose tokens are searched first, as those of files are, instead of "
            "on the encoder's; that takes time before --minutes count, until --deadline at most",
        )
        parser.add_argument(
            "--detail-only",
            action="store_true",
            help="of a refiner, train what draws fine detail and leave all else as it is",
        )
        parser.add_argument(
            "--proxies",
            type=Path,
            help="2D tokenizer to take a legacy model's pixel decoder from, unless --init holds a trained one",
        )

    def architecture(self) -> TiTokConfig:
        """That of ``--init``."""
        self.source, self.critic_before = _load(self.options.init)
        return self.source.config

    def published(self) -> bool:
        return self.config.head not in ("upsampler", "refiner")

    def build(self) -> TiTok:
        model = self.source
        if self.options.proxies and self.config.head == "proxy":
            proxies.hand_on(proxies.load(self.options.proxies, self.device), model)
        model.train().requires_grad_(False)
        model.decoder.requires_grad_(True)
        self.lean(model)
        if self.options.detail_only:
            if self.config.head != "refiner":
                raise UsageError("--detail-only is for models with the head 'refiner': leave it out")
            model.decoder.requires_grad_(False)
            model.decoder.ffn.detail.requires_grad_(True)
        if self.config.head == "proxy":
            model.pixel_quantize.requires_grad_(True)
            model.pixel_decoder.requires_grad_(True)
        return model

    def opponent(self) -> Adversary:
        """The critic of ``--init`` goes on, if that had one of the same kind: a new one takes minutes to be of use."""
        adversary = super().opponent()
        if self.resumed or not self.critic_before:
            return adversary
        try:
            adversary.load_state_dict(self.critic_before)
            told = f"the critic of {self.options.init} goes on"
        except MISFITS:
            adversary = super().opponent()  # the first may have taken on half of what does not fit
            told = f"a new critic, as that of {self.options.init} is of another kind"
        for group in adversary.optimizer.param_groups:
            group["weight_decay"] = self.hyper.decay  # this run's, as its rate is
        if parallel.rank() == 0:
            print(told, flush=True)
        return adversary

    def batches(self) -> Held | Stream | Searched:
        source, options = super().batches(), self.options
        if not options.searched:
            return source
        if not default_steps(self.config, 1):
            raise UsageError("--searched is for models whose tokens are searched: leave it out")
        order = self.hyper.batch, options.seed, parallel.rank(), parallel.count()
        return Searched(source, self.ema.model, options.searched, self.autocast(), options.deadline, *order)

    def losses(self, batch: Tensor | tuple[Tensor, Tensor]) -> Outcome:
        if isinstance(batch, Tensor):
            return super().losses(batch)
        return self.drawing(*batch)[0]


def _load(path: Path) -> tuple[TiTok, dict | None]:
    """The averaged model of a checkpoint and its critic, if it has one, or the model of a weight file. Stage 1's heads
    for proxy codes are left behind."""
    if path.suffix == ".safetensors":
        return tokenizers.load_model(path), None
    state = load_checkpoint(path, torch.device("cpu"))  # where AdamW wants its counts of steps, as in Stage.load
    return tokenizer_of(path, state, without=HEAD if names_proxies(state) else ()), state.get("adversary")


def main(arguments: list[str] | None = None) -> TiTok:
    """Command line; returns the averaged model."""
    return stage.main(Stage2, __doc__, arguments)


if __name__ == "__main__":
    start(main)
