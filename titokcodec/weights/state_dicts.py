"""Tensors by name in safetensors and PyTorch files: the one reader of whatever this project did not write itself.

Published tokenizers, generators and 2D tokenizers, and the networks behind metrics come through here. Every tensor is
handed out as float32 in memory of its own, since a mapped file may change under a model. Weight files of this project,
which may hold int8 with scales, are for :mod:`titokcodec.weights.storage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from titokcodec.errors import WeightsError
from titokcodec.io.names import printable
from titokcodec.models.shapes import Shapes, differences
from titokcodec.weights import torch_files
from titokcodec.weights.hub import CONFIG
from titokcodec.weights.storage import array_of, floats, open_file, shapes_in

PYTORCH_SUFFIXES = (".bin", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model")  # what training scripts put a checkpoint's tensors under
_RUN = {"stage", "config", "ema"}  # what a checkpoint of this project's training has, among others
_PREFIX = "module."  # what torch's DistributedDataParallel puts in front of every name


@dataclass(frozen=True)
class StateDict:
    """An open file of named tensors, none of which has been read yet.

    Attributes:
        path: Where it is.
        shapes: Name and shape of every tensor; a ``module.`` in front of all names is left out.
        metadata: Texts by name, of a safetensors file.
    """

    path: Path
    shapes: Shapes
    metadata: Mapping[str, str]
    _stored: Callable[[str], Tensor] = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """A tensor as contiguous float32, a copy. Raises ``WeightsError`` for anything but finite floats."""
        with errors_in(self.path):
            stored = self._stored(name)
            value = floats(name, stored).contiguous()
        return value.clone() if value.data_ptr() == stored.data_ptr() else value

    def tensors(self) -> dict[str, Tensor]:
        """All of them, as ``tensor`` gives them."""
        return {name: self.tensor(name) for name in self.shapes}

    def check(self, expected: Shapes, ignored: Set[str] = frozenset()) -> None:
        """Raise ``WeightsError`` unless the file holds these tensors and no others, besides those to be ignored."""
        if problems := differences(expected, self.shapes, ignored):
            raise WeightsError(f"{self.path} is of another network: {'; '.join(problems)}")


def open_state_dict(path: Path) -> StateDict:
    """Open a ``.safetensors`` or PyTorch (``.bin``, ``.pt``, ``.pth``) file of named tensors. No pickled code is run.

    Raises:
        WeightsError: it is missing, of an unknown kind, unreadable, or holds something else. The message is one line
            and names the file.
    """
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: give a .safetensors or PyTorch file")
    with errors_in(path):
        if path.suffix == ".safetensors":
            return _open_safetensors(path)
        if path.suffix in PYTORCH_SUFFIXES:
            return _open_pytorch(path)
        others, last = ", ".join(PYTORCH_SUFFIXES[:-1]), PYTORCH_SUFFIXES[-1]
        raise WeightsError(f"this is of an unknown kind: give a .safetensors, {others} or {last} file")


@contextmanager
def errors_in(path: Path) -> Iterator[None]:
    """Within the block, a ``WeightsError`` becomes one line that names the file, unless it names it, or the config
    beside it, already."""
    try:
        yield
    except WeightsError as error:
        named = any(printable(str(known)) in str(error) for known in (path, path.with_name(CONFIG)))
        text = " ".join(str(error).split())  # a tensor's name may hold anything
        raise WeightsError(text if named else f"{path}: {text}") from None


def _open_safetensors(path: Path) -> StateDict:
    file = open_file(path, "pt")
    shapes = shapes_in(file)
    keys = _without_prefix(shapes)
    return StateDict(
        path,
        {name: shapes[key] for name, key in keys.items()},
        file.metadata() or {},
        lambda name: array_of(file, keys[name]),
    )


def _open_pytorch(path: Path) -> StateDict:
    """A PyTorch file, mapped if it is of the usual, zipped kind."""
    try:
        tensors = _tensors_in(torch_files.load(path, mapped=True))
    except OSError as error:
        raise WeightsError(f"it cannot be read: {error.strerror or error}") from None
    claimed = sum(value.numel() * value.element_size() for value in tensors.values())
    if claimed > path.stat().st_size:  # many views of the same numbers can claim any size
        raise WeightsError(f"its tensors claim {claimed} bytes, more than the file has: get it again")
    keys = _without_prefix(tensors)
    return StateDict(
        path,
        {name: tuple(tensors[key].shape) for name, key in keys.items()},
        {},
        lambda name: tensors[keys[name]],
    )


def _tensors_in(content: Any) -> dict[str, Tensor]:
    """The tensors by name in what a PyTorch file holds, out of what training scripts wrap them in."""
    for _ in _WRAPPERS:
        inner = [content[key] for key in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(key), dict)]
        content = inner[0] if inner else content
    if isinstance(content, dict) and content.keys() >= _RUN:
        raise WeightsError("this is a training run's checkpoint: python -m training.export makes a weight file of it")
    if not isinstance(content, dict):
        raise WeightsError(f"this holds a {type(content).__name__}: give a file of tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"entry {name!r} is a {type(value).__name__}: give a file of named tensors alone")
    return content


def _without_prefix(keys: Iterable[str]) -> dict[str, str]:
    """By the name that a model gives a tensor, the name that the file gives it."""
    keys = list(keys)
    prefix = _PREFIX if keys and all(key.startswith(_PREFIX) for key in keys) else ""
    return {key.removeprefix(prefix): key for key in keys}
