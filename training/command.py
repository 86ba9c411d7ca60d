"""The command line that all stages share."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from titokcodec.cli.script import Parser, UsageError

from . import hyper
from .argtypes import add_resume, deadline, whole

if TYPE_CHECKING:
    from .stage import Stage


def parse(stage: type[Stage], about: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = _parser(stage, about)
    options = parser.parse_args(arguments)
    begun = options.resume and (options.out / "state.pt").exists()  # and there may be nothing left to do
    if options.deadline is not None and options.deadline <= time.time() and not begun:
        parser.error(
            f"argument --deadline: {datetime.fromtimestamp(options.deadline):%Y-%m-%d %H:%M:%S} is over: give "
            "a time to come"
        )
    return options


def parse_known(stage: type[Stage], arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options that the stage knows, and the words that it does not."""
    return _parser(stage, stage.__doc__).parse_known_args(arguments)


def check_critic(given: argparse.Namespace, adversary: float | None = None) -> None:
    """Raise ``UsageError`` if the critic that is asked for lacks its network, or its loss counts for nothing.

    Args:
        adversary: The weight of that loss, if it is known.
    """
    if given.critic == "features" and not given.lite0:
        raise UsageError("--critic features needs Lite0's weights: give them by --lite0")
    if given.critic and adversary == 0 and not given.chained:
        raise UsageError(f"--critic {given.critic} does nothing while --adversary is 0: give that too, or neither")


def _parser(stage: type[Stage], about: str) -> argparse.ArgumentParser:
    parser = Parser(about, prog=f"python -m training.{stage.name}", allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    add("--out", type=Path, required=True, help="folder for checkpoints and logs")
    add("--minutes", type=float, help="the whole budget; schedules are fitted to it")
    add(
        "--deadline",
        type=deadline,
        metavar="TIME",
        help="when the budget ends at the latest: a time of day, HH:MM "
        "or HH:MM:SS, or seconds since the epoch; a last score and files come after it",
    )
    add("--val", type=Path, nargs="+", help="held-out pictures, scored during the run")
    if "lpips_weight" not in hyper.UNUSED[stage.name]:
        add("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors); without them no LPIPS is in the loss")
        add(
            "--lite0",
            type=Path,
            help="EfficientNet-Lite0 weights (safetensors), for --features, --logits and --critic features",
        )
        add(
            "--critic",
            choices=("patches", "features"),
            help="what judges pictures if --adversary is not 0: a "
            "discriminator of patches, as published, or heads on Lite0's features (default: features if --lite0 is "
            "given and the hyper-parameters are ours)",
        )
    if stage.presets:
        add(
            stage.preset_option,
            dest="preset",
            choices=stage.presets,
            default=next(iter(reversed(stage.presets))),
            help="architecture (default: %(default)s)",
        )
    add_resume(parser, "go on from OUT/state.pt if it is there")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    add("--stream", action="store_true", help="read pictures while training, for sets that memory cannot hold")
    add("--workers", type=int, default=4, help="processes that read, with --stream (default: %(default)s)")
    add("--limit", type=whole(1), metavar="N", help="use the first N pictures only")
    add(
        "--val-limit",
        type=whole(0),
        metavar="N",
        default=128,
        help="held-out pictures to score, 0 for none (default: %(default)s)",
    )
    add("--val-minutes", type=float, default=10.0, help="minutes between scores (default: %(default)s)")
    add("--save-minutes", type=float, default=5.0, help="minutes between checkpoints (default: %(default)s)")
    add("--log-every", type=whole(1), default=20, help="steps between log rows (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="bfloat16 autocast (default: where the device multiplies it natively; elsewhere it is slow beyond use)",
    )
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="torch.compile (default: on CUDA)",
    )
    add(
        "--rehearse",
        action=argparse.BooleanOptionalAction,
        help="updates before the clock starts that are undone, so that compiling costs no minutes (default: with "
        "--compile)",
    )
    stage.add_options(parser)
    hyper.add_options(parser, stage.name)
    parser.set_defaults(init=None, side=256, lpips=None, lite0=None, critic=None, chained=False)
    return parser
