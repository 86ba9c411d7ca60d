"""How runs learned, by the minute: their logs condensed.

    python -m training.curve runs/single runs/stage2 [--points 8] [--json FILE]

Each line stands for an equal share of a run's minutes and has what the losses of its updates were on average: squared
error as PSNR, over whatever lengths of prefixes were drawn, and LPIPS of what was compared. Both are of training
pictures, as they were shown; scores of held-out pictures stand beside them where the run took any.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import fmean

from titokcodec.errors import TitokError

LOG = "log.jsonl"


def read(folder: Path) -> list[dict]:
    """The lines of a run's log, each with its ``minutes``.

    Raises:
        TitokError: there is no log, or it is damaged.
    """
    path = folder / LOG
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        reason = f"{path} cannot be read as a log ({error})"
        raise TitokError(f"{reason}: give folders that a training command wrote") from None
    minutes = 0.0
    for line in lines:  # those of scores follow those of updates
        minutes = line.setdefault("minutes", minutes)
    return lines


def curve(lines: list[dict], points: int) -> list[dict[str, float]]:
    """One row for each of ``points`` equal shares of a run's minutes: its end, ``psnr``, ``lpips``, ``val/...``."""
    longest = max((line["minutes"] for line in lines), default=0.0)
    rows = []
    for number in range(points):
        start, end = (longest * share / points for share in (number, number + 1))
        inside = [line for line in lines if start < line["minutes"] <= end or end == longest == line["minutes"]]
        row = {"minutes": end}
        for name in ("mse", "lpips"):
            if values := [line[name] for line in inside if name in line]:
                row[name] = fmean(values)
        if "mse" in row:
            row["psnr"] = -10 * math.log10(row.pop("mse"))
        for line in inside:
            row |= {name: value for name, value in line.items() if name.startswith(("val/psnr/", "val/lpips/"))}
        rows.append(row)
    return rows


def table(curves: dict[str, list[dict[str, float]]]) -> str:
    """Markdown, one line a row."""
    head = ["run", "minutes", "PSNR, training", "LPIPS, training", "PSNR, held out", "LPIPS, held out"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, rows in curves.items():
        for row in rows:
            cells = [name, f"{row['minutes']:.1f}", _cell(row, "psnr", 2), _cell(row, "lpips", 3)]
            lines.append("| " + " | ".join([*cells, _cell(row, "val/psnr/", 2), _cell(row, "val/lpips/", 3)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, float], name: str, places: int) -> str:
    """The figure of this name, or those of all lengths whose names begin so."""
    keys = [key for key in row if key == name or ("/" in name and key.startswith(name))]
    return " / ".join(f"{row[key]:.{places}f}" for key in keys) or "-"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="FOLDER", help="what training commands wrote")
    parser.add_argument("--points", type=int, default=8, help="lines a run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    options = parser.parse_args(arguments)
    if options.points < 1:
        parser.error(f"--points is {options.points}: give 1 or more")
    try:
        curves = {folder.absolute().name: curve(read(folder), options.points) for folder in options.runs}
    except TitokError as error:
        raise SystemExit(str(error)) from None
    if options.json:
        short = {name: [{k: round(v, 5) for k, v in row.items()} for row in rows] for name, rows in curves.items()}
        options.json.write_text(json.dumps(short, indent=1) + "\n")
    print(table(curves), end="")


if __name__ == "__main__":
    main()
