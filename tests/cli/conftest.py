"""Commands run in this process, in an empty folder, with the tiny model that all tests share."""

import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

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
    """By default a search takes one step, for the commands and for ``codec.compress`` that they are compared with;
    tests marked ``full_search`` take as many as users do."""
    if not request.node.get_closest_marker("full_search"):
        monkeypatch.setattr(search, "NEWTON_STEPS", 1)
        monkeypatch.setattr(search, "STEPS", 1)


@pytest.fixture(autouse=True)
def quick_files(monkeypatch):
    """Results need not outlive a power failure, and PNGs need not be small."""
    real = Image.Image.save

    def save(self, file, kind=None, **options):
        real(self, file, kind, **({"compress_level": 1} if kind == "PNG" else {}), **options)

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(Image.Image, "save", save)


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
