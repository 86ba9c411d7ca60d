"""Weight files of the networks behind metrics, which users bring: read strictly, so that no other network scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from titokcodec.errors import WeightsError
from titokcodec.weights import torch_files
from titokcodec.weights.storage import array_of, floats, open_file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file, or of a PyTorch ``.pt`` or ``.pth`` state dict, as they are stored.

    Raises:
        WeightsError: the file is missing or is not what its name says. Pickled code is never run.
    """
    try:
        if path.suffix == ".safetensors":
            with open_file(path, "pt") as file:
                return {name: array_of(file, name) for name in file.keys()}  # noqa: SIM118
        found = torch_files.load(path)
    except (WeightsError, OSError) as error:
        reason = " ".join(str(error).split()).removeprefix(f"{path} is ")
        raise WeightsError(f"{path} cannot be read as weights: {reason}") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path} does not hold a state dict: save the tensors alone, by name")
    return dict(found)


def check_tensors(path: Path, found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``WeightsError`` unless exactly the named tensors are there, each of its shape and of finite floats."""
    missing = [name for name in shapes if name not in found]
    strange = [name for name in found if name not in shapes]
    for names, what in ((missing, "lacks"), (strange, "is of another network: it has")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsError(f"{path} {what} {names[0]}{more}")
    for name, shape in shapes.items():
        if tuple(found[name].shape) != tuple(shape):
            raise WeightsError(f"{path}: {name} is {tuple(found[name].shape)}, {tuple(shape)} expected")
        finite(path, name, found[name])


def finite(path: Path, name: str, value: Tensor) -> Tensor:
    """The tensor as float32. Raises ``WeightsError``, which names the file, for anything but finite floats."""
    try:
        return floats(name, value)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
