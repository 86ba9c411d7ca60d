"""``titok-compress`` and ``titok-decompress`` on one file: options, formats, warnings."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import titokcodec
from tests.cli.conftest import call, compressed, outputs, picture
from titokcodec import cli
from titokcodec.cli import picture_files


def test_one_input_is_written_beside_itself(here, codec):
    picture("a.png")
    result = call(cli.compress, "a.png")
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr.startswith("a.png -> a.titok  40x30  fit, 16 tokens  ")
    assert Path("a.titok").read_bytes() == compressed(codec, "a.png")
    os.remove("a.png")
    assert call(cli.decompress, "a.titok").exit_code == 0
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(codec.decompress(Path("a.titok").read_bytes())))
    assert outputs(here) == ["a.png", "a.titok"]


def test_input_output_and_options(here, codec):
    picture("a.png", (400, 330))
    for name, options, expected in [
        ("t", ["-t", "9"], {"tokens": 9}),
        ("l", ["--layout", "fit"], {"layout": "fit"}),
        ("s", ["--max-side", "100"], {"max_side": 100}),
        ("b", ["--target-bytes", "50"], {"target_bytes": 50}),
    ]:
        assert call(cli.compress, "a.png", f"{name}.titok", *options, "-q").exit_code == 0
        assert Path(f"{name}.titok").read_bytes() == compressed(codec, "a.png", **expected)
    Image.new("RGBA", (9, 9)).save("clear.png")
    assert call(cli.compress, "clear.png", "--background", "#ff0000").exit_code == 0
    assert Path("clear.titok").read_bytes() == codec.compress(Image.new("RGB", (9, 9), "red"))


def test_a_registered_plugin_changes_nothing(here):
    titokcodec.register_pillow()
    picture_files._formats.cache_clear()
    picture("a.png")
    assert call(cli.compress, "a.png", "a.titok").exit_code == 0
    result = call(cli.decompress, "a.titok", "b.png", "--format", "TITOK")
    assert result.exit_code == 2 and "no format 'TITOK' to write" in result.stderr


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_frames_are_not_lost_in_silence(here, codec, kind):
    name, frames = f"a.{kind}", [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(name, save_all=True, append_images=frames[1:])
    result = call(cli.compress, name, "a.titok")
    warning, done = result.stderr.splitlines()
    assert result.exit_code == 0 and done.startswith(f"{name} -> a.titok")
    assert (
        warning == f"titok-compress: {name}: has several frames, of which the first is taken; choose one with frame= "
        "(--frame)"
    )
    assert call(cli.compress, name, "-f", "-q", "a.titok").stderr == ""
    result = call(cli.compress, name, "last.titok", "--frame", "2")
    assert result.stderr.count("\n") == 1
    assert Path("last.titok").read_bytes() == codec.compress(name, frame=2) != Path("a.titok").read_bytes()
    result = call(cli.compress, name, "none.titok", "--frame", "3")
    assert (result.exit_code, result.stderr) == (
        1,
        f"titok-compress: {name}: has 3 frames, and no frame 3 counted from 0; give 0 to 2\n",
    )
    assert call(cli.compress, name, "none.titok", "--frame", "-1").exit_code == 2


def test_warnings_leave_json_alone(here):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime")]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    result = call(cli.compress, "a.gif", "--json")
    assert json.loads(result.stdout)["output"] == "a.titok" and "several frames" in result.stderr
    result = call(cli.compress, "a.gif", "-", "--json")
    warning, done = map(json.loads, result.stderr.splitlines())
    assert "several frames" in warning["warning"] and done["output"] == "-"


def test_white_gives_the_number_of_bits(here):
    values = (np.arange(900).reshape(30, 30) * 4095 // 899).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    Image.fromarray((values / 4095 * 255).round().astype(np.uint8)).save("plain.png")
    dark = call(cli.compress, "deep.png", "dark.titok")
    assert dark.exit_code == 0
    assert "nearly black; if 4095 is white, say so with white=4095 (--white 4095)" in dark.stderr
    bright = call(cli.compress, "deep.png", "white.titok", "--white", "4095")
    assert bright.exit_code == 0 and bright.stderr.count("\n") == 1
    call(cli.compress, "plain.png", "plain.titok")
    assert Path("white.titok").read_bytes() == Path("plain.titok").read_bytes() != Path("dark.titok").read_bytes()
    assert call(cli.compress, "deep.png", "--white", "0").exit_code == 2


@pytest.mark.parametrize("size", [(40, 30), (256, 100), (300, 200)])
def test_icons_keep_the_size_or_are_refused(here, size):
    picture("a.png", size)
    assert call(cli.compress, "a.png").exit_code == 0
    result = call(cli.decompress, "a.titok", "a.ico")
    if max(size) > 256:
        assert result.exit_code == 1 and "cannot be written as ICO at 300x200, only up to 256x256" in result.stderr
        assert not Path("a.ico").exists()
    else:
        assert result.exit_code == 0 and Image.open("a.ico").size == size
    result = call(cli.decompress, "a.titok", "a.icns")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and not Path("a.icns").exists()
    assert f"cannot be written as ICNS at {size[0]}x{size[1]}, only at" in result.stderr
    for suffix in ("bmp", "gif", "jpg", "pdf", "tiff", "webp"):
        assert call(cli.decompress, "a.titok", f"a.{suffix}").exit_code == 0


def test_quiet_prints_nothing(here):
    picture("a.png")
    result = call(cli.compress, "-q", "a.png")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_the_suffix_or_the_format_decides_what_is_written(here):
    picture("a.png")
    call(cli.compress, "a.png")
    for arguments, name, kind in [
        (["a.titok", "a.jpg"], "a.jpg", "JPEG"),
        (["a.titok", "a.webp"], "a.webp", "WEBP"),
        (["a.titok", "--format", "bmp"], "a.bmp", "BMP"),
        (["a.titok", "noname", "--format", "gif"], "noname", "GIF"),
        (["a.titok", "other", "--format", "jpg"], "other", "JPEG"),
        (["a.titok", "-o", "new.png"], "new.png", "PNG"),
        (["a.titok", "-o", "new"], "new/a.png", "PNG"),
    ]:
        assert call(cli.decompress, *arguments).exit_code == 0
        assert Image.open(name).format == kind


def test_a_format_that_cannot_be_written_is_one_line(here):
    picture("a.png")
    call(cli.compress, "a.png")
    for name in ("a.xyz", "noname", "a.titok2"):
        result = call(cli.decompress, "a.titok", name)
        assert result.exit_code == 2 and result.stderr.count("Error: ") == 1 and "cannot write" in result.stderr
    Image.new("RGB", (70, 70)).save("wide.png")
    assert call(cli.decompress, "a.titok", "--format", "nonsense").exit_code == 2


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null here")
def test_devices_get_what_standard_output_would(here):
    picture("a.png")
    call(cli.compress, "a.png")
    for command, name in ((cli.compress, "a.png"), (cli.decompress, "a.titok")):
        for arguments in (["/dev/null"], ["-o", "/dev/null"]):
            result = call(command, name, *arguments)
            assert result.exit_code == 0 and result.stderr.startswith(f"{name} -> /dev/null  ")
    result = call(cli.compress, "a.png", "b.png", "-o", "/dev/null")
    assert result.exit_code == 2 and "several inputs need a folder" in result.stderr
    assert outputs(here) == ["a.png", "a.titok"]
