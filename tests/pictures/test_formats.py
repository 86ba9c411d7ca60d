"""Which formats a stranger's bytes may be opened in, whatever the file is called."""

import argparse
import io
import os
import stat
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, features

from titokcodec import cli
from titokcodec.errors import CorruptFile, ImageError
from titokcodec.files import info
from titokcodec.io.kinds import HEAD, kind_of
from titokcodec.pictures.formats import READABLE, open_picture
from titokcodec.pictures.images import load

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def picture(kind="RGB", size=(12, 10)):
    y, x = np.mgrid[: size[1], : size[0]]
    return Image.fromarray(np.stack([x * 20, y * 20, x + y], axis=2).astype(np.uint8)).convert(kind)


def file_of(name, **options):
    held = io.BytesIO()
    picture("L" if name == "XBM" else "RGB").convert("1" if name == "XBM" else "RGB").save(held, name, **options)
    return held.getvalue()


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program that Pillow would start for PostScript; the file that it leaves when it runs."""
    program, trace = tmp_path / "bin" / "gs", tmp_path / "it-ran"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # so that it is looked for anew
    return trace


def test_postscript_starts_no_program(ghostscript, tmp_path, monkeypatch):
    from bench.gallery import square
    from training.reading import read_picture

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(EPS)
    for source in ("photo.jpg", EPS, io.BytesIO(EPS)):
        with pytest.raises(ImageError, match=r"is in a format that is not opened here \(EPS\): convert it to PNG"):
            load(source)
    result = CliRunner().invoke(cli.compress, ["photo.jpg"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "(EPS)" in result.stderr
    assert read_picture(EPS) is None
    with pytest.raises(argparse.ArgumentTypeError, match="EPS"):
        square("photo.jpg")
    assert not ghostscript.exists()
    with pytest.raises(OSError):  # the trap is a real one: whoever opens such a file on purpose springs it
        Image.open("photo.jpg").load()
    assert ghostscript.exists()


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "QOI", "TGA"]
)
def test_the_formats_of_pictures_are_opened_under_any_name(name, tmp_path):
    if name in ("AVIF", "JPEG2000", "WEBP") and not features.check({"JPEG2000": "jpg_2000"}.get(name, name.lower())):
        pytest.skip(f"this Pillow has no {name}")
    data = file_of(name)
    (tmp_path / "photo.eps").write_bytes(data)
    for source in (data, tmp_path / "photo.eps", open(tmp_path / "photo.eps", "rb")):  # noqa: SIM115
        assert load(source).pixels.shape == (10, 12, 3)
    assert name in READABLE


def test_several_pictures_in_a_jpeg_are_its_first(tmp_path):
    path = tmp_path / "two.mpo"
    picture().save(path, "MPO", save_all=True, append_images=[picture("L")])
    assert load(path).pixels.shape == (10, 12, 3)


@pytest.mark.parametrize("name", ["PCX", "SGI", "XBM", "DDS", "ICNS", "SPIDER"])
def test_other_formats_of_pillows_are_refused(name):
    options = {"sizes": [(16, 16)]} if name == "ICNS" else {}
    with pytest.raises(ImageError) as caught:
        load(file_of(name, **options) if name != "SPIDER" else b"\0" * 2000)
    assert name in str(caught.value) or name == "SPIDER"  # which has no first bytes of its own


def test_no_registered_plugin_meets_strange_bytes(monkeypatch):
    """A plugin may do anything, such as asking the network for a model; only the user's own call may."""
    met = []
    monkeypatch.setitem(Image.OPEN, "FETCH", (lambda *file: met.append(file), lambda head: head[:5] == b"FETCH"))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "FETCH"])
    with pytest.raises(ImageError, match=r"\(FETCH\)"):
        load(b"FETCH this" * 9)
    assert not met


def test_what_is_no_picture_is_called_by_its_name(codec, tmp_path):
    import torch
    from safetensors.torch import save

    path = tmp_path / "state.pt"
    torch.save({"a": torch.zeros(3)}, path)
    for data, said in [
        (codec.compress(picture()), "is a .titok file already: titok-decompress decodes it, titok-truncate"),
        (path.read_bytes(), "is a PyTorch file, not a picture"),
        (save({"a": torch.zeros(3)}), "is a safetensors file, not a picture"),
        (b"%PDF-1.7\n" * 9, "is a PDF document, not a picture"),
        (b"\0\0\0\x18ftypheic" + bytes(90), "in a format that is not opened here .HEIF."),
        (b"\x89PNG\r\n\x1a\n", "begins as a PNG picture and cannot be read as one: get the file again"),
        (b"nothing that anybody knows", "not a picture in a format that is opened here"),
    ]:
        with pytest.raises(ImageError, match=said) as caught:
            load(data)
        assert "\n" not in str(caught.value)
        assert kind_of(data[:HEAD]) == kind_of(data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "JPEG2000", "QOI"])
def test_a_picture_in_place_of_a_titok_file_is_called_by_its_name(name):
    data = file_of(name)
    assert kind_of(data).format == name
    with pytest.raises(CorruptFile, match=r"not a .titok file: it is a .* picture; titok-compress makes .titok files"):
        info(data)


def test_a_pipe_is_a_source_like_any_other():
    class Pipe(io.BytesIO):
        def seek(self, *place):
            raise io.UnsupportedOperation

    for name in ("PNG", "WEBP"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_picture(Pipe(file_of(name))).size == (12, 10)
    with pytest.raises(ImageError, match="PDF"):
        open_picture(Pipe(b"%PDF-1.7"))
