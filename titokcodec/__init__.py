"""A picture as 32 to 128 integers: TiTok made into a codec.

    data = titokcodec.compress("photo.jpg", tokens=64)
    image = titokcodec.decompress(data)

Importing this package is instant; torch is loaded when a network is first needed.
"""

from titokcodec import checkout
from titokcodec.errors import (
    CorruptFile,
    FramesWarning,
    IgnoredWarning,
    ImageError,
    LimitExceeded,
    ModelMismatch,
    RangeWarning,
    SkippedWarning,
    TitokError,
    TitokWarning,
    UnsupportedFile,
    WeightsError,
)
from titokcodec.lazy import importer

checkout.install()

TYPE_CHECKING = False  # as typing has it; importing that would take longer than all the rest
if TYPE_CHECKING:
    from titokcodec.codec import Codec
    from titokcodec.defaults import compress, decompress
    from titokcodec.editing import truncate, verify
    from titokcodec.files import FileInfo, info
    from titokcodec.generator import Generator
    from titokcodec.pillow_plugin import register_pillow

__version__ = "0.1.0"

_HOMES = {
    "Codec": "codec",
    "compress": "defaults",
    "decompress": "defaults",
    "FileInfo": "files",
    "info": "files",
    "truncate": "editing",
    "verify": "editing",
    "Generator": "generator",
    "register_pillow": "pillow_plugin",
}

__all__ = [
    "Codec",
    "CorruptFile",
    "FileInfo",
    "FramesWarning",
    "Generator",
    "IgnoredWarning",
    "ImageError",
    "LimitExceeded",
    "ModelMismatch",
    "RangeWarning",
    "SkippedWarning",
    "TitokError",
    "TitokWarning",
    "UnsupportedFile",
    "WeightsError",
    "compress",
    "decompress",
    "info",
    "register_pillow",
    "truncate",
    "verify",
]

__getattr__ = importer(__name__, _HOMES, globals())


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
