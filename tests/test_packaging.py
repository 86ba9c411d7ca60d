"""What the wheel holds, tried where there is no checkout."""

import os
import pkgutil
import subprocess
import sys

import pytest

import titokcodec
from tests.conftest import ROOT

pytest.importorskip("setuptools")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The files of the wheel, in a folder of their own."""
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_everything_lies_in_one_package(elsewhere):
    assert sorted(path.name for path in elsewhere.iterdir()) == ["titokcodec"]
    for name in ("training/single.py", "bench/report.py", "bench/page", "format/bitstream.py", "py.typed"):
        assert (elsewhere / "titokcodec" / name).exists(), name
    assert len(list((elsewhere / "titokcodec" / "assets").glob("*.safetensors"))) == 2


@pytest.mark.parametrize("module", ["training.single", "training.evaluate", "bench.rate_distortion", "bench.report"])
def test_training_and_benchmarks_run_from_the_wheel(elsewhere, module):
    if module == "bench.report":
        pytest.importorskip("plotly")
    done = run(elsewhere, "-m", f"titokcodec.{module}", "--help")
    assert done.returncode == 0 and ("--out" in done.stdout or "--data" in done.stdout), done.stderr


def test_a_model_is_trained_from_the_wheel(elsewhere, tmp_path):
    """From pictures to a checkpoint, in a process that finds nothing but the wheel."""
    out = tmp_path / "run"
    words = ("--data", str(ROOT / "tests" / "data"), "--out", str(out), "--steps", "1", "--batch", "2")
    done = run(elsewhere, "-m", "titokcodec.training.single", *words, "--start", "2d", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (out / "state.pt").exists()


@pytest.mark.parametrize("name", ["training", "titokcodec.training", "bench", "titokcodec.bench"])
def test_a_checkout_knows_both_names(name):
    module = {"training": "evaluate", "bench": "tables"}[name.rpartition(".")[2]]
    line = [sys.executable, "-m", f"{name}.{module}", "--help"]
    assert subprocess.run(line, cwd=ROOT, capture_output=True).returncode == 0


def test_a_checkout_holds_no_second_copy_of_the_library():
    """Tools that walk through all packages, such as those that write documents, come to an end."""
    names = {found.name for found in pkgutil.walk_packages(titokcodec.__path__, "titokcodec.") if found.ispkg}
    assert {"titokcodec.format", "titokcodec.cli.commands"} <= names and "titokcodec.titokcodec" not in names
