"""Entropy coding: exact bytes, an independent coder as oracle, and damaged, cut and hostile payloads."""

import functools
import math
import pickle
import tracemalloc
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titokcodec.errors import CorruptFile, ModelMismatch, TitokError, UnsupportedFile, WeightsError
from titokcodec.format import bitstream, entropy, rangecoder
from titokcodec.format.entropy import PACKED, PRIOR, TABLES, FrequencyTables
from titokcodec.format.header import Header

TOTAL = 2**24


def make_tables(rows, size, skew=2):
    """Frequencies by integer arithmetic on a fixed formula; a larger skew makes some codes much likelier."""
    table = []
    for row in range(rows):
        weights = [((i * 37 + row * 11) % size + 1) ** skew for i in range(size)]
        whole = sum(weights)
        frequencies = [weight * (TOTAL - size) // whole for weight in weights]
        frequencies[(row * 5) % size] += TOTAL - size - sum(frequencies)
        table.append(frequencies)
    return FrequencyTables(np.array(table, dtype=np.uint32))


def make_tokens(tiles, tokens, size):
    """Tokens (tiles, tokens) from a fixed formula."""
    return np.array([[(t * 7 + k * k * 3 + k) % size for k in range(tokens)] for t in range(tiles)])


def draw(tables, tiles, tokens, seed):
    """Tokens (tiles, tokens) distributed as the tables expect."""
    rng = np.random.default_rng(seed)
    rows = np.broadcast_to(tables.frequencies[:tokens], (tokens, tables.codebook_size)).astype(np.float64) + 1
    return np.stack([rng.choice(tables.codebook_size, tiles, p=row / TOTAL) for row in rows], axis=1)


# -- an independent coder: exact integers of any size instead of words, carries and sealing -------------------


def cumulative(tables, position):
    row = tables.frequencies[0 if len(tables.frequencies) == 1 else position]
    return list(accumulate((int(q) + 1 for q in row), initial=0))


def subdivide(low, width, unit, left, right):
    """One step: the sub-interval for [left, right) of 2**24, rescaled so that ``width`` keeps at least 32 bits."""
    step = width // TOTAL
    low, width = low + step * left, step * (right - left)
    if width < 2**32:
        low, width, unit = low * 2**32, width * 2**32, unit * 2**32
    return low, width, unit


def oracle_encode(tokens, tables):
    low, width, unit = 0, 2**64 - 1, 2**64
    for position, row in enumerate(tokens.T.tolist()):
        sums = cumulative(tables, position)
        for token in row:
            low, width, unit = subdivide(low, width, unit, sums[token], sums[token + 1])
    # The shortest byte string, and of those the smallest, that lies in [low, low + width) as a fraction of unit.
    length = 0
    while True:
        number = -(-low * 256**length // unit)
        if number * unit < (low + width) * 256**length:
            return number.to_bytes(length, "big")
        length += 1


def oracle_decode(payload, tiles, tokens, tables):
    low, width, unit = 0, 2**64 - 1, 2**64
    found = []
    for position in range(tokens):
        sums = cumulative(tables, position)
        for _ in range(tiles):
            point = int.from_bytes(payload, "big") * unit // 256 ** len(payload)
            slot = (point - low) // (width // TOTAL)
            token = next(i for i in range(len(sums) - 1) if slot < sums[i + 1])
            low, width, unit = subdivide(low, width, unit, sums[token], sums[token + 1])
            found.append(token)
    return np.array(found).reshape(tokens, tiles).T


# -- exact bytes ----------------------------------------------------------------------------------------------

# Released bytes are for ever: these must not change under any version of any library.
GOLDEN_PACKED = [
    # (tiles, tokens, codebook size, payload)
    (1, 8, 4096, "00000400e01e03405007209a"),
    (3, 5, 10, "0744184180742960"),
    (2, 3, 65536, "000000070004000b000e0015"),
    (1, 11, 2, "0000"),
    (
        1,
        32,
        4096,
        "00000400e01e03405007209a0c80fc1361761bc20825a2b23103743de44e4c45405c264a6d876c8068a694c9f8aaab62",
    ),
]
GOLDEN_TABLES = [
    # (tiles, tokens, table rows, codebook size, skew, payload)
    (1, 32, 1, 16, 3, "2881b392b731ff5e9d19e24e"),
    (1, 32, 32, 16, 3, "253470ff3d29693bea2fa9fb"),
    (
        3,
        20,
        20,
        300,
        6,
        "38f7be604eaa34a602ff148a4f45269c7ef6ec36d88fab2ce3e3494f11e9c3eea307243e0f429bbbcb3aabc5a1755adaa644cf",
    ),
    (
        2,
        32,
        1,
        4096,
        4,
        "392adbb142a0fcbd324de7cd86889f48a9f3eb15434ef523327153da3d5f64abbdfbedf6138d7733a5501baa938ac8f09f91"
        "78e716f14e5ea491d5806a183235ec4a5e576186e4e3f8a2c53af2ffdbe10df0ab07e22ee7",
    ),
    (
        1,
        128,
        128,
        4096,
        4,
        "392fab36560ef04dab8ca88d76bf9be79597164dbea2121f730b993722c1ad59446edcf89150a0c5f834772b3714ae7dac06"
        "0f34a5b57c2649358ec4bcd31d366fb7dae65c31c8e70c617def1c958567d0959bae1f021ef73ba9cc39feadbaba7d70ccd7"
        "7a9a1efc064bd9d79545595658d595e3ea510d39fe0ecd9582e9aaaec6cb5f8c4fe4e10532c2ae23b46eb6f302e72893aa08"
        "469f16f3304a820a80b7c5843d48d2bfa182f550d7b932",
    ),
    (1, 64, 1, 2, 20, "01"),
]


def test_packed_bytes_by_hand():
    tokens = np.array([[0xABC, 0x123], [0xDEF, 0x456]])
    assert entropy.encode(tokens, 4096) == (PACKED, bytes.fromhex("abcdef123456"))  # token-major
    assert entropy.encode(np.array([[5, 0, 9]]), 10) == (PACKED, bytes.fromhex("5090"))  # zero bits fill the byte
    assert entropy.encode(np.array([[1, 0, 1]]), 2) == (PACKED, bytes.fromhex("a0"))


@pytest.mark.parametrize(("tiles", "tokens", "size", "payload"), GOLDEN_PACKED)
def test_golden_packed(tiles, tokens, size, payload):
    array = make_tokens(tiles, tokens, size)
    assert entropy.encode(array, size)[1].hex() == payload
    assert np.array_equal(entropy.decode(bytes.fromhex(payload), PACKED, tiles, tokens, size), array)


@pytest.mark.parametrize(("tiles", "tokens", "rows", "size", "skew", "payload"), GOLDEN_TABLES)
def test_golden_tables(tiles, tokens, rows, size, skew, payload):
    tables = make_tables(rows, size, skew)
    array = draw_by_formula(tables, tiles, tokens)
    mode, data = entropy.encode(array, size, tables)
    assert (mode, data.hex()) == (TABLES, payload)
    assert oracle_encode(array, tables).hex() == payload
    assert np.array_equal(entropy.decode(data, TABLES, tiles, tokens, size, tables), array)


def draw_by_formula(tables, tiles, tokens):
    """Likely tokens with no random generator: the code at a given share of each row's cumulative sum."""
    array = np.empty((tiles, tokens), np.int64)
    for k in range(tokens):
        sums = np.array(cumulative(tables, k))
        for t in range(tiles):
            array[t, k] = np.searchsorted(sums, (t * 7919 + k * 104729 + 12345) * 65537 % TOTAL, side="right") - 1
    return array


# -- the oracle agrees ----------------------------------------------------------------------------------------


@functools.cache
def cached_tables(rows, size, skew):
    return make_tables(rows, size, skew)


tables_strategy = st.builds(
    cached_tables,
    rows=st.sampled_from([1, 20]),
    size=st.sampled_from([2, 3, 17, 256, 1000]),
    skew=st.sampled_from([0, 1, 5, 30]),
)


@st.composite
def coded(draw_value):
    """Tables and tokens for them: likely ones, any ones, and the first and last codes, where carries happen."""
    tables = draw_value(tables_strategy)
    tiles, tokens = draw_value(st.integers(1, 4)), draw_value(st.integers(1, 20))
    size = tables.codebook_size
    likely = draw(tables, tiles, tokens, draw_value(st.integers(0, 2**32)))
    one = st.integers(0, size - 1) | st.sampled_from([0, size - 1])
    changes = draw_value(st.lists(st.tuples(st.integers(0, tiles - 1), st.integers(0, tokens - 1), one), max_size=12))
    for tile, position, token in changes:
        likely[tile, position] = token
    if draw_value(st.booleans()):
        likely[:] = draw_value(one)
    return tables, likely


@given(coded())
@settings(max_examples=300, deadline=None)
def test_same_bytes_as_the_oracle(case):
    tables, tokens = case
    size = tables.codebook_size
    mode, payload = entropy.encode(tokens, size, tables)
    expected, packed = oracle_encode(tokens, tables), entropy.packed_size(tokens.size, size)
    if len(expected) < packed:
        assert (mode, payload.hex()) == (TABLES, expected.hex())
        assert np.array_equal(oracle_decode(payload, *tokens.shape, tables), tokens)
    else:
        assert (mode, len(payload)) == (PACKED, packed)
    assert np.array_equal(entropy.decode(payload, mode, *tokens.shape, size, tables), tokens)


def test_long_streams_agree_with_the_oracle():
    for rows, size, skew in [(1, 256, 3), (64, 17, 8), (1, 2, 40)]:
        tables = make_tables(rows, size, skew)
        tokens = draw(tables, 40, 64, seed=size)
        mode, payload = entropy.encode(tokens, size, tables)
        assert (mode, payload) == (TABLES, oracle_encode(tokens, tables))
        assert np.array_equal(entropy.decode(payload, mode, 40, 64, size, tables), tokens)


def test_carries_run_through_whole_words():
    """Codes at the very top of the interval keep the coder's last words undecided for long."""
    tables = FrequencyTables(np.array([[1, TOTAL - 4, 0]], np.uint32))
    for cut in range(0, 60, 7):
        for last in range(3):
            tokens = np.full((1, 60), 2)
            tokens[0, cut:] = 1
            tokens[0, -1] = last
            payload = rangecoder.encode(tokens.reshape(-1).astype(np.int32), 1, tables)
            assert payload == oracle_encode(tokens, tables)


# -- round trips and sizes ------------------------------------------------------------------------------------


@given(
    st.integers(2, 65536) | st.sampled_from([2, 4096, 65535, 65536]), st.integers(1, 5), st.integers(1, 256), st.data()
)
@settings(max_examples=150, deadline=None)
def test_packed_round_trip(size, tiles, tokens, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    array = rng.integers(0, size, (tiles, tokens))
    array[0, 0] = size - 1
    mode, payload = entropy.encode(array.astype(data.draw(st.sampled_from(["i4", "i8", "u2", ">u4"]))), size)
    assert mode == PACKED
    assert len(payload) == entropy.packed_size(tiles * tokens, size) == math.ceil(tiles * tokens * bits_of(size) / 8)
    back = entropy.decode(payload, mode, tiles, tokens, size)
    assert back.dtype == np.int64
    assert np.array_equal(back, array)


def bits_of(size):
    return next(bits for bits in range(17) if 2**bits >= size)


def test_tokens_may_be_any_view():
    tables = make_tables(1, 4096, 4)
    tokens = draw(tables, 6, 64, seed=0)
    wide = np.repeat(tokens, 2, axis=1)[:, ::2]
    for table in (None, tables):
        assert entropy.encode(np.asfortranarray(wide), 4096, table) == entropy.encode(tokens.copy(), 4096, table)


def test_a_million_tokens():
    tables = make_tables(1, 4096, 4)
    tokens = draw(tables, 1_000_000 // 128, 128, seed=0)
    for table in (None, tables):
        mode, payload = entropy.encode(tokens, 4096, table)
        assert np.array_equal(entropy.decode(payload, mode, *tokens.shape, 4096, table), tokens)


@pytest.mark.parametrize(("tokens", "limit"), [(32, 60), (64, 108), (128, 204)])
def test_files_stay_within_their_size(tokens, limit):
    for tables in (None, make_tables(1, 4096, 3), make_tables(128, 4096, 3)):
        for seed in range(5):
            array = np.random.default_rng(seed).integers(0, 4096, (1, tokens))
            mode, payload = entropy.encode(array, 4096, tables)
            header = Header(256, 256, tokens, "fit", False, True, mode, 1)
            assert len(bitstream.pack(header, payload, bytes(8))) <= min(limit, len(payload) + 11)


def test_tables_shorten_what_they_expect_and_never_lengthen_anything():
    tables = make_tables(64, 4096, 6)
    expected, surprising = draw(tables, 1, 64, seed=0), make_tokens(1, 64, 4096)
    rows = [tables.frequencies[k] + 1 for k in range(64)]
    information = sum(24 - math.log2(row[token]) for row, token in zip(rows, expected[0], strict=True)) / 8
    mode, payload = entropy.encode(expected, 4096, tables)
    assert mode == TABLES
    assert len(payload) <= information + 1  # the whole cost of rounding to bytes
    assert entropy.encode(surprising, 4096, tables) == entropy.encode(surprising, 4096)


def test_uniform_tables_tie_and_packing_wins():
    uniform = FrequencyTables(np.full((1, 4096), TOTAL // 4096 - 1))
    assert entropy.encode(make_tokens(1, 32, 4096), 4096, uniform)[0] == PACKED


def test_the_likeliest_picture_may_take_no_bytes_at_all():
    tables = FrequencyTables(np.array([[TOTAL - 4, 0, 0, 0]]))
    tokens = np.zeros((1, 32), int)
    assert entropy.encode(tokens, 4, tables) == (TABLES, b"")
    assert np.array_equal(entropy.decode(b"", TABLES, 1, 32, 4, tables), tokens)


# -- damaged and hostile payloads -----------------------------------------------------------------------------


def test_packed_payloads_must_be_exact():
    payload = entropy.encode(np.array([[5, 0, 9]]), 10)[1]
    for wrong in (b"", payload[:-1], payload + b"\0"):
        with pytest.raises(CorruptFile, match="bytes"):
            entropy.decode(wrong, PACKED, 1, 3, 10)
    with pytest.raises(CorruptFile, match="padding"):
        entropy.decode(bytes.fromhex("5091"), PACKED, 1, 3, 10)
    with pytest.raises(CorruptFile, match="token 10"):
        entropy.decode(bytes.fromhex("5a90"), PACKED, 1, 3, 10)


def test_coded_payloads_must_be_canonical():
    tables = make_tables(1, 4096, 6)
    tokens = draw(tables, 1, 64, seed=3)
    payload = entropy.encode(tokens, 4096, tables)[1]
    for wrong in (payload + b"\0", payload + b"\x01", payload + bytes(5)):
        with pytest.raises(CorruptFile, match="its own tokens encode to"):
            entropy.decode(wrong, TABLES, 1, 64, 4096, tables)
    for wrong in (bytes(96), b"\xff" * 96, payload + bytes(96)):  # never longer than packing
        with pytest.raises(CorruptFile, match="need less than 96"):
            entropy.decode(wrong, TABLES, 1, 64, 4096, tables)
    with pytest.raises(CorruptFile):
        entropy.decode(b"\xff" * 40, TABLES, 1, 64, 4096, tables)


@given(st.binary(max_size=60), st.integers(0, 3), st.integers(1, 3), st.integers(1, 20), tables_strategy)
@settings(max_examples=300, deadline=None)
def test_any_bytes_decode_to_their_only_tokens_or_raise_titok_error(payload, mode, tiles, tokens, tables):
    size = tables.codebook_size
    try:
        array = entropy.decode(payload, mode, tiles, tokens, size, tables)
    except TitokError as error:
        assert "\n" not in str(error)
        return
    assert array.shape == (tiles, tokens)
    assert 0 <= array.min() <= array.max() < size
    assert entropy.encode(array, size, tables if mode == TABLES else None) == (mode, payload)


def test_huge_claims_cost_no_memory():
    tables = make_tables(1, 4096, 4)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile):
            entropy.decode(bytes(100), PACKED, 2**26, 256, 4096)
        with pytest.raises(CorruptFile):
            entropy.decode(bytes(100), TABLES, 1, 32, 4096, tables)
        for mode in (PACKED, TABLES):
            for part in (b"", bytes(200), b"\xff" * 200, bytes(range(200))):
                assert entropy.decode_prefix(part, mode, 2**26, 256, 4096, tables).shape == (2**26, 0)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


class FailingTables(FrequencyTables):
    """Tables whose coder fails in a given way."""

    failure = None

    def models(self, tokens):
        self.failure()


def test_a_panic_of_the_coder_is_a_corrupt_file_but_an_interrupt_is_not():
    from constriction import stream

    def interrupt():
        raise KeyboardInterrupt

    tables = FailingTables(make_tables(1, 16).frequencies)
    tables.failure = lambda: stream.model.Uniform(1)  # a Rust panic: not even an Exception
    with pytest.raises(CorruptFile):
        entropy.decode(b"abc", TABLES, 1, 32, 16, tables)
    tables.failure = interrupt
    with pytest.raises(KeyboardInterrupt):
        entropy.decode(b"abc", TABLES, 1, 32, 16, tables)


def test_coding_prints_nothing(capfd):
    """Standard output may be the compressed file."""
    tables = make_tables(32, 1000, 5)
    tokens = draw(tables, 1, 32, seed=0)
    mode, payload = entropy.encode(tokens, 1000, tables)
    entropy.decode(payload, mode, 1, 32, 1000, tables)
    assert capfd.readouterr() == ("", "")


def test_modes_that_need_more_than_there_is():
    tables = make_tables(8, 16)
    with pytest.raises(UnsupportedFile, match="upgrade titokcodec"):
        entropy.decode(b"", PRIOR, 1, 8, 16, tables)
    with pytest.raises(ModelMismatch, match="has none"):
        entropy.decode(b"", TABLES, 1, 8, 16)
    with pytest.raises(ModelMismatch, match="16 codes, not 32"):
        entropy.decode(b"", TABLES, 1, 8, 32, tables)
    for call in (lambda: entropy.decode(b"", TABLES, 1, 9, 16, tables), lambda: entropy.encode(ones(9), 16, tables)):
        with pytest.raises(ModelMismatch, match="rows for 8 tokens, not 9"):
            call()


def ones(tokens):
    return np.ones((1, tokens), int)


@pytest.mark.parametrize(
    ("tokens", "size"),
    [
        ([[0, 16]], 16),
        ([[-1, 0]], 16),
        ([[2**63]], 16),
        ([[0.5]], 16),
        ([0, 1], 16),
        ([[True]], 16),
        (np.zeros((0, 4), int), 16),
        (np.zeros((4, 0), int), 16),
        (np.zeros((1, 257), int), 16),
        ([[0]], 1),
        ([[0]], 65537),
    ],
)
def test_what_is_no_array_of_tokens_is_refused(tokens, size):
    for tables in (None, make_tables(1, 16)):
        with pytest.raises(TitokError, match="give"):
            entropy.encode(np.asarray(tokens), size, tables)


# -- prefixes and truncation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "size", "skew", "tiles", "tokens"),
    [
        (None, 4096, 0, 1, 64),
        (None, 1000, 0, 5, 20),
        (1, 4096, 5, 1, 128),
        (64, 4096, 5, 1, 64),
        (20, 300, 9, 7, 20),
        (1, 2, 12, 3, 200),
        (1, 17, 1, 4, 30),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_prefixes_are_exact_and_grow(rows, size, skew, tiles, tokens, seed):
    tables = make_tables(rows, size, skew) if rows else None
    source = tables or make_tables(1, size, 0)
    array = draw(source, tiles, tokens, seed)
    mode, payload = entropy.encode(array, size, tables)
    bits = bits_needed(array, source) if mode == TABLES else None
    before = 0
    for length in range(len(payload) + 1):
        known = entropy.decode_prefix(payload[:length], mode, tiles, tokens, size, tables)
        arrived = known.shape[1]
        assert before <= arrived <= tokens
        assert np.array_equal(known, array[:, :arrived])
        if mode == PACKED:
            assert arrived == 8 * length // (tiles * bits_of(size))
        else:
            # What two bytes fewer could already have told is there.
            assert arrived >= sum(need <= 8 * length - 16 for need in bits)
        before = arrived
    assert entropy.decode_prefix(b"", mode, tiles, tokens, size, tables).shape == (tiles, 0)


def bits_needed(array, tables):
    """Information in the first k positions of all tiles, for every k."""
    rows = np.broadcast_to(tables.frequencies[: array.shape[1]], (array.shape[1], tables.codebook_size))
    return list(accumulate(sum(24 - np.log2(rows[k][array[:, k]] + 1.0)) for k in range(array.shape[1])))


@given(coded(), st.binary(max_size=12), st.data())
@settings(max_examples=200, deadline=None)
def test_prefixes_hold_whatever_follows(case, junk, data):
    tables, tokens = case
    mode, payload = entropy.encode(tokens, tables.codebook_size, tables)
    part = payload[: data.draw(st.integers(0, len(payload)))]
    known = entropy.decode_prefix(part, mode, *tokens.shape, tables.codebook_size, tables)
    assert np.array_equal(known, tokens[:, : known.shape[1]])
    more = entropy.decode_prefix(part + junk, mode, *tokens.shape, tables.codebook_size, tables)
    shared = min(more.shape[1], known.shape[1])
    assert np.array_equal(more[:, :shared], known[:, :shared])


def test_prefixes_across_many_tiles():
    """More tokens than are decoded at a time, so that the pieces have to fit together."""
    for rows in (1, 3):
        tables = make_tables(rows, 64, 4)
        array = draw(tables, 5000, 3, seed=1)
        payload = entropy.encode(array, 64, tables)[1]
        known = entropy.decode_prefix(payload[: len(payload) * 3 // 4], TABLES, 5000, 3, 64, tables)
        assert np.array_equal(known, array[:, :2])


def test_damaged_prefixes_show_what_is_before_the_damage():
    payload = bytearray(entropy.encode(np.arange(10)[None], 10)[1])
    payload[2] |= 0xF0  # token 4 becomes 15
    assert entropy.decode_prefix(payload, PACKED, 1, 10, 10).tolist() == [[0, 1, 2, 3]]


@given(st.integers(2, 65536), st.integers(1, 4), st.integers(1, 64), st.data())
@settings(max_examples=150, deadline=None)
def test_truncation_is_what_encoding_fewer_tokens_gives(size, tiles, tokens, data):
    array = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, size, (tiles, tokens))
    keep = data.draw(st.integers(1, tokens))
    payload = entropy.encode(array, size)[1]
    bits = entropy.code_bits_from_length(len(payload), array.size)
    assert bits in (bits_of(size), None)
    assert bits or array.size < 8
    cut = entropy.truncate_packed(payload, tiles, tokens, keep, bits_of(size))
    assert cut == entropy.encode(array[:, :keep], size)[1]


def test_bits_that_cannot_be_told():
    assert entropy.code_bits_from_length(48, 32) == 12
    assert entropy.code_bits_from_length(1, 1) is None  # 1 to 8
    assert entropy.code_bits_from_length(47, 32) is None
    assert entropy.code_bits_from_length(0, 32) is None
    with pytest.raises(CorruptFile):
        entropy.truncate_packed(bytes(47), 1, 32, 16, 12)
    for keep in (0, 33):
        with pytest.raises(TitokError, match="give 1 to 32"):
            entropy.truncate_packed(bytes(48), 1, 32, keep, 12)


# -- tables ---------------------------------------------------------------------------------------------------


def test_golden_tables_from_counts():
    tables = FrequencyTables.from_counts(np.array([[0, 1, 2, 97], [0, 0, 0, 0], [5, 5, 5, 6]]))
    assert tables.frequencies.tolist() == [
        [65535, 230686, 395836, 16085155],
        [4194303, 4194303, 4194303, 4194303],
        [3997695, 3997695, 3997695, 4784127],
    ]
    assert (tables.positions, tables.codebook_size, tables.shared) == (3, 4, False)
    assert FrequencyTables.from_counts(np.array([[3, 1]])).positions is None


@given(st.lists(st.integers(0, 2**20) | st.sampled_from([0, 1]), min_size=2, max_size=70), st.integers(1, 24))
@settings(max_examples=200, deadline=None)
def test_no_code_costs_more_than_stated(counts, extra):
    row = FrequencyTables.from_counts(np.array([counts]), extra).frequencies[0].astype(np.int64) + 1
    size, total = len(counts), sum(counts)
    assert row.sum() == TOTAL
    assert row.min() * size * 2**extra >= TOTAL
    # Equal counts may differ by one, the lower code first; more counts never give less.
    order = sorted(range(size), key=lambda i: (counts[i], -i))
    assert all(row[a] <= row[b] for a, b in pairwise(order))
    share = row.min() * size / TOTAL + size / TOTAL
    for count, frequency in zip(counts, row, strict=True):
        if total:
            assert frequency >= math.floor((1 - share) * TOTAL * count / total)


def test_big_counts_and_codebooks():
    counts = np.zeros((2, 65536), np.int64)
    counts[0, 7] = 2**38 - 1
    counts[1] = np.arange(65536)
    tables = FrequencyTables.from_counts(counts)
    tokens = np.array([[7, 65535]])
    mode, payload = entropy.encode(np.repeat(tokens, 40, axis=0), 65536, tables)
    assert np.array_equal(entropy.decode(payload, mode, 40, 2, 65536, tables)[:1], tokens)


@pytest.mark.parametrize(
    "frequencies",
    [
        np.zeros(4, int),
        np.full((1, 4), 2.0**22 - 1),
        np.full((1, 4), 2**22),
        np.zeros((1, 1), int),
        np.zeros((0, 4), int),
        np.array([[TOTAL + 5, -3, -3, -3]]),
        np.full((257, 4), 2**22 - 1),
        np.array([[2**63, 2**63, 0, TOTAL - 4]], np.uint64),
    ],
)
def test_bad_tables_are_refused(frequencies):
    with pytest.raises(WeightsError, match="frequenc"):
        FrequencyTables(frequencies)


@pytest.mark.parametrize("counts", [[1, 2], [[1.5, 2]], [[-1, 2]], [[2**38, 1]], [[1]], [[2**37, 2**37]]])
def test_bad_counts_are_refused(counts):
    with pytest.raises(WeightsError, match="counts"):
        FrequencyTables.from_counts(np.array(counts))
    with pytest.raises(WeightsError, match="max_extra_bits"):
        FrequencyTables.from_counts(np.array([[1, 2]]), max_extra_bits=0)


def test_tables_are_their_own_copy_and_can_be_pickled():
    source = make_tables(4, 100, 3).frequencies.copy()
    tables = FrequencyTables(source)
    tokens = draw(tables, 2, 4, seed=0)
    before = entropy.encode(tokens, 100, tables)
    source[:] = 0
    assert entropy.encode(tokens, 100, tables) == before
    assert entropy.encode(tokens, 100, pickle.loads(pickle.dumps(tables))) == before
    with pytest.raises(ValueError, match="read-only"):
        tables.frequencies[0, 0] = 1


def test_fewer_tokens_than_rows_use_the_first_rows():
    tables = make_tables(64, 256, 5)
    tokens = draw(tables, 3, 64, seed=5)
    short, long = entropy.encode(tokens[:, :10], 256, tables)[1], entropy.encode(tokens, 256, tables)[1]
    assert np.array_equal(entropy.decode(short, TABLES, 3, 10, 256, tables), tokens[:, :10])
    assert long.startswith(short[:-1])
    fresh = FrequencyTables(tables.frequencies)  # ten rows are built first, then the others
    assert entropy.encode(tokens[:, :10], 256, fresh)[1] == short
    assert entropy.encode(tokens, 256, fresh)[1] == long
