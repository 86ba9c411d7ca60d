"""Command lines that make no sense, or were meant for other tools."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.conftest import TINY, call, outputs, picture
from titokcodec import cli

# ---- what makes no sense ----------------------------------------------------------------------------------------


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


# ---- what others' commands would take ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
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
def test_options_of_other_tools_get_a_hint(album, arguments, message):
    picture("a.png")
    picture("b.png")
    before = outputs(Path())
    result = call(cli.compress, *arguments)
    last = result.stderr.splitlines()[-1]
    assert (
        result.exit_code == 2 and result.stderr.count("Error: ") == 1 and last.startswith("Error: ") and message in last
    )
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
            "titok-compress: x.titok: is a .titok file already: titok-decompress decodes it, titok-truncate makes it "
            "smaller\n"
        )
    message = "a.png: not a .titok file: it is a PNG picture; titok-compress makes .titok files of pictures\n"
    for command, arguments in (
        (cli.decompress, ["a.png"]),
        (cli.decompress, ["a.png", "b.png"]),
        (cli.decompress, ["a.png", "--verify"]),
        (cli.info, ["a.png"]),
        (cli.truncate, ["a.png", "b.titok", "-t", "8"]),
    ):
        result = call(command, *arguments)
        assert result.exit_code == 1 and result.stderr == f"{command.name}: {message}"
    for name, text in (("x.titok", "it is a .titok file"), ("a.png", "it is a PNG picture")):
        result = CliRunner().invoke(cli.compress, ["a.png", "-m", name])
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and text in result.stderr
    assert outputs(here) == ["a.png", "x.titok"]


def test_other_commands_know_the_names_of_their_results(here, codec):
    Path("a.titok").write_bytes(codec.compress(picture(here / "a.png")))
    for command, arguments, message in (
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
        assert result.exit_code == 2 and message in result.stderr.splitlines()[-1], result.stderr
    assert outputs(here) == ["a.png", "a.titok"]
