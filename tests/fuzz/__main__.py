"""Fuzz the library, and say what was found.

    python -m tests.fuzz --minutes 5             # every target, for so long each
    python -m tests.fuzz --minutes 5 entropy     # one
    python -m tests.fuzz entropy finding.bin     # one input again: its traceback is the answer

With atheris (``pip install atheris``) the inputs are its own; without it, a slower engine in plain Python makes them.
Every input has a budget of time and memory. Inputs that break the library's word are left in a folder, and the exit
code is then 1.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.run import Outcome, engine, run

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "fuzz.json"


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS), help="all of them, if none is named")
    parser.add_argument("inputs", nargs="*", type=Path, help="files to try once, instead of fuzzing")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long for each target (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default 0)")
    parser.add_argument("--engine", choices=["own", "atheris"], help="atheris where it is installed, else own")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for what breaks")
    parser.add_argument(
        "--grow", action="store_true", help="add inputs that reach new lines to the corpus (own engine)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures for SECURITY.md (python -m bench.tables)")
    options = parser.parse_args(arguments)
    if options.inputs:
        for path in options.inputs:
            TARGETS[options.target](path.read_bytes())
        return 0
    how, failed, kept = options.engine or engine(), 0, {}
    for name in [options.target] if options.target else TARGETS:
        function = TARGETS[name]
        full = f"{function.__module__}:{function.__name__}"
        outcome = run(full, corpus.read(name), 60 * options.minutes, how, options.seed)
        failed += len(outcome.findings)
        told(name, outcome, options.findings)
        if options.grow:
            corpus.add(name, outcome.new)
        kept[name] = {
            "engine": how,
            "minutes": options.minutes,
            "inputs": outcome.tried,
            "slowest": round(outcome.slowest, 4),
            "findings": len(outcome.findings),
        }
    if options.keep:
        keep(kept)
    return 1 if failed else 0


def told(name: str, outcome: Outcome, folder: Path) -> None:
    """Say what came of a target; findings go to ``folder``."""
    print(
        f"{name}: {outcome.tried} inputs, the slowest in {outcome.slowest:.3f} s, {len(outcome.findings)} findings, "
        f"{len(outcome.new)} for the corpus",
        flush=True,
    )
    for number, (data, why) in enumerate(outcome.findings):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{number}.bin"
        path.write_bytes(data)
        print(f"{path}: {why}", flush=True)


def keep(targets: dict[str, dict]) -> None:
    """Put the figures among the committed results, beside those of targets that did not run."""
    import titokcodec

    before = json.loads(RESULTS.read_text())["targets"] if RESULTS.exists() else {}
    found = {"version": titokcodec.__version__, "python": platform.python_version(), "targets": {**before, **targets}}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
