"""The run: updates until the budget is used up, with logs, checkpoints and scores on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from titokcodec.cli.errors import reason
from titokcodec.errors import TitokError
from titokcodec.metrics import psnr

from . import folder, parallel, progress
from .batches import Batches, InMemory
from .data import Pictures
from .interrupt import Interrupted, Postponed
from .log import Log
from .options import Options, parse
from .progress import Updates
from .sheet import save_picture
from .stage import Stage
from .streaming import Source
from .trainer import Trainer

SEEN = 64  # training pictures that are scored, at most


class TooLate(TitokError):
    """The time is over before anything was learned."""


def train(kind: type[Stage], options: Options) -> Any:
    """Build what a stage trains and run it; returns the averaged model. Raises as ``run`` does."""
    return run(Trainer(kind, options))


def run(trainer: Trainer) -> Any:
    """Train until the budget is used up; returns the averaged model.

    Raises:
        TitokError: the loss is not finite; the last checkpoint is from before.
        TooLate: not one update was made; there is no checkpoint.
        Interrupted: Ctrl-C or SIGTERM ended it after a step; the checkpoint is from then.
    """
    stage, options, clock = trainer.stage, trainer.options, trainer.clock
    first = parallel.rank() == 0
    source = stage.batches(trainer.ema.model)
    val = stage.held_out() if first else None
    parallel.wait()  # until all ranks have read the checkpoint, or seen that there is none
    if first and options.force:
        folder.clear(options.out, stage.results)
    log = Log(options.out, trainer.step, quiet=not first)
    log_start(log, trainer, source)

    clock.go()
    batch = None
    if (options.compile if options.rehearse is None else options.rehearse) and trainer.advance() < 1:
        batch = trainer.batch(source)  # used again by the first update, as a stream has it only once
        trainer.rehearse(batch)
    clock.go()
    saved = scored = logged = clock.spent
    begun = counted = trainer.step
    measured: dict[str, Tensor] = {}
    shown = Updates(stage.name, stage.order.size, clock.steps)
    with Postponed() as signal:
        while trainer.advance(signal.number) < 1 and not trainer.stopped:
            shown.at(trainer.step, trainer.progress, measured.get("loss"))
            measured, batch = trainer.update(trainer.batch(source) if batch is None else batch), None

            if trainer.step % options.log_every == 0:
                measured = {name: parallel.mean(value.float()) for name, value in measured.items()}
                check_finite(measured, trainer.step)
                now = clock.spent
                pace = stage.order.size * (trainer.step - counted) / max(now - logged, 1e-9)
                log.write(trainer.step, minutes=now / 60, pictures_per_second=pace, **measured)
                logged, counted = now, trainer.step
            if first and clock.spent - saved > options.save_minutes * 60:
                check_finite(measured, trainer.step)
                trainer.save()
                saved = clock.spent
            if val is not None and clock.spent - scored > options.val_minutes * 60:
                report(trainer, val, log, source)
                scored = clock.spent
        check_finite(measured, trainer.step)
        if first and trainer.step:
            trainer.save()  # before anything else can fail
    shown.close(trainer.step, parallel.mean(measured["loss"].float()) if measured else None)
    source.close()

    if stopped := trainer.stopped or signal.number:
        log.close()
        left = f"after step {trainer.step}: --resume goes on from there" if trainer.step else "before the first update"
        raise Interrupted(stopped, f"interrupted {left}")
    if not trainer.step:
        log.close()
        raise TooLate("the time was over before the first update: give more --minutes or a later --deadline")
    if first:
        if trainer.step == begun:
            log.print(f"no update: the budget was used up after step {begun}; give more --minutes or --steps to go on")
        if val is not None:
            report(trainer, val, log, source)
        stage.finish(trainer.ema.model)
        if stage.memory():
            trainer.save()  # with the last scores
    log.close()
    parallel.finish()
    return trainer.ema.model


def log_start(log: Log, trainer: Trainer, source: Source | Batches) -> None:
    """The first row of a run's log, and what was wrong with its pictures."""
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    log.write(trainer.step, pictures=source.pictures or 0, skipped=source.skipped, trained_parameters=trained)
    for problem in source.damaged:
        log.print(f"warning: {problem}")


def check_finite(measured: dict[str, Tensor], step: int) -> None:
    """Raise unless loss and gradients are finite.

    Asked before each log row and checkpoint only, as it waits for the device: once a weight is not finite no later loss
    is, so nothing slips through.
    """
    for name in ("loss", "norm"):
        if name in measured and not measured[name].isfinite():
            raise TitokError(
                f"{name} is {measured[name].item()} at step {step}: lower --rate and --muon-rate, then --resume from "
                "the last checkpoint, or start anew with --force"
            )


def report(trainer: Trainer, val: Any, log: Log, source: Source | Batches) -> None:
    """Score the averaged model on held-out pictures, and leave a sheet of them beside the log.

    If the training pictures are in memory, some of these are scored as well: the gap between the two shows overfitting.
    """
    stage, model = trainer.stage, trainer.ema.model
    scores = {f"val/{name}": value for name, value in stage.score(model, val).items()}
    decoded = [name for name in scores if name.startswith("val/psnr")]
    if decoded and isinstance(source, InMemory):
        scores[decoded[-1].replace("val", "train", 1)] = training_psnr(model, source.store)
    log.write(trainer.step, **scores)
    sheet = stage.sheet(model, val)
    if sheet is not None:
        log.picture("val", sheet, trainer.step)
        save_picture(sheet, trainer.options.out / folder.SHEET)


@torch.no_grad()
def training_psnr(model: Any, pictures: Pictures) -> float:
    """Mean PSNR in dB of a tokenizer, at full length, over the centres of a fixed sample of the training pictures."""
    which = torch.linspace(0, len(pictures) - 1, min(SEEN, len(pictures))).long()
    found = []
    for part in which.split(16):
        pixels = pictures.centre_crops(part)
        found.append(psnr(model.decode(model.encode(pixels)), pixels))
    return torch.cat(found).mean().item()


def main(kind: type[Stage], about: str | None, arguments: list[str] | None = None) -> Any:
    """A stage's command: train as the command line says. Raises ``TitokError`` for all that may go wrong."""
    options = parse(kind, about, arguments)
    try:
        return train(kind, options)
    except OSError as error:
        left = "; the last checkpoint is whole, and --resume goes on from it" if options.state.exists() else ""
        where = "" if error.filename else f"{options.out}: "
        raise TitokError(f"{where}{reason(error)}{left}") from None
    finally:
        progress.clear()
