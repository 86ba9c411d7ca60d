"""``titok-truncate``: .titok files with fewer tokens."""

from __future__ import annotations

from pathlib import Path

import click

from titokcodec.cli import options, picture_files
from titokcodec.cli.batch_reporter import BatchReporter
from titokcodec.cli.command import Command
from titokcodec.cli.errors import reason
from titokcodec.cli.paths import FileJob, output_path
from titokcodec.cli.streams import exists, in_the_way, read_titok, write_target
from titokcodec.errors import TitokError
from titokcodec.io.names import shown


@click.command("titok-truncate", cls=Command)
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@click.option("-t", "--tokens", type=options.TOKENS, metavar="N", required=True, help="Tokens a tile to keep.")
@options.MODEL
@options.FORCE
@options.MAX_PIXELS
@options.QUIET
def truncate(
    source: str, target: str, tokens: int, model: str | None, force: bool, max_pixels: int | None, quiet: bool
) -> None:
    """Make a .titok file smaller by dropping its last tokens, without the network.

    Works for models with nested tokens, such as the bundled one; - is standard input or output.

    \b
    Example:
      titok-truncate photo.titok smaller.titok -t 32
    """
    from titokcodec import editing, files

    job = FileJob(None if source == "-" else Path(source), output_path(target, picture_files.check_titok))
    reporter = BatchReporter("titok-truncate", [job], stream=job.target is None, quiet=quiet)
    try:
        if in_the_way(job.target) and not force:
            raise OSError(exists(job.target))
        shorter = editing.truncate(read_titok(job.source, max_pixels), tokens, model, max_pixels)
        write_target(job.target, shorter, force)
        reporter.wrote(job, files.info(shorter), 0)
    except (TitokError, OSError) as error:
        reporter.fail(job, reason(error, shown(job.source)))
    click.get_current_context().exit(reporter.exit_code)
