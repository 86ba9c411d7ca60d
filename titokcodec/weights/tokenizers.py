"""Weight files: where they come from, strict loading, fingerprints, saving.

A weight file is safetensors with one metadata key, ``titok``, that holds the model's name and ``TiTokConfig`` as JSON
(one key, because safetensors does not keep several in a stable order). Tensors have the names of the published TiTok
checkpoints. A matrix ``X`` may be stored as int8 with float32 scales ``X.scale``, one a row; the optional
``entropy.frequencies`` are the integer tables of entropy mode 1. A published checkpoint in safetensors is taken as it
is, if its shapes or the config.json beside it settle its architecture (``titokcodec.weights.checkpoints``).

Nothing here needs torch until a model is built: truncating a file only wants the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from titokcodec.errors import WeightsError
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.format.limits import FINGERPRINT_BYTES
from titokcodec.io.names import printable
from titokcodec.models.config import TiTokConfig
from titokcodec.models.shapes import Shapes, shapes_of
from titokcodec.weights import checkpoints, hub, releases
from titokcodec.weights.storage import array_of, check_shapes, open_file, shapes_in, store, widened, write_safetensors

if TYPE_CHECKING:
    from titokcodec.models.generator_config import GeneratorConfig
    from titokcodec.models.tokenizer import TiTok

TABLES = "entropy.frequencies"
_BESIDE = checkpoints.BUFFERS | {TABLES}  # what a file may hold besides the model's own tensors
HUB = "hub:"


@dataclass(frozen=True)
class Weights:
    """An open weight file, checked as far as that goes without building the model.

    Attributes:
        path: Where it is.
        name: What the model calls itself; a published one goes by its repository, folder or file.
        config: Its architecture.
        fingerprint: 8 bytes, see ``fingerprint_of``.
        tables: Integer frequencies for entropy mode 1, if it has them.
    """

    path: Path
    name: str
    config: TiTokConfig
    fingerprint: bytes
    tables: FrequencyTables | None

    @property
    def model_id(self) -> int:
        """The released model's id, 0 for any other."""
        return releases.id_of(self.fingerprint)


def locate(source: str | os.PathLike | None = None, *others: str) -> Path:
    """Path of a weight file: None is the bundled default, ``hub:org/name`` a download, anything else a path.

    Args:
        others: What else the file may be called in a folder, besides what it is on the hub.

    Raises:
        WeightsError: there is nothing there, or the hub is asked for without its library.
    """
    if source is None:
        files = [known.file for known in releases.RELEASES if known.file]
        if not files:
            raise WeightsError("this build of titokcodec has no weights in it: name a weight file")
        return Path(str(resources.files("titokcodec") / "assets" / files[-1]))
    if not isinstance(source, str | os.PathLike):
        raise WeightsError(f"a weight file is named by its path or by hub:org/name, not by a {type(source).__name__}")
    if str(source).startswith(HUB):
        return hub.download(str(source).removeprefix(HUB))
    path = Path(source)
    if path.is_dir():
        path = next((path / name for name in others if (path / name).is_file()), path / hub.WEIGHTS)
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: give a .safetensors file, or hub:org/name to download one")
    return path


def name_of(source: str | os.PathLike | None, path: Path) -> str:
    """What to call a model that has no name: as its repository, its folder (in the hub's layout) or its file."""
    if str(source).startswith(HUB):
        return str(source).rpartition("/")[2].removeprefix(HUB)
    whole = Path(os.path.abspath(path))
    return whole.parent.name if path.name == hub.WEIGHTS else whole.stem


def read(source: str | os.PathLike | None = None) -> Weights:
    """Open a weight file: name, config, tables, and the fingerprint of all it holds. Needs no torch.

    Raises:
        WeightsError: the file is missing, damaged, or neither one of ours nor a published tokenizer.
    """
    path = locate(source)
    with open_file(path) as file:
        about = (file.metadata() or {}).get("titok")
        if about is None:
            name, config = name_of(source, path), _recognise(shapes_in(file), path)
        else:
            name, config = _described(about, path)
        fingerprint = fingerprint_of(config, ((key, array_of(file, key)) for key in sorted(file.keys())))
        tables = _tables(array_of(file, TABLES), config) if TABLES in file.keys() else None  # noqa: SIM118
    return Weights(path, name, config, fingerprint, tables)


def _described(about: str, path: Path) -> tuple[str, TiTokConfig]:
    """Name and config from the metadata of one of our files."""
    try:
        values = json.loads(about)
        name, config_text = printable(str(values["name"])), json.dumps(values["config"])
        generator = values.get("kind") == "generator"
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError):
        raise WeightsError(f"{path} is not a titokcodec weight file: its description is damaged") from None
    if generator:
        raise WeightsError(f"{path} holds a generator, not a tokenizer: titok-generate -g takes it")
    return name, TiTokConfig.from_json(config_text)


def _recognise(shapes: Shapes, path: Path) -> TiTokConfig:
    try:
        return checkpoints.recognise(shapes, checkpoints.config_beside(path))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def fingerprint_of(config: TiTokConfig | GeneratorConfig, arrays: Iterator[tuple[str, np.ndarray]]) -> bytes:
    """8 bytes of SHA-256 over the config and every array's name, type, shape and data, in order of names.

    The file itself is not hashed: safetensors may lay the same content out differently.
    """
    digest = hashlib.sha256(config.to_json().encode())
    for name, array in arrays:
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()[:FINGERPRINT_BYTES]


def build(weights: Weights) -> TiTok:
    """The model of a weight file, float32, on the CPU, in evaluation mode.

    Raises:
        WeightsError: a tensor is missing, unknown or of the wrong shape; it is named.
    """
    model = _on_meta(weights.config)
    with open_file(weights.path) as file:
        stored, expected = shapes_in(file), shapes_of(model)
        check_shapes(expected, stored, weights.path, _BESIDE)
        # Floats are float32, whatever type torch makes them of by default; indices are what the model has them as.
        indices = {name: value.dtype for name, value in model.state_dict().items() if not value.is_floating_point()}
        state = {name: widened(file, name, stored).to(indices.get(name)) for name in expected}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def check_fits(config: TiTokConfig, shapes: Shapes, path: Path) -> list[str]:
    """The names of a model's tensors, in order, if these are they. Raises ``WeightsError`` like ``build``."""
    expected = shapes_of(_on_meta(config))
    check_shapes(expected, shapes, path, _BESIDE)
    return list(expected)


def _on_meta(config: TiTokConfig) -> TiTok:
    from titokcodec.models.meta import on_meta
    from titokcodec.models.tokenizer import TiTok

    return on_meta(lambda: TiTok(config))


def load_model(source: str | os.PathLike | None = None) -> TiTok:
    """``read`` and ``build`` in one."""
    return build(read(source))


def save(
    path: str | os.PathLike, model: TiTok, name: str, tables: FrequencyTables | None = None, int8: bool = True
) -> Weights:
    """Write a model as a weight file; ``write`` says how."""
    values = ((key, value.detach().float().cpu().numpy()) for key, value in model.state_dict().items())
    return write(path, model.config, name, values, tables, int8)


def write(
    path: str | os.PathLike,
    config: TiTokConfig,
    name: str,
    values: Iterable[tuple[str, np.ndarray]],
    tables: FrequencyTables | None = None,
    int8: bool = True,
    overwrite: bool | None = None,
) -> Weights:
    """Write a weight file that ``read`` takes, whole or not at all.

    Args:
        path: Target.
        config: Architecture.
        name: What the model is to be called.
        values: Name and float32 array of every tensor. They are taken one by one: what is held in memory is what is
            written and one of them.
        tables: Integer frequencies for entropy mode 1.
        int8: Store matrices as int8 with a scale a row; everything is float16 otherwise, vectors always are.
        overwrite: True replaces any file, False none, None any that is not read-only.

    Raises:
        WeightsError: a number is too large for float16.
        OSError: it cannot be written.
    """
    arrays = {name: array for key, value in values for name, array in store(key, value, int8).items()}
    if tables:
        arrays[TABLES] = _stored(tables, config)
    about = json.dumps({"config": json.loads(config.to_json()), "name": name}, sort_keys=True)
    write_safetensors(path, arrays, {"titok": about}, overwrite)
    del arrays  # before the file is read
    return read(path)


def _stored(tables: FrequencyTables, config: TiTokConfig) -> np.ndarray:
    """The rows to store: one for each codebook, if all positions that share one have the same."""
    frequencies, share = tables.frequencies, config.tokens // config.codebooks
    few = frequencies[::share]
    return few if np.array_equal(np.repeat(few, share, 0), frequencies) else frequencies


def _tables(frequencies: np.ndarray, config: TiTokConfig) -> FrequencyTables:
    """One row for all positions, one for each codebook's positions, or one for each position."""
    if frequencies.shape not in [(rows, config.codes) for rows in (1, config.codebooks, config.tokens)]:
        raise WeightsError(f"entropy tables of shape {frequencies.shape} do not fit the model")
    few = len(frequencies) == config.codebooks > 1
    return FrequencyTables(np.repeat(frequencies, config.tokens // config.codebooks, 0) if few else frequencies)
