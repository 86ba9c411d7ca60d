"""Picture files as the commands see them: which files are pictures, and how to write one."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from titokcodec.errors import ImageError
from titokcodec.io import kinds
from titokcodec.io.atomic import is_stream
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from PIL import Image

_OURS = {"TITOK"}  # for the commands not a picture format, even if the Pillow plugin is registered in this process

# Cameras' own formats, and others that Pillow does not know, or only with a plugin.
# fmt: off
_FOREIGN = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".exr", ".hdr", ".heic", ".heif",
    ".hif", ".jxl", ".jxr", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2",
    ".sr2", ".srf", ".srw", ".svg", ".svgz", ".x3f", ".xcf",
))
# fmt: on
_NO_PICTURES = frozenset((".bufr", ".grib", ".h5", ".hdf", ".mpeg", ".mpg", ".palm", ".pdf", ".ps"))


class PictureFormat(NamedTuple):
    """A format that Pillow writes: its name there, and the suffix of its files."""

    name: str
    suffix: str


PNG = PictureFormat("PNG", ".png")


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
    """Whether a file has the suffix of pictures that are not read here, so that leaving it out is to be reported."""
    suffix, (extensions, readable, _) = path.suffix.lower(), _formats()
    if extensions.get(suffix) in readable | _OURS or suffix in _NO_PICTURES:
        return False
    return suffix in _FOREIGN or suffix in extensions


def is_titok(path: Path) -> bool:
    return path.suffix.lower() == ".titok"


def is_picture_inside(path: Path) -> bool:
    """Whether a file is a picture, by its first bytes."""
    with suppress(OSError), path.open("rb") as file:
        kind = kinds.kind_of(file.read(kinds.HEAD))
        return kind is not None and kind.format is not None
    return False


def format_named(name: str) -> PictureFormat:
    """The format with a name such as JPEG, or with a suffix such as jpg. Raises ``ImageError`` if Pillow cannot write
    it."""
    if name.upper() == PNG.name:  # the usual case, without loading all of Pillow's plugins
        return PNG
    extensions, _, writable = _formats()
    usual = f".{name.lower()}"
    known = [suffix for suffix, of in extensions.items() if of == name.upper() and of in writable]
    if known:
        return PictureFormat(name.upper(), usual if usual in known else known[0])
    if extensions.get(usual) in writable:
        return PictureFormat(extensions[usual], usual)
    raise ImageError(f"no format {name!r} to write: take one that Pillow has, such as PNG, JPEG or WEBP")


def format_of(target: Path | None) -> str:
    """The name of the format that a file's suffix asks for; of standard output (None), devices and pipes it is PNG.

    Raises:
        ImageError: it has no suffix of a format that can be written.
    """
    suffix = target.suffix.lower() if target and not is_stream(target) else PNG.suffix
    if suffix == PNG.suffix:
        return PNG.name
    extensions, _, writable = _formats()
    if extensions.get(suffix) not in writable:
        what = f"a picture as {suffix!r}" if suffix else "a picture without a suffix"
        raise ImageError(f"cannot write {what}: end the output's name in .png, .jpg, .webp ... or give --format")
    return extensions[suffix]


def check_titok(target: Path) -> None:
    """Raise ``click.UsageError`` unless a file has the suffix .titok."""
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
    """Raise ``click.UsageError`` if a picture would have the suffix .titok."""
    if is_titok(target):
        raise click.UsageError(f"{shown(target)} is no name for a picture: end it in .png, .jpg, .webp ...")


def to_bytes(image: Image.Image, name: str) -> bytes:
    """A picture as a file of the format. Raises ``ImageError`` if the format cannot hold it, or not at its size."""
    held = io.BytesIO()
    options: dict[str, Any] = {"quality": 95}  # of lossy formats, whose losses add to our own
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
    """The size that a picture was written at, from its header; None if Pillow writes the format, but cannot read it.

    Formats for icons change it without a word.
    """
    from PIL import Image

    from titokcodec.pictures.pillow_guard import PillowLimit

    try:
        with PillowLimit.replaced(None), Image.open(file, formats=[name]) as image:
            return image.size
    except Exception:
        return None
