"""What can be done with a ``.titok`` file without a network: look at it, check it, shorten it. No torch."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from titokcodec.checks import whole
from titokcodec.errors import CorruptFile, ModelMismatch, TitokError
from titokcodec.format import bitstream
from titokcodec.format.bitstream import DEFAULT_MAX_PIXELS, BytesLike, Header
from titokcodec.format.canonical import Spelling, canonical, judge
from titokcodec.weights import releases

if TYPE_CHECKING:
    import numpy as np

    from titokcodec.weights.tokenizers import Weights

FileSource: TypeAlias = "BytesLike | str | os.PathLike[str] | IO[bytes]"

ENTROPY_NAMES = ("packed", "tables", "prior")

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """What a file's header says.

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
    model, fingerprint, intact = "custom", header.fingerprint, None
    try:
        if header.model_id:
            known = releases.by_id(header.model_id)
            model, fingerprint = known.name, known.fingerprint
        bitstream.verify(data, header, offset, fingerprint)
        intact = True
    except ModelMismatch:
        model = f"unknown model {header.model_id}"
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
    try:
        view = memoryview(source)
        return view.cast("B") if view.c_contiguous else view.tobytes()
    except TypeError:
        pass
    if not hasattr(source, "read"):
        raise TitokError(
            "takes a path, an open binary file, or the bytes of a .titok file, not "
            f"{type(source).__name__}: give one of these"
        )
    try:
        return read(source, max_pixels)
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
    head = read_at_most(stream, bitstream.LONGEST_HEADER)
    header, offset = bitstream.parse(head)
    bitstream.check_pixels(header, max_pixels)
    most = 2 * header.tokens * header.tiles  # a code has 16 bits at most
    return read_at_most(stream, offset + most + 1, head)


def read_at_most(stream: IO[bytes], count: int, head: bytes = b"") -> bytes:
    """``head`` and what is left in a stream, up to ``count`` bytes of both.

    Memory is taken as bytes come, not as they are asked for, and never for two copies of them.
    """
    held = io.BytesIO()  # which hands its memory out as it is; joined pieces would be there twice
    held.write(head)
    while held.tell() < count and (piece := stream.read(min(count - held.tell(), _CHUNK))):
        held.write(piece)
    return held.getvalue()


def verify(
    source: FileSource, model: str | os.PathLike | None = None, max_pixels: int | None = DEFAULT_MAX_PIXELS
) -> Spelling:
    """Check all of a file that can be checked without a network: header, checksum, and that tokens have this payload.

    Args:
        source: A whole file: a path, an open binary file, or the bytes.
        model: The weight file that it was made with; needed for a model that is not bundled, if the file is
            entropy-coded with its tables.
        max_pixels: Refuse pictures larger than this; None for no limit.

    Returns:
        Whether the file is canonical. One that is not is whole and good, and yet not what this library writes.

    Raises:
        TitokError: something is wrong with the file, or its tables are not at hand.
    """
    data = data_of(source, max_pixels)
    header, offset = bitstream.parse(data)
    fingerprint = releases.fingerprint_for(header)
    bitstream.verify(data, header, offset, fingerprint)
    bitstream.check_pixels(header, max_pixels)
    return _judged(header, bytes(memoryview(data)[offset:]), fingerprint, model)


def truncate(
    source: FileSource,
    tokens: int,
    model: str | os.PathLike | None = None,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
) -> bytes:
    """The same picture with fewer tokens a tile: a smaller file of lower quality, in its canonical spelling.

    A packed file is cut without its model if that is not bundled; whether tables would make it shorter is then not
    looked at.

    Args:
        source: A whole file made with a nested model: a path, an open binary file, or the bytes.
        tokens: Tokens a tile to keep, at most as many as there are.
        model: The weight file that it was made with; needed for a model that is not bundled, if the file is
            entropy-coded with its tables.
        max_pixels: Refuse pictures larger than this; None for no limit.

    Raises:
        TitokError: the file is damaged or cannot be cut, or its tables are not at hand.
    """
    from titokcodec.format import entropy

    tokens = whole("tokens", tokens)
    data = data_of(source, max_pixels)
    header, offset = bitstream.parse(data)
    bitstream.check_pixels(header, max_pixels)
    fingerprint = releases.fingerprint_for(header)
    bitstream.verify(data, header, offset, fingerprint)
    if not 1 <= tokens <= header.tokens:
        raise TitokError(f"cannot keep {tokens} tokens of {header.tokens}: ask for 1 to {header.tokens}")
    payload = memoryview(data)[offset:]
    tiles = header.tiles
    bits = entropy.code_bits_from_length(len(payload), tiles * header.tokens) if header.mode == entropy.PACKED else None
    weights = None if bits and _absent(fingerprint, model) else _weights(header, fingerprint, model)
    nested = weights.config.nested if weights else header.nested
    if not nested and tokens != header.tokens:
        raise TitokError(f"this file's model needs all {header.tokens} tokens: compress the picture again instead")
    if weights:
        rows = _tokens(header, payload, weights)
        mode, shorter = entropy.encode(rows[:, :tokens], weights.config.codes, weights.tables)
    else:
        mode, shorter = header.mode, entropy.truncate_packed(payload, tiles, header.tokens, tokens, bits)
    cut = canonical(replace(header, tokens=tokens, mode=mode), fingerprint, nested)
    return bitstream.pack(cut, shorter, fingerprint)


def _judged(header: Header, payload: bytes, fingerprint: bytes, model: str | os.PathLike | None) -> Spelling:
    """How a file is written. Raises ``CorruptFile`` unless some tokens have this payload, and no other in this mode."""
    from titokcodec.format import entropy

    if header.mode != entropy.PACKED or not _absent(fingerprint, model):
        weights = _weights(header, fingerprint, model)
        rows = _tokens(header, payload, weights)
        mode, _ = entropy.encode(rows, weights.config.codes, weights.tables)
        return judge(header, fingerprint, weights.config.nested, mode)
    tiles = header.tiles
    count = tiles * header.tokens
    if all(entropy.packed_size(count, 1 << bits) != len(payload) for bits in range(1, 17)):
        raise CorruptFile(f"payload has {len(payload)} bytes, which no {count} packed tokens have; get it again")
    bits = entropy.code_bits_from_length(len(payload), count)
    if bits and entropy.truncate_packed(payload, tiles, header.tokens, header.tokens, bits) != payload:
        raise CorruptFile("padding bits behind the last token are not zero; get the file again")
    return judge(header, fingerprint)


def _tokens(header: Header, payload: BytesLike, weights: Weights) -> np.ndarray:
    """(tiles, K) tokens of a payload that the model can draw."""
    from titokcodec.format import entropy

    weights.config.check_depth(header.tokens)
    tiles = header.tiles
    return entropy.decode(payload, header.mode, tiles, header.tokens, weights.config.codes, weights.tables)


def _absent(fingerprint: bytes, model: str | os.PathLike | None) -> bool:
    """Nobody has named a weight file, and the bundled one is another model's."""
    return model is None and not any(known.file for known in releases.RELEASES if known.fingerprint == fingerprint)


def _weights(header: Header, fingerprint: bytes, model: str | os.PathLike | None) -> Weights:
    """The weight file for a header, if it is the right one."""
    from titokcodec.weights.tokenizers import locate

    if model is None and not releases.id_of(fingerprint):
        raise ModelMismatch("the file was made with a custom model: name its weight file, with --model or model=")
    path = locate(model)
    stat = path.stat()
    weights = _read_weights(path, stat.st_mtime_ns, stat.st_size)
    if weights.fingerprint != fingerprint:
        raise mismatch(header, fingerprint, weights)
    return weights


@lru_cache(maxsize=2)
def _read_weights(path: Path, *stamp: int) -> Weights:
    """Opening hashes the whole file: many pictures of one model share that. ``stamp`` tells a changed file."""
    from titokcodec.weights.tokenizers import read

    return read(path)


def mismatch(header: Header, needed: bytes, weights: Weights) -> ModelMismatch:
    """The error for a file whose model is not the one at hand."""
    if header.model_id:
        which = f"the released model {releases.by_id(header.model_id).name!r}"
    else:
        which = f"the custom model with fingerprint {needed.hex()}"
    return ModelMismatch(
        f"the file needs {which}, but this is {weights.name!r} ({weights.fingerprint.hex()}): "
        "give that one's weight file (--model FILE, or Codec.from_pretrained(FILE))"
    )
