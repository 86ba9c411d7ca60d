"""Options of the speed benchmarks, and how each of them is measured.

pytest bench/test_codec_speed.py --device cuda --precision both --model my.safetensors
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from . import fresh
from .workloads import CodecOptions, Workload

Record = Callable[..., Any]


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
    """Adds the device that the networks ran on, which pytest-benchmark does not know."""
    from .machine import describe

    machine_info["titokcodec"] = describe(config.getoption("device"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """``cuda``, ``mps`` or ``cpu``, maybe with a number."""
    return device_or_exit(request.config.getoption("device"))


def device_or_exit(name: str) -> str:
    """The device; one that does not exist ends pytest with one line."""
    from titokcodec.errors import TitokError

    from .machine import select_device

    try:
        return str(select_device(name))
    except TitokError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session", params=["fp32", "bf16"])
def precision(request: pytest.FixtureRequest, device: str) -> str:
    """Every requested precision."""
    import torch

    from titokcodec.runtime.devices import choose_device, choose_dtype

    requested = request.config.getoption("precision")
    if requested is None:  # where bf16 is not native it may take a hundred times as long
        requested = "both" if choose_dtype(choose_device(device)) == torch.bfloat16 else "fp32"
    if requested not in (request.param, "both"):
        pytest.skip(f"{request.param} was not requested, or is slow here: see --precision")
    return request.param


@pytest.fixture(scope="session")
def options(request: pytest.FixtureRequest, device: str, precision: str) -> CodecOptions:
    """The codec that is measured."""
    source = request.config.getoption("model")
    return CodecOptions(str(Path(source).resolve()) if source and Path(source).exists() else source, device, precision)


@pytest.fixture
def record(request: pytest.FixtureRequest, benchmark: Any) -> Record:
    """``measured`` by the benchmark at hand."""
    return partial(measured, benchmark, not request.config.getoption("--times-only"))


def measured(
    benchmark: Any, memory: bool, group: str, name: str, make: Callable[..., Workload], pictures: int = 1, **given: Any
) -> Any:
    """Times a workload and, with ``memory``, takes the peak of a process that does nothing else; returns its result."""
    benchmark.group, benchmark.name = group, name
    result = benchmark(make(**given))
    benchmark.extra_info["pictures"] = pictures
    if memory and not benchmark.disabled:
        benchmark.extra_info |= fresh.measure_fresh(make, **given)
    return result
