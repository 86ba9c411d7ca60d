"""Standard streams, and files that exist already."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import ENVIRONMENT, NETWORK, TINY, call, compressed, picture, process
from titokcodec import cli

# ---- streams ----------------------------------------------------------------------------------------------------


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


# ---- files that are there ---------------------------------------------------------------------------------------


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
