"""The container: its exact bytes, and that nothing damaged, foreign or oversized gets through."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from titokcodec.errors import CorruptFile, LimitExceeded, ModelMismatch, TitokError, UnsupportedFile
from titokcodec.format import bitstream
from titokcodec.format.header import Header
from titokcodec.format.layout import Grid
from titokcodec.format.limits import DEFAULT_MAX_PIXELS

FINGERPRINT = bytes.fromhex("0123456789abcdef")
OTHER = bytes.fromhex("fedcba9876543210")

# Released bytes are for ever: a change here is a new version of the format.
GOLDEN = [
    # (header, payload, file)
    (Header(256, 256, 32, "fit", False, True, 0, 1), "", "9e5429011fff01ff01cbe2"),
    (Header(256, 256, 128, "tile", True, False, 1, 255), "c0ffee", "9e5432ff7fff01ff011c8ac0ffee"),
    (Header(1, 1, 1, "tile", False, False, 0, 7), "00", "9e542007000000017300"),
    (Header(128, 129, 256, "tile", False, True, 2, 2), "ff00", "9e542502ff7f800189ebff00"),
    (Header(16384, 16385, 64, "fit", True, True, 1, 3), "0102030405", "9e543b033fff7f80800157ad0102030405"),
    (
        Header(2**21, 2**21, 96, "tile", False, True, 1, 0, FINGERPRINT),
        "deadbeef",
        "9e5423000123456789abcdef5fffff7fffff7f97dbdeadbeef",
    ),
    (Header(768, 512, 64, "tile", False, True, 1, 5, None, Grid(3, 2)), "c0ffee", "9e5443053fff05ff030201ffdfc0ffee"),
    (
        Header(2**21, 1, 8, "tile", True, False, 0, 0, FINGERPRINT, Grid(256, 1)),
        "00",
        "9e5450000123456789abcdef07ffff7f00ff00831600",
    ),
]

headers = st.builds(
    lambda fingerprint, model_id, grid, layout, **rest: Header(
        model_id=model_id,
        fingerprint=None if model_id else fingerprint,
        layout="tile" if grid else layout,
        grid=grid,
        **rest,
    ),
    grid=st.none() | st.builds(Grid, st.integers(1, 8), st.integers(2, 8)) | st.just(Grid(2, 1)) | st.just(Grid(64, 1)),
    width=st.integers(1, 2**21) | st.sampled_from([1, 128, 129, 2**14, 2**14 + 1, 2**21]),
    height=st.integers(1, 2**21),
    tokens=st.integers(1, 256),
    layout=st.sampled_from(["tile", "fit"]),
    grey=st.booleans(),
    nested=st.booleans(),
    mode=st.integers(0, 2),
    model_id=st.sampled_from([0, 1, 255]) | st.integers(0, 255),
    fingerprint=st.binary(min_size=8, max_size=8),
)


def read(data, fingerprint=FINGERPRINT):
    """What a decoder does with a file, up to the payload."""
    header, offset = bitstream.parse(data)
    bitstream.check_pixels(header)
    bitstream.verify(data, header, offset, fingerprint)
    return header, bytes(data[offset:])


def bitwise_crc16(data):
    """CRC-16/IBM-3740, from its definition."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x1021 if crc & 0x8000 else 0)
            crc &= 0xFFFF
    return crc


@pytest.mark.parametrize(("header", "payload", "file"), GOLDEN)
def test_golden_bytes(header, payload, file):
    payload, file = bytes.fromhex(payload), bytes.fromhex(file)
    assert bitstream.pack(header, payload, FINGERPRINT).hex() == file.hex()
    parsed, offset = bitstream.parse(file)
    assert parsed == header
    assert file[offset:] == payload
    bitstream.verify(file, parsed, offset, FINGERPRINT)


def test_checksum_is_the_documented_one():
    assert bitwise_crc16(b"123456789") == 0x29B1  # the catalogue's check value
    file = bitstream.pack(GOLDEN[1][0], b"payload", FINGERPRINT)
    offset = len(file) - len(b"payload")
    assert int.from_bytes(file[offset - 2 : offset], "big") == bitwise_crc16(
        FINGERPRINT + file[: offset - 2] + b"payload"
    )


@pytest.mark.parametrize("tokens", [32, 64, 128])
def test_one_picture_costs_eleven_bytes_around_its_payload(tokens):
    payload = bytes(tokens * 12 // 8)
    file = bitstream.pack(Header(256, 256, tokens, "fit", True, True, 0, 1), payload, FINGERPRINT)
    assert len(file) == len(payload) + 11
    assert len(file) <= {32: 60, 64: 108, 128: 204}[tokens]


@given(headers, st.binary(max_size=300), st.binary(min_size=8, max_size=8))
def test_round_trip(header, payload, fingerprint):
    fingerprint = header.fingerprint or fingerprint
    file = bitstream.pack(header, payload, fingerprint)
    assert read_unlimited(file, fingerprint) == (header, payload)
    for kind in (bytearray, memoryview):
        assert read_unlimited(kind(file), fingerprint) == (header, payload)
    assert bitstream.pack(header, bytearray(payload), fingerprint) == file
    assert bitstream.pack(header, memoryview(payload), fingerprint) == file


def read_unlimited(data, fingerprint):
    header, offset = bitstream.parse(data)
    bitstream.check_pixels(header, max_pixels=None)
    bitstream.verify(data, header, offset, fingerprint)
    return header, bytes(data[offset:])


@pytest.mark.parametrize(("header", "payload", "file"), GOLDEN)
def test_every_flipped_bit_is_noticed(header, payload, file):
    file = bytes.fromhex(file)
    for bit in range(8 * len(file)):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TitokError):
            read_unlimited(damaged, FINGERPRINT)


@pytest.mark.parametrize(("header", "payload", "file"), GOLDEN)
def test_cut_and_extended_files_are_refused(header, payload, file):
    file = bytes.fromhex(file)
    _, offset = bitstream.parse(file)
    for length in range(len(file)):
        with pytest.raises(CorruptFile, match=None if length >= offset else "ends inside its header"):
            read_unlimited(file[:length], FINGERPRINT)
    for extra in (b"\0", b"\xff", b"\n", file):
        with pytest.raises(CorruptFile, match="checksum"):
            read_unlimited(file + extra, FINGERPRINT)


# ---- what the checksum catches ----------------------------------------------------------------------------------
# A CRC is linear: damage passes if the syndromes of its wrong bits add up to nothing, and they depend on where the bits
# are, not on what the file says. So all damage of a kind is looked at here, not a sample of it. Bits are numbered from
# the file's beginning, the highest of a byte first.


def file_of(payload_bytes, model_id=1):
    """A file whose sizes take a byte each, and the first and last bit of its checksum field."""
    header = Header(100, 75, 32, "fit", False, True, 0, model_id, None if model_id else FINGERPRINT)
    file = bitstream.pack(header, bytes(i * 37 % 256 for i in range(payload_bytes)), FINGERPRINT)
    offset = len(file) - payload_bytes
    return file, 8 * (offset - 2), 8 * offset - 1


def flipped(file, bits):
    damaged = bytearray(file)
    for bit in bits:
        damaged[bit // 8] ^= 128 >> bit % 8
    return bytes(damaged)


def syndromes(file, first, last):
    """(bits,) uint16: the checksum that is stored plus the one that is computed, after one bit was flipped."""
    found = np.zeros(8 * len(file), np.uint16)
    for bit in range(len(found)):
        damaged = flipped(file, [bit])
        stored = int.from_bytes(damaged[first // 8 : last // 8 + 1], "big")
        found[bit] = stored ^ bitstream._checksum(FINGERPRINT, damaged[: first // 8], damaged[last // 8 + 1 :])
    return found


def missed_bursts(syndromes, longest):
    """The wrong bits of every burst of up to ``longest`` bits that adds up to nothing."""
    for start in range(len(syndromes)):
        sums = syndromes[start : start + 1]  # of all patterns that begin with this bit wrong
        for other in syndromes[start + 1 : start + longest]:
            sums = np.concatenate([sums, sums ^ other])
        for pattern in np.flatnonzero(sums == 0).tolist():
            yield [start, *(start + 1 + k for k in range(longest - 1) if pattern >> k & 1)]


@pytest.fixture(scope="module")
def powers():
    """(32768,) uint16: the syndromes of a file of 4096 bytes, from the checksum's last bit to the header's first."""
    file, first, last = file_of(4096 - 9)
    found = syndromes(file, first, last)
    return np.concatenate([found[:first], found[last + 1 :], found[first : last + 1]])[::-1]


@pytest.mark.parametrize(("payload_bytes", "model_id"), [(0, 1), (3, 1), (48, 1), (192, 1), (48, 0)])
def test_bursts_of_16_bits_pass_only_across_a_border_of_the_checksum_field(payload_bytes, model_id):
    file, first, last = file_of(payload_bytes, model_id)
    missed = list(missed_bursts(syndromes(file, first, last), 16))
    for bits in missed:
        assert bits[0] < first <= bits[-1] or bits[0] <= last < bits[-1]
        if first - 8 not in bits and first - 16 not in bits:  # bit 7 of a size
            read_unlimited(flipped(file, bits), FINGERPRINT)  # it passes indeed: no more can be promised
    assert len(missed) < 30  # of the 917,506 across a border, one in 65536 would be 14
    assert payload_bytes == 0 or missed


def test_an_odd_number_of_wrong_bits_is_caught(powers):
    # The sum of the bits of a sum is the sum of the bits: where each is odd, so is that of an odd number.
    assert all(bin(value).count("1") % 2 for value in powers.tolist())


def test_two_wrong_bits_are_caught_in_files_of_at_most_4095_bytes(powers):
    assert len(np.unique(powers[: 8 * 4095])) == 8 * 4095 and powers.all()
    assert powers[8 * 4096 - 1] == powers[0]


def test_bursts_of_4_bits_are_caught_across_the_borders_too(powers):
    """For every length of the payload at once; file after file would take minutes."""
    behind = 16 + 8 * np.arange(1, 4095 - 9 + 1)  # the payload's first bit is the power before, the header's last this
    bits = [powers[behind + k] for k in (2, 1, 0)] + [np.full(len(behind), powers[k]) for k in range(15, -1, -1)]
    bits += [powers[behind - k] for k in (1, 2, 3)]
    for start in range(len(bits) - 3):
        for pattern in range(1, 16):
            assert np.bitwise_xor.reduce([bits[start + k] for k in range(4) if pattern >> k & 1]).all()


def test_a_burst_of_5_bits_across_a_border_is_not_always_caught():
    file, first, last = file_of(3183)
    near = slice(first - 7, last + 8)
    (bits,) = missed_bursts(syndromes(file, first, last)[near], 5)
    read_unlimited(flipped(file, [first - 7 + bit for bit in bits]), FINGERPRINT)


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda rest: b"\x9eT" + bytes([0x29]) + rest))
@settings(max_examples=300)
def test_any_bytes_parse_or_raise_titok_error(data):
    try:
        header, offset = bitstream.parse(data)
    except TitokError as error:
        assert "\n" not in str(error)
        return
    # What parses has one spelling only: writing it again gives the same header, but for the checksum.
    again = bitstream.pack(header, data[offset:], header.fingerprint or FINGERPRINT)
    assert again[: offset - 2] == data[: offset - 2]
    assert len(again) == len(data)


def test_foreign_files_are_named_as_such():
    for data in (b"\x89PNG\r\n\x1a\n" + bytes(30), b"RIFF", b"T\x9e" + bytes(30), b"hello, world"):
        with pytest.raises(CorruptFile, match=r"not a \.titok file"):
            bitstream.parse(data)


@pytest.mark.parametrize("version", [0, 3, 4, 7])
def test_other_versions_ask_for_an_upgrade(version):
    with pytest.raises(UnsupportedFile, match=f"version {version}.*upgrade titokcodec"):
        bitstream.parse(b"\x9eT" + bytes([version << 5]))


@pytest.mark.parametrize(("flags", "grid"), [(0x41, "0000"), (0x49, "0201")])
def test_version_2_has_a_grid_of_two_tiles_or_more(flags, grid):
    with pytest.raises(CorruptFile, match="a grid of two tiles or more"):
        bitstream.parse(bytes.fromhex(f"9e54{flags:02x}011f0505{grid}0000"))


def test_unassigned_entropy_mode_is_refused_and_the_reserved_one_parses():
    file = bytearray(bytes.fromhex(GOLDEN[0][2]))
    file[2] = file[2] & ~6 | 2 << 1
    assert bitstream.parse(file)[0].mode == 2
    file[2] |= 3 << 1
    with pytest.raises(UnsupportedFile, match="mode 3"):
        bitstream.parse(file)


@pytest.mark.parametrize("side", ["8000", "808000", "ff8000", "ffff80", "80808001", "ffffffff0f"])
def test_overlong_sizes_are_refused(side):
    for sides in (side + "05", "05" + side):
        with pytest.raises(CorruptFile, match="LEB128"):
            bitstream.parse(bytes.fromhex("9e542901" + "1f" + sides + "0000000000"))


def test_wrong_model_is_an_error_not_a_wrong_picture():
    released = bitstream.pack(Header(256, 256, 32, "fit", False, True, 0, 9), b"payload", FINGERPRINT)
    with pytest.raises(CorruptFile, match="other weights than released model 9"):
        read(released, OTHER)
    custom = bitstream.pack(Header(256, 256, 32, "fit", False, True, 0, 0, FINGERPRINT), b"payload", FINGERPRINT)
    with pytest.raises(ModelMismatch, match=f"{FINGERPRINT.hex()}.*{OTHER.hex()}"):
        read(custom, OTHER)
    damaged = custom[:-1] + b"!"
    with pytest.raises(CorruptFile, match="damaged"):  # not ModelMismatch: who knows what the file said
        read(damaged, OTHER)


def test_size_limit():
    def claim(width, height):
        return Header(width, height, 32, "tile", False, True, 0, 1)

    bitstream.check_pixels(claim(9459, 9459))
    with pytest.raises(LimitExceeded, match=r"9460x9460 .*89478485.*max_pixels=.*--max-pixels"):
        bitstream.check_pixels(claim(9460, 9460))
    bitstream.check_pixels(claim(100, 100), max_pixels=10_000)
    with pytest.raises(LimitExceeded):
        bitstream.check_pixels(claim(100, 101), max_pixels=10_000)
    bitstream.check_pixels(claim(2**21, 2**21), max_pixels=None)


def test_a_limit_on_pixels_bounds_the_grid_too():
    thin = Header(2**21, 1, 32, "tile", False, True, 0, 1, None, Grid(256, 1))
    with pytest.raises(LimitExceeded, match=r"2097152x1 has 256 tiles, over the 64 .* max_pixels=8388608 "):
        bitstream.check_pixels(thin, max_pixels=2**21)
    bitstream.check_pixels(thin, max_pixels=2**23)
    bitstream.check_pixels(thin, max_pixels=None)


@pytest.mark.parametrize(
    ("size", "grid"), [((1, 1), (65, 1)), ((1, 1), (256, 256)), ((768, 512), (13, 5)), ((4000, 3000), (256, 4))]
)
def test_a_grid_goes_with_its_picture(size, grid):
    """Half a minute of work for a single pixel is nothing that a file may ask for."""
    with pytest.raises(TitokError, match=f"{grid[0]}x{grid[1]} tiles is too fine for a picture of {size[0]}x{size[1]}"):
        Header(*size, 32, "tile", False, True, 0, 1, None, Grid(*grid))
    good = bitstream.pack(Header(*size, 32, "tile", False, True, 0, 1, None, Grid(8, 8)), b"", FINGERPRINT)
    offset = bitstream.parse(good)[1]
    with pytest.raises(CorruptFile, match=r"too fine .*damaged"):
        bitstream.parse(good[: offset - 4] + bytes(count - 1 for count in grid) + good[offset - 2 :])


def test_pillow_and_we_have_the_same_limit():
    image = pytest.importorskip("PIL.Image")
    assert image.MAX_IMAGE_PIXELS == DEFAULT_MAX_PIXELS


def test_huge_claims_cost_no_memory():
    file = bytes.fromhex(GOLDEN[5][2])
    tracemalloc.start()
    try:
        header, _ = bitstream.parse(file)
        with pytest.raises(LimitExceeded):
            bitstream.check_pixels(header)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert header.width * header.height == 2**42


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"height": 2**21 + 1},
        {"width": 2.5},
        {"tokens": 0},
        {"tokens": 257},
        {"mode": 3},
        {"mode": -1},
        {"model_id": 256},
        {"model_id": 0},
        {"model_id": 0, "fingerprint": b"short"},
        {"fingerprint": FINGERPRINT},
        {"layout": "crop"},
        {"grid": Grid(2, 2)},
        {"layout": "tile", "grid": Grid(1, 1)},
        {"layout": "tile", "grid": Grid(257, 1)},
        {"layout": "tile", "grid": Grid(0, 2)},
        {"layout": "tile", "grid": Grid(9, 8)},
    ],
)
def test_headers_that_cannot_be_written_are_refused(wrong):
    good = {"width": 5, "height": 5, "tokens": 32, "layout": "fit", "grey": False, "nested": True, "mode": 0}
    Header(**good, model_id=1)
    with pytest.raises(TitokError, match=r"give|leave"):
        Header(**{**good, "model_id": 1, **wrong})


def test_packing_needs_the_right_fingerprint():
    with pytest.raises(ModelMismatch):
        bitstream.pack(Header(5, 5, 32, "fit", False, True, 0, 0, FINGERPRINT), b"", OTHER)
    with pytest.raises(TitokError, match="8 bytes"):
        bitstream.pack(GOLDEN[0][0], b"", b"")


def test_reading_headers_loads_nothing_heavy():
    code = (
        "import sys, titokcodec.format.bitstream, titokcodec.format.entropy;"
        "print([name for name in ('torch', 'PIL', 'constriction') if name in sys.modules])"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
