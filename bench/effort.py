"""What the search for better tokens gains, and what it costs: quality and time by effort.

    python -m bench.effort --data DIR|TAR ... [--limit 60] [--lpips FILE] --out bench/results/effort.json

Times are those of encoding one picture alone, and for each of sixteen together; medians.
"""

from __future__ import annotations

from pathlib import Path

import torch
from titokcodec.training.data import Pictures
from titokcodec.training.evaluate import all_scores, token_counts, tokens_of
from torch.utils.benchmark import Timer

from titokcodec import Codec
from titokcodec.cli.script import Parser, start
from titokcodec.errors import TitokError
from titokcodec.metrics import LPIPS
from titokcodec.search import NEWTON_STEPS

from . import inputs, records

EFFORTS = (0, 1, 2, 4, NEWTON_STEPS, 16)
BATCHES = (1, 16)
SECONDS = 3.0  # of timing, at least


def seconds(codec: Codec, pixels: torch.Tensor, effort: int) -> float:
    """Median time a picture of ``codec.encode`` for (B, 3, 256, 256) pixels."""
    work = {"codec": codec, "pixels": pixels, "effort": effort}
    timer = Timer("codec.encode(pixels, effort=effort)", globals=work, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=SECONDS).median / len(pixels)


def row(codec: Codec, pictures: Pictures, effort: int, lpips: LPIPS | None) -> dict[str, float]:
    """``psnr/K``, ``lpips/K`` and so on as ``training.evaluate`` names them, and ``seconds/B`` by the size of a
    batch."""
    tokens = tokens_of(codec, pictures, effort)
    found = all_scores(codec.model, pictures, token_counts(codec.model), lpips, tokens=tokens)
    times = {f"seconds/{size}": seconds(codec, pictures.centre_crops(torch.arange(size)), effort) for size in BATCHES}
    return {"effort": effort} | {name: round(value, 5) for name, value in {**found, **times}.items() if "/" in name}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    inputs.add_pictures(parser, "--data")
    parser.add_argument("--model", help="weight file (default: the bundled one)")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors)")
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
    about = {**inputs.describe_model(codec), "pictures": len(pictures), "threads": torch.get_num_threads()}
    records.write(options.out, {**about, "rows": rows})


if __name__ == "__main__":
    start(main)
