"""Speed of the lossless layer: header, checksum and entropy coding of one picture of 128 tokens, without a network.

    python -m pytest bench/test_entropy_speed.py --benchmark-columns=median,iqr,rounds

Groups "header+entropy encode" and "header+entropy decode"; the aim is a median under 50 microseconds in each. Compare
medians from one quiet machine; nothing here fails on time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from titokcodec.format import bitstream, entropy
from titokcodec.format.header import Header

N, K = 4096, 128
FINGERPRINT = bytes(range(8))


def _tables(rows: int) -> entropy.FrequencyTables:
    counts = np.random.default_rng(0).zipf(1.3, size=(rows, N)).clip(max=100_000)
    return entropy.FrequencyTables.from_counts(counts)


CASES = {"packed": None, "shared table": _tables(1), "table per position": _tables(K)}


def _sample(tables: entropy.FrequencyTables | None, tiles: int) -> np.ndarray:
    """Tokens (tiles, K) as the tables expect them; uniform ones without tables."""
    rng = np.random.default_rng(1)
    if tables is None:
        return rng.integers(0, N, (tiles, K))
    rows = np.broadcast_to(tables.frequencies, (K, N)).astype(np.float64)
    return np.stack([rng.choice(N, tiles, p=row / row.sum()) for row in rows], axis=1)


def _write(tokens: np.ndarray, tables: entropy.FrequencyTables | None) -> bytes:
    mode, payload = entropy.encode(tokens, N, tables)
    header = Header(256, 256, K, "fit", grey=False, nested=True, mode=mode, model_id=1)
    return bitstream.pack(header, payload, FINGERPRINT)


def _read(data: bytes, tiles: int, tables: entropy.FrequencyTables | None) -> np.ndarray:
    header, offset = bitstream.parse(data)
    bitstream.check_pixels(header)
    bitstream.verify(data, header, offset, FINGERPRINT)
    return entropy.decode(data[offset:], header.mode, tiles, header.tokens, N, tables)


def _label(benchmark: Any, group: str, case: str, tiles: int) -> None:
    benchmark.group, benchmark.name = group + f", {tiles} tiles" * (tiles > 1), case
    benchmark.extra_info["tiles"] = tiles


@pytest.mark.parametrize("tiles", [1, 24])
@pytest.mark.parametrize("case", CASES)
def test_encode(benchmark: Any, case: str, tiles: int) -> None:
    _label(benchmark, "header+entropy encode", case, tiles)
    tokens = _sample(CASES[case], tiles)
    data = benchmark(_write, tokens, CASES[case])
    assert bitstream.parse(data)[0].mode == (entropy.PACKED if case == "packed" else entropy.TABLES)


@pytest.mark.parametrize("tiles", [1, 24])
@pytest.mark.parametrize("case", CASES)
def test_decode(benchmark: Any, case: str, tiles: int) -> None:
    _label(benchmark, "header+entropy decode", case, tiles)
    tokens = _sample(CASES[case], tiles)
    data = _write(tokens, CASES[case])
    assert np.array_equal(benchmark(_read, data, tiles, CASES[case]), tokens)
