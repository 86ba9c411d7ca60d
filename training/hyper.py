"""Hyper-parameters of every stage: as published for the published architectures, ours for short runs of our own.

Published figures: "An Image is Worth 32 Tokens" (Yu et al. 2024), section 4 and appendix, and the configurations that
its authors released. Their perceptual term compares the logits of a ConvNeXt-S; any classifier can be given here.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field, fields, replace

from titokcodec.cli.script import UsageError


def _option(text: str) -> object:
    return field(metadata={"help": text})


@dataclass(frozen=True)
class Hyper:
    """What a stage is trained with. Every field is an option of its command line."""

    batch: int = _option("pictures a step, over all processes")
    steps: int = _option("updates that the schedule is made for, unless --minutes is given")
    rate: float = _option("peak learning rate of AdamW")
    beta1: float = _option("AdamW's decay of the mean gradient")
    beta2: float = _option("AdamW's decay of the mean square")
    decay: float = _option("weight decay, on matrices only")
    linear_rate: float = _option("peak learning rate of the linear paths, if there are any")
    muon_rate: float = _option("peak learning rate of Muon on the blocks' matrices and kernels; 0: AdamW for all")
    warmup: float = _option("share of the run in which the learning rate rises, unless that is given in steps")
    warmup_steps: int = _option("steps in which it rises, within a tenth of the run at most; 0: --warmup says")
    flat: float = _option("share of the run at the peak rate, which then falls in a straight line; 0: half a cosine")
    floor: float = _option("learning rate at the end, as a share of the peak")
    ema: float = _option("decay of the averaged weights, at most")
    clip: float = _option("largest norm of the gradient")
    continuous: float = _option("share of the run before codes are quantized; the codebook then starts from latents")
    pixels: float = _option("weight of the squared error of pixels")
    quantizer: float = _option("weight of the quantizer's loss")
    commitment: float = _option("weight of commitment inside the quantizer's loss")
    lpips_weight: float = _option("weight of LPIPS")
    lpips_start: float = _option("share of the run after which LPIPS fades in")
    lpips_share: float = _option("share of the batch that LPIPS and the classifier see")
    features: float = _option("weight of the distance between a classifier's features, if --lite0 is given")
    logits: float = _option("weight of the squared distance between a classifier's logits")
    grain: float = _option("weight of marks on a grid that the truth lacks")
    texture: float = _option("weight of the distance between directions and colours of fine detail")
    adversary: float = _option("weight of the adversarial loss; 0: none")
    adversary_start: float = _option("share of the run after which the adversary is in the loss")
    adversary_rate: float = _option("peak learning rate of the adversary")
    adversary_width: int = _option("channels of the critic of patches at full resolution, a multiple of 32")
    adversary_share: float = _option("share of the batch that the adversary sees")
    lecam: float = _option("weight of LeCam regularisation of the adversary")
    smoothing: float = _option("label smoothing of the cross entropy of tokens")
    unmasked: float = _option("weight of tokens that are not masked; masked ones have 1")
    label_drop: float = _option("share of labels that are left out, for guidance")
    dropout: float = _option("share of activations that are dropped")
    zoom: float = _option("random views of pictures in memory are enlarged so many times at most; 1: not at all")
    stretch: float = _option("how much wider than high, or higher than wide, a random view is at most; 0: square")
    colour: float = _option("how much brightness, contrast and channels of a random view change at most; 0: not")
    augment_until: float = _option("share of the run that sees random views, before plain crops take over; 0: none")


_PUBLISHED = Hyper(
    batch=256,
    steps=1_000_000,
    rate=1e-4,
    beta1=0.9,
    beta2=0.99,
    decay=1e-4,
    linear_rate=1e-4,
    muon_rate=0.0,
    warmup=0.01,
    warmup_steps=0,
    flat=0.0,
    floor=0.1,
    ema=0.999,
    clip=1.0,
    continuous=0.0,
    pixels=0.0,
    quantizer=1.0,
    commitment=0.25,
    lpips_weight=0.0,
    lpips_start=0.0,
    lpips_share=1.0,
    features=0.0,
    logits=0.0,
    grain=0.0,
    texture=0.0,
    adversary=0.0,
    adversary_start=0.0,
    adversary_rate=1e-4,
    adversary_width=128,
    adversary_share=1.0,
    lecam=0.001,
    smoothing=0.1,
    unmasked=0.1,
    label_drop=0.1,
    dropout=0.1,
    zoom=1.0,
    stretch=0.0,
    colour=0.0,
    augment_until=0.0,
)

# Squared error counts ten times, so that it balances the quantizer's terms, which a short run cannot do with small.
_SHORT = Hyper(
    batch=64,
    steps=20_000,
    rate=1e-3,
    beta1=0.9,
    beta2=0.98,
    decay=0.01,
    linear_rate=1e-4,
    muon_rate=0.04,
    warmup=0.02,
    warmup_steps=100,
    flat=0.0,
    floor=0.01,
    ema=0.995,
    clip=1.0,
    continuous=0.03,
    pixels=10.0,
    quantizer=1.0,
    commitment=0.25,
    lpips_weight=0.5,
    lpips_start=0.5,
    lpips_share=0.25,
    features=0.25,
    logits=0.0,
    grain=0.0,
    texture=0.0,
    adversary=0.0,
    adversary_start=0.7,
    adversary_rate=2e-4,
    adversary_width=64,
    adversary_share=0.5,
    lecam=0.001,
    smoothing=0.1,
    unmasked=0.1,
    label_drop=0.1,
    dropout=0.1,
    zoom=1.7,
    stretch=0.15,
    colour=0.05,
    augment_until=0.85,
)

PUBLISHED = {
    "vqgan": replace(_PUBLISHED, pixels=1.0, lpips_weight=0.1, adversary=0.1, adversary_start=0.02),
    "stage1": _PUBLISHED,
    "stage2": replace(
        _PUBLISHED,
        steps=500_000,
        beta2=0.999,
        pixels=1.0,
        quantizer=0.0,
        logits=0.1,
        adversary=0.01,
        adversary_start=0.04,
    ),
    "single": replace(
        _PUBLISHED,
        steps=650_000,
        beta2=0.999,
        warmup=0.015,
        pixels=1.0,
        lpips_weight=1.0,
        logits=0.1,
        adversary=0.1,
        adversary_start=0.3,
    ),
    "generator": replace(
        _PUBLISHED,
        batch=2048,
        steps=500_000,
        rate=2e-4,
        beta2=0.96,
        decay=0.03,
        warmup=0.02,
        floor=0.05,
    ),
}

SHORT = {
    "vqgan": replace(_SHORT, muon_rate=0.02, continuous=0.1),
    "stage1": _SHORT,
    "stage2": replace(
        _SHORT,
        rate=5e-4,
        muon_rate=0.01,
        quantizer=0.0,
        continuous=0.0,
        lpips_start=0.0,
        adversary=0.002,
        adversary_start=0.2,
    ),
    "single": replace(_SHORT, flat=0.55),
    "generator": replace(_SHORT, batch=256, muon_rate=0.02, decay=0.03, continuous=0.0, augment_until=0.0),
}

_PIXELS = {"pixels", "lpips_weight", "lpips_start", "lpips_share", "features", "logits", "grain", "texture"}
_ADVERSARY = {"adversary", "adversary_start", "adversary_rate", "adversary_width", "adversary_share", "lecam"}
_CODEBOOK = {"quantizer", "commitment", "continuous"}
_VIEWS = {"zoom", "stretch", "colour", "augment_until"}
_TOKENS = {"smoothing", "unmasked", "label_drop", "dropout"}

_SHARES = {
    "warmup",
    "flat",
    "floor",
    "ema",
    "continuous",
    "lpips_start",
    "lpips_share",
    "adversary_start",
    "adversary_share",
    "smoothing",
    "unmasked",
    "label_drop",
    "dropout",
    "augment_until",
}
_NEVER_0 = {"batch", "steps", "clip", "lpips_share", "adversary_share"}

UNUSED = {
    "vqgan": _TOKENS,
    "stage1": _PIXELS | _ADVERSARY | _TOKENS,
    "stage2": _CODEBOOK | _TOKENS,
    "single": _TOKENS,
    "generator": _PIXELS | _ADVERSARY | _CODEBOOK | _VIEWS,
}


def add_options(parser: argparse.ArgumentParser, stage: str) -> None:
    """One option for every field of ``Hyper`` that the stage uses, with both defaults in its help."""
    group = parser.add_argument_group(
        "hyper-parameters", "defaults: as published for titok_* presets / ours for all others; --recipe chooses"
    )
    group.add_argument("--recipe", choices=("published", "short"), help="which of the two columns to take")
    for item in fields(Hyper):
        if item.name in UNUSED[stage]:
            continue
        published, short = getattr(PUBLISHED[stage], item.name), getattr(SHORT[stage], item.name)
        kind = int if item.type == "int" else float
        text = f"{item.metadata['help']} (default: {published} / {short})"
        group.add_argument(
            f"--{item.name.replace('_', '-')}",
            dest=f"hyper_{item.name}",
            type=kind,
            help=text,
            metavar="N" if kind is int else "X",
        )


def chosen(options: argparse.Namespace, stage: str, published: bool) -> Hyper:
    """What the command line asks for, on top of one column: the ``published`` one or ours, unless --recipe says."""
    recipe = options.recipe or ("published" if published else "short")
    given = {item.name: getattr(options, f"hyper_{item.name}", None) for item in fields(Hyper)}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        most = 1 if name in _SHARES else math.inf
        if not 0 <= value <= most or value == math.inf or (value == 0 and name in _NEVER_0):
            span = f"{'more than 0' if name in _NEVER_0 else '0'}{' to 1' if most == 1 else ' or more'}"
            raise UsageError(f"--{name.replace('_', '-')} is {value:g}: give {span}")
    if "warmup" in changes:
        changes.setdefault("warmup_steps", 0)
    return replace((PUBLISHED if recipe == "published" else SHORT)[stage], **changes)
