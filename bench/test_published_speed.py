"""A model of the published size S-128, random weights, 16 pictures: ours beside a straightforward implementation.

    pytest bench/test_published_speed.py [--device cuda] [--precision both] [--benchmark-json out.json]

Groups are "S-128 encode float32" and so on, each with ``ours`` and ``plain``.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.benchmark import timer

from titokcodec import Codec
from titokcodec.models.config import PRESETS
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers

from .plain import Plain

PICTURES = 16


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("s128") / "s128.safetensors"
    tokenizers.save(path, TiTok(PRESETS["titok_s128"]), "s128", int8=False)
    return path


@pytest.fixture(scope="module")
def codec(path: Path, device: str, precision: str) -> Codec:
    return Codec.from_pretrained(path, device=device, dtype=precision)


@pytest.fixture(params=["ours", "plain"])
def model(request: pytest.FixtureRequest, codec: Codec, path: Path) -> Codec | Plain:
    if request.param == "ours":
        return codec
    state = tokenizers.load_model(path).state_dict()
    return Plain({name: value.to(codec.device, codec.dtype) for name, value in state.items()}, PRESETS["titok_s128"])


@pytest.mark.benchmark(timer=timer)  # waits for a GPU
@pytest.mark.parametrize("part", ["encode", "decode"])
def test_s128(benchmark: Any, codec: Codec, model: Codec | Plain, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.rand(PICTURES, 3, 256, 256, generator=torch.Generator().manual_seed(1)).to(codec.device)
    given = codec.encode(given) if part == "decode" else given
    benchmark.name = "ours" if isinstance(model, Codec) else "plain"
    benchmark.group = f"S-128 {part} {codec.dtype}".replace("torch.", "")
    benchmark.pedantic(getattr(model, part), (given,), rounds=5, warmup_rounds=1)
    if codec.dtype == torch.float32:  # the same results; TF32 convolutions would round more
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        ours, theirs = (getattr(one, part)(given).float() for one in (codec, model))
        assert torch.isclose(ours, theirs, atol=1e-3).float().mean() > 0.99
