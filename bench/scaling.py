"""How time and memory grow with the picture, compressed in tiles, up to 100 megapixels, and with tokens.

    python -m bench.scaling --out bench/results/scaling.json [--device cuda] [--megapixels 1 4 16 50 100]

The picture is a photograph continued by its mirror images. One of 256 x 256 pixels, for which tokens are searched, and
the smallest of the sizes, for which they are not, are compressed to every number of tokens; the others to the largest.
Every case runs in a process of its own, so that its peak of memory is its own too: once to warm up, then for
``--patience`` seconds, of which the median counts.
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

from .fresh import measure_fresh
from .machine import describe
from .records import write
from .workloads import CodecOptions, compress_large, decompress_large, load_codec

MEGAPIXELS = (1, 4, 16, 50, 100)
TOKENS = (32, 64, 96, 128)


def cases(megapixels: Sequence[float], tokens: Sequence[int]) -> list[tuple[int, int]]:
    """(side in pixels, tokens a tile) of every picture."""
    first, *others = [math.isqrt(round(size * 1e6)) for size in sorted(megapixels)]
    return [(side, count) for side in (TILE, first) for count in sorted(tokens)] + [
        (side, max(tokens)) for side in others
    ]


def results(codec: CodecOptions, pictures: Sequence[tuple[int, int]], patience: float) -> Iterator[dict[str, Any]]:
    """A row for compressing and one for decompressing every picture."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "picture.titok")
        for side, tokens in pictures:
            about = {
                "megapixels": round(side**2 / 1e6, 4),
                "side": side,
                "tiles": nearest_grid(side, side).tiles,
                "tokens": tokens,
            }
            there = measure_fresh(compress_large, patience, options=codec, side=side, tokens=tokens, target=file)
            back = measure_fresh(decompress_large, patience, options=codec, source=file)
            for direction, found in (("compress", there), ("decompress", back)):
                seconds = round(found["seconds"], 5)
                yield {"job": direction, **about, "bytes": file.stat().st_size, **found, "seconds": seconds}


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
    codec = load_codec(CodecOptions(options.model, options.device, options.precision))
    about = {**describe(options.device), "dtype": str(codec.dtype).removeprefix("torch."), "model": codec.weights.name}
    same = CodecOptions(options.model, str(codec.device), about["dtype"])  # in every process
    rows = []
    for row in results(same, cases(options.megapixels, options.tokens), options.patience):
        rows.append(row)
        write(options.out, {**about, "results": rows})  # after every row, in case a later one fails
        print(
            f"{row['job']} {row['megapixels']:g} megapixels, {row['tokens']} tokens: {row['seconds']:.3g} s, "
            f"{row['memory'] / 1e6:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    start(main)
