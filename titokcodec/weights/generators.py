"""Files of generators: reading ours and the published ones, saving.

Ours are safetensors like a tokenizer's (see ``titokcodec.weights.tokenizers``), with ``kind`` = ``generator`` in the
metadata, and there too the fingerprint of the tokenizer whose tokens the generator learned, if that is known, and the
settings that suit its sampling best. Published checkpoints (Yu et al. 2024), PyTorch files or safetensors without such
metadata, are read as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from titokcodec.errors import TitokError, WeightsError
from titokcodec.format.limits import FINGERPRINT_BYTES
from titokcodec.io.names import printable
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig, config_of
from titokcodec.models.maskgit import Network, make
from titokcodec.models.meta import on_meta
from titokcodec.models.shapes import Shapes, shapes_of
from titokcodec.sampling import Settings
from titokcodec.weights import checkpoints, releases, tokenizers
from titokcodec.weights.state_dicts import errors_in, open_state_dict
from titokcodec.weights.storage import (
    array_of,
    check_shapes,
    floats,
    open_file,
    shapes_in,
    store,
    widened,
    write_safetensors,
)

TRAINED = "generator.safetensors"  # in the folder of a training run
LONGEST_NAME = 100
POSITION_IDS = "model.embeddings.position_ids"  # 0..K, which older BERT files list as if it had been learned


@dataclass(frozen=True)
class Card:
    """What a file says about its generator.

    Attributes:
        name: What it calls itself.
        config: Its architecture.
        tokenizer: Fingerprint of the tokenizer it was trained for, 8 bytes; None if unknown.
        class_names: One name a class, or None.
        fingerprint: 8 bytes over config and tensors, as a tokenizer's; None for a model that is in no file.
        settings: How to sample it unless asked otherwise, or None.
        default_tokens: How many tokens a picture gets unless asked otherwise, one of ``config.counts``; None for the
            most.
    """

    name: str
    config: GeneratorConfig
    tokenizer: bytes | None = None
    class_names: tuple[str, ...] | None = None
    fingerprint: bytes | None = None
    settings: Settings | None = None
    default_tokens: int | None = None

    def __post_init__(self) -> None:
        names, tokenizer, tokens = self.class_names, self.tokenizer, self.default_tokens
        if names is not None and (len(names) != self.config.classes or not all(isinstance(n, str) for n in names)):
            raise WeightsError(f"class_names must be {self.config.classes} texts, one a class, or left out")
        if tokenizer is not None and (not isinstance(tokenizer, bytes) or len(tokenizer) != FINGERPRINT_BYTES):
            raise WeightsError(f"a tokenizer's fingerprint is {FINGERPRINT_BYTES} bytes: save the generator again")
        if tokens is not None and (type(tokens) is not int or tokens not in self.config.counts):
            raise WeightsError(f"default_tokens must be one of {', '.join(map(str, self.config.counts))}, or left out")


def read(source: str | os.PathLike | None = None) -> tuple[Card, Network]:
    """Open a generator file: what it says, and the model, float32, on the CPU, in evaluation mode.

    Args:
        source: None for the bundled generator, a file, ours or published (``.safetensors``, ``.bin``, ``.pt``,
            ``.pth``), a folder with ``model.safetensors`` and maybe a published ``config.json``, that of a training run
            (``TRAINED``), or ``hub:org/name``.

    Raises:
        WeightsError: the file is missing, unreadable or of another kind, or a tensor is missing, unknown, misshapen
            or not of finite floats; the message is one line and names it.
    """
    path = _bundled() if source is None else tokenizers.locate(source, TRAINED)
    with errors_in(path):
        own = _ours(path) if path.suffix == ".safetensors" else None
        card, model = own or _published(path, tokenizers.name_of(source, path))
    return card, model.eval().requires_grad_(False)


def save(
    path: str | os.PathLike,
    model: Network,
    name: str,
    *,
    tokenizer: bytes | None = None,
    class_names: Sequence[str] | None = None,
    settings: Settings | None = None,
    default_tokens: int | None = None,
    int8: bool = True,
) -> None:
    """Write a generator file that ``Generator.from_pretrained`` takes, whole or not at all.

    Args:
        path: Target.
        model: Weights and config.
        name: What the generator is to be called.
        tokenizer: Fingerprint of the tokenizer it was trained for (``codec.weights.fingerprint``).
        class_names: One a class.
        settings: How to sample it unless asked otherwise; as any other generator unless given.
        default_tokens: How many tokens a picture gets unless asked otherwise; the most unless given.
        int8: Store matrices as int8 with a scale a row; everything is float16 otherwise, vectors always are.

    Raises:
        WeightsError: the model has diverged, or the description does not fit it.
        OSError: the folder is missing, full or not writable; an older file at ``path`` stays as it was.
    """
    names = None if class_names is None else tuple(class_names)
    card = Card(name, model.config, tokenizer, names, default_tokens=default_tokens)
    arrays: dict[str, np.ndarray] = {}
    for key, tensor in model.state_dict().items():
        arrays |= store(key, floats(key, tensor.detach()).cpu().numpy(), int8)
    about = {
        "kind": "generator",
        "name": name,
        "config": json.loads(card.config.to_json()),
        "tokenizer": tokenizer and tokenizer.hex(),
        "class_names": names,
    }
    if settings is not None:
        about["settings"] = asdict(settings)
    if default_tokens is not None:
        about["default_tokens"] = default_tokens
    write_safetensors(path, arrays, {"titok": json.dumps(about, sort_keys=True)})


def _bundled() -> Path:
    if not releases.GENERATORS:
        raise WeightsError("no generator comes with this build of titokcodec: name one (--generator)")
    return Path(str(resources.files("titokcodec") / "assets" / releases.GENERATORS[-1]))


def _ours(path: Path) -> tuple[Card, Network] | None:
    """A file with our metadata, None if it has none. Names and shapes are judged before any tensor is read."""
    with open_file(path) as file:
        about = (file.metadata() or {}).get("titok")
        if about is None:
            return None
        card = _described(about)
        shapes = shapes_in(file)
        model = _fitted(card.config, shapes, path)
        model.load_state_dict({key: widened(file, key, shapes) for key in model.state_dict()}, assign=True)
        fingerprint = tokenizers.fingerprint_of(card.config, ((key, array_of(file, key)) for key in sorted(shapes)))
    return replace(card, fingerprint=fingerprint), model


def _published(path: Path, name: str) -> tuple[Card, Network]:
    """A published checkpoint of any kind; ``name`` is for one that is of no published size."""
    checkpoint = open_state_dict(path)
    shapes = {key: shape for key, shape in checkpoint.shapes.items() if key != POSITION_IDS}
    config = config_of(shapes, _heads(checkpoints.config_beside(path)))
    model = _fitted(config, shapes, path)
    state = {key: checkpoint.tensor(key) for key in shapes}
    model.load_state_dict(state, assign=True)
    fingerprint = tokenizers.fingerprint_of(config, ((key, state[key].numpy()) for key in sorted(state)))
    return Card(_known(config) or name, config, fingerprint=fingerprint), model


def _fitted(config: GeneratorConfig, shapes: Shapes, path: Path) -> Network:
    """A model on the meta device, for tensors whose names and shapes fit it. Raises ``WeightsError`` otherwise."""
    model = on_meta(lambda: make(config))
    check_shapes(shapes_of(model), shapes, path)
    return model


def _described(about: str) -> Card:
    try:
        values = json.loads(about)
        if values.get("kind") != "generator":
            raise WeightsError("this holds a tokenizer or another model: give a generator's file")
        name, tokenizer, names = values["name"], values.get("tokenizer"), values.get("class_names")
        if not isinstance(name, str) or not isinstance(names, list | None):
            raise TypeError
        return Card(
            printable(" ".join(name.split()))[:LONGEST_NAME],  # it is in messages
            GeneratorConfig.from_json(json.dumps(values["config"])),
            None if tokenizer is None else bytes.fromhex(tokenizer),
            None if names is None else tuple(printable(n) if isinstance(n, str) else n for n in names),
            settings=Settings(**values["settings"]) if "settings" in values else None,
            default_tokens=values.get("default_tokens"),
        )
    except WeightsError:
        raise
    except TitokError as error:
        raise WeightsError(f"its settings make no sense: {printable(str(error))}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise WeightsError("its description is damaged: get the file again") from None


def _known(config: GeneratorConfig) -> str | None:
    return next((name for name, known in GENERATOR_PRESETS.items() if known == config), None)


def _heads(published: Mapping[str, Any] | None) -> int | None:
    """Number of heads in a published ``config.json``, None if it has none."""
    section: Any = published
    for key in ("model", "generator", "num_attention_heads"):
        section = section.get(key) if isinstance(section, Mapping) else None
    return section
