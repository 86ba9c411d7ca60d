"""A run in progress: its updates, its rehearsal, and all that a checkpoint holds."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from titokcodec.errors import TitokError, WeightsError

from . import folder, parallel
from .batches import Batches, mix
from .checkpoint import MISFITS, OLDER, load_state, save_state, take
from .codebook import CodebookRestart
from .compute import Runtime, to_device
from .hyper import values_of
from .optimizers import EMA, Optimizers
from .options import Options
from .progress import Progress, message
from .schedule import Clock, schedule
from .stage import Moment, Stage
from .streaming import Source

SETTLING = 64  # steps before quantization, at least

S = TypeVar("S", bound=Stage)


class Trainer(Generic[S]):
    """Everything that an update changes, and how it does.

    Attributes:
        stage: What is trained.
        ema: The averaged model, which is scored and shipped.
        step: Updates made.
        quantized: Whether latents are quantized: the continuous phase is over.
        progress: Share of the run that is over, 0 to 1; all ranks agree on it.
        stopped: The signal that a rank was sent, 0 for none.
    """

    def __init__(self, kind: type[S], options: Options) -> None:
        torch.manual_seed(options.seed)
        folder.check(options.out, options.resume, options.force, kind.results)
        resumed = options.resumes
        self.options = options
        self.runtime = Runtime.start(options.device, options.bf16, options.compile)
        self.stage = kind(options, self.runtime)
        self.model = to_device(self.stage.model, self.runtime.device)
        self.hyper = self.stage.hyper
        self.ema = EMA(self.model, self.hyper.optimizer.ema)
        self.optimizers = Optimizers(self.model, self.hyper.optimizer)
        self.restarts = CodebookRestart(self.stage.quantizer) if self.stage.quantizer else None
        self.adversary = self.stage.make_adversary()
        self.step, self.progress, self.stopped = 0, 0.0, 0
        self.quantized = self.stage.quantized
        spent = self.load() if resumed else 0.0
        self.stage.prepare_forward()
        steps = self.hyper.schedule.steps if options.counts_steps else None
        self.clock = Clock(options.minutes, steps, spent, options.deadline)

    # ---- updates ------------------------------------------------------------------------------------------------

    def advance(self, signal: int = 0) -> float:
        """Read the clock: the share of the run that is over, on which all ranks agree; 1 ends it.

        They agree too on whether the run is ``stopped``, by a ``signal`` that this rank, or another, was sent.
        """
        now = 1.0 if self.stage.done else self.clock.progress(self.step)
        self.progress, stopped = parallel.agreed(now, signal, self.runtime.device)
        self.stopped = int(stopped)
        return self.progress

    def batch(self, source: Source | Batches) -> Any:
        """This rank's part of the step's batch. The last part of a run has plain crops, as at test time."""
        how = self.stage.augmentation
        augmented = how is not None and self.progress < how.augment_until
        return source.batch(self.step, True) if augmented else source.batch(self.step)

    def update(self, batch: Any) -> dict[str, Tensor]:
        """One step on this rank's part of a batch; returns what it measured, without waiting for the device."""
        torch.manual_seed(mix(self.options.seed, self.step))  # a resumed run draws what a whole one would
        if not self.quantized and self.settled():
            self.start_codebook(batch)
        result = self.stage.losses(batch, Moment(self.step, self.progress, self.quantized))
        loss, parts = result.loss, result.parts
        rate = schedule(self.progress, self.step, self.hyper.schedule)
        judged = self.adversary and self.progress >= self.adversary.start
        if judged:
            parts["push"] = self.adversary.generator_loss(result.decoded)
            loss = loss + self.adversary.weight * parts["push"]
        loss.backward()
        trained = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.hyper.optimizer.clip)
        self.optimizers.step(rate)
        if judged:
            parts |= self.adversary.learn(result.target, result.decoded, self.progress)
        if self.restarts:
            torch.manual_seed(mix(self.options.seed, self.step, 1))  # drawn alike by all ranks, however many there are
            acting = self.quantized and self.progress < self.hyper.codebook.restarts
            parts["revived"] = self.restarts.step(result.tokens, result.latents, acting)
            parts["used"] = ((self.restarts.idle == 0).sum() - parts["revived"]) / len(self.restarts.idle)
        self.ema.update(self.model, self.step)
        self.step += 1
        return {"loss": loss.detach(), "norm": norm, **{name: value.detach() for name, value in parts.items()}}

    def settled(self) -> bool:
        """Whether the latents may be quantized: as long as they mean nothing, the quantizer's losses collapse them.

        So a run of few steps waits for ``SETTLING`` of them, though not beyond its middle.
        """
        share = self.stage.continuous
        return share == 0 or (self.progress >= share and (self.step >= SETTLING or self.progress >= max(share, 0.5)))

    def start_codebook(self, batch: Any) -> None:
        """End the continuous phase: codes start from the latents of a batch, unless they come with the weights or are
        to stay as they are."""
        if self.restarts and self.stage.start_codebook and self.hyper.codebook.restarts:
            with torch.no_grad(), self.runtime.autocast():
                self.restarts.start_from(parallel.gathered(self.stage.latents(batch).float()))
        self.quantized = True

    def rehearse(self, batch: Any) -> None:
        """Updates that are undone: they compile what the run will use, and load what it needs, before its clock starts.

        The first ones are those that the run begins with, in all lengths of prefixes. The last ones are from its end,
        when codes are quantized and all losses have joined, one for each shape that these compare. If memory does not
        suffice for these, that shows now.
        """
        before = copy.deepcopy(self.state())
        step, quantized, progress = self.step, self.quantized, self.progress
        late = list(self.stage.late_losses())
        with Progress("compiling", self.stage.rehearsal + len(late), "updates") as shown:
            for _ in range(self.stage.rehearsal):
                self.update(batch)
                shown.add()
            self.progress = 1.0
            for shape in late:
                with shape:
                    self.update(batch)
                shown.add()
        self.step, self.quantized, self.progress = step, quantized, progress
        self.restore(before)
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize(self.runtime.device)
        parallel.wait()

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that updates change, by name: states of modules and the like, not copies."""
        parts = {
            "model": self.model,
            "ema": self.ema.model,
            "optimizers": self.optimizers,
            "care": self.restarts,
            "adversary": self.adversary,
        }
        return {name: part.state_dict() for name, part in parts.items() if part}

    def restore(self, state: dict[str, Any]) -> None:
        """Take on what ``state`` gave."""
        take(self.model, state["model"])
        take(self.ema.model, state["ema"])
        self.optimizers.load_state_dict(state["optimizers"])
        for name, part in (("care", self.restarts), ("adversary", self.adversary)):
            if part and name in state:
                part.load_state_dict(state[name])

    def save(self) -> None:
        """Leave a checkpoint."""
        about = {
            "stage": self.stage.name,
            "config": json.dumps(asdict(self.stage.config)),
            "step": self.step,
            "started": self.quantized,
            "spent": self.clock.spent,
            "memory": self.stage.memory(),
            "hyper": json.dumps(values_of(self.hyper)),
        }
        save_state(self.options.state, self.state() | about, self.options.state.with_name(OLDER))
        self.stage.saved(self.ema.model)

    def load(self) -> float:
        """Go on from the checkpoint; returns the seconds that were spent on it."""
        # Not onto a GPU: AdamW reads its counts of steps, one a parameter, and would wait for each at every step.
        file, stage = self.options.state, self.stage
        state = load_state(file, torch.device("cpu"), "give another --out, or start anew with --force")
        if state.get("stage") != stage.name or (other := _differing(state.get("config"), stage.config)) is None:
            raise WeightsError(f"{file} is of another stage than {stage.name} {stage.architecture}")
        if other:
            raise WeightsError(
                f"{file} is of another architecture than {stage.name} {stage.architecture}, with other "
                f"{' and '.join(other)}: give the options that it was begun with, or another --out"
            )
        try:
            self.restore(state)
            self.step, self.quantized, spent = int(state["step"]), bool(state["started"]), float(state["spent"])
            stage.remember(state.get("memory", {}))
            self.report_changes(json.loads(state.get("hyper", "{}")))
        except TitokError:
            raise
        except MISFITS:  # pages of names, where one would do
            raise WeightsError(
                f"{file} was left by a run with other options, another --critic or --adversary-width for example, or "
                "with a critic by an earlier version: give the same options, or another --out (with --init)"
            ) from None
        return spent

    def report_changes(self, before: dict[str, float]) -> None:
        """Print which hyper-parameters are others than those of the run until now: it may be meant, or forgotten."""
        pairs = {name: (before.get(name, now), now) for name, now in values_of(self.hyper).items()}
        changed = [
            f"--{name.replace('_', '-')} {now:g}, not {old:g}"
            for name, (old, now) in pairs.items()
            if now != old and (name != "steps" or self.options.counts_steps)
        ]
        if changed:
            message(f"resumed with {', '.join(changed)}")


def _differing(text: Any, config: Any) -> list[str] | None:
    """Fields of an architecture that a checkpoint's text says otherwise; what an older version had no word for is as it
    is here. None if it is no such text."""
    mine = json.loads(json.dumps(asdict(config)))
    try:
        found = [name for name, value in {**mine, **json.loads(text)}.items() if mine.get(name) != value]
    except (TypeError, ValueError):
        return None
    return list(dict.fromkeys(name if name in mine else "fields" for name in found))
