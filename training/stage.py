"""A stage: the model that a run trains, where its batches come from, its loss and its scores.

``trainer.py`` makes its updates and checkpoints, ``loop.py`` is the run.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from titokcodec.models.quantizer import VectorQuantizer

from . import parallel
from .adversarial import Adversary
from .batches import Batches, Order
from .compute import Runtime
from .data import Pictures
from .hyper import Augmentation, Defaults, Hyper, choose
from .options import Options
from .streaming import Source, open_source
from .views import PLAIN, Views

O = TypeVar("O", bound=Options)  # noqa: E741


class Moment(NamedTuple):
    """A moment of a run: updates made, the share of the run that is over, and whether latents are quantized yet."""

    step: int
    progress: float
    quantize: bool


@dataclass
class Result:
    """What a stage made of one batch.

    Attributes:
        loss: () with gradients.
        parts: Named parts of it, for the log.
        tokens, latents: If a codebook is trained, the (B, K) tokens and the (B, K, d) latents that they stand for.
        decoded, target: If pixels are decoded, these, and the (B, 3, H, W) pixels that they should be.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    tokens: Tensor | None = None
    latents: Tensor | None = None
    decoded: Tensor | None = None
    target: Tensor | None = None


class Stage(ABC, Generic[O]):
    """What one kind of run trains.

    A subclass's ``__init__`` sets ``config``, ``hyper`` and ``model``, in this order.

    Attributes:
        config: The architecture, a frozen dataclass.
        hyper: The hyper-parameters.
        model: What is trained.
        quantizer: The module of ``model`` whose codes are to be kept in use, if there is any.
        quantized: Whether the codebook is of use from the first step on.
        start_codebook: Whether the codebook starts from latents once these are quantized.
        done: Set if there is no point in going on.

    Class attributes:
        presets: Architectures by name; empty if they come from elsewhere.
        results: Files that it leaves in its folder besides checkpoints and logs.
        rehearsal: Updates of a rehearsal until all lengths of prefixes have had their turn.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[Options]]
    defaults: ClassVar[Defaults]
    presets: ClassVar[dict[str, Any]] = {}
    preset_option: ClassVar[str] = "--preset"
    results: ClassVar[tuple[str, ...]] = ()
    val_limit: ClassVar[int] = 128

    config: Any
    hyper: Hyper
    model: nn.Module
    quantizer: VectorQuantizer | None = None
    quantized = False
    start_codebook = True
    done = False
    rehearsal = 2

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this stage alone."""

    def __init__(self, options: O, runtime: Runtime) -> None:
        self.options, self.runtime = options, runtime

    def chosen(self, published: bool) -> Any:
        """The hyper-parameters: the column of --recipe or, by default, the one that suits the architecture."""
        self.recipe = self.options.column(published)
        return choose(self.defaults, self.recipe, self.options.hyper)

    # ---- the model ----------------------------------------------------------------------------------------------

    @property
    def architecture(self) -> str:
        """What to call the architecture in messages."""
        return getattr(self.options, "preset", "of --init")

    @abstractmethod
    def forward_pass(self) -> nn.Module:
        """A module whose one call runs all trained parameters, so that gradients can be averaged over ranks."""

    def prepare_forward(self) -> None:
        """Set ``forward``; once the model is on its device and has its weights."""
        self.forward = parallel.wrapped(self.forward_pass())

    def make_adversary(self) -> Adversary | None:
        """A critic to train beside the model, if the hyper-parameters ask for one."""
        return None

    # ---- pictures -----------------------------------------------------------------------------------------------

    @property
    def side(self) -> int:
        """Pixels of a crop's side."""
        return self.config.image_size

    @property
    def order(self) -> Order:
        """How batches are made, for this rank."""
        return Order(self.hyper.optimizer.batch, self.options.seed, parallel.rank(), parallel.count())

    @property
    def augmentation(self) -> Augmentation | None:
        """Random views of the training pictures, for stages that see pictures."""
        return getattr(self.hyper, "augmentation", None)

    def views(self) -> Views:
        """What random views of the training pictures are like, if the run begins with them."""
        how = self.augmentation
        return Views(how.zoom, how.stretch, how.colour) if how and how.augment_until else PLAIN

    @cached_property
    def source(self) -> Source:
        """Crops of the training pictures, this rank's part of each batch; opened when first asked for."""
        options, order = self.options, self.order
        return open_source(
            options.data,
            order.size,
            self.side,
            *order[1:],
            device=self.runtime.device,
            stream=options.stream,
            workers=options.workers,
            limit=options.limit,
            how=self.views(),
            compiled=self.runtime.compiles,
        )

    def batches(self, averaged: Any) -> Source | Batches:
        """Where batches come from, this rank's part of each.

        Args:
            averaged: The averaged model, as it is before the first update of this run.
        """
        return self.source

    def held_out(self) -> Any:
        """What ``score`` and ``sheet`` are given, None if nothing is held out. For the first rank alone."""
        options = self.options
        if not (options.val and options.val_limit):
            return None
        return Pictures(options.val, self.side, options.val_limit, self.runtime.device)

    # ---- training and scores ------------------------------------------------------------------------------------

    @property
    def continuous(self) -> float:
        """Share of the run before latents are quantized."""
        return 0.0

    def latents(self, batch: Any) -> Tensor:
        """(B, K, d) latents that the codebook may start from."""
        raise NotImplementedError

    @abstractmethod
    def losses(self, batch: Any, moment: Moment) -> Result:
        """The loss of a batch."""

    def late_losses(self) -> Iterator[AbstractContextManager]:
        """For a rehearsal of the last part of a run: a context for each shape that its losses have."""
        yield nullcontext()

    @abstractmethod
    def score(self, model: Any, val: Any) -> dict[str, float]:
        """Scores of the averaged model on what is held out."""

    def sheet(self, model: Any, val: Any) -> Tensor | None:
        """A (3, H, W) picture in [0, 1] of the averaged model's reconstructions, if it has any."""
        return None

    # ---- files --------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """Plain values that a checkpoint keeps besides."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take back what ``memory`` gave, on a resume."""

    def saved(self, model: Any) -> None:
        """Leave results on the way; called with the averaged model after each checkpoint."""

    def finish(self, model: Any) -> None:
        """Leave results; called with the averaged model once the budget is used up."""
