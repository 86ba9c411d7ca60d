"""Options of the speed benchmarks, and how each of them is measured.

pytest bench/test_codec_speed.py --device cuda --precision both --model my.safetensors
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import fresh
from .jobs import Model


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("titokcodec benchmarks")
    group.addoption("--device", default="auto", help="where networks run; default: CUDA, then MPS, then the CPU")
    group.addoption(
        "--precision",
        choices=("fp32", "bf16", "both"),
        help="default: fp32, and bf16 where the device multiplies it natively",
    )
    group.addoption("--times-only", action="store_true", help="no peaks of memory: each takes a process of its own")
    group.addoption("--model", help="weight file, folder or hub:org/name; default: the bundled model")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """What pytest-benchmark does not know: where the networks ran."""
    from .machine import describe

    machine_info["titokcodec"] = describe(config.getoption("device"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """``cuda``, ``mps`` or ``cpu``, maybe with a number."""
    from titokcodec.errors import TitokError
    from titokcodec.runtime.devices import choose_device

    try:
        return str(choose_device(request.config.getoption("device")))
    except TitokError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session", params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest, device: str) -> str:
    """Every precision that is asked for."""
    import torch

    from titokcodec.runtime.devices import choose_device, choose_dtype

    asked = request.config.getoption("precision")
    if asked is None:  # where bf16 is not native it may take a hundred times as long
        asked = "both" if choose_dtype(choose_device(device)) == torch.bfloat16 else "fp32"
    if asked not in (request.param, "both"):
        pytest.skip(f"{request.param} was not asked for, or is slow here: see --precision")
    return request.param


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, device: str, precision: str) -> Model:
    """The codec that is measured."""
    source = request.config.getoption("model")
    return Model(str(Path(source).resolve()) if source and Path(source).exists() else source, device, precision)


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., Any]:
    """Times a job of ``bench.jobs``, and notes how many pictures it is about and the peak of its memory."""

    def run(make: Callable[..., Callable[[], Any]], pictures: int = 1, **given: Any) -> Any:
        result = benchmark(make(**given))
        benchmark.extra_info["pictures"] = pictures
        if not benchmark.disabled and not request.config.getoption("--times-only"):
            found = fresh.measure(make, **given)
            benchmark.extra_info |= {name: found[name] for name in ("memory", "device_memory") if name in found}
        return result

    return run
