"""Types and groups of command-line arguments that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from datetime import datetime, timedelta


def moment(text: str) -> float:
    """Seconds since the epoch as such, or as a time of day, HH:MM or HH:MM:SS: the next such moment here.

    Raises:
        ValueError: it is neither.
    """
    if ":" not in text:
        if not math.isfinite(seconds := float(text)):
            raise ValueError(f"{text} is no moment")
        return seconds
    now = datetime.now()
    found = datetime.strptime(text, "%H:%M:%S" if text.count(":") > 1 else "%H:%M")
    found = datetime.combine(now.date(), found.time())
    return (found if found > now else found + timedelta(days=1)).timestamp()


def deadline(text: str) -> float:
    """``moment``, for a command line."""
    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is no time: give a time of day, HH:MM or HH:MM:SS, or seconds since the epoch"
        ) from None


def whole(least: int) -> Callable[[str], int]:
    """Reads whole numbers from ``least`` on, for a command line."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} on")
        return int(text)

    return read


def add_resume(parser: argparse.ArgumentParser, resume: str) -> None:
    """The two ways to start a run where one was before; ``resume`` explains the first."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--resume", action="store_true", help=resume)
    either.add_argument(
        "--force", action="store_true", help="start a new run where one was before, whose files are deleted"
    )
