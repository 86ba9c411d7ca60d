"""The work of ``titok-generate``: tokens from the generator, and files and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from titokcodec.cli import picture_files
from titokcodec.cli.request import TITOK, Destination, Request, class_number
from titokcodec.cli.streams import read_titok, write_target
from titokcodec.errors import LimitExceeded, TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from torch import Tensor

    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo
    from titokcodec.generator import Generator
    from titokcodec.sampling import Noise

GAP = 4  # pixels between the pictures of a grid

# Called for each file that is written, with the .titok files that it shows and their classes.
Written: TypeAlias = "Callable[[Path | None, list[bytes], list[str | None]], None]"


@dataclass(frozen=True)
class SourceFile:
    """A compressed picture to vary: the file and its header."""

    data: bytes
    about: FileInfo


def run(
    request: Request,
    destination: Destination,
    load: Callable[[], tuple[Generator, Codec]],
    written: Written,
    force: bool,
    max_pixels: int | None,
) -> None:
    """Generate and write all that was asked for. Raises ``TitokError`` or ``OSError``; files written so far stay."""
    destination.check(force)
    original = opened(request.source, max_pixels)
    if len(destination.targets) < len(request.labels):
        _check_grid(len(request.labels), original.about if original else None, max_pixels)
    generator, codec = load()
    batches = _generated(generator, codec, request, original)
    if destination.folder:
        _write_each(batches, codec, request, destination, written, force)
    else:
        files = [data for batch in batches for data in batch]
        (target,) = destination.targets
        write_target(target, _together(files, codec, destination.format), force)
        written(target, files, request.labels)


def opened(source: str | None, max_pixels: int | None) -> SourceFile | None:
    """The file to vary. Raises ``TitokError`` or ``OSError`` if it cannot be."""
    if source is None:
        return None
    from titokcodec.files import info

    with _naming(source):
        data = read_titok(None if source == "-" else Path(source), max_pixels)
        about = info(data)
        if about.layout != "fit":
            raise TitokError(f"has {about.tiles} tiles, and one can be varied: compress the picture with --layout fit")
    return SourceFile(data, about)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Errors about a file name it."""
    try:
        yield
    except TitokError as error:
        raise type(error)(f"{shown(None if source == '-' else source, 'stdin')}: {error}") from None


def _generated(
    generator: Generator, codec: Codec, request: Request, original: SourceFile | None
) -> Iterator[list[bytes]]:
    """.titok files of all pictures in order; those in a list went through the network together."""
    start = None if original is None else _tokens(generator, codec, original, request)
    size: dict[str, Any] = (
        {"width": original.about.width, "height": original.about.height, "grey": original.about.grey}
        if original
        else {}
    )
    for first in range(0, len(request.labels), codec.batch_size):
        labels = [class_number(generator, label) for label in request.labels[first : first + codec.batch_size]]
        seeds = [_seed(request.seed, first + row) for row in range(len(labels))]
        noise = _noise(seeds, generator.device)
        if start is None:
            tokens = generator.sample(labels, tokens=request.tokens, noise=noise, **request.settings)
        else:
            rows = start.expand(len(labels), -1)
            kept = _kept(seeds, rows, request.share)
            tokens = generator.inpaint(rows, kept, labels, noise=noise, **request.settings)
        yield [codec.write(row[None], **size) for row in tokens.cpu()]


def _tokens(generator: Generator, codec: Codec, original: SourceFile, request: Request) -> Tensor:
    """(1, K) tokens of the file to vary: as many as are asked for, or else as the file has and the generator makes.

    Raises ``TitokError`` if the file has fewer.
    """
    with _naming(request.source or ""):
        tokens, counts = codec.read(original.data, max_pixels=None), generator.config.counts
        fitting = [count for count in counts if count <= tokens.shape[1]]
        wanted = request.tokens or (fitting or counts)[-1 if fitting else 0]
        if tokens.shape[1] < wanted:
            raise TitokError(
                f"has {tokens.shape[1]} tokens, but generator {generator.name} needs {wanted}: compress "
                f"the picture with --tokens {wanted}"
            )
        return tokens[:, :wanted]


def _seed(seed: int, number: int) -> np.random.SeedSequence:
    """Each picture has a random sequence of its own, so that it does not depend on what is generated with it."""
    import numpy as np

    return np.random.SeedSequence(seed, spawn_key=(number,))


def _noise(seeds: list[np.random.SeedSequence], device: torch.device) -> Noise:
    import torch

    numbers = [int(own.generate_state(1, "uint64")[0]) for own in seeds]
    generators = [torch.Generator(device).manual_seed(number) for number in numbers]
    return lambda step, shape: torch.stack([torch.rand(shape[1:], generator=own, device=device) for own in generators])


def _kept(seeds: list[np.random.SeedSequence], tokens: Tensor, share: float) -> Tensor:
    """(B, K) bool: False for that share of each picture's tokens, at least one."""
    import numpy as np
    import torch

    count = tokens.shape[1]
    keep = np.ones(tokens.shape, bool)
    for row, own in zip(keep, seeds, strict=True):
        row[np.random.default_rng(own).permutation(count)[: max(1, round(share * count))]] = False
    return torch.from_numpy(keep)


def _encoded(files: list[bytes], codec: Codec, name: str) -> list[bytes]:
    """Each .titok file as a file of the format."""
    if name == TITOK.name:
        return files
    return [picture_files.to_bytes(image, name) for image in codec.decompress_batch(files, max_pixels=None)]


def _together(files: list[bytes], codec: Codec, name: str) -> bytes:
    """A single picture as it is, several as a grid, as a file of the format."""
    if len(files) == 1:
        return _encoded(files, codec, name)[0]
    return picture_files.to_bytes(_grid(codec.decompress_batch(files, max_pixels=None)), name)


def _write_each(
    batches: Iterator[list[bytes]],
    codec: Codec,
    request: Request,
    destination: Destination,
    written: Written,
    force: bool,
) -> None:
    todo = zip(destination.targets, request.labels, strict=True)
    for files in batches:
        Path(destination.output).mkdir(parents=True, exist_ok=True)
        for data, content in zip(files, _encoded(files, codec, destination.format), strict=True):
            target, label = next(todo)
            write_target(target, content, force)
            written(target, [data], [label])


def _columns(count: int) -> int:
    return math.isqrt(count - 1) + 1


def _grid_size(count: int, width: int, height: int) -> tuple[int, int]:
    columns = _columns(count)
    rows = -(-count // columns)
    return columns * (width + GAP) - GAP, rows * (height + GAP) - GAP


def _check_grid(count: int, about: FileInfo | None, max_pixels: int | None) -> None:
    from titokcodec.format.limits import TILE

    width, height = (about.width, about.height) if about else (TILE, TILE)
    across, down = _grid_size(count, width, height)
    if max_pixels is not None and across * down > max_pixels:
        raise LimitExceeded(
            f"a grid of {count} pictures would have {across}x{down} pixels, over the limit of "
            f"{max_pixels}: give -o a folder, or raise --max-pixels"
        )


def _grid(images: list[Image.Image]) -> Image.Image:
    """Pictures of one size in as many rows as columns, or one fewer; empty cells are white."""
    from PIL import Image

    width, height = images[0].size
    columns = _columns(len(images))
    sheet = Image.new(images[0].mode, _grid_size(len(images), width, height), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + GAP), row * (height + GAP)))
    return sheet
