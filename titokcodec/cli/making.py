"""The work of ``titok-generate``: tokens from the generator, files and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from titokcodec.cli import pictures
from titokcodec.cli.jobs import Job
from titokcodec.cli.tool import write_target
from titokcodec.cli.wishes import TITOK, Place, Wish, class_number
from titokcodec.errors import LimitExceeded, TitokError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from torch import Tensor

    from titokcodec.cli.generation import Talk
    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo
    from titokcodec.generator import Generator
    from titokcodec.sampling import Noise

GAP = 4  # pixels between the pictures of a grid


@dataclass(frozen=True)
class Original:
    """A compressed picture to vary: the file, and what its header says."""

    data: bytes
    about: FileInfo


def run(
    wish: Wish,
    place: Place,
    load: Callable[[], tuple[Generator, Codec]],
    talk: Talk,
    force: bool,
    max_pixels: int | None,
) -> None:
    """Make and write all that was asked for. Raises ``TitokError`` or ``OSError``; what is written till then stays."""
    place.check(force)
    original = opened(wish.source, max_pixels)
    if len(place.targets) < len(wish.labels):
        _check_grid(len(wish.labels), original and original.about, max_pixels)
    generator, codec = load()
    batches = _made(generator, codec, wish, original)
    if place.folder:
        _write_each(batches, codec, place, talk, force)
    else:
        files = [data for batch in batches for data in batch]
        (target,) = place.targets
        write_target(target, _shown_together(files, codec, place.format), force)
        talk.wrote(target, files, wish.labels)
    talk.finish(place)


def opened(source: str | None, max_pixels: int | None) -> Original | None:
    """The file to vary. Raises ``TitokError`` or ``OSError`` if it cannot be."""
    if source is None:
        return None
    from titokcodec.cli.bulk import read_titok
    from titokcodec.files import info

    with _named(source):
        data = read_titok(Job(None if source == "-" else Path(source), None), max_pixels)
        about = info(data)
        if about.layout != "fit":
            raise TitokError(f"has {about.tiles} tiles, and one can be varied: compress the picture with --layout fit")
    return Original(data, about)


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors about a file name it."""
    try:
        yield
    except TitokError as error:
        raise type(error)(f"{shown(None if source == '-' else source, 'stdin')}: {error}") from None


def _made(generator: Generator, codec: Codec, wish: Wish, original: Original | None) -> Iterator[list[bytes]]:
    """.titok files of all pictures in order; those in a list went through the network together."""
    start = original and _tokens(generator, codec, original, wish.source or "")
    size = (
        {"width": original.about.width, "height": original.about.height, "grey": original.about.grey}
        if original
        else {}
    )
    for first in range(0, len(wish.labels), codec.batch_size):
        labels = [class_number(generator, label) for label in wish.labels[first : first + codec.batch_size]]
        chance = [_chance(wish.seed, first + row) for row in range(len(labels))]
        noise = _noise(chance, generator.device)
        if start is None:
            tokens = generator.sample(labels, noise=noise, **wish.settings)
        else:
            rows = start.expand(len(labels), -1)
            tokens = generator.inpaint(rows, _kept(chance, rows, wish.share), labels, noise=noise, **wish.settings)
        yield [codec.write(row[None], **size) for row in tokens.cpu()]


def _tokens(generator: Generator, codec: Codec, original: Original, source: str) -> Tensor:
    """(1, K) tokens of the file to vary, as many as the generator makes. Raises ``TitokError`` if there are fewer."""
    with _named(source):
        tokens, wanted = codec.read(original.data, max_pixels=None), generator.config.tokens
        if tokens.shape[1] < wanted:
            raise TitokError(
                f"has {tokens.shape[1]} tokens, but generator {generator.name} needs {wanted}: compress "
                f"the picture with --tokens {wanted}"
            )
        return tokens[:, :wanted]


def _chance(seed: int, number: int) -> np.random.SeedSequence:
    """Each picture has a chance of its own, so that it comes out the same whatever others are made with it."""
    import numpy as np

    return np.random.SeedSequence(seed, spawn_key=(number,))


def _noise(chance: list[np.random.SeedSequence], device: torch.device) -> Noise:
    import torch

    seeds = [int(own.generate_state(1, "uint64")[0]) for own in chance]
    streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    return lambda step, shape: torch.stack([torch.rand(shape[1:], generator=own, device=device) for own in streams])


def _kept(chance: list[np.random.SeedSequence], tokens: Tensor, share: float) -> Tensor:
    """(B, K) bool: False for that share of each picture's tokens, at least one."""
    import numpy as np
    import torch

    count = tokens.shape[1]
    keep = np.ones(tokens.shape, bool)
    for row, own in zip(keep, chance, strict=True):
        row[np.random.default_rng(own).permutation(count)[: max(1, round(share * count))]] = False
    return torch.from_numpy(keep)


def _drawn(files: list[bytes], codec: Codec, name: str) -> list[bytes]:
    """Each file in the format."""
    if name == TITOK:
        return files
    return [pictures.to_bytes(image, name) for image in codec.decompress_batch(files, max_pixels=None)]


def _shown_together(files: list[bytes], codec: Codec, name: str) -> bytes:
    """A single picture as it is, several as a grid, in the format."""
    if len(files) == 1:
        return _drawn(files, codec, name)[0]
    return pictures.to_bytes(_grid(codec.decompress_batch(files, max_pixels=None)), name)


def _write_each(batches: Iterator[list[bytes]], codec: Codec, place: Place, talk: Talk, force: bool) -> None:
    done = 0
    for files in batches:
        Path(place.output).mkdir(parents=True, exist_ok=True)
        for data, content in zip(files, _drawn(files, codec, place.format), strict=True):
            write_target(place.targets[done], content, force)
            talk.wrote(place.targets[done], [data], talk.wish.labels[done : done + 1])
            done += 1


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
    """Pictures of one size in rows, as many of them as across, or one fewer; what is left over is white."""
    from PIL import Image

    width, height = images[0].size
    columns = _columns(len(images))
    sheet = Image.new(images[0].mode, _grid_size(len(images), width, height), "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + GAP), row * (height + GAP)))
    return sheet
