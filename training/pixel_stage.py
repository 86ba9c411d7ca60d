"""What stages have in common whose loss compares pixels: networks in the loss, an adversary, LPIPS in the scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from titokcodec.cli.script import UsageError
from titokcodec.metrics import LPIPS

from .adversarial import Adversary
from .compute import to_device
from .hyper import DecoderHyper
from .losses import PixelLoss
from .options import PixelOptions
from .stage import Stage

P = TypeVar("P", bound=PixelOptions)


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
            UsageError: a critic is asked for that cannot be, or is of no use.
        """
        options, runtime = self.options, self.runtime
        options.check_critic(self.hyper.adversary.weight)
        loss = PixelLoss(self.hyper.pixel_loss, options.lpips, options.lite0, runtime.dtype, runtime.compiled)
        self.pixel_loss = loss.to(runtime.device)
        self.lpips = None
        if options.lpips:
            self.lpips = to_device(LPIPS(options.lpips), runtime.device)

    def make_adversary(self) -> Adversary | None:
        """The critic that --critic asks for, or by default the one that fits the recipe and the networks at hand."""
        hyper, options, runtime = self.hyper.adversary, self.options, self.runtime
        if not hyper.weight:
            return None
        critic = options.critic or ("features" if self.recipe == "short" and options.lite0 else "patches")
        lite0 = self.pixel_loss.classifier if critic == "features" else None
        try:
            return Adversary(hyper, self.hyper.optimizer.decay, runtime.device, runtime.autocast, lite0)
        except ValueError as error:
            raise UsageError(f"--adversary-width: {error}") from None

    def late_losses(self) -> Iterator[AbstractContextManager]:
        return self.pixel_loss.each_scale()
