"""Published checkpoints to our weight files: what the command ``titok-convert`` does.

Tensors are read one at a time, from files that are mapped rather than loaded; what is held is the result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from titokcodec.errors import WeightsError
from titokcodec.weights import checkpoints, tokenizers, torch_files
from titokcodec.weights.storage import array_of, floats, open_file, shapes_of
from titokcodec.weights.tokenizers import Weights

PICKLED = (".bin", ".pt", ".pth")
WRAPPERS = ("state_dict", "model")  # what training scripts put a checkpoint's tensors under
RUN = {"stage", "config", "ema"}  # what a checkpoint of our own training has, among others
PREFIX = "module."  # what torch's DistributedDataParallel puts in front of every name


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint.

    Attributes:
        path: Where it is.
        shapes: Of every tensor that a model keeps, by name.
        tensor: Reads one of them, by name.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    tensor: Callable[[str], Tensor]


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` did.

    Attributes:
        weights: The file it wrote.
        tensors, parameters: How many there are in it.
    """

    weights: Weights
    tensors: int
    parameters: int


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    config: str | os.PathLike | None = None,
    *,
    name: str | None = None,
    int8: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write a published TiTok tokenizer as one of our weight files.

    Args:
        source: A ``.bin``, ``.pt``, ``.pth`` or ``.safetensors`` file, a folder in the hub's layout, or
            ``hub:org/name``.
        out: The weight file to write.
        config: The published YAML or JSON; None takes the config.json in a folder in the hub's layout, if there is
            one, and otherwise what names and shapes say.
        name: What the model is to be called; None is as its file, folder or repository.
        int8: Store matrices in 8 bits, everything in float16 otherwise.
        overwrite: Replace a file that is there.

    Raises:
        WeightsError: the checkpoint or its config is missing, unreadable, of another kind, or they disagree; or a
            tensor is missing, unknown, misshapen or not of finite floats. The message is one line and names it.
        FileExistsError: ``out`` is there and ``overwrite`` is off.
        OSError: ``out`` cannot be written.
    """
    path = tokenizers.locate(source)
    published = checkpoints.config_beside(path) if config is None else checkpoints.read_config(Path(config))
    if config is not None and not checkpoints.settings_of(published):
        raise WeightsError(f"{config} has no model.vq_model section: give the config of a published tokenizer")
    try:
        checkpoint = open_checkpoint(path)
        architecture = checkpoints.recognise(checkpoint.shapes, published)
        names = tokenizers.check_fits(architecture, checkpoint.shapes, path)
        parameters = sum(math.prod(checkpoint.shapes[key]) for key in names)
        values = _values(checkpoint, names)
        del checkpoint  # so that its memory goes with the last of them, before the result is read
        name = name or tokenizers.name_of(source, path)
        written = tokenizers.write(out, architecture, name, values, int8=int8, overwrite=overwrite)
    except WeightsError as error:
        text = " ".join(str(error).split())  # a tensor's name may hold anything
        raise WeightsError(text if text.startswith(f"{path} ") else f"{path}: {text}") from None
    return Conversion(written, len(names), parameters)


def open_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a checkpoint, none of which is read yet.

    Raises:
        WeightsError: it is of an unknown kind, unreadable, one of our own files, or not of tensors by name.
    """
    if path.suffix in PICKLED:
        return _pickled(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    raise WeightsError(f"this is of an unknown kind: give a .safetensors, {' or '.join(PICKLED)} file")


def _safetensors(path: Path) -> Checkpoint:
    file = open_file(path, "pt")
    if "titok" in (file.metadata() or {}):
        raise WeightsError("this is a titokcodec weight file already: use it as it is")
    stored, shapes = _tidy(file.keys()), shapes_of(file)
    known = {name: shapes[key] for name, key in stored.items()}
    return Checkpoint(path, known, lambda name: array_of(file, stored[name]))


def _pickled(path: Path) -> Checkpoint:
    """A PyTorch file, mapped if it is of the usual zipped kind."""
    tensors = _tensors(torch_files.load(path, mapped=True))
    claimed = sum(value.numel() * value.element_size() for value in tensors.values())
    if claimed > path.stat().st_size:  # many views of the same numbers can claim any size
        raise WeightsError(f"its tensors claim {claimed} bytes, more than the file has: get it again")
    stored = _tidy(tensors)
    shapes = {name: tuple(tensors[key].shape) for name, key in stored.items()}
    return Checkpoint(path, shapes, lambda name: tensors[stored[name]])


def _tensors(state: Any) -> dict[str, Tensor]:
    """The tensors by name in what a PyTorch file holds, out of what training scripts wrap them in."""
    for _ in WRAPPERS:
        inner = [state[key] for key in WRAPPERS if isinstance(state, dict) and isinstance(state.get(key), dict)]
        state = inner[0] if inner else state
    if isinstance(state, dict) and state.keys() >= RUN:
        raise WeightsError("this is a training run's checkpoint: python -m training.export makes a weight file of it")
    if not isinstance(state, dict):
        raise WeightsError(f"this holds a {type(state).__name__}: give a file of tensors by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"entry {name!r} is a {type(value).__name__}: give a file of named tensors alone")
    return state


def _tidy(keys: Iterable[str]) -> dict[str, str]:
    """The names that a model has, and what the file calls them."""
    keys = list(keys)
    prefix = PREFIX if keys and all(key.startswith(PREFIX) for key in keys) else ""
    stored = {key.removeprefix(prefix): key for key in keys}
    return {name: key for name, key in stored.items() if name not in checkpoints.BUFFERS}


def _values(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors as float32 arrays, if they hold such numbers."""
    for name in names:
        yield name, numbers(name, checkpoint.tensor(name))


def numbers(name: str, value: Tensor) -> np.ndarray:
    """A tensor as a float32 array. Raises ``WeightsError`` for anything but finite floats."""
    return floats(name, value).contiguous().numpy()
