"""Speed of the whole codec, pictures to files and back, beside other formats in the same process.

    pytest bench/test_codec_speed.py [--device cuda] [--precision both] [--benchmark-json out.json]

One photograph of 256 x 256, and sixteen at once. The other formats are written with Pillow's default settings, which is
what most people get, and with the slow settings that make the best thumbnails (``bench.thumbnails``), at the same
quality. Their files are far longer: this compares time, not quality for bytes.
"""

from typing import Any

import pytest

from titokcodec.search import default_steps

from . import workloads
from .conftest import Record
from .thumbnails import FORMATS, installed
from .workloads import CodecOptions, load_codec

# Name, the quality that Pillow or its plugin takes by default, its other default settings, and the slow ones.
OTHERS = {
    "jpeg": ("JPEG", 75, "", ", optimized, progressive or not"),
    "webp": ("WebP", 80, ", method 4", ", method 6"),
    "avif": ("AVIF", 75, ", speed 6", ", speed 0"),
    "jxl": ("JPEG XL", 90, ", effort 7", ", effort 9"),
}

pytestmark = pytest.mark.benchmark(min_rounds=5, warmup=True, warmup_iterations=1)


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    """Another format."""
    if not installed(request.param):
        pytest.skip(f"{OTHERS[request.param][0]} is not installed")
    return request.param


@pytest.mark.parametrize("pictures", [1, 16])
@pytest.mark.parametrize("effort", [0, 1, None], ids=["effort 0", "effort 1", "default"])
def test_compress(benchmark: Any, record: Record, options: CodecOptions, effort: int | None, pictures: int) -> None:
    steps = default_steps(load_codec(options).weights.config, 1) if effort is None else effort
    name = f"titok, effort {steps}, {options.precision}{several(pictures)}"
    files = record("compress", name, workloads.compress, pictures, options=options, count=pictures, effort=effort)
    benchmark.extra_info["bytes"] = round(sum(map(len, files)) / len(files))
    assert len(files) == pictures


@pytest.mark.parametrize("pictures", [1, 16])
def test_decompress(record: Record, options: CodecOptions, pictures: int) -> None:
    files = workloads.compress(options, pictures, 0)()
    name = f"titok, {options.precision}{several(pictures)}"
    images = record("decompress", name, workloads.decompress, pictures, options=options, files=files)
    assert [image.size for image in images] == [(256, 256)] * pictures


def test_open_with_pillow(record: Record, options: CodecOptions) -> None:
    (data,) = workloads.compress(options, 1, 0)()
    name = f"titok through Pillow, {options.precision}"
    record("decompress", name, workloads.open_titok, options=options, data=data)


@pytest.mark.parametrize("best", [False, True], ids=["usual", "best"])
def test_compress_others(benchmark: Any, record: Record, kind: str, best: bool) -> None:
    data = record("compress", label(kind, best), workloads.save, **settings(kind, best))
    benchmark.extra_info["bytes"] = len(data)


def test_decompress_others(record: Record, kind: str) -> None:
    usual = settings(kind, best=False)
    data = workloads.save(**usual)()
    record("decompress", label(kind, best=False), workloads.load, data=data, plugin=usual["plugin"])


def several(pictures: int) -> str:
    return f", {pictures} at once" * (pictures > 1)


def label(kind: str, best: bool) -> str:
    """A format with its settings."""
    name, quality, *how = OTHERS[kind]
    return f"{name}, quality {quality}{how[best]}"


def settings(kind: str, best: bool) -> dict[str, Any]:
    """Arguments of ``workloads.save`` for a format."""
    form = FORMATS[kind]
    variants = [{**form.options, **variant} for variant in form.variants] if best else [{}]
    quality = {"quality": OTHERS[kind][1]}
    return {"format": form.name, "variants": [quality | variant for variant in variants], "plugin": form.plugin}
