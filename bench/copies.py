"""Whether a generator's pictures are copies of those that it was trained on.

    python -m bench.copies --generator generator.safetensors --data pictures/ --out DIR

Each sample is compared with every training picture and its mirror image, at 32 x 32 pixels. Plain distances say little:
empty skies are near to many pictures. So the distance to the nearest one is divided by the mean distance to the 50
nearest (Carlini et al. 2023, "Extracting training data from diffusion models", section 5.1): the ratio of a copy is far
below 1. Real pictures that training held out by key, decoded from as many tokens, show what is usual. One number is the
answer: the share of samples whose ratio is below the 1st percentile of theirs, 1 % where nothing is copied.

Copies that are zoomed or moved much are not found so. The pictures with the lowest ratios are shown beside the nearest
training picture, in DIR/nearest.png, for your own eyes: they are under the terms of --data.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from titokcodec.training import progress
from titokcodec.training.argtypes import whole
from titokcodec.training.data import Pictures
from titokcodec.training.sheet import images
from titokcodec.training.token_sets import is_held_out
from torch import Tensor

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import Parser, start

from .ablation import BATCH, generated, through
from .intervals import wilson
from .labelled import Chosen, Listing
from .records import write
from .sheet import labelled_sheet
from .sweeps import Row

SIDE = 32  # pixels that pictures are compared at
NEAREST = 50  # training pictures whose mean distance is the measure
USUAL = 0.01  # the percentile of held-out pictures below which a sample counts as near
SHOWN, CELL = 8, 128  # of the sheet: pictures in a row, and their pixels


class Nearest(NamedTuple):
    """Of each of n pictures: ratio of distances, and which training picture is the nearest."""

    ratio: Tensor
    which: Tensor


def nearest(pictures: Tensor, training: Tensor) -> Nearest:
    """Compare (n, 3, SIDE, SIDE) pictures with (m, 3, SIDE, SIDE) ones and their mirror images.

    Raises:
        TitokError: there are fewer than ``NEAREST`` to compare with.
    """
    if len(training) < NEAREST:
        raise TitokError(f"{len(training)} training pictures are too few to compare with: give {NEAREST} or more")
    others = training.flatten(1)
    ratios, places = [], []
    for part in pictures.split(256):
        apart = torch.minimum(torch.cdist(part.flatten(1), others), torch.cdist(part.flip(3).flatten(1), others))
        found = apart.topk(NEAREST, largest=False)
        ratios.append(found.values[:, 0] / found.values.mean(1).clamp_min(1e-9))
        places.append(found.indices[:, 0])
    return Nearest(torch.cat(ratios), torch.cat(places))


def shrunk(phase: str, count: int, batches: Iterable[Tensor]) -> tuple[Tensor, list[Image.Image]]:
    """Batches of (B, 3, H, W) as (n, 3, SIDE, SIDE), and as pictures for the sheet."""
    small, shown = [], []
    with progress.Progress(phase, count) as done:
        for pixels in batches:
            small.append(F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1).cpu())
            shown += [picture.resize((CELL, CELL), Image.Resampling.BICUBIC) for picture in images(pixels.cpu())]
            done.add(len(pixels))
    return torch.cat(small), shown


def summary(samples: Nearest, held_out: Nearest) -> dict[str, object]:
    """``share`` of the samples below the usual ratio, with its 95 % interval (Wilson), and medians of both."""
    usual = float(held_out.ratio.quantile(USUAL))
    share = float((samples.ratio < usual).double().mean())
    return {
        "share": round(share, 4),
        "interval": [round(end, 4) for end in wilson(share, len(samples.ratio))],
        "share_of_held_out": USUAL,
        "ratio": round(usual, 4),
        "median_ratio": round(float(samples.ratio.median()), 4),
        "median_ratio_of_held_out": round(float(held_out.ratio.median()), 4),
    }


def sheet(
    sets: dict[str, tuple[Nearest, list[Image.Image]]], training: Pictures, listing: Listing, options: Namespace
) -> Image.Image:
    """For each set the pictures of the lowest ratios, each above the training picture that is nearest."""
    rows: list[tuple[str, list[Image.Image | None]]] = []
    for name, (found, shown) in sets.items():
        lowest = found.ratio.argsort()[:SHOWN]
        numbers = {key: number for number, key in enumerate(listing.keys)}
        which = torch.tensor([numbers[training.keys[place]] for place in found.which[lowest].tolist()])
        real = Chosen(listing, which, options.data, CELL, "cpu").crops(which, SHOWN)
        rows.append((name, [shown[number] for number in lowest.tolist()]))
        rows.append(("nearest of\ntraining", [picture for batch in real for picture in images(batch)]))
    return labelled_sheet(rows)


def parse(arguments: list[str] | None) -> Namespace:
    """The command line's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--generator", required=True, help="generator file")
    add("--model", help="weight file of its tokenizer (default: the bundled one)")
    add("--data", type=Path, nargs="+", required=True, help="what it was trained on: folders, pictures or tar shards")
    add("--out", type=Path, required=True, help="folder for copies.json and nearest.png")
    add("--tokens", type=whole(1), help="tokens of a picture (default: as the generator's file says)")
    add("--samples", type=whole(1), default=512, help="and as many held-out pictures, if there are (default: 512)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--device", default="auto", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    codec = Codec.from_pretrained(options.model, device=options.device, dtype="fp32")
    generator = Generator.from_pretrained(options.generator, device=options.device, dtype="fp32")
    generator.check_fits(codec.weights)
    tokens = generator.count_of(options.tokens)
    listing = Listing.of(options.data)
    held = torch.tensor([is_held_out(key) for key in listing.keys])
    unseen = held.nonzero().flatten()
    unseen = unseen[torch.randperm(len(unseen), generator=torch.Generator().manual_seed(options.seed))]
    unseen = unseen[: options.samples]
    if not len(unseen):
        raise TitokError("--data holds no picture that training held out by its key: give all that it was trained on")
    progress.message(f"{len(listing.keys) - int(held.sum()):,} training pictures are read")
    seen = {key for key, own in zip(listing.keys, held.tolist(), strict=True) if not own}
    training = Pictures(options.data, SIDE, only=seen)
    small = torch.cat([training.centre_crops(part) for part in torch.arange(len(training)).split(1024)])
    labels = torch.arange(options.samples) % generator.config.classes
    made = generated(generator, codec, Row("default", tokens, generator.settings), labels, options.seed)
    real = Chosen(listing, unseen, options.data, codec.weights.config.image_size, codec.device).crops(unseen, BATCH)
    looked = {
        "samples": shrunk("samples", len(labels), made),
        "held out": shrunk(f"held-out pictures through {tokens} tokens", len(unseen), through(codec, real, tokens)),
    }
    found = {name: (nearest(pictures, small), shown) for name, (pictures, shown) in looked.items()}
    about = {"generator": generator.name, "tokens": tokens, "samples": len(labels), "held_out": len(unseen)}
    result = {**about, "training": len(training), **summary(found["samples"][0], found["held out"][0])}
    write(options.out / "copies.json", result)
    sheet(found, training, listing, options).save(options.out / "nearest.png")
    print(json.dumps(result))


if __name__ == "__main__":
    start(main)
