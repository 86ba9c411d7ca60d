"""Looking at files and shortening them, with no network at hand."""

import subprocess
import sys
from dataclasses import replace

import pytest

from titokcodec import editing, info, truncate
from titokcodec.codec import Codec
from titokcodec.errors import CorruptFile, ModelMismatch, TitokError
from titokcodec.format import bitstream
from titokcodec.weights import tokenizers


@pytest.fixture(scope="module")
def tabled(codec, photo):
    """Four tiles, coded with tables."""
    return codec.compress(photo, layout="tile")


@pytest.fixture(scope="module")
def plain(codec, tmp_path_factory):
    """The tiny model without tables: its files are packed."""
    path = tmp_path_factory.mktemp("plain") / "plain.safetensors"
    opened = tokenizers.save(path, codec.model, "plain")
    return Codec(opened, tokenizers.build(opened), codec.device, codec.dtype)


@pytest.fixture(scope="module")
def packed(plain, photo):
    """Four tiles, packed."""
    return plain.compress(photo, layout="tile")


def test_info_says_what_the_header_says(codec, tabled, packed):
    found = info(tabled)
    assert (found.width, found.height, found.grey, found.layout) == (512, 512, False, "tile")
    assert (found.columns, found.rows, found.tiles, found.version) == (2, 2, 4, 2)
    assert (found.tokens, found.nested, found.entropy) == (16, True, "tables")
    assert (found.model, found.fingerprint, found.intact) == ("custom", codec.weights.fingerprint.hex(), True)
    assert (found.bytes, found.bytes - found.payload) == (len(tabled), 21)
    assert found.bits_per_pixel == 8 * len(tabled) / 512**2
    assert (info(packed).entropy, info(packed).payload) == ("packed", 4 * 16 * 6 // 8)


def test_info_shows_damage_but_does_not_mind_it(tabled):
    damaged = bytearray(tabled)
    damaged[-1] ^= 1
    assert info(damaged).intact is False
    assert info(tabled[:-1]).intact is False
    assert info(memoryview(tabled)) == info(bytearray(tabled)) == info(tabled)


def test_info_of_a_model_it_does_not_know(tabled):
    unknown = tabled[:3] + b"\xfa" + tabled[12:]
    found = info(unknown)
    assert (found.model, found.fingerprint, found.intact) == ("unknown model 250", None, None)
    assert (found.width, found.tokens) == (512, 16)


@pytest.mark.parametrize("data", [b"", b"\x9e", b"\x89PNG\r\n\x1a\n", b"\x9eT\x20"])
def test_what_is_no_file_has_no_info(data):
    with pytest.raises(CorruptFile):
        info(data)


def test_packed_files_are_cut_without_their_model(plain, photo, packed):
    for count in range(8, 17):
        assert truncate(packed, count) == plain.compress(photo, tokens=count, layout="tile")
    assert truncate(packed, 16) == packed
    assert truncate(bytearray(packed), 8) == truncate(memoryview(packed), 8) == truncate(packed, 8)


def test_files_with_tables_are_cut_with_their_model(codec, photo, tabled, tiny_path):
    for count in range(8, 17):
        assert truncate(tabled, count, model=tiny_path) == codec.compress(photo, tokens=count, layout="tile")


def test_cutting_twice_is_cutting_once(tabled, packed, tiny_path):
    assert truncate(truncate(packed, 12), 9) == truncate(packed, 9)
    twice = truncate(truncate(tabled, 12, tiny_path), 9, tiny_path)
    assert twice == truncate(tabled, 9, tiny_path)


def test_a_cut_may_go_below_what_the_model_compresses_to(codec, tabled, tiny_path):
    shortest = truncate(tabled, 1, model=tiny_path)
    assert info(shortest).tokens == 1
    assert codec.decompress(shortest).size == (512, 512)


def test_tables_need_their_model(tabled, packed, plain, tiny_path):
    with pytest.raises(ModelMismatch, match="custom model: name its weight file"):
        truncate(tabled, 8)
    with pytest.raises(ModelMismatch, match=f"needs the custom model .* is 'plain'.*{plain.weights.fingerprint.hex()}"):
        truncate(tabled, 8, model=plain.weights.path)
    with pytest.raises(ModelMismatch):
        truncate(packed, 8, model=tiny_path)
    with pytest.raises(TitokError, match="no weight file"):
        truncate(tabled, 8, model=tiny_path.with_name("absent"))


@pytest.mark.parametrize("count", [0, -1, 17, 256])
def test_counts_that_are_not_there_cannot_be_kept(packed, tabled, count):
    for data in (packed, tabled):
        with pytest.raises(TitokError, match=f"cannot keep {count} tokens of 16"):
            truncate(data, count)


def test_damaged_files_are_not_cut(packed):
    for damaged in (packed[:-1], packed + b"\0", packed[:-1] + bytes([packed[-1] ^ 1])):
        with pytest.raises(CorruptFile, match="checksum"):
            truncate(damaged, 8)


def test_a_file_that_is_not_nested_is_not_cut(packed):
    header, offset = bitstream.parse(packed)
    fixed = bitstream.pack(
        replace(header, nested=False),
        packed[offset:],
        header.fingerprint,
    )
    with pytest.raises(TitokError, match="needs all 16 tokens"):
        truncate(fixed, 8)
    assert truncate(fixed, 16) == fixed


def test_verify_checks_what_can_be_checked_without_a_network(tabled, packed, tiny_path):
    editing.verify(packed)
    editing.verify(tabled, model=tiny_path)
    with pytest.raises(CorruptFile):
        editing.verify(packed[:-1])


def test_neither_looking_nor_cutting_loads_torch(tabled, packed, tiny_path):
    code = f"""
import sys, titokcodec
tabled, packed = bytes.fromhex({tabled.hex()!r}), bytes.fromhex({packed.hex()!r})
assert titokcodec.info(packed).intact
assert titokcodec.info(titokcodec.truncate(packed, 8)).tokens == 8
assert not {{"torch", "PIL"}} & set(sys.modules), "loaded for packed tokens"
assert titokcodec.info(titokcodec.truncate(tabled, 8, model={str(tiny_path)!r})).tokens == 8
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
