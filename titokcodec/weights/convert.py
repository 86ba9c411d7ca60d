"""Published checkpoints to our weight files: what the command ``titok-convert`` does.

Tensors are read one at a time, from files that are mapped rather than loaded; what is held is the result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from titokcodec.errors import WeightsError
from titokcodec.weights import checkpoints, tokenizers
from titokcodec.weights.state_dicts import StateDict, errors_in, open_state_dict
from titokcodec.weights.tokenizers import Weights


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
    with errors_in(path):
        checkpoint = _open(path)
        architecture = checkpoints.recognise(checkpoint.shapes, published)
        names = tokenizers.check_fits(architecture, checkpoint.shapes, path)
        parameters = sum(math.prod(checkpoint.shapes[key]) for key in names)
        values = _values(checkpoint, names)
        del checkpoint  # so that its memory goes with the last of them, before the result is read
        name = name or tokenizers.name_of(source, path)
        written = tokenizers.write(out, architecture, name, values, int8=int8, overwrite=overwrite)
    return Conversion(written, len(names), parameters)


def _open(path: Path) -> StateDict:
    """The tensors of a published checkpoint. Raises ``WeightsError`` for a file of our own, among others."""
    checkpoint = open_state_dict(path)
    if "titok" in checkpoint.metadata:
        raise WeightsError("this is a titokcodec weight file already: use it as it is")
    return checkpoint


def _values(checkpoint: StateDict, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors as float32 arrays, one at a time."""
    for name in names:
        yield name, checkpoint.tensor(name).numpy()
