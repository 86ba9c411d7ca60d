"""From a folder of pictures to a finished, scored weight file, in one command and within a given time.

    python -m training.recipe --data train/ --val val.tar --lpips lpips_squeeze.safetensors --minutes 28 --out runs/b

Runs a chain of stages, exports (``training.export``) and scores (``training.evaluate``); run it again after a kill and
it goes on. A tenth of the time is kept for what follows the training. OUT then holds ``model.safetensors`` with its
entropy tables, ``scores.json``, ``sheet.png``, and a folder for each stage with its log and checkpoint.

Chains: ``single`` learns pixels from the start; ``sharpened`` does so by squared error alone, and gives its last
quarter to the decoder, with perceptual losses and an adversary; ``two-stage`` is the published way, by a 2D tokenizer
that is trained first (or given by ``--proxies``).
Options that this command does not know are handed to the stages that do, for instance ``--preset`` or ``--batch``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training import command, evaluate, export, single, stage, stage1, stage2, vqgan

KEPT = 0.1  # share of the minutes for export and scores
COUNTED = 4000  # pictures that the entropy tables are counted on, at most

STAGES = {"vqgan": vqgan.ProxyTokenizer, "stage1": stage1.Stage1, "stage2": stage2.Stage2, "single": single.Single}
CHAINS = {  # shares of the training time
    "single": {"single": 1.0},
    "sharpened": {"single": 0.75, "stage2": 0.25},
    "two-stage": {"vqgan": 0.25, "stage1": 0.45, "stage2": 0.3},
}
# What makes a stage of a chain differ from the stage alone, whatever else is asked for.
FIXED = {("sharpened", "single"): ["--lpips-weight", "0", "--features", "0"]}


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The recipe's own options, and those for the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="held-out pictures")
    parser.add_argument("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors)")
    parser.add_argument("--lite0", type=Path, help="EfficientNet-Lite0 weights (safetensors)")
    parser.add_argument("--minutes", type=float, required=True, help="for everything")
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--name", default="titok", help="what the model is to be called (default: %(default)s)")
    parser.add_argument("--chain", choices=CHAINS, default="single", help="stages to run (default: %(default)s)")
    parser.add_argument("--proxies", type=Path, help="2D tokenizer for the two-stage chain, instead of training one")
    return parser.parse_known_args(arguments)


def plan(
    options: argparse.Namespace, extra: list[str]
) -> list[tuple[type[stage.Stage], argparse.Namespace]]:
    """The stages of the chain, each with its options. Raises ``SystemExit`` for words that no stage knows."""
    shares = dict(CHAINS[options.chain])
    if options.proxies:
        shares.pop("vqgan", None)
    files = ["--data", *map(str, options.data), "--val", *map(str, options.val)]
    files += networks(options)
    minutes = options.minutes * (1 - KEPT) / sum(shares.values())
    proxies = options.proxies or options.out / "vqgan" / "vqgan.safetensors"
    steps, unknown, before = [], extra, None
    for name, share in shares.items():
        line = [*files, "--minutes", str(minutes * share), "--out", str(options.out / name), "--resume"]
        line += ["--proxies", str(proxies)] if name == "stage1" else []
        line += ["--init", str(before)] if name == "stage2" else []
        given, strange = command.parse_known(STAGES[name], line + extra + FIXED.get((options.chain, name), []))
        unknown = [word for word in unknown if word in strange and word.startswith("--")]
        steps.append((STAGES[name], given))
        before = options.out / name / "state.pt"
    if unknown:
        raise SystemExit(f"no stage of the chain {options.chain} knows {' '.join(unknown)}")
    return steps


def networks(options: argparse.Namespace) -> list[str]:
    """The words that name the networks for losses and scores."""
    given = [(f"--{name}", str(path)) for name in ("lpips", "lite0") if (path := getattr(options, name))]
    return [word for pair in given for word in pair]


def run(options: argparse.Namespace, extra: list[str]) -> None:
    """Train, export, score."""
    for kind, given in plan(options, extra):
        stage.run(kind(given))
        torch.compiler.reset()  # or it would count the shapes of all stages together, and leave the ninth as it is
    last = list(CHAINS[options.chain])[-1]
    weights = options.out / "model.safetensors"
    counted = ["--data", *map(str, options.data), "--limit", str(COUNTED)]
    export.main([str(options.out / last / "state.pt"), str(weights), "--name", options.name, *counted])
    scored = ["--data", *map(str, options.val), *networks(options)]
    results = ["--json", str(options.out / "scores.json"), "--sheet", str(options.out / "sheet.png")]
    evaluate.main([str(weights), *scored, *results])


def main() -> None:
    """Command line."""
    run(*parse())


if __name__ == "__main__":
    main()
