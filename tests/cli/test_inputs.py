"""What commands take in: files and streams of any length, and folders of anything."""

import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import ENVIRONMENT, call
from titokcodec import cli, files
from titokcodec.cli import streams
from titokcodec.format import bitstream
from titokcodec.format.header import Header
from titokcodec.format.limits import MAX_SIDE
from titokcodec.pictures import images

HUGE = 3 << 30  # bytes of sparse files, which lie on no disk
FINGERPRINT = b"12345678"


def confined(name, *lines):
    """Run commands in one process that has little memory and little time, each with a file as its standard input.

    Returns:
        For each line its exit code and what it printed to standard error.
    """
    code = f"""
import contextlib, io, json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from titokcodec import cli
for command, *arguments in {lines!r}:
    sys.stdin = open({name!r})
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            getattr(cli, command)(arguments)
        except SystemExit as end:
            print(json.dumps([end.code, printed.getvalue()]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        timeout=300,
        check=True,
        text=True,
        capture_output=True,
    )
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("[")]  # not what info prints


def titok(name, width=300, height=200, payload=b"payload", size=None):
    """A file of a model that does not exist, packed; ``size`` makes it longer without taking space."""
    header = Header(width, height, 256, "tile", False, True, 0, 0, FINGERPRINT)
    Path(name).write_bytes(bitstream.pack(header, payload, FINGERPRINT))
    if size:
        os.truncate(name, size)
    return name


# ---- files and streams of any length -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory and sparse files")
@pytest.mark.parametrize("side", [300, MAX_SIDE])
def test_gigabytes_behind_a_header_cost_neither_memory_nor_time(here, side):
    """Whether the header could account for them or not."""
    titok("a.titok", side, side, size=HUGE)
    lines = [
        (command, name, *arguments)
        for name in ("a.titok", "-")
        for command, *arguments in (
            ["info"],
            ["decompress", "--verify"],
            ["decompress", "o.png"],
            ["truncate", "o.titok", "-t", "8"],
        )
    ]
    results = confined("a.titok", *lines)
    assert len(results) == len(lines)
    for (command, name, *_), (code, printed) in zip(lines, results, strict=True):
        assert code == 1
        if name != "-":
            assert printed.count("\n") == 1 and "memory" not in printed, printed
            assert printed.startswith(f"titok-{command}: a.titok: ")
    assert os.listdir(here) == ["a.titok"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory and sparse files")
def test_a_picture_of_gigabytes_on_standard_input_costs_no_memory(here):
    Path("a.png").touch()
    os.truncate("a.png", HUGE)
    ((code, printed),) = confined("a.png", ("compress", "-", "-"))
    assert code == 1 and "stdin: not a picture" in printed


def test_a_stream_is_held_once(here):
    size = 1 << 26
    Path("zeros").touch()
    os.truncate("zeros", size)
    tracemalloc.start()
    try:
        with open("zeros", "rb") as stream:
            assert len(files.read_at_most(stream, size)) == size
        assert tracemalloc.get_traced_memory()[1] < 1.4 * size
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_does_not_end_is_refused(here, monkeypatch):
    monkeypatch.setattr(streams, "STREAM_LIMIT", 1 << 20)
    result = call(cli.compress, "-", stdin=bytes((1 << 20) + 1))
    assert result.exit_code == 1 and "stdin: more than 1 MiB: give a file instead" in result.stderr
    result = call(cli.compress, "/dev/zero", "o.titok")
    assert result.exit_code == 1 and "/dev/zero: more than 1 MiB: give a file instead" in result.stderr


def test_standard_input_may_be_a_file_even_if_some_of_it_has_been_read(here, monkeypatch):
    Image.new("RGB", (40, 30), "red").save("a.png")
    Path("mixed").write_bytes(b"a line\n" + Path("a.png").read_bytes())
    for name, before in (("a.png", 0), ("mixed", 7)):
        with open(name) as file:
            file.buffer.seek(before)
            monkeypatch.setattr(sys, "stdin", file)
            with streams.picture_source(None) as source:
                assert images.load(source).pixels.shape == (30, 40, 3)


def test_info_of_a_damaged_file_fails(here, codec):
    whole = codec.compress(Image.new("RGB", (40, 30), "red"))
    Path("whole.titok").write_bytes(whole)
    Path("cut.titok").write_bytes(whole[:-1])
    Path("longer.titok").write_bytes(whole + bytes(100_000))
    unknown = whole[:3] + b"\xfa" + whole[12:]
    Path("unknown.titok").write_bytes(unknown)
    assert call(cli.info, "whole.titok").exit_code == 0
    assert call(cli.info, "unknown.titok").exit_code == 0, "it cannot be checked"
    result = call(cli.info, "--json", "cut.titok", "whole.titok", "longer.titok", "unknown.titok")
    facts = [json.loads(line) for line in result.stdout.splitlines()]
    assert [fact["intact"] for fact in facts] == [False, True, False, None]
    assert facts[2]["bytes"] == len(whole) + 100_000
    assert result.exit_code == 1
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == [" cut.titok", " longer.titok"]


# ---- folders of anything -----------------------------------------------------------------------------------------


@pytest.fixture
def album(here):
    """A picture beside a pipe, a picture that is not read, hidden ones, and links to another folder and in a circle."""
    (here / "album").mkdir()
    (here / "far").mkdir()
    for name in ("album/a.png", "album/.b.png", "far/c.png"):
        Image.new("RGB", (40, 30), "red").save(name)
    for name in ("album/d.heic", "album/E.DNG", "album/notes.txt"):
        Path(name).write_bytes(b"")
    os.mkfifo("album/pipe.png")
    os.symlink("../far", "album/far")
    os.symlink(".", "album/circle")
    os.symlink("nowhere", "album/gone")
    shutil.copy("album/a.png", "album/scan")
    Path("album/README").write_text("no picture")
    return here / "album"


LEFT_OUT = {
    "album/.b.png": "hidden",
    "album/E.DNG": "in a format that is not read here",
    "album/circle": "a folder searched under another name",
    "album/d.heic": "in a format that is not read here",
    "album/gone": "a link that leads nowhere",
    "album/pipe.png": "a pipe or device",
    "album/scan": "a picture without a suffix",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_folders_are_searched_without_waiting_and_what_is_left_out_is_named(album):
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 0 and "2 of 2 files" in result.stderr
    assert sorted(path.name for path in Path("out").rglob("*.titok")) == ["a.titok", "c.titok"]
    assert Path("out/far/c.titok").exists()
    (line,) = [line for line in result.stderr.splitlines() if "left out" in line]
    assert line.startswith("titok-compress: 7 left out: ")
    assert "album/E.DNG, album/d.heic (in a format that is not read here)" in line
    for path, reason in LEFT_OUT.items():
        assert path in line and reason in line
    assert call(cli.compress, "album", "-o", "out", "-fq").stderr == ""
    result = call(cli.compress, "album", "-o", "out", "-f", "--json")
    facts = [json.loads(line) for line in result.stdout.splitlines()]
    assert {fact["input"]: fact["left_out"] for fact in facts if "left_out" in fact} == LEFT_OUT
    assert result.stderr == "" and sorted(fact["input"] for fact in facts if "bytes" in fact) == [
        "album/a.png",
        "album/far/c.png",
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_among_titok_files_are_left_out_too(album):
    os.mkfifo("album/a.titok")
    titok("album/b.titok", payload=bytes(1024))
    os.symlink("/dev/zero", "album/c.titok")
    for arguments in (["--verify", "album"], ["album", "-o", "out"]):
        result = call(cli.decompress, *arguments)
        assert "4 left out: album/a.titok, album/c.titok (a pipe or device)" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_folder_of_nothing_but_what_is_left_out_is_an_error(here):
    Path("album").mkdir()
    Path("album/a.heic").touch()
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and "album: no pictures in this folder" in result.stderr
    assert "1 left out: album/a.heic" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_that_is_named_is_read(here, codec):
    Image.new("RGB", (40, 30), "red").save("a.png")
    os.mkfifo("pipe")
    code = "import shutil; shutil.copyfileobj(open('a.png', 'rb'), open('pipe', 'wb'))"
    with subprocess.Popen([sys.executable, "-c", code]):
        assert call(cli.compress, "pipe", "a.titok").exit_code == 0
    assert Path("a.titok").read_bytes() == codec.compress("a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_waiting_for_a_pipe_is_not_silent(here, codec, monkeypatch):
    """The writer comes only when the line has been printed."""
    monkeypatch.setattr(streams, "PATIENCE", 0.05)
    data = codec.compress(Image.new("RGB", (40, 30), "red"))
    os.mkfifo("pipe")
    printed = threading.Event()
    monkeypatch.setattr(streams, "write_stderr", lambda line: (lines.append(line), printed.set()))
    lines = []

    def write():
        assert printed.wait(60)
        Path("pipe").write_bytes(data)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert streams.read_titok(Path("pipe"), None) == data
    writer.join()
    assert lines == ["pipe: waiting for a program to write to this pipe"]


def test_names_that_lead_in_a_circle_are_one_line(here):
    os.symlink("loop.png", "loop.png")
    os.symlink("loop.titok", "loop.titok")
    for command, arguments in [
        (cli.compress, ["loop.png", "o.titok"]),
        (cli.compress, ["loop.png", "-o", "out"]),
        (cli.compress, [".", "-o", "out"]),
        (cli.decompress, ["loop.titok", "o.png"]),
        (cli.decompress, ["--verify", "."]),
        (cli.info, ["loop.titok"]),
        (cli.truncate, ["loop.titok", "o.titok", "-t", 8]),
    ]:
        result = call(command, *arguments)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "symbolic links" in result.stderr
