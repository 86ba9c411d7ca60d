"""Opening a picture, whatever it is handed in as: files, arrays and images, and the choice of a frame."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from PIL import Image

from titokcodec.errors import FramesWarning, ImageError
from titokcodec.io.names import shown
from titokcodec.pictures.formats import open_picture
from titokcodec.pictures.pillow_guard import too_large

_ONE_PICTURE = "MPO"  # further pictures in it are other views of the first: a camera's previews and gain maps


@contextmanager
def opened(source: object, name: str, max_pixels: int | None, frame: int | None) -> Iterator[Image.Image]:
    """A picture at the frame that is wanted, its size checked and none of its pixels decoded.

    Args:
        source: A path, bytes, a binary file object, or a ``PIL.Image``, which is left as it was.
        name: What messages call it.
        max_pixels: None for no limit.
        frame: From 0; None is the first one of a file, the current one of a ``PIL.Image``.

    Raises:
        ImageError: it has no such frame or no pixels, or is nothing that can be opened.
        LimitExceeded: it is too large.
    """
    if isinstance(source, Image.Image):
        check_size(name, source.width, source.height, max_pixels)
        before = source.tell()
        try:
            if frame is not None:
                _seek(source, name, frame)
            yield source
        finally:
            if source.tell() != before:
                source.seek(before)
        return
    with _open(source, name) as image:
        check_size(name, image.width, image.height, max_pixels)
        if frame is not None:
            _seek(image, name, frame)
        elif image.format != _ONE_PICTURE and _has_more(image):
            warnings.warn(
                f"{name}: has several frames, of which the first is taken; choose one with frame= (--frame)",
                FramesWarning,
                stacklevel=2,
            )
        yield image


def check_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    """Raise ``ImageError`` if a picture is empty, ``LimitExceeded`` if it is too large."""
    if width == 0 or height == 0:
        raise ImageError(f"{name}: has no pixels ({width}x{height}); give at least 1x1")
    if max_pixels is not None and width * height > max_pixels:
        raise too_large(name, width * height, max_pixels)


def key_colour(image: Image.Image) -> object:
    """The colour or palette entry that is transparent, if any, as a value of the image's mode.

    PNG stores it as deep as the pixels were, and Pillow hands it over like that, while it scales pixels of 2 and 4 bits
    to 8 and drops the lower half of 16. How deep they were shows only until they are loaded.
    """
    key = image.info.get("transparency")
    stored = next((tile[3] for tile in getattr(image, "tile", ()) if image.format == "PNG"), None)
    if image.mode == "1" and key:
        return 255
    if stored in ("L;2", "L;4") and isinstance(key, int):
        most = 3 if stored == "L;2" else 15
        return (key & most) * 255 // most
    if image.mode == "RGB" and isinstance(key, tuple) and (stored == "RGB;16B" or max(key) > 255):
        return tuple(value >> 8 for value in key)
    return key


def name_of(source: object) -> str:
    """What messages call a picture: its path if it has one."""
    name = source if isinstance(source, str | os.PathLike) else None
    name = name or getattr(source, "filename", None) or getattr(source, "name", None)
    if not isinstance(name, str | bytes | os.PathLike) or not name:
        return "picture"
    return shown(name)


def _open(source: Any, name: str) -> Image.Image:
    file: str | os.PathLike[str] | IO[bytes]
    if isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
    elif isinstance(source, str | os.PathLike) or hasattr(source, "read"):
        file = source
    else:
        raise ImageError(
            f"takes a PIL.Image, an array, a path, bytes or a binary file, not {type(source).__name__}; convert it"
        )
    if isinstance(file, str | os.PathLike) and os.path.isdir(file):
        raise ImageError(f"{name}: is a directory; give the path of a picture")
    return open_picture(file, name)


def _seek(image: Image.Image, name: str, frame: int) -> None:
    count = getattr(image, "n_frames", 1) if frame else 1  # counted before: Pillow miscounts TIFFs after a vain seek
    if frame and frame >= count:
        has, last = ("1 frame", "give 0") if count == 1 else (f"{count} frames", f"give 0 to {count - 1}")
        raise ImageError(f"{name}: has {has}, and no frame {frame} counted from 0; {last}")
    image.seek(frame)


def _has_more(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # damage behind the first frame is no reason to refuse that
        return False
