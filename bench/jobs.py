"""What the speed benchmarks measure: a job is made ready first, and does its work when it is called.

Whatever makes one can be pickled, so that ``bench.fresh`` can run the same job in a process of its own. torch is
imported by those jobs alone that need it: the memory of other formats must not count it.
"""

from __future__ import annotations

import copy
import importlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from titokcodec.format.layout import Grid, nearest_grid, plan
from titokcodec.format.limits import TILE

from .machine import synchronize

if TYPE_CHECKING:
    from titokcodec import Codec

PHOTO = Path(__file__).parents[1] / "tests" / "data" / "astronaut.jpg"
BATCH = 16  # tiles in one forward pass of a codec

Job = Callable[[], Any]


@dataclass(frozen=True)
class Model:
    """Which codec a job uses; arguments as in ``Codec.from_pretrained``."""

    source: str | None = None
    device: str = "auto"
    precision: str = "auto"

    def load(self) -> Codec:
        """The codec; jobs that follow each other share it."""
        return _load(self)


@lru_cache(maxsize=1)
def _load(model: Model) -> Codec:
    from titokcodec import Codec

    return Codec.from_pretrained(model.source, device=model.device, dtype=model.precision, batch_size=BATCH)


# ---- the networks -----------------------------------------------------------------------------------------------


def encode(model: Model, batch: int) -> Job:
    """Tokens of random pixels, on the device."""
    import torch

    codec = _for_batches(model, batch)
    pixels = torch.rand(batch, 3, TILE, TILE, device=codec.device)
    return finished(codec, lambda: codec.encode(pixels))


def decode(model: Model, batch: int, tokens: int) -> Job:
    """Pixels of random tokens, on the device."""
    import torch

    codec = _for_batches(model, batch)
    given = torch.randint(codec.weights.config.codes, (batch, tokens), device=codec.device)
    return finished(codec, lambda: codec.decode(given))


def _for_batches(model: Model, batch: int) -> Codec:
    """The codec, taking so many pictures in one pass."""
    codec = copy.copy(model.load())
    codec.batch_size = batch
    return codec


def finished(codec: Codec, work: Job) -> Job:
    """``work``, timed to its end: a GPU only queues it."""

    def run() -> None:
        work()
        synchronize(codec.device)

    return run


# ---- the codec and other formats, on pictures of one tile -------------------------------------------------------


def photographs(count: int) -> list[Image.Image]:
    """Different pictures of 256 x 256: a photograph, and parts of it."""
    whole = Image.open(PHOTO).convert("RGB")
    side = math.isqrt(count) + 1
    steps = [(whole.width - TILE) * place // side for place in range(side)]
    parts = [whole.crop((left, top, left + TILE, top + TILE)) for top in steps for left in steps]
    return [whole.resize((TILE, TILE), Image.Resampling.LANCZOS), *parts][:count]


def compress(model: Model, count: int, effort: int | None) -> Job:
    """Files of so many photographs; an effort of None is the default one."""
    codec, images = model.load(), photographs(count)
    return lambda: codec.compress_batch(images, effort=effort)


def decompress(model: Model, files: Sequence[bytes]) -> Job:
    """The pictures of these files."""
    codec = model.load()
    return lambda: codec.decompress_batch(files)


def open_titok(model: Model, data: bytes) -> Job:
    """A picture through Pillow's plugin."""
    import titokcodec

    titokcodec.register_pillow(model.load())
    return lambda: Image.open(io.BytesIO(data)).load()


def save(format: str, variants: Sequence[Mapping[str, Any]], plugin: str | None = None) -> Job:
    """The file of a photograph in another format: the shortest by any of the variants of options."""
    _register(plugin)
    (picture,) = photographs(1)
    return lambda: min((_saved(picture, format, options) for options in variants), key=len)


def load(data: bytes, plugin: str | None = None) -> Job:
    """The picture of such a file."""
    _register(plugin)
    return lambda: Image.open(io.BytesIO(data)).load()


def _register(plugin: str | None) -> None:
    if plugin:
        importlib.import_module(plugin)


def _saved(picture: Image.Image, format: str, options: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


# ---- the codec, on pictures of any size -------------------------------------------------------------------------


def compress_large(model: Model, side: int, tokens: int, target: Path) -> Job:
    """A square picture of ``side`` pixels, in tiles of its own resolution, to a file."""
    codec, pixels = model.load(), mirrored(side)
    _compress(codec, pixels[:WARM, :WARM], tokens)
    return lambda: target.write_bytes(_compress(codec, pixels, tokens))


def decompress_large(model: Model, side: int, tokens: int, source: Path) -> Job:
    """The picture of such a file."""
    import torch

    codec, data, small = model.load(), source.read_bytes(), min(side, WARM)
    grid = nearest_grid(small, small)
    rows = torch.randint(codec.weights.config.codes, (grid.tiles, tokens))
    codec.decompress(codec.write(rows, small, small, grid=grid))
    return lambda: codec.decompress(data, max_pixels=None)


WARM = plan(Grid(4, 4)).width  # pixels: a square of one full batch


def _compress(codec: Codec, pixels: np.ndarray, tokens: int) -> bytes:
    return codec.compress(pixels, tokens=tokens, layout="tile", max_pixels=None)


def mirrored(side: int) -> np.ndarray:
    """A photograph continued by its mirror images, (side, side, 3) uint8: as detailed as a small one everywhere.

    The only large array is the result, so that it is no peak in itself.
    """
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    rows, columns = (
        np.pad(np.arange(length), (0, max(0, side - length)), "symmetric")[:side] for length in photo.shape[:2]
    )
    return photo[rows[:, None], columns]
