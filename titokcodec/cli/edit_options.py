"""The options of ``titok-generate`` that say what to make of a compressed picture, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from titokcodec.cli.options import together
from titokcodec.cli.request import Edit
from titokcodec.errors import TitokError
from titokcodec.region import Region

SHARE = 0.3  # of all tokens,
OF_REGION = 0.6  # of those that a region moves most, as ``titokcodec.inpainting`` has it,
OF_LATER = 1.0  # or of those after the first ones
WAY = 7  # pictures from one to another


def _share_of(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value <= 1:
        raise click.BadParameter("give a share above 0, up to 1 for all tokens", ctx, param)
    return value


def _region_of(ctx: click.Context, param: click.Parameter, value: str | None) -> Region | None:
    try:
        return None if value is None else Region.parse(value)
    except TitokError as error:
        raise click.BadParameter(str(error), ctx, param) from None


editing = together(
    click.option(
        "--from",
        "source",
        metavar="FILE",
        help="Make variations of this .titok file of a single tile, or what the next options say; - is standard input.",
    ),
    click.option(
        "--vary",
        "share",
        type=float,
        metavar="SHARE",
        callback=_share_of,
        show_default=f"{SHARE}; with --region {OF_REGION}, with --keep {OF_LATER:g}",
        help="Which part of its tokens to sample again, up to 1, of as many as the generator makes.",
    ),
    click.option(
        "--keep",
        type=click.IntRange(1),
        metavar="N",
        show_default=False,
        help="Leave its first N tokens, the coarse ones, and vary those after them.",
    ),
    click.option(
        "--region",
        metavar="LEFT,TOP,WIDTH,HEIGHT",
        callback=_region_of,
        show_default=False,
        help="Fill this part of it anew, in pixels. Around it pictures stay as they were, and .titok files nearly.",
    ),
    click.option(
        "--to",
        "last",
        metavar="FILE",
        show_default=False,
        help=f"Make pictures on the way from it to this .titok file: -n, or {WAY}, both included; -n 1 is the middle.",
    ),
)


def refuse_generator_options(given: Mapping[str, Any]) -> None:
    """Raise ``click.UsageError`` if options of the generator were given, which an interpolation does not ask."""
    for name, value in given.items():
        if value is not None:
            option = name.replace("_", "-")
            raise click.UsageError(f"--to mixes two pictures and asks no generator: leave --{option} out.")


def edit_of(source: str | None, **given: Any) -> Edit | None:
    """What is asked for of a compressed picture; None if there is none.

    Args:
        source: The file.
        given: ``share``, ``keep``, ``region`` and ``last``, None where they were not given.

    Raises:
        click.UsageError: It does not go together.
    """
    names = {"last": "--to", "region": "--region", "keep": "--keep", "share": "--vary"}
    used = [option for name, option in names.items() if given[name] is not None]
    if source is None:
        if used:
            raise click.UsageError(f"{used[0]} changes a compressed picture: name it with --from.")
        return None
    if used[1:] and used not in (["--keep", "--vary"], ["--region", "--vary"]):
        raise click.UsageError(f"{used[0]} and {used[1]} do not go together: give one of them.")
    last, region, keep, share = (given[name] for name in names)
    if source == last == "-":
        raise click.UsageError("Only one of the two pictures can come from standard input: name a file for the other.")
    if share is None:
        share = OF_REGION if region else OF_LATER if keep else SHARE
    return Edit(source, last, region, keep or 0, share)
