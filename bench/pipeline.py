"""What each optimisation gains on the way from host arrays to tokens, and from tokens to host arrays.

    python -m bench.pipeline --out bench/results/pipeline.json [--device cuda] [--batch 1 16 256]

Starts from the simplest code, float32 pixels and copies that block, and adds one optimisation at a time, in the order
of ``variants``; the last one is what ``Codec`` does after ``Codec.compile``. What a device does not support is left
out. Variants are timed in turns, so that disturbances of the machine affect them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from titokcodec.training.argtypes import whole
from torch import Tensor
from torch.utils.benchmark import Timer

from titokcodec.cli.script import Parser, start
from titokcodec.models.tokenizer import TiTok
from titokcodec.runtime.acceleration import Accelerated
from titokcodec.runtime.devices import choose_device, choose_dtype
from titokcodec.runtime.transfer import one_ahead, to_device
from titokcodec.weights import tokenizers

from .machine import describe
from .records import write


@dataclass(frozen=True)
class Variant:
    """A choice of optimisations.

    Attributes:
        name: What it adds to the one before.
        uint8: Pixels cross to and from the device as uint8, and become floats there.
        ahead: Copies are pinned and asynchronous, and a batch is queued before the last one is fetched.
        channels_last: Memory format of the convolutions.
        dtype: Of the network.
        graphs: Passes are replayed from CUDA graphs.
        kernels: And their kernels are fused by ``torch.compile``.
    """

    name: str
    uint8: bool = False
    ahead: bool = False
    channels_last: bool = False
    dtype: torch.dtype = torch.float32
    graphs: bool = False
    kernels: bool = False


def variants(device: torch.device) -> list[Variant]:
    """All that the device supports, each with one optimisation more than the one before."""
    cuda = device.type == "cuda"
    found = [Variant("float32 pixels, blocking copies")]
    for name, supported, change in (
        ("+ uint8 pixels", True, {"uint8": True}),
        ("+ pinned copies, one batch ahead", cuda, {"ahead": True}),
        ("+ channels last", True, {"channels_last": True}),
        ("+ bfloat16", choose_dtype(device) is torch.bfloat16, {"dtype": torch.bfloat16}),
        ("+ CUDA graphs", cuda, {"graphs": True}),
        ("+ fused kernels", True, {"kernels": True}),
    ):
        if supported:
            found.append(replace(found[-1], name=name, **change))
    return found


class Pipeline:
    """A model with a variant's path from and to the host."""

    def __init__(self, variant: Variant, model: TiTok, device: torch.device) -> None:
        memory = torch.channels_last if variant.channels_last else torch.contiguous_format
        model = model.to(device=device, dtype=variant.dtype, memory_format=memory)
        model.keep_exact()
        self.variant, self.device, parts = variant, device, (model.encode, model.decode)
        if variant.graphs or variant.kernels:
            parts = tuple(Accelerated(part, device, variant.kernels) for part in parts)
        self.encoder, self.decoder = parts

    @torch.inference_mode()
    def encode(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """(n, 256, 256, 3) uint8 pixels -> (n, K) int64 tokens."""
        return list(self._to_host(self.encoder(self._pixels(batch)) for batch in batches))

    @torch.inference_mode()
    def decode(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """(n, K) int64 tokens -> (n, 256, 256, 3) uint8 pixels."""
        decoded = (self.decoder(self._to_device(batch)) for batch in batches)
        if self.variant.uint8:
            pixels = ((pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous() for pixels in decoded)
            return list(self._to_host(pixels))
        return [(pixels * 255).round().astype(np.uint8).transpose(0, 2, 3, 1) for pixels in self._to_host(decoded)]

    def _pixels(self, batch: np.ndarray) -> Tensor:
        if self.variant.uint8:
            pixels = self._to_device(batch).permute(0, 3, 1, 2).to(self.variant.dtype) / 255
        else:
            pixels = self._to_device(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255).to(self.variant.dtype)
        return pixels if self.variant.channels_last else pixels.contiguous()

    def _to_device(self, batch: np.ndarray) -> Tensor:
        return to_device(batch, self.device) if self.variant.ahead else torch.from_numpy(batch).to(self.device)

    def _to_host(self, tensors: Iterator[Tensor]) -> Iterator[np.ndarray]:
        return one_ahead(tensors) if self.variant.ahead else (tensor.cpu().numpy() for tensor in tensors)


def time_variants(
    model: Callable[[], TiTok], device: torch.device, batch: int, rounds: int, pictures: int
) -> list[dict[str, Any]]:
    """A row for every direction and variant: pictures a second, median over rounds in which all variants take turns,
    and how many times as fast that is as the first variant; both to four digits."""
    pipelines = [Pipeline(variant, model(), device) for variant in variants(device)]
    rng, count = np.random.default_rng(0), max(1, pictures // batch)
    pixels = [rng.integers(0, 256, (batch, 256, 256, 3), np.uint8) for _ in range(count)]
    batches, threads = {"encode": pixels, "decode": pipelines[0].encode(pixels)}, torch.get_num_threads()
    timers = {
        (direction, pipeline.variant.name): Timer(
            "run(batches)",
            globals={"run": getattr(pipeline, direction), "batches": batches[direction]},
            num_threads=threads,
        )
        for direction in ("decode", "encode")
        for pipeline in pipelines
    }
    # Zero seconds: one run, after one to warm up, which the first time compiles and records.
    turns = [{key: t.blocked_autorange(min_run_time=0).median for key, t in timers.items()} for _ in range(rounds)]
    speed = {key: count * batch / median(turn[key] for turn in turns) for key in timers}
    return [
        {
            "direction": direction,
            "batch": batch,
            "way": name,
            "pictures_per_second": float(f"{found:.4g}"),
            "times_first": float(f"{found / speed[direction, pipelines[0].variant.name]:.4g}"),
        }
        for (direction, name), found in speed.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--device", default="auto", help="default: CUDA, then MPS, then the CPU")
    parser.add_argument("--batch", type=whole(1), nargs="+", default=[1, 16], help="pictures (default: 1 16)")
    parser.add_argument("--rounds", type=whole(1), default=5, help="default: %(default)s")
    parser.add_argument("--pictures", type=whole(1), default=64, help="in a round (default: %(default)s)")
    options = parser.parse_args(arguments)
    device, opened = choose_device(options.device), tokenizers.read(options.model)
    rows: list[dict[str, Any]] = []
    for batch in options.batch:
        rows += time_variants(lambda: tokenizers.build(opened), device, batch, options.rounds, options.pictures)
        rows.sort(key=lambda row: (row["direction"], row["batch"]))
        write(options.out, {**describe(options.device), "model": opened.name, "results": rows})
        print(f"batch {batch}: {len(rows)} rows", flush=True)


if __name__ == "__main__":
    start(main)
