"""Picture formats as the commands see them: which files are pictures, and how to write one."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from titokcodec.errors import ImageError
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from PIL import Image

_OURS = {"TITOK"}  # to the commands a compressed picture, even where the program around them has registered the plugin


# Cameras' own formats, and others that Pillow does not know, or only with a plugin.
_FOREIGN = frozenset(
    (
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dng",
        ".erf",
        ".exr",
        ".hdr",
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".jxr",
        ".kdc",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".rw2",
        ".sr2",
        ".srf",
        ".srw",
        ".svg",
        ".svgz",
        ".x3f",
        ".xcf",
    )
)
_NO_PICTURES = frozenset((".bufr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".palm", ".pdf", ".ps"))


@lru_cache(maxsize=1)
def _formats() -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
    """Suffix to format; the formats that can be read; those that can be written."""
    from PIL import Image

    from titokcodec.pictures.formats import READABLE

    extensions = Image.registered_extensions()
    return extensions, frozenset(Image.OPEN).intersection(READABLE), frozenset(Image.SAVE) - _OURS


def is_picture(path: Path) -> bool:
    """Whether a file has the suffix of a format that is opened here."""
    extensions, readable, _ = _formats()
    return extensions.get(path.suffix.lower()) in readable


def is_foreign_picture(path: Path) -> bool:
    """Whether a file has the suffix of pictures that are not read here: somebody may wonder where they are."""
    suffix, (extensions, readable, _) = path.suffix.lower(), _formats()
    if extensions.get(suffix) in readable | _OURS or suffix in _NO_PICTURES:
        return False
    return suffix in _FOREIGN or suffix in extensions


def is_titok(path: Path) -> bool:
    return path.suffix.lower() == ".titok"


def suffix_of(name: str) -> str:
    """The usual suffix for a format that Pillow writes. Raises ``ImageError`` if it writes no such thing."""
    if name.upper() == "PNG":  # what everybody wants, without loading every plugin of Pillow's
        return ".png"
    extensions, _, writable = _formats()
    known = [suffix for suffix, of in extensions.items() if of == name.upper() and of in writable]
    if not known:
        raise ImageError(f"no format {name!r} to write: take one that Pillow has, such as PNG, JPEG or WEBP")
    usual = f".{name.lower()}"
    return usual if usual in known else known[0]


def format_of(target: Path) -> str:
    """The format that a file's suffix asks for. Raises ``ImageError`` if there is none that can be written."""
    suffix = target.suffix.lower()
    if suffix == ".png":
        return "PNG"
    extensions, _, writable = _formats()
    if extensions.get(suffix) not in writable:
        what = f"a picture as {suffix!r}" if suffix else "a picture without a suffix"
        raise ImageError(f"cannot write {what}: end the output's name in .png, .jpg, .webp ... or give --format")
    return extensions[suffix]


def check_titok(target: Path) -> None:
    """Raise ``click.UsageError`` unless a file is named as a .titok file is."""
    if not is_titok(target):
        raise click.UsageError(
            f"{shown(target)} is no name for a .titok file: type "
            f"{shown(target.with_suffix('.titok'))}, or -o {shown(target)}/ for a folder."
        )


def check_picture(target: Path) -> None:
    """Raise ``click.UsageError`` unless a file has the suffix of a format that can be written."""
    try:
        format_of(target)
    except ImageError as error:
        raise click.UsageError(f"{shown(target)}: {error}.") from None


def check_not_titok(target: Path) -> None:
    """Raise ``click.UsageError`` if a picture would be named as a .titok file is."""
    if is_titok(target):
        raise click.UsageError(f"{shown(target)} is no name for a picture: end it in .png, .jpg, .webp ...")


def to_bytes(image: Image.Image, name: str) -> bytes:
    """A picture as a file of the format. Raises ``ImageError`` if the format cannot hold it, or not at its size."""
    held = io.BytesIO()
    options: dict[str, Any] = {"quality": 95}  # of lossy formats: what they lose comes on top of our own losses
    if name == "ICO":
        if max(image.size) > 256:
            raise ImageError(f"cannot be written as ICO at {image.width}x{image.height}, only up to 256x256: try PNG")
        options["sizes"] = [image.size]  # else the nearest of a list of sizes
    try:
        image.save(held, name, **options)
    except (OSError, ValueError, KeyError, TypeError, SystemError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"cannot be written as {name}, try PNG ({detail})") from error
    written = _size_of(held, name) or image.size
    if written != image.size:
        raise ImageError(
            f"cannot be written as {name} at {image.width}x{image.height}, only at {written[0]}x{written[1]}: try PNG"
        )
    return held.getvalue()


def _size_of(file: io.BytesIO, name: str) -> tuple[int, int] | None:
    """The size that a picture was written at, as its header says; None if Pillow writes the format, but cannot read it.

    Formats for icons change it without a word.
    """
    from PIL import Image

    from titokcodec.pictures.pillow_guard import PillowLimit

    try:
        with PillowLimit.replaced(None), Image.open(file, formats=[name]) as image:
            return image.size
    except Exception:
        return None
