"""Commands as processes: however they are interrupted, and whatever becomes of their standard streams, no traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.cli.conftest import NETWORK
from tests.conftest import ROOT
from titokcodec import cli
from titokcodec.cli import process, start
from titokcodec.codec import Codec
from titokcodec.pictures import images

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and descriptors")
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")

# Interrupts its own process when a module is about to be imported: a moment that is the same on every machine.
INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(name, path=None, target=None):
        if name == os.environ.get("INTERRUPTED"):
            os.environ["INTERRUPTED"] = ""
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a.png."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save("a.png")
    return tmp_path


@pytest.fixture
def interrupted(here):
    """Runs Python with arguments until it is about to import a module."""
    (here / "hooks").mkdir()
    (here / "hooks" / "sitecustomize.py").write_text(INTERRUPTING)
    path = os.pathsep.join([str(here / "hooks"), str(ROOT)])

    def run(module, *arguments, **options):
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "INTERRUPTED": module}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment,
            capture_output=True,
            check=False,
            timeout=300,
            **options,
        )

    return run


def script(name):
    """As console scripts are."""
    return f"import sys; from titokcodec.cli.start import {name} as command; sys.exit(command())"


def shell(line):
    """A line for a shell, in which CMD NAME stands for a command of ours."""
    line = re.sub(r"\bCMD (\w+)", lambda found: f"'{sys.executable}' -c '{script(found[1])}'", line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    return subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False, timeout=300)


# ---- interrupts --------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    "module",
    [
        "titokcodec.cli.commands.compress",
        "click",
        "numpy",
        "PIL.ImageCms",
        "torch",
        "torch._C",
        "torch.nn.functional",
    ],
)
def test_an_interrupted_start_is_quiet(interrupted, module):
    result = interrupted(module, "-c", script("compress"), "a.png", *NETWORK)
    assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"")
    assert not os.path.exists("a.titok")


@posix
@pytest.mark.parametrize("module", ["training.single", "numpy", "torch._C"])
def test_so_is_that_of_training(interrupted, module):
    result = interrupted(module, "-m", "training.single", "--data", ".", "--out", "run")
    assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"")


@posix
def test_an_interrupt_that_is_ignored_stays_so(interrupted):
    """As under nohup, or for what a script runs in the background."""
    result = interrupted(
        "click", "-c", script("info"), "--version", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert result.returncode == 0 and result.stdout.startswith(b"titok-info ")


@posix
def test_an_interrupt_leaves_no_unfinished_file(here):
    code = """
import os, signal, time
from titokcodec.io.atomic import replacing
from titokcodec.cli.process import prepare
prepare()
with replacing("b") as file:
    file.write(b"some of it")
    assert len(os.listdir()) == 2
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(300)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=300)
    assert (result.returncode, result.stderr) == (130, b"") and os.listdir(here) == ["a.png"]


@posix
def test_workers_of_an_interrupted_process_are_quiet_too(here):
    code = """
import multiprocessing, os, signal, time
from titokcodec.cli.process import prepare
prepare()
context = multiprocessing.get_context("fork")
mine, theirs = context.Pipe()
def work():
    mine.close()
    theirs.send(0)
    theirs.recv()
context.Process(target=work).start()
theirs.close()
mine.recv()
os.kill(os.getpid(), signal.SIGINT)
time.sleep(300)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=300)
    assert (result.returncode, result.stderr) == (130, b"")


def test_console_scripts_begin_where_interrupts_are_quiet():
    entries = re.findall(r'"titok-(\w+)=([\w.]+):(\w+)"', (ROOT / "setup.py").read_text())
    assert sorted(name for name, *_ in entries) == sorted(cli.__all__)
    for name, module, function in entries:
        assert module == start.__name__ and name == function and callable(getattr(start, function))


# ---- standard streams --------------------------------------------------------------------------------------------


@posix
@full
def test_a_full_disk_is_one_line_also_for_help(here):
    for name, option in (("compress", "--help"), ("info", "--version")):
        result = shell(f"CMD {name} {option} > /dev/full")
        assert result.returncode == 1 and result.stderr == f"titok-{name}: No space left on device\n"


@posix
@full
def test_exit_codes_do_not_depend_on_who_listens(here):
    code = """
import os, sys
from titokcodec.cli.start import info as command
codes = []
for arguments in (["--help"], [], ["missing"]):
    if (child := os.fork()) == 0:
        sys.argv[1:] = arguments
        sys.exit(command())  # and Python ends in its usual way
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with open("codes", "w") as file:
    print(*codes, file=file)
"""
    Path("run.py").write_text(code)
    for streams in ("2> /dev/full", "2>&-", ">&-", "<&- >&- 2>&-"):
        result = shell(f"'{sys.executable}' run.py {streams}")
        assert result.returncode == 0 and "Traceback" not in result.stderr
        good, usage, failed = Path("codes").read_text().split()
        assert (good, failed) == ("0", "1")
        assert usage == "2" or "full" in streams  # click cannot show what is wrong


@posix
def test_a_pipe_that_nobody_reads_is_no_traceback(here):
    for line in ("CMD compress --help", "CMD info --version"):
        result = shell(f"(sleep .05; {line}) | true")
        assert result.stderr.count("\n") <= 1 and "Traceback" not in result.stderr


@posix
def test_files_never_take_the_place_of_a_closed_stream(here):
    """What libraries print there would go into them."""
    code = """
import os
from titokcodec.cli.process import prepare
prepare()
with open("b", "wb") as file:
    assert file.fileno() > 2
    for stream in (1, 2):
        try:
            os.write(stream, b"a warning")
        except OSError:
            pass
        else:
            os._exit(9)
"""
    line = f"PYTHONPATH='{ROOT}' '{sys.executable}' -c '{code}' <&- >&- 2>&-"
    assert subprocess.run(line, shell=True, check=False).returncode == 0
    assert Path("b").read_bytes() == b""


# ---- warnings of libraries ------------------------------------------------------------------------------------------


@pytest.fixture
def warning(here, codec, monkeypatch):
    """Every picture makes somebody warn of something, in two lines."""
    real = images.load

    def load(*given, **named):
        warnings.warn("an odd picture:\nsomething is odd", stacklevel=2)
        return real(*given, **named)

    monkeypatch.setattr(images, "load", load)
    monkeypatch.setattr(Codec, "from_pretrained", lambda *_, **__: codec)
    monkeypatch.setattr(sys, "warnoptions", [])


def test_warnings_are_for_those_who_ask(warning):
    for options in (["-q"], []):
        result = CliRunner().invoke(cli.compress, ["a.png", "a.titok", "-f", *NETWORK, *options])
        assert result.exit_code == 0 and "odd" not in result.stderr and result.stdout == ""
    result = CliRunner().invoke(cli.compress, ["a.png", "-", "--json", *NETWORK])
    assert json.loads(result.stderr)["width"] == 40
    result = CliRunner().invoke(cli.compress, ["a.png", "a.titok", "-fv", *NETWORK])
    assert "titok-compress: warning: an odd picture: something is odd\n" in result.stderr


def test_a_command_leaves_pythons_warnings_as_they_were(warning):
    before = (warnings.filters[:], warnings.showwarning)
    CliRunner().invoke(cli.compress, ["a.png", *NETWORK])
    assert (warnings.filters, warnings.showwarning) == before


def test_odd_paths_are_shown_on_one_line(capsys):
    with pytest.raises(SystemExit) as ended, process.one_line("titok-info"):
        os.stat("two\nlines")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "titok-info: 'two\\nlines': No such file or directory\n"
