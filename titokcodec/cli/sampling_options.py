"""Options of ``titok-generate`` for the sampler. What is not given is as the generator at hand has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

# An autoregressive generator takes a step a token, in order.
OF_MASKED = ("steps", "schedule", "order", "softmax_temperature")


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A finite number; a temperature is 0 or more, and a share of the probability above 0 and up to 1."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise click.BadParameter(f"{param.name} is {value}: give a finite number", ctx, param)
    if param.name in ("temperature", "fine_temperature") and value < 0:
        raise click.BadParameter(f"{param.name} is {value}: give 0 or more", ctx, param)
    if param.name == "top_p" and not 0 < value <= 1:
        raise click.BadParameter(f"top_p is {value}: give a number above 0, up to 1 for all codes", ctx, param)
    return value


def interval_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """LOW,HIGH as two numbers."""
    if value is None:
        return None
    low, _, high = value.partition(",")
    try:
        found = float(low), float(high)
    except ValueError:
        found = (1.0, 0.0)
    if not 0 <= found[0] < found[1] <= 1:
        raise click.BadParameter(f"give two rising numbers from 0 to 1, such as 0.2,0.8, not {value!r}", ctx, param)
    return found


def _option(*names: str, otherwise: str, **about: Any) -> Callable[[Function], Function]:
    """One whose default is the generator's, or else that of ``titokcodec.sampling.Settings``."""
    return click.option(*names, default=None, show_default=f"the generator's own, else {otherwise}", **about)


def sampling(command: Function) -> Function:
    """Decorator that adds all of them; names are those of ``titokcodec.sampling.Settings``."""
    added = [
        _option(
            "--steps",
            otherwise="8",
            type=click.IntRange(1, 10_000),
            metavar="N",
            help="Passes through a masked generator, for each part of the tokens: the coarsest ones, then those of a "
            "finer picture, and so on.",
        ),
        _option(
            "--guidance-scale",
            otherwise="4.5",
            type=float,
            metavar="X",
            callback=finite,
            help="How strongly the class guides.",
        ),
        _option(
            "--guidance",
            otherwise="linear",
            type=click.Choice(["constant", "linear", "cosine", "linear-decay", "power-cosine"]),
            help="How that scale changes from pass to pass.",
        ),
        _option(
            "--guidance-interval",
            otherwise="0,1",
            metavar="LOW,HIGH",
            callback=interval_of,
            help="From which share of the passes on the class guides, and from which on no more.",
        ),
        _option(
            "--schedule",
            otherwise="arccos",
            type=click.Choice(["arccos", "linear", "cosine", "root"]),
            help="How many tokens a masked generator leaves to later passes.",
        ),
        _option(
            "--order",
            otherwise="confidence",
            type=click.Choice(["confidence", "random", "sequential"]),
            help="Which tokens a masked generator decides first: the surest, any, or the coarsest.",
        ),
        _option(
            "--temperature",
            otherwise="1",
            type=float,
            metavar="X",
            callback=finite,
            help="Higher is more varied; 0 always takes the likeliest token.",
        ),
        _option(
            "--fine-temperature",
            otherwise="1",
            type=float,
            metavar="X",
            callback=finite,
            help="What the temperature is multiplied by for all tokens after the fewest that a picture can have.",
        ),
        _option(
            "--top-p",
            otherwise="1",
            type=float,
            metavar="P",
            callback=finite,
            help="Sample from the likeliest tokens that have this much of the probability together.",
        ),
        _option(
            "--softmax-temperature/--no-softmax-temperature",
            otherwise="no",
            help="Sharpen a masked generator's distributions from pass to pass, as published ones need.",
        ),
    ]
    for option in reversed(added):
        command = option(command)
    return command
