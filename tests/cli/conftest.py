"""Commands run in this process, in an empty folder, with the tiny model that all tests share."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests import conftest
from titokcodec import cli, search
from titokcodec.codec import Codec

TINY = str(conftest.TINY)
NETWORK = ["--model", TINY, "--device", "cpu", "--dtype", "fp32"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_codec(codec, monkeypatch):
    """Commands take the shared model: what loading it costs is not what is tested here."""
    real = Codec.from_pretrained

    def shared(source=None, **options):
        return codec if source == TINY else real(source, **options)

    monkeypatch.setattr(Codec, "from_pretrained", shared)


@pytest.fixture(autouse=True)
def short_search(request, monkeypatch):
    """By default a search takes two steps, for the commands and for ``codec.compress`` that they are compared with;
    tests marked ``full_search`` take as many as users do."""
    if not request.node.get_closest_marker("full_search"):
        monkeypatch.setattr(search, "NEWTON_STEPS", 2)
        monkeypatch.setattr(search, "STEPS", 2)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(command, *arguments, stdin=None):
    """Run a command in this process; the network's options are added to those that take them."""
    network = NETWORK if command in (cli.compress, cli.decompress) else []
    return CliRunner().invoke(command, [*network, *map(str, arguments)], input=stdin, catch_exceptions=False)


def process(command, *arguments, **options):
    """Run a command in a process of its own, as its console script does."""
    code = f"from titokcodec.cli import {command} as command; command()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=ENVIRONMENT,
        check=False,
        **{"capture_output": True, **options},
    )
