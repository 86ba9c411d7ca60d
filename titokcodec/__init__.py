"""A picture as 32 to 128 integers: TiTok made into a codec.

    data = titokcodec.compress("photo.jpg", tokens=64)
    image = titokcodec.decompress(data)

Importing this package is instant; torch is loaded when a network is first needed.
"""

from importlib import import_module

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

TYPE_CHECKING = False  # as typing has it; importing that would take longer than all the rest
if TYPE_CHECKING:
    from titokcodec.codec import Codec
    from titokcodec.defaults import compress, decompress
    from titokcodec.files import FileInfo, info, truncate, verify
    from titokcodec.generator import Generator
    from titokcodec.pillow_plugin import register_pillow

__version__ = "0.1.0"

_HOMES = {
    "Codec": "codec",
    "compress": "defaults", "decompress": "defaults",
    "FileInfo": "files", "info": "files", "truncate": "files", "verify": "files",
    "Generator": "generator",
    "register_pillow": "pillow_plugin",
}

__all__ = [
    "Codec", "CorruptFile", "FileInfo", "FramesWarning", "Generator", "IgnoredWarning", "ImageError", "LimitExceeded",
    "ModelMismatch", "RangeWarning", "SkippedWarning", "TitokError", "TitokWarning", "UnsupportedFile", "WeightsError",
    "compress", "decompress", "info", "register_pillow", "truncate", "verify",
]


def __getattr__(name: str) -> object:
    """Import the module that a public name lives in on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'titokcodec' has no attribute {name!r}")
    value = getattr(import_module(f"titokcodec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
