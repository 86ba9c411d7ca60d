"""The model that a tokenizer's training starts from: other weights, the closed form, or random ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from titokcodec.models.config import TiTokConfig
from titokcodec.models.linear import SIDE
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers

from .batches import InMemory
from .options import Options
from .progress import Progress
from .starts import start_in_2d, start_linear
from .streaming import Source

STATISTICS = 1 << 16  # crops that the linear start is computed from, at most
VIEWS = 16  # of them, at most so many of every picture


@dataclass(frozen=True, kw_only=True)
class StartOptions(Options):
    """Of stages that train a whole tokenizer.

    Attributes:
        init: Weights to start from, instead of ``start``.
        start: How weights begin; None: as suits the preset.
    """

    preset: str
    init: Path | None
    start: str | None


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where training starts."""
    parser.add_argument("--init", type=Path, help="start from these weights instead of at random")
    parser.add_argument(
        "--start",
        choices=("linear", "2d", "published"),
        help="how weights begin: in closed form from the pictures, where the preset has linear paths; with positions "
        "of the picture's plane; at random (default: the first that the preset allows; published for titok_*)",
    )


def is_published(preset: str) -> bool:
    """Whether a preset is one that the published hyper-parameters are for."""
    return preset.startswith(("titok_", "published"))


class Initial(NamedTuple):
    """Where training starts.

    Attributes:
        model: To be trained, with gradients.
        quantized: Whether its codebook is of use from the first step on.
        start_codebook: Whether its codebook is to start from latents once these are quantized.
    """

    model: TiTok
    quantized: bool
    start_codebook: bool


def initial(config: TiTokConfig, options: StartOptions, source: Callable[[], Source], device: torch.device) -> Initial:
    """The model that training starts from.

    Args:
        source: Opens the training pictures; called for the linear start alone.

    Raises:
        TitokError: ``--init`` has another architecture, or ``--start`` does not suit this one.
    """
    if options.init:
        model = tokenizers.load_model(options.init)
        if model.config != config:
            raise TitokError(f"{options.init} is of another architecture than preset {options.preset}")
        return Initial(model.train().requires_grad_(True), config.spectrum > 0, False)
    suited = "linear" if config.components else "published" if options.preset.startswith("titok_") else "2d"
    start = options.start or suited
    model = TiTok(config)
    if start != "published":
        start_in_2d(model)
    if start != "linear" or options.resumes:
        return Initial(model, False, True)
    if not config.components:
        raise UsageError(f"preset {options.preset} has no components to start from: give --start 2d")
    start_linear(model.to(device), _crops(source()))
    return Initial(model, True, True)


def _crops(source: Source) -> Iterator[Tensor]:
    """Random crops, reduced to what the linear paths see, enough for statistics of their low frequencies.

    Random views would not do: they zoom, so they are smoother than what will be compressed, and leave the last tokens
    without components.
    """
    count, size = min(STATISTICS, VIEWS * (source.pictures or STATISTICS)), source.size
    batches = -(-count // size)
    with Progress("linear start: statistics", batches * size, "crops") as shown:
        for number in range(batches):
            batch = source.batch(-1 - number if isinstance(source, InMemory) else number)
            yield F.avg_pool2d(batch, batch.shape[-1] // SIDE)
            shown.add(size)


def without_detail(model: TiTok) -> None:
    """Turn off a refiner's fine detail, for squared error alone, which teaches it nothing."""
    if model.config.head == "refiner":
        model.decoder.ffn.detailed = False
        model.decoder.ffn.detail.requires_grad_(False)
