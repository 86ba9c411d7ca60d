"""What fingers type that know cwebp, cjxl, avifenc, gzip or zstd: where it means something else here, what to type.

An option that does nothing, or a word that is taken for a file, would be worse than an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise

import click

_QUALITY = "quality is a number of tokens (-t), or a size (--target-bytes)"
_EFFORT = "how long to search for better tokens is --effort"
_CORES = "all cores are used; OMP_NUM_THREADS sets how many"
_DRAW = "titok-decompress draws .titok files"

# By what was typed; an option that a command does have is not looked up.
_HINTS = {
    **dict.fromkeys(("-k", "--keep"), "inputs are kept in any case: leave it out"),
    "--rm": "inputs are kept in any case: remove them when all is done",
    **dict.fromkeys(("-c", "--stdout", "--to-stdout"), "- as OUTPUT, or -o -, is standard output"),
    **dict.fromkeys(("-z", "--compress"), "titok-compress makes .titok files"),
    **dict.fromkeys(("--decompress", "--uncompress"), _DRAW),
    **dict.fromkeys(("-r", "-R", "--recursive"), "all that lies in a folder is taken: leave it out"),
    **dict.fromkeys(("-l", "--list"), "titok-info says what is in a file"),
    **dict.fromkeys(("-t", "--test"), "titok-decompress --verify checks files"),
    **dict.fromkeys(("-y", "--yes", "--overwrite"), "-f replaces files that exist"),
    **dict.fromkeys(("-i", "--input"), "inputs are named without an option"),
    **dict.fromkeys(("--output-dir", "--output-dir-flat"), "-o FOLDER is where results go"),
    **dict.fromkeys(("-S", "--suffix"), "-o names a result"),
    **dict.fromkeys(("--quality", "--distance", "--min", "--max", "-preset"), _QUALITY),
    **dict.fromkeys(("-lossless", "--lossless", "-near_lossless"), f"there is no lossless mode; {_QUALITY}"),
    **dict.fromkeys(("-size", "--target_size"), "--target-bytes N is the largest size"),
    **dict.fromkeys(("-resize", "--resize"), "--max-side N scales larger pictures down"),
    **dict.fromkeys(("-e", "-s", "--speed", "--fast", "--best", "--ultra"), _EFFORT),
    **dict.fromkeys((f"-{level}" for level in range(10)), _EFFORT),
    **dict.fromkeys(("-j", "-T", "-mt", "--jobs", "--threads", "--num_threads"), _CORES),
    **dict.fromkeys(("-V", "-version"), "--version shows the version"),
    "-quiet": "-q says nothing but errors",
}
_WORDS = {name for name in _HINTS if re.fullmatch(r"-[a-z_]{2,}", name)}  # to us, a row of options of a letter


def check(arguments: Sequence[str]) -> None:
    """Raise ``click.UsageError`` for what could be understood and is hardly meant."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word in options:
        if word in _WORDS:
            raise click.UsageError(f"No such option: {word}; {_HINTS[word]}.")
    for option, value in pairwise(options):
        if option in ("-q", "--quiet") and is_number(value) and not os.path.lexists(value):
            raise click.UsageError(f"{option} is for quiet and takes no number: leave {value} out; {_QUALITY}.")


def hint(option: str) -> str | None:
    """What to do instead of an option that there is not."""
    return _HINTS.get(option)


def is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def model_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Not cwebp's method."""
    if value is not None and is_number(value) and not os.path.lexists(value):
        raise click.BadParameter(f"{value} is no weight file, as -m takes; {_EFFORT}", ctx, param)
    return value


def device_of(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Not cjxl's distance, nor gzip's wish to decompress. Whether there is such a device only torch can tell."""
    if not re.fullmatch(r"[a-z]{3,}(:\d+)?", value):
        other = _QUALITY if is_number(value) else _DRAW
        raise click.BadParameter(f"{value!r} is no device, such as cpu or cuda:1; {other}", ctx, param)
    return value
