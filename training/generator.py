"""Stage 3: a masked generator learns which tokens go together, and with which class (MaskGIT, Chang et al. 2022).

    python -m training.generator --data train/ --labels labels.tsv --minutes 20 --out runs/generator
    python -m training.generator --data classes/ ...           # a folder for each class
    python -m training.generator --tokenizer l32.safetensors --preset generator_titok_l32 ...

Pictures are named once by a frozen tokenizer, several times each; then a random share of tokens is masked, as many as
the schedule says, and the model guesses them. Classes are those of a table or, without one, of folders: see
``labels.py``. One picture in twenty, chosen by its key, is held out unless --val is given. The best weights by held-out
cross entropy lie in OUT/generator.safetensors at any moment, and a run that has not bettered them for --patience scores
ends early.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.cli.script import UsageError, start
from titokcodec.errors import TitokError
from titokcodec.models.maskgit import PRESETS, GeneratorConfig, make
from titokcodec.sampling import SCHEDULES, mask_fraction
from titokcodec.weights import generators, tokenizers

from . import hyper, parallel, progress, stage, tokens
from .data import Pictures, mix, share_of
from .labels import Labels, labels_of, read_table
from .stage import Outcome, Stage

DEFAULT = GeneratorConfig("bert", 32, classes=16, width=256, layers=8, heads=4, mlp=1024)
DRAWS = 4  # masks that each held-out picture is scored under


def draw_masks(shape: tuple[int, int], schedule: str, generator: torch.Generator) -> Tensor:
    """(B, K) bool, true where a token is masked: the schedule's share at a uniform ratio, at least one a row."""
    count, device = shape[1], generator.device
    share = mask_fraction(schedule, torch.rand(shape[0], generator=generator, device=device))
    masked = (share * count).round().clamp(min=1)
    ranks = torch.rand(shape, generator=generator, device=device).argsort(1).argsort(1)
    return ranks < masked[:, None]


def masked_loss(
    logits: Tensor, target: Tensor, masks: Tensor, smoothing: float, unmasked: float, mine: slice = slice(None)
) -> Tensor:
    """Mean cross entropy over (B, K) tokens, where what was not masked weighs ``unmasked``.

    Args:
        masks: (B', K) of the batch of all ranks, of which these are the rows ``mine``. Ranks mask unequal numbers of
            tokens; what each counts is measured by all, so that the mean over ranks is that over all tokens.
    """
    each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing, reduction="none")
    weights = torch.where(masks, 1.0, unmasked)
    return (each * weights[mine].flatten()).sum() / (weights.sum() * (len(target) / len(masks)))


class GeneratorTraining(Stage):
    """BERT or U-ViT over the tokens of a frozen tokenizer."""

    name = "generator"
    results = ("generator.safetensors",)
    presets: ClassVar = {**PRESETS, "default": DEFAULT}
    restarts = False

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--tokenizer", help="weight file whose tokens are learned (default: the bundled one)")
        either = parser.add_mutually_exclusive_group()
        either.add_argument(
            "--labels",
            type=Path,
            help="table of key and label (tsv, csv, json); a key is the path of "
            "a picture below --data or in its shard, without suffix (default: the folder a picture "
            "lies in is its class, if there are two or more)",
        )
        either.add_argument(
            "--no-labels", action="store_true", help="no picture has a class, whatever folders there are"
        )
        add("--tokens", type=int, help="tokens a picture (default: as the preset, or the fewest of a nested tokenizer)")
        add(
            "--variants",
            type=int,
            default=8,
            help="namings of each picture, of crops and flips; 0: anew for every batch (default: %(default)s)",
        )
        add("--schedule", choices=SCHEDULES, default="arccos", help="how many tokens are masked (default: %(default)s)")
        add(
            "--patience",
            type=int,
            default=5,
            help="scores without a better one after which a run ends (default: %(default)s)",
        )
        parser.set_defaults(val_limit=1024)
        add("--name", default="generator", help="what the generator is to be called (default: %(default)s)")

    def architecture(self) -> GeneratorConfig:
        """The preset, with the classes of the labels and the codes and tokens of the tokenizer."""
        options = self.options
        if options.stream:
            raise TitokError("a generator's pictures are named once and held: leave --stream out")
        # Complain now rather than after minutes of reading and naming.
        share_of(hyper.chosen(options, self.name, self.published()).batch, parallel.count())
        table = read_table(options.labels) if options.labels else {} if options.no_labels else None
        self.opened = tokenizers.read(options.tokenizer)
        self.tokenizer = tokenizers.build(self.opened).to(self.device)
        config, has = self.presets[options.preset], self.opened.config
        count = options.tokens or (has.min_tokens if options.preset == "default" else config.tokens)
        if not has.min_tokens <= count <= has.tokens:
            raise UsageError(
                f"tokenizer {self.opened.name} has {has.min_tokens} to {has.tokens} tokens, not {count}: "
                "give another --tokenizer or --tokens"
            )
        self.table, self.pictures = table, Pictures(options.data, has.image_size, options.limit, self.device)
        self.labels = self.labels_of(self.pictures)
        self.classes = self.labels.classes
        if options.labels and not self.classes:
            raise TitokError(
                f"{options.labels} has a label for none of the {len(self.pictures)} pictures: their keys "
                f"are like {self.pictures.keys[0]}, the table's like {next(iter(table), 'nothing')}"
            )
        self.best, self.waited = float("inf"), 0
        return replace(config, tokens=count, codes=has.codes, classes=len(self.classes) or config.classes)

    def published(self) -> bool:
        return self.options.preset in PRESETS

    def build(self) -> nn.Module:
        return make(self.config, self.hyper.dropout)

    def forward_pass(self) -> nn.Module:
        return self.compiled(self.model)

    # ---- the set ------------------------------------------------------------------------------------------------

    def batches(self) -> tokens.Drawn | tokens.Live:
        """(B, K) tokens and (B,) labels."""
        options, pictures = self.options, self.pictures
        labels = self.labels.numbers(self.classes).to(self.device)
        held = torch.tensor([not options.val and tokens.is_held_out(key) for key in pictures.keys])
        held = held.to(self.device)
        if held.all():
            held = torch.zeros_like(held)
        self.rest = pictures, held.nonzero().flatten(), labels
        order = self.hyper.batch, options.seed, parallel.rank(), parallel.count()
        if options.variants < 1:
            source = tokens.Live(self.name_pixels, pictures, (~held).nonzero().flatten(), labels, *order)
        else:
            named = tokens.Named(self.named(pictures, options.variants).to(self.device), labels)
            source = tokens.Drawn(named.part(~held), *order)
        source.skipped, source.damaged = pictures.skipped, pictures.damaged
        return source

    def labels_of(self, pictures: Pictures) -> Labels:
        """The labels of the table or of the folders, as the options say; tells how many there are."""
        found = labels_of(pictures, self.table)
        if found.classes or self.options.labels:
            progress.say(f"{self.options.labels or 'folders as classes'}: {found}")
        return found

    @torch.no_grad()
    def name_pixels(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, K) int64."""
        with self.autocast():
            return self.tokenizer.encode(pixels)[:, : self.config.tokens]

    def named(self, pictures: Pictures, variants: int) -> Tensor:
        """(variants, n, K) int32; what the first rank found lies in OUT for the others, and for a resumed run."""
        file = self.options.out / "tokens.pt"
        of = {
            "pictures": pictures.digest,
            "tokenizer": self.opened.fingerprint.hex(),
            "--tokens": self.config.tokens,
            "--variants": variants,
            "--seed": self.options.seed,
            "precision": str(self.dtype),
        }
        if parallel.rank() == 0:
            found, reason = tokens.kept(file, of)
            if found is None:
                if reason:
                    progress.say(f"the tokens in {file} are {reason}: they are made anew")
                tokens.keep(file, tokens.name(self.name_pixels, pictures, variants, self.options.seed), of)
        parallel.wait()
        return tokens.kept(file, of)[0]

    def held_out(self) -> tokens.Named | None:
        """Middles of the pictures that are held out, or of those of --val."""
        pictures, which, labels = self.rest
        if self.options.val and self.options.val_limit:
            pictures = Pictures(self.options.val, pictures.side, self.options.val_limit, self.device)
            labels = self.labels_of(pictures).numbers(self.classes).to(self.device)
            which = torch.arange(len(pictures), device=self.device)
        which = which[: self.options.val_limit]
        if not len(which):
            return None
        shares = progress.batches("naming tokens of held-out pictures", len(which), 32)
        parts = [self.name_pixels(pictures.centre_crops(which[share.to(self.device)])) for share in shares]
        return tokens.Named(torch.cat(parts)[None], labels[which])

    # ---- a step -------------------------------------------------------------------------------------------------

    def losses(self, batch: tuple[Tensor, Tensor]) -> Outcome:
        target, labels = batch
        rank, share = parallel.rank(), len(target)
        chance = torch.Generator(self.device).manual_seed(mix(self.options.seed, self.step, 2))
        whole = share * parallel.count()  # drawn alike by all ranks, each of which takes its part
        mine = slice(rank * share, (rank + 1) * share)
        masks = draw_masks((whole, self.config.tokens), self.options.schedule, chance)
        masked = masks[mine]
        dropped = (torch.rand(whole, generator=chance, device=self.device) < self.hyper.label_drop)[mine]
        with self.autocast():
            logits = self.forward(target.masked_fill(masked, self.config.mask_id), labels.masked_fill(dropped, -1))
        loss = masked_loss(logits.float(), target, masks, self.hyper.smoothing, self.hyper.unmasked, mine)
        with torch.no_grad():
            right = ((logits.argmax(-1) == target) & masked).sum() / masked.sum()
        return Outcome(loss, {"top1": right})

    @torch.no_grad()
    def score(self, val: tokens.Named) -> dict[str, float]:
        """Cross entropy in nats and top-1 of masked tokens, under the same masks at every score."""
        target, labels = val.tokens[0].long(), val.labels
        chance = torch.Generator(self.device).manual_seed(0)
        total, right, count = 0.0, 0, 0
        for draw in range(DRAWS):
            masks = draw_masks(tuple(target.shape), self.options.schedule, chance)
            for rows in progress.batches(f"scoring, draw {draw + 1} of {DRAWS}", len(target), 64):
                rows = rows.to(self.device)
                with self.autocast():
                    shown = target[rows].masked_fill(masks[rows], self.config.mask_id)
                    logits = self.ema.model(shown, labels[rows]).float()[masks[rows]]
                wanted = target[rows][masks[rows]]
                total += F.cross_entropy(logits, wanted, reduction="sum").item()
                right += (logits.argmax(-1) == wanted).sum().item()
                count += len(wanted)
        self.keep_best(total / count)
        return {"entropy": total / count, "top1": right / count, "best": self.best}

    def keep_best(self, entropy: float) -> None:
        """Write the averaged weights if they are the best so far; know when to stop."""
        self.waited = 0 if entropy < self.best else self.waited + 1
        self.done = self.waited >= self.options.patience
        if entropy < self.best:
            self.best = entropy
            self.export()

    def memory(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited}

    def remember(self, memory: dict[str, float]) -> None:
        self.best, self.waited = memory["best"], int(memory["waited"])

    def finish(self) -> None:
        """Without anything held out, the last weights are the ones to keep."""
        if self.best == float("inf"):
            self.export()

    def export(self) -> None:
        """Write the averaged weights as a generator file that fits the tokenizer alone."""
        generators.save(
            self.options.out / self.results[0],
            self.ema.model,
            self.options.name,
            tokenizer=self.opened.fingerprint,
            class_names=self.classes or None,
        )


def main(arguments: list[str] | None = None) -> nn.Module:
    """Command line; returns the averaged model."""
    return stage.main(GeneratorTraining, __doc__, arguments)


if __name__ == "__main__":
    start(main)
