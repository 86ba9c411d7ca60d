"""Range coding with integer frequency tables (entropy mode 1): ``constriction``'s queue coder, its ends cut short.

Words are written big-endian and the stream stops at the shortest string of bytes whose continuation with zeros lies in
the coder's final interval, which saves the one to four bytes that whole words would waste.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from titokcodec.errors import CorruptFile
from titokcodec.format.frequencies import FrequencyTables, coder

_STATE_MASK = 2**64 - 1
_CHUNK = 4096  # tokens decoded at a time where we may have to stop early
_BEYOND = 16  # bytes appended to a cut stream: more than the coder's state looks ahead


def guarded(function: Callable[..., Any], *args: Any) -> Any:
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


def encode(flat: np.ndarray, tiles: int, tables: FrequencyTables) -> bytes:
    """Token-major int32 tokens, (K * tiles,), to the one payload that they have."""
    encoder = coder().queue.RangeEncoder()
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
    value: int = int.from_bytes(words.astype(">u4").tobytes(), "big") << 8 * size - 32 * len(words)
    low = value - (value - lower & _STATE_MASK)
    tail = low & _STATE_MASK
    for shift in range(64, -8, -8):
        rounded_up = -(-tail >> shift) << shift
        if rounded_up - tail < width:
            break
    shortest: bytes = (low - tail + rounded_up).to_bytes(size, "big").rstrip(b"\0")
    return shortest


def _decoder(payload: bytes) -> Any:
    """A range decoder; it reads zeros past the end of ``payload``."""
    padded = payload + bytes(-len(payload) % 4)
    return coder().queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def decode(payload: bytes, tiles: int, tokens: int, tables: FrequencyTables) -> np.ndarray:
    """A payload to token-major int32 tokens, (tokens * tiles,); damage goes mostly unnoticed."""
    decoder = _decoder(payload)
    models = tables.models(tokens)
    if tables.shared:
        flat: np.ndarray = decoder.decode(models[0], tiles * tokens)
        return flat
    if tiles == 1:
        return np.array([decoder.decode(model) for model in models], np.int32)
    return np.concatenate([decoder.decode(model, tiles) for model in models])


def certain_tokens(part: bytes, tiles: int, tokens: int, tables: FrequencyTables) -> np.ndarray:
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
        whole: np.ndarray = guarded(decoder.decode, model, count)
        return whole
    except CorruptFile:
        pass
    found: list[int] = []
    try:
        while len(found) < count:
            found.append(guarded(again.decode, model))
    except CorruptFile:
        pass
    return np.array(found, np.int32)


def _common_length(first: np.ndarray, second: np.ndarray) -> int:
    """How many elements from the start are equal."""
    shorter = min(first.size, second.size)
    differ = first[:shorter] != second[:shorter]
    return int(differ.argmax()) if differ.any() else shorter
