"""``titok-generate``: pictures of a class, and edits of compressed pictures."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titokcodec.cli import options
from titokcodec.cli.command import Command
from titokcodec.cli.edit_options import WAY, edit_of, editing, refuse_generator_options
from titokcodec.cli.errors import reason
from titokcodec.cli.generation import run
from titokcodec.cli.reporter import Reporter, describe
from titokcodec.cli.request import MOST, TITOK, Request, destination, in_turns
from titokcodec.cli.sampling_options import sampling
from titokcodec.cli.streams import write_line
from titokcodec.errors import ImageError, TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.cli.picture_files import PictureFormat
    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo
    from titokcodec.generator import Generator
    from titokcodec.region import Region


def _format_of(ctx: click.Context, param: click.Parameter, value: str | None) -> PictureFormat | None:
    """Ours, or a picture format that Pillow writes."""
    return TITOK if value and value.upper() == TITOK.name else options.format_of(ctx, param, value)


@click.command("titok-generate", cls=Command)
@click.option(
    "-c",
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    show_default="any",
    help="Name or number of a class. Give several, and pictures take turns.",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, MOST),
    metavar="N",
    show_default="one a class",
    help=f"Number of pictures, up to {MOST:,}.",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="A picture, which shows all of them; a .titok file for a single one; a folder, made if missing, for "
    "numbered files; - is standard output.",
)
@click.option(
    "--format",
    "picture_format",
    metavar="FORMAT",
    callback=_format_of,
    show_default="by the suffix of PATH, else PNG",
    help="titok, PNG, JPEG, WEBP ...",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    show_default="another each time",
    help="The same seed gives the same pictures, and a larger -n more of them.",
)
@editing
@click.option(
    "-g",
    "--generator",
    metavar="FILE",
    show_default="the bundled one",
    help="Weight file of the generator, its folder, or hub:org/name.",
)
@click.option(
    "--tokens",
    type=options.TOKENS,
    metavar="K",
    show_default="as the generator's file says, else the most that it makes",
    help="Tokens a picture, one of the numbers that the generator makes: fewer are faster and coarser.",
)
@sampling
@options.sampling_network
@options.FORCE
@options.MAX_PIXELS
@options.QUIET
@options.JSON
@click.option("--list-classes", is_flag=True, show_default=False, help="Show the generator's classes and exit.")
def generate(
    classes: tuple[str, ...],
    count: int | None,
    output: str | None,
    picture_format: PictureFormat | None,
    seed: int | None,
    source: str | None,
    share: float | None,
    keep: int | None,
    region: Region | None,
    last: str | None,
    generator: str | None,
    tokens: int | None,
    list_classes: bool,
    force: bool,
    max_pixels: int | None,
    quiet: bool,
    as_json: bool,
    model: str | None,
    device: str,
    dtype: str,
    batch_size: int,
    **settings: Any,
) -> None:
    """Generate pictures of a class, or make new ones of compressed pictures.

    A generator samples the tokens and the model decodes them, so each picture is a .titok file of its own, whether it
    is written as one or not.

    \b
    Examples:
      titok-generate --class church -n 16 -o grid.png           a grid of 4 x 4
      titok-generate --class church --tokens 128 -n 16 -o fine.png
      titok-generate --class cat --class 5 --seed 1 -n 100 -o pictures/
      titok-generate --class dog -o dog.titok
      titok-generate --from photo.titok --vary 0.3 -n 9 -o variations.png
      titok-generate --from photo.titok --keep 32 -n 9 -o details.png
      titok-generate --from photo.titok --region 96,64,120,80 -n 4 -o filled.png
      titok-generate --from photo.titok --to other.titok -n 7 -o strip.png
      titok-generate --list-classes
    """
    if list_classes:
        _list_classes(generator, as_json)
        return
    if output is None:
        raise click.UsageError("Missing option '-o': name a picture, a .titok file, a folder, or - (standard output).")
    edit = edit_of(source, last=last, region=region, keep=keep, share=share)
    given = {name: value for name, value in settings.items() if value is not None}
    if last is not None:
        refuse_generator_options({"class": classes or None, "generator": generator, "seed": seed, **given})
        count = count or WAY
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    request = Request(in_turns(classes, count), chosen, edit, tokens, given)
    reporter = GenerateReporter(request, stream=output == "-", quiet=quiet, as_json=as_json)
    try:
        where = destination(output, picture_format, request)
    except ImageError as error:  # no format has this suffix
        raise click.UsageError(f"-o {shown(output)}: {error}.") from None

    def load() -> tuple[Generator | None, Codec]:
        from titokcodec.codec import Codec
        from titokcodec.generator import Generator

        if last is not None:
            return None, Codec.from_pretrained(model, device=device, dtype=dtype, batch_size=batch_size)
        opened = Generator.from_pretrained(generator, device=device, dtype=dtype)
        request.check(opened)  # before the next file is read
        codec = Codec.from_pretrained(model, device=device, dtype=dtype, batch_size=batch_size)
        opened.check_fits(codec.weights)
        return opened, codec

    try:
        run(request, where, load, reporter, force, max_pixels)
        reporter.finish(output)
    except (TitokError, OSError) as error:
        reporter.error(reason(error), {"output": output, "error": reason(error)})
        click.get_current_context().exit(reporter.exit_code)


class GenerateReporter(Reporter):
    """A JSON object a file, or a line when all is done.

    Args:
        request: What is generated.
        options: Of ``Reporter``.
    """

    def __init__(self, request: Request, **options: bool) -> None:
        super().__init__("titok-generate", **options)
        self.request = request
        self.bytes = 0
        self.about: FileInfo | None = None
        self.started = self.before = time.perf_counter()

    def wrote(self, target: Path | None, files: list[bytes], labels: list[str | None]) -> None:
        """A file is written; it shows ``files`` of the classes ``labels``."""
        from titokcodec.files import info

        self.about, size, now = info(files[0]), sum(map(len, files)), time.perf_counter()
        self.bytes += size
        self.record(
            {
                "output": str(target or "-"),
                "pictures": len(files),
                "classes": labels,
                "seed": self.request.sampled_with,
                "width": self.about.width,
                "height": self.about.height,
                "tokens": self.about.tokens,
                "bytes": size,
                "seconds": round(now - self.before, 4),
            }
        )
        self.before = now

    def finish(self, output: str) -> None:
        """The line for people."""
        self.clear()
        if self.about is None:
            return
        seconds = time.perf_counter() - self.started
        about = f"{self.bytes} bytes as .titok files" if len(self.request.labels) > 1 else describe(self.about)
        where = shown(None if output == "-" else output, "stdout")
        seed = self.request.sampled_with
        facts = [f"{self.request} -> {where}", about, *([] if seed is None else [f"seed {seed}"]), f"{seconds:.1f} s"]
        self.text("  ".join(facts))


def _list_classes(generator: str | None, as_json: bool) -> None:
    """A line a class. Raises ``TitokError`` if the generator has no names for them."""
    from titokcodec.weights.generators import read

    card, _ = read(generator)
    if card.class_names is None:
        raise TitokError(
            f"generator {card.name} has no names for its classes: give numbers, 0 to {card.config.classes - 1}"
        )
    named = enumerate(card.class_names)
    if as_json:
        lines = [json.dumps({"number": number, "name": name}) for number, name in named]
    else:
        lines = [f"{number}\t{' '.join(name.split())}" for number, name in named]
    write_line("\n".join(lines))
