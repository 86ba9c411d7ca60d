"""What each part of the way through a device buys: from host arrays to tokens, and from tokens to host arrays.

    python -m bench.pipeline --out bench/results/pipeline.json [--device cuda] [--batch 1 16 256]

Begins with what one would write first, float32 pixels that travel to and fro while everybody waits, and adds one thing
at a time, in the order of ``ways``; the last one is what ``Codec`` does after ``Codec.compile``. What a device knows
nothing of is left out. Ways are timed in turns, so that a machine's moods meet all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from titokcodec.cli.script import Parser, start
from titokcodec.models.tokenizer import TiTok
from titokcodec.runtime.acceleration import Accelerated
from titokcodec.runtime.devices import choose_device, choose_dtype
from titokcodec.runtime.transfer import one_ahead, to_device
from titokcodec.weights import tokenizers

from .machine import describe

PICTURES = 64  # a round, or one batch if that is more
ROUNDS = 5


@dataclass(frozen=True)
class Way:
    """How pictures get through.

    Attributes:
        name: What it adds to the one before.
        bytes_travel: Pixels cross to and from the device as uint8, and become floats there.
        ahead: Copies are pinned and asynchronous, and a batch is asked for before the last one is taken.
        channels_last: Convolutions work on pixels whose channels lie together.
        dtype: Of the network.
        graphs: Passes are replayed from CUDA graphs.
        kernels: And their kernels are fused by ``torch.compile``.
    """

    name: str
    bytes_travel: bool = False
    ahead: bool = False
    channels_last: bool = False
    dtype: torch.dtype = torch.float32
    graphs: bool = False
    kernels: bool = False


def ways(device: torch.device) -> list[Way]:
    """All of them that the device knows, each with one thing more than the one before."""
    cuda = device.type == "cuda"
    found = [Way("float32 pixels travel, everybody waits")]
    for name, known, more in (
        ("+ pixels travel as uint8", True, {"bytes_travel": True}),
        ("+ pinned copies, one batch ahead", cuda, {"ahead": True}),
        ("+ channels last", True, {"channels_last": True}),
        ("+ bfloat16", choose_dtype(device) is torch.bfloat16, {"dtype": torch.bfloat16}),
        ("+ CUDA graphs", cuda, {"graphs": True}),
        ("+ fused kernels", True, {"kernels": True}),
    ):
        if known:
            found.append(replace(found[-1], name=name, **more))
    return found


class Line:
    """A model and the way that arrays take through it."""

    def __init__(self, way: Way, model: TiTok, device: torch.device) -> None:
        memory = torch.channels_last if way.channels_last else torch.contiguous_format
        model = model.to(device=device, dtype=way.dtype, memory_format=memory)
        model.keep_exact()
        self.way, self.device, self.dtype = way, device, way.dtype
        quick = way.graphs or way.kernels
        self.networks = [
            Accelerated(part, device, way.kernels) if quick else part for part in (model.encode, model.decode)
        ]

    @torch.inference_mode()
    def encode(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """(n, 256, 256, 3) uint8 pixels -> (n, K) int64 tokens."""
        return list(self._home(self.networks[0](self._pixels(batch)) for batch in batches))

    @torch.inference_mode()
    def decode(self, batches: Iterable[np.ndarray]) -> list[np.ndarray]:
        """(n, K) int64 tokens -> (n, 256, 256, 3) uint8 pixels."""
        drawn = (self.networks[1](self._there(batch)) for batch in batches)
        if self.way.bytes_travel:
            return list(self._home((pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous() for pixels in drawn))
        return [(pixels * 255).round().astype(np.uint8).transpose(0, 2, 3, 1) for pixels in self._home(drawn)]

    def _pixels(self, batch: np.ndarray) -> Tensor:
        if self.way.bytes_travel:
            pixels = self._there(batch).permute(0, 3, 1, 2).to(self.dtype) / 255
        else:
            pixels = self._there(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255).to(self.dtype)
        return pixels if self.way.channels_last else pixels.contiguous()

    def _there(self, batch: np.ndarray) -> Tensor:
        return to_device(batch, self.device) if self.way.ahead else torch.from_numpy(batch).to(self.device)

    def _home(self, tensors: Iterator[Tensor]) -> Iterator[np.ndarray]:
        return one_ahead(tensors) if self.way.ahead else (tensor.cpu().numpy() for tensor in tensors)


def measure(
    model: Callable[[], TiTok], device: torch.device, batch: int, rounds: int = ROUNDS, pictures: int = PICTURES
) -> list[dict[str, Any]]:
    """A row for every way and direction, with medians over rounds in which all ways take turns."""
    lines = [Line(way, model(), device) for way in ways(device)]
    count = max(1, pictures // batch)
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (batch, 256, 256, 3), np.uint8) for _ in range(count)]
    tokens = lines[0].encode(pixels)
    given = {"encode": pixels, "decode": tokens}
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for line in lines:
            for direction, batches in given.items():
                start = time.perf_counter()
                getattr(line, direction)(batches)  # its results are on the host, so it is over
                if turn:  # the first one warms up, compiles and records
                    taken.setdefault((line.way.name, direction), []).append(time.perf_counter() - start)
    return [
        {"direction": direction, "batch": batch, "way": name, "pictures_per_second": count * batch / median(seconds)}
        for (name, direction), seconds in taken.items()
    ]


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by direction, numbers of four digits, each with how many times faster it is than the first of its kind."""
    first: dict[tuple[str, int], float] = {}
    found = []
    for row in sorted(rows, key=lambda row: (row["direction"], row["batch"])):
        base = first.setdefault((row["direction"], row["batch"]), row["pictures_per_second"])
        speed = row["pictures_per_second"]
        found.append({**row, "pictures_per_second": float(f"{speed:.4g}"), "times_first": float(f"{speed / base:.4g}")})
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--device", default="auto", help="default: CUDA, then MPS, then the CPU")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="pictures (default: 1 16)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="in a round (default: %(default)s)")
    options = parser.parse_args(arguments)
    device, opened = choose_device(options.device), tokenizers.read(options.model)
    rows: list[dict[str, Any]] = []
    for batch in options.batch:
        rows += measure(lambda: tokenizers.build(opened), device, batch, options.rounds, options.pictures)
        found = {**describe(options.device), "model": opened.name, "results": compared(rows)}
        options.out.write_text(json.dumps(found, indent=2) + "\n")
        print(f"batch {batch}: {len(rows)} rows", flush=True)


if __name__ == "__main__":
    start(main)
