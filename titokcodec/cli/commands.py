"""The commands themselves: their options and help, and who does the work."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import options, pictures
from titokcodec.cli.jobs import Job, Kind, inputs, plan_jobs, result_of, shard
from titokcodec.cli.report import Report, describe
from titokcodec.cli.tool import Tool, complain, exists, in_the_way, reason, write_line, write_target
from titokcodec.errors import TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.cli.bulk import Task
    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo


@click.command("titok-compress", cls=Tool)
@click.argument("arguments", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@click.option(
    "-t",
    "--tokens",
    type=options.TOKENS,
    metavar="N",
    show_default="as many as the model has",
    help="Tokens a tile: fewer are a smaller file of lower quality, 60 bytes at 32.",
)
@click.option(
    "--layout",
    type=click.Choice(["auto", "fit", "tile"]),
    default="auto",
    help="fit: the whole picture on one tile, whatever its size; tile: on a grid of tiles, near its own "
    "resolution; auto: fit, or with a target whichever serves it better.",
)
@click.option("--max-side", type=click.IntRange(1), metavar="N", help="Scale larger pictures down to this side first.")
@click.option(
    "--target-bytes",
    type=click.IntRange(1),
    metavar="N",
    help="The best file of at most so many bytes: tiles and tokens are tried and compared with the picture.",
)
@click.option("--target-psnr", type=float, metavar="DB", help="The smallest file with this PSNR.")
@click.option(
    "--target-lpips",
    type=float,
    metavar="X",
    help="The smallest file with at most this LPIPS, which --lpips has the weights of.",
)
@click.option("--lpips", type=click.Path(), metavar="FILE", help="Weights of LPIPS with SqueezeNet, safetensors.")
@click.option(
    "--effort",
    type=click.IntRange(0),
    metavar="N",
    show_default="8; 1 with -o FOLDER; 0 for pictures on several tiles",
    help="Steps of a search for better tokens. On two CPU cores a tile takes .005 s without; 1 makes that "
    ".04 s, for .06 dB at 128 tokens; 8 makes it .5 s, for .1 dB and more contrast.",
)
@click.option(
    "--background",
    default="white",
    metavar="COLOUR",
    callback=options.colour_of,
    help="What transparent pixels are laid on.",
)
@click.option(
    "--frame",
    type=click.IntRange(0),
    metavar="N",
    show_default="the first, and says if there are more",
    help="Which frame or page of a file, counted from 0.",
)
@click.option(
    "--white",
    type=click.FloatRange(0, min_open=True),
    metavar="VALUE",
    help="Which value is white where a channel has more than 8 bits, such as 4095 for 12 bits.",
    show_default="65535 for 16 bits; a guess, and said, for floats",
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
    max_pixels: int | None,
    **common: Any,
) -> None:
    """Make .titok files of pictures: of any size, at most 210 bytes each, unless tiles or a target are asked for.

    Takes JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PPM, ICO, QOI and TGA, and tells them by their content. A
    single INPUT is written beside itself, with the suffix .titok; - is standard input or output. Folders are searched
    for pictures, and need -o FOLDER, as several inputs do. Links in them are followed; what is hidden, pipes, devices
    and pictures in other formats are left out, and told.

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
        Target(target_bytes, target_psnr, target_lpips, lpips).check_tokens(tokens)
    except TitokError as error:
        raise click.UsageError(f"{error}.") from None
    from titokcodec.cli.bulk import Compress

    task = Compress(
        {
            "tokens": tokens,
            "layout": layout,
            "max_side": max_side,
            "target_bytes": target_bytes,
            "target_psnr": target_psnr,
            "target_lpips": target_lpips,
            "lpips": lpips,
            "effort": effort,
            "background": background,
            "frame": frame,
            "white": white,
            "max_pixels": max_pixels,
        }
    )
    kind = Kind("pictures", pictures.is_picture, ".titok", pictures.check_titok, pictures.is_foreign_picture)
    _run("titok-compress", arguments, kind, task, tokens=tokens, lpips=lpips, **common)


@click.command("titok-decompress", cls=Tool)
@click.argument("arguments", nargs=-1, required=True, metavar="INPUT... [OUTPUT]")
@click.option(
    "--format",
    "format_name",
    metavar="FORMAT",
    callback=options.format_of,
    show_default="as OUTPUT's suffix says, else PNG",
    help="PNG, JPEG, WEBP ...",
)
@click.option(
    "--partial", is_flag=True, show_default=False, help="Draw what there is of a file that is cut short or damaged."
)
@click.option(
    "--verify",
    is_flag=True,
    show_default=False,
    help="Check the files, without the network, and write nothing: the exit code is the answer. A file that "
    "is good, and yet not what titok-compress writes, gets a remark.",
)
@options.network
@options.bulk
def decompress(
    arguments: tuple[str, ...],
    format_name: str | None,
    partial: bool,
    verify: bool,
    max_pixels: int | None,
    **common: Any,
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
    suffix = pictures.suffix_of(format_name or "PNG")
    check = pictures.check_not_titok if format_name else pictures.check_picture
    kind = Kind(".titok files", pictures.is_titok, suffix, check)
    if verify:
        _verify(arguments, kind, max_pixels, partial, **common)
        return
    from titokcodec.cli.bulk import Decompress

    _run("titok-decompress", arguments, kind, Decompress(format_name, not partial, max_pixels), **common)


def _run(
    tool: str,
    arguments: tuple[str, ...],
    kind: Kind,
    task: Task,
    *,
    output: str | None,
    force: bool,
    skip_existing: bool,
    shard: tuple[int, int] | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    tokens: int | None = None,
    lpips: str | None = None,
    **network: Any,
) -> None:
    """Do all that a command was asked for, and exit with the right code if something failed."""
    from titokcodec.cli.bulk import run

    _check_flags(force, skip_existing, quiet, verbose)
    plan = plan_jobs(arguments, output, kind)
    stream = any(job.target is None and not job.problem for job in plan.jobs)
    jobs = _sharded(plan.jobs, shard)
    report = Report(tool, jobs, stream=stream, quiet=quiet, verbose=verbose, as_json=as_json)
    report.leave_out(plan.left_out)

    def load() -> Any:
        from titokcodec.codec import Codec

        codec = Codec.from_pretrained(network.pop("model"), **network)
        if tokens is not None:
            _check_tokens(codec, tokens)
        if lpips is not None:
            from titokcodec.target import read_lpips

            read_lpips(lpips)  # what is wrong with it is told once, rather than as the fault of every picture
        own = codec.weights
        report.say(f"model {own.name} ({own.fingerprint.hex()}) on {codec.device} in {str(codec.dtype)[6:]}")
        return codec

    run(jobs, task, load, report, force=force, skip_existing=skip_existing)
    click.get_current_context().exit(report.exit_code)


def _check_tokens(codec: Codec, tokens: int) -> None:
    try:
        codec.weights.config.check_count(tokens)
    except TitokError as error:
        raise click.UsageError(f"-t {tokens}: {error}.") from None


def _verify(
    arguments: tuple[str, ...],
    kind: Kind,
    max_pixels: int | None,
    partial: bool,
    *,
    model: str | None,
    output: str | None,
    force: bool,
    skip_existing: bool,
    shard: tuple[int, int] | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **unused: Any,
) -> None:
    from titokcodec import editing, files
    from titokcodec.cli.bulk import read_titok

    _check_flags(force, skip_existing, quiet, verbose)
    if output is not None or partial:
        raise click.UsageError("--verify writes nothing: leave out --output and --partial.")
    plan = inputs(arguments, kind)
    jobs = _sharded(plan.jobs, shard)
    report = Report("titok-decompress", jobs, stream=False, quiet=quiet, verbose=verbose, as_json=as_json)
    report.leave_out(plan.left_out)
    for job in jobs:
        if job.problem:
            report.fail(job, job.problem)
            continue
        try:
            data = read_titok(job, max_pixels)
            spelling = editing.verify(data, model, max_pixels)
        except (TitokError, OSError, MemoryError) as error:
            report.fail(job, reason(error, shown(job.source)))
        else:
            report.checked(job, files.info(data), spelling)
    click.get_current_context().exit(report.exit_code)


def _check_flags(force: bool, skip_existing: bool, quiet: bool, verbose: bool) -> None:
    if force and skip_existing:
        raise click.UsageError("Give --force or --skip-existing, not both.")
    if quiet and verbose:
        raise click.UsageError("Give --quiet or --verbose, not both.")


def _sharded(jobs: list[Job], part: tuple[int, int] | None) -> list[Job]:
    return shard(jobs, part) if part else jobs


@click.command("titok-info", cls=Tool)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.MAX_PIXELS
@click.option("--json", "as_json", is_flag=True, show_default=False, help="A JSON object a file.")
def info(files: tuple[str, ...], max_pixels: int | None, as_json: bool) -> None:
    """Say what is in .titok files, from their headers; - is standard input.

    What a damaged file's header says is shown too, but the exit code is then 1, as it is for what is no .titok file.
    Where the checksum cannot be checked because the model is unknown, it is 0: look at "intact" of --json.

    \b
    Example:
      titok-info photo.titok
    """
    failed = 0
    for name in files:
        source = None if name == "-" else Path(name)
        try:
            about = _about(source, max_pixels)
        except (TitokError, OSError, MemoryError) as error:
            failed = 1
            complain("titok-info", f"{shown(source, 'stdin')}: {reason(error, shown(source))}")
            continue
        if as_json:
            write_line(json.dumps({"input": name, **asdict(about), "bpp": round(about.bits_per_pixel, 6)}))
        else:
            write_line(f"{shown(source, 'stdin')}: {_details(about)}")
        if about.intact is False:
            failed = 1
            complain("titok-info", f"{shown(source, 'stdin')}: damaged, cut short or extended: get it again")
    click.get_current_context().exit(failed)


def _about(source: Path | None, max_pixels: int | None) -> FileInfo:
    from titokcodec.cli.bulk import read_titok
    from titokcodec.files import info

    about = info(read_titok(Job(source, None), max_pixels))
    if source is None or not source.is_file():
        return about
    behind = source.stat().st_size - about.bytes  # no more is read than the header can account for
    return replace(about, bytes=about.bytes + behind, payload=about.payload + behind)


def _details(about: FileInfo) -> str:
    model = f"{about.model} {about.fingerprint}" if about.fingerprint else about.model
    state = {True: "checksum ok", False: "checksum WRONG", None: "checksum not checked"}[about.intact]
    return "  ".join(
        (
            describe(about),
            f"version {about.version}",
            "grey" if about.grey else "colour",
            about.entropy,
            "nested" if about.nested else "not nested",
            f"model {model}",
            state,
        )
    )


@click.command("titok-truncate", cls=Tool)
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
    from titokcodec.cli.bulk import read_titok

    job = Job(None if source == "-" else Path(source), result_of(target, pictures.check_titok))
    report = Report("titok-truncate", [job], stream=job.target is None, quiet=quiet, verbose=False, as_json=False)
    try:
        if in_the_way(job.target) and not force:
            raise OSError(exists(job.target))
        shorter = editing.truncate(read_titok(job, max_pixels), tokens, model, max_pixels)
        write_target(job.target, shorter, force)
        report.wrote(job, files.info(shorter), 0)
    except (TitokError, OSError) as error:
        report.fail(job, reason(error, shown(job.source)))
    click.get_current_context().exit(report.exit_code)
