"""Vector quantization: the nearest code stands for a latent (TiTok section 3.1; van den Oord et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What ``VectorQuantizer.forward`` found.

    Attributes:
        codes: (B, K, d) float32 codebook entries; gradients pass straight through to the latents.
        tokens: (B, K) int64 indices.
        codebook_loss: Pulls codes towards latents.
        commitment_loss: Pulls latents towards codes.
    """

    codes: Tensor
    tokens: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


class VectorQuantizer(nn.Module):
    """N codes of width d, on the unit sphere if ``l2_normalised``. Always computes in float32, even under autocast."""

    def __init__(self, codes: int, width: int, l2_normalised: bool) -> None:
        super().__init__()
        self.l2_normalised = l2_normalised
        self.embedding = nn.Embedding(codes, width)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def codebook(self) -> Tensor:
        """(N, d) float32: the codes as they are compared and handed on."""
        return self.place(self.embedding.weight.float())

    def nearest(self, latents: Tensor) -> Tensor:
        """(B, K, d) latents -> (B, K) int64 indices of the closest codes."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._nearest(self.place(latents.float()), self.codebook())

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, K) indices -> (B, K, d) float32 codes."""
        return self.place(self.embedding(tokens).float())

    def forward(self, latents: Tensor) -> Quantized:
        """(B, K, d) latents of any float type -> codes, tokens and the two losses."""
        with torch.autocast(latents.device.type, enabled=False):
            z = self.place(latents.float())
            with torch.no_grad():
                tokens = self._nearest(z, self.codebook())
            codes = self.lookup(tokens)
            codebook_loss = F.mse_loss(codes, z.detach())
            commitment_loss = F.mse_loss(z, codes.detach())
            return Quantized(z + (codes - z).detach(), tokens, codebook_loss, commitment_loss)

    def place(self, vectors: Tensor) -> Tensor:
        """Vectors where codes live: on the unit sphere if they are l2-normalised, anywhere otherwise."""
        return F.normalize(vectors, dim=-1) if self.l2_normalised else vectors

    def _nearest(self, z: Tensor, codebook: Tensor) -> Tensor:
        flat = z.reshape(-1, z.shape[-1])
        scores = flat @ codebook.T  # on the sphere the nearest code has the largest inner product
        if not self.l2_normalised:
            scores = 2 * scores - codebook.square().sum(1)
        return scores.argmax(1).view(z.shape[:-1])
