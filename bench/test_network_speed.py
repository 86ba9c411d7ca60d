"""Speed of the networks: tokens from pixels and back, by batch size, precision and number of tokens.

pytest bench/test_network_speed.py [--device cuda] [--precision both] [--benchmark-json out.json]
"""

from collections.abc import Callable
from typing import Any

import pytest

from . import jobs
from .jobs import Model

LARGE = 16  # pictures in a batch: with more, only a GPU makes more of them a second
COUNTS = (32, 64, 96)  # besides all of them

pytestmark = pytest.mark.benchmark(min_rounds=5, warmup=True, warmup_iterations=1)


@pytest.fixture(params=[1, 4, 16, 64, 256])
def batch(request: pytest.FixtureRequest, device: str) -> int:
    """How many pictures go through the network at once."""
    if request.param > LARGE and device == "cpu":
        pytest.skip("batches this large are for GPUs")
    return request.param


def test_encode(benchmark: Any, measure: Callable, model: Model, batch: int) -> None:
    label(benchmark, "network encode", model, batch, model.load().weights.config.tokens)
    measure(jobs.encode, batch, model=model, batch=batch)


def test_decode(benchmark: Any, measure: Callable, model: Model, batch: int) -> None:
    tokens = model.load().weights.config.tokens
    label(benchmark, "network decode", model, batch, tokens)
    measure(jobs.decode, batch, model=model, batch=batch, tokens=tokens)


@pytest.mark.parametrize("tokens", COUNTS)
def test_decode_fewer_tokens(benchmark: Any, measure: Callable, model: Model, tokens: int) -> None:
    config = model.load().weights.config
    if not config.min_tokens <= tokens < config.tokens:
        pytest.skip(f"this model takes {config.min_tokens} to {config.tokens} tokens")
    label(benchmark, "network decode", model, LARGE, tokens)
    measure(jobs.decode, LARGE, model=model, batch=LARGE, tokens=tokens)


def label(benchmark: Any, group: str, model: Model, batch: int, tokens: int) -> None:
    """Under which names the figures are kept."""
    benchmark.group, benchmark.name = group, f"{model.precision}, batch {batch}, {tokens} tokens"
    benchmark.extra_info |= {"precision": model.precision, "tokens": tokens}
