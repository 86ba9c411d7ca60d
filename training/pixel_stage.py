"""What stages have in common whose loss compares pixels: networks in the loss, an adversary, LPIPS in the scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

from titokcodec.cli.script import UsageError
from titokcodec.metrics import LPIPS

from . import progress
from .adversarial import Adversary
from .compute import to_device
from .hyper import DecoderHyper, PixelTerms
from .losses import PixelLoss
from .options import PixelOptions
from .stage import Stage

NEEDED = {"lpips_weight": ("lpips",), "logits": ("convnext", "lite0"), "features": ("lite0",)}  # networks by terms
TERMS = {"lpips_weight": "LPIPS", "logits": "a classifier's logits", "features": "a classifier's features"}

P = TypeVar("P", bound=PixelOptions)


def missing_networks(terms: PixelTerms, options: PixelOptions, recipe: str) -> list[str]:
    """What the loss goes without for want of a network, each as a message.

    Our own recipe may do without those that are not given, unless the weight of their term was asked for.

    Raises:
        UsageError: it may not.
    """
    found = []
    for name, networks in NEEDED.items():
        weight = getattr(terms, name)
        if not weight or any(getattr(options, network) for network in networks):
            continue
        option, files = f"--{name.replace('_', '-')}", " or ".join(f"--{network}" for network in networks)
        if recipe == "published" or name in options.hyper:
            raise UsageError(f"{option} is {weight:g}, but there is no network for it: give {files}, or {option} 0")
        found.append(f"no {files} is given: the loss goes without {TERMS[name]}")
    return found


class PixelStage(Stage[P]):
    """A stage with a pixel loss.

    Attributes:
        pixel_loss: Squared error and perceptual terms.
        lpips: LPIPS for scores, in float32 whatever the losses compute in; None without its weights.
    """

    hyper: DecoderHyper
    pixel_loss: PixelLoss
    lpips: LPIPS | None

    def load_networks(self) -> None:
        """Set ``pixel_loss`` and ``lpips``, as ``hyper`` and the options say.

        Raises:
            UsageError: a term of the loss lacks its network; a critic is asked for that cannot be, or is of no use.
        """
        options, runtime = self.options, self.runtime
        options.check_critic(self.hyper.adversary.weight)
        self.check_networks()
        files = options.lpips, options.lite0, options.convnext
        loss = PixelLoss(self.hyper.pixel_loss, *files, dtype=self.loss_dtype, compiled=runtime.compiled)
        self.pixel_loss = loss.to(runtime.device)
        self.lpips = None
        if options.lpips:
            self.lpips = to_device(LPIPS(options.lpips), runtime.device)

    def check_networks(self) -> None:
        """See that each term of the loss with a weight has its network, and pictures large enough.

        Raises:
            UsageError: a network is missing, or crops are too small.
        """
        options, terms = self.options, self.hyper.pixel_loss
        for line in missing_networks(terms, options, self.recipe):
            progress.message(line)
        stands_in = self.recipe == "published" and options.lite0 and not options.convnext
        if stands_in and terms.logits:
            progress.message("logits are EfficientNet-Lite0's, where the paper has ConvNeXt-S's (--convnext)")
        if terms.jitter > self.side // 2:
            raise UsageError(f"--jitter is {terms.jitter}: give at most {self.side // 2}, half of a crop's side")

    @property
    def loss_dtype(self) -> torch.dtype:
        """What the networks of the losses and the critic compute in: float32 as published, or as the model."""
        asked = self.options.loss_bf16
        halved = self.recipe == "short" if asked is None else asked
        return self.runtime.dtype if halved else torch.float32

    def make_adversary(self) -> Adversary | None:
        """The critic that --critic asks for, or by default the one that fits the recipe and the networks at hand."""
        hyper, options, runtime = self.hyper, self.options, self.runtime
        if not hyper.adversary.weight:
            return None
        critic = options.critic or ("features" if self.recipe == "short" and options.lite0 else "patches")
        lite0 = self.pixel_loss.lite0 if critic == "features" else None
        autocast = nullcontext if self.loss_dtype is torch.float32 else runtime.autocast
        try:
            return Adversary(hyper.adversary, hyper.optimizer, hyper.schedule, runtime.device, autocast, lite0)
        except ValueError as error:
            raise UsageError(f"--adversary-width: {error}") from None

    def late_losses(self) -> Iterator[AbstractContextManager]:
        return self.pixel_loss.each_scale()
