"""Tensors as they lie in weight files: float16, or int8 with a scale a row, in safetensors; strict reading and writing.

Nothing here needs torch until a tensor is asked for as one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from titokcodec.errors import WeightsError
from titokcodec.io import kinds
from titokcodec.io.atomic import replacing
from titokcodec.models.shapes import Shapes, differences

if TYPE_CHECKING:
    import torch

SCALE = ".scale"
# By alignment, as safetensors sorts them; a weight file holds no other types.
_TYPES = {"float32": "F32", "uint32": "U32", "float16": "F16", "int8": "I8"}
_ORDER = list(_TYPES)


def store(name: str, value: np.ndarray, int8: bool) -> dict[str, np.ndarray]:
    """The arrays that stand for a float32 tensor: int8 and scales for a matrix if ``int8``, float16 otherwise.

    Raises:
        WeightsError: a number is too large for float16.
    """
    if int8 and is_matrix(name, value):
        small, scale = narrow(value)
        return {name: small, name + SCALE: scale}
    return {name: halve(name, value)}


def is_matrix(name: str, value: np.ndarray) -> bool:
    """What tolerates 8 bits: weights of linear maps and convolutions, not positions, codes or norms."""
    return name.endswith("weight") and value.ndim >= 2 and "quantize" not in name


def narrow(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 and a float32 scale a row."""
    rows = value.reshape(len(value), -1)
    scale = np.maximum(np.abs(rows).max(1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(rows / scale[:, None]).astype(np.int8).reshape(value.shape), scale


def halve(name: str, value: np.ndarray) -> np.ndarray:
    """A tensor as float16. Raises ``WeightsError`` if a number is too large for it."""
    if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise WeightsError(f"tensor {name} is too large for float16: the model has diverged, do not ship it")
    return value.astype(np.float16)


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    overwrite: bool | None = None,
) -> None:
    """Write arrays as a safetensors file, whole or not at all, without another copy of them in memory.

    The bytes are those of ``safetensors.numpy.save``, which would make two copies (and ``save_file`` leaves files that
    only their owner can read).

    Raises:
        FileExistsError, PermissionError: ``overwrite`` forbids it, as ``replacing`` says.
        OSError: it cannot be written.
    """
    names = sorted(arrays, key=lambda name: (_ORDER.index(arrays[name].dtype.name), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        header[name] = {"dtype": _TYPES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, overwrite) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array = arrays[name]
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            file.write(little.reshape(-1).view(np.uint8).data)


def open_file(path: Path, framework: str = "numpy") -> Any:
    """A safetensors file, mapped, of numpy arrays or (``framework`` is ``pt``) of tensors.

    Raises:
        WeightsError: it is not readable as one; the message says what it is, if it is recognised.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {_otherwise(path) or error}") from None


def _otherwise(path: Path) -> str:
    """What a file is that is no safetensors file, and what to do with it; empty if it is not recognised."""
    with suppress(OSError), path.open("rb") as file:
        kind = kinds.kind_of(file.read(kinds.HEAD))
        if kind == kinds.PYTORCH:
            return (
                "it is a PyTorch file; python -m training.export makes a weight file of a run's state.pt, "
                "titok-convert of a published tokenizer"
            )
        if kind and kind != kinds.SAFETENSORS:
            return f"it is {kind.text}"
    return ""


def shapes_in(file: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in an open safetensors file; none is read."""
    return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118


def array_of(file: Any, name: str) -> Any:
    """A tensor as it is stored, of the framework that ``file`` was opened for. Raises ``WeightsError`` if that has no
    such type."""
    from safetensors import SafetensorError

    try:
        return file.get_tensor(name)
    except (TypeError, AttributeError, ValueError, SafetensorError):  # by the type, and by the version of the library
        raise WeightsError(f"tensor {name} has a type that is not supported here: store float16 or float32") from None


def widened(file: Any, name: str, stored: Mapping[str, tuple[int, ...]]) -> torch.Tensor:
    """A tensor as float32, its scales multiplied in if ``stored`` has them.

    Raises:
        WeightsError: it does not hold finite numbers, also by its scales, or has scales and is not int8.
    """
    import torch

    value = torch.from_numpy(array_of(file, name))
    if name + SCALE not in stored:
        return floats(name, value)
    if value.dtype != torch.int8:
        raise WeightsError(f"tensor {name} has scales, so it must be int8, not {value.dtype}: save it again")
    scale = floats(name + SCALE, torch.from_numpy(array_of(file, name + SCALE)))
    return floats(name, value.float() * scale.view(-1, *[1] * (value.ndim - 1)))


def floats(name: str, value: torch.Tensor) -> torch.Tensor:
    """The tensor as float32.

    Raises:
        WeightsError: it is not dense, holds integers or floats of 8 bits, or numbers that are not finite in float32.
    """
    import torch

    known = value.dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    if known and value.layout == torch.strided:
        found = value.detach().float()
        if found.isfinite().all():
            return found
    raise WeightsError(f"tensor {name} does not hold finite floating-point numbers: get the file again")


def check_shapes(expected: Shapes, stored: Shapes, path: Path, ignored: Set[str] = frozenset()) -> None:
    """Raise ``WeightsError`` unless a weight file holds what a model expects, in these shapes, and nothing else.

    Args:
        expected: Name and shape of the model's tensors.
        stored: Of the file's; a scale goes with its matrix.
        path: The file, for the message.
        ignored: Names that it may hold as well.
    """
    scales = {name + SCALE: shape[:1] for name, shape in expected.items() if name + SCALE in stored}
    problems = differences({**expected, **scales}, stored, ignored)
    if problems:
        raise WeightsError(f"{path} does not fit its configuration: {'; '.join(problems)}")
