"""Command-line options that more than one command has, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import hints
from titokcodec.errors import TitokError
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, MAX_TOKENS

if TYPE_CHECKING:
    from titokcodec.cli.picture_files import PictureFormat


def shard_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """I/N as two numbers."""
    if value is None:
        return None
    index, slash, count = value.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise click.BadParameter("give I/N with I from 0 to N - 1, such as 0/4", ctx, param)
    return int(index), int(count)


def pixels_of(ctx: click.Context, param: click.Parameter, value: int) -> int | None:
    """0 is no limit."""
    return value or None


def colour_of(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A colour that Pillow knows."""
    if value != "white":  # which needs no Pillow to check
        from PIL import ImageColor

        try:
            ImageColor.getrgb(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a colour: give a name or '#rrggbb'", ctx, param) from None
    return value


def format_of(ctx: click.Context, param: click.Parameter, value: str | None) -> PictureFormat | None:
    """A picture format that Pillow writes."""
    if value is None:
        return None
    from titokcodec.cli.picture_files import format_named

    try:
        return format_named(value)
    except TitokError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def usage(error: TitokError) -> click.UsageError:
    """An error of the library's about the command line itself."""
    return click.UsageError(f"{error}.")


def together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several decorators as one, the first of them outermost."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


MODEL = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    callback=hints.model_of,
    show_default="the bundled one",
    help="Weight file, its folder, or hub:org/name.",
)
TOKENS = click.IntRange(1, MAX_TOKENS)  # of any file; the model at hand may have fewer
FORCE = click.option("-f", "--force", is_flag=True, help="Replace files that exist.", show_default=False)
QUIET = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.", show_default=False)
MAX_PIXELS = click.option(
    "--max-pixels",
    type=click.IntRange(0),
    default=DEFAULT_MAX_PIXELS,
    metavar="N",
    callback=pixels_of,
    help="Refuse larger pictures; 0 is no limit.",
)
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    show_default=False,
    help="Print a JSON object for each file on standard output (on standard error if that carries the result).",
)
_DEVICE = click.option(
    "-d", "--device", default="auto", callback=hints.device_of, help="auto, cpu, cuda, cuda:1, mps ..."
)
_DTYPE = partial(click.option, "--dtype", type=click.Choice(["auto", "bf16", "fp32"]))
_BATCH_SIZE = click.option(
    "-b", "--batch-size", type=click.IntRange(1), default=16, metavar="N", help="Tiles a forward pass."
)
_BULK = (
    click.option(
        "-o",
        "--output",
        metavar="PATH",
        help="Folder for the results, made if missing; for one INPUT also a file name with a suffix.",
    ),
    FORCE,
    click.option("--skip-existing", is_flag=True, help="Leave results that exist as they are.", show_default=False),
    MAX_PIXELS,
    click.option(
        "--shard",
        metavar="I/N",
        callback=shard_of,
        help="Do only every N-th input, from the I-th on (from 0): to share the work among machines.",
    ),
    QUIET,
    click.option(
        "-v", "--verbose", is_flag=True, help="Print the model too, and a line for every file.", show_default=False
    ),
    JSON,
)


network = together(MODEL, _DEVICE, _DTYPE(default="auto", help="Precision."), _BATCH_SIZE)
# In bfloat16 a result may differ with the batch that it is computed in, and with it all that is sampled after it.
sampling_network = together(
    MODEL,
    _DEVICE,
    _DTYPE(default="fp32", help="Precision. In bf16 pictures may differ with the number of them."),
    _BATCH_SIZE,
)
bulk = together(*_BULK)
