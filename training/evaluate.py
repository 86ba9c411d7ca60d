"""Score a tokenizer on held-out pictures: PSNR, LPIPS and use of the codebook, for several numbers of tokens.

    python -m training.evaluate weights.safetensors --data DIR|TAR ... [--lpips FILE] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from titokcodec import Codec, truncate
from titokcodec.models.tokenizer import TiTok
from training.data import Pictures
from training.losses import LPIPS


@torch.no_grad()
def score(
    model: TiTok, pictures: Pictures, counts: tuple[int, ...], lpips: LPIPS | None = None, batch: int = 16
) -> dict[str, float]:
    """Means over the centre crops of ``pictures``, with pixels rounded to 8 bits as a file would hold them.

    Returns:
        ``psnr/K`` in dB (mean of each picture's) and ``lpips/K`` for every K of ``counts``; ``usage``, the share of
        codes that some token took; ``entropy``, bits a token of the empirical distribution.
    """
    total = len(pictures)
    sums: dict[str, float] = {}
    uses = torch.zeros(model.config.codes, device=pictures.pixels.device)
    for which in torch.arange(total).split(batch):
        pixels = pictures.centre_crops(which)
        tokens = model.encode(pixels)
        uses += torch.bincount(tokens.flatten(), minlength=len(uses))
        for count in counts:
            drawn = (model.decode(tokens[:, :count]) * 255).round() / 255
            _add(sums, f"psnr/{count}", psnr(drawn, pixels))
            if lpips:
                _add(sums, f"lpips/{count}", lpips(drawn, pixels))
    share = uses[uses > 0] / uses.sum()
    means = {name: value / total for name, value in sums.items()}
    return means | {"usage": len(share) / len(uses), "entropy": float(-(share * share.log2()).sum())}


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratios in dB of pixels in [0, 1]."""
    return -10 * (a - b).square().mean((1, 2, 3)).clamp_min(1e-10).log10()


def contact_sheet(model: TiTok, pixels: Tensor, counts: tuple[int, ...]) -> Tensor:
    """(B, 3, H, W) -> (3, H', W'): one column a picture, the original on top and every rate below."""
    with torch.no_grad():
        tokens = model.encode(pixels)
        rows = [pixels, *(model.decode(tokens[:, :count]) for count in counts)]
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def first_pictures(model: TiTok, pictures: Pictures, count: int = 6) -> Tensor:
    """The contact sheet of the first pictures at every rate."""
    return contact_sheet(model, pictures.centre_crops(torch.arange(min(count, len(pictures)))), rates(model))


def eight_bit(pixels: Tensor) -> np.ndarray:
    """A (3, H, W) picture in [0, 1] as (H, W, 3) uint8."""
    return (pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def save_picture(pixels: Tensor, path: Path) -> None:
    """Write a (3, H, W) picture in [0, 1]."""
    Image.fromarray(eight_bit(pixels)).save(path)


def rates(model: TiTok) -> tuple[int, ...]:
    """The token counts that reports show: the usual ones inside what the model takes."""
    config = model.config
    usual = [k for k in (32, 64, 96, 128, 256) if config.min_tokens <= k <= config.tokens]
    return tuple(sorted({*usual, config.min_tokens, config.tokens}))


def _add(sums: dict[str, float], name: str, values: Tensor) -> None:
    sums[name] = sums.get(name, 0.0) + float(values.double().sum())


def file_sizes(codec: Codec, pictures: Pictures, counts: tuple[int, ...], batch: int = 16) -> dict[str, float]:
    """``bytes/K``, the longest whole file, and ``mean_bytes/K`` for every K of ``counts``."""
    sizes: dict[int, list[int]] = {count: [] for count in counts}
    for which in torch.arange(len(pictures)).split(batch):
        full = codec.compress_batch(map(eight_bit, pictures.centre_crops(which)), layout="fit")
        for count in counts:
            sizes[count] += [len(truncate(data, count, codec.weights.path)) for data in full]
    longest = {f"bytes/{count}": max(found) for count, found in sizes.items()}
    return longest | {f"mean_bytes/{count}": sum(found) / len(found) for count, found in sizes.items()}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="?", help="weight file (default: the bundled one)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards")
    parser.add_argument("--lpips", type=Path, help="LPIPS weights (safetensors); without them LPIPS is not reported")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    parser.add_argument("--dtype", default="fp32", help="fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="score the first pictures only")
    parser.add_argument("--json", type=Path, help="write the scores here as well")
    parser.add_argument("--sheet", type=Path, help="save six pictures at every rate here")
    options = parser.parse_args(arguments)
    codec = Codec.from_pretrained(options.weights, device=options.device, dtype=options.dtype)
    pictures = Pictures(options.data, codec.weights.config.image_size, options.limit, codec.device)
    lpips = LPIPS(options.lpips).to(codec.device) if options.lpips else None
    counts = rates(codec.model)
    found = score(codec.model, pictures, counts, lpips) | file_sizes(codec, pictures, counts)
    about = {"model": codec.weights.name, "fingerprint": codec.weights.fingerprint.hex(), "pictures": len(pictures),
             "skipped": pictures.skipped}
    text = json.dumps(about | {name: round(value, 4) for name, value in found.items()}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if options.sheet:
        save_picture(first_pictures(codec.model, pictures), options.sheet)


if __name__ == "__main__":
    main()
