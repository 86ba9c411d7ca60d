"""Pillow opens and saves .titok files like any other format, once told to, and works only when pixels are asked for."""

import copy
import io
import pickle
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError

import titokcodec
from titokcodec import pillow_plugin
from titokcodec.errors import ImageError
from titokcodec.format import bitstream
from titokcodec.format.header import Header


@pytest.fixture(autouse=True)
def registered(codec):
    titokcodec.register_pillow(codec)
    yield
    titokcodec.register_pillow(codec)


@pytest.fixture(scope="module")
def fitted(codec, photo):
    """A file of a 512 x 400 picture on one tile."""
    return codec.compress(photo.crop((0, 0, 512, 400)), layout="fit")


@pytest.fixture(scope="module")
def tiled(codec, photo):
    return codec.compress(photo, layout="tile")


def opened(data):
    return Image.open(io.BytesIO(data))


def counting(monkeypatch, codec):
    """How often the network decodes from now on."""
    calls = []
    monkeypatch.setattr(codec, "decoder", lambda tokens, real=codec.decoder: calls.append(1) or real(tokens))
    return calls


def test_importing_registers_nothing_and_registering_needs_no_torch():
    code = """
import sys
from PIL import Image
import titokcodec, titokcodec.pillow_plugin
assert ".titok" not in Image.registered_extensions() and "TITOK" not in Image.OPEN
titokcodec.register_pillow()
titokcodec.register_pillow()
assert Image.registered_extensions()[".titok"] == "TITOK" and Image.ID.count("TITOK") == 1
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opening_reads_the_header_alone(codec, fitted, monkeypatch):
    calls = counting(monkeypatch, codec)
    with opened(fitted) as image:
        assert (image.format, image.mode, image.size) == ("TITOK", "RGB", (512, 400))
        assert image.get_format_mimetype() == "image/x-titok"
        assert image.info == {"tokens": 16, "layout": "fit", "model": "custom"}
        assert not calls
        image.load()
        image.load()
    assert len(calls) == 1


def test_pixels_are_those_of_decompress(codec, fitted, tiled):
    for data in (fitted, tiled):
        assert np.array_equal(np.asarray(opened(data)), np.asarray(codec.decompress(data)))


def test_grey_pictures_are_grey(codec, photo):
    data = codec.compress(photo.convert("L"))
    image = opened(data)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.asarray(codec.decompress(data)))


def test_saving_takes_the_options_of_compress(codec, photo, tmp_path):
    path = tmp_path / "a.titok"
    photo.save(path, tokens=9, layout="fit")
    assert path.read_bytes() == codec.compress(photo, tokens=9, layout="fit")
    photo.save(path, target_bytes=60)
    assert path.stat().st_size <= 60
    clear = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    clear.save(path, background="red")
    assert path.read_bytes() == codec.compress(Image.new("RGB", (40, 30), "red"))


def test_options_of_other_formats_are_said_to_do_nothing(codec, photo, tmp_path):
    path = tmp_path / "a.titok"
    with pytest.warns(titokcodec.IgnoredWarning, match=r"no option quality, exif: tokens=, target_bytes= and effort"):
        photo.save(path, layout="fit", quality=85, exif=b"", tokns=None)
    assert path.read_bytes() == codec.compress(photo, layout="fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        photo.save(path, layout="fit", tokens=9, effort=0)


def test_saving_all_of_one_frame_is_saving_it(codec, photo, tmp_path):
    path = tmp_path / "a.titok"
    for options in ({}, {"append_images": []}):
        photo.save(path, save_all=True, layout="fit", **options)
        assert path.read_bytes() == codec.compress(photo, layout="fit")
        path.unlink()


def test_saving_all_of_many_frames_says_what_to_do(photo, tmp_path):
    path, small = tmp_path / "a.titok", photo.resize((20, 20))
    small.save(tmp_path / "a.gif", save_all=True, append_images=[small.rotate(90)])
    with Image.open(tmp_path / "a.gif") as animated:
        for image, options in ((small, {"append_images": [small]}), (animated, {})):
            with pytest.raises(ValueError, match="holds one picture: save every frame to a file of its own"):
                image.save(path, save_all=True, **options)
            assert not path.exists()
        animated.seek(1)
        animated.save(path)  # the current one, as in every format of single pictures
    assert Image.open(path).size == (20, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_every_mode_can_be_saved(mode):
    held = io.BytesIO()
    Image.new(mode, (20, 30)).save(held, "TITOK")
    assert opened(held.getvalue()).size == (20, 30)


def test_failing_to_save_leaves_no_file(photo, tmp_path):
    path = tmp_path / "a.titok"
    with pytest.raises(ValueError, match="8 to 16 tokens"):
        photo.save(path, tokens=99)
    assert not path.exists()


def test_copies_pickles_and_files_behave(codec, fitted, tmp_path):
    expected = np.asarray(codec.decompress(fitted))
    path = tmp_path / "a.titok"
    path.write_bytes(fitted)
    image = Image.open(path)
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(image))), expected)
    assert image.fp is None  # the file was closed with the decoding
    for again in (copy.copy(image), copy.deepcopy(image), image.copy()):
        assert np.array_equal(np.asarray(again), expected)
    assert image.rotate(90, expand=True).size == (400, 512)
    assert image.getpixel((3, 4)) == tuple(expected[4, 3])
    image.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3)


def test_a_closed_picture_says_so(fitted):
    with opened(fitted) as image:
        pass
    with pytest.raises((OSError, ValueError), match="closed"):
        image.load()


def test_many_threads_may_load_one_picture(codec, fitted, tmp_path, monkeypatch):
    """As servers do: the first decodes it while the others wait."""
    path, decoded, failed = tmp_path / "a.titok", [], []
    path.write_bytes(fitted)
    expected = np.asarray(codec.decompress(fitted))
    decode = codec.decoder

    def slowly(tokens):
        decoded.append(1)
        time.sleep(0.2)
        return decode(tokens)

    monkeypatch.setattr(codec, "decoder", slowly)
    image = Image.open(path)

    def load():
        try:
            assert np.array_equal(np.asarray(image), expected)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(decoded) == 1


def test_what_has_arrived_is_decoded_if_pillow_is_told_to(codec, fitted, monkeypatch):
    part = fitted[:-3]
    with pytest.raises(OSError, match="checksum") as caught:
        opened(part).load()
    assert "--partial" not in str(caught.value), "which is an option of a command"
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(np.asarray(opened(part)), np.asarray(codec.decompress(part, strict=False)))
    with pytest.raises(OSError, match="too little"):
        opened(fitted[: bitstream.parse(fitted)[1]]).load()


def test_draft_decodes_a_fitted_picture_from_its_tile(codec, fitted):
    image = opened(fitted)
    assert image.draft(None, (200, 200)) == ("RGB", (0, 0, 256, 200))
    assert image.size == (256, 200)
    assert np.array_equal(np.asarray(image), np.asarray(codec.decompress(fitted, max_side=256)))
    assert image.draft("L", (10, 10)) is None, "too late"


def test_draft_does_not_reduce_what_it_should_not(fitted, tiled):
    assert opened(fitted).draft(None, (300, 300)) is None
    assert opened(tiled).draft(None, (100, 100)) is None
    image = opened(tiled)
    assert image.draft("L", None) == ("L", (0, 0, 512, 512))
    assert np.asarray(image).shape == (512, 512)


def test_thumbnails(fitted, tiled):
    for data, size in ((fitted, (100, 78)), (tiled, (100, 100))):
        image = opened(data)
        image.thumbnail((100, 100))
        assert image.size == size


def test_verify_checks_without_the_network(codec, fitted, monkeypatch):
    calls = counting(monkeypatch, codec)
    opened(fitted).verify()
    with pytest.raises(OSError, match="checksum"):
        opened(fitted[:-1] + bytes([fitted[-1] ^ 1])).verify()
    assert not calls


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:-1] + b"x"])
def test_damage_behind_the_header_shows_when_decoding(fitted, damage):
    image = opened(damage(fitted))
    with pytest.raises(OSError, match="checksum") as caught:
        image.load()
    assert "\n" not in str(caught.value)


def test_what_is_not_ours_is_not_identified(fitted):
    for data in (b"", fitted[:2], fitted[:12], b"\x9eU" + fitted[2:]):
        with pytest.raises(UnidentifiedImageError):
            opened(data)


def test_a_newer_version_is_named(fitted):
    newer = fitted[:2] + bytes([3 << 5]) + fitted[3:]
    with pytest.warns(UserWarning, match="version 3"), pytest.raises(UnidentifiedImageError):
        opened(newer)


def test_another_model_is_an_error_of_loading(fitted):
    header, offset = bitstream.parse(fitted)
    theirs = Header(**{**vars(header), "fingerprint": b"theirs!!"})
    image = opened(bitstream.pack(theirs, fitted[offset:], b"theirs!!"))
    with pytest.raises(OSError, match="needs the custom model"):
        image.load()


def test_bombs_are_refused_by_pillow_itself(codec):
    header = Header(2**21, 2**21, 16, "fit", False, True, 0, 0, codec.weights.fingerprint)
    with pytest.raises(Image.DecompressionBombError):
        opened(bitstream.pack(header, bytes(12), codec.weights.fingerprint))


def test_tiles_are_bounded_by_pillows_limit_too(codec, monkeypatch):
    """A picture of one pixel across passes Pillow's own check, and would be decoded for minutes."""
    header = Header(1, 2**21, 8, "tile", False, True, 0, 0, codec.weights.fingerprint)
    image = opened(bitstream.pack(header, bytes(9363 * 6), codec.weights.fingerprint))
    assert image.size == (1, 2**21)
    with pytest.raises(OSError, match="9363 tiles, over the"):
        image.load()
    long = Image.new("L", (1, 700_000))
    held = io.BytesIO()
    long.save(held, "TITOK", effort=0)
    assert opened(held.getvalue()).size == (1, 700_000)
    small = opened(codec.compress(Image.new("L", (40, 30))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    small.load()


def test_the_model_may_be_a_path(tiny_path, fitted):
    titokcodec.register_pillow(tiny_path, device="cpu")
    image = opened(fitted)
    image.draft(None, (64, 64))
    assert np.asarray(image).shape == (200, 256, 3)
    opened(fitted).verify()
    titokcodec.register_pillow("missing.safetensors")
    with pytest.raises(OSError, match="no weight file"):
        opened(fitted).load()


def test_the_plugin_takes_part_in_compress_if_the_caller_says_so(codec, fitted, tmp_path):
    """The model that it was registered with may be one to download: bytes whose kind nobody named never ask for it."""
    path = tmp_path / "a.titok"
    path.write_bytes(fitted)
    assert codec.compress(Image.open(path), tokens=8) == codec.compress(codec.decompress(fitted), tokens=8)
    assert isinstance(Image.open(path), pillow_plugin.TitokImageFile)
    for source in (path, fitted):
        with pytest.raises(ImageError, match=r"is a .titok file already"):
            codec.compress(source, tokens=8)
