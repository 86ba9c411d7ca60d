"""A training run: what all stages have in common, from the command line to the last checkpoint.

A stage subclasses ``Stage``: it names itself, builds its model and says what the loss of a batch is. One loop then runs
it against the clock, on one process or many, and leaves checkpoints, logs and scores.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from titokcodec.cli.script import UsageError
from titokcodec.cli.tool import reason
from titokcodec.errors import TitokError, WeightsError
from titokcodec.metrics import LPIPS, psnr
from titokcodec.models.config import PRESETS, preset
from titokcodec.runtime.devices import choose_dtype

from . import command, folder, hyper, parallel, progress
from .adversarial import Adversary
from .checkpoint import MISFITS, OLDER, STATE, load_state, save_state, take
from .codebook import CodebookCare
from .data import PLAIN, Held, Pictures, Views, mix
from .engine import EMA, Clock, Log, Optimizers, schedule
from .interrupt import Interrupted, Postponed
from .losses import PixelLoss
from .progress import Progress, Updates
from .sheet import save_picture
from .streaming import Stream, open_source

SETTLING = 64  # steps before quantization, at least
SEEN = 64  # training pictures that are scored, at most
SHAPES = 64  # shapes that one function may be compiled for: every prefix of every tower, with gradients and without


@dataclass
class Outcome:
    """What a stage made of one batch: the loss and its parts; if it trains a codebook, the tokens taken and the latents
    they stand for; and, if it draws pixels, what was drawn and what should have been."""

    loss: Tensor
    parts: dict[str, Tensor]
    tokens: Tensor | None = None
    latents: Tensor | None = None
    drawn: Tensor | None = None
    truth: Tensor | None = None


class TooLate(TitokError):
    """The time is over before anything was learned."""


class Stage:
    """A run in progress: all that a checkpoint holds, and what it takes to make one update.

    ``started`` says that the codebook has taken its codes from data, at the end of the continuous phase; ``done``, that
    there is no point in going on; ``stopped``, which signal a rank was sent, 0 for none; ``resumed``, that it goes on
    from a checkpoint. ``dtype`` is bfloat16 where the options ask for it or, if they say nothing, where the device
    multiplies it natively.
    """

    name = ""
    presets: dict = PRESETS
    preset_option = "--preset"
    results: tuple[str, ...] = ()  # files that it leaves in its folder besides checkpoints and logs
    restarts = True  # whether codes that nobody uses start again from data
    warmups = 2  # updates of a rehearsal: as many as it takes until all lengths of prefixes were drawn

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Options of this stage alone."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        folder.check(options.out, options.resume, options.force, self.results)
        self.file = options.out / STATE
        self.resumed = options.resume and self.file.exists()
        self.options, self.device = options, parallel.start(options.device)
        self.dtype = choose_dtype(self.device, {None: "auto", True: "bf16", False: "fp32"}[options.bf16])
        self.config = self.architecture()
        self.hyper = hyper.chosen(options, self.name, self.published())
        command.check_critic(options, self.hyper.adversary)
        self.step, self.started, self.done, self.progress, self.stopped, spent = 0, False, False, 0.0, 0, 0.0
        pixel_loss = PixelLoss(self.hyper, options.lpips, options.lite0, self.dtype, self.compiled)
        self.pixel_loss = pixel_loss.to(self.device)
        self.lpips = self.metric()
        self.model = self.build().to(device=self.device, memory_format=torch.channels_last)
        self.ema = EMA(self.model, self.hyper.ema)
        self.optimizers = Optimizers(self.model, self.hyper)
        self.care = CodebookCare(self.model.quantize) if self.restarts else None
        self.adversary = self.opponent() if self.hyper.adversary else None
        if self.resumed:
            spent = self.load()
        self.forward = parallel.wrapped(self.forward_pass())
        timed = options.minutes or options.deadline is not None
        steps = options.hyper_steps or (None if timed else self.hyper.steps)
        self.clock = Clock(options.minutes, steps, spent, options.deadline)

    # ---- what a stage says of itself ---------------------------------------------------------------------------

    def architecture(self) -> object:
        """The configuration of the model, a frozen dataclass."""
        return preset(self.options.preset)

    def published(self) -> bool:
        """Whether the published hyper-parameters are the ones to start from."""
        return self.options.preset.startswith(("titok_", "published"))

    def build(self) -> nn.Module:
        """The model as training starts with it; with a ``quantize`` module if ``restarts``."""
        raise NotImplementedError

    def forward_pass(self) -> nn.Module:
        """A module whose one call runs all trained parameters, so that gradients can be averaged over ranks."""
        raise NotImplementedError

    def batches(self) -> Held | Stream:
        """Where batches come from, this rank's part of each: (B, 3, side, side) pixels in [0, 1]."""
        options, side = self.options, getattr(self.config, "image_size", self.options.side)
        return open_source(
            options.data,
            self.hyper.batch,
            side,
            options.seed,
            parallel.rank(),
            parallel.count(),
            self.device,
            options.stream,
            options.workers,
            options.limit,
            self.views(),
            options.compile,
        )

    def held_out(self) -> Pictures | None:
        """What ``score`` is given, if there is anything; asked on the first rank, after ``batches``."""
        options, side = self.options, getattr(self.config, "image_size", self.options.side)
        wanted = options.val and options.val_limit
        return Pictures(options.val, side, options.val_limit, self.device) if wanted else None

    def losses(self, batch: Tensor) -> Outcome:
        """The loss of a batch."""
        raise NotImplementedError

    def score(self, val: object) -> dict[str, float]:
        """What the averaged model reaches on held-out pictures."""
        raise NotImplementedError

    def sheet(self, val: object) -> Tensor | None:
        """A (3, H, W) picture of what it draws, if it does."""
        return None

    def memory(self) -> dict[str, float]:
        """Numbers that a checkpoint keeps besides; ``remember`` gets them back."""
        return {}

    def remember(self, memory: dict[str, float]) -> None:
        """What ``memory`` gave, on a resume."""

    def finish(self) -> None:
        """Called once the budget is used up."""

    # ---- what they share ---------------------------------------------------------------------------------------

    def autocast(self) -> AbstractContextManager:
        """The context for passes of what is trained: bfloat16 if the run's ``dtype`` is that."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    def metric(self) -> LPIPS | None:
        """LPIPS for scores, in float32 whatever the losses compute in."""
        if not self.options.lpips:
            return None
        return LPIPS(self.options.lpips).to(device=self.device, memory_format=torch.channels_last)

    def opponent(self) -> Adversary:
        """The critic that --critic asks for, or the one that fits the recipe and the networks at hand."""
        options = self.options
        ours = (options.recipe or ("published" if self.published() else "short")) == "short"
        critic = options.critic or ("features" if ours and options.lite0 else "patches")
        try:
            lite0 = self.pixel_loss.classifier if critic == "features" else None
            return Adversary(self.hyper, self.device, self.autocast, lite0)
        except ValueError as error:
            raise UsageError(f"--adversary-width: {error}") from None

    def compiled(self, module: nn.Module | Callable) -> object:
        """The module, or function, as ``torch.compile`` makes it, if the options ask for it.

        Of a transformer the blocks are compiled, in place, and what draws pixels after them: blocks are alike and need
        one compilation for all, where a whole tower takes as many times longer as it has blocks.
        """
        if not self.options.compile:
            return module
        for limit in ("recompile_limit", "cache_size_limit"):  # the latter before torch 2.7
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, SHAPES)
        if not hasattr(module, "transformer"):
            return torch.compile(module, dynamic=False)
        for part in (*module.transformer, *([module.ffn] if hasattr(module, "ffn") else [])):
            part.compile(dynamic=False)
        return module

    def save(self) -> None:
        """Leave a checkpoint."""
        save_state(
            self.file,
            self.state()
            | {
                "stage": self.name,
                "config": json.dumps(asdict(self.config)),
                "step": self.step,
                "started": self.started,
                "spent": self.clock.spent,
                "memory": self.memory(),
            },
            self.file.with_name(OLDER),
        )

    def load(self) -> float:
        """Go on from the checkpoint; returns the seconds that were spent on it."""
        # Not onto a GPU: AdamW reads its counts of steps, one a parameter, and would wait for every one at every step.
        state = load_state(self.file, torch.device("cpu"), "give another --out, or start anew with --force")
        if (state.get("stage"), state.get("config")) != (self.name, json.dumps(asdict(self.config))):
            preset = getattr(self.options, "preset", "of --init")
            raise WeightsError(f"{self.file} is of another architecture or stage than {self.name} {preset}")
        try:
            self.restore(state)
            self.step, self.started, spent = int(state["step"]), bool(state["started"]), float(state["spent"])
            self.remember(state.get("memory", {}))
        except MISFITS:  # pages of names, where one would do
            raise WeightsError(
                f"{self.file} was left by a run with other options, another --critic or --adversary-width say: give "
                "the same ones, or another --out"
            ) from None
        return spent

    def settled(self) -> bool:
        """Whether the latents may be quantized: before they say anything, the quantizer's losses would collapse them.
        So a run of few steps waits for some of them, though not beyond its middle."""
        share = self.hyper.continuous
        return share == 0 or (self.progress >= share and (self.step >= SETTLING or self.progress >= max(share, 0.5)))

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, K, d) what the codebook may start from."""
        return self.model.latents(pixels)

    def look(self, signal: int = 0) -> float:
        """Read the clock: the share of the run that is over, on which all ranks agree; 1 ends it. They agree too on
        whether it is ``stopped``, by a ``signal`` that this rank, or another, was sent."""
        now = 1.0 if self.done else self.clock.progress(self.step)
        self.progress, stopped = parallel.agreed(now, signal, self.device)
        self.stopped = int(stopped)
        return self.progress

    def views(self) -> Views:
        """What random views of the training pictures are like, if the run begins with them."""
        hyper = self.hyper
        return Views(hyper.zoom, hyper.stretch, hyper.colour) if hyper.augment_until else PLAIN

    def batch(self, source: Held | Stream) -> object:
        """This rank's part of the step's batch. The last part of a run is for plain crops, as they will be met."""
        augment = self.progress < self.hyper.augment_until
        return source.batch(self.step, True) if augment else source.batch(self.step)

    def state(self) -> dict[str, object]:
        """All that updates change, by name: states of modules and the like, not copies."""
        parts = {
            "model": self.model,
            "ema": self.ema.model,
            "optimizers": self.optimizers,
            "care": self.care,
            "adversary": self.adversary,
        }
        return {name: part.state_dict() for name, part in parts.items() if part}

    def restore(self, state: dict[str, object]) -> None:
        """Take on what ``state`` gave."""
        take(self.model, state["model"])
        take(self.ema.model, state["ema"])
        self.optimizers.load_state_dict(state["optimizers"])
        for part in ("care", "adversary"):
            if part in state and getattr(self, part):
                getattr(self, part).load_state_dict(state[part])

    def rehearse(self, batch: object) -> None:
        """Updates that are undone: they compile what the run will use, and load what it needs, before its clock starts.

        The first ones are those that the run begins with, in all lengths of prefixes. The last ones are from its end,
        when codes are quantized and all losses have joined: one for each scale of what LPIPS compares. If memory does
        not suffice for these, that shows now.
        """
        before, loss = copy.deepcopy(self.state()), self.pixel_loss
        step, started, progress, scales = self.step, self.started, self.progress, loss.scales
        later = scales if loss.lpips and self.hyper.lpips_weight else scales[:1]
        with Progress("compiling", self.warmups + len(later), "updates") as shown:
            for _ in range(self.warmups):
                self.update(batch)
                shown.add()
            self.progress = 1.0
            for scale in later:
                loss.scales = (scale,)
                self.update(batch)
                shown.add()
        self.step, self.started, self.progress, loss.scales = step, started, progress, scales
        self.restore(before)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        parallel.wait()

    def update(self, batch: Tensor) -> dict[str, Tensor]:
        """One step on this rank's part of a batch; returns what it measured, without waiting for the device."""
        torch.manual_seed(mix(self.options.seed, self.step))  # a resumed run draws what a whole one would
        if not self.started and self.settled():
            if self.care and not self.options.init:
                with torch.no_grad(), self.autocast():
                    self.care.start_from(parallel.gathered(self.latents(batch).float()))
            self.started = True
        found = self.losses(batch)
        loss, parts = found.loss, found.parts
        rate = schedule(self.progress, self.step, self.hyper)
        if self.adversary and self.progress >= self.hyper.adversary_start:
            parts |= self.adversary.learn(found.truth, found.drawn.detach(), rate)
            parts["push"] = self.adversary.push(found.drawn)
            loss = loss + self.hyper.adversary * parts["push"]
        loss.backward()
        trained = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.hyper.clip)
        self.optimizers.step(rate)
        if self.care:
            torch.manual_seed(mix(self.options.seed, self.step, 1))  # drawn alike by all ranks, however many there are
            acting = self.started and self.progress < 0.8
            parts["revived"] = self.care.step(found.tokens, found.latents, acting)
            parts["used"] = ((self.care.idle == 0).sum() - parts["revived"]) / len(self.care.idle)
        self.ema.update(self.model, self.step)
        self.step += 1
        return {"loss": loss.detach(), "norm": norm, **{name: value.detach() for name, value in parts.items()}}


def run(stage: Stage) -> nn.Module:
    """Train until the budget is used up; returns the averaged model.

    Raises:
        TitokError: the loss ran away; the last checkpoint is from before.
        TooLate: not one update was made; there is no checkpoint.
        Interrupted: Ctrl-C or SIGTERM ended it after a step; the checkpoint is from then.
    """
    options, first = stage.options, parallel.rank() == 0
    source = stage.batches()
    val = stage.held_out() if first else None
    parallel.wait()  # until all ranks have read the checkpoint, or seen that there is none
    if first and options.force:
        folder.clear(options.out, stage.results)
    log = Log(options.out, stage.step, quiet=not first)
    parameters = sum(p.numel() for p in stage.model.parameters() if p.requires_grad)
    log.write(stage.step, pictures=source.pictures or 0, skipped=source.skipped, trained_parameters=parameters)
    for problem in source.damaged:
        log.say(f"warning: {problem}")

    clock, measured, batch = stage.clock, {}, None
    clock.go()
    if (options.compile if options.rehearse is None else options.rehearse) and stage.look() < 1:
        batch = stage.batch(source)  # used again by the first update, as a stream has it only once
        stage.rehearse(batch)
    clock.go()
    saved = reported = logged = clock.spent
    counted, shown = stage.step, Updates(stage.name, stage.hyper.batch, clock.steps)
    with Postponed() as signal:
        while stage.look(signal.number) < 1 and not stage.stopped:
            shown.at(stage.step, stage.progress, measured.get("loss"))
            measured, batch = stage.update(stage.batch(source) if batch is None else batch), None
            if stage.step % options.log_every == 0:
                measured = {name: parallel.mean(value.float()) for name, value in measured.items()}
                check_finite(measured, stage.step)
                now = clock.spent
                pace = stage.hyper.batch * (stage.step - counted) / max(now - logged, 1e-9)
                log.write(stage.step, minutes=now / 60, pictures_per_second=pace, **measured)
                logged, counted = now, stage.step
            if first and clock.spent - saved > options.save_minutes * 60:
                check_finite(measured, stage.step)
                stage.save()
                saved = clock.spent
            if val is not None and clock.spent - reported > options.val_minutes * 60:
                report(stage, val, log, source)
                reported = clock.spent
        check_finite(measured, stage.step)
        if first and stage.step:
            stage.save()  # before anything else can fail
    shown.close(stage.step, measured.get("loss"))
    source.close()
    if stopped := stage.stopped or signal.number:
        log.close()
        left = f"after step {stage.step}: --resume goes on from there" if stage.step else "before the first update"
        raise Interrupted(stopped, f"interrupted {left}")
    if not stage.step:
        log.close()
        raise TooLate("the time was over before the first update: give more --minutes or a later --deadline")
    if first:
        if val is not None:
            report(stage, val, log, source)
        stage.finish()
        if stage.memory():
            stage.save()  # with what the last score told
    log.close()
    parallel.finish()
    return stage.ema.model


def check_finite(measured: dict[str, Tensor], step: int) -> None:
    """Raise unless loss and gradients are finite. Asked before each log row and checkpoint only, as it waits for the
    device: once a weight is not a number no later loss is one, so nothing slips through."""
    for name in ("loss", "norm"):
        if name in measured and not measured[name].isfinite():
            raise TitokError(
                f"{name} is {measured[name].item()} at step {step}: lower --rate and --muon-rate, then --resume from "
                "the last checkpoint, or start anew with --force"
            )


def report(stage: Stage, val: object, log: Log, source: object = None) -> None:
    """Score the averaged model on held-out pictures, and leave a sheet of them beside the log. If the training pictures
    are held too, some of these are scored besides: a gap between the two says how much was learned by heart."""
    scores = {f"val/{name}": value for name, value in stage.score(val).items()}
    drawn = [name for name in scores if name.startswith("val/psnr")]
    if drawn and isinstance(source, Held):
        scores[drawn[-1].replace("val", "train", 1)] = familiar(stage.ema.model, source.store)
    log.write(stage.step, **scores)
    sheet = stage.sheet(val)
    if sheet is not None:
        log.picture("val", sheet, stage.step)
        save_picture(sheet, stage.options.out / folder.SHEET)


@torch.no_grad()
def familiar(model: nn.Module, pictures: Pictures) -> float:
    """Mean PSNR in dB of a tokenizer, at full length, over a fixed sample of the pictures: their middles, plain."""
    which = torch.linspace(0, len(pictures) - 1, min(SEEN, len(pictures))).long()
    found = []
    for part in which.split(16):
        pixels = pictures.centre_crops(part)
        found.append(psnr(model.decode(model.encode(pixels)), pixels))
    return torch.cat(found).mean().item()


def main(stage: type[Stage], about: str, arguments: list[str] | None = None) -> nn.Module:
    """A stage's command: train as the command line says. Raises ``TitokError`` for all that may go wrong."""
    given = command.parse(stage, about, arguments)
    try:
        return run(stage(given))
    except OSError as error:
        whole = "; the last checkpoint is whole, and --resume goes on from it"
        left = whole if (given.out / STATE).exists() else ""
        where = "" if error.filename else f"{given.out}: "
        raise TitokError(f"{where}{reason(error)}{left}") from None
    finally:
        progress.clear()
