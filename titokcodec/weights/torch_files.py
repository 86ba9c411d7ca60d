"""PyTorch files, opened as plain data that is no larger than the file itself.

``torch.load(weights_only=True)`` runs no code, but it decompresses entries, allocates a buffer of any size that a few
bytes ask for, and gives back nested, sparse and 8-bit tensors that nothing here can use. So there is a dry run
first: its pickle, which describes the tensors without their numbers, is read with stand-ins for all that it may hold.
Only what passes is left to torch.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from titokcodec.errors import WeightsError

LARGEST_PICKLE = 1 << 21  # bytes without the numbers: over ten thousand tensors; an object takes 64 times its byte
MOST_AXES = 64

_STORAGES = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
# What torch.save writes. Bytes, sets and calls of classes are not among it, and would take more than they have.
_OPCODES = (
    "PROTO",
    "STOP",
    "MARK",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINSTRING",
    "BINSTRING",
    "EMPTY_DICT",
    "EMPTY_LIST",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "APPEND",
    "APPENDS",
    "SETITEM",
    "SETITEMS",
    "GLOBAL",
    "REDUCE",
    "BUILD",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    "BINPERSID",
)


def load(path: Path, device: torch.device | str = "cpu", mapped: bool = False) -> Any:
    """What ``torch.save`` wrote: numbers, texts, lists, tuples, dictionaries and dense tensors.

    Args:
        path: The file.
        device: Where its tensors go.
        mapped: Leave their numbers in the file until they are used, if it is of the usual, zipped kind.

    Raises:
        WeightsError: it is damaged or compressed, holds anything else, or claims more than is in it. No path is named.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        (_dry_run_zipped if zipped else _dry_run_legacy)(path)
        return torch.load(str(path), map_location=device, weights_only=True, mmap=mapped and zipped)
    except WeightsError:
        raise
    except _NotPlain as error:
        problem = " ".join(str(error).split())[:100]
    except Exception as error:  # damaged files raise a dozen kinds, and pages of advice
        problem = type(error).__name__
    raise WeightsError(f"this is not a readable PyTorch file: it is damaged or holds more than tensors ({problem})")


class _NotPlain(Exception):
    """Names what a file holds that is no plain data."""


class _Storage(NamedTuple):
    """Stands for the numbers of tensors: their bytes, and those of one."""

    size: int
    each: int


class _Width(NamedTuple):
    """Stands for a class of storages, which torch could call for one of any size."""

    each: int


class _Tensor:
    """Stands for a tensor."""


def _dry_run_zipped(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _NotPlain("compressed: torch compresses nothing")
        names = {entry.filename.lower() for entry in entries}
        if archive.comment or len(names) < len(entries):  # of two readers each might see another archive
            raise _NotPlain("an archive in disorder")
        length = path.stat().st_size
        if sum(entry.file_size for entry in entries) > length:
            raise _NotPlain("entries that overlap")
        root = entries[0].filename.partition("/")[0]
        pickled = archive.getinfo(f"{root}/data.pkl")
        if pickled.file_size > LARGEST_PICKLE:
            raise _NotPlain("more words than numbers")
        sizes = {entry.filename.removeprefix(f"{root}/data/"): entry.file_size for entry in entries}
        _DryRun(io.BytesIO(archive.read(pickled)), length, sizes).load()


def _dry_run_legacy(path: Path) -> None:
    """As torch wrote them until 2020: pickles of a signature, a version, the machine, the content and the storages'
    keys, then the numbers."""
    with path.open("rb") as file:
        pickled = io.BytesIO(file.read(LARGEST_PICKLE))
    for _ in range(5):
        _DryRun(pickled, path.stat().st_size).load()


_Unpickler: Any = pickle._Unpickler  # typeshed leaves out what is overridden here


class _DryRun(_Unpickler):
    """Reads a pickle with stand-ins. In Python, since the one in C takes memory for whatever place a pickle names."""

    def __init__(self, file: io.BytesIO, length: int, sizes: dict[str, int] | None = None) -> None:
        super().__init__(file)
        self.left, self.sizes = length, sizes
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _Width(_STORAGES[name])
        if (module, name) not in _STAND_INS:
            raise _NotPlain(f"{module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, saved: Any) -> _Storage:
        """The storage of (``storage``, class, key, device, numbers, and in older files a part of it)."""
        _, width, key, _, count = saved[:5]
        if type(width) is not _Width or type(key) is not str or type(count) is not int or count < 0:
            raise _NotPlain("a storage that is none")
        if key not in self.storages:
            size = count * width.each
            self.left -= size
            if self.left < 0 or (self.sizes is not None and size > self.sizes.get(key, -1)):
                raise _too_much(size)
            self.storages[key] = _Storage(size, width.each)
        return self.storages[key]

    def load_setitem(self) -> None:
        _check_name(self.stack[-2])
        super().load_setitem()

    def load_setitems(self) -> None:
        for key in self.stack[::2]:
            _check_name(key)
        super().load_setitems()

    def load_build(self) -> None:
        if type(self.stack[-2]) is not OrderedDict:  # to which torch ties versions of modules
            raise _NotPlain(f"a {type(self.stack[-2]).__name__} with attributes")
        super().load_build()

    dispatch = {getattr(pickle, name)[0]: _Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES} | {
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BUILD[0]: load_build,
    }


def _check_name(key: object) -> None:
    """Names and numbers alone: hashing tuples in tuples, deep enough, ends the process."""
    if type(key) not in (str, int, bool, float):
        raise _NotPlain(f"a {type(key).__name__} for a name")


def _tensor(storage: object, offset: object, shape: object, *_: object) -> _Tensor:
    if type(storage) is not _Storage or type(shape) is not tuple or len(shape) > MOST_AXES:
        raise _NotPlain("a tensor that is none")
    if any(type(side) is not int or side < 0 for side in shape):
        raise _NotPlain("a tensor of no shape")
    claimed = math.prod(shape) * storage.each
    if claimed > storage.size:  # views of one number can claim any size
        raise _too_much(claimed)
    return _Tensor()


def _parameter(tensor: object, *_: object) -> _Tensor:
    if type(tensor) is not _Tensor:
        raise _NotPlain("a parameter that is no tensor")
    return tensor


def _ordered() -> OrderedDict:
    return OrderedDict()


def _too_much(claimed: int) -> WeightsError:
    return WeightsError(f"its tensors claim {claimed} bytes, more than the file has: get it again")


_STAND_INS = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
