"""Files of 2D tokenizers: TiTok's first stage learns from the proxy codes of a trained MaskGIT-VQGAN.

One trained here is stored as safetensors; the published one is a PyTorch file. Both hold tensors of the published
names and nothing else, so that the architecture can be read off them (Yu et al. 2024, section 3.3).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from titokcodec.errors import WeightsError
from titokcodec.io.atomic import write_atomic
from titokcodec.models.tokenizer import TiTok
from titokcodec.models.vqgan import PRESETS, VQGAN, VQGANConfig, config_of
from titokcodec.weights import torch_files
from titokcodec.weights.storage import array_of, floats, open_file, shapes_of

PICKLED = (".bin", ".pt", ".pth")


def load(path: Path, device: torch.device | str = "cpu") -> VQGAN:
    """The 2D tokenizer of a ``.safetensors`` or PyTorch (``.bin``, ``.pt``, ``.pth``) file.

    Returns:
        A model in float32 on ``device``, frozen and in evaluation mode.

    Raises:
        WeightsError: the file is missing, unreadable or of another kind, or a tensor is missing, unknown, misshapen
            or not of finite floats; the message is one line and names it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: give a .safetensors or PyTorch file of a MaskGIT-VQGAN")
    if path.suffix != ".safetensors" and path.suffix not in PICKLED:
        raise WeightsError(f"{path} is of an unknown kind: give a .safetensors, {' or '.join(PICKLED)} file")
    try:
        config, state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except WeightsError as error:
        text = " ".join(str(error).split())  # a tensor's name may hold anything
        raise WeightsError(text if text.startswith(f"{path} ") else f"{path}: {text}") from None
    with torch.device("meta"):  # every value is about to be set: draw no random numbers
        model = VQGAN(config)
    model.load_state_dict(state, assign=True)
    return model.to(device).eval().requires_grad_(False)


def save(path: Path, model: VQGAN) -> None:
    """Write ``model`` as float32 safetensors that ``load`` takes, whole or not at all.

    Raises:
        OSError: the folder is missing, full or not writable; an older file at ``path`` stays as it was.
    """
    state = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(path, serialize(state))


def hand_on(source: VQGAN, model: TiTok) -> None:
    """Give a legacy model the codes and the decoder of a 2D tokenizer, which it draws its pixels with.

    Raises:
        WeightsError: the 2D tokenizer is not of the published size.
    """
    if source.config != PRESETS["published"]:
        raise WeightsError(
            "a legacy model needs a pixel decoder of the published size: train the 2D tokenizer with --proxy-preset "
            "published, or give the published MaskGIT-VQGAN"
        )
    model.pixel_quantize.load_state_dict(source.quantize.state_dict())
    model.pixel_decoder.load_state_dict(source.decoder.state_dict())


def _safetensors(path: Path) -> tuple[VQGANConfig, dict[str, Tensor]]:
    """Config and float32 tensors; the shapes are judged before any data is read."""
    with open_file(path, "pt") as file:
        shapes = shapes_of(file)
        config = config_of(shapes)
        return config, {name: floats(name, array_of(file, name)).contiguous() for name in shapes}


def _pickled(path: Path) -> tuple[VQGANConfig, dict[str, Tensor]]:
    """Config and float32 tensors of a PyTorch file, from which nothing but data is unpickled."""
    state = torch_files.load(path)
    if not isinstance(state, dict):
        raise WeightsError(f"this holds a {type(state).__name__}: give a file of tensors by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"entry {name!r} is a {type(value).__name__}: give a file of named tensors alone")
    config = config_of({name: tuple(value.shape) for name, value in state.items()})
    return config, {name: floats(name, value).contiguous() for name, value in state.items()}
