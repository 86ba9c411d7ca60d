"""Speed of the bundled model: tokens from pixels and back, by batch size and precision.

    pytest bench/test_network_speed.py [--benchmark-json out.json]

Pick another device with TITOK_DEVICE=cuda.
"""

import os
from collections.abc import Callable

import pytest
import torch

from titokcodec import Codec

DEVICE = os.environ.get("TITOK_DEVICE", "auto")


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return Codec.from_pretrained(device=DEVICE, dtype=request.param)


def finished(codec: Codec, work: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """``work``, timed to its end: a GPU only queues it."""

    def run() -> None:
        work()
        if codec.device.type == "cuda":
            torch.cuda.synchronize()

    return run


@pytest.mark.parametrize("tiles", [1, 16])
@pytest.mark.benchmark(group="network encode", min_rounds=5, warmup=True, warmup_iterations=1)
def test_encode(benchmark: Callable, codec: Codec, tiles: int) -> None:
    pixels = torch.rand(tiles, 3, 256, 256, device=codec.device)
    benchmark(finished(codec, lambda: codec.encode(pixels)))


@pytest.mark.parametrize("tiles", [1, 16])
@pytest.mark.benchmark(group="network decode", min_rounds=5, warmup=True, warmup_iterations=1)
def test_decode(benchmark: Callable, codec: Codec, tiles: int) -> None:
    config = codec.weights.config
    tokens = torch.randint(config.codes, (tiles, config.tokens), device=codec.device)
    benchmark(finished(codec, lambda: codec.decode(tokens)))
