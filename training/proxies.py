"""Files of 2D tokenizers: TiTok's first stage learns from the proxy codes of a trained MaskGIT-VQGAN.

One trained here is stored as safetensors; the published one is a PyTorch file. Both hold tensors of the published
names and nothing else, so that the architecture can be read off them (Yu et al. 2024, section 3.3).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save as serialize

from titokcodec.errors import WeightsError
from titokcodec.io.atomic import write_atomic
from titokcodec.models.meta import on_meta
from titokcodec.models.tokenizer import TiTok
from titokcodec.models.vqgan import VQGAN, config_of
from titokcodec.models.vqgan_config import VQGAN_PRESETS
from titokcodec.weights.state_dicts import errors_in, open_state_dict


def load(path: Path, device: torch.device | str = "cpu") -> VQGAN:
    """The 2D tokenizer of a ``.safetensors`` or PyTorch (``.bin``, ``.pt``, ``.pth``) file.

    Returns:
        A model in float32 on ``device``, frozen and in evaluation mode.

    Raises:
        WeightsError: the file is missing, unreadable or of another kind, or a tensor is missing, unknown, misshapen
            or not of finite floats; the message is one line and names it.
    """
    file = open_state_dict(Path(path))
    with errors_in(file.path):
        config = config_of(file.shapes)  # the shapes are judged before any data is read
        model = on_meta(lambda: VQGAN(config))
        model.load_state_dict(file.tensors(), assign=True)
    return model.to(device).eval().requires_grad_(False)


def save(path: Path, model: VQGAN) -> None:
    """Write ``model`` as float32 safetensors that ``load`` takes, whole or not at all.

    Raises:
        OSError: the folder is missing, full or not writable; an older file at ``path`` stays as it was.
    """
    state = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(path, serialize(state))


def give_decoder(source: VQGAN, model: TiTok) -> None:
    """Give a legacy model the codes and the decoder of a 2D tokenizer, which it decodes its pixels with.

    Raises:
        WeightsError: the 2D tokenizer is not of the published size.
    """
    if source.config != VQGAN_PRESETS["published"]:
        raise WeightsError(
            "two-stage models (titok_l32, titok_b64, titok_s128) decode by a 2D tokenizer of the published size: "
            "train that with --proxy-preset published, or give the published MaskGIT-VQGAN"
        )
    model.pixel_quantize.load_state_dict(source.quantize.state_dict())
    model.pixel_decoder.load_state_dict(source.decoder.state_dict())
