"""Reading ``.titok`` files, and what their headers say. No network, no tokens: neither numpy nor torch is imported."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from titokcodec.errors import ModelMismatch, TitokError
from titokcodec.format import bitstream
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, LONGEST_HEADER, BytesLike
from titokcodec.weights import releases

FileSource: TypeAlias = "BytesLike | str | os.PathLike[str] | IO[bytes]"

ENTROPY_NAMES = ("packed", "tables", "prior")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """What a file's header says, and its size.

    Attributes:
        width, height: Size of the picture in pixels.
        grey: It decodes to a greyscale picture.
        layout: ``tile`` or ``fit``.
        columns, rows, tiles: Numbers of 256x256 tiles across, down, and of all of them.
        tokens: Tokens a tile.
        nested: It can be truncated.
        entropy: How the payload is coded: ``packed``, ``tables`` or ``prior``.
        model: Name of the released model, or ``custom``.
        fingerprint: The model's, 16 hexadecimal digits; None if this version does not know the model.
        bytes, payload: Sizes of the file and of its payload.
        version: Of the format: 2 for what is tiled, else 1; tiled pictures of version 1 are no longer written.
        intact: The checksum holds; None if it cannot be checked because the model is unknown.
    """

    width: int
    height: int
    grey: bool
    layout: str
    columns: int
    rows: int
    tiles: int
    tokens: int
    nested: bool
    entropy: str
    model: str
    fingerprint: str | None
    bytes: int
    payload: int
    intact: bool | None
    version: int

    @property
    def bits_per_pixel(self) -> float:
        """Size of the whole file against the picture's pixels."""
        return 8 * self.bytes / (self.width * self.height)


def info(source: FileSource, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> FileInfo:
    """Read the header of a whole file, and check it against its checksum.

    Args:
        source: A path, an open binary file, or the bytes.
        max_pixels: What is not in memory yet is not read if it claims more pixels than this; None for no limit.

    Raises:
        TitokError: it is not a ``.titok`` file, one of another version, or cannot be read. A wrong checksum is not an
            error here.
    """
    data = data_of(source, max_pixels)
    header, offset = bitstream.parse(data)
    model, fingerprint, intact = releases.name_of(header), header.fingerprint, None
    try:
        fingerprint = releases.fingerprint_for(header)
        bitstream.verify(data, header, offset, fingerprint)
        intact = True
    except ModelMismatch:
        pass  # a released model that this version does not know
    except TitokError:
        intact = False
    return FileInfo(
        width=header.width,
        height=header.height,
        grey=header.grey,
        layout=header.layout,
        columns=header.tiling.columns,
        rows=header.tiling.rows,
        tiles=header.tiles,
        tokens=header.tokens,
        nested=header.nested,
        version=header.version,
        entropy=ENTROPY_NAMES[header.mode],
        model=model,
        fingerprint=fingerprint.hex() if fingerprint else None,
        bytes=len(data),
        payload=len(data) - offset,
        intact=intact,
    )


def data_of(source: FileSource, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> BytesLike:
    """The bytes of a file, however it is handed in: those of a path or an open binary file are read, as ``read`` does.

    Raises:
        TitokError: it cannot be read, is not a ``.titok`` file or too large a picture, or ``source`` is something else.
    """
    if isinstance(source, bytes | bytearray):
        return source
    if isinstance(source, str | os.PathLike):
        return _from_path(source, max_pixels)
    given: Any = source
    try:
        view = memoryview(given)
        return view.cast("B") if view.c_contiguous else view.tobytes()
    except TypeError:
        pass
    if not hasattr(given, "read"):
        raise TitokError(
            "takes a path, an open binary file, or the bytes of a .titok file, not "
            f"{type(source).__name__}: give one of these"
        )
    try:
        return read(given, max_pixels)
    except (OSError, TypeError) as error:  # a text file gives str
        raise TitokError(f"cannot be read, open a .titok file in binary mode: {error}") from error


def _from_path(path: str | os.PathLike[str], max_pixels: int | None) -> bytes:
    shown = repr(os.fspath(path))
    try:
        with open(path, "rb") as stream:
            return read(stream, max_pixels)
    except FileNotFoundError as error:
        raise TitokError(f"{shown}: no such file; check the path") from error
    except OSError as error:
        raise TitokError(f"{shown}: cannot be read ({error.strerror or error}); check the path") from error
    except TitokError as error:
        raise type(error)(f"{shown}: {error}") from error
    except ValueError as error:  # a path with a null character
        raise TitokError(f"{shown}: is no path ({error}); check it") from error


def read(stream: IO[bytes], max_pixels: int | None = DEFAULT_MAX_PIXELS) -> bytes:
    """One file from an open binary stream, and never more than its own header can account for (plus one byte).

    So something endless, or a file with gigabytes behind it, costs no memory: it fails its checksum.

    Raises:
        TitokError: it is not a ``.titok`` file, or claims more pixels or tiles than ``max_pixels`` allows.
        OSError: it cannot be read.
    """
    head = read_at_most(stream, LONGEST_HEADER)
    header, offset = bitstream.parse(head)
    bitstream.check_pixels(header, max_pixels)
    most = 2 * header.tokens * header.tiles  # a code has 16 bits at most
    return read_at_most(stream, offset + most + 1, head)


def read_at_most(stream: IO[bytes], count: int, head: bytes = b"") -> bytes:
    """``head`` and the rest of a stream, ``count`` bytes of both together at most.

    Memory grows with the bytes that arrive, not with those that are asked for, and there is never a second copy.
    """
    held = io.BytesIO()  # its getvalue does not copy; joining pieces would
    held.write(head)
    while held.tell() < count and (piece := stream.read(min(count - held.tell(), _CHUNK))):
        held.write(piece)
    return held.getvalue()
