"""The command line that all stages share, as typed options."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from titokcodec.cli.script import Parser, UsageError

from . import hyper
from .argtypes import add_resume, deadline, whole
from .checkpoint import STATE
from .compute import default_device
from .schedule import check_budget

if TYPE_CHECKING:
    from .stage import Stage


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run is asked for, whatever its stage; see ``--help`` for each.

    Attributes:
        deadline: Seconds since the epoch.
        bf16, rehearse: None leaves them to the device and to ``compile``.
        recipe: The column of hyper-parameters to start from; None: the one that suits the architecture.
        hyper: Hyper-parameters given on the command line, by the options' names with underscores.
    """

    data: list[Path]
    out: Path
    minutes: float | None
    deadline: float | None
    val: list[Path] | None
    resume: bool
    force: bool
    device: str
    stream: bool
    workers: int
    limit: int | None
    val_limit: int
    val_minutes: float
    save_minutes: float
    log_every: int
    seed: int
    bf16: bool | None
    compile: bool
    rehearse: bool | None
    recipe: str | None
    hyper: dict[str, float] = field(default_factory=dict)

    def column(self, published: bool) -> str:
        """The column of hyper-parameters: ``recipe``, or else that of a published architecture or of ours."""
        return self.recipe or ("published" if published else "short")

    @property
    def state(self) -> Path:
        """The run's checkpoint."""
        return self.out / STATE

    @property
    def counts_steps(self) -> bool:
        """Whether the run ends after so many updates: by default where it does not end by time."""
        return "steps" in self.hyper or not (self.minutes or self.deadline is not None)

    @property
    def resumes(self) -> bool:
        """Whether there is a checkpoint to go on from, and it is asked for."""
        return self.resume and self.state.exists()


@dataclass(frozen=True, kw_only=True)
class PixelOptions(Options):
    """Of stages whose loss compares pictures.

    Attributes:
        loss_bf16: Whether networks of the losses compute in bfloat16 with the model; None: as the recipe says.
        idle_critic: Whether ``critic`` may be given though the adversarial loss counts for nothing, as in a chain of
            stages of which only some have it.
    """

    lpips: Path | None
    lite0: Path | None
    convnext: Path | None
    critic: str | None
    loss_bf16: bool | None
    idle_critic: bool = False

    def check_critic(self, weight: float | None = None) -> None:
        """Raise ``UsageError`` if the critic lacks its network, or its loss, if its ``weight`` is known, is 0."""
        if self.critic == "features" and not self.lite0:
            raise UsageError("--critic features needs Lite0's weights: give them by --lite0")
        if self.critic and weight == 0 and not self.idle_critic:
            raise UsageError(f"--critic {self.critic} does nothing while --adversary is 0: give that too, or neither")


O = TypeVar("O", bound=Options)  # noqa: E741


def parse(stage: type[Stage[O]], about: str | None, arguments: list[str] | None = None) -> O:
    """The command line's options.

    Raises:
        UsageError: they make no sense.
    """
    parser = parser_of(stage, about)
    options = _typed(stage, parser.parse_args(arguments))
    check_budget(options.minutes, options.hyper.get("steps"))
    if options.deadline is not None and options.deadline <= time.time() and not options.resumes:
        parser.error(
            f"argument --deadline: {datetime.fromtimestamp(options.deadline):%Y-%m-%d %H:%M:%S} is over: give "
            "a time to come"
        )
    return options


def parse_known(stage: type[Stage[O]], arguments: list[str]) -> tuple[O, list[str]]:
    """The options that the stage knows, and the words that it does not."""
    found, unknown = parser_of(stage, stage.__doc__).parse_known_args(arguments)
    return _typed(stage, found), unknown


def _typed(stage: type[Stage[O]], found: argparse.Namespace) -> Any:
    names = [item.name for item in fields(stage.options_type) if item.name != "hyper" and hasattr(found, item.name)]
    values = {name: getattr(found, name) for name in names}
    return stage.options_type(**values, hyper=hyper.given(found, stage.defaults))


def parser_of(stage: type[Stage], about: str | None) -> argparse.ArgumentParser:
    """The parser of a stage's command."""
    parser = Parser(about, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    add("--out", type=Path, required=True, help="folder for checkpoints and logs")
    add("--minutes", type=float, help="the whole budget; schedules are fitted to it")
    add(
        "--deadline",
        type=deadline,
        metavar="TIME",
        help="when the budget ends at the latest: a time of day, HH:MM or HH:MM:SS, or seconds since the epoch; the "
        "last scores and files come after it",
    )
    add("--val", type=Path, nargs="+", help="held-out pictures, scored during the run")
    if issubclass(stage.options_type, PixelOptions):
        _add_networks(parser)
    if stage.presets:
        add(
            stage.preset_option,
            dest="preset",
            choices=stage.presets,
            default=next(iter(reversed(stage.presets))),
            help="architecture (default: %(default)s)",
        )
    add_resume(parser, "go on from OUT/state.pt if it is there; give the options of the first start again")
    add("--device", default=default_device(), help="default: %(default)s")
    add("--stream", action="store_true", help="read pictures while training, for sets that memory cannot hold")
    add("--workers", type=int, default=4, help="processes that read, with --stream (default: %(default)s)")
    add("--limit", type=whole(1), metavar="N", help="use the first N pictures only")
    add(
        "--val-limit",
        type=whole(0),
        metavar="N",
        default=stage.val_limit,
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
    hyper.add_options(parser, stage.defaults)
    return parser


def _add_networks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors), for --lpips-weight and scores")
    add(
        "--lite0",
        type=Path,
        help="EfficientNet-Lite0 weights (safetensors), for --features and --critic features, and for --logits without "
        "--convnext",
    )
    add(
        "--convnext",
        type=Path,
        help="ConvNeXt-S weights (by torchvision, timm or its authors; .pth, .safetensors), for --logits, as published",
    )
    add(
        "--loss-bf16",
        action=argparse.BooleanOptionalAction,
        help="compute networks in the loss and the critic in bfloat16 too, in a bfloat16 run (default: with our "
        "hyper-parameters; float32 as published)",
    )
    add(
        "--critic",
        choices=("patches", "features"),
        help="what judges pictures if --adversary is not 0: a discriminator of patches, as published, or heads on "
        "Lite0's features (default: features if --lite0 is given and the hyper-parameters are ours)",
    )
