"""One-stage training in pixel space: a usable tokenizer from pictures alone, within a given number of minutes.

    python -m training.single --data train/ --val val.tar --lpips lpips_squeeze.safetensors --minutes 30 --out runs/a
    python -m training.single ... --out runs/a --resume        # goes on after a stop or a kill

The published recipe needs a pretrained 2D tokenizer and two stages (TiTok section 3.2); here the loss is on pixels from
the first step: squared error, later LPIPS as well, plus the quantizer's two terms. Nested presets learn every rate at
once: each step draws a part of the batch from a prefix of its tokens (tail drop, One-D-Piece).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from titokcodec import weights
from titokcodec.models.config import PRESETS, TiTokConfig, preset
from titokcodec.models.tokenizer import TiTok
from training.codebook import CodebookCare
from training.data import Pictures
from training.engine import EMA, Clock, Log, Optimizers, cosine, load_state, save_state
from training.evaluate import first_pictures, rates, save_picture, score
from training.losses import LPIPS
from training.starts import start_in_2d

PIXELS, QUANTIZER, COMMITMENT = 10.0, 1.0, 0.25  # loss weights
SETTLING = 64  # steps before quantization, at least


@dataclass
class Step:
    """Everything one update needs besides the state that it changes."""

    model: TiTok
    encoder: Callable[..., Tensor]
    decoder: Callable[[Tensor], Tensor]
    lpips: LPIPS | None
    lpips_weight: float
    lpips_share: float
    autocast: Callable[[], AbstractContextManager]

    def losses(
        self, pixels: Tensor, lengths: list[int], perceptual: float, quantize: bool
    ) -> tuple[Tensor, dict, Tensor, Tensor]:
        """Loss, its parts, tokens and latents of one batch; ``perceptual`` in 0..1 fades LPIPS in."""
        with self.autocast():
            latents = self.encoder(pixels, self.model.latent_tokens)
            found = self.model.quantize(latents)
            codes = found.codes if quantize else self.model.quantize.place(latents.float())
            groups = [slice(i, None, len(lengths)) for i in range(len(lengths))]
            drawn = torch.cat(
                [self.decoder(codes[g, :k]).float() for g, k in zip(groups, lengths, strict=True)]
            )
        truth = torch.cat([pixels[g] for g in groups])
        parts = {"mse": F.mse_loss(drawn, truth), "codebook": found.codebook_loss, "commitment": found.commitment_loss}
        loss = PIXELS * parts["mse"]
        if quantize:
            loss = loss + QUANTIZER * (found.codebook_loss + COMMITMENT * found.commitment_loss)
        if self.lpips and perceptual:
            some = torch.randperm(len(truth), device=truth.device)[: max(1, round(len(truth) * self.lpips_share))]
            with self.autocast():
                parts["lpips"] = self.lpips(drawn[some].clamp(-0.5, 1.5), truth[some]).mean()
            loss = loss + perceptual * self.lpips_weight * parts["lpips"]
        return loss, parts, found.tokens, latents


def prefix_lengths(config: TiTokConfig, step: int) -> list[int]:
    """Tokens kept by each equal share of the batch: half of it keeps all, the rest takes turns on shorter prefixes.

    A fixed ladder, so that compiled graphs see few shapes.
    """
    if not config.nested:
        return [config.tokens]
    span = config.tokens - config.min_tokens
    middle = [config.min_tokens + span // 3, config.min_tokens + span * 2 // 3, config.min_tokens + span // 6]
    return [config.tokens, config.tokens, middle[step % 3], config.min_tokens]


class Run:
    """A run in progress: all that a checkpoint holds, and what it takes to make one update.

    ``started`` says that the codebook has taken its codes from data, at the end of the continuous phase.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options, self.device = options, torch.device(options.device)
        self.config = preset(options.preset)
        self.model = TiTok(self.config).to(device=self.device, memory_format=torch.channels_last)
        start_in_2d(self.model)
        self.ema = EMA(self.model, options.ema)
        self.optimizers = Optimizers(self.model, options.muon_rate, options.rate)
        self.care = CodebookCare(self.model.quantize)
        self.generator = torch.Generator(self.device)
        self.lpips = LPIPS(options.lpips).to(self.device) if options.lpips else None
        self.file = options.out / "state.pt"
        self.step, self.started, spent = 0, False, 0.0
        if options.resume and self.file.exists():
            spent = self.load()
        elif options.init:
            self.model.load_state_dict(weights.load_model(options.init).state_dict())
            self.ema.model.load_state_dict(self.model.state_dict())
            self.started = True
        self.generator.manual_seed(options.seed + self.step)
        compiled = torch.compile if options.compile else (lambda module: module)
        self.work = Step(
            self.model, compiled(self.model.encoder), compiled(self.model.decoder), self.lpips, options.lpips_weight,
            options.lpips_share, lambda: torch.autocast(self.device.type, torch.bfloat16, enabled=options.bf16),
        )
        self.clock = Clock(options.minutes, spent)

    def save(self) -> None:
        """Leave a checkpoint."""
        save_state(self.file, {
            "model": self.model.state_dict(), "ema": self.ema.model.state_dict(), "idle": self.care.idle,
            "optimizers": self.optimizers.state_dict(), "step": self.step, "started": self.started,
            "spent": self.clock.spent, "config": self.config.to_json(),
        })

    def load(self) -> float:
        """Go on from the checkpoint; returns the seconds that were spent on it."""
        state = load_state(self.file, self.device)
        if state["config"] != self.config.to_json():
            raise SystemExit(f"{self.file} is of another architecture than preset {self.options.preset}")
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.care.idle, self.step, self.started = state["idle"], state["step"], state["started"]
        return state["spent"]

    def settled(self, progress: float) -> bool:
        """Whether the latents may be quantized: before they say anything, the quantizer's losses would collapse them.
        So a run of few steps waits for some of them, though not beyond its middle."""
        share = self.options.continuous
        return progress >= share and (self.step >= SETTLING or progress >= max(share, 0.5))

    def update(self, pixels: Tensor) -> dict[str, Tensor]:
        """One step on a batch; returns what it measured, without waiting for the device."""
        progress = self.clock.progress
        perceptual = min(max((progress - self.options.lpips_start) / 0.1, 0.0), 1.0)
        if not self.started and self.settled(progress):
            with torch.no_grad():
                self.care.start_from(self.model.latents(pixels))
            self.started = True
        lengths = prefix_lengths(self.config, self.step)
        loss, parts, tokens, latents = self.work.losses(pixels, lengths, perceptual, self.started)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizers.step(cosine(progress))
        revived = self.care.step(tokens, latents, restart=self.started and progress < 0.8)
        self.ema.update(self.model, self.step)
        self.step += 1
        used = ((self.care.idle == 0).sum() - revived) / self.config.codes
        return {"loss": loss.detach(), "norm": norm, "revived": revived, "used": used, **parts}


def train(options: argparse.Namespace) -> TiTok:
    """Run or resume the stage that ``options`` describe; returns the averaged model.

    Raises:
        FloatingPointError: the loss ran away; the last checkpoint is from before.
    """
    side = preset(options.preset).image_size
    pictures = Pictures(options.data, side, options.limit, options.device)
    val = Pictures(options.val, side, options.val_limit, options.device) if options.val else None
    run, log = Run(options), Log(options.out)  # after the pictures: the clock starts here
    parameters = sum(p.numel() for p in run.model.parameters())
    log.write(run.step, pictures=len(pictures), skipped=pictures.skipped, parameters=parameters)

    clock, measured = run.clock, {}
    saved = reported = clock.spent
    while clock.progress < 1:
        measured = run.update(pictures.random_crops(options.batch, run.generator))
        if run.step % options.log_every == 0:
            check_finite(measured, run.step)
            log.write(run.step, minutes=clock.spent / 60, **measured)
        if clock.spent - saved > options.save_minutes * 60:
            check_finite(measured, run.step)
            run.save()
            saved = clock.spent
        if val and clock.spent - reported > options.val_minutes * 60:
            report(run.ema.model, val, run.lpips, log, run.step, options)
            reported = clock.spent
    check_finite(measured, run.step)
    run.save()
    if val:
        report(run.ema.model, val, run.lpips, log, run.step, options)
    log.close()
    return run.ema.model


def check_finite(measured: dict[str, Tensor], step: int) -> None:
    """Raise unless loss and gradients are finite. Asked before each log row and checkpoint only, as it waits for the
    device: once a weight is not a number no later loss is one, so nothing slips through."""
    for name in ("loss", "norm"):
        if name in measured and not measured[name].isfinite():
            raise FloatingPointError(
                f"{name} is {measured[name].item()} at step {step}: lower --rate and --muon-rate, then --resume from "
                "the last checkpoint or start again"
            )


def report(model: TiTok, val: Pictures, lpips: LPIPS | None, log: Log, step: int, options: argparse.Namespace) -> None:
    """Score the averaged model on held-out pictures, and leave a sheet of them beside the log."""
    log.write(step, **{f"val/{k}": v for k, v in score(model, val, rates(model), lpips).items()})
    sheet = first_pictures(model, val)
    log.picture("val", sheet, step)
    save_picture(sheet, options.out / "val.png")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    add("--out", type=Path, required=True, help="folder for checkpoints and logs")
    add("--minutes", type=float, required=True, help="the whole budget; schedules are fitted to it")
    add("--val", type=Path, nargs="+", help="held-out pictures, scored during the run")
    add("--lpips", type=Path, help="LPIPS-squeeze weights (safetensors); without them the loss is on pixels alone")
    add("--preset", choices=PRESETS, default="default", help="architecture (default: %(default)s)")
    add("--init", type=Path, help="start from these weights instead of at random")
    add("--resume", action="store_true", help="go on from OUT/state.pt if it is there")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    add("--batch", type=int, default=64, help="pictures a step (default: %(default)s)")
    add("--rate", type=float, default=1e-3, help="peak learning rate of AdamW (default: %(default)s)")
    add("--muon-rate", type=float, default=0.04, help="of Muon on the blocks' matrices; 0: AdamW for all")
    add("--ema", type=float, default=0.995, help="decay of the averaged weights (default: %(default)s)")
    add("--continuous", type=float, default=0.03, help="share of the run before codes are quantized; the codebook then "
        "starts from the latents (default: %(default)s)")
    add("--lpips-weight", type=float, default=0.5, help="weight of LPIPS against 10 x MSE (default: %(default)s)")
    add("--lpips-start", type=float, default=0.5, help="share of the run before LPIPS fades in (default: %(default)s)")
    add("--lpips-share", type=float, default=0.25, help="share of the batch that LPIPS sees (default: %(default)s)")
    add("--limit", type=int, help="use the first pictures only")
    add("--val-limit", type=int, default=128, help="held-out pictures to score (default: %(default)s)")
    add("--val-minutes", type=float, default=10.0, help="minutes between scores (default: %(default)s)")
    add("--save-minutes", type=float, default=5.0, help="minutes between checkpoints (default: %(default)s)")
    add("--log-every", type=int, default=20, help="steps between log rows (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast (default: on)")
    add("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available(),
        help="torch.compile (default: on CUDA)")
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    options = parse()
    train(options)


if __name__ == "__main__":
    main()
