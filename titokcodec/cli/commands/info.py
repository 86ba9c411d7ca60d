"""``titok-info``: the headers of .titok files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from titokcodec.cli import options
from titokcodec.cli.command import Command
from titokcodec.cli.errors import reason
from titokcodec.cli.reporter import Reporter, describe
from titokcodec.cli.streams import read_titok, write_line
from titokcodec.errors import TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.files import FileInfo


@click.command("titok-info", cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.MAX_PIXELS
@click.option("--json", "as_json", is_flag=True, show_default=False, help="Print a JSON object for each file.")
def info(files: tuple[str, ...], max_pixels: int | None, as_json: bool) -> None:
    """Show what is in .titok files, from their headers; - is standard input.

    The header of a damaged file is shown too, but the exit code is then 1, as it is for a file that is no .titok file.
    Where the checksum cannot be checked because the model is unknown, it is 0: look at "intact" of --json.

    \b
    Example:
      titok-info photo.titok
    """
    reporter = Reporter("titok-info", as_json=as_json)
    for name in files:
        source = None if name == "-" else Path(name)
        try:
            about = _about(source, max_pixels)
        except (TitokError, OSError, MemoryError) as error:
            reporter.error(f"{shown(source, 'stdin')}: {reason(error, shown(source))}")
            continue
        reporter.record({"input": name, **asdict(about), "bpp": round(about.bits_per_pixel, 6)})
        if not as_json:
            write_line(f"{shown(source, 'stdin')}: {_details(about)}")
        if about.intact is False:
            reporter.error(f"{shown(source, 'stdin')}: damaged, cut short or extended: get it again")
    click.get_current_context().exit(reporter.exit_code)


def _about(source: Path | None, max_pixels: int | None) -> FileInfo:
    from titokcodec.files import info

    about = info(read_titok(source, max_pixels))
    if source is None or not source.is_file():
        return about
    behind = source.stat().st_size - about.bytes  # no more is read than the header can account for
    return replace(about, bytes=about.bytes + behind, payload=about.payload + behind)


def _details(about: FileInfo) -> str:
    return "  ".join(
        (
            describe(about),
            f"version {about.version}",
            "grey" if about.grey else "colour",
            about.entropy,
            "nested" if about.nested else "not nested",
            f"model {about.model} {about.fingerprint}" if about.fingerprint else about.model,
            {True: "checksum ok", False: "checksum WRONG", None: "checksum not checked"}[about.intact],
        )
    )
