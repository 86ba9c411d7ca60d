"""``titok-compress``: pictures to .titok files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import options, picture_files
from titokcodec.cli.command import Command
from titokcodec.cli.paths import FileJob, FileTypes, plan_jobs
from titokcodec.cli.runner import Result, Runner, RunOptions
from titokcodec.cli.streams import picture_source
from titokcodec.errors import TitokError

if TYPE_CHECKING:
    from titokcodec.codec import Codec
    from titokcodec.pictures.images import Picture
    from titokcodec.target import Target

FILES = FileTypes(
    "pictures",
    picture_files.is_picture,
    ".titok",
    picture_files.check_titok,
    picture_files.is_foreign_picture,
    picture_files.is_picture_inside,
)


@click.command("titok-compress", cls=Command)
@click.argument("arguments", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@click.option(
    "-t",
    "--tokens",
    type=options.TOKENS,
    metavar="N",
    show_default="as many as the model has",
    help="Tokens a tile: fewer give a smaller file of lower quality, 60 bytes at 32.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "fit", "tile"]),
    default="auto",
    help="fit: the whole picture on one tile, whatever its size; tile: on a grid of tiles, near its own "
    "resolution; auto: fit, or with a target whichever meets it better.",
)
@click.option("--max-side", type=click.IntRange(1), metavar="N", help="Scale larger pictures down to this side first.")
@click.option(
    "--target-bytes",
    type=click.IntRange(1),
    metavar="N",
    help="The best file of at most this size: tiles and tokens are tried and compared with the picture.",
)
@click.option("--target-psnr", type=float, metavar="DB", help="The smallest file with this PSNR.")
@click.option(
    "--target-lpips",
    type=float,
    metavar="X",
    help="The smallest file with at most this LPIPS; needs --lpips.",
)
@click.option("--lpips", type=click.Path(), metavar="FILE", help="Weights of LPIPS with SqueezeNet, safetensors.")
@click.option(
    "--effort",
    type=click.IntRange(0, 1000),  # search.MOST_STEPS, whose module imports torch
    metavar="N",
    show_default="8; 1 with -o FOLDER; 0 for pictures on several tiles",
    help="Steps of a search for better tokens. On two CPU cores a tile takes 0.005 s with 0; "
    "0.04 s with 1, for 0.06 dB at 128 tokens; 0.5 s with 8, for 0.1 dB and more contrast.",
)
@click.option(
    "--background",
    default="white",
    metavar="COLOUR",
    callback=options.colour_of,
    help="Background of transparent pixels.",
)
@click.option(
    "--frame",
    type=click.IntRange(0),
    metavar="N",
    show_default="the first, with a warning if there are more",
    help="Which frame or page of a file, counted from 0.",
)
@click.option(
    "--white",
    type=click.FloatRange(0, min_open=True),
    metavar="VALUE",
    help="Which value is white where a channel has more than 8 bits, such as 4095 for 12 bits.",
    show_default="65535 for 16 bits; a guess, with a warning, for floats",
)
@options.network
@options.bulk
def compress(
    arguments: tuple[str, ...],
    tokens: int | None,
    layout: str,
    max_side: int | None,
    target_bytes: int | None,
    target_psnr: float | None,
    target_lpips: float | None,
    lpips: str | None,
    effort: int | None,
    background: str,
    frame: int | None,
    white: float | None,
    **common: Any,
) -> None:
    """Make .titok files of pictures: of any size, at most 210 bytes each, unless tiles or a target are asked for.

    Takes JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PPM, ICO, QOI and TGA, recognised by their content. A
    single INPUT is written beside itself, with the suffix .titok; - is standard input or output. Folders are searched
    for pictures, and need -o FOLDER, as several inputs do. Links in them are followed; what is hidden, pipes, devices
    and pictures in other formats are left out, with a message.

    \b
    Examples:
      titok-compress photo.jpg                       writes photo.titok
      titok-compress photo.jpg small.titok -t 32
      titok-compress - - < a.png > a.titok
      titok-compress photo.jpg --target-bytes 1000
      titok-compress photos/ -o titoks/ --skip-existing
    """
    from titokcodec.target import Target

    try:
        target = Target(target_bytes, target_psnr, target_lpips, lpips)
        target.check_tokens(tokens)
    except TitokError as error:
        raise options.usage(error) from None
    run = RunOptions(**common)
    reading = {"background": background, "frame": frame, "white": white, "max_pixels": run.max_pixels}
    task = Compress(target, tokens, layout, max_side, effort, reading)
    jobs = plan_jobs(arguments, run.output, FILES)
    click.get_current_context().exit(Runner("titok-compress", jobs, task, run).run())


@dataclass
class Compress:
    """Pictures to .titok files; the options are those of ``Codec.compress_batch``.

    Attributes:
        target: What the files are to reach, if anything.
        reading: The options that say how a picture is read.
        many: The files go into a folder, and are searched less.
    """

    target: Target
    tokens: int | None
    layout: str
    max_side: int | None
    effort: int | None
    reading: dict[str, Any]
    many: bool = False

    def check(self, codec: Codec) -> None:
        """Raise ``click.UsageError`` if the model lacks the tokens, ``TitokError`` if LPIPS has no such weights."""
        if self.tokens is not None:
            try:
                codec.weights.config.check_count(self.tokens)
            except TitokError as error:
                raise click.UsageError(f"-t {self.tokens}: {error}.") from None
        if self.target.lpips is not None:
            _ = self.target.network  # read once, rather than failing for every picture

    def read(self, job: FileJob) -> tuple[Picture, int]:
        """The picture, and its number of pixels."""
        from titokcodec.pictures import images

        self.many = job.makes_folder  # of all jobs of a command, or of none
        with picture_source(job.source) as source:
            picture = images.load(source, **self.reading)
        return picture, picture.pixels.size // 3

    def convert(self, codec: Codec, contents: list[Picture]) -> list[Result]:
        """The files."""
        target = self.target
        made = codec.compress_batch(
            contents,
            tokens=self.tokens,
            layout=self.layout,
            max_side=self.max_side,
            target_bytes=target.bytes,
            target_psnr=target.psnr,
            target_lpips=target.lpips,
            lpips=target.weights,
            effort=self._effort(codec),
            **self.reading,
        )
        return [
            Result(data, data, self._reached(codec, data, picture))
            for data, picture in zip(made, contents, strict=True)
        ]

    def finish(self, job: FileJob, content: Picture, converted: Result) -> Result:
        """Nothing is left to do."""
        return converted

    def _effort(self, codec: Codec) -> int | None:
        if self.effort is not None or self.target or not self.many:
            return self.effort
        from titokcodec.search import bulk_steps

        return bulk_steps(codec.weights.config, self.layout)

    def _reached(self, codec: Codec, data: bytes, picture: Picture) -> dict[str, float]:
        if not self.target:
            return {}
        from titokcodec.target_search import reached

        return reached(codec, self.target, picture, data)
