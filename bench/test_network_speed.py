"""Speed of the networks: tokens from pixels and back, by batch size, precision and number of tokens.

pytest bench/test_network_speed.py [--device cuda] [--precision both] [--benchmark-json out.json]
"""

from typing import Any

import pytest
from torch.utils.benchmark import timer

from . import workloads
from .conftest import Record
from .workloads import CodecOptions, load_codec

LARGE = 16  # the largest batch on a CPU: with more it does no more pictures a second

pytestmark = pytest.mark.benchmark(min_rounds=5, warmup=True, warmup_iterations=1, timer=timer)  # waits for a GPU


@pytest.fixture(params=[1, 4, 16, 64, 256])
def batch(request: pytest.FixtureRequest, device: str) -> int:
    """Pictures in one pass through the network."""
    if request.param > LARGE and device == "cpu":
        pytest.skip("batches this large are for GPUs")
    return request.param


def test_encode(benchmark: Any, record: Record, options: CodecOptions, batch: int) -> None:
    name = label(benchmark, options, batch, load_codec(options).weights.config.tokens)
    record("network encode", name, workloads.encode, batch, options=options, batch=batch)


def test_decode(benchmark: Any, record: Record, options: CodecOptions, batch: int) -> None:
    tokens = load_codec(options).weights.config.tokens
    name = label(benchmark, options, batch, tokens)
    record("network decode", name, workloads.decode, batch, options=options, batch=batch, tokens=tokens)


@pytest.mark.parametrize("tokens", [32, 64, 96])
def test_decode_fewer_tokens(benchmark: Any, record: Record, options: CodecOptions, tokens: int) -> None:
    config = load_codec(options).weights.config
    if not config.min_tokens <= tokens < config.tokens:
        pytest.skip(f"this model takes {config.min_tokens} to {config.tokens} tokens")
    name = label(benchmark, options, LARGE, tokens)
    record("network decode", name, workloads.decode, LARGE, options=options, batch=LARGE, tokens=tokens)


def label(benchmark: Any, options: CodecOptions, batch: int, tokens: int) -> str:
    """The name of a benchmark; its parts are recorded too."""
    benchmark.extra_info |= {"precision": options.precision, "tokens": tokens}
    return f"{options.precision}, batch {batch}, {tokens} tokens"
