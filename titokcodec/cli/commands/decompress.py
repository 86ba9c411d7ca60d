"""``titok-decompress``: .titok files to pictures, or whether they are intact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import options, picture_files
from titokcodec.cli.command import Command
from titokcodec.cli.errors import reason
from titokcodec.cli.paths import FileJob, FileTypes, JobList, plan_inputs, plan_jobs
from titokcodec.cli.picture_files import PNG, PictureFormat
from titokcodec.cli.runner import Result, Runner, RunOptions
from titokcodec.cli.streams import read_titok
from titokcodec.errors import CorruptFile, TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from PIL import Image

    from titokcodec.codec import Codec


@click.command("titok-decompress", cls=Command)
@click.argument("arguments", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@click.option(
    "--format",
    "picture_format",
    metavar="FORMAT",
    callback=options.format_of,
    show_default="by OUTPUT's suffix, else PNG",
    help="PNG, JPEG, WEBP ...",
)
@click.option(
    "--partial",
    is_flag=True,
    show_default=False,
    help="Decode what has arrived of a file cut short or damaged.",
)
@click.option(
    "--verify",
    is_flag=True,
    show_default=False,
    help="Check the files, without the network, and write nothing: the exit code is the answer. A file that "
    "is intact, but not as titok-compress would write it, is reported.",
)
@options.network
@options.bulk
def decompress(
    arguments: tuple[str, ...], picture_format: PictureFormat | None, partial: bool, verify: bool, **common: Any
) -> None:
    """Make pictures of .titok files.

    A single INPUT is written beside itself, as a PNG; - is standard input or output. Folders are searched for .titok
    files, and need -o FOLDER, as several inputs do.

    \b
    Examples:
      titok-decompress photo.titok                   writes photo.png
      titok-decompress photo.titok photo.jpg
      titok-decompress --format webp - - < a.titok > a.webp
      titok-decompress titoks/ -o pictures/
      titok-decompress --verify titoks/
    """
    run = RunOptions(**common)
    check = picture_files.check_not_titok if picture_format else picture_files.check_picture
    types = FileTypes(".titok files", picture_files.is_titok, (picture_format or PNG).suffix, check)
    if verify:
        if run.output is not None or partial:
            raise click.UsageError("--verify writes nothing: leave out --output and --partial.")
        code = _verify(plan_inputs(arguments, types).shard(run.shard), run)
    else:
        task = Decompress(picture_format, partial, run.max_pixels)
        code = Runner("titok-decompress", plan_jobs(arguments, run.output, types), task, run).run()
    click.get_current_context().exit(code)


@dataclass
class Decompress:
    """.titok files to pictures.

    Attributes:
        format: Of the pictures; None to go by the target's suffix.
        partial: Decode what has arrived of damaged files.
        max_pixels: Refuse larger pictures.
    """

    format: PictureFormat | None
    partial: bool
    max_pixels: int | None

    def check(self, codec: Codec) -> None:
        """Any model will do: whether it is a file's own is checked file by file."""

    def read(self, job: FileJob) -> tuple[bytes, int]:
        """The file, and the number of the picture's pixels."""
        from titokcodec.format import bitstream
        from titokcodec.weights import releases

        self._format(job)  # before the network runs for nothing
        data = read_titok(job.source, self.max_pixels)
        header, offset = bitstream.parse(data)
        if not self.partial:
            try:
                bitstream.verify(data, header, offset, releases.fingerprint_for(header))
            except CorruptFile as error:
                raise CorruptFile(f"{error}, or decode what has arrived of it with --partial") from None
        return data, header.width * header.height

    def convert(self, codec: Codec, contents: list[bytes]) -> list[tuple[Image.Image, dict[str, int]]]:
        """The pictures, and for partial files how many tokens a tile have arrived."""
        pictures = codec.decompress_batch(contents, strict=not self.partial, max_pixels=self.max_pixels)
        if not self.partial:
            return [(picture, {}) for picture in pictures]
        tokens = [codec.read(data, strict=False, max_pixels=self.max_pixels).shape[1] for data in contents]
        return [(picture, {"arrived": count}) for picture, count in zip(pictures, tokens, strict=True)]

    def finish(self, job: FileJob, content: bytes, converted: tuple[Image.Image, dict[str, int]]) -> Result:
        """The picture's own file."""
        picture, arrived = converted
        return Result(picture_files.to_bytes(picture, self._format(job)), content, arrived)

    def _format(self, job: FileJob) -> str:
        return self.format.name if self.format else picture_files.format_of(job.target)


def _verify(jobs: JobList, run: RunOptions) -> int:
    """Check files, and return the exit code."""
    from titokcodec import editing, files

    reporter = run.reporter("titok-decompress", jobs)
    for job in jobs.jobs:
        if job.problem:
            reporter.fail(job, job.problem)
            continue
        try:
            data = read_titok(job.source, run.max_pixels)
            spelling = editing.verify(data, run.model, run.max_pixels)
        except (TitokError, OSError, MemoryError) as error:
            reporter.fail(job, reason(error, shown(job.source)))
        else:
            reporter.checked(job, files.info(data), spelling)
    return reporter.exit_code
