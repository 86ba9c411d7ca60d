"""Any picture in, upright sRGB out: the one place where the many ways to store a picture become one.

What a file of 60 bytes cannot carry is resolved here, once: EXIF orientation is applied, an ICC profile converted to
sRGB, transparency laid over a background colour, and every pixel format brought to 8-bit RGB. Pictures are converted
in bands of rows, straight into the array that is returned, so the peak is the picture as Pillow holds it, the result,
and a few megabytes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageColor

from titokcodec.checks import whole_or_none
from titokcodec.errors import ImageError, TitokError
from titokcodec.format.bitstream import DEFAULT_MAX_PIXELS
from titokcodec.pictures.opening import check_size, key_colour, name_of, opened
from titokcodec.pictures.pillow_guard import PillowLimit, one_error
from titokcodec.pictures.ranges import check_white, eight_bit, find_white

Source: TypeAlias = (
    "Picture | Image.Image | np.ndarray | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
)

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_GREY_MODES = _DEEP_MODES | {"1", "L", "LA", "La"}
_KEYED_MODES = frozenset({"1", "L", "La", "P", "PA", "RGB", "RGBa"})  # may be transparent in a way of their own
_BAND_PIXELS = 1 << 20

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
        for top, band in _bands(image):
            scaled[top : top + band.height] = np.asarray(band)
    return scaled


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
    rows = list(_row_slices(array.shape[1], array.shape[0]))
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
    if image.mode in _DEEP_MODES:
        # Of Pillow's formats PPM alone scales what it reads to 16 bits and then hands it over with 32.
        white = find_white((np.asarray(band) for _, band in _bands(image)), white, name, image.format == "PPM")
    to_rgb = _ToRGB(image, under, white, key)
    for top, band in _bands(image):
        stored[top : top + band.height] = np.asarray(to_rgb(band))
    return pixels


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is no reason to refuse the pixels
        return 1


class _ToRGB:
    """Turns bands of one image to sRGB; what depends on the whole image (profile, value range) is found once."""

    def __init__(self, image: Image.Image, under: tuple[int, int, int], white: float | None, key: object) -> None:
        self.under, self.white, self.key = under, white, key
        self.grey = image.mode in _GREY_MODES
        self.space = "L" if self.grey else "RGB"
        self.transform = None
        if found := _profile(image):
            self.space, self.transform = found

    def __call__(self, band: Image.Image) -> Image.Image:
        band = self._straight(band)
        alpha = band.getchannel("A") if band.mode in ("LA", "RGBA") else None
        colour = band.convert(self.space)
        if self.transform is not None:
            colour = ImageCms.applyTransform(colour, self.transform)
            if self.grey:  # rounding in the profile must not tint a grey picture
                colour = colour.convert("L")
        colour = colour.convert("RGB")
        if alpha is None:
            return colour
        flat = Image.new("RGB", colour.size, self.under)
        flat.paste(colour, mask=alpha)
        return flat

    def _straight(self, band: Image.Image) -> Image.Image:
        """Eight bits a channel, and transparency of any kind (premultiplied, palette, key colour) as a channel A."""
        if band.mode in _DEEP_MODES:
            return self._eight_bit(band)
        if band.mode in _KEYED_MODES and band.has_transparency_data:
            if self.key is not None:
                band.info["transparency"] = self.key
            return band.convert("LA" if self.grey else "RGBA")
        return band

    def _eight_bit(self, band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        grey = Image.fromarray(eight_bit(values, self.white))
        if not isinstance(self.key, int):
            return grey
        return Image.merge("LA", (grey, Image.fromarray(np.where(values == self.key, 0, 255).astype(np.uint8))))


def _profile(image: Image.Image) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The image's ICC profile as (mode it applies to, transform to sRGB); None if absent, broken, unfit or sRGB."""
    icc = image.info.get("icc_profile")
    if not icc or image.mode == "LAB":
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(profile.profile.xcolor_space.strip(), "")
        fits = {"L": image.mode in _GREY_MODES, "RGB": image.mode != "CMYK", "CMYK": image.mode == "CMYK"}
        if not fits.get(space):
            return None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), space, "RGB")
        probe = _probe(space)
        change = np.asarray(ImageCms.applyTransform(probe, transform), int) - np.asarray(probe.convert("RGB"), int)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return None
    # Most profiles in the wild are sRGB by another name: leaving those pixels alone keeps them exact, and is faster.
    return None if np.abs(change).max() <= 1 else (space, transform)


def _probe(space: str) -> Image.Image:
    """A small picture with colours from all over ``space``."""
    steps = np.linspace(0, 255, 256 if space == "L" else 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[steps] * len(space)), axis=-1)
    return Image.frombytes(space, (cube.size // len(space), 1), cube.tobytes())


def _is_grey(pixels: np.ndarray) -> bool:
    bands = (pixels[rows] for rows in _row_slices(pixels.shape[1], pixels.shape[0]))
    return all((band[..., 0] == band[..., 1]).all() and (band[..., 1] == band[..., 2]).all() for band in bands)


def _row_slices(width: int, height: int) -> Iterator[slice]:
    rows = max(1, _BAND_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in bands of whole rows, each with its topmost row's number."""
    for rows in _row_slices(*image.size):
        yield rows.start, image.crop((0, rows.start, image.width, rows.stop))
