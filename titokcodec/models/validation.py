"""Architectures that come from files: one error for values that are missing, unknown, of another type or absurd."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from titokcodec.errors import WeightsError
from titokcodec.format.limits import MAX_CODEBOOK_SIZE
from titokcodec.io.names import examples

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST = 1 << 14  # no size in a config may exceed this: products of four of them still fit 64 bits
_MAY_BE_ZERO = ("head_blocks", "spectrum", "components", "detail_width")


def require(condition: bool, problem: str) -> None:
    """Raise ``WeightsError`` with the problem unless the condition holds."""
    if not condition:
        raise WeightsError(f"the model's configuration does not make sense: {problem}")


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises ``WeightsError`` if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise WeightsError("the model's configuration does not make sense: it is no JSON") from None


def check_fields(values: object, kind: type[DataclassInstance], what: str, optional: Collection[str] = ()) -> None:
    """Raise ``WeightsError`` unless ``values`` are the fields of a dataclass, by name and all that are not optional."""
    if not isinstance(values, dict):
        raise WeightsError(f"the model's configuration does not make sense: {what} is no set of values by name")
    known = {field.name for field in fields(kind)}
    for problem, names in (("lacks", known - set(values) - set(optional)), ("has unknown", set(values) - known)):
        require(not names, f"{what} {problem} {examples([name[:40] for name in sorted(map(str, names))])}")


def check_types(config: DataclassInstance) -> None:
    """Raise ``WeightsError`` unless integers and booleans are such, and integers in range. Dataclasses check no types;
    a config that came from a file needs it."""
    for field in fields(config):
        value, kind = getattr(config, field.name), field.type
        if kind == "int":
            least = 0 if field.name in _MAY_BE_ZERO else 1
            most = MAX_CODEBOOK_SIZE if field.name == "codes" else LARGEST
            require(type(value) is int and least <= value <= most, f"{field.name} is {reprlib.repr(value)}")
        elif kind == "bool":
            require(type(value) is bool, f"{field.name} is {reprlib.repr(value)}")
