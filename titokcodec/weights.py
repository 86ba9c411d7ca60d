"""Weight files: where they come from, strict loading, fingerprints, saving.

A weight file is safetensors with one metadata key, ``titok``, that holds the model's name and ``TiTokConfig`` as JSON
(one key, because safetensors does not keep several in a stable order). Tensors have the names of the published TiTok
checkpoints. A matrix ``X`` may be stored as int8 with float32 scales ``X.scale``, one a row; the optional
``entropy.frequencies`` are the integer tables of entropy mode 1.

Nothing here needs torch until a model is built: truncating a file only wants the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from titokcodec import releases
from titokcodec.atomic import write_atomic
from titokcodec.bitstream import FINGERPRINT_BYTES
from titokcodec.errors import WeightsError
from titokcodec.models.config import TiTokConfig
from titokcodec.tables import FrequencyTables

if TYPE_CHECKING:
    import torch

    from titokcodec.models.tokenizer import TiTok

TABLES = "entropy.frequencies"
SCALE = ".scale"


@dataclass(frozen=True)
class Weights:
    """An open weight file, checked as far as that goes without building the model.

    Attributes:
        path: Where it is.
        name: What the model calls itself.
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


def locate(source: str | os.PathLike | None = None) -> Path:
    """Path of a weight file: None is the bundled default, ``hub:org/name`` a download, anything else a path.

    Raises:
        WeightsError: there is nothing there, or the hub is asked for without its library.
    """
    if source is None:
        files = [known.file for known in releases.RELEASES if known.file]
        if not files:
            raise WeightsError("this build of titokcodec has no weights in it: name a weight file")
        return Path(str(resources.files("titokcodec") / "assets" / files[-1]))
    if str(source).startswith("hub:"):
        return _download(str(source)[4:])
    path = Path(source)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: give a .safetensors file, or hub:org/name to download one")
    return path


def _download(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError("hub: names need huggingface_hub: pip install 'titokcodec[hub]'") from None
    try:
        return Path(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # the hub's many errors all mean the same here
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"could not get model.safetensors of {repository!r} from the hub: {reason}") from None


def read(source: str | os.PathLike | None = None) -> Weights:
    """Open a weight file: name, config, tables, and the fingerprint of all it holds. Needs no torch.

    Raises:
        WeightsError: the file is missing, damaged or not one of ours.
    """
    path = locate(source)
    with _open(path) as file:
        try:
            about = json.loads((file.metadata() or {})["titok"])
            name, config_text = str(about["name"]), json.dumps(about["config"])
        except (KeyError, TypeError, ValueError, RecursionError):
            raise WeightsError(f"{path} is not a titokcodec weight file: convert it with titok-convert") from None
        config = TiTokConfig.from_json(config_text)
        fingerprint = fingerprint_of(config, ((key, _array(file, key)) for key in sorted(file.keys())))
        tables = _tables(_array(file, TABLES), config) if TABLES in file.keys() else None  # noqa: SIM118
    return Weights(path, name, config, fingerprint, tables)


def fingerprint_of(config: TiTokConfig, arrays: Iterator[tuple[str, np.ndarray]]) -> bytes:
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
    model = _hollow(weights.config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with _open(weights.path) as file:
        stored = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        _check_names(expected, stored, weights.path)
        state = {name: _widen(file, name, stored) for name in expected}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _hollow(config: TiTokConfig) -> TiTok:
    """A model without memory or random numbers, for values that are about to be set."""
    import torch
    from torch.overrides import TorchFunctionMode

    from titokcodec.models.tokenizer import TiTok

    class Unfilled(TorchFunctionMode):
        """Skips the initialisation: for arithmetic on the meta device torch imports its compiler, a second's work."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, kwargs = function.__name__, kwargs or {}
            if name in ("mul", "__mul__") or (name.endswith("_") and not name.endswith("__")):
                return args[0] if args else kwargs["tensor"]
            return (torch.empty if function is torch.randn else function)(*args, **kwargs)

    with torch.device("meta"), Unfilled():
        return TiTok(config)


def load_model(source: str | os.PathLike | None = None) -> TiTok:
    """``read`` and ``build`` in one."""
    return build(read(source))


def save(
    path: str | os.PathLike, model: TiTok, name: str, tables: FrequencyTables | None = None, int8: bool = True
) -> Weights:
    """Write a weight file that ``read`` takes, whole or not at all.

    Args:
        path: Target.
        model: Weights and config.
        name: What the model is to be called.
        tables: Integer frequencies for entropy mode 1.
        int8: Store matrices as int8 with a scale a row; everything is float16 otherwise, vectors always are.
    """
    from safetensors.numpy import save as serialize

    arrays: dict[str, np.ndarray] = {}
    for key, value in model.state_dict().items():
        value = value.detach().float().cpu().numpy()
        if int8 and _is_matrix(key, value):
            arrays[key], arrays[key + SCALE] = _narrow(value)
        else:
            arrays[key] = _halve(key, value)
    if tables:
        arrays[TABLES] = tables.frequencies
    about = json.dumps({"config": json.loads(model.config.to_json()), "name": name}, sort_keys=True)
    stored = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    write_atomic(path, serialize(stored, {"titok": about}))
    return read(path)


def _halve(name: str, value: np.ndarray) -> np.ndarray:
    if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise WeightsError(f"tensor {name} is too large for float16: the model has diverged, do not ship it")
    return value.astype(np.float16)


def _is_matrix(name: str, value: np.ndarray) -> bool:
    """What tolerates 8 bits: weights of linear maps and convolutions, not positions, codes or norms."""
    return name.endswith("weight") and value.ndim >= 2 and "quantize" not in name


def _narrow(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = value.reshape(len(value), -1)
    scale = np.maximum(np.abs(rows).max(1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(rows / scale[:, None]).astype(np.int8).reshape(value.shape), scale


def _widen(file: object, name: str, stored: dict[str, tuple]) -> torch.Tensor:
    import torch

    value = torch.from_numpy(_array(file, name))
    if name + SCALE not in stored:
        return _checked_floats(name, value)
    if value.dtype != torch.int8:
        raise WeightsError(f"tensor {name} has scales, so it must be int8, not {value.dtype}: save it again")
    scale = _checked_floats(name + SCALE, torch.from_numpy(_array(file, name + SCALE)))
    return value.float() * scale.view(-1, *[1] * (value.ndim - 1))


def _checked_floats(name: str, value: torch.Tensor) -> torch.Tensor:
    """The tensor as float32, unless it is integers or not numbers at all."""
    if not value.is_floating_point() or not value.isfinite().all():
        raise WeightsError(f"tensor {name} does not hold finite floating-point numbers: get the file again")
    return value.float()


def _check_names(expected: dict[str, tuple], stored: dict[str, tuple], path: Path) -> None:
    scales = {name + SCALE: shape[:1] for name, shape in expected.items() if name + SCALE in stored}
    wanted = {**expected, **scales}
    for problem, names in (
        ("lacks", wanted.keys() - stored.keys()),
        ("has unknown tensors", stored.keys() - wanted.keys() - {TABLES}),
        ("has the wrong shape for", {name for name in wanted.keys() & stored.keys() if wanted[name] != stored[name]}),
    ):
        if names:
            some = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise WeightsError(f"{path} does not fit its configuration: it {problem} {some}")


def _open(path: Path) -> object:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from None


def _array(file: object, name: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except TypeError:
        raise WeightsError(f"tensor {name} has a type that is not supported here: store float16 or float32") from None


def _tables(frequencies: np.ndarray, config: TiTokConfig) -> FrequencyTables:
    shared = frequencies.shape == (1, config.codes)
    if not shared and frequencies.shape != (config.tokens, config.codes):
        raise WeightsError(f"entropy tables of shape {frequencies.shape} do not fit the model")
    return FrequencyTables(frequencies)
