"""Vector quantization: the nearest code stands for a latent (TiTok section 3.1; van den Oord et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import SKETCH


class Quantized(NamedTuple):
    """What ``VectorQuantizer.forward`` found.

    Attributes:
        codes: (B, K, d) float32 codebook entries; gradients pass straight through to the latents.
        tokens: (B, K) int64 indices.
        codebook_loss: Pulls codes towards latents.
        commitment_loss: Pulls latents towards codes.
        latents: (B, K, d) float32, what the codes stand for: the latents as they were compared.
    """

    codes: Tensor
    tokens: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    latents: Tensor


class VectorQuantizer(nn.Module):
    """N codes of width d, on the unit sphere if ``l2_normalised``. Always computes in float32, even under autocast.

    Args:
        codes, width: N and d.
        l2_normalised: Codes and latents live on the unit sphere.
        codebooks: How many there are; consecutive positions share one.
        positions: K, if positions differ in what their entries are worth, else 0.
        components: How many there are for entries to describe, if several entries may describe the same one, else 0.

    Attributes:
        importance: (K, d) if there are ``positions``: the error that a deviation of 1 in an entry makes, as the root
            of the mean square over a picture's pixels. The nearest code is nearest by that, and so are the two losses,
            which then are errors of pixels. Entries of importance 0 do not exist: they are 0 in every code.
        component: (K d,) int64 if there are ``components``: the one that each entry describes. What the codes of one
            codebook get wrong about a component is made up for by those of the next ones that describe it, as far as
            they can (residual quantization, Juang and Gray 1982).
    """

    component: Tensor | None
    importance: Tensor | None

    def __init__(
        self, codes: int, width: int, l2_normalised: bool, codebooks: int = 1, positions: int = 0, components: int = 0
    ) -> None:
        super().__init__()
        self.codes, self.l2_normalised = codes, l2_normalised
        self.share = max(positions // codebooks, 1)  # positions that one codebook serves
        self.embedding = nn.Embedding(codebooks * codes, width)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)
        worth = (3 * SKETCH**2) ** -0.5 if components else 1.0  # of a component's unit in the picture
        self.register_buffer("importance", torch.full((positions, width), worth) if positions else None)
        self.components = components
        self.register_buffer("component", torch.arange(positions * width) % components if components else None)

    def codebook(self) -> Tensor:
        """(N, d) float32, or all codebooks' one after the other: the codes as they are compared and handed on."""
        return self.normalize(self.embedding.weight.float())

    def nearest(self, latents: Tensor, first: int = 0) -> Tensor:
        """(B, k, d) latents of the positions from ``first`` on -> (B, k) int64 indices of the closest codes.

        With ``components``, ``first`` is 0: later positions depend on what the first ones got wrong.
        """
        with torch.autocast(latents.device.type, enabled=False):
            return self._compared(self.normalize(latents.float()), first)[0]

    def lookup(self, tokens: Tensor) -> Tensor:
        """(B, k) indices of the first k positions -> (B, k, d) float32 codes."""
        if self.importance is None:
            return self.normalize(self.embedding(tokens).float())
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
            z = self.normalize(latents.float())
            with torch.no_grad():
                tokens, compared = self._compared(z)
            z = z + (compared - z).detach()
            codes = self.lookup(tokens)
            if self.importance is None:
                codebook_loss = F.mse_loss(codes, z.detach())
                commitment_loss = F.mse_loss(z, codes.detach())
                return Quantized(z + (codes - z).detach(), tokens, codebook_loss, commitment_loss, compared)
            worth = self.importance.square()
            codebook_loss = ((codes - z.detach()).square() * worth).sum((1, 2)).mean()
            commitment_loss = ((z - codes.detach()).square() * worth).sum((1, 2)).mean()
            z = self.masked(z)
            # The picture's error reaches codes as well as latents: both should become what decodes best.
            return Quantized(codes + z - z.detach(), tokens, codebook_loss, commitment_loss, compared)

    def normalize(self, vectors: Tensor) -> Tensor:
        """Vectors where codes live: on the unit sphere if they are l2-normalised, anywhere otherwise."""
        return F.normalize(vectors, dim=-1) if self.l2_normalised else vectors

    def _compared(self, z: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Tokens, and the latents that their codes are nearest to: ``z`` itself, unless errors are made up for."""
        if self.importance is not None:
            return self._compared_weighted(z, self.codebook(), first)
        codebook, flat = self.codebook(), z.reshape(-1, z.shape[-1])
        scores = flat @ codebook.T  # on the sphere the nearest code has the largest inner product
        if not self.l2_normalised:
            scores = 2 * scores - codebook.square().sum(1)
        return scores.argmax(1).view(z.shape[:-1]), z

    def _compared_weighted(self, z: Tensor, codebook: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """By the error in the picture, one codebook after the other."""
        assert self.importance is not None
        found, compared, start = [], [], 0
        wrong = z.new_zeros(len(z), self.components)  # with the components so far, in units of the picture
        while start < z.shape[1]:
            book = (first + start) // self.share
            end = min((book + 1) * self.share - first, z.shape[1])
            codes, here = codebook[book * self.codes : (book + 1) * self.codes], z[:, start:end]
            importance = self.importance[first + start : first + end]
            worth = importance.square()
            if self.component is not None:
                entries = slice((first + start) * z.shape[2], (first + end) * z.shape[2])
                which = self.component[entries].clamp(0, self.components - 1)
                left = wrong[:, which].view_as(here)
                here = here - torch.where(worth > 0, left / importance.clamp_min(1e-30), 0.0)
            tokens = nearest_weighted(here, worth, codes)
            if self.component is not None and end < z.shape[1]:
                error = (codes[tokens] - here) * importance - left * (importance > 0)
                wrong = wrong.index_add(1, which, error.flatten(1))
            found.append(tokens)
            compared.append(here)
            start = end
        return torch.cat(found, 1), torch.cat(compared, 1)


def nearest_weighted(points: Tensor, worth: Tensor, codes: Tensor) -> Tensor:
    """(..., d) points, weights of their entries that broadcast to these, (N, d) codes -> (...) int64 indices of the
    codes at the least weighted squared distance."""
    return ((2 * points * worth) @ codes.T - worth @ codes.square().T).argmax(-1)
