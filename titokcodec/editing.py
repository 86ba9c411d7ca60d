"""Checking and shortening whole files without a network: header, checksum and payload, with their model's tables."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from titokcodec.checks import whole
from titokcodec.errors import ModelMismatch, TitokError
from titokcodec.files import FileSource, data_of
from titokcodec.format import bitstream, entropy
from titokcodec.format.canonical import Spelling, canonical, judge
from titokcodec.format.header import Header
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, BytesLike
from titokcodec.packing import mismatch
from titokcodec.weights import releases, tokenizers
from titokcodec.weights.tokenizers import Weights


def verify(
    source: FileSource, model: str | os.PathLike[str] | None = None, max_pixels: int | None = DEFAULT_MAX_PIXELS
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
    header, payload, fingerprint = _open(source, max_pixels)
    if header.mode == entropy.PACKED and _unavailable(fingerprint, model):
        entropy.check_packed(payload, header.tiles, header.tokens)
        return judge(header, fingerprint)
    weights = _weights(header, fingerprint, model)
    mode, _ = entropy.encode(_tokens(header, payload, weights), weights.config.codes, weights.tables)
    return judge(header, fingerprint, weights.config.nested, mode)


def truncate(
    source: FileSource,
    tokens: int,
    model: str | os.PathLike[str] | None = None,
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
    tokens = whole("tokens", tokens)
    header, payload, fingerprint = _open(source, max_pixels)
    if not 1 <= tokens <= header.tokens:
        raise TitokError(f"cannot keep {tokens} tokens of {header.tokens}: ask for 1 to {header.tokens}")
    count = header.tiles * header.tokens
    bits = entropy.code_bits_from_length(len(payload), count) if header.mode == entropy.PACKED else None
    if bits and _unavailable(fingerprint, model):
        nested = header.nested
        _check_nested(nested, header.tokens, tokens)
        mode, shorter = header.mode, entropy.truncate_packed(payload, header.tiles, header.tokens, tokens, bits)
    else:
        weights = _weights(header, fingerprint, model)
        nested = weights.config.nested
        _check_nested(nested, header.tokens, tokens)
        kept = _tokens(header, payload, weights)[:, :tokens]
        mode, shorter = entropy.encode(kept, weights.config.codes, weights.tables)
    cut = canonical(replace(header, tokens=tokens, mode=mode), fingerprint, nested)
    return bitstream.pack(cut, shorter, fingerprint)


def _open(source: FileSource, max_pixels: int | None) -> tuple[Header, bytes, bytes]:
    """Header, payload and the model's fingerprint of a file whose size and checksum are right."""
    data = data_of(source, max_pixels)
    header, offset = bitstream.parse(data)
    bitstream.check_pixels(header, max_pixels)
    fingerprint = releases.fingerprint_for(header)
    bitstream.verify(data, header, offset, fingerprint)
    return header, bytes(memoryview(data)[offset:]), fingerprint


def _check_nested(nested: bool, tokens: int, keep: int) -> None:
    if not nested and keep != tokens:
        raise TitokError(f"this file's model needs all {tokens} tokens: compress the picture again instead")


def _tokens(header: Header, payload: BytesLike, weights: Weights) -> np.ndarray:
    """(tiles, K) tokens of a payload, as many as the model can decode."""
    weights.config.check_depth(header.tokens)
    tiles = header.tiles
    return entropy.decode(payload, header.mode, tiles, header.tokens, weights.config.codes, weights.tables)


def _unavailable(fingerprint: bytes, model: str | os.PathLike[str] | None) -> bool:
    """No weight file is given, and the bundled one is of another model."""
    return model is None and not any(known.file for known in releases.RELEASES if known.fingerprint == fingerprint)


def _weights(header: Header, fingerprint: bytes, model: str | os.PathLike[str] | None) -> Weights:
    """The weight file for a header, if it is the right one."""
    if model is None and not releases.id_of(fingerprint):
        raise ModelMismatch("the file was made with a custom model: name its weight file, with --model or model=")
    path = tokenizers.locate(model)
    stat = path.stat()
    weights = _read_weights(path, stat.st_mtime_ns, stat.st_size)
    if weights.fingerprint != fingerprint:
        raise mismatch(header, fingerprint, weights)
    return weights


@lru_cache(maxsize=2)
def _read_weights(path: Path, *stamp: int) -> Weights:
    """The last two weight files: opening one hashes all of it. A changed file has another ``stamp``."""
    return tokenizers.read(path)
