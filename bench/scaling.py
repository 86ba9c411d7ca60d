"""How compressing in tiles and decompressing grow with the picture, up to 100 megapixels, and with tokens.

    python -m bench.scaling --out bench/results/scaling.json [--device cuda] [--megapixels 1 4 16 50 100]

The picture is a photograph continued by its mirror images. One of 256 x 256 pixels, which is searched, and the first of
the sizes, which is not, are done with every number of tokens; the others with most. Every case has a process of its
own, so that peaks of memory are its own too; it is warm when the clock starts, and the median of up to five times
counts, of as many as begin within ``--patience`` seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from titokcodec.cli.script import Parser, start
from titokcodec.format.layout import nearest_grid
from titokcodec.format.limits import TILE

from . import jobs
from .fresh import measure
from .jobs import Model
from .machine import describe
from .records import write

MEGAPIXELS = (1, 4, 16, 50, 100)
TOKENS = (32, 64, 96, 128)


def cases(megapixels: Sequence[float], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """(side in pixels, tokens a tile) of every picture."""
    sides = [math.isqrt(round(size * 1e6)) for size in sorted(megapixels)]
    return [(side, count) for side in (TILE, *sides[:1]) for count in sorted(tokens)] + [
        (side, max(tokens)) for side in sides[1:]
    ]


def results(model: Model, wanted: Sequence[tuple[int, int]], patience: float) -> Iterator[dict[str, Any]]:
    """A row for compressing and one for decompressing of every case."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "picture.titok")
        for side, tokens in wanted:
            about = {
                "megapixels": round(side**2 / 1e6, 4),
                "side": side,
                "tiles": nearest_grid(side, side).tiles,
                "tokens": tokens,
            }
            given = {"model": model, "side": side, "tokens": tokens}
            there = measure(jobs.compress_large, patience, target=file, **given)
            back = measure(jobs.decompress_large, patience, source=file, **given)
            for job, found in (("compress", there), ("decompress", back)):
                seconds = round(found["seconds"], 5)
                yield {"job": job, **about, "bytes": file.stat().st_size, **found, "seconds": seconds}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, nargs="+", default=MEGAPIXELS, help="default: 1 4 16 50 100")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, help="default: 32 64 96 128")
    parser.add_argument("--device", default="auto", help="default: CUDA, then MPS, then the CPU")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"), help="default: %(default)s")
    parser.add_argument("--model", help="weight file, folder or hub:org/name (default: the bundled model)")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds (default: %(default)s)")
    options = parser.parse_args(arguments)
    codec = Model(options.model, options.device, options.precision).load()
    about = {**describe(options.device), "dtype": str(codec.dtype).removeprefix("torch."), "model": codec.weights.name}
    model = Model(options.model, str(codec.device), about["dtype"])  # the same in every process
    rows = []
    for row in results(model, cases(options.megapixels, options.tokens), options.patience):
        rows.append(row)
        write(options.out, {**about, "results": rows})  # whatever becomes of the others
        print(
            f"{row['job']} {row['megapixels']:g} megapixels, {row['tokens']} tokens: {row['seconds']:.3g} s, "
            f"{row['memory'] / 1e6:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    start(main)
