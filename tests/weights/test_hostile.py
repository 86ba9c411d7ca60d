"""Files made to harm: whatever the bytes, the answer is one clear error, at once, with nothing left behind."""

import dataclasses
import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

import titokcodec
from tests import conftest
from titokcodec import cli, editing, files
from titokcodec.codec import Codec
from titokcodec.errors import CorruptFile, LimitExceeded, ModelMismatch, TitokError, UnsupportedFile, WeightsError
from titokcodec.format.bitstream import pack, parse
from titokcodec.format.header import Header
from titokcodec.weights import tokenizers

TINY = str(conftest.TINY)
quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole(codec, photo):
    """An honest file of one tile."""
    return codec.compress(photo.crop((0, 0, 300, 200)))


@pytest.fixture
def here(tmp_path, monkeypatch, codec):
    """An empty working directory, and a command line that uses the shared model."""
    monkeypatch.chdir(tmp_path)
    real = Codec.from_pretrained
    monkeypatch.setattr(
        Codec, "from_pretrained", lambda source=None, **options: codec if source == TINY else real(source, **options)
    )
    return tmp_path


def header(codec, **changes):
    own = codec.weights.fingerprint
    return Header(
        **{
            "width": 300,
            "height": 200,
            "tokens": 16,
            "layout": "fit",
            "grey": False,
            "nested": True,
            "mode": 0,
            "model_id": 0,
            "fingerprint": own,
            **changes,
        }
    )


def refused(codec, data, kind=TitokError):
    """The library's error for a file, after checking that all ways to read it agree to give one, in one line."""
    for strict in (True, False):
        try:
            codec.decompress(data, strict=strict)
        except TitokError as error:
            assert "\n" not in str(error)
        else:
            assert not strict
    with pytest.raises(kind) as caught:
        codec.decompress(data)
    return str(caught.value)


def one_line_and_nothing_written(here, data):
    """All commands refuse a file with one line, exit code 1, and no file more than before."""
    (here / "bad.titok").write_bytes(data)
    for command, arguments in [
        (cli.decompress, ["-m", TINY, "bad.titok", "out.png"]),
        (cli.decompress, ["-m", TINY, "bad.titok", "--verify"]),
        (cli.truncate, ["-m", TINY, "bad.titok", "out.titok", "-t", "8"]),
    ]:
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 1 and result.stdout == ""
        assert result.stderr.count("\n") == 1 and result.stderr.startswith(f"{command.name}: bad.titok: ")
        assert os.listdir(here) == ["bad.titok"]


def peak(action):
    """The most memory that Python held more than before, in bytes; the action has to fail as it should."""
    tracemalloc.start()
    try:
        with pytest.raises(TitokError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- damaged files -----------------------------------------------------------------------------------------------


def test_every_truncation_is_an_error(codec, whole, here):
    for length in range(len(whole)):
        with pytest.raises(CorruptFile):
            codec.decompress(whole[:length])
    for length in (0, 1, 2, 3, 12, 18, 20, len(whole) - 1):
        one_line_and_nothing_written(here, whole[:length])


def test_every_single_bit_counts(codec, whole):
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TitokError):
            codec.decompress(bytes(data))
        with pytest.raises(TitokError):
            editing.verify(bytes(data), TINY)


def test_whatever_is_appended_is_an_error(codec, whole, here):
    for tail in (b"\0", b"\xff", b"\n", whole, bytes(1000)):
        assert "checksum" in refused(codec, whole + tail, CorruptFile)
    one_line_and_nothing_written(here, whole + b"\n")


@quick
@given(st.binary(max_size=60))
@example(b"")
@example(b"\x9eT")
@example(b"\x9eT\x20" + b"\xff" * 40)
def test_random_bytes(codec, data):
    refused(codec, data)
    with pytest.raises(TitokError):
        titokcodec.info(b"\x9eT\0" + data)


@quick
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 256),
    st.booleans(),
    st.integers(0, 2),
    st.binary(max_size=40),
)
def test_random_payloads_with_a_right_checksum(codec, width, height, tokens, nested, mode, payload):
    """Somebody who can count CRCs still gets a picture of the size that was claimed, or an error."""
    about = header(codec, width=width, height=height, tokens=tokens, nested=nested, mode=mode)
    data = pack(about, payload, codec.weights.fingerprint)
    for strict in (True, False):
        try:
            image = codec.decompress(data, strict=strict)
        except TitokError as error:
            assert "\n" not in str(error)
        else:
            assert image.size == (width, height)
    try:
        assert titokcodec.info(titokcodec.truncate(data, 8, TINY)).tokens == 8
    except TitokError as error:
        assert "\n" not in str(error)


def test_files_that_are_something_else(codec, here):
    for data in (b"", b"\x89PNG\r\n\x1a\n" + bytes(50), b"hello, this is text\n" * 9, bytes(5000)):
        refused(codec, data, CorruptFile)
    one_line_and_nothing_written(here, b"hello, this is text\n")


def test_versions_and_modes_of_the_future(codec, whole, here):
    for flags in (3 << 5, 7 << 5, 1 << 5 | 3 << 1):
        data = whole[:2] + bytes([flags]) + whole[3:]
        assert "upgrade" in refused(codec, data, UnsupportedFile)
    one_line_and_nothing_written(here, data)
    prior = pack(header(codec, mode=2), b"123", codec.weights.fingerprint)
    assert "newer" in refused(codec, prior, UnsupportedFile)
    one_line_and_nothing_written(here, prior)


def test_another_model_is_named(codec, whole, here):
    _, offset = parse(whole)
    theirs = pack(header(codec, fingerprint=b"12345678"), whole[offset:], b"12345678")
    assert b"12345678".hex() in refused(codec, theirs, ModelMismatch)
    one_line_and_nothing_written(here, theirs)
    released = pack(header(codec, model_id=200, fingerprint=None), whole[offset:], b"12345678")
    assert "200" in refused(codec, released, ModelMismatch)
    one_line_and_nothing_written(here, released)


# ---- bombs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [65_535, 2**21])
@pytest.mark.parametrize("layout", ["fit", "tile"])
@pytest.mark.parametrize("mode", [0, 1])
def test_a_bomb_costs_nothing(codec, here, side, layout, mode):
    data = pack(header(codec, width=side, height=side, layout=layout, mode=mode), bytes(6), codec.weights.fingerprint)
    for action in (
        lambda: codec.decompress(data),
        lambda: codec.decompress(data, strict=False),
        lambda: titokcodec.truncate(data, 8, TINY),
        lambda: editing.verify(data, TINY),
        lambda: files.read(io.BytesIO(data)),
    ):
        assert peak(action) < 1 << 20
    assert titokcodec.info(data).width == side
    one_line_and_nothing_written(here, data)


def test_a_bomb_within_the_limit_must_still_have_its_payload(codec):
    data = pack(header(codec, width=9000, height=9000, layout="tile"), bytes(6), codec.weights.fingerprint)
    for strict in (True, False):
        assert peak(lambda strict=strict: codec.decompress(data, strict=strict)) < 1 << 20


def test_a_file_without_end_is_not_read_to_its_end(codec, whole, here):
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, count):
            start, self.taken = self.taken, self.taken + count
            return (whole + bytes(count))[start : start + count] if start < len(whole) else bytes(count)

    stream = Endless()
    data = files.read(stream)
    assert stream.taken < 1000
    refused(codec, data, CorruptFile)
    with (here / "bad.titok").open("wb") as file:
        file.write(whole)
        file.truncate(1 << 40)  # a sparse terabyte
    result = CliRunner().invoke(cli.decompress, ["-m", TINY, "bad.titok", "out.png"])
    assert result.exit_code == 1 and "checksum" in result.stderr


def test_pictures_that_are_bombs(codec, here):
    from PIL import Image

    Image.new("1", (20_000, 20_000)).save("big.png")
    with pytest.raises(LimitExceeded):
        codec.compress("big.png")
    assert peak(lambda: codec.compress("big.png")) < 1 << 20
    result = CliRunner().invoke(cli.compress, ["-m", TINY, "big.png"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "--max-pixels" in result.stderr
    assert os.listdir(here) == ["big.png"]


@pytest.mark.parametrize("cut", [0, 1, 20, 500, -1])
def test_damaged_pictures(here, cut):
    source = (Path(TINY).parent / "chelsea.jpg").read_bytes()
    Path("bad.jpg").write_bytes(source[:cut] if cut >= 0 else b"\xff\xd8" + os.urandom(500))
    result = CliRunner().invoke(cli.compress, ["-m", TINY, "bad.jpg"], catch_exceptions=False)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("titok-compress: bad.jpg: ")
    assert os.listdir(here) == ["bad.jpg"]


# ---- weight files ------------------------------------------------------------------------------------------------


def weight_file(path, arrays=None, about=None, metadata=None):
    """A copy of the tiny model with some of it replaced."""
    stored = load_file(TINY) if arrays is None else arrays
    if metadata is None:
        config = json.loads(tokenizers.read(TINY).config.to_json())
        metadata = {"titok": json.dumps({"config": config, "name": "bad"} if about is None else about)}
    path.write_bytes(save({key: np.ascontiguousarray(value) for key, value in stored.items()}, metadata))
    return path


def changed(**changes):
    """The tiny config with some fields replaced, as a weight file's metadata holds it."""
    config = json.loads(tokenizers.read(TINY).config.to_json())
    return {"config": {**config, **changes}, "name": "bad"}


def refused_weights(path):
    with pytest.raises(WeightsError) as caught:
        Codec.from_pretrained(path, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_no_weights(tmp_path):
    path = tmp_path / "bad.safetensors"
    whole = Path(TINY).read_bytes()
    for data in (
        b"",
        b"PK\x03\x04 no safetensors",
        b"\xff" * 100,
        whole[:7],
        whole[:500],
        whole[:-1],
        whole + b"x",
        (1 << 62).to_bytes(8, "little") + whole[8:],
    ):
        path.write_bytes(data)
        assert "bad.safetensors" in refused_weights(path)
    assert "no weight file" in refused_weights(tmp_path)
    assert "no weight file" in refused_weights(tmp_path / "missing")


def test_weights_without_a_config(tmp_path):
    path = tmp_path / "bad.safetensors"
    weight_file(path, metadata={})
    refused_weights(path)
    for text in ("", "{}", "[" * 9999, '{"name": "x"}', '{"name": "x", "config": 3}', '{"name": 1, "config": {}}'):
        weight_file(path, metadata={"titok": text})
        refused_weights(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 0},
        {"tokens": -1},
        {"tokens": 10**30},
        {"tokens": 2.5},
        {"tokens": "16"},
        {"tokens": None},
        {"codes": 1},
        {"codes": 2**31},
        {"code_width": 2**40},
        {"image_size": 2**30},
        {"image_size": 0},
        {"patch_size": 7},
        {"patch_size": 0},
        {"pool": 0},
        {"head": "nonsense"},
        {"head": 3},
        {"head_grid": 0},
        {"head_blocks": 10**9},
        {"head_width": 10**9},
        {"min_tokens": 17},
        {"nested": "yes"},
        {"nested": False},
        {"unknown": 1},
        {"encoder": None},
        {"encoder": {}},
        {"encoder": {"width": 32, "layers": 10**9, "heads": 2}},
        {"decoder": {"width": 10**9, "layers": 1, "heads": 1}},
        {"decoder": {"width": 33, "layers": 1, "heads": 2}},
        {"decoder": {"width": 32, "layers": 1, "heads": 0}},
        {"image_size": 512},
        {"code_width": 8},
        {"codes": 128},
        {"decoder": {"width": 64, "layers": 1, "heads": 2}},
        {"decoder": {"width": 32, "layers": 200, "heads": 2}},
    ],
)
def test_configs_that_make_no_sense_or_do_not_fit(tmp_path, changes):
    path = weight_file(tmp_path / "bad.safetensors", about=changed(**changes))
    Codec.from_pretrained(TINY, device="cpu")  # so that what is imported on first use is not counted
    tracemalloc.start()
    refused_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_tensors_that_do_not_fit(tmp_path):
    path, good = tmp_path / "bad.safetensors", load_file(TINY)
    name = sorted(key for key, value in good.items() if value.dtype == np.float16)[0]
    without = {key: value for key, value in good.items() if key != name}
    for arrays in (
        {},
        without,
        {**good, "surplus": np.zeros(3, np.float32)},
        {**good, name: good[name][..., None]},
        {**good, name: np.zeros((0,), np.float32)},
    ):
        weight_file(path, arrays)
        assert "does not fit" in refused_weights(path)


def test_names_in_files_cannot_break_the_line_or_steer_the_terminal(tmp_path):
    path, good = tmp_path / "bad.safetensors", load_file(TINY)
    weight_file(path, {**good, "a\nb\x1b[31m\u202e": np.zeros(1, np.float16)})
    text = refused_weights(path)
    assert r"unknown tensors a b\x1b[31m\u202e" in text and text.isprintable()
    config = {**changed()["config"], "x\n": 1}
    weight_file(path, about={"config": config, "name": "bad"})
    assert refused_weights(path).isprintable()
    weight_file(path, about={**changed(), "name": "a\nb\x1b[31m"})
    assert tokenizers.read(path).name == r"a b\x1b[31m"


def test_tensors_of_strange_types_and_values(tmp_path):
    path, good = tmp_path / "bad.safetensors", load_file(TINY)
    name = sorted(key for key, value in good.items() if value.dtype == np.float16)[0]
    for dtype in (np.bool_, np.int64, np.uint8):
        weight_file(path, {**good, name: np.ones(good[name].shape, dtype)})
        refused_weights(path)
    weight_file(path, {**good, name: np.full(good[name].shape, np.nan, np.float16)})
    refused_weights(path)


@pytest.mark.parametrize(
    "tables",
    [
        np.zeros((1, 64), np.uint32),
        np.ones((3, 3), np.uint32),
        np.ones((1, 64), np.uint32),
        np.ones((64,), np.uint32),
        np.full((1, 64), 1 << 18, np.float32),
        np.full((1, 64), -5, np.int32),
        np.ones((16, 64, 1), np.uint32),
    ],
)
def test_tables_that_do_not_fit(tmp_path, tables):
    refused_weights(weight_file(tmp_path / "bad.safetensors", {**load_file(TINY), tokenizers.TABLES: tables}))


def test_a_bad_weight_file_is_one_line_of_the_command(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    Path("bad.safetensors").write_bytes(b"nothing")
    Path("a.titok").write_bytes(whole)
    for command, arguments in [
        (cli.decompress, ["a.titok"]),
        (cli.decompress, ["a.titok", "--verify"]),
        (cli.truncate, ["a.titok", "b.titok", "-t", "8"]),
    ]:
        result = CliRunner().invoke(command, ["-m", "bad.safetensors", *arguments], catch_exceptions=False)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "bad.safetensors" in result.stderr
    assert sorted(os.listdir()) == ["a.titok", "bad.safetensors"]


def test_the_honest_copy_is_taken(tmp_path):
    """So that the tests above fail for their own reasons."""
    copy = tokenizers.read(weight_file(tmp_path / "good.safetensors"))
    assert copy.fingerprint == tokenizers.read(TINY).fingerprint
    assert dataclasses.asdict(copy.config) == dataclasses.asdict(tokenizers.read(TINY).config)
