"""The functions that a Python program calls: what they take, what they refuse, and what a broken input costs."""

import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import titokcodec
from tests.conftest import ROOT
from titokcodec import Codec, ImageError, SkippedWarning, TitokError, defaults, info, truncate, verify

TINY = Path(__file__).parent / "data" / "tiny.safetensors"


@pytest.fixture(scope="module")
def file(codec, photo):
    return codec.compress(photo.resize((300, 200)))


@pytest.fixture
def path(file, tmp_path):
    (tmp_path / "a.titok").write_bytes(file)
    return tmp_path / "a.titok"


@pytest.fixture
def readers(codec):
    """Everything that takes a .titok file."""
    return [
        codec.decompress,
        codec.read,
        info,
        lambda source: truncate(source, 8, TINY),
        lambda source: verify(source, TINY),
    ]


# ---- .titok files, however they are handed in --------------------------------------------------------------------


def test_files_are_taken_as_paths_streams_and_bytes(file, path, readers):
    for read in readers:
        expected = read(file)
        for source in (
            str(path),
            path,
            bytearray(file),
            memoryview(file),
            np.frombuffer(file, np.uint8),
            memoryview(file * 2)[: len(file)],
            io.BytesIO(file),
        ):
            found = read(source)
            same = found.equal(expected) if isinstance(found, torch.Tensor) else found == expected
            assert same
        with path.open("rb") as stream:
            read(stream)
            assert not stream.closed


def test_a_batch_takes_all_kinds_of_files_at_once(codec, file, path):
    shown = codec.decompress_batch(iter([file, path, str(path), io.BytesIO(file)]))
    assert [image.size for image in shown] == [(300, 200)] * 4


def test_the_beginning_of_a_file_may_lie_in_a_path(codec, file, tmp_path):
    (tmp_path / "part.titok").write_bytes(file[:-4])
    assert codec.decompress(tmp_path / "part.titok", strict=False).size == (300, 200)
    with pytest.raises(TitokError, match="checksum"):
        codec.decompress(tmp_path / "part.titok")


@pytest.mark.parametrize(
    "source",
    [
        None,
        1,
        1.5,
        True,
        ["a"],
        {},
        object(),
        "missing.titok",
        Path("missing"),
        ".",
        "a\0b",
        "",
        io.StringIO("text"),
        np.zeros((2, 2)),
    ],
    ids=lambda source: repr(source).partition(" object at ")[0],
)
def test_what_is_no_file_is_one_error_of_ours(readers, source):
    for read in readers:
        with pytest.raises(TitokError) as caught:
            read(source)
        assert "\n" not in str(caught.value)


def test_errors_name_the_path(readers, tmp_path):
    (tmp_path / "bad.titok").write_bytes(b"something else")
    for name in ("bad.titok", "missing.titok"):
        for read in readers:
            with pytest.raises(TitokError, match=name):
                read(tmp_path / name)


@pytest.mark.parametrize("tokens", [1.5, None, True, "8", [8]])
def test_tokens_to_keep_are_a_whole_number(file, tokens):
    with pytest.raises(TitokError, match=r"tokens is .*: give a whole number"):
        truncate(file, tokens, TINY)
    assert truncate(file, np.int64(8), TINY) == truncate(file, 8, TINY)


# ---- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_side", "9"),
        ("max_side", 1.5),
        ("max_side", 0),
        ("max_side", True),
        ("max_pixels", "1"),
        ("max_pixels", 1.5),
        ("max_pixels", -1),
        ("target_bytes", "99"),
        ("target_bytes", 0),
        ("tokens", True),
        ("effort", True),
        ("effort", "much"),
        ("layout", None),
        ("layout", 1),
        ("background", 7),
        ("frame", 0.5),
        ("white", "x"),
        ("errors", "ignore"),
        ("errors", None),
    ],
)
def test_values_that_make_no_sense_name_their_option(codec, photo, file, option, value):
    calls = [lambda **options: codec.compress_batch([photo], **options)]
    if option in ("max_side", "max_pixels", "errors"):
        calls.append(lambda **options: codec.decompress_batch([file], **options))
    for call in calls:
        with pytest.raises(TitokError, match=option) as caught:
            call(**{option: value})
        assert "\n" not in str(caught.value)


def test_numpys_integers_are_numbers(codec, photo):
    options = {"max_side": 40, "max_pixels": 10**6, "effort": 0, "frame": 0}
    assert codec.compress(photo, **{k: np.int32(v) for k, v in options.items()}) == codec.compress(photo, **options)


def test_a_misspelt_option_fails_before_any_model_is_loaded(photo, monkeypatch):
    monkeypatch.setattr(defaults, "default_codec", lambda: pytest.fail("loaded"))
    for function in (titokcodec.compress, titokcodec.decompress):
        with pytest.raises(TypeError, match="tokns"):
            function(photo, tokns=3)


def test_all_ways_to_call_have_the_same_named_options():
    for names in ("compress", "decompress"):
        signatures = [
            inspect.signature(f)
            for f in (getattr(titokcodec, names), getattr(Codec, names), getattr(Codec, f"{names}_batch"))
        ]
        kinds = [
            [p for p in s.parameters.values() if p.kind == p.KEYWORD_ONLY and p.name != "errors"] for s in signatures
        ]
        assert kinds[0] == kinds[1] == kinds[2]
        assert len(kinds[0]) == {"compress": 12, "decompress": 3}[names]
        assert all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for s in signatures for p in s.parameters.values())


def test_a_type_checker_knows_the_options(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(
        "import titokcodec\n"
        "from titokcodec import Codec, TitokError\n"
        "a: bytes = titokcodec.compress('a.png', tokens=3)\n"
        "b: list[bytes] = Codec.from_pretrained().compress_batch(['a.png'], errors='skip')\n"
        "c: list[bytes | TitokError] = Codec.from_pretrained().compress_batch(['a.png'], errors='return')\n"
        "titokcodec.decompress('a.titok', max_side=3).save('a.png')\n"
        "titokcodec.compress('a.png', tokns=3)\n"
        "titokcodec.decompress(3)\n"
        "titokcodec.compress('a.png', tokens='3')\n"
    )
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n"
        "[mypy-torch.*,numpy.*]\nfollow_imports = skip\n"  # they take longer than all the rest
    )
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", tmp_path, tmp_path / "user.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    ).stdout
    lines = [line.split(":")[1] for line in said.splitlines() if ": error:" in line]
    assert lines == ["7", "8", "9"], said


# ---- batches with broken inputs ----------------------------------------------------------------------------------


@pytest.fixture
def mixed(photo, tmp_path):
    """Five pictures, of which 0, 3 and 4 are broken."""
    (tmp_path / "text.png").write_text("not a picture")
    good = [photo.resize((40, 30)), np.asarray(photo.resize((300, 280)))]
    return [tmp_path / "text.png", *good, tmp_path / "missing.png", np.zeros((2**21 + 1, 1), np.uint8)]


@pytest.mark.parametrize("options", [{"layout": "fit"}, {"layout": "fit", "max_side": None, "effort": 0}])
def test_one_broken_picture_does_not_lose_the_batch(codec, mixed, options):
    good = codec.compress_batch(mixed[1:3], **options)
    found = codec.compress_batch(iter(mixed), errors="return", **options)
    assert found[1:3] == good
    for index, said in ((0, "text.png"), (3, "missing.png"), (4, "height is 2097153")):
        assert isinstance(found[index], TitokError) and said in str(found[index])
    with pytest.warns(SkippedWarning) as told:
        assert codec.compress_batch(mixed, errors="skip", **options) == good
    assert [str(w.message).split(":")[0] for w in told] == [f"input {n} is left out" for n in (0, 3, 4)]
    for more in ({}, {"errors": "raise"}):
        with pytest.raises(ImageError, match=r"text\.png"):
            codec.compress_batch(mixed, **options, **more)


def test_one_broken_file_does_not_lose_the_batch(codec, photo, file):
    tiled = codec.compress(photo.resize((400, 340)))
    files = [file, file[:-1], tiled, b"", "missing.titok", None]
    good = [codec.decompress(data) for data in (file, tiled)]
    found = codec.decompress_batch(files, errors="return")
    assert [found[0].size, found[2].size] == [image.size for image in good]
    assert all(isinstance(found[index], TitokError) for index in (1, 3, 4, 5))
    with pytest.warns(SkippedWarning) as told:
        assert [image.size for image in codec.decompress_batch(files, errors="skip")] == [(300, 200), (400, 340)]
    assert len(told) == 4
    with pytest.raises(TitokError, match="checksum"):
        codec.decompress_batch(files)


@pytest.mark.filterwarnings("ignore::titokcodec.SkippedWarning")
@pytest.mark.parametrize(("errors", "count"), [("return", 2), ("skip", 0)])
def test_a_batch_of_nothing_but_broken_inputs(codec, errors, count):
    assert len(codec.compress_batch([b"", None], errors=errors)) == count
    assert len(codec.decompress_batch([b"", None], errors=errors)) == count


def test_what_is_wrong_for_every_picture_is_never_skipped(codec, photo):
    for errors in ("skip", "return"):
        for options in (
            {"layout": "mosaic"},
            {"background": "no colour"},
            {"tokens": 99},
            {"max_side": 0},
            {"tokens": 8, "target_bytes": 99},
        ):
            with pytest.raises(TitokError):
                codec.compress_batch([photo], errors=errors, **options)


def test_a_target_that_one_picture_cannot_meet_is_its_own_error(codec, photo):
    found = codec.compress_batch([photo, Image.new("L", (20, 20))], target_bytes=10, errors="return")
    assert all(isinstance(error, TitokError) and "10 bytes" in str(error) for error in found)


def test_an_option_that_does_not_exist_is_named_beside_those_that_do():
    with pytest.raises(TypeError, match="no option 'tokns': there are tokens, layout, "):
        titokcodec.compress("a.png", tokns=3)
    with pytest.raises(TypeError, match="no option 'partial': there are strict, "):
        titokcodec.decompress(b"", partial=True)
    assert {*titokcodec.__all__} <= {*dir(titokcodec)} and "os" not in dir(titokcodec)
