"""How runs learned, by the minute: their logs condensed.

    python -m training.curve runs/single runs/stage2 [--points 8] [--json FILE]

Each line stands for an equal share of a run's minutes and has what the losses of its updates were on average: squared
error as PSNR, over whatever lengths of prefixes were decoded, and LPIPS of what was compared. Both are of training
pictures, as they were shown; scores of held-out pictures stand beside them where the run took any.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError

from .argtypes import whole
from .log import LOG


def read(folder: Path) -> list[dict]:
    """The lines of a run's log, each with its ``minutes``, but for those that a resumed or newer run has replaced.

    Raises:
        TitokError: there is no log, or it is damaged.
    """
    path = folder / LOG
    try:
        text = path.read_text()
    except (OSError, ValueError):
        raise TitokError(f"{path} cannot be read: give folders that a training command wrote") from None
    lines: list[dict] = []
    for number, written in enumerate(text.splitlines(), 1):
        line = _parsed(written)
        if line is None:
            raise TitokError(f"{path} is damaged in line {number}: take that line out")
        # Scores have no minutes: they follow the update that they are of.
        while lines and lines[-1]["step"] >= line["step"] + ("minutes" not in line):
            lines.pop()
        lines.append({"minutes": lines[-1]["minutes"] if lines else 0.0} | line)
    return lines


def _parsed(written: str) -> dict | None:
    """The figures of a log's line, None if it is none. Figures that are not finite are left out."""
    try:
        line = json.loads(written)
    except ValueError:
        return None
    if not isinstance(line, dict) or not all(isinstance(value, (int, float)) for value in line.values()):
        return None
    line = {name: value for name, value in line.items() if math.isfinite(value)}
    return line if "step" in line and line.get("mse", 1) > 0 else None


def curve(lines: list[dict], points: int) -> list[dict[str, float]]:
    """One row for each of ``points`` equal shares of a run's minutes: its end, ``psnr``, ``lpips``, ``val/...``."""
    longest = max((line["minutes"] for line in lines), default=0.0)
    if not longest:
        return []
    rows = []
    for number in range(points):
        start, end = (longest * share / points for share in (number, number + 1))
        end = longest if number + 1 == points else end  # whatever rounding has made of it
        inside = [line for line in lines if start < line["minutes"] <= end]
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
            cells = [name, f"{row['minutes']:.2f}", _cell(row, "psnr", 2), _cell(row, "lpips", 3)]
            lines.append("| " + " | ".join([*cells, _cell(row, "val/psnr/", 2), _cell(row, "val/lpips/", 3)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, float], name: str, decimals: int) -> str:
    """The figure of this name, or those of all lengths whose names begin so."""
    keys = [key for key in row if key == name or ("/" in name and key.startswith(name))]
    return " / ".join(f"{row[key]:.{decimals}f}" for key in keys) or "-"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="FOLDER", help="what training commands wrote")
    parser.add_argument("--points", type=whole(1), default=8, help="lines for each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    options = parser.parse_args(arguments)
    curves = {name: curve(read(folder), options.points) for name, folder in by_name(options.runs).items()}
    for name, rows in curves.items():
        if not any(len(row) > 1 for row in rows):
            raise TitokError(f"{name} compared no pictures, so that there is no curve: give runs that did")
    print(table(curves), end="")
    if options.json:
        short = {name: [{k: round(v, 5) for k, v in row.items()} for row in rows] for name, rows in curves.items()}
        try:
            options.json.write_text(json.dumps(short, indent=1) + "\n")
        except OSError as error:
            raise TitokError(f"{options.json} cannot be written: {error.strerror}") from None


def by_name(folders: list[Path]) -> dict[str, Path]:
    """The runs by the last part of their folder, or by the whole of it where several end alike."""
    ends = [folder.absolute().name for folder in folders]
    return {end if ends.count(end) == 1 else str(folder): folder for end, folder in zip(ends, folders, strict=True)}


if __name__ == "__main__":
    start(main)
