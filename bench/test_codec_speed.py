"""Speed of the whole codec, pictures to files and back, beside other formats in the same process.

    pytest bench/test_codec_speed.py [--device cuda] [--precision both] [--benchmark-json out.json]

One photograph of 256 x 256, and sixteen at once. The other formats write it as Pillow does when nobody says more, which
is what most people get, and with the slow settings that make the best thumbnails (``bench.thumbnails``), at the same
quality. Their files are far longer: this is about time, not about what it buys.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from titokcodec.search import default_steps

from . import jobs
from .jobs import Model
from .thumbnails import FORMATS, installed

NAMES = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL"}
QUALITIES = {"jpeg": 75, "webp": 80, "avif": 75, "jxl": 90}  # those of Pillow, and of its plugin for JPEG XL
USUAL = {"jpeg": "", "webp": "method 4", "avif": "speed 6", "jxl": "effort 7"}  # likewise
BEST = {"jpeg": "optimized, progressive or not", "webp": "method 6", "avif": "speed 0", "jxl": "effort 9"}

pytestmark = pytest.mark.benchmark(min_rounds=5, warmup=True, warmup_iterations=1)


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    """Another format."""
    if not installed(request.param):
        pytest.skip(f"{NAMES[request.param]} is not installed")
    return request.param


@pytest.mark.parametrize("pictures", [1, 16])
@pytest.mark.parametrize("effort", [0, 1, None], ids=["effort 0", "effort 1", "default"])
def test_compress(benchmark: Any, measure: Callable, model: Model, effort: int | None, pictures: int) -> None:
    steps = default_steps(model.load().weights.config, 1) if effort is None else effort
    label(benchmark, "compress", f"titok, effort {steps}, {model.precision}", pictures)
    files = measure(jobs.compress, pictures, model=model, count=pictures, effort=effort)
    benchmark.extra_info["bytes"] = round(sum(map(len, files)) / len(files))
    assert len(files) == pictures


@pytest.mark.parametrize("pictures", [1, 16])
def test_decompress(benchmark: Any, measure: Callable, model: Model, pictures: int) -> None:
    label(benchmark, "decompress", f"titok, {model.precision}", pictures)
    files = jobs.compress(model, pictures, 0)()
    images = measure(jobs.decompress, pictures, model=model, files=files)
    assert [image.size for image in images] == [(256, 256)] * pictures


def test_open_with_pillow(benchmark: Any, measure: Callable, model: Model) -> None:
    label(benchmark, "decompress", f"titok through Pillow, {model.precision}")
    (data,) = jobs.compress(model, 1, 0)()
    measure(jobs.open_titok, model=model, data=data)


@pytest.mark.parametrize("best", [False, True], ids=["usual", "best"])
def test_compress_others(benchmark: Any, measure: Callable, kind: str, best: bool) -> None:
    label(benchmark, "compress", other(kind, BEST if best else USUAL))
    data = measure(jobs.save, **settings(kind, best))
    benchmark.extra_info["bytes"] = len(data)


def test_decompress_others(benchmark: Any, measure: Callable, kind: str) -> None:
    label(benchmark, "decompress", other(kind, USUAL))
    usual = settings(kind, best=False)
    measure(jobs.load, data=jobs.save(**usual)(), plugin=usual["plugin"])


def label(benchmark: Any, group: str, case: str, pictures: int = 1) -> None:
    """Under which names the figures are kept."""
    benchmark.group, benchmark.name = group, case + f", {pictures} at once" * (pictures > 1)


def other(kind: str, how: Mapping[str, str]) -> str:
    """A format with its settings."""
    return ", ".join(filter(None, (NAMES[kind], f"quality {QUALITIES[kind]}", how[kind])))


def settings(kind: str, best: bool) -> dict[str, Any]:
    """What ``jobs.save`` takes for a format."""
    form = FORMATS[kind]
    variants = [{**form.options, **variant} for variant in form.variants] if best else [{}]
    return {
        "format": form.name,
        "variants": [{"quality": QUALITIES[kind], **options} for options in variants],
        "plugin": form.plugin,
    }
