"""Tokens to bytes and back, exactly: bit packing and range coding with integer frequency tables. No torch.

Tokens are an integer array of shape (tiles, K), values 0 to N - 1. They are written token-major: token 0 of every tile,
then token 1 of every tile, and so on, so that the first bytes of a payload describe the whole picture.

- Mode 0, packed: ceil(log2 N) bits a token, most significant bit first, the last byte filled up with zero bits.
- Mode 1, tables: a range coder (:mod:`titokcodec.format.rangecoder`) with static integer frequencies
  (:class:`titokcodec.format.frequencies.FrequencyTables`). The stream is the shortest string of bytes whose
  continuation with zeros lies in the coder's final interval (of several, the smallest), so it needs no length, no end
  mark and no padding, and each array of tokens has exactly one.
- Mode 2 is reserved for an integer prior.

The same tokens give the same bytes on every machine, and the other way round, because only integers reach the coder:
no probability is ever computed in floating point. (``constriction`` takes its tables as float64, but integers below
2**53 are exact there, and a row that sums to 2**24 - N is scaled by exactly 1.)

What is *not* detected here: a range coder decodes damaged bytes to other tokens without noticing, most of the time.
The container's checksum is there for that; the check that a stream re-encodes to itself is only a second net.
"""

from __future__ import annotations

import numpy as np

from titokcodec.errors import CorruptFile, ModelMismatch, TitokError, UnsupportedFile
from titokcodec.format import rangecoder
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.format.limits import MAX_CODEBOOK_SIZE, MAX_TOKENS, BytesLike

PACKED, TABLES, PRIOR = 0, 1, 2  # the entropy modes of the header


def encode(tokens: np.ndarray, codebook_size: int, tables: FrequencyTables | None = None) -> tuple[int, bytes]:
    """Write tokens in the shortest way there is; packing wins a tie.

    Args:
        tokens: integer array (tiles, K) of values 0 to ``codebook_size`` - 1, K 1 to 256.
        codebook_size: N, 2 to 65536.
        tables: the model's frequency tables, if it has any.

    Returns:
        The entropy mode and the payload.

    Raises:
        ModelMismatch: the tables do not fit the codebook or have too few rows.
        TitokError: the tokens are no such array.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
        raise TitokError(f"tokens are {tokens.dtype} {tokens.shape}; give an integer array (tiles, K)")
    tiles, length = tokens.shape
    _check_sizes(tiles, length, codebook_size)
    flat = np.ascontiguousarray(tokens.T, dtype=np.int64).reshape(-1)
    # Negative numbers are huge as unsigned ones: one pass finds both kinds of bad token.
    if int(flat.view(np.uint64).max()) >= codebook_size:
        raise TitokError(f"tokens reach from {flat.min()} to {flat.max()}; give values 0 to {codebook_size - 1}")
    if tables is not None:
        _check_tables(tables, length, codebook_size)
        payload = rangecoder.encode(flat.astype(np.int32), tiles, tables)
        if len(payload) < packed_size(flat.size, codebook_size):
            return TABLES, payload
    return PACKED, _pack_bits(flat, _code_bits(codebook_size))


def decode(
    payload: BytesLike, mode: int, tiles: int, tokens: int, codebook_size: int, tables: FrequencyTables | None = None
) -> np.ndarray:
    """Read a whole payload.

    A payload of the wrong length is refused before memory for the tokens is taken. A short mode-1 payload may rightly
    stand for very many tokens, so the caller limits ``tiles`` (as :func:`titokcodec.format.bitstream.check_pixels`
    does).

    Args:
        payload: exactly the bytes that :func:`encode` returned.
        mode: the entropy mode that came with them.
        tiles, tokens: the shape (tiles, K) of the tokens.
        codebook_size, tables: as given to :func:`encode`.

    Returns:
        int64 array (tiles, K) of values 0 to ``codebook_size`` - 1.

    Raises:
        CorruptFile: no tokens have this payload.
        ModelMismatch: the payload needs tables that the model lacks, or others.
        UnsupportedFile: the mode is not known to this version of the library.
    """
    _check_sizes(tiles, tokens, codebook_size)
    _check_mode(mode, tokens, codebook_size, tables)
    count, payload = tiles * tokens, bytes(payload)
    packed = packed_size(count, codebook_size)
    if mode == PACKED:
        if len(payload) != packed:
            raise CorruptFile(f"payload has {len(payload)} bytes, {count} packed tokens need {packed}; get it again")
        bits = _code_bits(codebook_size)
        if payload[-1] & _padding_mask(count * bits):
            raise CorruptFile("padding bits behind the last token are not zero; get the file again")
        flat = _unpack_bits(payload, count, bits)
        if int(flat.max()) >= codebook_size:
            raise CorruptFile(f"payload holds token {flat.max()}, the codebook ends at {codebook_size - 1}")
    else:
        if len(payload) >= packed:
            raise CorruptFile(f"payload has {len(payload)} bytes, {count} tokens need less than {packed}; get it again")
        flat = rangecoder.guarded(rangecoder.decode, payload, tiles, tokens, tables)
        if rangecoder.guarded(rangecoder.encode, flat, tiles, tables) != payload:
            raise CorruptFile("payload is not what its own tokens encode to; get the file again")
    return np.ascontiguousarray(flat.reshape(tokens, tiles).T, dtype=np.int64)


def decode_prefix(
    payload_part: BytesLike,
    mode: int,
    tiles: int,
    tokens: int,
    codebook_size: int,
    tables: FrequencyTables | None = None,
) -> np.ndarray:
    """Read what the first bytes of a payload already say for certain.

    Never raises for bytes that are missing, left over or damaged. Takes time and memory in proportion to the bytes,
    whatever shape is claimed (at most some 350 tokens a byte with tables of :meth:`FrequencyTables.from_counts`). As
    a part cannot know that it is the whole, the last few tokens of a whole mode-1 payload may be left out; use
    :func:`decode` on whole ones.

    Args:
        payload_part: the beginning of a payload, possibly empty.
        mode, tiles, tokens, codebook_size, tables: as for :func:`decode`.

    Returns:
        int64 array (tiles, k), 0 <= k <= ``tokens``: the token positions that have arrived for every tile, the same
        for every way in which the payload may go on.

    Raises:
        ModelMismatch, UnsupportedFile: as for :func:`decode`.
    """
    _check_sizes(tiles, tokens, codebook_size)
    _check_mode(mode, tokens, codebook_size, tables)
    part = bytes(payload_part)
    if mode == PACKED:
        bits = _code_bits(codebook_size)
        flat = _unpack_bits(part, min(tiles * tokens, len(part) * 8 // bits), bits)
        bad = flat >= codebook_size
        flat = flat[: bad.argmax()] if bad.any() else flat
    else:
        flat = rangecoder.certain_tokens(part, tiles, tokens, _needed(tables))
    known = flat.size // tiles
    return np.ascontiguousarray(flat[: known * tiles].reshape(known, tiles).T, dtype=np.int64)


def packed_size(count: int, codebook_size: int) -> int:
    """Bytes that ``count`` tokens take in mode 0."""
    return -(-count * _code_bits(codebook_size) // 8)


def code_bits_from_length(length: int, count: int) -> int | None:
    """Bits a token in a mode-0 payload of ``length`` bytes for ``count`` tokens; None where that is not certain.

    From 8 tokens on there is at most one answer, so such a payload can be cut with no model at hand.
    """
    fitting = [bits for bits in range(1, 17) if -(-count * bits // 8) == length]
    return fitting[0] if len(fitting) == 1 else None


def check_packed(payload: bytes, tiles: int, tokens: int) -> None:
    """Check a mode-0 payload of shape (tiles, ``tokens``) as far as that goes without knowing the size of its codebook.

    Raises:
        CorruptFile: no size of codebook gives a payload of this length, or the padding bits are not zero.
    """
    count = tiles * tokens
    if all(packed_size(count, 1 << bits) != len(payload) for bits in range(1, 17)):
        raise CorruptFile(f"payload has {len(payload)} bytes, which no {count} packed tokens have; get it again")
    bits = code_bits_from_length(len(payload), count)
    if bits and truncate_packed(payload, tiles, tokens, tokens, bits) != payload:
        raise CorruptFile("padding bits behind the last token are not zero; get the file again")


def truncate_packed(payload: bytes, tiles: int, tokens: int, keep: int, bits: int) -> bytes:
    """Cut a mode-0 payload of shape (tiles, ``tokens``) down to the first ``keep`` tokens of every tile.

    Args:
        payload: the whole payload.
        bits: bits a token, 1 to 16 (see :func:`code_bits_from_length`).

    Raises:
        CorruptFile: the payload does not have the length that the numbers ask for.
        TitokError: ``keep`` is not in 1 to ``tokens``.
    """
    if not 1 <= keep <= tokens:
        raise TitokError(f"cannot keep {keep} of {tokens} tokens; give 1 to {tokens}")
    if len(payload) != -(-tiles * tokens * bits // 8):
        raise CorruptFile(f"payload has {len(payload)} bytes, not those of {tiles * tokens} tokens of {bits} bits")
    kept_bits = tiles * keep * bits
    kept = bytearray(payload[: -(-kept_bits // 8)])
    kept[-1] &= ~_padding_mask(kept_bits)
    return bytes(kept)


def _code_bits(codebook_size: int) -> int:
    return (codebook_size - 1).bit_length()


def _padding_mask(bits: int) -> int:
    """The bits of the last byte that ``bits`` bits of content leave over."""
    return (1 << (-bits % 8)) - 1


def _pack_bits(flat: np.ndarray, bits: int) -> bytes:
    spread = np.unpackbits(flat.astype(">u2").view(np.uint8)).reshape(-1, 16)
    return np.packbits(spread[:, 16 - bits :]).tobytes()


def _unpack_bits(payload: bytes, count: int, bits: int) -> np.ndarray:
    spread = np.zeros((count, 16), np.uint8)
    spread[:, 16 - bits :] = np.unpackbits(np.frombuffer(payload, np.uint8), count=count * bits).reshape(count, bits)
    return np.packbits(spread).view(">u2").astype(np.int64)


def _check_sizes(tiles: int, tokens: int, codebook_size: int) -> None:
    if tiles < 1 or not 1 <= tokens <= MAX_TOKENS or not 2 <= codebook_size <= MAX_CODEBOOK_SIZE:
        raise TitokError(
            f"{tiles} tiles of {tokens} tokens of {codebook_size} codes; give 1 or more, 1 to {MAX_TOKENS}, 2 to 65536"
        )


def _check_mode(mode: int, tokens: int, codebook_size: int, tables: FrequencyTables | None) -> None:
    if mode not in (PACKED, TABLES):
        raise UnsupportedFile(f"entropy mode {mode} needs a newer library; upgrade titokcodec")
    if mode == TABLES:
        _check_tables(_needed(tables), tokens, codebook_size)


def _needed(tables: FrequencyTables | None) -> FrequencyTables:
    if tables is None:
        raise ModelMismatch("file is coded with frequency tables and this model has none; load the file's model")
    return tables


def _check_tables(tables: FrequencyTables, tokens: int, codebook_size: int) -> None:
    if tables.codebook_size != codebook_size:
        raise ModelMismatch(f"tables are for {tables.codebook_size} codes, not {codebook_size}; use the model's own")
    if tables.positions is not None and tokens > tables.positions:
        raise ModelMismatch(f"tables have rows for {tables.positions} tokens, not {tokens}; use fewer tokens")
