"""From a folder of pictures to a finished, scored weight file, in one command and within a given time.

    python -m training.recipe --data train/ --val val.tar --lpips lpips_squeeze.safetensors --minutes 28 --out runs/b

Trains (``training.single``), exports (``training.export``), scores (``training.evaluate``); run it again after a kill
and it goes on. A tenth of the time is kept for what follows the training. OUT then holds ``model.safetensors`` with its
entropy tables, ``scores.json``, ``sheet.png``, ``log.jsonl`` and the checkpoint. Options that this command does not
know are handed to ``training.single``, for instance ``--preset`` or ``--batch``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import evaluate, export, single

KEPT = 0.1  # share of the minutes for export and scores
COUNTED = 4000  # pictures that the entropy tables are counted on, at most


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The recipe's own options, and those for the trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    parser.add_argument("--val", type=Path, nargs="+", required=True, help="held-out pictures")
    parser.add_argument("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors)")
    parser.add_argument("--minutes", type=float, required=True, help="for everything")
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--name", default="titok", help="what the model is to be called (default: %(default)s)")
    return parser.parse_known_args(arguments)


def run(options: argparse.Namespace, extra: list[str]) -> None:
    """Train, export, score."""
    files = ["--data", *map(str, options.data), "--val", *map(str, options.val)]
    if options.lpips:
        files += ["--lpips", str(options.lpips)]
    minutes = str(options.minutes * (1 - KEPT))
    single.train(single.parse([*files, "--minutes", minutes, "--out", str(options.out), "--resume", *extra]))

    weights = options.out / "model.safetensors"
    counted = ["--data", *map(str, options.data), "--limit", str(COUNTED)]
    export.main([str(options.out / "state.pt"), str(weights), "--name", options.name, *counted])
    scored = ["--data", *map(str, options.val), *(["--lpips", str(options.lpips)] if options.lpips else [])]
    results = ["--json", str(options.out / "scores.json"), "--sheet", str(options.out / "sheet.png")]
    evaluate.main([str(weights), *scored, *results])


def main() -> None:
    """Command line."""
    run(*parse())


if __name__ == "__main__":
    main()
