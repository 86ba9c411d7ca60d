"""Recognising published TiTok checkpoints: from the names and shapes of their tensors, and their config if it is there.

Layouts are those of the published code (Yu et al. 2024): two-stage models ("legacy") decode pixels through the
decoder of a MaskGIT-VQGAN, one-stage models directly. One-D-Piece checkpoints have the legacy layout and are taken
for a TiTok of a fixed number of tokens. Nothing here allocates what the shapes claim, or needs torch.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from titokcodec.errors import WeightsError
from titokcodec.models.config import BASE, LARGE, SMALL, TiTokConfig, Tower
from titokcodec.models.shapes import Shape, Shapes, shape_of
from titokcodec.weights import hub
from titokcodec.weights.yaml_config import parse_yaml

BUFFERS = frozenset({"quantize.embed_prob"})  # of training alone: how often each code was used
HEAD_WIDTH = 64  # of every published transformer
SIZES = {"small": SMALL, "base": BASE, "large": LARGE}
LARGEST_CONFIG = 1 << 20  # bytes; a published one has one or two thousand

_GENERATOR = ("model.embeddings.", "model.lm_head.", "lm_head.", "in_blocks.", "mid_block.")
_PROXIES = ("encoder.down.", "decoder.up.")


def recognise(shapes: Shapes, published: Mapping[str, Any] | None = None) -> TiTokConfig:
    """The architecture of a published tokenizer.

    Whether it fits every tensor is checked where the model is built; only those that determine it are looked at here.

    Args:
        shapes: Name and shape of every tensor.
        published: The config that came with it, of any of its keys; what both say must agree. It is needed only for
            a model whose shapes do not show whether its codes are l2-normalised.

    Raises:
        WeightsError: it is something else (the message says what), a tensor is missing or misshapen (it is named), or
            the config says otherwise (both values are named).
    """
    settings = settings_of(published)
    _refuse_others(shapes, settings)
    tokens, width = _shape(shapes, "latent_tokens", 2)
    codes, code_width = _shape(shapes, "quantize.embedding.weight", 2)
    patch = _shape(shapes, "encoder.patch_embed.weight", 4)[-1]
    cells = _shape(shapes, "encoder.positional_embedding", 2)[0] - 1
    grid = math.isqrt(max(cells, 0))
    _require(grid > 0 and grid * grid == cells, f"encoder.positional_embedding has {cells + 1} rows, no square and one")
    legacy = "decoder.ffn.2.weight" in shapes
    if legacy:
        has_pixels = any(name.startswith("pixel_") for name in shapes)
        _require(
            has_pixels,
            "it decodes to proxy codes, not pixels, a checkpoint of stage 1: it lacks pixel_quantize and "
            "pixel_decoder, which the one of stage 2 has",
            "no whole TiTok",
        )
    found: dict[str, Any] = {
        "encoder": _tower(shapes, "encoder", width),
        "decoder": _tower(shapes, "decoder", _shape(shapes, "decoder.mask_token", 3)[-1]),
        "tokens": tokens,
        "codes": codes,
        "code_width": code_width,
        "image_size": grid * patch,
        "patch_size": patch,
        "legacy": legacy,
    }
    _compare(found, settings)
    normalised = _normalised(found, settings)
    return TiTokConfig(**found, l2_normalised=normalised, head="proxy" if legacy else "pixels")


def describe(config: TiTokConfig) -> str:
    """A published architecture in a few words."""
    sizes = {tower: size[0].upper() for size, tower in SIZES.items()}
    encoder, decoder = config.encoder, config.decoder
    title = "TiTok"
    if encoder in sizes and decoder in sizes:
        letters = dict.fromkeys((sizes[encoder], sizes[decoder]))  # one letter for two of the same size
        title = f"TiTok-{''.join(letters)}-{config.tokens}"
    kind, l2 = "legacy" if config.legacy else "one stage", ", l2" if config.l2_normalised else ""
    return (
        f"{title} ({kind}): encoder {encoder.width}x{encoder.layers}, decoder {decoder.width}x{decoder.layers}, "
        f"{config.tokens} tokens of {config.codes}x{config.code_width} codes{l2}"
    )


def read_config(path: Path) -> dict[str, Any]:
    """A published config: JSON, or YAML (which needs pyyaml) if the name ends so.

    Raises:
        WeightsError: it is missing, too large, no such file, or pyyaml is needed and missing.
    """
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise WeightsError(f"{path} is too large for a config: give the one that came with the checkpoint")
        values = parse_yaml(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except OSError as error:
        raise WeightsError(f"cannot read the config {path}: {error.strerror or error}") from None
    except WeightsError as error:
        raise WeightsError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} is no config in JSON or YAML: {reason}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} is no config: it holds a {type(values).__name__}, not settings by name")
    return values


def config_beside(path: Path) -> dict[str, Any] | None:
    """The config that lies beside weights in the hub's layout, None if they are not in it."""
    config = path.with_name(hub.CONFIG)
    return read_config(config) if path.name == hub.WEIGHTS and config.is_file() else None


def settings_of(published: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a published config says about the tokenizer: empty if it has no such section."""
    published = published or {}
    model = published.get("model")
    vq = model.get("vq_model") if isinstance(model, Mapping) else None
    if not isinstance(vq, Mapping):
        return {}
    settings = {"is_legacy": True, **vq}  # the published code's own default
    dataset = published.get("dataset")
    preprocessing = dataset.get("preprocessing") if isinstance(dataset, Mapping) else None
    if isinstance(preprocessing, Mapping) and "crop_size" in preprocessing:
        settings["crop_size"] = preprocessing["crop_size"]
    # A reference to another setting is resolved by OmegaConf alone: it says nothing here.
    return {key: value for key, value in settings.items() if not (isinstance(value, str) and "${" in value)}


def _refuse_others(shapes: Shapes, settings: Mapping[str, Any]) -> None:
    """Raise for checkpoints of other kinds, saying what they are and where they belong."""
    if any(name.startswith(_GENERATOR) for name in shapes):
        raise WeightsError("this is a generator, not a tokenizer: Generator.from_pretrained takes it")
    if any(name.startswith(_PROXIES) for name in shapes):
        raise WeightsError("this is the MaskGIT-VQGAN proxy tokenizer: python -m training.stage1 --proxies takes it")
    if "latent_tokens" not in shapes:
        raise WeightsError("this is not a titokcodec weight file, nor a published TiTok: it lacks latent_tokens")
    out, into = (shapes.get(f"{key}.weight", ()) for key in ("encoder.conv_out", "decoder.decoder_embed"))
    wide = len(out) == 4 and len(into) == 2 and out[0] == 2 * into[1]  # a mean and a variance
    if "quantize.embedding.weight" not in shapes or settings.get("quantize_mode") == "vae" or wide:
        raise WeightsError(
            "this tokenizer has no codes, so there is nothing to write to a file: it is a VAE, or lacks "
            "quantize.embedding.weight; take a VQ model"
        )


def _tower(shapes: Shapes, side: str, width: int) -> Tower:
    found = (re.match(rf"{side}\.transformer\.(\d{{1,4}})\.", name) for name in shapes)
    layers = max((int(match[1]) + 1 for match in found if match), default=0)
    _require(layers > 0, f"it lacks {side}.transformer.0")
    fits = width > 0 and width % HEAD_WIDTH == 0
    _require(fits, f"the {side} is {width} wide, which is no multiple of {HEAD_WIDTH}, the width of a head")
    return Tower(width, layers, width // HEAD_WIDTH)


def _compare(found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise if the config contradicts what the tensors show."""
    names = {tower: size for size, tower in SIZES.items()}
    said_by_tensors = {
        "codebook_size": found["codes"],
        "token_size": found["code_width"],
        "num_latent_tokens": found["tokens"],
        "vit_enc_patch_size": found["patch_size"],
        "vit_dec_patch_size": found["patch_size"],
        "crop_size": found["image_size"],
        "is_legacy": found["legacy"],
        "quantize_mode": "vq",
    }
    for key, side in (("vit_enc_model_size", "encoder"), ("vit_dec_model_size", "decoder")):
        tower = found[side]
        said_by_tensors[key] = names.get(tower, f"{tower.width} wide and {tower.layers} deep")
    if found["legacy"]:
        said_by_tensors["finetune_decoder"] = True
    for key, value in said_by_tensors.items():
        said = settings.get(key, value)
        if type(said) is not type(value) or said != value:
            raise WeightsError(
                f"the config does not belong to the checkpoint: it says that {key} is "
                f"{reprlib.repr(said)}, but by the tensors it is {value!r}"
            )


def _normalised(found: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether codes are l2-normalised, which no shape shows: the config's word, else what was published."""
    said = settings.get("use_l2_norm")
    if said is not None:
        if type(said) is not bool:
            value = reprlib.repr(said)
            raise WeightsError(f"the config does not make sense: use_l2_norm is {value}, not true or false")
        return said
    if found["legacy"] or found["code_width"] == 12:
        return True
    if (found["codes"], found["code_width"]) == (8192, 64):
        return False
    raise WeightsError(
        f"shapes do not show whether these {found['codes']}x{found['code_width']} codes are "
        "l2-normalised: give the published config, as --config or as config.json beside the "
        "weights"
    )


def _shape(shapes: Shapes, name: str, axes: int) -> Shape:
    return shape_of(shapes, name, axes, "no published TiTok")


def _require(condition: bool, problem: str, what: str = "no published TiTok") -> None:
    if not condition:
        raise WeightsError(f"this is {what}: {problem}")
