"""Which picture formats are opened: those that are meant, whatever else Pillow and its plugins would guess from bytes.

Pillow goes by content, not by name, and among its formats are some that start other programs (PostScript runs
Ghostscript), that open what lies within them in any format, or that the program around us has registered for purposes
of its own. A stranger's ``photo.jpg`` must reach none of them.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from PIL import Image, UnidentifiedImageError

from titokcodec.errors import ImageError
from titokcodec.io import kinds

# The common ones first, as Pillow tries them in this order. JXL and HEIF are there if their plugins have been imported.
READABLE = (
    "JPEG",
    "PNG",
    "GIF",
    "BMP",
    "PPM",
    "WEBP",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "ICO",
    "QOI",
    "TGA",
    "JXL",
    "HEIF",
)


def open_picture(source: Any, name: str = "picture") -> Image.Image:
    """``Image.open`` for the ``READABLE`` formats alone.

    Args:
        source: A path, or a binary file object, which is read from its start.
        name: What an error calls it.

    Raises:
        ImageError: it is something else, which the message names if it is recognised.
        OSError: it cannot be read; and whatever Pillow raises on damaged files besides.
    """
    Image.preinit()
    if hasattr(source, "read"):
        source = _rewound(source)
    try:
        return _open(source)
    except UnidentifiedImageError:
        try:
            Image.init()  # takes as long as all other formats together: only now that they are needed
            return _open(source)
        except UnidentifiedImageError as error:
            raise ImageError(f"{name}: {_refusal(_head(source))}") from error


def _open(source: Any) -> Image.Image:
    return Image.open(source, formats=[name for name in READABLE if name in Image.OPEN])


def _rewound(file: Any) -> Any:
    """A file that may be begun again; what cannot go back, a pipe say, is held."""
    try:
        file.seek(0)
    except (AttributeError, OSError):
        return io.BytesIO(file.read())
    return file


def _head(source: Any) -> bytes:
    if not hasattr(source, "read"):
        with open(source, "rb") as file:
            return file.read(kinds.HEAD)
    source.seek(0)
    return source.read(kinds.HEAD)


def _refusal(head: bytes) -> str:
    """What a file is that could not be opened, and what to do about it."""
    if not head:
        return "an empty file, not a picture: get it again"
    kind = kinds.kind_of(head)
    if kind == kinds.TITOK:
        return kinds.ALREADY
    if kind and kind.format in READABLE and kind.format in Image.OPEN:
        return f"begins as {kind.text} and cannot be read as one: get the file again"
    format_name = kind.format if kind else _claimed_by(head)
    if format_name:
        return f"is in a format that is not opened here ({format_name}): convert it to PNG"
    if kind:
        return f"is {kind.text}, not a picture: give a JPEG, PNG, WebP ..."
    return "not a picture in a format that is opened here (JPEG, PNG, WebP, AVIF, TIFF ...); convert it to PNG"


def _claimed_by(head: bytes) -> str | None:
    """The format that Pillow would have taken it for, by its first bytes; nothing is opened to find out."""
    for name, (_, accept) in Image.OPEN.items():
        with suppress(Exception):  # they count on 16 bytes
            if name not in READABLE and accept and accept(head[:16]):
                return name
    return None
