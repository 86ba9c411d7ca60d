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

from titokcodec.models.config import PRESETS, TiTokConfig, preset
from titokcodec.models.tokenizer import TiTok
from training.codebook import CodebookCare
from training.data import Pictures
from training.engine import EMA, Clock, Log, Optimizers, cosine, load_state, save_state
from training.evaluate import contact_sheet, rates, score
from training.losses import LPIPS
from training.starts import start_in_2d

PIXELS, QUANTIZER, COMMITMENT = 10.0, 1.0, 0.25  # loss weights


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


def train(options: argparse.Namespace) -> TiTok:
    """Run or resume the stage that ``options`` describe; returns the averaged model."""
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    config = preset(options.preset)
    model = TiTok(config).to(device=device, memory_format=torch.channels_last)
    start_in_2d(model)
    ema = EMA(model, options.ema)
    optimizers = Optimizers(model, options.muon_rate, options.rate)
    care = CodebookCare(model.quantize)
    generator = torch.Generator(device).manual_seed(options.seed)
    pictures = Pictures(options.data, config.image_size, options.limit, device)
    val = Pictures(options.val, config.image_size, options.val_limit, device) if options.val else None
    log = Log(options.out)
    log.write(0, pictures=len(pictures), skipped=pictures.skipped, parameters=sum(p.numel() for p in model.parameters()))

    step, spent, state_file = 0, 0.0, options.out / "state.pt"
    if options.resume and state_file.exists():
        state = load_state(state_file, device)
        model.load_state_dict(state["model"])
        ema.model.load_state_dict(state["ema"])
        optimizers.load_state_dict(state["optimizers"])
        care.idle, step, spent = state["idle"], state["step"], state["spent"]
        generator.manual_seed(options.seed + step)
    elif options.init:
        from titokcodec.weights import load_model

        model.load_state_dict(load_model(options.init).state_dict())
        ema.model.load_state_dict(model.state_dict())
    lpips = LPIPS(options.lpips).to(device) if options.lpips else None
    compiled = torch.compile if options.compile else (lambda module: module)
    work = Step(
        model, compiled(model.encoder), compiled(model.decoder), lpips, options.lpips_weight, options.lpips_share,
        lambda: torch.autocast(device.type, torch.bfloat16, enabled=options.bf16),
    )

    def checkpoint() -> None:
        save_state(state_file, {
            "model": model.state_dict(), "ema": ema.model.state_dict(), "optimizers": optimizers.state_dict(),
            "idle": care.idle, "step": step, "spent": clock.spent, "config": config.to_json(),
        })

    started = step > 0 or options.init is not None
    clock = Clock(options.minutes, spent)
    saved = reported = 0.0
    while clock.progress < 1:
        progress = clock.progress
        perceptual = min(max((progress - options.lpips_start) / 0.1, 0.0), 1.0)
        pixels = pictures.random_crops(options.batch, generator)
        quantize = started or progress >= options.continuous
        if quantize and not started:
            with torch.no_grad():
                care.start_from(model.latents(pixels))
            started = True
        loss, parts, tokens, latents = work.losses(pixels, prefix_lengths(config, step), perceptual, quantize)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(cosine(progress))
        revived = care.step(tokens, latents, restart=quantize and progress < 0.8)
        ema.update(model, step)
        step += 1
        if step % options.log_every == 0:
            used = tokens.unique().numel() / config.codes
            log.write(step, minutes=clock.spent / 60, loss=loss, norm=norm, revived=revived, used=used, **parts)
        if clock.spent - saved > options.save_minutes * 60:
            checkpoint()
            saved = clock.spent
        if val and clock.spent - reported > options.val_minutes * 60:
            report(ema.model, val, lpips, log, step, options)
            reported = clock.spent
    checkpoint()
    if val:
        report(ema.model, val, lpips, log, step, options)
    return ema.model


def report(model: TiTok, val: Pictures, lpips: LPIPS | None, log: Log, step: int, options: argparse.Namespace) -> None:
    """Score the averaged model on held-out pictures, and leave a sheet of them beside the log."""
    from PIL import Image

    log.write(step, **{f"val/{k}": v for k, v in score(model, val, rates(model), lpips).items()})
    sheet = contact_sheet(model, val.centre_crops(torch.arange(min(6, len(val)))), rates(model))
    log.picture("val", sheet, step)
    Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(options.out / "val.png")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, help="training pictures: folders or tar shards")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs and the exported weights")
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
