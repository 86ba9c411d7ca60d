"""Names and shapes of tensors: those that a model expects, compared with those in a file. Nothing is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, TypeAlias

from titokcodec.errors import WeightsError
from titokcodec.io.names import examples

if TYPE_CHECKING:
    from torch import nn

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    """Name and shape of every tensor in a model's state dict, in its order."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def shape_of(shapes: Shapes, name: str, axes: int, otherwise: str) -> Shape:
    """The shape of one tensor.

    Args:
        shapes: Of all.
        name: Which.
        axes: How many it must have.
        otherwise: What the file is if not, for the message: "no published TiTok", say.

    Raises:
        WeightsError: it is missing or has another number of axes.
    """
    if name not in shapes:
        raise WeightsError(f"this is {otherwise}: it lacks {name}")
    shape = tuple(shapes[name])
    if len(shape) != axes:
        raise WeightsError(f"this is {otherwise}: it has the wrong shape for {name}: {shape}, not {axes} axes")
    return shape


def differences(expected: Shapes, stored: Shapes, ignored: Set[str] = frozenset()) -> list[str]:
    """What is wrong with a file's tensors, a clause a kind of problem; empty if they are those that a model expects.

    Args:
        expected: Of the model.
        stored: Of the file.
        ignored: Names that the file may hold as well.
    """
    wrong = [name for name in sorted(expected.keys() & stored.keys()) if tuple(expected[name]) != tuple(stored[name])]
    problems = (
        ("lacks", sorted(expected.keys() - stored.keys())),
        ("has unknown tensors", sorted(stored.keys() - expected.keys() - ignored)),
        (
            "has the wrong shape for",
            [f"{name} ({_sizes(stored[name])} instead of {_sizes(expected[name])})" for name in wrong],
        ),
    )
    return [f"it {problem} {examples(names)}" for problem, names in problems if names]


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
