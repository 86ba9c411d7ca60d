"""What the speed benchmarks measure: functions that prepare a workload, which does the work when called.

They can be pickled, so that ``bench.fresh`` can repeat one in a process of its own. torch is imported by those alone
that need it: it must not count in the memory of other formats.
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

from titokcodec.format.limits import TILE

if TYPE_CHECKING:
    from titokcodec import Codec

PHOTO = Path(__file__).parents[1] / "tests" / "data" / "astronaut.jpg"
BATCH = 16  # tiles in one forward pass of a codec

Workload = Callable[[], Any]


@dataclass(frozen=True)
class CodecOptions:
    """Arguments of ``Codec.from_pretrained``."""

    source: str | None = None
    device: str = "auto"
    precision: str = "auto"


@lru_cache(maxsize=1)
def load_codec(options: CodecOptions) -> Codec:
    """The codec, which successive workloads share."""
    from titokcodec import Codec

    return Codec.from_pretrained(options.source, device=options.device, dtype=options.precision, batch_size=BATCH)


# ---- the networks -----------------------------------------------------------------------------------------------


def encode(options: CodecOptions, batch: int) -> Workload:
    """Tokens of random pixels, on the device."""
    import torch

    codec = _with_batches(options, batch)
    pixels = torch.rand(batch, 3, TILE, TILE, device=codec.device)
    return lambda: codec.encode(pixels)


def decode(options: CodecOptions, batch: int, tokens: int) -> Workload:
    """Pixels of random tokens, on the device."""
    import torch

    codec = _with_batches(options, batch)
    given = torch.randint(codec.weights.config.codes, (batch, tokens), device=codec.device)
    return lambda: codec.decode(given)


def _with_batches(options: CodecOptions, batch: int) -> Codec:
    """The codec, taking that many pictures in one pass."""
    codec = copy.copy(load_codec(options))
    codec.batch_size = batch
    return codec


# ---- the codec and other formats, on pictures of one tile -------------------------------------------------------


def photographs(count: int) -> list[Image.Image]:
    """Different pictures of 256 x 256: a photograph, and crops of it."""
    whole = Image.open(PHOTO).convert("RGB")
    side = math.isqrt(count) + 1
    steps = [(whole.width - TILE) * i // side for i in range(side)]
    crops = [whole.crop((left, top, left + TILE, top + TILE)) for top in steps for left in steps]
    return [whole.resize((TILE, TILE), Image.Resampling.LANCZOS), *crops][:count]


def compress(options: CodecOptions, count: int, effort: int | None) -> Workload:
    """Files of that many photographs; an effort of None is the default one."""
    codec, images = load_codec(options), photographs(count)
    return lambda: codec.compress_batch(images, effort=effort)


def decompress(options: CodecOptions, files: Sequence[bytes]) -> Workload:
    """The pictures of these files."""
    codec = load_codec(options)
    return lambda: codec.decompress_batch(files)


def open_titok(options: CodecOptions, data: bytes) -> Workload:
    """A picture through Pillow's plugin."""
    import titokcodec

    titokcodec.register_pillow(load_codec(options))
    return load(data)


def save(format: str, variants: Sequence[Mapping[str, Any]], plugin: str | None = None) -> Workload:
    """The file of a photograph in another format: the shortest by any of the variants of options."""
    _register(plugin)
    (picture,) = photographs(1)
    return lambda: min((_saved(picture, format, variant) for variant in variants), key=len)


def load(data: bytes, plugin: str | None = None) -> Workload:
    """The picture of a file, by Pillow."""
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


def compress_large(options: CodecOptions, side: int, tokens: int, target: Path) -> Workload:
    """A square picture of ``side`` pixels, in tiles of its own resolution, to a file."""
    codec, pixels = load_codec(options), mirrored(side)
    return lambda: target.write_bytes(codec.compress(pixels, tokens=tokens, layout="tile", max_pixels=None))


def decompress_large(options: CodecOptions, source: Path) -> Workload:
    """The picture of such a file."""
    codec, data = load_codec(options), source.read_bytes()
    return lambda: codec.decompress(data, max_pixels=None)


def mirrored(side: int) -> np.ndarray:
    """A photograph continued by its mirror images, (side, side, 3) uint8: as detailed as a small one everywhere.

    The only large array is the result, so that preparing it adds nothing to the peak of memory.
    """
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    rows, columns = (
        np.pad(np.arange(length), (0, max(0, side - length)), "symmetric")[:side] for length in photo.shape[:2]
    )
    return photo[rows[:, None], columns]
