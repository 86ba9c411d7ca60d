"""Hyper-parameters: groups, what each stage composes of them, and their command-line options.

A stage has the groups that it uses and no others. Their values are in ``defaults.py``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Generic, TypeVar

from titokcodec.cli.script import UsageError


def _option(text: str, name: str = "", most: float = math.inf, positive: bool = False, exclusive: bool = False) -> Any:
    """A field with its help, the name of its option if that is another one, and the range of its values.

    Args:
        positive: It is more than 0.
        exclusive: It is less than the most.
    """
    return field(metadata={"help": text, "option": name, "most": most, "positive": positive, "exclusive": exclusive})


def _share(text: str, name: str = "", positive: bool = False, exclusive: bool = False) -> Any:
    return _option(text, name, 1.0, positive, exclusive)


@dataclass(frozen=True)
class Optimizer:
    """Batch, optimizers and averaging."""

    batch: int = _option("pictures a step, over all processes", positive=True)
    rate: float = _option("peak learning rate of AdamW")
    beta1: float = _option("AdamW's decay of the mean gradient")
    beta2: float = _option("AdamW's decay of the mean square")
    decay: float = _option("weight decay, on matrices only")
    linear_rate: float = _option("peak learning rate of the linear paths, if there are any")
    muon_rate: float = _option("peak learning rate of Muon on the blocks' matrices and kernels; 0: AdamW for all")
    ema: float = _share("largest decay of the averaged weights", exclusive=True)
    clip: float = _option("largest norm of the gradient, the model's as well as the critic's", positive=True)


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run."""

    steps: int = _option("updates that the schedule is made for, unless --minutes is given", positive=True)
    warmup: float = _share(
        "share of the run in which the learning rate rises from 0, unless --warmup-steps is given; the critic's rises "
        "for as long from its own start on"
    )
    warmup_steps: int = _option("steps in which it rises, within a tenth of the run at most; 0: as --warmup")
    flat: float = _share("share of the run at the peak rate, followed by a linear decay; 0: half a cosine")
    floor: float = _share("learning rate at the end, as a share of the peak")


@dataclass(frozen=True)
class Codebook:
    """How a quantizer is trained."""

    continuous: float = _share("share of the run before codes are quantized")
    restarts: float = _share(
        "share of the run in which unused codes start again from latents, as all do when codes are first quantized; 0: "
        "codes keep their random start"
    )
    quantizer: float = _option("weight of the quantizer's loss")
    commitment: float = _option("weight of commitment inside the quantizer's loss")


@dataclass(frozen=True)
class PixelTerms:
    """Weights of the terms that compare pictures."""

    pixels: float = _option("weight of the squared error of pixels")
    lpips_weight: float = _option("weight of LPIPS")
    lpips_start: float = _share("share of the run after which LPIPS and the terms below fade in")
    lpips_share: float = _share("share of the batch that LPIPS and the classifier see", positive=True)
    features: float = _option("weight of the distance between a classifier's features")
    logits: float = _option("weight of the squared distance between a classifier's logits")
    jitter: int = _option(
        "pixels that pairs are shifted by at most before LPIPS and features compare them, mirrored and shrunk at "
        "random; 0: as they are"
    )
    grain: float = _option("weight of marks on a grid that the original lacks")
    texture: float = _option("weight of the distance between directions and colours of fine detail")


@dataclass(frozen=True)
class Adversarial:
    """The adversarial loss and the training of its critic."""

    weight: float = _option("weight of the adversarial loss; 0: none", "adversary")
    start: float = _share("share of the run after which the adversary is in the loss", "adversary_start")
    rate: float = _option("peak learning rate of the adversary", "adversary_rate")
    width: int = _option("channels of the critic of patches at full resolution, a multiple of 32", "adversary_width")
    share: float = _share("share of the batch that the adversary sees", "adversary_share", positive=True)
    lecam: float = _option("weight of LeCam regularisation of the adversary")


@dataclass(frozen=True)
class Augmentation:
    """Random views of pictures in memory."""

    zoom: float = _option("random views of pictures in memory are enlarged at most this many times; 1: not at all")
    stretch: float = _option("how much wider than high, or higher than wide, a random view is at most; 0: square")
    colour: float = _option("how much brightness, contrast and channels of a random view change at most; 0: not")
    augment_until: float = _share("share of the run that sees random views, followed by plain crops; 0: none")


@dataclass(frozen=True)
class Masking:
    """The loss of a generator."""

    smoothing: float = _share("label smoothing of the cross entropy of tokens")
    unmasked: float = _share("weight of tokens that are not masked; masked ones have 1")
    label_drop: float = _share("share of labels that are left out, for guidance")
    dropout: float = _share(
        "share of activations and, in a BERT, of attention that is dropped; none in a U-ViT unless given",
        exclusive=True,
    )
    part_balance: float = _option(
        "coarse to fine: how often parts are trained, as their cost to the power of minus this; 0: all as often, 1: "
        "for equal time"
    )
    given_drop: float = _share("coarse to fine: share of the tokens of earlier parts that later ones are not shown")


@dataclass(frozen=True)
class TokenData:
    """The tokens that a generator learns, and those that it is scored on."""

    variants: int = _option(
        "crops of each picture that are tokenized beforehand, every other one mirrored; 0: new ones for every batch, "
        "from pictures held in memory"
    )
    shift: float = _share(
        "how far crops, but for the first, lie from the middle of their picture at most, as a share of the room for it"
    )
    zoom: float = _share(
        "those crops have sides from 1 - X to 1 of their picture's shorter side; not with --variants 0"
    )
    hold_out: int = _option("one picture in so many is held out, unless --val is given; 0: none")
    patience: int = _option(
        "scores without an improvement after which a run ends, with the best weights so far; 0: it never does, and has "
        "the last ones"
    )


# ---- what each stage has ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hyper:
    """What every stage has."""

    optimizer: Optimizer
    schedule: Schedule


@dataclass(frozen=True)
class ProxyHyper(Hyper):
    """Stage 1: a tokenizer against proxy codes."""

    codebook: Codebook
    augmentation: Augmentation


@dataclass(frozen=True)
class DecoderHyper(Hyper):
    """Stage 2: a decoder of fixed tokens against pixels."""

    pixel_loss: PixelTerms
    adversary: Adversarial
    augmentation: Augmentation


@dataclass(frozen=True)
class AutoencoderHyper(DecoderHyper):
    """Encoder, codebook and decoder against pixels: ``single`` and ``vqgan``."""

    codebook: Codebook


@dataclass(frozen=True)
class GeneratorHyper(Hyper):
    """A generator, masked or autoregressive."""

    masking: Masking
    data: TokenData


H = TypeVar("H", bound=Hyper)


@dataclass(frozen=True)
class Defaults(Generic[H]):
    """The two columns of a stage's hyper-parameters: as published, and ours for short runs."""

    published: H
    short: H


# ---- the command line -------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser, defaults: Defaults) -> None:
    """One option for every hyper-parameter, with both defaults in its help."""
    group = parser.add_argument_group(
        "hyper-parameters",
        "defaults: as published, for published architectures / ours, for all others; --recipe chooses",
    )
    group.add_argument("--recipe", choices=("published", "short"), help="which of the two columns to take")
    for (_, item, published), (_, _, short) in zip(_items(defaults.published), _items(defaults.short), strict=True):
        kind = int if item.type == "int" else float
        name = _name(item)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"hyper_{name}",
            type=kind,
            help=f"{item.metadata['help']} (default: {_shown(published)} / {_shown(short)})",
            metavar="N" if kind is int else "X",
        )


def given(options: argparse.Namespace, defaults: Defaults) -> dict[str, float]:
    """The values on the command line, by the options' names with underscores."""
    values = {_name(item): getattr(options, f"hyper_{_name(item)}") for _, item, _ in _items(defaults.published)}
    return {name: value for name, value in values.items() if value is not None}


def values_of(hyper: Hyper) -> dict[str, float]:
    """The values of all hyper-parameters, by the options' names with underscores."""
    return {_name(item): value for _, item, value in _items(hyper)}


def choose(defaults: Defaults[H], recipe: str, changes: dict[str, float]) -> H:
    """One column of the defaults with the values that were given on the command line.

    Raises:
        UsageError: a value is out of its range.
    """
    if "warmup" in changes:
        changes = {"warmup_steps": 0} | changes
    base = defaults.published if recipe == "published" else defaults.short
    groups: dict[str, dict[str, float]] = {}
    for group, item, _ in _items(base):
        if _name(item) in changes:
            _check(item, changes[_name(item)])
            groups.setdefault(group, {})[item.name] = changes[_name(item)]
    return replace(base, **{group: replace(getattr(base, group), **values) for group, values in groups.items()})


def _check(item: Field, value: float) -> None:
    most, positive, exclusive = (item.metadata[name] for name in ("most", "positive", "exclusive"))
    if not 0 <= value <= most or value == math.inf or (value == 0 and positive) or (value == most and exclusive):
        above = "more than 0" if positive else "0 or more"
        below = "" if most != 1 else " and less than 1" if exclusive else " and at most 1"
        raise UsageError(f"--{_name(item).replace('_', '-')} is {value:g}: give {above}{below}")


def _items(hyper: Hyper) -> Iterator[tuple[str, Field, float]]:
    """Group, field and value of every hyper-parameter."""
    for group in fields(hyper):
        values = getattr(hyper, group.name)
        for item in fields(values):
            yield group.name, item, getattr(values, item.name)


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _name(item: Field) -> str:
    return item.metadata["option"] or item.name
