"""Pictures of classes a second, 256 x 256: TiTok and its generators beside DiT-XL/2, networks of the published sizes.

    python -m bench.generation --out bench/results/generation-speed.json [--device cuda] [--precision bf16] [--quick]
    python -m bench.generation ... --models TiTok-L-32 DiT-XL/2 --patience 10 --most 128 --no-compile    # in a minute

A picture is all of it: network, sampler, guidance, and decoding to uint8 pixels. Weights are random, which takes as
long. DiT-XL/2 goes 250 steps with guidance, as in Yu et al. 2024, table 1; ours are sampled as published.

Every model gets the batch, a power of two, at which it makes most pictures a second. That is searched for with a few
steps and a decoding each, from which the whole time follows, since all steps but the first are alike. What the search
found is then timed in whole draws, on a GPU once more with compiled networks and CUDA graphs, and the faster median
is kept. Where a whole draw would take too long, as 250 steps of DiT do on a CPU, the extrapolation from single steps
stands, and is called one.

A GPU is timed by the clock on the wall, synchronised. On a CPU all is done by one thread, and what counts is the time
that it had a core: the same on an idle machine, and of use on one where other work is running.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.generator import PUBLISHED, Card, Generator
from titokcodec.models.config import PRESETS, TiTokConfig
from titokcodec.models.maskgit import PRESETS as GENERATORS
from titokcodec.models.maskgit import GeneratorConfig, make
from titokcodec.models.meta import on_meta
from titokcodec.models.tokenizer import TiTok
from titokcodec.runtime.devices import choose_device, choose_dtype
from titokcodec.sampling import Settings, walk
from titokcodec.weights.tokenizers import Weights

from .dit import Decoder, DecoderConfig, Diffusion, DiT, DiTConfig
from .machine import name_of, synchronize
from .numbers import positive

Model = TypeVar("Model", bound=nn.Module)
LEAST_GAIN = 1.03  # pictures a second of one batch over those of half of it; with less, no larger one is tried
COMPILED = {"mode": "reduce-overhead", "dynamic": False}  # of DiT: CUDA graphs, and a kernel for every shape, as ours


@dataclass(frozen=True)
class TiTokSize:
    """A tokenizer, its generator, and what it is sampled with."""

    name: str
    tokenizer: TiTokConfig
    generator: GeneratorConfig
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class DiTSize:
    """A DiT, the decoder of its latents, and what it is sampled with."""

    name: str
    model: DiTConfig = field(default_factory=DiTConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    steps: int = 250
    guidance: float = 1.5


def _published(name: str, tokenizer: str, **changes: Any) -> TiTokSize:
    generator = f"generator_{tokenizer}"
    return TiTokSize(name, PRESETS[tokenizer], GENERATORS[generator], {**PUBLISHED[generator], **changes})


SIZES = (
    DiTSize("DiT-XL/2"),
    _published("TiTok-L-32", "titok_l32"),
    _published("TiTok-S-128", "titok_s128", steps=8),
    _published("TiTok-S-128", "titok_s128"),
)


@dataclass(frozen=True)
class Effort:
    """How much time to spend.

    Attributes:
        rounds: Times of which the median is taken.
        patience: Seconds for the search and again for whole draws, but for the last one begun; a whole draw that is
            likely to take longer alone is not made.
        most: Pictures in the largest batch.
        compiled: Whether a GPU's whole draws are timed with compiled networks too.
    """

    rounds: int = 3
    patience: float = 120.0
    most: int = 1024
    compiled: bool = True


QUICK = Effort(rounds=1, patience=30.0, most=2)


class Ours:
    """A TiTok with its generator, through the interface that users have."""

    def __init__(self, size: TiTokSize, device: torch.device, dtype: torch.dtype) -> None:
        tokenizer = with_random_weights(lambda: TiTok(size.tokenizer), device, dtype)
        network = with_random_weights(lambda: make(size.generator), device, dtype)
        opened = Weights(Path(), size.name, size.tokenizer, bytes(8), None)
        self.codec = Codec(opened, tokenizer, device, dtype)
        self.generator = Generator(network, Card(size.name, size.generator), device, dtype)
        self.name, self.settings, self.device, self.dtype = size.name, Settings(**size.settings), device, dtype
        self.steps, self._options = self.settings.steps, size.settings
        self.parameters = _count(network) + _count(tokenizer) - _count(tokenizer.encoder)

    def draw(self, batch: int) -> Tensor:
        """(B, 3, 256, 256) uint8 on the device."""
        labels = self._labels(batch).tolist()
        return eight_bit(self.codec.decode(self.generator.sample(labels, **self._options)))

    def walk(self, batch: int) -> Iterator[Tensor]:
        """Something after every step."""
        config = self.generator.config
        tokens = torch.full((batch, config.tokens), config.mask_id, device=self.device)
        labels, hidden = self._labels(batch).to(self.device), [config.tokens] * batch
        return walk(
            self.generator.network,
            tokens,
            labels,
            hidden,
            config.mask_id,
            self.settings,
            lambda step, shape: torch.rand(shape, device=self.device),
        )

    def finish(self, batch: int) -> Tensor:
        """What follows the last step: (B, 3, 256, 256) uint8 on the device."""
        config = self.generator.config
        return eight_bit(self.codec.decode(torch.randint(config.codes, (batch, config.tokens), device=self.device)))

    def compile(self) -> None:
        self.generator.compile()
        self.codec.compile()

    def _labels(self, batch: int) -> Tensor:
        return torch.arange(batch) % self.generator.config.classes


class Theirs:
    """A DiT; the same interface."""

    def __init__(self, size: DiTSize, device: torch.device, dtype: torch.dtype) -> None:
        model = with_random_weights(lambda: DiT(size.model), device, dtype)
        model.place()
        decoder = with_random_weights(lambda: Decoder(size.decoder), device, dtype)
        decoder.to(memory_format=torch.channels_last)  # as in our codec
        self.diffusion = Diffusion(model, decoder, size.steps, size.guidance)
        self.name, self.steps, self.device, self.dtype = size.name, size.steps, device, dtype
        self.parameters = _count(model) + _count(decoder)

    def draw(self, batch: int) -> Tensor:
        latents = None
        for step in self.walk(batch):
            latents = step
        return eight_bit(self.diffusion.decode(latents))

    def walk(self, batch: int) -> Iterator[Tensor]:
        labels = torch.arange(batch, device=self.device) % self.diffusion.config.classes
        return self.diffusion.walk(labels)

    def finish(self, batch: int) -> Tensor:
        return eight_bit(self.diffusion.decode(self.diffusion.start(batch)))

    def compile(self) -> None:
        self.diffusion.model = torch.compile(self.diffusion.model, **COMPILED)
        self.diffusion.decoder = torch.compile(self.diffusion.decoder, **COMPILED)


Contender = Ours | Theirs


def build(size: TiTokSize | DiTSize, device: torch.device, dtype: torch.dtype) -> Contender:
    """The model of a size, with random weights."""
    return (Ours if isinstance(size, TiTokSize) else Theirs)(size, device, dtype)


def with_random_weights(construct: Callable[[], Model], device: torch.device, dtype: torch.dtype) -> Model:
    """The model in its precision from the start: no number of it is ever in memory twice."""
    model = on_meta(construct).to(dtype).to_empty(device=device).requires_grad_(False).eval()
    for name, value in model.named_parameters():
        if value.ndim > 1:
            nn.init.uniform_(value, -0.02, 0.02)
        else:
            nn.init.constant_(value, float(name.endswith("weight")))  # of a norm
    return model


def eight_bit(pixels: Tensor) -> Tensor:
    """Float in [0, 1] -> uint8."""
    return (pixels * 255).round().to(torch.uint8)


@torch.inference_mode()
def measure(contender: Contender, effort: Effort) -> dict[str, Any] | None:
    """The best of one model: a row of the result without its comparison. None if not even one picture fits."""
    found = search(contender, effort)
    if found is None:
        return None
    batch, seconds = found
    extrapolated = seconds > effort.patience
    seconds = seconds if extrapolated else whole(contender, batch, effort)
    graphed = math.inf
    if contender.device.type == "cuda" and effort.compiled:
        again = partial(likely, rounds=effort.rounds) if extrapolated else partial(whole, effort=effort)
        graphed = with_graphs(contender, batch, again)
    compiled, seconds = graphed < seconds, min(graphed, seconds)
    return {
        "model": contender.name,
        "parameters": contender.parameters,
        "steps": contender.steps,
        "dtype": str(contender.dtype).removeprefix("torch."),
        "batch": batch,
        "seconds": seconds,
        "images_per_second": batch / seconds,
        "extrapolated": extrapolated,
        "compiled": compiled,
    }


def search(contender: Contender, effort: Effort) -> tuple[int, float] | None:
    """The best batch and the seconds it is likely to take; None if memory is too small for one picture."""
    best, batch, start = None, 1, _now(contender.device)
    while batch <= effort.most and _now(contender.device) - start <= effort.patience:
        try:
            seconds = likely(contender, batch, effort.rounds)
        except RuntimeError as error:  # a lack of memory, or a tensor of more numbers than a kernel can count
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


def likely(contender: Contender, batch: int, rounds: int) -> float:
    """Seconds of a whole draw, from some steps and decodings.

    The first step counts once, because guidance starts with the second one; the median of the next counts for all.
    """
    warm(contender, batch)
    steps = contender.walk(batch)
    count, device = min(contender.steps, 1 + rounds), contender.device
    first, *others = (seconds_of(lambda: next(steps), device) for _ in range(count))
    last = median(seconds_of(lambda: contender.finish(batch), device) for _ in range(rounds))
    return first + (contender.steps - 1) * median(others or [0.0]) + last


def warm(contender: Contender, batch: int, times: int = 1) -> None:
    """Everything that a draw does, in the shortest way."""
    for _ in range(times):
        for _ in islice(contender.walk(batch), 2):
            pass
        contender.finish(batch)


def whole(contender: Contender, batch: int, effort: Effort) -> float:
    """The median of whole draws, as many as patience allows."""
    found: list[float] = []
    while len(found) < effort.rounds and sum(found) <= effort.patience:
        found.append(seconds_of(lambda: contender.draw(batch), contender.device))
    return median(found)


def with_graphs(contender: Contender, batch: int, timing: Callable[[Contender, int], float]) -> float:
    """Seconds with compiled networks, infinitely many if that fails. The model is of no use afterwards."""
    contender.compile()
    try:
        warm(contender, batch, times=3)  # compilation, recording, and one to be sure
        return timing(contender, batch)
    except RuntimeError as error:  # the compiler's own errors are such, and so is a lack of memory
        print(f"{contender.name} does not compile: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return math.inf
    finally:
        torch.compiler.reset()  # it would keep the model


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """One run of it, to its end: a GPU only queues it."""
    start = _now(device)
    work()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    synchronize(device)
    return time.perf_counter()


def free() -> None:
    """Give back what no model holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def compare(
    sizes: Sequence[TiTokSize | DiTSize], device: torch.device, dtypes: Sequence[torch.dtype], effort: Effort
) -> Iterator[list[dict[str, Any]]]:
    """A row for every model and precision, with ``times_dit`` over the first DiT in that precision, if there is one.

    All rows so far are given whenever there is another. One model is in memory at a time.
    """
    rows: list[dict[str, Any]] = []
    for dtype in dtypes:
        for size in sizes:
            row = measure(build(size, device, dtype), effort)
            free()
            if row is None:
                print(f"{size.name} does not fit the memory", file=sys.stderr)
                continue
            rows.append(row)
            print(
                f"{row['model']} {row['steps']} steps {row['dtype']}: {row['images_per_second']:.3g} images/s "
                f"at batch {row['batch']}{', extrapolated' * row['extrapolated']}",
                flush=True,
            )
            yield [_rounded(row, _reference(rows, row["dtype"], sizes)) for row in rows]


def _reference(rows: Sequence[dict[str, Any]], dtype: str, sizes: Sequence[TiTokSize | DiTSize]) -> float | None:
    names = {size.name for size in sizes if isinstance(size, DiTSize)}
    return next((row["images_per_second"] for row in rows if row["model"] in names and row["dtype"] == dtype), None)


def _rounded(row: dict[str, Any], reference: float | None) -> dict[str, Any]:
    """The row with its comparison, numbers of four digits."""
    row = {**row, "times_dit": row["images_per_second"] / reference if reference else None}
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, no more threads than one."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def main(arguments: list[str] | None = None, sizes: Sequence[TiTokSize | DiTSize] = SIZES) -> None:
    """Command line; ``sizes`` are the models."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto", help="default: CUDA, then MPS, then the CPU")
    parser.add_argument("--precision", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 2, timed once; no long draws")
    names = list(dict.fromkeys(size.name for size in sizes))
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="default: all of them")
    parser.add_argument("--rounds", type=positive, help="times of which the median is taken (default: 3)")
    parser.add_argument("--patience", type=float, help="seconds for each of search and whole draws (default: 120)")
    parser.add_argument("--most", type=positive, help="pictures in the largest batch (default: 1024)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="time compiled networks too, on a GPU"
    )
    options = parser.parse_args(arguments)
    given = {name: value for name in ("rounds", "patience", "most") if (value := getattr(options, name)) is not None}
    effort = replace(QUICK if options.quick else Effort(), compiled=options.compile, **given)
    sizes = [size for size in sizes if size.name in options.models]
    device = choose_device(options.device)
    if device.type == "cuda":  # as is common for such networks
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    dtypes = [choose_dtype(device, name) for name in options.precision]
    name = name_of(device) + ", one thread" * (device.type == "cpu")
    about = {"device": name, "torch": torch.__version__, "tf32": device.type == "cuda"}
    with one_thread(device):
        for rows in compare(sizes, device, dtypes, effort):
            options.out.write_text(json.dumps({**about, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    start(main)
