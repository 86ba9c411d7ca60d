"""The commands as a user meets them: what they write and where, what they say, and how they end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import titokcodec
from tests.cli.conftest import ENVIRONMENT, NETWORK, TINY, call, process
from tests.conftest import ROOT
from titokcodec import cli
from titokcodec.cli import picture_files
from titokcodec.format import bitstream
from titokcodec.search import MOST_STEPS
from titokcodec.weights import releases, tokenizers


@pytest.fixture
def album(here):
    """album/a.png, album/b.jpg, album/sub/c.png and album/notes.txt."""
    (here / "album" / "sub").mkdir(parents=True)
    picture(here / "album" / "a.png", (40, 30))
    picture(here / "album" / "b.jpg", (60, 50))
    picture(here / "album" / "sub" / "c.png", (20, 20))
    (here / "album" / "notes.txt").write_text("no picture")
    return here / "album"


def picture(path, size=(40, 30)):
    y, x = np.mgrid[: size[1], : size[0]]
    Image.fromarray(np.stack([x * 5, y * 5, x + y], axis=2).astype(np.uint8)).save(path)
    return path


def compressed(codec, path, **options):
    return codec.compress(path, **options)


def outputs(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---- one file ----------------------------------------------------------------------------------------------------


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
    told, done = result.stderr.splitlines()
    assert result.exit_code == 0 and done.startswith(f"{name} -> a.titok")
    assert (
        told == f"titok-compress: {name}: has several frames, of which the first is taken; choose one with frame= "
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


def test_white_says_how_many_bits_there_are(here):
    values = (np.arange(900).reshape(30, 30) * 4095 // 899).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    Image.fromarray((values / 4095 * 255).round().astype(np.uint8)).save("plain.png")
    dark = call(cli.compress, "deep.png", "dark.titok")
    assert dark.exit_code == 0
    assert "nearly black; if 4095 is white, say so with white=4095 (--white 4095)" in dark.stderr
    told = call(cli.compress, "deep.png", "told.titok", "--white", "4095")
    assert told.exit_code == 0 and told.stderr.count("\n") == 1
    call(cli.compress, "plain.png", "plain.titok")
    assert Path("told.titok").read_bytes() == Path("plain.titok").read_bytes() != Path("dark.titok").read_bytes()
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


def test_quiet_says_nothing(here):
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


# ---- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["-"], ["-", "-"], ["-", "-o", "-"]])
def test_streams_hold_the_file_and_nothing_else(here, codec, arguments):
    data = picture(here / "a.png").read_bytes()
    result = call(cli.compress, *arguments, stdin=data)
    titok = compressed(codec, "a.png")
    assert result.exit_code == 0 and result.stdout_bytes == titok
    assert result.stderr.startswith("stdin -> stdout  40x30")
    result = call(cli.decompress, *arguments, stdin=titok)
    (here / "back.png").write_bytes(result.stdout_bytes)
    assert Image.open("back.png").format == "PNG"
    assert np.array_equal(np.asarray(Image.open("back.png")), np.asarray(codec.decompress(titok)))


def test_a_stream_may_go_to_a_file_and_a_file_to_a_stream(here, codec):
    data = picture(here / "a.png").read_bytes()
    assert call(cli.compress, "-", "b.titok", stdin=data).exit_code == 0
    assert call(cli.compress, "a.png", "-").stdout_bytes == Path("b.titok").read_bytes()
    result = call(cli.decompress, "b.titok", "-", "--format", "webp")
    assert result.stdout_bytes[8:12] == b"WEBP"


def test_json_goes_to_stderr_when_stdout_is_taken(here, codec):
    picture("a.png")
    result = call(cli.compress, "a.png", "-", "--json")
    assert result.stdout_bytes == compressed(codec, "a.png")
    assert json.loads(result.stderr)["bytes"] == len(result.stdout_bytes)


def test_in_a_real_process_stdout_is_exactly_the_stream_and_torchs_compiler_is_not_loaded(here, codec):
    """Loading the compiler would double the time that a user waits for a picture."""
    data = picture(here / "a.png").read_bytes()
    code = f"""
import sys
import torch
before = {{"torch._dynamo", "sympy"}} & set(sys.modules)
from titokcodec import cli
try:
    cli.compress(["-", "-", *{NETWORK!r}, "--effort", "2"])
except SystemExit as end:
    assert not end.code
assert {{"torch._dynamo", "sympy"}} & set(sys.modules) == before
"""
    result = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, env=ENVIRONMENT, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == compressed(codec, "a.png", effort=2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_line(here):
    picture("a.png")
    call(cli.compress, "a.png", "a.titok")
    with open("/dev/full", "wb") as full:
        result = process("info", "a.titok", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1 and b"No space left" in result.stderr


def test_a_broken_pipe_is_one_line(here):
    picture("a.png")
    call(cli.compress, "a.png", "a.titok")
    read, write = os.pipe()
    os.close(read)
    result = process(
        "truncate",
        "a.titok",
        "-",
        "-t",
        "8",
        "-m",
        TINY,
        "-q",
        stdout=write,
        stderr=subprocess.PIPE,
        capture_output=False,
    )
    os.close(write)
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1 and b"Broken pipe" in result.stderr


# ---- files that are there ----------------------------------------------------------------------------------------


def test_nothing_is_replaced_unasked(here, codec):
    picture("a.png")
    Path("a.titok").write_text("precious")
    result = call(cli.compress, "a.png")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "--force" in result.stderr
    assert Path("a.titok").read_text() == "precious"
    assert call(cli.compress, "a.png", "--skip-existing").exit_code == 0
    assert Path("a.titok").read_text() == "precious"
    assert call(cli.compress, "a.png", "-f").exit_code == 0
    assert Path("a.titok").read_bytes() == compressed(codec, "a.png")


def test_an_input_is_never_replaced_by_its_result(here):
    before = picture(here / "a.png").read_bytes()
    os.link("a.png", "same.titok")
    for arguments in (["a.png", "./a.png"], ["a.png", "same.titok"]):
        assert call(cli.compress, "-f", *arguments).exit_code in (1, 2)
    assert Path("a.png").read_bytes() == before


def test_force_with_two_pictures_destroys_neither(here):
    """As a shell pattern that happens to match two would ask for."""
    picture("a.png")
    before = picture(here / "b.png").read_bytes()
    result = call(cli.compress, "-f", "a.png", "b.png")
    assert result.exit_code == 2 and "-o" in result.stderr
    assert Path("b.png").read_bytes() == before


def test_links_are_written_through_and_devices_are_written_to(here):
    picture("a.png")
    os.symlink("real.titok", "link.titok")
    Path("real.titok").write_text("old")
    assert call(cli.compress, "-f", "a.png", "link.titok").exit_code == 0
    assert Path("link.titok").is_symlink() and Path("real.titok").read_bytes()[:2] == b"\x9eT"
    if os.path.exists("/dev/null"):
        assert call(cli.compress, "-f", "a.png", "/dev/null").exit_code == 0
        assert not Path("/dev/null").is_file()
    os.symlink("loop.titok", "loop.titok")
    result = call(cli.compress, "-f", "a.png", "loop.titok")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "symbolic links" in result.stderr
    assert os.readlink("loop.titok") == "loop.titok"


def test_names_may_be_as_long_as_the_file_system_allows(here):
    name = picture(here / f"{'n' * 245}.png").name
    assert call(cli.compress, name).exit_code == 0
    assert call(cli.decompress, "-f", f"{'n' * 245}.titok", name).exit_code == 0


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_force_replaces_a_read_only_file_and_keeps_its_permissions(here):
    picture("a.png")
    Path("a.titok").write_text("precious")
    os.chmod("a.titok", 0o440)
    assert call(cli.compress, "a.png").exit_code == 1 and Path("a.titok").read_text() == "precious"
    assert call(cli.compress, "-f", "a.png").exit_code == 0
    assert Path("a.titok").read_bytes()[:2] == b"\x9eT" and Path("a.titok").stat().st_mode & 0o777 == 0o440


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout here")
def test_standard_output_has_a_name_too(here, codec):
    titok = compressed(codec, picture("a.png"))
    Path("in.titok").write_bytes(titok)
    with open("log", "wb") as log:
        result = process(
            "truncate",
            "in.titok",
            "/dev/stdout",
            "-t",
            "16",
            "-m",
            TINY,
            "-q",
            stdout=log,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert (result.returncode, result.stderr) == (0, b"") and Path("log").read_bytes() == titok


def test_a_folder_that_is_missing_or_closed_is_one_line(here):
    picture("a.png")
    result = call(cli.compress, "a.png", "missing/a.titok")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("titok-compress: a.png: cannot write missing/a.titok: No such file")


# ---- many files --------------------------------------------------------------------------------------------------


def test_a_folder_is_mirrored(album, codec):
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 0 and "3 of 3 files" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]
    assert Path("out/sub/c.titok").read_bytes() == compressed(codec, "album/sub/c.png", effort=1)
    assert call(cli.decompress, "out", "-o", "back").exit_code == 0
    assert outputs(Path("back")) == ["a.png", "b.png", "sub/c.png"]
    assert Image.open("back/b.png").size == (60, 50)


@pytest.mark.full_search
def test_a_folder_is_searched_quickly_and_a_single_picture_well(album, codec):
    single, folder = Path("one.titok"), Path("out/a.titok")
    assert call(cli.compress, "album/a.png", single).exit_code == 0
    assert call(cli.compress, "album/a.png", "-o", "out").exit_code == 0
    assert single.read_bytes() == compressed(codec, "album/a.png")
    assert folder.read_bytes() == compressed(codec, "album/a.png", effort=1) != single.read_bytes()
    assert call(cli.compress, "album/a.png", "-o", "out", "-f", "--effort", "8").exit_code == 0
    assert folder.read_bytes() == compressed(codec, "album/a.png", effort=8)
    picture(album / "wide.png", (600, 300))
    assert call(cli.compress, "album/wide.png", "-o", "out", "--layout", "tile").exit_code == 0
    assert Path("out/wide.titok").read_bytes() == compressed(codec, "album/wide.png", layout="tile", effort=0)


def test_targets(here, codec):
    picture("a.png", (600, 300))
    for name, options in (
        ("target_bytes", {"target_bytes": 60}),
        ("target_psnr", {"target_psnr": 9.5}),
        ("layout", {"target_bytes": 60, "layout": "fit"}),
    ):
        line = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        result = call(cli.compress, "a.png", f"{name}.titok", *line)
        assert result.exit_code == 0, result.stderr
        data = Path(f"{name}.titok").read_bytes()
        assert data == compressed(codec, "a.png", **options)
        about = titokcodec.info(data)
        how = f"{about.columns}x{about.rows} tiles, {about.tokens} tokens each" if about.tiles > 1 else "fit, "
        assert f"600x300  {how}" in result.stderr and f"{len(data)} bytes" in result.stderr
        original, decoded = (np.asarray(shown, float) for shown in (Image.open("a.png"), codec.decompress(data)))
        reached = 10 * np.log10(255**2 / np.square(original - decoded).mean())
        assert f"  PSNR {reached:.2f} dB\n" in result.stderr
    result = call(cli.compress, "a.png", "a.titok", "--target-psnr", 9.5, "--effort", 0, "--json")
    assert json.loads(result.stdout)["psnr"] >= 9.5
    result = call(cli.compress, "a.png", "b.titok", "--target-psnr", 70)
    assert result.exit_code == 1 and "dB is the best that this model can do" in result.stderr
    assert not Path("b.titok").exists()


def test_files_for_which_another_format_is_better_are_remarked_on(album, monkeypatch):
    from titokcodec.cli import batch_reporter

    monkeypatch.setattr(batch_reporter, "SENSIBLE_BYTES", 60)
    said = "above 60 bytes, an AVIF or WebP thumbnail of the same size is closer to the picture"
    picture(album / "wide.png", (2000, 300))
    line = ("album/wide.png", "one.titok", "--layout", "tile", "-f")
    assert f"this file: {said}" in call(cli.compress, *line).stderr
    assert said not in call(cli.compress, *line, "-q").stderr + call(cli.compress, *line, "--json").stderr
    assert said not in call(cli.compress, "album/wide.png", "one.titok", "-f").stderr
    result = call(cli.compress, "album", "-o", "out", "--layout", "tile")
    assert result.exit_code == 0 and result.stderr.count(f"1 of these files: {said}") == 1
    assert said not in call(cli.decompress, "out", "-o", "back").stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["-t", "9", "--target-psnr", "20"], "--tokens or --target-psnr"),
        (["--target-bytes", "90", "--target-psnr", "20"], "give one of target_bytes, target_psnr and target_lpips"),
        (["--target-lpips", "0.3"], "--target-lpips and --lpips"),
        (["--lpips", "x"], "--target-lpips and --lpips"),
        (["--target-psnr", "0"], "--target-psnr"),
        (["--target-psnr", "nan"], "target_psnr is nan: give a number"),
        (["--target-psnr", "inf"], "target_psnr is inf: give a number"),
    ],
)
def test_targets_that_make_no_sense(here, line, said):
    picture("a.png")
    result = call(cli.compress, "a.png", *line)
    assert result.exit_code == 2 and said in result.stderr
    assert outputs(here) == ["a.png"]


def test_weights_of_a_metric_that_are_none(here):
    picture("a.png")
    picture("b.png")
    Path("odd.safetensors").write_text("odd")
    for name, said in (("odd.safetensors", "odd.safetensors "), ("gone.safetensors", "no weight file at gone.")):
        result = call(cli.compress, "a.png", "b.png", "-o", "out", "--target-lpips", "0.3", "--lpips", name)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"titok-compress: {said}")


def test_the_remark_stands_where_thumbnails_overtake():
    """Of the sizes that were measured, titok wins those below it, and the best thumbnail of any format those above."""
    from titokcodec.cli.batch_reporter import SENSIBLE_BYTES

    folder = ROOT / "bench/results/kodak-targets"
    results = {path.stem: json.loads(path.read_text())["results"] for path in folder.glob("*-t*.json")}
    (ours,) = (found for name, found in results.items() if name.startswith("titok"))
    rivals = [found for name, found in results.items() if name.endswith("thumbnail")]
    for metric in ("psnr-rgb", "ssimulacra2"):
        for number, limit in enumerate((400, 1000, 2000, 4000)):
            best = max(found[metric][number] for found in rivals)
            assert (ours[metric][number] > best) == (limit < SENSIBLE_BYTES)


def test_effort_ends_where_the_library_ends():
    (effort,) = (param for param in cli.compress.params if param.name == "effort")
    assert effort.type.max == MOST_STEPS


def test_the_help_tells_what_effort_costs_as_it_was_measured():
    """Seconds a picture, and decibels at 128 tokens, to the figure that the help rounds to."""
    rows = {row["effort"]: row for row in json.loads((ROOT / "bench/results/effort.json").read_text())["rows"]}
    said = " ".join(call(cli.compress, "--help").stdout.split())
    for effort, digits in ((0, 3), (1, 2), (8, 1)):
        assert f"{rows[effort]['seconds/1']:.{digits}f} s".removeprefix("0") in said
    for effort, digits in ((1, 2), (8, 1)):
        gain = rows[effort]["psnr/128"] - rows[0]["psnr/128"]
        assert f"{gain:.{digits}f} dB".removeprefix("0") in said


def test_several_inputs_share_forward_passes(album, codec, monkeypatch):
    sizes = []
    real = codec.encode
    monkeypatch.setattr(codec, "encode", lambda *given, **named: sizes.append(len(given[0])) or real(*given, **named))
    assert call(cli.compress, "album/a.png", "album/b.jpg", "album/sub", "-o", "out").exit_code == 0
    assert sizes == [3]
    assert outputs(Path("out")) == ["a.titok", "b.titok", "c.titok"]


def test_a_bad_file_does_not_stop_the_others(album):
    (album / "bad.png").write_bytes(b"no picture at all")
    result = call(cli.compress, "album", "missing.png", "-o", "out")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("titok-compress: ")]
    assert len(lines) == 2
    assert lines[0].startswith("titok-compress: album/bad.png: not a picture")
    assert lines[1].startswith("titok-compress: missing.png: no such file")
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]


def test_what_fails_in_the_network_fails_alone(album, codec):
    """A budget that one picture of a group cannot meet, as it is to be tiled."""
    picture(album / "wide.png", (2000, 300))
    result = call(cli.compress, "album", "-o", "out", "--target-bytes", "28", "--layout", "tile")
    assert result.exit_code == 1
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]
    assert "titok-compress: album/wide.png: cannot make this picture 28 bytes: the least" in result.stderr


def test_memory_that_runs_out_for_a_group_is_tried_file_by_file(album, codec, monkeypatch):
    real = codec.compress_batch

    def limited(pictures, **options):
        if len(pictures) > 1 or pictures[0].pixels.shape[0] == 50:
            raise MemoryError
        return real(pictures, **options)

    monkeypatch.setattr(codec, "compress_batch", limited)
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and "album/b.jpg: not enough memory" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "sub/c.titok"]


def test_a_rerun_does_what_is_missing(album):
    Path("out").mkdir()
    Path("out/a.titok").write_text("done before")
    result = call(cli.compress, "album", "-o", "out", "--skip-existing")
    assert result.exit_code == 0 and "2 of 3 files, 1 skipped" in result.stderr
    assert Path("out/a.titok").read_text() == "done before"
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and result.stderr.count("exists") == 3


def test_two_inputs_with_one_output_are_told_apart(album):
    picture(album / "a.bmp")
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and "album/a.png: would be written to out/a.titok" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]


def test_shards_share_the_work(album):
    for index in range(2):
        assert call(cli.compress, "album", "-o", f"out{index}", "--shard", f"{index}/2").exit_code == 0
    assert outputs(Path("out0")) == ["a.titok", "sub/c.titok"]
    assert outputs(Path("out1")) == ["b.titok"]
    assert call(cli.compress, "album", "-o", "out2", "--shard", "8/9").exit_code == 0
    assert not Path("out2").exists()


def test_an_empty_folder_is_an_error(here):
    Path("empty").mkdir()
    result = call(cli.compress, "empty", "-o", "out")
    assert result.exit_code == 1 and "no pictures in this folder" in result.stderr


def test_json_is_one_object_a_file(album):
    (album / "bad.png").write_bytes(b"")
    result = call(cli.compress, "album", "-o", "out", "--json")
    facts = {Path(item["input"]).name: item for item in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1 and sorted(facts) == ["a.png", "b.jpg", "bad.png", "c.png"]
    assert "not a picture" in facts["bad.png"]["error"]
    a = facts["a.png"]
    assert a["output"] == "out/a.titok" and (a["width"], a["height"], a["tiles"], a["tokens"]) == (40, 30, 1, 16)
    assert a["bytes"] == Path("out/a.titok").stat().st_size and a["seconds"] > 0
    assert a["bpp"] == pytest.approx(8 * a["bytes"] / 1200, abs=1e-5)
    again = call(cli.compress, "album/a.png", "-o", "out", "--json", "--skip-existing")
    assert json.loads(again.stdout)["skipped"] is True


def test_verbose_names_the_model_and_every_file(album):
    result = call(cli.compress, "album", "-o", "out", "-v")
    assert "model tiny (" in result.stderr and "on cpu in float32" in result.stderr
    assert "album/sub/c.png -> out/sub/c.titok  20x20" in result.stderr


def test_odd_names_stay_on_one_line(here):
    Path("two\nlines.png").write_bytes(b"")
    result = call(cli.compress, "two\nlines.png")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    picture("Grüße ☀.png")
    assert call(cli.compress, "Grüße ☀.png").exit_code == 0
    assert "Grüße ☀.titok" in call(cli.info, "Grüße ☀.titok").stdout


# ---- what makes no sense -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.png", "b.titok", "c.png"],
        ["album"],
        ["a.png", "album"],
        ["album", "out"],
        ["-", "a.png", "-o", "out"],
        ["album", "-o", "-"],
        ["album", "-o", "album/a.png"],
        ["a.png", "-t", "0"],
        ["a.png", "-t", "x"],
        ["a.png", "--layout", "round"],
        ["a.png", "-f", "--skip-existing"],
        ["a.png", "-q", "-v"],
        ["a.png", "--effort", "3000"],
        ["a.png", "--shard", "4/4"],
        ["a.png", "--shard", "1"],
        ["a.png", "--background", "no colour"],
        ["a.png", "-t", "8", "--target-bytes", "99"],
        ["a.png", "--dtype", "int4"],
        ["a.png", "--max-pixels", "-1"],
    ],
)
def test_usage_errors_end_with_2_and_write_nothing(album, arguments):
    picture("a.png")
    before = outputs(Path())
    result = call(cli.compress, *arguments)
    assert result.exit_code == 2 and "Error: " in result.stderr and result.stdout == ""
    assert outputs(Path()) == before


def test_what_the_model_cannot_do_ends_at_once(album):
    for arguments, code in ((["-t", "17"], 2), (["-m", "missing.safetensors"], 1), (["-m", TINY, "-t", "3"], 2)):
        result = call(cli.compress, "album", "-o", "out", *arguments)
        assert result.exit_code == code and len(result.stderr.splitlines()) == (4 if code == 2 else 1)  # with the usage
    assert not Path("out").exists()


def test_max_pixels(here, codec):
    picture("a.png", (40, 30))
    result = call(cli.compress, "a.png", "--max-pixels", "1199")
    assert result.exit_code == 1 and "--max-pixels" in result.stderr and not Path("a.titok").exists()
    assert call(cli.compress, "a.png", "--max-pixels", "1200").exit_code == 0
    assert call(cli.decompress, "a.titok", "b.png", "--max-pixels", "1199").exit_code == 1
    assert call(cli.decompress, "a.titok", "b.png", "--max-pixels", "0").exit_code == 0


def test_interruption_is_quiet(here, codec, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    picture("a.png")
    monkeypatch.setattr(codec, "compress_batch", interrupted)
    result = call(cli.compress, "a.png")
    assert (result.exit_code, result.stderr) == (130, "") and outputs(here) == ["a.png"]


# ---- what others' commands would take ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "out.png"], "out.png is no name for a .titok file: type out.titok"),
        (["-o", "out.png", "a.png"], "type out.titok"),
        (["a.png", "out.avif"], "type out.titok"),
        (["a.png", "30"], "type 30.titok"),
        (["a.png", "missing/"], "missing/ is a folder: name it with -o to write into it: type -o missing/"),
        (["a.png", "b.png", "missing/"], "Several inputs need -o FOLDER: type -o missing/"),
        (["a.png", "b.png", "album"], "type -o album"),
        (["-o", "out.titok", "a.png", "b.png"], "-o out.titok is a file: several inputs need a folder"),
        (["-o", "out.titok", "album"], "-o out.titok is a file"),
        (
            ["a.png", "-q", "30"],
            "-q is for quiet and takes no number: leave 30 out; quality is a number of tokens (-t)",
        ),
        (["-q", "80", "a.png", "-o", "out.titok"], "takes no number: leave 80 out"),
        (["-q30", "a.png"], "No such option: -3"),
        (["--quality", "30", "a.png"], "No such option: --quality; quality is a number of tokens"),
        (["-m", "6", "a.png"], "6 is no weight file"),
        (["-m", "default-5", "a.png"], "default-5 is no file, but the name of the bundled model"),
        (["-m", "default-5", "a.png"], "leave -m out"),
        (["-m", "default-3", "a.png"], "an earlier model, which is not bundled any more"),
        (["-mt", "a.png"], "No such option: -mt; all cores are used"),
        (["-d", "a.titok"], "'a.titok' is no device, such as cpu or cuda:1; titok-decompress decodes .titok files"),
        (["-dc", "a.titok"], "titok-decompress decodes .titok files"),
        (["-d", "1.0", "a.png"], "no device, such as cpu or cuda:1; quality is a number of tokens"),
        (["-c", "a.png"], "No such option: -c; - as OUTPUT, or -o -, is standard output"),
        (["-k", "a.png"], "inputs are kept in any case"),
        (["--rm", "a.png"], "inputs are kept"),
        (["-r", "album"], "folders are searched with all their subfolders"),
        (["-l", "a.titok"], "titok-info"),
        (["-9", "a.png"], "--effort"),
        (["-e", "7", "a.png"], "--effort"),
        (["-s", "6", "a.png"], "--effort"),
        (["-T0", "a.png"], "OMP_NUM_THREADS"),
        (["-j", "8", "a.png"], "OMP_NUM_THREADS"),
        (["-y", "a.png"], "-f replaces"),
        (["-lossless", "a.png"], "there is no lossless mode"),
        (["-resize", "9", "9", "a.png"], "--max-side"),
        (["-preset", "photo", "a.png"], "quality is"),
        (["-i", "a.png"], "without an option"),
        (["a.png", "-t", "200"], "-t 200: this model takes 8 to 16 tokens"),
        (["a.png", "-t", "300"], "1<=x<=256"),
        (["a.png", "-b", "0"], "x>=1"),
        (["a.png", "-d", ""], "is no device"),
    ],
)
def test_habits_are_told_what_to_type(album, arguments, said):
    picture("a.png")
    picture("b.png")
    before = outputs(Path())
    result = call(cli.compress, *arguments)
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and result.stderr.count("Error: ") == 1 and last.startswith("Error: ") and said in last
    assert outputs(Path()) == before and not Path("missing").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.png", "out.titok"],
        ["a.png", "out.TITOK"],
        ["-o", "out.titok", "a.png"],
        ["-fq", "a.png", "out.titok"],
        ["-f", "--", "a.png", "out.titok"],
        ["--force", "a.png", "-o", "out/"],
        ["a.png", "b.png", "-o", "v1.2"],
        ["-q", "--", "-k.png"],
        ["-q", "30"],
        ["a.png", "/dev/null"],
    ],
)
def test_what_makes_sense_is_done(album, arguments):
    for name in ("a.png", "b.png", "-k.png"):
        picture(Path(name))
    os.rename(picture(Path("c.png")), "30")  # a picture may be called anything
    result = call(cli.compress, *arguments)
    assert result.exit_code == 0, result.stderr


def test_a_file_of_another_kind_is_called_by_its_name(here, codec):
    picture("a.png")
    Path("x.titok").write_bytes(codec.compress("a.png"))
    for arguments in (["x.titok"], ["x.titok", "y.titok"], ["x.titok", "-o", "out"]):
        result = call(cli.compress, *arguments)
        assert result.exit_code == 1 and result.stderr == (
            "titok-compress: x.titok: is a .titok file already: titok-decompress draws it, titok-truncate makes it "
            "smaller\n"
        )
    said = "a.png: not a .titok file: it is a PNG picture; titok-compress makes .titok files of pictures\n"
    for command, arguments in (
        (cli.decompress, ["a.png"]),
        (cli.decompress, ["a.png", "b.png"]),
        (cli.decompress, ["a.png", "--verify"]),
        (cli.info, ["a.png"]),
        (cli.truncate, ["a.png", "b.titok", "-t", "8"]),
    ):
        result = call(command, *arguments)
        assert result.exit_code == 1 and result.stderr == f"{command.name}: {said}"
    for name, text in (("x.titok", "it is a .titok file"), ("a.png", "it is a PNG picture")):
        result = CliRunner().invoke(cli.compress, ["a.png", "-m", name])
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and text in result.stderr
    assert outputs(here) == ["a.png", "x.titok"]


def test_other_commands_know_the_names_of_their_results(here, codec):
    Path("a.titok").write_bytes(codec.compress(picture(here / "a.png")))
    for command, arguments, said in (
        (cli.decompress, ["a.titok", "b.titok"], "cannot write a picture as '.titok'"),
        (cli.decompress, ["a.titok", "b.titok", "--format", "png"], "b.titok is no name for a picture"),
        (cli.decompress, ["-t", "a.titok"], "titok-decompress --verify checks files"),
        (cli.decompress, ["a.titok", "missing/"], "type -o missing/"),
        (cli.truncate, ["a.titok", "b.png", "-t", "8"], "b.png is no name for a .titok file: type b.titok"),
        (cli.truncate, ["a.titok", "missing/", "-t", "8"], "missing/ is a folder: name the file"),
        (cli.convert, ["a.bin", "b.bin"], "b.bin is no name for a weight file: type b.safetensors"),
        (cli.convert, ["a.bin", "missing/"], "missing/ is a folder"),
        (cli.info, ["-l", "a.titok"], "titok-info"),
    ):
        result = call(command, *arguments)
        assert result.exit_code == 2 and said in result.stderr.splitlines()[-1], result.stderr
    assert outputs(here) == ["a.png", "a.titok"]


# ---- partial, verify, info, truncate -----------------------------------------------------------------------------


def test_partial_files_are_drawn_when_asked(here, codec):
    data = codec.compress(picture(here / "a.png", (400, 400)))
    Path("cut.titok").write_bytes(data[:-9])
    result = call(cli.decompress, "cut.titok")
    assert result.exit_code == 1 and "checksum" in result.stderr and not Path("cut.png").exists()
    assert result.stderr.endswith("get it again, or decode what has arrived of it with --partial\n")
    arrived = codec.read(data[:-9], strict=False).shape[1]
    result = call(cli.decompress, "cut.titok", "--partial")
    first, done = result.stderr.splitlines()
    assert result.exit_code == 0 and 0 < arrived < 16 and done.startswith("cut.titok -> cut.png  ")
    assert first == f"titok-decompress: cut.titok: {arrived} of 16 tokens a tile have arrived"
    result = call(cli.decompress, "cut.titok", "--partial", "-f", "--json")
    facts = json.loads(result.stdout)
    assert (facts["arrived"], facts["tokens"]) == (arrived, 16)
    Path("whole.titok").write_bytes(data)
    assert call(cli.decompress, "whole.titok", "--partial").stderr.startswith("whole.titok -> whole.png  ")
    assert Image.open("cut.png").size == (400, 400)


def test_verify_answers_with_its_exit_code(album, codec):
    call(cli.compress, "album", "-o", "out")
    result = call(cli.decompress, "--verify", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    damaged = bytearray(Path("out/a.titok").read_bytes())
    damaged[-1] ^= 4
    Path("out/a.titok").write_bytes(damaged)
    result = call(cli.decompress, "--verify", "out/b.titok", "out/a.titok")
    assert result.exit_code == 1 and result.stderr.startswith("titok-decompress: out/a.titok: checksum")
    assert call(cli.decompress, "--verify", "-", stdin=Path("out/b.titok").read_bytes()).exit_code == 0
    assert call(cli.decompress, "--verify", "out", "-o", "x").exit_code == 2
    assert "--partial" not in result.stderr, "there is nothing to decode here"
    result = call(cli.truncate, "out/a.titok", "b.titok", "-t", "8")
    assert result.exit_code == 1 and "checksum" in result.stderr and "--partial" not in result.stderr
    facts = [json.loads(line) for line in call(cli.decompress, "--verify", "out", "--json").stdout.splitlines()]
    assert [item.get("ok", False) for item in facts] == [False, True, True]


def test_info_says_what_is_in_a_file(here, codec):
    data = codec.compress(picture(here / "a.png", (400, 260)), tokens=12, layout="tile")
    Path("a.titok").write_bytes(data)
    line = call(cli.info, "a.titok").stdout
    parts = ("a.titok: 400x260", "2x1 tiles, 12 tokens each", f"{len(data)} bytes", "version 2", "colour")
    for part in (*parts, "checksum ok"):
        assert part in line
    facts = json.loads(call(cli.info, "--json", "-", stdin=data).stdout)
    assert facts["input"] == "-" and facts["tokens"] == 12 and facts["intact"] is True
    assert facts["fingerprint"] == codec.weights.fingerprint.hex()
    result = call(cli.info, "a.png", "a.titok", "missing")
    assert result.exit_code == 1 and result.stdout == line and result.stderr.count("\n") == 2


def test_a_released_model_needs_no_option(here, codec, monkeypatch):
    """As if the tiny model were the bundled one; then as if a later version had replaced it."""
    fingerprint = codec.weights.fingerprint
    released = releases.Release(9, "first", fingerprint, "first.safetensors")
    monkeypatch.setattr(releases, "RELEASES", (released,))
    monkeypatch.setattr(tokenizers, "locate", lambda source=None: Path(TINY))
    Path("a.titok").write_bytes(codec.compress(picture(here / "a.png", (400, 300)), layout="tile"))
    assert f"model first {fingerprint.hex()}" in call(cli.info, "a.titok").stdout
    assert call(cli.truncate, "a.titok", "b.titok", "-t", "8").exit_code == 0
    result = CliRunner().invoke(cli.decompress, ["b.titok", "-d", "cpu", "--dtype", "fp32"])
    assert result.exit_code == 0 and Image.open("b.png").size == (400, 300)
    assert CliRunner().invoke(cli.decompress, ["--verify", "a.titok", "b.titok"]).exit_code == 0

    retired = releases.Release(9, "first", b"retired!", None)
    monkeypatch.setattr(releases, "RELEASES", (retired, releases.Release(10, "second", fingerprint, "second")))
    data = Path("a.titok").read_bytes()
    header, offset = bitstream.parse(data)
    Path("old.titok").write_bytes(bitstream.pack(header, data[offset:], b"retired!"))
    for arguments in (["old.titok", "-d", "cpu"], ["old.titok", "--verify"]):
        result = CliRunner().invoke(cli.decompress, arguments)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert "released model 'first'" in result.stderr


def test_truncate_drops_tokens(here, codec):
    data = codec.compress(picture(here / "a.png", (400, 300)))
    Path("a.titok").write_bytes(data)
    expected = titokcodec.truncate(data, 8, TINY)
    assert call(cli.truncate, "a.titok", "b.titok", "-t", "8", "-m", TINY).exit_code == 0
    assert Path("b.titok").read_bytes() == expected
    assert call(cli.truncate, "-", "-", "-t", "8", "-m", TINY, stdin=data).stdout_bytes == expected
    result = call(cli.truncate, "a.titok", "b.titok", "-t", "9", "-m", TINY)
    assert result.exit_code == 1 and "--force" in result.stderr and Path("b.titok").read_bytes() == expected
    assert call(cli.truncate, "a.titok", "a.titok", "-t", "8", "-m", TINY, "-f").exit_code == 0
    assert Path("a.titok").read_bytes() == expected
    result = call(cli.truncate, "a.titok", "c.titok", "-t", "9", "-m", TINY)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and not Path("c.titok").exists()


# ---- what every command has --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compress", "convert", "decompress", "generate", "info", "truncate"])
def test_help_and_version(name):
    command = getattr(cli, name)
    assert call(command, "--version").stdout == f"titok-{name} {titokcodec.__version__}\n"
    for option in ("-h", "--help"):
        text = call(command, option).stdout
        assert text.startswith(f"Usage: titok-{name} ") and "Example" in text


def test_looking_at_files_loads_no_heavy_library(here, codec):
    Path("a.titok").write_bytes(codec.compress(picture(here / "a.png", (400, 300))))
    for command, arguments in [("info", ["a.titok"]), ("compress", ["--help"]), ("decompress", ["--version"])]:
        code = f"""
import sys
from titokcodec.cli import {command} as command
try:
    command({arguments!r})
except SystemExit as end:
    assert not end.code
assert not {{"torch", "numpy", "PIL", "safetensors", "constriction"}} & set(sys.modules), sorted(sys.modules)
"""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_is_wrong_with_a_file_shows_before_torch_is_loaded(here):
    Path("bad.png").write_bytes(b"nothing")
    Path("bad.titok").write_bytes(b"nothing")
    code = """
import sys
from titokcodec import cli
for command, name in ((cli.compress, "bad.png"), (cli.decompress, "bad.titok"), (cli.truncate, "bad.titok")):
    try:
        out = "out.png" if command is cli.decompress else "out.titok"
        command([name, out] + (["-t", "3"] if command is cli.truncate else []))
    except SystemExit as end:
        assert end.code == 1
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stderr.count(b"\n") == 3


def test_the_installed_commands_run():
    scripts = Path(sys.executable).parent
    for name in ("compress", "convert", "decompress", "generate", "info", "truncate"):
        script = scripts / f"titok-{name}"
        if not script.exists():
            pytest.skip("the package is not installed beside this Python")
        assert subprocess.run([script, "--version"], capture_output=True, check=True).stdout.startswith(b"titok-")
