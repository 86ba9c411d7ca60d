"""Linear paths: what a linear map finds in a picture's low frequencies.

A picture averaged to 64 x 64, its colours and its rows and columns decorrelated by fixed orthonormal transforms, is a
spectrum. One matrix takes the spectrum to the latents and one takes the codes back, beside the transformers, which then
add what is not linear. Set in closed form (``training.starts``), an untrained model is a transform codec: principal
components of pictures, grouped into tokens from coarse to fine.

Everything here computes in float32, whatever the transformers run in: the first latents span a hundred times what the
last ones do.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import LOW, SKETCH

SIDE = SKETCH  # pixels along one side of the picture that the spectrum is taken of
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))  # grey, red against blue, green against magenta
# How much less the two colour differences vary than grey does, in photographs: their frequencies are worth keeping up
# to a root of that times the radius.
SHARES = (1.0, 0.42, 0.24)


class Spectrum(nn.Module):
    """Pixels to whitened low frequencies and back.

    Args:
        count: Coefficients kept, those that vary most in photographs.

    Attributes:
        mean, deviation: (count,) of the coefficients over pictures; what is handed on is (coefficient - mean) over
            deviation.
    """

    colour: Tensor
    cosine: Tensor
    chosen: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        colour, cosine, chosen = _transforms(count)
        # Not from torch's factories: these are constants, real even where a model without memory is built.
        self.register_buffer("colour", torch.from_numpy(colour.copy()), persistent=False)
        self.register_buffer("cosine", torch.from_numpy(cosine.copy()), persistent=False)
        self.register_buffer("chosen", torch.from_numpy(chosen.copy()), persistent=False)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def coefficients(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, H) in [0, 1], H a multiple of 64 -> (B, count) float32, orthonormal: squares add up to pixels'."""
        x = pixels.float()
        if x.shape[-1] != SIDE:
            x = F.avg_pool2d(x, x.shape[-1] // SIDE)
        x = torch.einsum("nchw,kc->nkhw", x - 0.5, self.colour)
        x = self.cosine @ x @ self.cosine.T
        return x.flatten(1)[:, self.chosen]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, H) in [0, 1] -> (B, count) float32 of about unit variance."""
        return (self.coefficients(pixels) - self.mean) / self.deviation

    def picture(self, whitened: Tensor) -> Tensor:
        """(B, count) -> (B, 3, 64, 64) pixels, not clamped: the inverse of ``forward`` on what was kept."""
        full = whitened.new_zeros(len(whitened), 3 * LOW * LOW)
        full = full.index_copy(1, self.chosen, whitened * self.deviation + self.mean)
        x = self.cosine.T @ full.view(-1, 3, LOW, LOW) @ self.cosine
        return torch.einsum("nkhw,kc->nchw", x, self.colour) + 0.5


class LinearPath(nn.Module):
    """A matrix between whitened frequencies and the entries of all codes.

    With ``components`` the matrix is between frequencies and these, and every entry is one of them at some scale.

    Attributes:
        component: (K d,) int64, which component each entry of each token describes.
        gain: (K d,) how many units of the component a unit of the entry is, or the other way round in the encoder.
    """

    component: Tensor
    gain: Tensor

    def __init__(self, count: int, entries: int, components: int) -> None:
        super().__init__()
        self.spectrum = Spectrum(count)
        self.components = components
        self.register_buffer("component", torch.arange(entries) % components if components else None)
        self.register_buffer("gain", torch.ones(entries) if components else None)

    def described(self) -> Tensor:
        """``component``, in range whatever a weight file said."""
        return self.component.clamp(0, self.components - 1)


class LinearEncoder(LinearPath):
    """(B, 3, H, H) -> (B, K, d) float32 latents."""

    def __init__(self, count: int, tokens: int, width: int, components: int = 0) -> None:
        super().__init__(count, tokens * width, components)
        self.weight = nn.Parameter(torch.zeros(components or tokens * width, count))
        self.width = width
        if components:
            self.gain[components:] = 0  # entries that describe a component again begin with what others left: nothing

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            found = F.linear(self.spectrum(pixels), self.weight.float())
            if self.components:
                found = found[:, self.described()] * self.gain
            return found.unflatten(1, (-1, self.width))


class LinearDecoder(LinearPath):
    """(B, k, d) codes -> (B, 3, 64, 64) float32 pixels, the sketch. Tokens that are missing count as their mean, 0."""

    def __init__(self, count: int, tokens: int, width: int, components: int = 0) -> None:
        super().__init__(count, tokens * width, components)
        self.weight = nn.Parameter(torch.zeros(count, components or tokens * width))

    def forward(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            flat = codes.float().flatten(1)
            entries = flat.shape[1]
            if not self.components:
                return self.spectrum.picture(F.linear(flat, self.weight.float()[:, :entries]))
            parts = flat.new_zeros(len(flat), self.components)
            parts = parts.index_add(1, self.described()[:entries], flat * self.gain[:entries])
            return self.spectrum.picture(F.linear(parts, self.weight.float()))


@lru_cache(maxsize=8)
def _transforms(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, 3) orthonormal colours, (32, 64) rows of the orthonormal DCT-II, (count,) positions of the coefficients kept.

    Variances of photographs fall with the square of the frequency, so the order is that of distances from the origin,
    colour differences seeming farther away.
    """
    colour = np.array(COLOURS)
    colour /= np.linalg.norm(colour, axis=1, keepdims=True)
    k, i = np.arange(LOW)[:, None], np.arange(SIDE)[None]
    cosine = np.cos(math.pi * (2 * i + 1) * k / (2 * SIDE)) * math.sqrt(2 / SIDE)
    cosine[0] /= math.sqrt(2)
    radius = np.hypot(k, k.T)
    far = np.stack([(radius + 0.5) / share for share in SHARES])
    chosen = np.sort(np.argsort(far, axis=None, kind="stable")[:count])
    return colour.astype(np.float32), cosine.astype(np.float32), chosen
