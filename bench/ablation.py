"""What the sampler's choices do to a generator's pictures, one at a time around its default settings.

    python -m bench.ablation --generator generator.safetensors --model tokenizer.safetensors --data held-out/
        --labels labels.tsv --lite0 FILE --out DIR [--samples N] [--device D]

Mask schedules, numbers of steps and guidance scales, as Yu et al. 2024 compare them, by EfficientNet-Lite0: Frechet
distance, precision and recall against real pictures, and how often it sees the class that was asked for. That is told
in two ways. ``top1_agreement``: its likeliest class of 1000 is one of those that ``IMAGENET`` lists. Blurred pictures
nearly always fail that, so there is ``class_agreement`` besides, the likeliest of the generator's own classes: Lite0's
probabilities are summed over each class's list, divided by the mean sum over the set, and the largest counts. Without
the division, long lists (117 breeds of dogs) and what any blur looks like would win whatever was asked. The mean is
of the set itself, all classes weighed alike: each set holds every class, so none should be likelier on the whole, and
every set is judged for itself. Labels at random agree once in as many times as there are classes; in the first way as
often as ``top1_by_chance`` says of each set, which for the yardstick chance is the real pictures'.

Yardsticks are real pictures, the same after a trip through the tokenizer with as many tokens as the generator makes
(what a better generator could reach), and chance. Half of the pictures of each class, but no more than there are
samples of it, are the yardstick, the others the reference. With --held-out the reference is what
``training.generator`` keeps out of --data by key, and the yardstick comes from the rest.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from titokcodec.training.batches import mix
from titokcodec.training.data import Pictures
from titokcodec.training.labels import labels_of, read_table
from titokcodec.training.sheet import images
from titokcodec.training.tokens import is_held_out
from torch import Tensor

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import Parser, start
from titokcodec.metrics.distributions import NEIGHBOURS, frechet_distance, precision_recall
from titokcodec.metrics.lite0 import Lite0
from titokcodec.sampling import SCHEDULES, Settings

from .plots import Panel, svg
from .sheet import labelled_sheet

SWEEPS: dict[str, tuple] = {
    "schedule": tuple(SCHEDULES),
    "steps": (1, 2, 4, 8, 16),
    "guidance_scale": (0.0, 1.0, 2.0, 4.5, 7.0),
}
BATCH = 32  # pictures drawn together; other batches draw other pictures
COLUMNS, SIDE = 8, 128  # of the grid: pictures a class, and their pixels

METRICS = {  # what is drawn of each setting
    "fd": "Fréchet distance of Lite0 features (low is good)",
    "precision": "Precision: samples that look real",
    "recall": "Recall: real pictures that samples come near to",
    "class_agreement": "Lite0 sees the class asked for, first of ours",
    "top1_agreement": "Lite0 sees the class asked for, first of 1000",
}
# Lite0's classes, those of ImageNet-1k, that each of ours may be taken for, chosen by name. No two lists share one.
IMAGENET: dict[str, tuple[int, ...]] = {
    "cassette-player": (482,),
    "cat": (*range(281, 286),),
    "chain-saw": (491,),
    "church": (497,),
    "clothing": (  # garments, shoes, hats, ties, and stuff that garments are made of
        399,
        400,
        411,
        445,
        457,
        459,
        474,
        501,
        502,
        514,
        515,
        568,
        578,
        601,
        608,
        610,
        614,
        617,
        630,
        638,
        639,
        652,
        655,
        658,
        689,
        697,
        735,
        770,
        774,
        775,
        806,
        808,
        824,
        834,
        841,
        842,
        869,
        885,
        887,
        906,
        911,
    ),
    "dog": (*range(151, 217), *range(218, 269)),  # breeds, but for the one that is a class of its own
    "english-springer": (217,),
    "food": (415, 504, 567, 659, 809, 909, *range(923, 936), *range(959, 970)),  # dishes, drinks, and their vessels
    "french-horn": (566,),
    "garbage-truck": (569,),
    "gas-pump": (571,),
    "golf-ball": (574,),
    "grocery": (478, 509, 582, 692, 728, 737, 790, 791, 860, 886, 898, *range(936, 958), 987, 998),  # greens, shops
    "house": (  # fronts, rooms, and furniture that fills a room
        421,
        425,
        431,
        435,
        449,
        453,
        493,
        495,
        516,
        520,
        526,
        532,
        534,
        548,
        556,
        559,
        564,
        580,
        598,
        619,
        648,
        651,
        660,
        669,
        698,
        706,
        721,
        729,
        736,
        750,
        760,
        762,
        765,
        789,
        794,
        799,
        827,
        831,
        846,
        851,
        853,
        857,
        858,
        861,
        876,
        894,
        896,
        897,
        904,
        905,
    ),
    "parachute": (701,),
    "tench": (0,),
}


@dataclass(frozen=True)
class Seen:
    """What Lite0 makes of a set of pictures, on the CPU.

    Attributes:
        features: (n, 1280) float32.
        chances: (n, 1000) float64, the probabilities of its classes.
        labels: (n,) int64, the class that each picture should show.
    """

    features: Tensor
    chances: Tensor
    labels: Tensor


def plan(base: Settings) -> list[tuple[str, Settings]]:
    """What is varied, and the settings: the default ones first, then each other one once."""
    changes = [(factor, value) for factor, values in SWEEPS.items() for value in values]
    others = [(factor, replace(base, **{factor: value})) for factor, value in changes]
    return [("default", base), *((factor, settings) for factor, settings in others if settings != base)]


# ---- pictures -----------------------------------------------------------------------------------------------------


def asked(classes: int, each: int) -> Tensor:
    """(classes * each,) labels that go round: 0, 1, .., C-1, 0, 1, .."""
    return torch.arange(classes * each) % classes


def drawn(generator: Generator, codec: Codec, settings: Settings, labels: Tensor, seed: int) -> Iterator[Tensor]:
    """Batches of (B, 3, 256, 256) in [0, 1] for (N,) labels; the same seed gives all settings the same noise."""
    for number, part in enumerate(labels.split(BATCH)):
        yield codec.decode(generator.sample(part, seed=mix(seed, number), **asdict(settings)))


def originals(pictures: Pictures, which: Tensor) -> Iterator[Tensor]:
    """The same of real pictures: middles of those whose numbers are given."""
    return (pictures.centre_crops(part) for part in which.split(BATCH))


def shared_out(labels: Tensor, classes: int, held_out: Tensor | None, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the yardstick's pictures and of the reference's, which share none, in the order of classes.

    Args:
        labels: (n,) class numbers, -1 for none.
        held_out: (n,) bool, pictures for the reference alone, all others for the yardstick; None to halve each class.
        each: Pictures of a class in the yardstick, at most.

    Raises:
        TitokError: there are too few.
    """
    chance = torch.Generator().manual_seed(seed)
    yardstick, reference = [], []
    for number in range(classes):
        own = (labels == number).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=chance)]
        free = own[: len(own) // 2] if held_out is None else own[~held_out[own]]
        yardstick.append(free[:each])
        reference.append(own[len(yardstick[-1]) :] if held_out is None else own[held_out[own]])
    sets = torch.cat(yardstick), torch.cat(reference)
    if not all(map(len, yardstick)) or min(map(len, sets)) <= NEIGHBOURS:
        raise TitokError(f"too few labelled pictures: give two of each class or more, and {2 * NEIGHBOURS + 2} in all")
    return sets


def grid(batches: Iterable[Tensor], names: Sequence[str], columns: int) -> Image.Image:
    """A row a class from batches of pictures whose labels go round."""
    count = len(names) * columns
    needed = list(islice(batches, -(-count // BATCH)))
    small = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in images(torch.cat(needed)[:count])]
    return labelled_sheet([(name.replace("-", "\n"), small[row :: len(names)]) for row, name in enumerate(names)])


# ---- scores -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def look(lite0: Lite0, batches: Iterable[Tensor], labels: Tensor) -> Seen:
    """Show pictures to Lite0, with pixels rounded to 8 bits."""
    features = [lite0.pooled((pixels * 255).round() / 255) for pixels in batches]
    chances = [lite0.classify(part).double().softmax(1).cpu() for part in features]
    return Seen(torch.cat(features).cpu(), torch.cat(chances), labels)


def lists_of(names: Sequence[str]) -> Tensor:
    """(C, 1000) bool: which of Lite0's classes each of ours may be taken for."""
    unknown = [name for name in names if name not in IMAGENET]
    if unknown:
        raise TitokError(f"no ImageNet classes are known for {', '.join(unknown)}: list them in bench/ablation.py")
    lists = torch.zeros(len(names), 1000, dtype=torch.bool)
    for row, name in zip(lists, names, strict=True):
        row[list(IMAGENET[name])] = True
    return lists


def agreement(seen: Seen, lists: Tensor) -> dict[str, float]:
    """How often Lite0 sees the class it should, means over classes; see above.

    Returns:
        ``top1_agreement``, ``top1_by_chance``, what that is expected to be if labels are at random, and
        ``class_agreement``.
    """
    labels, classes = seen.labels, len(lists)
    weights = (1 / torch.bincount(labels, minlength=classes).clamp_min(1).double())[labels]
    weights = weights / weights.sum()  # every class counts alike, however many pictures it has
    top = seen.chances.argmax(1)
    summed = seen.chances @ lists.double().T
    likeliest = (summed / (weights @ summed).clamp_min(1e-30)).argmax(1)
    return {
        "top1_agreement": float(weights @ lists[labels, top].double()),
        "top1_by_chance": float(weights @ lists[:, top].double().mean(0)),
        "class_agreement": float(weights @ (likeliest == labels).double()),
    }


def scores(seen: Seen, compared: Tensor | slice, reference: Tensor, lists: Tensor) -> dict[str, float]:
    """All metrics of a set; only the pictures ``compared`` are set against the (m, 1280) reference features."""
    features = seen.features[compared]
    precision, recall = precision_recall(reference, features)
    found = {"fd": frechet_distance(features, reference), "precision": precision, "recall": recall}
    return {name: round(value, 4) for name, value in (found | agreement(seen, lists)).items()}


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
    """Everything that ``ablation.json`` holds.

    Raises:
        TitokError: too few samples or labelled pictures.
    """
    names = generator.class_names or ()
    lists, each = lists_of(names), samples // max(len(names), 1)
    if each * len(names) <= NEIGHBOURS:
        raise TitokError(
            f"{samples} samples are too few for {len(names)} named classes: give one of each or more, and "
            f"{NEIGHBOURS + 1} in all"
            if names
            else f"{generator.name} has no names of classes"
        )
    known = labels_of(pictures, table).numbers(names)
    held = torch.tensor([is_held_out(key) for key in pictures.keys]) if held_out else None
    yardstick, reference = shared_out(known, len(names), held, each, seed)
    labels = asked(len(names), each)
    # Sets compare at equal numbers only: where there are few real pictures, as few samples are taken.
    compared = torch.arange(len(labels)) // len(names) < torch.bincount(known[yardstick])[labels]

    def judged(batches: Iterable[Tensor], wanted: Tensor, which: Tensor | slice = slice(None)) -> dict[str, float]:
        return scores(look(lite0, batches, wanted), which, target, lists)

    target = look(lite0, originals(pictures, reference), known[reference]).features
    settings = []
    for factor, chosen in plan(base):
        found = judged(drawn(generator, codec, chosen, labels, seed), labels, compared)
        settings.append({"factor": factor, **asdict(chosen), **found})
        print(json.dumps(settings[-1]), flush=True)
    tokens = generator.config.tokens
    trip = (codec.decode(codec.encode(pixels, tokens)) for pixels in originals(pictures, yardstick))
    real = judged(originals(pictures, yardstick), known[yardstick])
    chance = {"class_agreement": round(1 / len(names), 4), "top1_agreement": real["top1_by_chance"]}
    about = {
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
    marks = {"real": real, "tokenizer": judged(trip, known[yardstick]), "chance": chance}
    return {"protocol": about, "settings": settings, "yardsticks": marks}


def panels(found: dict[str, Any]) -> list[list[Panel]]:
    """A row a metric, a column a factor, with the yardsticks as levels."""
    return [[_panel(found, factor, metric) for factor in SWEEPS] for metric in METRICS]


def _panel(found: dict[str, Any], factor: str, metric: str) -> Panel:
    rows = [row for row in found["settings"] if row["factor"] in (factor, "default")]
    rows.sort(key=lambda row: SWEEPS[factor].index(row[factor]))
    values = [row[factor] for row in rows]
    return Panel(
        METRICS[metric],
        factor.replace("_", " "),
        values if factor == "guidance_scale" else range(len(rows)),
        [value if isinstance(value, str) else f"{value:g}" for value in values],
        {"samples": [row[metric] for row in rows]},
        {name: mark[metric] for name, mark in found["yardsticks"].items() if metric in mark},
        factor == "schedule",
    )


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
    add(
        "--held-out",
        action="store_true",
        help="--data is what it was trained on: take as the reference what was held out by key",
    )
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
    names, protocol = generator.class_names, found["protocol"]
    if protocol["compared"] < protocol["samples"]:
        print(
            f"warning: there are {protocol['yardstick']} real pictures, so FD, precision and recall are of "
            f"{protocol['compared']} of the samples",
            file=sys.stderr,
        )
    labels = asked(len(names), protocol["samples"] // len(names))
    again = drawn(generator, codec, base, labels, options.seed)  # the first batches once more, which are the same
    sheet = grid(again, names, min(COLUMNS, len(labels) // len(names)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ablation.json").write_text(json.dumps(found, indent=2) + "\n")
    (options.out / "ablation.svg").write_text(svg(panels(found)), encoding="utf-8")
    sheet.save(options.out / "samples.png")


if __name__ == "__main__":
    start(main)
