"""The folder of a run, or a command's file: what an earlier one has left there stays unless it is asked to go."""

from __future__ import annotations

import shutil
from pathlib import Path

from titokcodec.cli.streams import exists, in_the_way
from titokcodec.errors import TitokError

from .checkpoint import OLDER, STATE
from .log import BOARD, LOG

SHEET = "val.png"  # reconstructions at the last score


def check(out: Path, resume: bool, force: bool, results: tuple[str, ...] = ()) -> None:
    """Raise ``TitokError`` if a run would overwrite what another has left in ``out``.

    Args:
        resume: It is meant to go on with that one.
        force: It is meant to take its place.
        results: Names of files that such a run leaves besides checkpoints and logs.
    """
    if resume and not (out / STATE).exists() and (out / OLDER).exists():
        raise TitokError(f"{out / STATE} is gone, and {OLDER} is the checkpoint before: give it that name to go on")
    for name in (STATE, OLDER, LOG, *results):
        if not (resume or force) and (out / name).exists():
            raise TitokError(f"{out / name} is of an earlier run: --resume goes on with that, --force starts anew")


def check_file(out: Path, force: bool) -> None:
    """Raise ``TitokError`` if a command's file cannot be written, or would replace one although ``force`` is off."""
    if not out.parent.is_dir():
        raise TitokError(f"there is no folder {out.parent} for {out.name}: make it first")
    if in_the_way(out) and not force:
        raise TitokError(exists(out))


def clear(out: Path, results: tuple[str, ...] = ()) -> None:
    """Delete what a run has left, so that nothing of it mixes with a new one's."""
    for name in (STATE, OLDER, LOG, SHEET, *results):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / BOARD, ignore_errors=True)
