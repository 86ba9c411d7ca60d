"""Checkpoints on disk: written whole or not at all, the one before kept beside them, and nothing damaged accepted.

A checkpoint is a dictionary of plain values and tensors, as ``torch.save`` writes it: a zip archive whose members each
have a CRC-32. ``torch.load`` does not look at these, so they are compared here first.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from titokcodec.cli.errors import out_of_memory
from titokcodec.errors import WeightsError
from titokcodec.io.atomic import replacing
from titokcodec.models.config import TiTokConfig
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import torch_files

STATE, OLDER = "state.pt", "state.old.pt"  # in the folder of a run: its last checkpoint, and the one before
GIVE = "give the state.pt of a training run, or a .safetensors file"
MISFITS = (RuntimeError, KeyError, IndexError, ValueError, TypeError, AttributeError)  # what loading one may raise
_ZIP = b"PK\x03\x04"  # what a zip archive begins with


def save_state(path: Path, state: dict, older: Path | None = None) -> None:
    """Write a checkpoint so that a kill at any moment leaves either the old file or the new one, whole.

    Args:
        older: Where the file goes that was at ``path``, on file systems that have hard links.

    Raises:
        OSError: it cannot be written.
        WeightsError: a tensor has values that are not finite; the old file stays.
    """
    check_finite(state, f"{path} is not written")
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # how it reports that a write failed, on a full disk for example
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        if older:
            older.unlink(missing_ok=True)
            with suppress(OSError):
                os.link(path, older)  # a second name, which outlives the first


def load_state(path: Path, device: torch.device, advice: str = GIVE) -> dict:
    """Read what ``save_state`` wrote; plain data and tensors only, no code, and no more than the file has.

    Args:
        advice: What to do if it cannot be used, for the message.

    Raises:
        WeightsError: it cannot be read, is damaged, or holds something else or values that are not finite.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_ZIP))
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}: {advice}") from None
    if begins != _ZIP:
        raise WeightsError(f"{path} is no checkpoint: {_other(path) or advice}")
    try:
        state = torch_files.load(path, device) if _is_sound(path) else None
    except Exception as error:  # of a dozen types, with pages of advice
        if out_of_memory(error):
            raise
        state = None
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is damaged: {_other(path) or advice}")
    check_finite(state, f"{path} is of no use", _other(path) or advice)
    return state


def load_checkpoint(path: Path, device: torch.device) -> dict:
    """Read the checkpoint of a tokenizer that was given on a command line.

    Raises:
        WeightsError: it cannot be read, is damaged, or is no such thing.
    """
    state = load_state(path, device)
    kinds = {"stage": str, "config": str, "ema": dict}
    if not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        raise WeightsError(f"{path} is no checkpoint: {GIVE}")
    return state


def tokenizer_of(path: Path, state: dict, without: tuple[str, ...] = ()) -> TiTok:
    """The averaged model of a checkpoint.

    Args:
        path: For the message.
        without: What names of tensors begin with that are to be new instead.

    Raises:
        WeightsError: it is no tokenizer's.
    """
    try:
        model = TiTok(TiTokConfig.from_json(state["config"]))
        kept = {name: value for name, value in state["ema"].items() if not name.startswith(without)}
        take(model, kept | {name: value for name, value in model.state_dict().items() if name.startswith(without)})
    except (WeightsError, *MISFITS):
        raise WeightsError(f"{path} does not hold a tokenizer: {GIVE}") from None
    return model


def predicts_proxies(state: dict) -> bool:
    """Whether the tokenizer of a checkpoint has a head that predicts proxy codes, in place of its own."""
    return state["stage"] == "stage1" and "decoder.ffn.layers.0.weight" in state["ema"]


def take(part: nn.Module | torch.optim.Optimizer, state: dict) -> None:
    """``part.load_state_dict``, which by itself would take other types of numbers, and moments of any shape.

    Raises:
        MISFITS: the state is of something else.
    """
    if isinstance(part, nn.Module):
        wrong = [name for name, mine in part.state_dict().items() if name in state and state[name].dtype != mine.dtype]
    else:
        parameters = [p for group in part.param_groups for p in group["params"]]
        wrong = [
            (number, name)
            for number, kept in state["state"].items()
            for name, value in kept.items()
            if not value.is_floating_point() or (value.ndim and value.shape != parameters[number].shape)
        ]
    if wrong:
        raise ValueError(f"{wrong[0]} is of another type or shape")
    part.load_state_dict(state)


def check_finite(state: object, what: str, advice: str = "lower --rate and --muon-rate") -> None:
    """Raise ``WeightsError`` if there is a number in a state's tensors that is none: it would spread to all of them."""
    for name, value in _tensors(state):
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"{what}: {name} has values that are not finite: {advice}")


def _tensors(state: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in nested dictionaries and lists, each with the way to it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _is_sound(path: Path) -> bool:
    """Whether all members of a zip archive are as they were written. Members that ``torch.save`` does not write, packed
    ones or folders, are not: of these ``torch.load`` and ``zipfile`` have different views."""
    with zipfile.ZipFile(path) as file:
        plain = all(not (member.compress_type or member.external_attr) for member in file.infolist())
        return plain and file.testzip() is None


def _other(path: Path) -> str:
    """Advice to go back to the checkpoint before, if there is one and it is whole."""
    older = path.with_name(OLDER)
    with suppress(Exception):
        if path.name == STATE and _is_sound(older):
            return f"{older.name} beside it is the one before, and whole: give it that name, or start anew"
    return ""
