"""Pictures to bytes and back with the bundled model, in one call each."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image

from titokcodec.codec import Codec
from titokcodec.files import FileSource
from titokcodec.options import CompressOptions, CompressSettings, DecompressOptions, DecompressSettings, checked, lists
from titokcodec.pictures import images

if TYPE_CHECKING:
    from typing_extensions import Unpack


@lru_cache(maxsize=1)
def default_codec() -> Codec:
    """The bundled model on the best device, loaded once."""
    return Codec.from_pretrained()


@lists(CompressSettings)
def compress(image: images.Source, **options: Unpack[CompressOptions]) -> bytes:
    """One picture to ``.titok`` bytes with the bundled model; ``Codec.compress_batch`` describes the options."""
    checked(CompressSettings, options)  # what makes no sense fails before the model is loaded
    return default_codec().compress(image, **options)


@lists(DecompressSettings)
def decompress(source: FileSource, **options: Unpack[DecompressOptions]) -> Image.Image:
    """A ``.titok`` file to a picture with the bundled model; ``Codec.decompress_batch`` describes the options."""
    checked(DecompressSettings, options)
    return default_codec().decompress(source, **options)
