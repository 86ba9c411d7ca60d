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
    """N codes of width d, on the unit sphere if ``l2_normalised``. Always computes in float32, even under autocast.

    Args:
        codes, width: N and d.
        l2_normalised: Codes and latents live on the unit sphere.
        codebooks: How many there are; consecutive positions share one.
        positions: K, if positions differ in what their entries are worth, else 0.

    Attributes:
        importance: (K, d) if there are ``positions``: the error that a deviation of 1 in an entry makes, as the root
            of the mean square over a picture's pixels. The nearest code is nearest by that, and so are the two losses,
            which then are errors of pixels. Entries of importance 0 do not exist: they are 0 in every code.
    """

    def __init__(self, codes: int, width: int, l2_normalised: bool, codebooks: int = 1, positions: int = 0) -> None:
        super().__init__()
        self.codes, self.l2_normalised = codes, l2_normalised
        self.share = max(positions // codebooks, 1)  # positions that one codebook serves
        self.embedding = nn.Embedding(codebooks * codes, width)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)
        self.importance: Tensor | None
        self.register_buffer("importance", torch.ones(positions, width) if positions else None)

    def codebook(self) -> Tensor:
        """(N, d) float32, or all codebooks' one after the other: the codes as they are compared and handed on."""
        return self.place(self.embedding.weight.float())

    def nearest(self, latents: Tensor, first: int = 0) -> Tensor:
        """(B, k, d) latents of the positions from ``first`` on -> (B, k) int64 indices of the closest codes."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._nearest(self.place(latents.float()), self.codebook(), first)

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, k) indices of the first k positions -> (B, k, d) float32 codes."""
        if self.importance is None:
            return self.place(self.embedding(tokens).float())
        return self.masked(self.embedding(self.rows(tokens)).float())

    def rows(self, tokens: Tensor) -> Tensor:
        """(B, k) indices of the first k positions -> where all codebooks, one after the other, have these codes."""
        if self.importance is None:
            return tokens
        return tokens + torch.arange(tokens.shape[1], device=tokens.device) // self.share * self.codes

    def masked(self, vectors: Tensor) -> Tensor:
        """(B, k, d) with 0 for entries that do not exist."""
        return vectors if self.importance is None else vectors * (self.importance[: vectors.shape[1]] > 0)

    def forward(self, latents: Tensor) -> Quantized:
        """(B, K, d) latents of any float type -> codes, tokens and the two losses."""
        with torch.autocast(latents.device.type, enabled=False):
            z = self.place(latents.float())
            with torch.no_grad():
                tokens = self._nearest(z, self.codebook())
            codes = self.lookup(tokens)
            if self.importance is None:
                codebook_loss = F.mse_loss(codes, z.detach())
                commitment_loss = F.mse_loss(z, codes.detach())
                return Quantized(z + (codes - z).detach(), tokens, codebook_loss, commitment_loss)
            worth = self.importance.square()
            codebook_loss = ((codes - z.detach()).square() * worth).sum((1, 2)).mean()
            commitment_loss = ((z - codes.detach()).square() * worth).sum((1, 2)).mean()
            z = self.masked(z)
            # The picture's error reaches codes as well as latents: what both should be is what draws best.
            return Quantized(codes + z - z.detach(), tokens, codebook_loss, commitment_loss)

    def place(self, vectors: Tensor) -> Tensor:
        """Vectors where codes live: on the unit sphere if they are l2-normalised, anywhere otherwise."""
        return F.normalize(vectors, dim=-1) if self.l2_normalised else vectors

    def _nearest(self, z: Tensor, codebook: Tensor, first: int = 0) -> Tensor:
        if self.importance is not None:
            return self._nearest_weighted(z, codebook, first)
        flat = z.reshape(-1, z.shape[-1])
        scores = flat @ codebook.T  # on the sphere the nearest code has the largest inner product
        if not self.l2_normalised:
            scores = 2 * scores - codebook.square().sum(1)
        return scores.argmax(1).view(z.shape[:-1])

    def _nearest_weighted(self, z: Tensor, codebook: Tensor, first: int) -> Tensor:
        """By the error in the picture, one codebook after the other."""
        worth = self.importance[first : first + z.shape[1]].square()
        found, start = [], 0
        while start < z.shape[1]:
            book = (first + start) // self.share
            end = min((book + 1) * self.share - first, z.shape[1])
            codes, w = codebook[book * self.codes : (book + 1) * self.codes], worth[start:end]
            scores = (2 * z[:, start:end] * w) @ codes.T - w @ codes.square().T
            found.append(scores.argmax(-1))
            start = end
        return torch.cat(found, 1)
