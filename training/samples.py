"""Fifty thousand pictures by a generator in one .npz, as evaluations of generators take them, and their figures.

    python -m training.samples generator.safetensors --tokenizer l32.safetensors --settings generator_titok_l32
        --out samples.npz [--inception pt_inception.pth --reference imagenet256.npz]
    torchrun --nproc-per-node 8 -m training.samples ...        # the same pictures, on eight GPUs

Classes take turns. OUT is what ADM's evaluation suite reads (Dhariwal and Nichol 2021): ``arr_0``, (N, H, W, 3) uint8.
With --inception the Inception Score is printed, and with --reference the Frechet distance (gFID) to the set whose
``mu`` and ``sigma`` that file holds: those of the same network, as the suite's files of ImageNet have them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from titokcodec import Codec, Generator
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.errors import TitokError
from titokcodec.io.atomic import replacing
from titokcodec.metrics import Gaussian, Inception, frechet_distance, inception_score
from titokcodec.metrics.inception import FEATURES, reference_dtype
from titokcodec.sampling import PUBLISHED

from . import folder, parallel
from .argtypes import whole
from .batches import mix
from .compute import default_device
from .progress import Progress, batches

PART = ".npy"  # added to OUT's name while pictures are made


@torch.no_grad()
def write_pictures(
    generator: Generator, codec: Codec, out: np.ndarray, batch: int, seed: int, settings: dict[str, Any]
) -> None:
    """Fill (N, H, W, 3) uint8 with pictures, this rank its share of the batches.

    A batch depends on the seed and its number alone, not on how many ranks there are. Pixels are rounded down, as those
    of the published figures were.
    """
    starts = range(parallel.rank() * batch, len(out), parallel.count() * batch)
    with Progress("sampling", len(out) // parallel.count(), "pictures") as done:
        for first in starts:
            count = min(batch, len(out) - first)
            labels = [number % generator.config.classes for number in range(first, first + count)]
            tokens = generator.sample(labels, seed=mix(seed, first // batch), **settings)
            pixels = (codec.decode(tokens) * 255).byte().permute(0, 2, 3, 1)
            out[first : first + count] = pixels.cpu().numpy()
            done.add(count)


@torch.no_grad()
def figures(pictures: np.ndarray, inception: Inception, reference: Gaussian | None) -> dict[str, float]:
    """``inception_score`` and, with a reference, ``gfid`` of (N, H, W, 3) uint8 pictures."""
    weight = inception.fc.weight
    features = []
    for which in batches("scoring", len(pictures), 50):
        pixels = torch.from_numpy(pictures[which.numpy()]).to(weight).permute(0, 3, 1, 2) / 255
        features.append(inception.pooled(pixels).float().cpu())
    pooled = torch.cat(features)
    found = {"inception_score": inception_score(inception.classify(pooled.to(weight)))[0]}
    return found | ({"gfid": frechet_distance(pooled, reference)} if reference else {})


def read_reference(path: Path, width: int = FEATURES) -> Gaussian:
    """Mean and covariance of the features of a set, of ``width`` each. Raises ``TitokError`` unless the file holds
    them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = (np.asarray(file[name]) for name in ("mu", "sigma"))
        if mean.shape != (width,) or covariance.shape != (width, width):
            raise ValueError(f"they are {mean.shape} and {covariance.shape}, not of {width} features")
        if not (mean.dtype.kind == covariance.dtype.kind == "f") or not np.isfinite(mean.sum() + covariance.sum()):
            raise ValueError("they are not of finite real numbers")
        if np.diagonal(covariance).min() < 0 or not np.allclose(covariance, covariance.T, atol=1e-4):
            raise ValueError("sigma is no covariance")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        pickled = "they are Python objects" if "allow_pickle" in str(error) else ""
        reason = pickled or " ".join(str(error).split()) or type(error).__name__
        raise TitokError(f"{path} has no mu and sigma: {reason}; give a reference of ADM's suite") from None
    return Gaussian(torch.from_numpy(mean.astype(np.float64)), torch.from_numpy(covariance.astype(np.float64)))


@contextmanager
def shared_array(file: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Zeros, uint8, in a file that all ranks write into, and that is gone in the end."""
    first = parallel.rank() == 0
    try:
        if first:
            np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
        parallel.wait()
        yield np.lib.format.open_memmap(file, "r+")
    finally:
        if first:
            file.unlink(missing_ok=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options. Raises ``TitokError`` if they make no sense, or something is in the way."""
    parser = Parser(__doc__)
    parser.add_argument("generator", help="a generator's weight file, ours or published, or hub:org/name")
    parser.add_argument("--tokenizer", help="weights of its tokenizer (default: the bundled one)")
    parser.add_argument("--settings", choices=PUBLISHED, help="sampling as published (default: ours)")
    parser.add_argument("--count", type=whole(1), default=50_000, help="pictures (default: %(default)s)")
    parser.add_argument("--batch", type=whole(1), default=125, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write; as large again while it is made")
    parser.add_argument("--inception", type=Path, help="Inception weights: pytorch-fid's .pth, or as safetensors")
    parser.add_argument("--reference", type=Path, help="an .npz with mu and sigma of the features of real pictures")
    parser.add_argument("--device", default=default_device(), help="default: %(default)s")
    parser.add_argument("--dtype", default="fp32", help="fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    options = parser.parse_args(arguments)
    folder.check_file(options.out, options.force)
    if options.reference and not options.inception:
        raise UsageError("--reference needs the network: give its weights by --inception")
    if options.inception and options.count < 2:
        raise UsageError("a Frechet distance needs two pictures or more: give a larger --count")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(arguments)
    reference = read_reference(options.reference) if options.reference else None
    device = parallel.start(options.device)
    generator = Generator.from_pretrained(options.generator, device=device, dtype=options.dtype)
    codec = Codec.from_pretrained(options.tokenizer, device=device, dtype=options.dtype)
    generator.check_fits(codec.weights)
    dtype = reference_dtype(device)
    inception = Inception(options.inception, dtype) if options.inception else None  # before hours of sampling
    side, settings = codec.weights.config.image_size, PUBLISHED[options.settings] if options.settings else {}
    part = options.out.with_name(options.out.name + PART)
    with shared_array(part, (options.count, side, side, 3)) as pictures:
        write_pictures(generator, codec, pictures, options.batch, options.seed, settings)
        first = parallel.rank() == 0
        parallel.finish()  # what follows may take longer than ranks wait for one another
        if first:
            with replacing(options.out) as file:
                np.savez(file, arr_0=pictures)
            found = {"pictures": len(pictures)}
            if inception:
                found |= figures(pictures, inception.to(device), reference)
            print(json.dumps(found, indent=2))


if __name__ == "__main__":
    start(main)
