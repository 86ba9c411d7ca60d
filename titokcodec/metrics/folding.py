"""BatchNorm folded into the convolution before it: frozen networks compute the same with one layer less."""

from __future__ import annotations

from torch import Tensor

from titokcodec.weights.state_dicts import StateDict

PARTS = ("weight", "bias", "running_mean", "running_var")  # of a BatchNorm, as torch names them


def fold(file: StateDict, conv: str, norm: str, epsilon: float) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of a convolution without bias and the BatchNorm after it.

    Args:
        file: What holds ``CONV.weight`` and all ``PARTS`` of ``NORM``.
        conv, norm: The names of the two.
        epsilon: What the BatchNorm adds to variances.

    Raises:
        WeightsError: a tensor holds other than finite floats.
    """
    scale, shift, mean, variance = (file.tensor(f"{norm}.{part}").double() for part in PARTS)
    gain = scale / (variance + epsilon).sqrt()
    return file.tensor(f"{conv}.weight").double() * gain.view(-1, 1, 1, 1), shift - mean * gain
