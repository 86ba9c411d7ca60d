"""Any picture in, upright sRGB out: the one place where the many ways to store a picture become one.

What a file of 60 bytes cannot carry is resolved here, once: EXIF orientation is applied, an ICC profile converted to
sRGB, transparency laid over a background colour, and every pixel format brought to 8-bit RGB. Pictures are converted
in bands of rows, straight into the array that is returned, so the peak is the picture as Pillow holds it, the result,
and a few megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageColor

from titokcodec.checks import whole_or_none
from titokcodec.errors import ImageError, TitokError
from titokcodec.format.layout import Grid, plan
from titokcodec.format.limits import DEFAULT_MAX_PIXELS
from titokcodec.pictures.opening import check_size, key_colour, name_of, opened
from titokcodec.pictures.pillow_guard import PillowLimit, one_error
from titokcodec.pictures.ranges import check_white, eight_bit, find_white
from titokcodec.pictures.srgb import DEEP_MODES, ToRGB, bands, row_slices

Source: TypeAlias = (
    "Picture | Image.Image | np.ndarray | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
)

# By EXIF orientation: views an upright array the way the camera stored it, so that filling the view turns the picture
# at no cost. 1 and anything unknown leave it as it is.
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright sRGB picture.

    ``pixels``: (H, W, 3) uint8, 0..255. ``grey``: every pixel has R == G == B, as pictures in a grey mode always do
    (unless laid over a coloured background), so that it may be given back as ``L``.
    """

    pixels: np.ndarray
    grey: bool


def load(
    source: Source,
    *,
    background: str = "white",
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    frame: int | None = None,
    white: float | None = None,
) -> Picture:
    """Reads a picture as upright 8-bit sRGB.

    ``source``: a ``PIL.Image`` of any mode (it is not changed beyond being loaded), an array of shape HxWx3, HxWx4
    (RGBA), HxW or HxWx1 (grey) and of type uint8, uint16 or float, a path, the bytes of a picture file, or a binary
    file object (read from its start). Arrays are taken as upright sRGB, and a uint8 one of HxWx3 is not copied:
    ``pixels`` may share its memory. A ``Picture`` is returned as it is. Files are opened in the formats of
    ``titokcodec.pictures.formats`` alone; a ``PIL.Image`` that the caller has opened is loaded as it is, whatever its
    format.

    ``background``: the colour under transparent pixels, any name or ``#rrggbb`` that Pillow knows.
    ``max_pixels``: the most pixels (width x height) to accept, checked before any pixel is decoded; it replaces
    Pillow's own limit for this call. None: no limit.
    ``frame``: which frame or page of a file, from 0. None: the first, with a ``FramesWarning`` if there are more; of a
    ``PIL.Image`` the current one.
    ``white``: the value that is white where a channel has more than 8 bits: in arrays of uint16 and floats, and in
    Pillow's modes ``I;16``, ``I`` and ``F``. 0 is black, and what lies outside is clipped. None: 65535 for 16 bits, and
    otherwise as :mod:`titokcodec.pictures.ranges` finds, with a ``RangeWarning`` where that is a guess.

    An ICC profile that is broken or does not fit the picture's mode is ignored, as viewers do.

    Raises ``ImageError`` (missing, unreadable, damaged or empty picture; no such frame; wrong kind of array; values
    that are not finite), ``LimitExceeded``, and ``TitokError`` for an option that makes no sense.
    """
    if isinstance(source, Picture):
        return source
    under = check_options(background, max_pixels, frame, white)
    if isinstance(source, np.ndarray):
        if frame:
            raise ImageError(f"array: has 1 frame, and no frame {frame} counted from 0; give the array of that frame")
        pixels = _from_array(source, under, max_pixels, white)
    else:
        name = name_of(source)
        with (
            one_error(name, max_pixels),
            PillowLimit.replaced(max_pixels),
            opened(source, name, max_pixels, frame) as image,
        ):
            pixels = _from_image(image, under, max_pixels, white, name)
    return Picture(pixels, _is_grey(pixels))


def check_options(
    background: str, max_pixels: int | None, frame: int | None, white: float | None
) -> tuple[int, int, int]:
    """The background as RGB. Raises ``TitokError`` if an option of ``load`` makes no sense, whatever the picture."""
    whole_or_none("max_pixels", max_pixels, 0)
    whole_or_none("frame", frame, 0)
    check_white(white)
    try:
        return ImageColor.getrgb(background)[:3]
    except (ValueError, TypeError, AttributeError) as error:
        wanted = "use a name such as 'white' or '#rrggbb'"
        raise TitokError(f"background {background!r} is not a colour; {wanted}") from error


def to_image(pixels: np.ndarray, grey: bool = False, size: tuple[int, int] | None = None) -> Image.Image:
    """(H, W, 3) uint8 sRGB as a ``PIL.Image``: mode ``L`` by ITU-R 601 luma if ``grey``, else ``RGB``.

    ``size``: (width, height) to scale it to, as :func:`resize` does.
    """
    image = Image.fromarray(pixels)
    if size is not None:
        image = _resized(image, size)
    return image.convert("L") if grey else image


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales (H, W, 3) uint8 to ``size`` = (width, height) by Lanczos, whatever the aspect.

    Far smaller sizes are first reduced by whole numbers, which is several times faster and hardly different. Pixels
    that already have the size are returned as they are, not copied.
    """
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    image = _resized(Image.fromarray(pixels), size)
    scaled = np.empty((size[1], size[0], 3), np.uint8)
    with PillowLimit.replaced(None):  # cropping asks for the limit too, and these pixels were let in long ago
        for top, band in bands(image):
            scaled[top : top + band.height] = np.asarray(band)
    return scaled


def to_canvas(pixels: np.ndarray, grid: Grid) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a picture, scaled to the canvas of a grid of tiles."""
    laid = plan(grid)
    return resize(pixels, (laid.width, laid.height))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


# ---- pixels ------------------------------------------------------------------------------------------------------


def _from_array(
    array: np.ndarray, under: tuple[int, int, int], max_pixels: int | None, white: float | None
) -> np.ndarray:
    channels = {2: 1, 3: array.shape[-1]}.get(array.ndim) if array.shape else None
    deep = array.dtype.kind == "f" or (array.dtype.kind == "u" and array.dtype.itemsize == 2)
    if not (deep or array.dtype == np.uint8) or channels not in (1, 3, 4):
        raise ImageError(
            f"takes uint8 arrays of shape HxWx3 (also HxW, HxWx1 and HxWx4), values 0..255, or uint16 or floats, "
            f"not {array.dtype} of shape {'x'.join(map(str, array.shape)) or '()'}; convert it"
        )
    height, width = array.shape[:2]
    check_size("array", width, height, max_pixels)
    if deep:
        array = _array_of_bytes(array, white)
    if channels == 3:
        return np.ascontiguousarray(array)
    if channels == 1:
        return np.repeat(array.reshape(height, width, 1), 3, axis=2)
    return _from_image(Image.fromarray(np.ascontiguousarray(array)), under, max_pixels, None, "array")


def _array_of_bytes(array: np.ndarray, white: float | None) -> np.ndarray:
    """A deep array as uint8, in bands: floats of 64 bits would double the memory that it takes."""
    rows = list(row_slices(array.shape[1], array.shape[0]))
    found = find_white((array[band] for band in rows), white, "array")
    pixels = np.empty(array.shape, np.uint8)
    for band in rows:
        pixels[band] = eight_bit(array[band], found)
    return pixels


def _from_image(
    image: Image.Image, under: tuple[int, int, int], max_pixels: int | None, white: float | None, name: str
) -> np.ndarray:
    check_size(name, *image.size, max_pixels)  # frames may differ in size
    key = key_colour(image)
    image.load()
    width, height = image.size  # icon files may turn out larger than they said
    check_size(name, width, height, max_pixels)
    orientation = _orientation(image)
    pixels = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = _AS_STORED.get(orientation, lambda upright: upright)(pixels)
    if image.mode in DEEP_MODES:
        # Of Pillow's formats PPM alone scales what it reads to 16 bits and then hands it over with 32.
        white = find_white((np.asarray(band) for _, band in bands(image)), white, name, image.format == "PPM")
    to_rgb = ToRGB(image, under, white, key)
    for top, band in bands(image):
        stored[top : top + band.height] = np.asarray(to_rgb(band))
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is no reason to refuse the pixels
        return 1


def _is_grey(pixels: np.ndarray) -> bool:
    parts = (pixels[rows] for rows in row_slices(pixels.shape[1], pixels.shape[0]))
    return all((part[..., 0] == part[..., 1]).all() and (part[..., 1] == part[..., 2]).all() for part in parts)
