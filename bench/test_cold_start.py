"""What a user waits for at the prompt: whole processes, from their start to their exit.

    pytest bench/test_cold_start.py [--benchmark-json out.json]

``titok-compress`` is to stay below 1.5 times a bare ``import torch``, ``titok-info`` below 0.25 s.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PHOTO = Path(__file__).parents[1] / "tests" / "data" / "astronaut.jpg"


def tool(name: str) -> str:
    """Path of an installed command."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of 256 x 256 and, beside it, its ``.titok`` file."""
    path = tmp_path_factory.mktemp("cold") / "a.png"
    Image.fromarray(np.asarray(Image.open(PHOTO).resize((256, 256)))).save(path)
    subprocess.run([tool("titok-compress"), "--quiet", path, path.with_suffix(".titok")], check=True)
    return path


@pytest.mark.parametrize(
    "job", ["import torch", "titok-compress", "titok-decompress", "titok-info", "titok-compress --help"]
)
@pytest.mark.benchmark(group="cold start", min_rounds=5, warmup=True, warmup_iterations=1)
def test_process(benchmark: Callable, picture: Path, job: str) -> None:
    titok = picture.with_suffix(".titok")
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "titok-compress": [tool("titok-compress"), "-q", "-f", picture, picture.with_name("b.titok")],
        "titok-decompress": [tool("titok-decompress"), "-q", "-f", titok, picture.with_name("b.png")],
        "titok-info": [tool("titok-info"), titok],
        "titok-compress --help": [tool("titok-compress"), "--help"],
    }
    benchmark(lambda: subprocess.run(commands[job], check=True, capture_output=True))
