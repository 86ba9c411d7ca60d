"""Hints for people who know cwebp, cjxl, avifenc, gzip or zstd: what to type here instead of those tools' options.

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
_DECOMPRESS = "titok-decompress decodes .titok files"

# By what was typed; an option that a command does have is not looked up.
_HINTS = {
    **dict.fromkeys(("-k", "--keep"), "inputs are kept in any case: leave it out"),
    "--rm": "inputs are kept in any case: remove them when all is done",
    **dict.fromkeys(("-c", "--stdout", "--to-stdout"), "- as OUTPUT, or -o -, is standard output"),
    **dict.fromkeys(("-z", "--compress"), "titok-compress makes .titok files"),
    **dict.fromkeys(("--decompress", "--uncompress"), _DECOMPRESS),
    **dict.fromkeys(("-r", "-R", "--recursive"), "folders are searched with all their subfolders: leave it out"),
    **dict.fromkeys(("-l", "--list"), "titok-info shows what is in a file"),
    **dict.fromkeys(("-t", "--test"), "titok-decompress --verify checks files"),
    **dict.fromkeys(("-y", "--yes", "--overwrite"), "-f replaces files that exist"),
    **dict.fromkeys(("-i", "--input"), "inputs are given without an option"),
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
    "-quiet": "-q prints nothing but errors",
}
_WORDS = {name for name in _HINTS if re.fullmatch(r"-[a-z_]{2,}", name)}  # click splits them into letters


def check(arguments: Sequence[str]) -> None:
    """Raise ``click.UsageError`` for what would be accepted, but is hardly meant."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word in options:
        if word in _WORDS:
            raise click.UsageError(f"No such option: {word}; {_HINTS[word]}.")
    for option, value in pairwise(options):
        if option in ("-q", "--quiet") and is_number(value) and not os.path.lexists(value):
            raise click.UsageError(f"{option} is for quiet and takes no number: leave {value} out; {_QUALITY}.")


def hint(option: str) -> str | None:
    """What to do instead of an option that does not exist."""
    return _HINTS.get(option)


def is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def model_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A weight file: not cwebp's method, and not the name of a released model."""
    if value is None or os.path.lexists(value):
        return value
    if is_number(value):
        raise click.BadParameter(f"{value} is no weight file, as -m takes; {_EFFORT}", ctx, param)
    if re.fullmatch(r"default-\d+", value):
        from titokcodec.weights.releases import RELEASES

        for release in RELEASES:
            if release.name == value:
                what = "the bundled model, which is the default: leave -m out"
                if release.file is None:
                    what = "an earlier model, which is not bundled any more: give its weight file"
                raise click.BadParameter(f"{value} is no file, but the name of {what}", ctx, param)
    return value


def device_of(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A device: not cjxl's distance, and not gzip's -d. Only torch knows whether it exists."""
    if not re.fullmatch(r"[a-z]{3,}(:\d+)?", value):
        other = _QUALITY if is_number(value) else _DECOMPRESS
        raise click.BadParameter(f"{value!r} is no device, such as cpu or cuda:1; {other}", ctx, param)
    return value
