"""Codebook restarts: codes are initialised from data, and unused ones are replaced by data during training."""

from __future__ import annotations

import torch
from torch import Tensor

from titokcodec.models.quantizer import VectorQuantizer

from . import parallel


class CodebookRestart:
    """Initialises the codes of a quantizer and restarts dead ones.

    Args:
        quantizer: The module, changed in place.
        patience: Steps without use after which a code is replaced by a random latent of the batch.
    """

    def __init__(self, quantizer: VectorQuantizer, patience: int = 30) -> None:
        self.quantizer, self.patience = quantizer, patience
        weight = quantizer.embedding.weight
        self.idle = torch.zeros(len(weight), dtype=torch.long, device=weight.device)

    def start_from(self, latents: Tensor) -> None:
        """Every code becomes a random one of the (B, K, d) latents, slightly moved so that no two are equal."""
        self._replace(torch.ones_like(self.idle, dtype=torch.bool), latents)

    def step(self, tokens: Tensor, latents: Tensor, restart: bool = True) -> Tensor:
        """Note the (B, K) tokens just used on any rank; replace idle codes if ``restart``. Returns how many were."""
        used = torch.zeros_like(self.idle, dtype=torch.bool)
        used.index_fill_(0, self.quantizer.rows(tokens).flatten(), True)  # `used[...] = True` would wait for the device
        used = parallel.anywhere(used)
        self.idle = torch.where(used, 0, self.idle + 1)
        dead = (self.idle > self.patience) & restart
        self._replace(dead, parallel.gathered(latents))
        return dead.sum()

    def state_dict(self) -> dict[str, Tensor]:
        return {"idle": self.idle}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if (state["idle"].dtype, state["idle"].shape) != (self.idle.dtype, self.idle.shape):
            raise ValueError("idle is of another type or shape")
        self.idle.copy_(state["idle"])

    def _picks(self, latents: Tensor, count: int) -> Tensor:
        """(count, d) of the (B, K, d) latents at random; for each of several codebooks, of positions that it serves."""
        if self.quantizer.importance is None:
            flat = latents.flatten(0, -2)
            return flat[torch.randint(len(flat), (count,), device=flat.device)]
        books = torch.arange(count, device=latents.device) // self.quantizer.codes
        position = torch.randint(self.quantizer.share, (count,), device=latents.device) + books * self.quantizer.share
        return latents[torch.randint(len(latents), (count,), device=latents.device), position]

    @torch.no_grad()
    def _replace(self, codes: Tensor, latents: Tensor) -> None:
        """Without a host synchronisation: rows that stay are rewritten with themselves."""
        weight = self.quantizer.embedding.weight
        picks = self._picks(latents.detach().float(), len(weight))
        if self.quantizer.l2_normalised:
            picks = torch.nn.functional.normalize(picks, dim=-1)
        picks = picks + 0.01 * picks.std() * torch.randn_like(picks)
        weight.copy_(torch.where(codes[:, None], picks, weight))
        self.idle = torch.where(codes, 0, self.idle)
