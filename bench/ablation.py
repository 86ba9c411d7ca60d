"""How the sampler's settings change a generator's pictures, one setting at a time around the defaults.

    python -m bench.ablation --generator generator.safetensors --model tokenizer.safetensors --data held-out/
        --labels labels.tsv --lite0 FILE --out DIR [--samples N] [--device D]

Mask schedules, numbers of steps and guidance scales, as Yu et al. 2024 compare them, measured with EfficientNet-Lite0:
Frechet distance, precision and recall against real pictures, and how often it recognises the requested class
(``bench.agreement``).

For comparison there are real pictures, the same encoded and decoded with as many tokens as the generator makes (what a
better generator could reach), and chance. Half of the pictures of each class, but no more than there are samples of it,
are these; the others are the reference. With --held-out the reference is what ``training.generator`` holds out of
--data by key, and the real pictures come from the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from titokcodec.training.batches import mix
from titokcodec.training.data import Pictures
from titokcodec.training.label_tables import read_table
from titokcodec.training.labels import labels_of
from titokcodec.training.sheet import images
from titokcodec.training.token_sets import is_held_out
from torch import Tensor

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import Parser, start
from titokcodec.metrics.distributions import NEIGHBOURS, frechet_distance, precision_recall
from titokcodec.metrics.efficientnet import Lite0
from titokcodec.sampling import Settings
from titokcodec.schedules import SCHEDULES

from . import plots
from .agreement import agreement, class_masks, predict
from .records import write
from .sheet import labelled_sheet

SWEEPS: dict[str, tuple] = {
    "schedule": tuple(SCHEDULES),
    "steps": (1, 2, 4, 8, 16),
    "guidance_scale": (0.0, 1.0, 2.0, 4.5, 7.0),
}
BATCH = 32  # pictures generated together; other batch sizes give other pictures
COLUMNS, SIDE = 8, 128  # of the sheet: pictures a class, and their pixels

METRICS = {  # what the figure shows of each setting
    "fd": "Fréchet distance of Lite0 features (low is good)",
    "precision": "Precision: samples that look real",
    "recall": "Recall: real pictures that samples come near to",
    "class_agreement": "Lite0 recognises the requested class (of ours)",
    "top1_agreement": "Lite0 recognises the requested class (of 1000)",
}


def settings_of(base: Settings) -> list[tuple[str, Settings]]:
    """The varied factor and the settings: the default ones first, then every other one once."""
    changes = [(factor, value) for factor, values in SWEEPS.items() for value in values]
    others = [(factor, replace(base, **{factor: value})) for factor, value in changes]
    return [("default", base), *((factor, settings) for factor, settings in others if settings != base)]


# ---- pictures -----------------------------------------------------------------------------------------------------


def generated(generator: Generator, codec: Codec, settings: Settings, labels: Tensor, seed: int) -> Iterator[Tensor]:
    """Batches of (B, 3, 256, 256) in [0, 1] for (N,) labels; all settings get the same noise from the same seed."""
    for number, part in enumerate(labels.split(BATCH)):
        yield codec.decode(generator.sample(part, seed=mix(seed, number), **asdict(settings)))


def centre_crops(pictures: Pictures, which: Tensor) -> Iterator[Tensor]:
    """The same of real pictures, whose numbers are given."""
    return (pictures.centre_crops(part) for part in which.split(BATCH))


def split(labels: Tensor, classes: int, held_out: Tensor | None, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the real pictures to compare and of the reference's, without overlap, in the order of classes.

    Args:
        labels: (n,) class numbers, -1 for none.
        held_out: (n,) bool, pictures for the reference alone, all others to compare; None to halve each class.
        each: Pictures of a class to compare, at most.

    Raises:
        TitokError: there are too few.
    """
    rng = torch.Generator().manual_seed(seed)
    compared, reference = [], []
    for number in range(classes):
        own = (labels == number).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=rng)]
        free = own[: len(own) // 2] if held_out is None else own[~held_out[own]]
        compared.append(free[:each])
        reference.append(own[len(compared[-1]) :] if held_out is None else own[held_out[own]])
    sets = torch.cat(compared), torch.cat(reference)
    if not all(map(len, compared)) or min(map(len, sets)) <= NEIGHBOURS:
        raise TitokError(f"too few labelled pictures: give two of each class or more, and {2 * NEIGHBOURS + 2} in all")
    return sets


def class_sheet(batches: Iterable[Tensor], names: Sequence[str], columns: int) -> Image.Image:
    """A row a class from batches of pictures whose labels go round: 0, 1, .., C-1, 0, 1, .."""
    count = len(names) * columns
    needed = torch.cat(list(islice(batches, -(-count // BATCH))))[:count]
    small = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in images(needed)]
    return labelled_sheet([(name.replace("-", "\n"), small[row :: len(names)]) for row, name in enumerate(names)])


# ---- the whole ----------------------------------------------------------------------------------------------------


def ablate(
    generator: Generator,
    codec: Codec,
    lite0: Lite0,
    pictures: Pictures,
    table: dict[str, str] | None,
    base: Settings,
    samples: int,
    seed: int = 0,
    held_out: bool = False,
) -> dict[str, Any]:
    """The contents of ``ablation.json``.

    Raises:
        TitokError: too few samples or labelled pictures.
    """
    names = generator.class_names or ()
    masks, each = class_masks(names), samples // max(len(names), 1)
    if not names:
        raise TitokError(f"{generator.name} has no names of classes")
    if each * len(names) <= NEIGHBOURS:
        raise TitokError(
            f"{samples} samples are too few for {len(names)} named classes: give one of each or more, and "
            f"{NEIGHBOURS + 1} in all"
        )
    known = labels_of(pictures, table).numbers(names)
    held = torch.tensor([is_held_out(key) for key in pictures.keys]) if held_out else None
    yardstick, reference = split(known, len(names), held, each, seed)
    labels = torch.arange(len(names) * each) % len(names)
    # Sets compare at equal numbers only: where there are few real pictures, as few samples are taken.
    compared = torch.arange(len(labels)) // len(names) < torch.bincount(known[yardstick])[labels]
    target = predict(lite0, centre_crops(pictures, reference), known[reference]).features

    def scores(batches: Iterable[Tensor], labels: Tensor, which: Tensor | slice = slice(None)) -> dict[str, float]:
        """All metrics of a set, of which only the pictures ``which`` are set against the reference."""
        found = predict(lite0, batches, labels)
        features = found.features[which]
        precision, recall = precision_recall(target, features)
        metrics = {"fd": frechet_distance(features, target), "precision": precision, "recall": recall}
        return {name: round(value, 4) for name, value in (metrics | agreement(found, masks)).items()}

    rows = []
    for factor, settings in settings_of(base):
        found = scores(generated(generator, codec, settings, labels, seed), labels, compared)
        rows.append({"factor": factor, **asdict(settings), **found})
        print(json.dumps(rows[-1]), flush=True)
    tokens = generator.config.tokens
    real = scores(centre_crops(pictures, yardstick), known[yardstick])
    decoded = (codec.decode(codec.encode(pixels, tokens)) for pixels in centre_crops(pictures, yardstick))
    yardsticks = {
        "real": real,
        "tokenizer": scores(decoded, known[yardstick]),
        "chance": {"class_agreement": round(1 / len(names), 4), "top1_agreement": real["top1_by_chance"]},
    }
    protocol = {
        "generator": generator.name,
        "generator_fingerprint": generator.fingerprint.hex(),
        "tokenizer": codec.weights.name,
        "tokenizer_fingerprint": codec.weights.fingerprint.hex(),
        "tokens": tokens,
        "classes": list(names),
        "samples": len(labels),
        "compared": int(compared.sum()),
        "seed": seed,
        "batch": BATCH,
        "device": codec.device.type,
        "neighbours": NEIGHBOURS,
        "pictures": len(pictures),
        "skipped": pictures.skipped,
        "labelled": int((known >= 0).sum()),
        "held_out_by_name": held_out,
        "reference": len(reference),
        "yardstick": len(yardstick),
    }
    return {"protocol": protocol, "settings": rows, "yardsticks": yardsticks}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    base = Settings()
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--generator", required=True, help="generator file with class names")
    add("--model", help="weight file of its tokenizer (default: the bundled one)")
    add("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards that it did not see")
    add("--labels", type=Path, help="table of key and label (default: a picture's folder is its class)")
    add("--lite0", type=Path, required=True, help="EfficientNet-Lite0 weights (safetensors)")
    add("--out", type=Path, required=True, help="folder for ablation.json, ablation.svg and samples.png")
    add("--samples", type=int, default=800, help="of each setting, as many of each class (default: %(default)s)")
    add("--temperature", type=float, default=base.temperature, help="of all settings (default: %(default)s)")
    trained = "--data is what it was trained on: take as the reference what was held out by key"
    add("--held-out", action="store_true", help=trained)
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--device", default="auto", help="default: %(default)s")
    options = parser.parse_args(arguments)
    base = replace(base, temperature=options.temperature)
    codec = Codec.from_pretrained(options.model, device=options.device, dtype="fp32")
    generator = Generator.from_pretrained(options.generator, device=options.device, dtype="fp32")
    generator.check_fits(codec.weights)
    lite0 = Lite0(options.lite0).to(codec.device)
    table = read_table(options.labels) if options.labels else None
    pictures = Pictures(options.data, codec.weights.config.image_size, device=codec.device)
    for problem in pictures.damaged:
        print(f"warning: {problem}", file=sys.stderr)
    found = ablate(generator, codec, lite0, pictures, table, base, options.samples, options.seed, options.held_out)
    protocol, names = found["protocol"], generator.class_names
    if protocol["compared"] < protocol["samples"]:
        print(
            f"warning: there are {protocol['yardstick']} real pictures, so FD, precision and recall are of "
            f"{protocol['compared']} of the samples",
            file=sys.stderr,
        )
    labels = torch.arange(protocol["samples"]) % len(names)
    again = generated(generator, codec, base, labels, options.seed)  # the first batches once more, the same pictures
    sheet = class_sheet(again, names, min(COLUMNS, len(labels) // len(names)))
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "ablation.json", found)
    plots.save(plots.sweeps(found, METRICS, SWEEPS), options.out / "ablation.svg")
    sheet.save(options.out / "samples.png")


if __name__ == "__main__":
    start(main)
