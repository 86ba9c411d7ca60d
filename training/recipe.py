"""From a folder of pictures to a finished, scored weight file, in one command and within a given time.

    python -m training.recipe --data train/ --val val.tar --lpips lpips_squeeze.safetensors --minutes 28 --out runs/b
    python -m training.recipe --data train/ --val val.tar --deadline 17:30 --out runs/b

Runs a chain of stages, exports (``training.export``) and scores (``training.evaluate``); run it again with ``--resume``
after a stop or a kill, and it goes on. A tenth of the time is kept for what follows the training. OUT then holds
``model.safetensors`` with its entropy tables, ``scores.json``, ``sheet.png``, and a folder for each stage with its log
and checkpoint.

``--minutes`` count training alone; a ``--deadline`` is for everything, so that reading pictures and compiling shorten
the training. Scores that take longer than the tenth, of many pictures on a CPU for example, end later, with a message.
A resumed run keeps the deadline that it began with: given the same time of day, it does not wait for tomorrow's, but
exports and scores at once what it has if that time is over.

Chains: ``single`` learns pixels from the start; ``sharpened`` does so by squared error alone, and gives its last
quarter to the decoder, with perceptual losses and an adversary; ``finished`` gives its last half to the decoder, first
with perceptual losses, then with an adversary as well, and exports the mean of both; ``two-stage`` is the published
way, by a 2D tokenizer that is trained first (or given by ``--proxies``).
Options of the stages, for instance ``--preset`` or ``--batch``, are handed on to them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from titokcodec import Codec
from titokcodec.cli.errors import reason
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.errors import TitokError
from titokcodec.io.atomic import write_atomic
from titokcodec.models.config import PRESETS

from . import argtypes, evaluate, export, folder, loop, progress, single, stage1, stage2, vqgan
from .checkpoint import STATE
from .data import Pictures
from .hyper import choose
from .initial import StartOptions, is_published
from .options import Options, PixelOptions, parse_known
from .pixel_stage import missing_networks
from .sheet import SHOWN, contact_sheet, save_picture
from .stage import Stage

KEPT = 0.1  # share of the time for export and scores
RESULTS = ("model.safetensors", "scores.json", "sheet.png")  # in OUT, beside the folders of the stages
TIMES = "recipe.json"
COUNTED = 4000  # pictures that the entropy tables are counted on, at most

# The stages of chains by their names, which are those of their folders.
STAGES: dict[str, type[Stage]] = {
    "vqgan": vqgan.ProxyTokenizer,
    "stage1": stage1.Stage1,
    "stage2": stage2.Stage2,
    "critic": stage2.Stage2,
    "single": single.Single,
}
CHAINS = {  # shares of the training time
    "single": {"single": 1.0},
    "sharpened": {"single": 0.75, "stage2": 0.25},
    "finished": {"single": 0.5, "stage2": 0.22, "critic": 0.28},
    "two-stage": {"vqgan": 0.25, "stage1": 0.45, "stage2": 0.3},
}
AVERAGED = {"finished": ["stage2"]}  # stages whose decoder the exported one is averaged with
# What makes a stage of a chain differ from the stage alone, whatever else is asked for.
SQUARED = ["--lpips-weight", "0", "--features", "0"]
FIXED = {
    ("sharpened", "single"): SQUARED,
    ("finished", "single"): SQUARED,
    ("finished", "stage2"): ["--adversary", "0"],
}

Steps: TypeAlias = list[tuple[type[Stage], Options]]


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The recipe's own options, and those for the stages."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="held-out pictures")
    parser.add_argument("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors)")
    parser.add_argument("--lite0", type=Path, help="EfficientNet-Lite0 weights (safetensors)")
    parser.add_argument(
        "--minutes",
        type=float,
        help="nine tenths are for training, reading and compiling not "
        "counted, and a tenth is kept for export and scores",
    )
    parser.add_argument(
        "--deadline",
        type=deadline,
        metavar="TIME",
        help="when everything is to be done: a time of "
        "day, HH:MM:SS, or seconds since the epoch; with --minutes, whichever ends first",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--name", default="titok", help="name of the model (default: %(default)s)")
    parser.add_argument("--chain", choices=CHAINS, default="single", help="stages to run (default: %(default)s)")
    parser.add_argument("--proxies", type=Path, help="2D tokenizer for the two-stage chain, instead of training one")
    argtypes.add_resume(parser, "go on with what is in OUT")
    options, extra = parser.parse_known_args(arguments)
    if options.minutes is None and options.deadline is None:
        parser.error("give --minutes or --deadline, or both")
    return options, extra


def deadline(text: str) -> str:
    """The text, seconds included, if it is a time. Which one is for ``Timetable`` to decide: a resumed run has it
    already."""
    argtypes.deadline(text)
    return f"{text}:00" if text.count(":") == 1 else text


def plan(options: argparse.Namespace, extra: list[str]) -> Steps:
    """The stages of the chain, each with its options.

    Raises:
        UsageError: no stage knows some of the words, or they do not go together.
    """
    shares = dict(CHAINS[options.chain])
    if options.proxies:
        shares.pop("vqgan", None)
    files = ["--data", *map(str, options.data), "--val", *map(str, options.val)]
    files += networks(options)
    proxies = options.proxies or options.out / "vqgan" / "vqgan.safetensors"
    steps, unknown, before = [], extra, None
    for name, share in shares.items():
        line = [*files, "--out", str(options.out / name), "--resume"]
        if options.minutes is not None:
            line += ["--minutes", str(options.minutes * (1 - KEPT) * share / sum(shares.values()))]
        line += ["--proxies", str(proxies)] if name == "stage1" else []
        line += ["--init", str(before)] if STAGES[name] is stage2.Stage2 else []
        given, strange = parse_known(STAGES[name], line + extra + FIXED.get((options.chain, name), []))
        unknown = [word for word in unknown if word in strange and word.startswith("--")]
        if isinstance(given, PixelOptions):
            given = replace(given, idle_critic=True)  # other stages of the chain may have an adversary
            given.check_critic()
        steps.append((STAGES[name], given))
        before = given.state
    if unknown:
        raise UsageError(f"no stage of the chain {options.chain} knows {' '.join(unknown)}")
    check_sizes({given.out.name: given for _, given in steps})
    check_losses(steps)
    return steps


def check_sizes(stages: dict[str, Any]) -> None:
    """Raise ``UsageError`` if a 2D tokenizer would be trained that is of no use to the stage after it."""
    first, then = stages.get("vqgan"), stages.get("stage1")
    if first and then and PRESETS[then.preset].head == "proxy" and first.preset != "published":
        raise UsageError(
            f"{then.preset} decodes by a 2D tokenizer of the published size: add --proxy-preset published, or give a "
            "trained one by --proxies"
        )


def check_losses(steps: Steps) -> None:
    """Raise ``UsageError`` if a stage would end for want of a network in its loss, after others have had their time,
    or if no stage has the adversary that a critic is given for."""
    preset = next(given.preset for _, given in steps if isinstance(given, StartOptions))
    weights = []
    for kind, given in steps:
        if isinstance(given, PixelOptions):
            chosen = given.column(is_published(getattr(given, "preset", preset)))
            hyper = choose(kind.defaults, chosen, given.hyper)
            missing_networks(hyper.pixel_loss, given, chosen)
            weights += [hyper.adversary.weight] if given.critic else []
    if weights and not any(weights):
        raise UsageError("--critic does nothing while --adversary is 0: give that too, or neither")


def networks(options: argparse.Namespace) -> list[str]:
    """The options that give the networks for losses and scores."""
    given = [(f"--{name}", str(path)) for name in ("lpips", "lite0") if (path := getattr(options, name))]
    return [word for pair in given for word in pair]


class Timetable:
    """When training ends in a run with a deadline, and each of its stages.

    What is settled is kept in OUT/recipe.json and holds for a run that is resumed with the same deadline: by then a
    time of day may have passed, and would be tomorrow's if it was read again.
    """

    def __init__(self, text: str, out: Path) -> None:
        self.file = out / TIMES
        try:
            self.settled = json.loads(self.file.read_text()) if self.file.exists() else {}
        except ValueError:
            raise TitokError(f"{self.file} is damaged: delete it, and the deadline counts from now") from None
        if self.settled.get("deadline") != text:
            now, end = time.time(), argtypes.moment(text)
            self.settled = {"deadline": text, "end": end, "training": end - KEPT * (end - now), "stages": {}}

    def left(self) -> float:
        """Seconds that are left for training."""
        return self.settled["training"] - time.time()

    def end(self, name: str, share: float, begun: bool) -> float:
        """When a stage ends: as was settled if it has ``begun`` before, else after a share of the time that is left."""
        if not begun or name not in self.settled["stages"]:
            self.settled["stages"][name] = time.time() + share * self.left()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.file, json.dumps(self.settled, indent=2).encode())
        return self.settled["stages"][name]


def timed(steps: Steps, options: argparse.Namespace) -> Iterator[tuple[type[Stage], Options]]:
    """The stages that are not through yet, as long as there is time for training, each with a deadline of its own.

    It is settled only when a stage's turn comes, so that what was lost by then is taken off all that follow.
    """
    table = Timetable(options.deadline, options.out)
    begun = [number for number, (_, given) in enumerate(steps) if given.state.exists()]
    current = begun[-1] if begun else 0
    for number, (kind, given) in enumerate(steps[current:], current):
        if table.left() <= 0:
            print(f"no time is left for {given.out.name}", flush=True)
            return
        shares = [CHAINS[options.chain][later.out.name] for _, later in steps[number:]]
        end = table.end(given.out.name, shares[0] / sum(shares), number in begun)
        yield kind, replace(given, deadline=end)


def make_room(steps: Steps, options: argparse.Namespace) -> None:
    """See to it that nothing is overwritten unless it was asked for. Raises ``TitokError``."""
    folder.check(options.out, options.resume, options.force, RESULTS)
    for kind, given in steps:
        folder.check(given.out, options.resume, options.force, kind.results)
    if options.force:
        folder.clear(options.out, (*RESULTS, TIMES))
        for kind, given in steps:
            folder.clear(given.out, kind.results)


def run(options: argparse.Namespace, extra: list[str]) -> None:
    """Train, export, score."""
    steps = plan(options, extra)
    make_room(steps, options)
    try:
        for kind, given in timed(steps, options) if options.deadline else steps:
            loop.train(kind, given)
    except loop.TooLate:
        if not options.deadline:
            raise
        print(f"no time is left for {given.out.name}", flush=True)
    states = [given.state for _, given in steps if given.state.exists()]
    if not states:
        raise TitokError(
            f"there is no checkpoint in {options.out} to export, and no time for training: give a later "
            f"deadline than {options.deadline}"
        )
    weights, scores, sheet = (options.out / name for name in RESULTS)
    counted = ["--data", *map(str, options.data), "--limit", str(COUNTED), "--device", steps[-1][1].device]
    others = [options.out / name / STATE for name in AVERAGED.get(options.chain, [])]
    others = [str(other) for other in others if other in states[:-1]]
    averaged = ["--average", *others] if others else []
    export.main([str(states[-1]), str(weights), "--force", "--name", options.name, *counted, *averaged])
    scored = ["--data", *map(str, options.val), *networks(options)]
    evaluate.main([str(weights), *scored, "--json", str(scores)])
    draw_sheet(weights, options.val, sheet)
    late = time.time() - Timetable(options.deadline, options.out).settled["end"] if options.deadline else 0
    if late > 1:
        print(f"done {late:.0f} s after the deadline: scores take longer, the more pictures --val has")


def draw_sheet(weights: Path, val: list[Path], file: Path) -> None:
    """Write the contact sheet of a weight file: the first held-out pictures at every number of tokens."""
    codec = Codec.from_pretrained(weights)
    pictures = Pictures(val, codec.weights.config.image_size, SHOWN, codec.device)
    pixels = pictures.centre_crops(torch.arange(len(pictures)))
    tokens = evaluate.tokens_of(codec, pictures, evaluate.effort_of(codec, None))
    save_picture(contact_sheet(codec.model, pixels, evaluate.token_counts(codec.model), tokens), file)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options, extra = parse(arguments)
    try:
        run(options, extra)
    except OSError as error:
        raise TitokError(f"{reason(error)}; --resume goes on from the last checkpoint") from None
    finally:
        progress.clear()


if __name__ == "__main__":
    start(main)
