"""Stage 3: a generator learns which tokens go together, and with which class (MaskGIT, Chang et al. 2022).

    python -m training.generator --data train/ --labels labels.tsv --minutes 20 --out runs/generator
    python -m training.generator --data classes/ ...           # a folder for each class
    python -m training.generator --data shards/ --tokenizer l32.safetensors --preset generator_titok_l32 ...

Pictures are tokenized as they are read, by a frozen tokenizer in float32; then a random share of tokens is masked,
drawn from the mask schedule, and the model predicts them. Tokens of a nested tokenizer are learned coarse to fine; with
--preset autoregressive each is predicted from those before it. Classes are those of tables, of folders or of files
beside the pictures (``00000000.cls`` with the number of what ``00000000.jpg`` shows).

As published (Yu et al. 2024), it is the middle of every picture and its mirror image that are tokenized, nothing is
held out, and OUT/generator.safetensors has the averaged weights of the last checkpoint. A short run of ours tokenizes
several crops of each picture and holds one picture in twenty out, unless --val is given; the file always has the best
weights so far by held-out cross entropy, and a run that has not improved on them for --patience scores ends early.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from titokcodec.cli.script import UsageError, start
from titokcodec.errors import TitokError, WeightsError
from titokcodec.io.names import shown
from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.tokenizer import TiTok
from titokcodec.schedules import SCHEDULES
from titokcodec.weights import generators, tokenizers

from . import defaults, folder, loop, parallel, progress, token_files, token_sets
from .argtypes import whole
from .batches import mix, share_of
from .compute import Runtime
from .data import Pictures
from .dropout import Dropout
from .generator_starts import BUNDLED, OURS, begin, fitted, sampled_best, take_over, trained_before
from .hyper import GeneratorHyper
from .label_options import LabelSource, add_label_options
from .labels import Labels
from .objectives import Predictor, objective_of
from .options import Options
from .stage import Moment, Result, Stage
from .tokenizing import Cut, TokenizedPictures, merged, tokenize

SCHEDULE = "arccos"  # of masks, as published


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(Options):
    """The options of ``training.generator``."""

    preset: str
    tokenizer: str | None
    init: str | None
    labels: list[Path] | None
    no_labels: bool
    rename: list[Path] | None
    least_pictures: int
    tokens: int | None
    schedule: str | None
    token_file: Path | None
    name: str

    def check_causal(self) -> None:
        """Raise ``UsageError`` if something is given that masked generators alone have."""
        hyper = self.hyper.get
        given = {"schedule": self.schedule, "unmasked": hyper("unmasked"), "given-drop": hyper("given_drop")}
        for name, value in given.items():
            if value is not None:
                raise UsageError(f"--{name} is for masked generators: leave it out")


class GeneratorTraining(Stage[GeneratorOptions]):
    """A transformer over the tokens of a frozen tokenizer.

    Attributes:
        tokenizer: The frozen tokenizer, on the device, and ``weights``, the file that it came from.
        pictures: All pictures of --data, or what is left of them; ``trained`` and ``kept_out`` index those for either
            purpose.
        classes: Names of the labels, ``numbers`` each picture's among them.
        before: The generator that training starts from, if it is not to start at random.
        best: Lowest cross entropy of held-out tokens so far, and ``waited``, the scores since then.
    """

    name = "generator"
    options_type = GeneratorOptions
    defaults = defaults.GENERATOR
    presets: ClassVar = {**GENERATOR_PRESETS, **OURS}
    results = (generators.TRAINED,)
    val_limit = 1024
    hyper: GeneratorHyper
    config: GeneratorConfig

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--tokenizer", help="weight file whose tokens are learned (default: the bundled one)")
        add(
            "--init",
            nargs="?",
            const=BUNDLED,
            metavar="FILE",
            help="start from this generator instead of at random, without FILE from the bundled one, which is of "
            "--preset autoregressive; classes of the same name go on, others begin as pictures without one",
        )
        add_label_options(parser)
        add(
            "--tokens",
            type=whole(1),
            help="tokens a picture (default: as the preset or, of a nested tokenizer, as many as it has)",
        )
        add("--schedule", choices=SCHEDULES, help=f"how many tokens are masked (default: {SCHEDULE})")
        add(
            "--token-file",
            type=Path,
            metavar="FILE",
            help="where the pictures' tokens are kept, for several runs with the same pictures and options to share "
            "(default: OUT/tokens.pt)",
        )
        add("--name", default="generator", help="name of the generator (default: %(default)s)")

    def __init__(self, options: GeneratorOptions, runtime: Runtime) -> None:
        super().__init__(options, runtime)
        self.hyper = self.chosen(options.preset in GENERATOR_PRESETS)
        if self.presets[options.preset].causal:
            options.check_causal()
        if options.stream and not self.hyper.data.variants:
            raise UsageError("--variants 0 holds all pictures in memory: give another number, or leave --stream out")
        if options.token_file:
            folder.check_file(options.token_file, force=True)
        share_of(self.hyper.optimizer.batch, parallel.count())  # complain before minutes of reading, not after
        if self.hyper.data.hold_out == 1 and not options.val:
            raise UsageError("--hold-out 1 would hold out every picture: give 2 or more, or 0 for none")
        self.labels = LabelSource.read(options.labels, options.no_labels, options.rename, options.least_pictures)
        self.weights = tokenizers.read(options.tokenizer)
        progress.message(f"generator: reading {', '.join(map(str, options.data))}, for tokens of {self.weights.name}")
        self.tokenizer: TiTok = tokenizers.build(self.weights).to(runtime.device)
        base = self.presets[options.preset]
        self.config = fitted(base, self.weights, options.tokens)
        self.before = trained_before(options.init, self.config, self.weights) if options.init else None
        self.read_pictures()
        self.config = replace(self.config, classes=len(self.classes) or base.classes)
        share = self.dropout
        self.model = make(self.config, Dropout(share) if share else None)
        if isinstance(self.model, CodeTransformer):
            kept = isinstance(self.pictures, TokenizedPictures)
            seen = self.pictures.tokens[:, self.trained.cpu()] if kept else None
            begin(self.model, self.tokenizer, seen)
        if self.before:
            take_over(self.model, self.classes, *self.before)
        self.objective = objective_of(self.config, self.hyper.masking, runtime.autocast, options.schedule or SCHEDULE)
        self.rehearsal = max(self.rehearsal, self.objective.turns)
        self.best, self.waited = float("inf"), 0

    @property
    def dropout(self) -> float:
        """Share of activations that are dropped: in a U-ViT, which was published without, only if it is asked for."""
        given = "dropout" in self.options.hyper or self.config.architecture != "uvit"
        return self.hyper.masking.dropout if given else 0.0

    # ---- the set ------------------------------------------------------------------------------------------------

    def read_pictures(self) -> None:
        """Read the pictures with their labels, and choose those that are held out."""
        options, device, data = self.options, self.runtime.device, self.hyper.data
        side = self.weights.config.image_size
        live = not data.variants
        self.pictures = Pictures(options.data, side, options.limit, device) if live else self.tokenized()
        labels = self.labels.of_training(self.pictures)
        self.numbered, self.classes = labels.numbered, self.classes_of(labels)
        self.numbers = labels.numbers(self.classes).to(device)
        one_in = 0 if options.val else data.hold_out
        held = torch.tensor([token_sets.is_held_out(key, one_in) for key in self.pictures.keys], device=device)
        if held.all():
            held = torch.zeros_like(held)
        self.trained, self.kept_out = ((~held).nonzero().flatten(), held.nonzero().flatten())

    def classes_of(self, labels: Labels) -> tuple[str, ...]:
        """A name for each class; a published generator has its thousand though there be pictures of a few."""
        if labels.numbered and self.options.preset in GENERATOR_PRESETS:
            return labels.classes + tuple(map(str, range(len(labels.classes), self.config.classes)))
        return labels.classes

    def batches(self, averaged: Any) -> token_sets.TokenBatches | token_sets.LiveTokens:
        """(B, K) tokens and (B,) labels."""
        pictures, trained, numbers = self.pictures, self.trained, self.numbers
        source: token_sets.TokenBatches | token_sets.LiveTokens
        if isinstance(pictures, Pictures):
            shift = self.hyper.data.shift
            source = token_sets.LiveTokens(self.tokenize, pictures, trained, numbers, shift, *self.order)
        else:
            found = token_sets.TokenSet(pictures.tokens.to(self.runtime.device), numbers)
            source = token_sets.TokenBatches(found.part(trained), *self.order)
        source.skipped, source.damaged = pictures.skipped, pictures.damaged
        return source

    @torch.no_grad()
    def tokenize(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, K) int64, in float32 whatever the run computes in: bfloat16 takes other codes, of
        some tokenizers one in forty. As published but for TF32, which PyTorch leaves to convolutions by default."""
        return self.tokenizer.encode(pixels)[:, : self.config.tokens]

    def tokenized(self) -> TokenizedPictures:
        """All pictures as tokens, from OUT if they are there already."""
        options, data, order = self.options, self.hyper.data, self.order
        cut = Cut(self.weights.config.image_size, data.variants, data.shift, options.seed, data.zoom)
        of = {"tokenizer": self.weights.fingerprint.hex(), "--tokens": self.config.tokens, "precision": "float32"}
        device, limit = self.runtime.device, options.limit
        work = partial(tokenize, self.tokenize, options.data, cut, device, limit, order.rank, order.ranks)
        file, shared = options.token_file or options.out / "tokens.pt", options.token_file is not None
        found = token_files.once(file, options.data, limit, cut, of, work, options.resumes, shared)
        if found.tokens.min() < 0 or found.tokens.max() >= self.config.codes:
            raise TitokError(f"{file} has tokens that are no codes of {self.weights.name}: delete it")
        return found

    def held_out(self) -> token_sets.TokenSet | None:
        """Centres of the pictures that are held out, or of those of --val."""
        options, device, pictures = self.options, self.runtime.device, self.pictures
        if options.val and options.val_limit:
            found = tokenize(self.tokenize, options.val, Cut(self.weights.config.image_size), device, options.val_limit)
            found = merged([found], options.val)
            labels = self.labels.of(found, least=1).numbers(self.classes)
            return token_sets.TokenSet(found.tokens.to(device), labels.to(device))
        which = self.kept_out[: options.val_limit]
        if not len(which):
            return None
        if isinstance(pictures, TokenizedPictures):
            return token_sets.TokenSet(pictures.tokens.to(device)[:1, which], self.numbers[which])
        shares = progress.batches("tokenizing held-out pictures", len(which), 32)
        parts = [self.tokenize(pictures.centre_crops(which[share.to(device)])) for share in shares]
        return token_sets.TokenSet(torch.cat(parts)[None], self.numbers[which])

    # ---- a step -------------------------------------------------------------------------------------------------

    def forward_pass(self) -> nn.Module:
        return self.runtime.compiled(Predictor(self.model))

    def losses(self, batch: tuple[Tensor, Tensor], moment: Moment) -> Result:
        rng = torch.Generator(self.runtime.device).manual_seed(mix(self.options.seed, moment.step, 2))
        return Result(*self.objective.loss(self.forward, *batch, moment.step, rng))

    def score(self, model: Any, val: token_sets.TokenSet) -> dict[str, float]:
        """Cross entropy in nats and top-1 of held-out tokens, see ``Objective.score``."""
        scores = self.objective.score(model, val)
        self.keep_best(scores["entropy"], model)
        return {**scores, "best": self.best}

    def keep_best(self, entropy: float, model: Any) -> None:
        """Write the averaged weights if they are the best so far and the best are wanted; decide whether to stop."""
        patience, better = self.hyper.data.patience, entropy < self.best
        self.best, self.waited = min(entropy, self.best), 0 if better else self.waited + 1
        self.done = 0 < patience <= self.waited
        if better and patience:
            self.export(model)

    def memory(self) -> dict[str, Any]:
        about = {"numbered": self.numbered, "classes": list(self.classes)}
        return {"best": self.best, "waited": self.waited, **about}

    def remember(self, memory: dict[str, Any]) -> None:
        self.best, self.waited = memory["best"], int(memory["waited"])
        if other := set(memory.get("classes", self.classes)) - set(self.classes):
            raise WeightsError(
                f"this run has learned other classes, {shown(min(map(str, other)))} for example: give the tables that "
                "it was begun with, or another --out with --init"
            )
        if self.numbered and not memory.get("numbered") and list(self.classes) != sorted(self.classes):
            raise WeightsError(
                "this run was begun by an older version, which numbered classes in the order of their names and not by "
                "the numbers that they are: start anew with --force"
            )

    def saved(self, model: Any) -> None:
        """Where the last weights are wanted and not the best, the file has those of the checkpoint."""
        if not self.hyper.data.patience:
            self.export(model)

    def finish(self, model: Any) -> None:
        """Without anything held out, the last weights are the ones to keep."""
        if self.hyper.data.patience and self.best == float("inf"):
            self.export(model)

    def export(self, model: Any) -> None:
        """Write the averaged weights as a generator file that fits the tokenizer alone, to be sampled as that of
        ``--init``, or else as suits its kind."""
        card = self.before and self.before[0]
        settings, count = sampled_best(self.options.preset, self.config)
        if card and card.settings:
            settings, count = card.settings, card.default_tokens
        generators.save(
            self.options.out / self.results[0],
            model,
            self.options.name,
            tokenizer=self.weights.fingerprint,
            class_names=self.classes or None,
            settings=settings,
            default_tokens=count,
        )


def main(arguments: list[str] | None = None) -> nn.Module:
    """Command line; returns the averaged model."""
    return loop.main(GeneratorTraining, __doc__, arguments)


if __name__ == "__main__":
    start(main)
