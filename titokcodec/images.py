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

from titokcodec.bitstream import DEFAULT_MAX_PIXELS
from titokcodec.errors import ImageError, TitokError
from titokcodec.pillow_guard import PillowLimit, one_error, too_large

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


def load(source: Source, *, background: str = "white", max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Picture:
    """Reads a picture as upright 8-bit sRGB.

    ``source``: a ``PIL.Image`` of any mode (its current frame; it is not changed beyond being loaded), a uint8 array of
    shape HxWx3, HxWx4 (RGBA), HxW or HxWx1 (grey), a path, the bytes of a picture file, or a binary file object (read
    from its start). Arrays are taken as upright sRGB, and an HxWx3 one is not copied: ``pixels`` may share its memory.
    Files with several frames give the first. A ``Picture`` is returned as it is.

    16-bit grey is divided by 257 and rounded; mode ``I`` likewise if any value exceeds 255, else taken as 8-bit; mode
    ``F`` is taken as 0..1 if no value exceeds 1, else as 0..255; all are clipped. An ICC profile that is broken or does
    not fit the picture's mode is ignored, as viewers do.

    ``background``: the colour under transparent pixels, any name or ``#rrggbb`` that Pillow knows.
    ``max_pixels``: the most pixels (width x height) to accept, checked before any pixel is decoded; it replaces
    Pillow's own limit for this call. None: no limit.

    Raises ``ImageError`` (missing, unreadable, damaged or empty picture; wrong kind of array), ``LimitExceeded``, and
    ``TitokError`` for an unknown background.
    """
    if isinstance(source, Picture):
        return source
    under = _background(background)
    if isinstance(source, np.ndarray):
        pixels = _from_array(source, under, max_pixels)
    else:
        name = _name(source)
        with one_error(name, max_pixels), PillowLimit.replaced(max_pixels):
            if isinstance(source, Image.Image):
                pixels = _from_image(source, under, max_pixels, name)
            else:
                with _open(source, name) as image:
                    pixels = _from_image(image, under, max_pixels, name)
    return Picture(pixels, _is_grey(pixels))


def to_image(pixels: np.ndarray, grey: bool = False) -> Image.Image:
    """(H, W, 3) uint8 sRGB as a ``PIL.Image``: mode ``L`` by ITU-R 601 luma if ``grey``, else ``RGB``."""
    image = Image.fromarray(pixels)
    return image.convert("L") if grey else image


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scales (H, W, 3) uint8 to ``size`` = (width, height) by Lanczos, whatever the aspect.

    Far smaller sizes are first reduced by whole numbers, which is several times faster and hardly different. Pixels
    that already have the size are returned as they are, not copied.
    """
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    scaled = np.empty((size[1], size[0], 3), np.uint8)
    with PillowLimit.replaced(None):  # cropping asks for the limit too, and these pixels were let in long ago
        for top, band in _bands(image):
            scaled[top : top + band.height] = np.asarray(band)
    return scaled


# ---- opening -----------------------------------------------------------------------------------------------------


def _open(source: object, name: str) -> Image.Image:
    if isinstance(source, bytes | bytearray | memoryview):
        return Image.open(io.BytesIO(source))
    if isinstance(source, str | os.PathLike):
        if os.path.isdir(source):
            raise ImageError(f"{name}: is a directory; give the path of a picture")
        return Image.open(source)
    if not hasattr(source, "read"):
        raise ImageError(
            f"takes a PIL.Image, a uint8 array, a path, bytes or a binary file, not {type(source).__name__}; convert it"
        )
    return Image.open(source)


def _check_size(name: str, width: int, height: int, max_pixels: int | None) -> None:
    if width == 0 or height == 0:
        raise ImageError(f"{name}: has no pixels ({width}x{height}); give at least 1x1")
    if max_pixels is not None and width * height > max_pixels:
        raise too_large(name, width * height, max_pixels)


def _name(source: object) -> str:
    name = source if isinstance(source, str | os.PathLike) else None
    name = name or getattr(source, "filename", None) or getattr(source, "name", None)
    if not isinstance(name, str | bytes | os.PathLike) or not name:
        return "picture"
    text = os.fsdecode(name)
    return text if text.isprintable() else repr(text)


# ---- pixels ------------------------------------------------------------------------------------------------------


def _from_array(array: np.ndarray, under: tuple[int, int, int], max_pixels: int | None) -> np.ndarray:
    channels = {2: 1, 3: array.shape[-1]}.get(array.ndim) if array.shape else None
    if array.dtype != np.uint8 or channels not in (1, 3, 4):
        raise ImageError(
            f"takes uint8 arrays of shape HxWx3 (also HxW, HxWx1 and HxWx4), values 0..255, "
            f"not {array.dtype} of shape {'x'.join(map(str, array.shape)) or '()'}; convert it"
        )
    height, width = array.shape[:2]
    _check_size("array", width, height, max_pixels)
    if channels == 3:
        return np.ascontiguousarray(array)
    if channels == 1:
        return np.repeat(array.reshape(height, width, 1), 3, axis=2)
    return _from_image(Image.fromarray(np.ascontiguousarray(array)), under, max_pixels, "array")


def _from_image(image: Image.Image, under: tuple[int, int, int], max_pixels: int | None, name: str) -> np.ndarray:
    _check_size(name, *image.size, max_pixels)
    image.load()
    width, height = image.size  # icon files may turn out larger than they said
    _check_size(name, width, height, max_pixels)
    orientation = _orientation(image)
    pixels = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = _AS_STORED.get(orientation, lambda upright: upright)(pixels)
    to_rgb = _ToRGB(image, under)
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

    def __init__(self, image: Image.Image, under: tuple[int, int, int]) -> None:
        self.under = under
        self.grey = image.mode in _GREY_MODES
        self.space = "L" if self.grey else "RGB"
        self.scale = _scale(image) if image.mode in _DEEP_MODES else 1.0
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
            return band.convert("LA" if self.grey else "RGBA")
        return band

    def _eight_bit(self, band: Image.Image) -> Image.Image:
        values = np.asarray(band)
        scaled = np.nan_to_num(values * np.float64(self.scale))
        grey = Image.fromarray(np.rint(scaled.clip(0, 255)).astype(np.uint8))
        key = band.info.get("transparency")
        if not isinstance(key, int):
            return grey
        return Image.merge("LA", (grey, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))))


def _scale(image: Image.Image) -> float:
    """What to multiply the values of an image in a deep mode by to reach 0..255."""
    if image.mode.startswith("I;16"):
        return 1 / 257
    largest = max(np.nan_to_num(np.asarray(band)).max() for _, band in _bands(image))
    if image.mode == "F":
        return 255.0 if largest <= 1 else 1.0
    return 1 / 257 if largest > 255 else 1.0


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


def _background(colour: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(colour)[:3]
    except (ValueError, TypeError, AttributeError) as error:
        raise TitokError(f"background {colour!r} is not a colour; use a name such as 'white' or '#rrggbb'") from error


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
