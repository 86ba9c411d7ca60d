"""What a user waits for on the command line: whole processes, from start to exit.

    pytest bench/test_cold_start.py [--benchmark-json out.json]

``titok-compress`` should stay below 1.5 times a bare ``import torch``, ``titok-info`` below 0.25 s.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .workloads import photographs


def tool(name: str) -> str:
    """Path of an installed command."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 256 x 256 and, beside it, its ``.titok`` file."""
    path = tmp_path_factory.mktemp("cold") / "a.png"
    photographs(1)[0].save(path)
    subprocess.run([tool("titok-compress"), "--quiet", path, path.with_suffix(".titok")], check=True)
    return path


@pytest.mark.parametrize(
    "command", ["import torch", "titok-compress", "titok-decompress", "titok-info", "titok-compress --help"]
)
@pytest.mark.benchmark(group="cold start", min_rounds=5, warmup=True, warmup_iterations=1)
def test_process(benchmark: Callable, picture: Path, command: str) -> None:
    titok = picture.with_suffix(".titok")
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "titok-compress": [tool("titok-compress"), "-q", "-f", picture, picture.with_name("b.titok")],
        "titok-decompress": [tool("titok-decompress"), "-q", "-f", titok, picture.with_name("b.png")],
        "titok-info": [tool("titok-info"), titok],
        "titok-compress --help": [tool("titok-compress"), "--help"],
    }
    benchmark(lambda: subprocess.run(commands[command], check=True, capture_output=True))
