"""Partial files, ``--verify``, ``titok-info``, ``titok-truncate``, and what every command has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

import titokcodec
from tests.cli.conftest import TINY, call, picture
from titokcodec import cli
from titokcodec.format import bitstream
from titokcodec.weights import releases, tokenizers

# ---- partial, verify, info, truncate ----------------------------------------------------------------------------


def test_partial_files_are_decoded_when_asked(here, codec):
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
    Path("wrong.titok").write_bytes(data[:-1] + bytes([data[-1] ^ 128]))
    first, done = call(cli.decompress, "wrong.titok", "--partial").stderr.splitlines()
    assert first.endswith("wrong.titok: the checksum does not match, so the picture may be wrong") and "->" in done
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


def test_info_shows_what_is_in_a_file(here, codec):
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


# ---- what every command has -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compress", "convert", "decompress", "generate", "info", "truncate"])
def test_help_and_version(name):
    command = getattr(cli, name)
    assert call(command, "--version").stdout == f"titok-{name} {titokcodec.__version__}\n"
    for option in ("-h", "--help"):
        text = call(command, option).stdout
        assert text.startswith(f"Usage: titok-{name} ") and "Example" in text


def test_looking_at_files_loads_no_heavy_library(here, codec):
    Path("a.titok").write_bytes(codec.compress(picture(here / "a.png", (400, 300))))
    code = """
import sys
from titokcodec import cli
for command, arguments in ((cli.info, ["a.titok"]), (cli.compress, ["--help"]), (cli.decompress, ["--version"])):
    try:
        command(arguments)
    except SystemExit as end:
        assert not end.code
assert not {"torch", "numpy", "PIL", "safetensors", "constriction"} & set(sys.modules), sorted(sys.modules)
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
