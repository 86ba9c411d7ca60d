"""What the search for better tokens buys, and what it costs: quality and time by effort.

    python -m bench.effort --data DIR|TAR ... [--limit 60] [--lpips FILE] --out bench/results/effort.json

Times are those of finding tokens for one picture alone, and for each of sixteen together; medians, after a warm-up.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import torch
from titokcodec.training.data import Pictures
from titokcodec.training.evaluate import measure, token_counts, tokens_of

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError
from titokcodec.metrics import LPIPS
from titokcodec.search import NEWTON_STEPS

EFFORTS = (0, 1, 2, 4, NEWTON_STEPS, 16)
BATCHES = (1, 16)


def seconds(codec: Codec, pixels: torch.Tensor, effort: int, rounds: int = 5) -> float:
    """Median time a picture of ``codec.encode`` for (B, 3, 256, 256) pixels."""
    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        codec.encode(pixels, effort=effort).cpu()  # waits for a GPU
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:]) / len(pixels)


def row(codec: Codec, pictures: Pictures, effort: int, lpips: LPIPS | None) -> dict[str, float]:
    """``psnr/K``, ``lpips/K`` and so on as ``measure`` names them, and ``seconds/B`` by the size of a batch."""
    tokens = tokens_of(codec, pictures, effort)
    found = measure(codec.model, pictures, token_counts(codec.model), lpips, tokens=tokens)
    times = {f"seconds/{size}": seconds(codec, pictures.centre_crops(torch.arange(size)), effort) for size in BATCHES}
    return {"effort": effort} | {name: value for name, value in found.items() if "/" in name} | times


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
    parser.add_argument("--limit", type=int, help="take the first pictures only")
    parser.add_argument("--efforts", type=int, nargs="+", default=EFFORTS, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    codec = Codec.from_pretrained(options.model, device=options.device)
    pictures = Pictures(options.data, codec.weights.config.image_size, options.limit, codec.device)
    if len(pictures) < max(BATCHES):
        raise TitokError(f"{len(pictures)} pictures are too few to time batches of {max(BATCHES)}: give more")
    lpips = LPIPS(options.lpips).to(codec.device) if options.lpips else None
    rows = [row(codec, pictures, effort, lpips) for effort in options.efforts]
    about = {
        "model": codec.weights.name,
        "fingerprint": codec.weights.fingerprint.hex(),
        "pictures": len(pictures),
        "device": str(codec.device),
        "dtype": str(codec.dtype)[6:],
        "threads": torch.get_num_threads(),
    }
    lines = ",\n".join("    " + json.dumps({k: round(v, 5) for k, v in found.items()}) for found in rows)
    options.out.write_text(json.dumps(about, indent=2)[:-2] + f',\n  "rows": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    start(main)
