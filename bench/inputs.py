"""Command-line arguments that the benchmarks share: which pictures, which models, and the networks behind metrics."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from titokcodec.training.argtypes import whole

from titokcodec import Codec


def add_pictures(parser: argparse.ArgumentParser, name: str = "--images", every: bool = False) -> None:
    """Where the pictures are, and how many of them to take."""
    parser.add_argument(name, type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--limit", type=whole(1), metavar="N", help="the first pictures only")
    if every:
        text = "only every Nth picture, from the first on"
        parser.add_argument("--every", type=whole(1), default=1, metavar="N", help=text)


def add_models(parser: argparse.ArgumentParser) -> None:
    """Models that take part, and how they compute."""
    add = parser.add_argument
    add("--model", nargs="+", default=[None], help="weight files (default: the bundled one)")
    add("--device", default="auto", help="of titok; metrics are computed on the CPU (default: %(default)s)")
    add("--dtype", default="fp32", help="of titok: fp32, bf16 or auto (default: %(default)s)")
    add("--effort", type=whole(0), help="steps of titok's search for tokens (default: as when compressing)")
    add("--workers", type=whole(1), default=os.cpu_count(), help="processes (default: one a CPU)")


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Weight files of the networks behind metrics."""
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--lite0", type=Path, help="EfficientNet-Lite0 weights (safetensors)")


def open_models(options: argparse.Namespace) -> list[Codec]:
    """The codecs that ``add_models`` asked for."""
    return [Codec.from_pretrained(model, device=options.device, dtype=options.dtype) for model in options.model]


def describe_model(codec: Codec) -> dict[str, Any]:
    """What result files say of the model that they are about."""
    about = {"model": codec.weights.name, "fingerprint": codec.weights.fingerprint.hex()}
    return about | {"device": str(codec.device), "dtype": str(codec.dtype).removeprefix("torch.")}
