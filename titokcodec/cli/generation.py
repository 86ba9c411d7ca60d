"""The work of ``titok-generate``: files and pictures of tokens, and where they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from titokcodec.cli import picture_files
from titokcodec.cli.edits import Sources
from titokcodec.cli.request import TITOK, Destination, Request
from titokcodec.cli.streams import write_target
from titokcodec.errors import LimitExceeded

if TYPE_CHECKING:
    from PIL import Image

    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo
    from titokcodec.generator import Generator

GAP = 4  # pixels between the pictures of a grid


class Observer(Protocol):
    """Told of what is done."""

    def wrote(self, target: Path | None, files: list[bytes], labels: list[str | None]) -> None:
        """A file is written; it shows these .titok files, which are of these classes."""

    def count(self, done: int, total: int) -> None:
        """So many pictures are generated."""


def run(
    request: Request,
    destination: Destination,
    load: Callable[[], tuple[Generator | None, Codec]],
    reporter: Observer,
    force: bool,
    max_pixels: int | None,
) -> None:
    """Generate and write all that was asked for. Raises ``TitokError`` or ``OSError``; files written so far stay."""
    destination.check(force)
    sources = Sources.opened(request.edit, max_pixels)
    columns = _columns(request)
    if len(destination.targets) < len(request.labels):
        _check_grid(len(request.labels), columns, sources.first, max_pixels)
    generator, codec = load()
    batches = _counted(_generated(generator, codec, request, sources), len(request.labels), reporter)
    if destination.folder:
        _write_each(batches, sources, codec, request, destination, reporter, force)
    else:
        files = [data for batch in batches for data in batch]
        (target,) = destination.targets
        write_target(target, _together(files, sources, codec, destination.format, columns), force)
        reporter.wrote(target, files, request.labels)


def _counted(batches: Iterator[list[bytes]], total: int, reporter: Observer) -> Iterator[list[bytes]]:
    """The batches, with word of how many pictures are done after each."""
    done = 0
    for files in batches:
        done += len(files)
        reporter.count(done, total)
        yield files


def _generated(generator: Generator | None, codec: Codec, request: Request, sources: Sources) -> Iterator[list[bytes]]:
    """.titok files of all pictures in order; those in a list went through the network together."""
    for rows in sources.tokens(generator, codec, request):
        yield [codec.write(row[None], **sources.size) for row in rows.cpu()]


def _encoded(files: list[bytes], sources: Sources, codec: Codec, name: str) -> list[bytes]:
    """Each .titok file as a file of the format."""
    if name == TITOK.name:
        return files
    return [picture_files.to_bytes(image, name) for image in sources.pictures(codec, files)]


def _together(files: list[bytes], sources: Sources, codec: Codec, name: str, columns: int) -> bytes:
    """A single picture as it is, several as a grid, as a file of the format."""
    if len(files) == 1:
        return _encoded(files, sources, codec, name)[0]
    return picture_files.to_bytes(_grid(sources.pictures(codec, files), columns), name)


def _write_each(
    batches: Iterator[list[bytes]],
    sources: Sources,
    codec: Codec,
    request: Request,
    destination: Destination,
    reporter: Observer,
    force: bool,
) -> None:
    todo = zip(destination.targets, request.labels, strict=True)
    for files in batches:
        Path(destination.output).mkdir(parents=True, exist_ok=True)
        for data, content in zip(files, _encoded(files, sources, codec, destination.format), strict=True):
            target, label = next(todo)
            write_target(target, content, force)
            reporter.wrote(target, [data], [label])


def _columns(request: Request) -> int:
    """Of the grid: about as many as rows, but so that a class that comes again stands below itself, and a single row of
    the pictures between two."""
    count, kinds = len(request.labels), len(set(request.labels))
    if request.between:
        return count
    square = math.isqrt(count - 1) + 1
    return kinds * max(1, round(square / kinds)) if 1 < kinds < count else square


def _grid_size(count: int, columns: int, width: int, height: int) -> tuple[int, int]:
    rows = -(-count // columns)
    return columns * (width + GAP) - GAP, rows * (height + GAP) - GAP


def _check_grid(count: int, columns: int, about: FileInfo | None, max_pixels: int | None) -> None:
    from titokcodec.format.limits import TILE

    width, height = (about.width, about.height) if about else (TILE, TILE)
    across, down = _grid_size(count, columns, width, height)
    if max_pixels is not None and across * down > max_pixels:
        raise LimitExceeded(
            f"a grid of {count} pictures would have {across}x{down} pixels, over the limit of "
            f"{max_pixels}: give -o a folder, or raise --max-pixels"
        )


def _grid(images: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size in rows; empty cells are white."""
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new(images[0].mode, _grid_size(len(images), columns, width, height), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + GAP), row * (height + GAP)))
    return sheet
