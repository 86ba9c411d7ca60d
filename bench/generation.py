"""Class-conditional pictures a second, 256 x 256: TiTok with its generators beside DiT-XL/2, at the published sizes.

    python -m bench.generation --out bench/results/generation-speed.json [--device cuda] [--precision bf16] [--quick]
    python -m bench.generation ... --models TiTok-L-32 DiT-XL/2 --patience 10 --most 128 --no-compile    # in a minute

What is timed is everything from class numbers to uint8 pixels: network, sampler, guidance and decoder. Weights are
random, which takes as long. DiT-XL/2 samples in 250 steps with guidance, as in Yu et al. 2024, table 1; TiTok as
published.

Every model gets the batch size, a power of two, at which it generates most pictures a second. The search for it
estimates the time of a batch from its first steps, since all steps but the first are alike. Whole batches are then
timed at that size, on a GPU also with compiled networks and CUDA graphs, and the faster median is kept. Where a whole
batch would take too long, as 250 steps of DiT do on a CPU, the estimate stands and is marked ``extrapolated``.

A GPU is timed by wall clock, synchronised; a CPU by the process's CPU time in one thread, which other work on the
machine does not change.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from titokcodec.training.argtypes import whole
from torch.utils.benchmark import Timer

from titokcodec.cli.script import Parser, start
from titokcodec.runtime.devices import choose_dtype

from .generation_models import SIZES, DiTSize, Model, Size, build
from .machine import name_of, select_device
from .records import write

LEAST_GAIN = 1.03  # the search ends where twice the batch is less than this much faster


@dataclass(frozen=True)
class Limits:
    """How much time to spend on a model.

    Attributes:
        rounds: Whole batches to time.
        patience: Seconds for the search, and again for whole batches. No whole batch is generated that is estimated to
            take longer.
        most: Pictures in the largest batch.
        compiled: Whether whole batches are also timed with compiled networks, on a GPU.
    """

    rounds: int = 3
    patience: float = 120.0
    most: int = 1024
    compiled: bool = True


QUICK = Limits(rounds=1, patience=30.0, most=2)


# ---- time -------------------------------------------------------------------------------------------------------


def timed(model: Model, batch: int, steps: int | None = None, seconds: float = 0.0) -> float:
    """The median time of a batch in seconds, after one to warm up, over as many as fill ``seconds``, at least one."""
    clock = {"timer": time.process_time} if model.device.type == "cpu" else {}  # Timer's own waits for the GPU
    names = {"model": model, "batch": batch, "steps": steps}
    return Timer("model.generate(batch, steps)", globals=names, **clock).blocked_autorange(min_run_time=seconds).median


def estimated(model: Model, batch: int) -> float:
    """Seconds of a whole batch, from the first step, which is not guided, and the two after it."""
    one, three = timed(model, batch, 1), timed(model, batch, 3)
    return one + (model.steps - 1) * max(0.0, three - one) / 2


@torch.inference_mode()
def time_model(model: Model, limits: Limits) -> dict[str, Any] | None:
    """A model's row of the result, without its comparison. None if not even one picture fits into memory."""
    found = search(model, limits)
    if found is None:
        return None
    batch, seconds = found
    extrapolated, enough = seconds > limits.patience, min(limits.patience, limits.rounds * seconds)

    def timing() -> float:
        return estimated(model, batch) if extrapolated else timed(model, batch, seconds=enough)

    seconds, graphed = seconds if extrapolated else timing(), math.inf
    if model.device.type == "cuda" and limits.compiled:
        graphed = with_graphs(model, batch, timing)
    compiled, seconds = graphed < seconds, min(graphed, seconds)
    return {
        "model": model.name,
        "parameters": model.parameters,
        "steps": model.steps,
        "dtype": str(model.dtype).removeprefix("torch."),
        "batch": batch,
        "seconds": seconds,
        "images_per_second": batch / seconds,
        "extrapolated": extrapolated,
        "compiled": compiled,
    }


def search(model: Model, limits: Limits) -> tuple[int, float] | None:
    """The best batch size and its estimated seconds; None if memory is too small for one picture."""
    best, batch, begun = None, 1, time.monotonic()
    while batch <= limits.most and time.monotonic() - begun <= limits.patience:
        try:
            seconds = estimated(model, batch)
        except RuntimeError as error:  # out of memory, or more elements than a kernel can index
            if best is None and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            break
        gain = (batch / seconds) / (best[0] / best[1]) if best else math.inf
        best = (batch, seconds) if gain > 1 else best
        if gain < LEAST_GAIN:
            break
        batch *= 2
    free()
    return best


def with_graphs(model: Model, batch: int, timing: Callable[[], float]) -> float:
    """Seconds with compiled networks, infinity if that fails. The model must not be used afterwards."""
    model.compile()
    try:
        for _ in range(3):  # compilation, recording, and one to be sure
            model.generate(batch, 2)
        return timing()
    except RuntimeError as error:  # the compiler's own errors, and out of memory
        print(f"{model.name} does not compile: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return math.inf
    finally:
        torch.compiler.reset()  # it would keep the model in memory


def free() -> None:
    """Return unused memory to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- the command ------------------------------------------------------------------------------------------------


def compare(
    sizes: Sequence[Size], device: torch.device, dtypes: Sequence[torch.dtype], limits: Limits
) -> Iterator[list[dict[str, Any]]]:
    """After each model and precision all rows so far, with ``times_dit``: how many times as fast as the first DiT in
    the same precision, None without one. One model is in memory at a time."""
    rows: list[dict[str, Any]] = []
    dits = {size.name for size in sizes if isinstance(size, DiTSize)}
    reference: dict[str, float] = {}
    for dtype in dtypes:
        for size in sizes:
            row = time_model(build(size, device, dtype), limits)
            free()
            if row is None:
                print(f"{size.name} does not fit into memory", file=sys.stderr)
                continue
            speed = row["images_per_second"]
            if size.name in dits:
                reference.setdefault(row["dtype"], speed)
            base = reference.get(row["dtype"])
            row["times_dit"] = speed / base if base else None
            rows.append({name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in row.items()})
            print(
                f"{row['model']} {row['steps']} steps {row['dtype']}: {speed:.3g} images/s "
                f"at batch {row['batch']}{', extrapolated' * row['extrapolated']}",
                flush=True,
            )
            yield rows


def main(arguments: list[str] | None = None, sizes: Sequence[Size] = SIZES) -> None:
    """Command line; ``sizes`` are the models."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto", help="default: CUDA, then MPS, then the CPU")
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 2, timed once, and nothing long")
    names = list(dict.fromkeys(size.name for size in sizes))
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--rounds", type=whole(1), help="whole batches to time (default: 3)")
    parser.add_argument("--patience", type=float, help="seconds, for the search and for whole batches (default: 120)")
    parser.add_argument("--most", type=whole(1), help="pictures in the largest batch (default: 1024)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="time compiled networks too, on a GPU"
    )
    options = parser.parse_args(arguments)
    given = {name: value for name in ("rounds", "patience", "most") if (value := getattr(options, name)) is not None}
    limits = replace(QUICK if options.quick else Limits(), compiled=options.compile, **given)
    device = select_device(options.device)
    if device.type == "cuda":  # as is common for such networks
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    name = name_of(device) + ", one thread" * (device.type == "cpu")
    about = {"device": name, "torch": torch.__version__, "tf32": device.type == "cuda"}
    dtypes = [choose_dtype(device, name) for name in options.precision]
    for rows in compare([size for size in sizes if size.name in options.models], device, dtypes, limits):
        write(options.out, {**about, "results": rows})


if __name__ == "__main__":
    start(main)
