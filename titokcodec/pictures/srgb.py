"""Pixels of any mode to 8-bit sRGB, in bands of rows: colour profiles, transparency, and more than 8 bits a channel."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms

from titokcodec.pictures.ranges import eight_bit

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_GREY_MODES = DEEP_MODES | {"1", "L", "LA", "La"}
_KEYED_MODES = frozenset({"1", "L", "La", "P", "PA", "RGB", "RGBa"})  # may be transparent in a way of their own
BAND_PIXELS = 1 << 20


class ToRGB:
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
            colour = _transformed(colour, self.transform)
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
        if band.mode in DEEP_MODES:
            return self._eight_bit(band)
        if band.mode in _KEYED_MODES and band.has_transparency_data:
            if self.key is not None:
                band.info["transparency"] = self.key
            return band.convert("LA" if self.grey else "RGBA")
        return band

    def _eight_bit(self, band: Image.Image) -> Image.Image:
        assert self.white is not None, "found before any deep band is converted"
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


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    assert changed is not None, "None only where it works in place"
    return changed


def _probe(space: str) -> Image.Image:
    """A small picture with colours from all over ``space``."""
    steps = np.linspace(0, 255, 256 if space == "L" else 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[steps] * len(space)), axis=-1)
    return Image.frombytes(space, (cube.size // len(space), 1), cube.tobytes())


def row_slices(width: int, height: int) -> Iterator[slice]:
    """Slices of whole rows, of about a megapixel each, that cover a picture."""
    rows = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The image in bands of whole rows, each with its topmost row's number."""
    for rows in row_slices(*image.size):
        yield rows.start, image.crop((0, rows.start, image.width, rows.stop))
