"""Shared fixtures: a tiny model whose weights lie in the repository, and a few pictures."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Tests interrupt processes of their own, which would ignore it if they inherited that: a shell's background jobs do.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes that share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
TINY = DATA / "tiny.safetensors"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``cuda`` run where it is."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


def plain_pictures(folder: Path, count: int) -> Path:
    """The folder, with pictures of one random colour each in it, 64 x 64."""
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """A nested model of 16 tokens (8 at least), 64 codes, trained for minutes: fast, and for ever the same."""
    return TINY


@pytest.fixture(scope="session")
def codec():
    """The tiny model on the CPU in float32."""
    from titokcodec import Codec

    return Codec.from_pretrained(TINY, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def bundled():
    """The model in the box, on the CPU in float32."""
    from titokcodec import Codec

    return Codec.from_pretrained(device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A photograph, 512 x 512 (see data/README.md for its licence)."""
    return Image.open(DATA / "astronaut.jpg").convert("RGB")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """What is handed to the compiler, one graph for each shape; they run as they are."""
    import torch

    seen, compiler = [], torch.compile
    how = {"backend": lambda graph, _: seen.append(graph) or graph, "dynamic": False}
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiler(function, **how))
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **_: setattr(self, "_compiled_call_impl", compiler(self._call_impl, **how)),
    )
    torch.compiler.reset()
    yield seen
    torch.compiler.reset()


@pytest.fixture
def chatty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases say how far they are at every turn, however short they are."""
    from training import progress

    monkeypatch.setattr(progress, "FIRST", -1.0)
    monkeypatch.setattr(progress, "LOG", 0.0)


@pytest.fixture
def hushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases say nothing, however long they take."""
    from training import progress

    monkeypatch.setattr(progress, "FIRST", float("inf"))


@pytest.fixture
def smooth() -> np.ndarray:
    """A colourful 300 x 420 ramp as uint8 RGB."""
    y, x = np.mgrid[0:300, 0:420]
    return np.stack([x * 255 // 419, y * 255 // 299, (x + y) * 255 // 718], axis=2).astype(np.uint8)
