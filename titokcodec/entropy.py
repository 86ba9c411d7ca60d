"""Tokens to bytes and back, exactly: bit packing and range coding with integer frequency tables. No torch.

Tokens are an integer array of shape (tiles, K), values 0 to N - 1. They are written token-major: token 0 of every tile,
then token 1 of every tile, and so on, so that the first bytes of a payload describe the whole picture.

- Mode 0, packed: ceil(log2 N) bits a token, most significant bit first, the last byte filled up with zero bits.
- Mode 1, tables: a range coder with static integer frequencies (:class:`FrequencyTables`). The stream is the shortest
  string of bytes whose continuation with zeros lies in the coder's final interval (of several, the smallest), so
  it needs no length, no end mark and no padding, and each array of tokens has exactly one.
- Mode 2 is reserved for an integer prior.

The same tokens give the same bytes on every machine, and the other way round, because only integers reach the coder:
no probability is ever computed in floating point. (``constriction`` takes its tables as float64, but integers below
2**53 are exact there, and a row that sums to 2**24 - N is scaled by exactly 1.)

What is *not* detected here: a range coder decodes damaged bytes to other tokens without noticing, most of the time.
The container's checksum is there for that; the check that a stream re-encodes to itself is only a second net.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from titokcodec.errors import CorruptFile, ModelMismatch, TitokError, UnsupportedFile, WeightsError

PACKED, TABLES, PRIOR = 0, 1, 2  # the entropy modes of the header
MAX_CODEBOOK_SIZE = 65536
MAX_TOKENS = 256

_TOTAL = 2**24  # the range coder's probabilities have 24 bits
_STATE_MASK = 2**64 - 1
_CHUNK = 4096  # tokens decoded at a time where we may have to stop early
_BEYOND = 16  # bytes appended to a cut stream: more than the coder's state looks ahead


class FrequencyTables:
    """Static integer frequencies of the codes, shared by all token positions or one row for each.

    A stored frequency q is coded as q + 1 out of 2**24: every code can be written, also one never seen in training.
    Objects can be pickled and shared between threads; the coder's own tables are built at first use of a row.

    Args:
        frequencies: integer array (P, N), not negative, each row summing to 2**24 - N exactly. P = 1 serves every
            position; otherwise row p serves position p, and at most P tokens can be coded. P is at most 256, N is 2
            to 65536.

    Raises:
        WeightsError: the array is anything else.
    """

    def __init__(self, frequencies: np.ndarray) -> None:
        array = np.asarray(frequencies)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise WeightsError(f"frequency tables are {array.dtype} {array.shape}; give an integer array (P, N)")
        rows, size = array.shape
        if not (1 <= rows <= MAX_TOKENS and 2 <= size <= MAX_CODEBOOK_SIZE):
            raise WeightsError(f"frequency tables are {rows} x {size}; P is 1 to {MAX_TOKENS}, N 2 to 65536")
        # In range first, so that the sums below cannot wrap around.
        if array.min() < 0 or array.max() > _TOTAL or (array.sum(1, dtype=np.int64) != _TOTAL - size).any():
            raise WeightsError(f"a frequency row does not sum to 2**24 - {size}; make tables with from_counts")
        self.frequencies = np.array(array, dtype=np.uint32, order="C")
        self.frequencies.setflags(write=False)
        self._models: list[Any] = [None] * rows

    @classmethod
    def from_counts(cls, counts: np.ndarray, max_extra_bits: int = 6) -> FrequencyTables:
        """Tables for codes that were seen ``counts`` times, by integer arithmetic alone.

        Each code first gets a uniform share, so that none ever costs more than log2(N) + ``max_extra_bits`` bits; that
        takes 2**-max_extra_bits of all probability and so costs every token -log2(1 - 2**-max_extra_bits) bits (0.023
        at 6). The rest is divided in proportion to the counts: rounded down, then one more for the largest
        remainders, the lower code first among equals. A row with no counts becomes uniform.

        Args:
            counts: integer array (P, N), not negative, each row summing to less than 2**38.
            max_extra_bits: 1 to 24.

        Raises:
            WeightsError: the counts are anything else.
        """
        array = np.asarray(counts)
        if array.ndim != 2 or array.dtype.kind not in "iu" or not 2 <= array.shape[1] <= MAX_CODEBOOK_SIZE:
            raise WeightsError(f"counts are {array.dtype} {array.shape}; give an integer array (P, N), N 2 to 65536")
        if array.size and (array.min() < 0 or array.max() >= 2**38 or array.sum(1, dtype=np.int64).max() >= 2**38):
            raise WeightsError("a row of counts is negative or sums to 2**38 or more; scale the counts down")
        if not 1 <= max_extra_bits <= 24:
            raise WeightsError(f"max_extra_bits is {max_extra_bits}; give 1 to 24")
        return cls(np.array([_quantise(row, max_extra_bits) for row in array.astype(np.int64)], ndmin=2))

    @property
    def positions(self) -> int | None:
        """How many token positions there are rows for; None if one row serves any number."""
        return None if self.shared else len(self.frequencies)

    @property
    def codebook_size(self) -> int:
        """N, the number of codes."""
        return self.frequencies.shape[1]

    @property
    def shared(self) -> bool:
        """Whether one row serves every position."""
        return len(self.frequencies) == 1

    def models(self, tokens: int) -> list[Any]:
        """The coder's models for the first ``tokens`` positions; one if the row is shared."""
        rows = self._models[: 1 if self.shared else tokens]
        if None in rows:
            rows = self._models[: len(rows)] = [self._build(row) for row in self.frequencies[: len(rows)]]
        return rows

    @staticmethod
    def _build(row: np.ndarray) -> Any:
        # perfect=False is part of the file format: only then is q coded as exactly q + 1. Float64 is, too: float32
        # rows can make the coder panic.
        return _stream().model.Categorical(row.astype(np.float64), perfect=False)

    def __reduce__(self) -> tuple[type, tuple[np.ndarray]]:
        return FrequencyTables, (self.frequencies,)  # the coder's models cannot be pickled, but be built again


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
        payload = _encode_tables(flat.astype(np.int32), tiles, tables)
        if len(payload) < packed_size(flat.size, codebook_size):
            return TABLES, payload
    return PACKED, _pack_bits(flat, _code_bits(codebook_size))


def decode(
    payload: bytes, mode: int, tiles: int, tokens: int, codebook_size: int, tables: FrequencyTables | None = None
) -> np.ndarray:
    """Read a whole payload.

    A payload of the wrong length is refused before memory for the tokens is taken. A short mode-1 payload may rightly
    stand for very many tokens, so the caller limits ``tiles`` (as :func:`titokcodec.bitstream.check_pixels` does).

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
        flat = _run_coder(_decode_tables, payload, tiles, tokens, tables)
        if _run_coder(_encode_tables, flat, tiles, tables) != payload:
            raise CorruptFile("payload is not what its own tokens encode to; get the file again")
    return np.ascontiguousarray(flat.reshape(tokens, tiles).T, dtype=np.int64)


def decode_prefix(
    payload_part: bytes, mode: int, tiles: int, tokens: int, codebook_size: int, tables: FrequencyTables | None = None
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
        flat = _certain_tokens(part, tiles, tokens, tables)
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


# -- mode 0 ---------------------------------------------------------------------------------------------------


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


# -- mode 1 ---------------------------------------------------------------------------------------------------


@functools.cache
def _stream() -> Any:
    from constriction import stream  # here, so that reading a header does not load it

    return stream


def _run_coder(function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function``; what the coder throws at damaged bytes becomes CorruptFile. The only place that catches it."""
    try:
        return function(*args)
    except (AssertionError, ValueError):
        pass
    except BaseException as error:
        # The coder's Rust panics derive from BaseException, and their class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
    raise CorruptFile("payload cannot come from these frequency tables; get the file again")


def _encode_tables(flat: np.ndarray, tiles: int, tables: FrequencyTables) -> bytes:
    """Range-code token-major int32 tokens."""
    encoder = _stream().queue.RangeEncoder()
    models = tables.models(flat.size // tiles)
    if tables.shared:
        encoder.encode(flat, models[0])
    else:
        # For one tile, plain numbers are several times faster than arrays of one.
        for row, model in zip(flat.tolist() if tiles == 1 else flat.reshape(-1, tiles), models, strict=True):
            encoder.encode(row, model)
    return _shortest_tail(encoder)


def _shortest_tail(encoder: Any) -> bytes:
    """The fewest bytes whose continuation with zeros lies in the encoder's final interval [low, low + width)."""
    words = encoder.get_compressed()
    position, (lower, width) = encoder.pos()
    # In units of the state's last bit the stream so far has position + 2 words. The encoder's own, longer ending is
    # a value in the interval; only the last 64 bits of the interval's start are given, and width is below 2**64.
    size = 4 * (position + 2)
    value = int.from_bytes(words.astype(">u4").tobytes(), "big") << 8 * size - 32 * len(words)
    low = value - (value - lower & _STATE_MASK)
    tail = low & _STATE_MASK
    for shift in range(64, -8, -8):
        rounded_up = -(-tail >> shift) << shift
        if rounded_up - tail < width:
            break
    return (low - tail + rounded_up).to_bytes(size, "big").rstrip(b"\0")


def _decoder(payload: bytes) -> Any:
    """A range decoder; it reads zeros past the end of ``payload``."""
    padded = payload + bytes(-len(payload) % 4)
    return _stream().queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def _decode_tables(payload: bytes, tiles: int, tokens: int, tables: FrequencyTables) -> np.ndarray:
    decoder = _decoder(payload)
    models = tables.models(tokens)
    if tables.shared:
        return decoder.decode(models[0], tiles * tokens)
    if tiles == 1:
        return np.array([decoder.decode(model) for model in models], np.int32)
    return np.concatenate([decoder.decode(model, tiles) for model in models])


def _certain_tokens(part: bytes, tiles: int, tokens: int, tables: FrequencyTables) -> np.ndarray:
    """The tokens on which the lowest and the highest continuation of ``part`` agree.

    Coded intervals are connected, so what holds for both ends of the range of continuations holds between them.
    """
    lowest = _decoder(part)
    highest = _decoder(part + b"\xff" * _BEYOND)
    models = tables.models(tokens)
    pieces, done, total = [np.empty(0, np.int32)], 0, tiles * tokens
    while done < total:
        position, inside = divmod(done, tiles)
        count = min(_CHUNK, total - done if tables.shared else tiles - inside)
        model = models[0 if tables.shared else position]
        first, second = _decode_some(lowest, model, count), _decode_some(highest, model, count)
        common = _common_length(first, second)
        pieces.append(first[:common])
        if common < count:
            break
        done += count
    return np.concatenate(pieces)


def _decode_some(decoder: Any, model: Any, count: int) -> np.ndarray:
    """Up to ``count`` tokens: fewer where the bytes stop being those of an encoder."""
    again = decoder.clone()
    try:
        return _run_coder(decoder.decode, model, count)
    except CorruptFile:
        pass
    found: list[int] = []
    try:
        while len(found) < count:
            found.append(_run_coder(again.decode, model))
    except CorruptFile:
        pass
    return np.array(found, np.int32)


def _common_length(first: np.ndarray, second: np.ndarray) -> int:
    """How many elements from the start are equal."""
    shorter = min(first.size, second.size)
    differ = first[:shorter] != second[:shorter]
    return int(differ.argmax()) if differ.any() else shorter


def _quantise(counts: np.ndarray, max_extra_bits: int) -> np.ndarray:
    """One row of frequencies (N,) from one row of counts; see :meth:`FrequencyTables.from_counts`."""
    size = counts.size
    share = -(-_TOTAL // (size << max_extra_bits)) - 1  # the coder adds one
    rest, total = _TOTAL - size - share * size, int(counts.sum())
    if total == 0:
        counts, total = np.ones_like(counts), size
    scaled = counts * rest  # below 2**62
    frequencies, remainders = share + scaled // total, scaled % total
    missing = _TOTAL - size - int(frequencies.sum())
    # A stable sort of the negated remainders: largest first, lower code first among equals.
    frequencies[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return frequencies


# -- checks ---------------------------------------------------------------------------------------------------


def _check_sizes(tiles: int, tokens: int, codebook_size: int) -> None:
    if tiles < 1 or not 1 <= tokens <= MAX_TOKENS or not 2 <= codebook_size <= MAX_CODEBOOK_SIZE:
        raise TitokError(
            f"{tiles} tiles of {tokens} tokens of {codebook_size} codes; give 1 or more, 1 to {MAX_TOKENS}, 2 to 65536"
        )


def _check_mode(mode: int, tokens: int, codebook_size: int, tables: FrequencyTables | None) -> None:
    if mode not in (PACKED, TABLES):
        raise UnsupportedFile(f"entropy mode {mode} needs a newer library; upgrade titokcodec")
    if mode == TABLES:
        if tables is None:
            raise ModelMismatch("file is coded with frequency tables and this model has none; load the file's model")
        _check_tables(tables, tokens, codebook_size)


def _check_tables(tables: FrequencyTables, tokens: int, codebook_size: int) -> None:
    if tables.codebook_size != codebook_size:
        raise ModelMismatch(f"tables are for {tables.codebook_size} codes, not {codebook_size}; use the model's own")
    if not tables.shared and tokens > len(tables.frequencies):
        raise ModelMismatch(f"tables have rows for {len(tables.frequencies)} tokens, not {tokens}; use fewer tokens")
