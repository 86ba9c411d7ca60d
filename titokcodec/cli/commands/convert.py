"""``titok-convert``: published checkpoints to weight files."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from titokcodec.cli import options
from titokcodec.cli.command import Command
from titokcodec.cli.errors import reason
from titokcodec.cli.paths import output_path
from titokcodec.cli.reporter import Reporter
from titokcodec.cli.streams import exists, in_the_way
from titokcodec.errors import TitokError
from titokcodec.io.atomic import is_stream
from titokcodec.io.names import shown

if TYPE_CHECKING:
    from titokcodec.weights.convert import Conversion


@click.command("titok-convert", cls=Command)
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.argument("out", metavar="OUT")
@click.option(
    "--config",
    metavar="FILE",
    show_default="recognised by names and shapes",
    help="The YAML or JSON that was published with the checkpoint.",
)
@click.option("--fp16/--int8", default=True, help="Half the size of float32, or a quarter and a little less exact.")
@click.option("--name", metavar="NAME", show_default="as CHECKPOINT", help="Name of the model.")
@options.FORCE
@options.QUIET
@click.option("--json", "as_json", is_flag=True, show_default=False, help="Print a JSON object on standard output.")
def convert(
    checkpoint: str, out: str, config: str | None, fp16: bool, name: str | None, force: bool, quiet: bool, as_json: bool
) -> None:
    """Make a weight file of a published TiTok tokenizer.

    CHECKPOINT is a .bin, .pt, .pth or .safetensors file, a folder with model.safetensors and config.json, or
    hub:org/name; no code in it is run. OUT is a .safetensors file for the --model of the other commands.

    \b
    Examples:
      titok-convert tokenizer_titok_l32.bin l32.safetensors
      titok-convert my.bin my.safetensors --config titok_sl256_vq8k.yaml --int8
    """
    target = output_path(out, _check_weights)
    if target is None or is_stream(target):
        raise click.UsageError("OUT must be a file: the weights are read again when they are written.")
    reporter, started = Reporter("titok-convert", quiet=quiet, as_json=as_json), time.perf_counter()
    try:
        if in_the_way(target) and not force:
            raise OSError(exists(target))
        if not target.parent.is_dir():  # known before any work is done
            raise OSError(f"cannot write {shown(target)}: there is no folder {shown(target.parent)}")
        from titokcodec.weights.convert import convert as work

        done = work(checkpoint, target, config, name=name, int8=not fp16, overwrite=force)
    except (TitokError, OSError) as error:
        reporter.error(reason(error), {"input": checkpoint, "output": out, "error": reason(error)})
        click.get_current_context().exit(reporter.exit_code)
    size = target.stat().st_size
    reporter.text(_line(done, checkpoint, out, fp16, size))
    reporter.record(_facts(done, checkpoint, out, fp16, size, time.perf_counter() - started))


def _check_weights(target: Path) -> None:
    if target.suffix.lower() != ".safetensors":
        better = shown(target.with_suffix(".safetensors"))
        raise click.UsageError(f"{shown(target)} is no name for a weight file: type {better}.")


def _line(done: Conversion, checkpoint: str, out: str, fp16: bool, size: int) -> str:
    from titokcodec.weights.checkpoints import describe

    written = done.weights
    return (
        f"{shown(checkpoint)} -> {shown(out)}  {describe(written.config)}; {done.tensors} tensors, "
        f"{done.parameters / 1e6:.1f}M parameters -> {'fp16' if fp16 else 'int8'}, {size / 1e6:.0f} MB, "
        f"fingerprint {written.fingerprint.hex()}"
    )


def _facts(done: Conversion, checkpoint: str, out: str, fp16: bool, size: int, seconds: float) -> dict[str, object]:
    from titokcodec.weights.checkpoints import describe

    written = done.weights
    return {
        "input": checkpoint,
        "output": out,
        "name": written.name,
        "recognised": describe(written.config),
        "config": asdict(written.config),
        "tensors": done.tensors,
        "parameters": done.parameters,
        "precision": "fp16" if fp16 else "int8",
        "bytes": size,
        "fingerprint": written.fingerprint.hex(),
        "seconds": round(seconds, 4),
    }
