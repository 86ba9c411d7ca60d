"""Pictures to bytes and back with the bundled model, in one call each."""

from __future__ import annotations

import os
from functools import lru_cache

from PIL import Image

from titokcodec.codec import Codec
from titokcodec.files import FileSource
from titokcodec.format.bitstream import DEFAULT_MAX_PIXELS
from titokcodec.pictures import images


@lru_cache(maxsize=1)
def default_codec() -> Codec:
    """The bundled model on the best device, loaded once."""
    return Codec.from_pretrained()


def compress(
    image: images.Source,
    *,
    tokens: int | None = None,
    layout: str = "auto",
    max_side: int | None = None,
    target_bytes: int | None = None,
    target_psnr: float | None = None,
    target_lpips: float | None = None,
    lpips: str | os.PathLike[str] | None = None,
    effort: int | None = None,
    background: str = "white",
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    frame: int | None = None,
    white: float | None = None,
) -> bytes:
    """One picture to ``.titok`` bytes with the bundled model; ``Codec.compress_batch`` says what the options mean."""
    return default_codec().compress(
        image,
        tokens=tokens,
        layout=layout,
        max_side=max_side,
        target_bytes=target_bytes,
        target_psnr=target_psnr,
        target_lpips=target_lpips,
        lpips=lpips,
        effort=effort,
        background=background,
        max_pixels=max_pixels,
        frame=frame,
        white=white,
    )


def decompress(
    source: FileSource,
    *,
    strict: bool = True,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    max_side: int | None = None,
) -> Image.Image:
    """A ``.titok`` file to a picture with the bundled model; ``Codec.decompress_batch`` says what the options mean."""
    return default_codec().decompress(source, strict=strict, max_pixels=max_pixels, max_side=max_side)
