"""Muon (Jordan 2024): momentum whose every update is made orthogonal, so that all directions of a matrix move alike.

PyTorch has one from 2.9 on. This one takes the kernels of convolutions too, orthogonalises matrices of one shape
together, and computes in bfloat16 only where the device multiplies it natively: elsewhere that would cost a hundred
times as much.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from titokcodec.runtime.devices import choose_dtype

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: small singular values rise fastest, and all end between .7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For parameters of two dimensions or more, each a matrix with a row for every entry of its first dimension.

    Args:
        parameters: In any memory format.
        lr: Of a square matrix; taller ones take larger steps, by the root of their proportions.
        weight_decay: As AdamW's.
        momentum: Nesterov's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p, moved in zip(params, self._moved(params, group["momentum"]), strict=True):
                matrix = moved.flatten(1)
                alike[tuple(matrix.shape)].append((p, matrix))
            if params:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            for (rows, columns), members in alike.items():
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                updates = orthogonal(torch.stack([matrix for _, matrix in members]))
                turned = [update.view(p.shape) for (p, _), update in zip(members, updates, strict=True)]
                torch._foreach_sub_([p for p, _ in members], turned, alpha=rate)

    def _moved(self, params: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """Gradients with their momenta. All in a few calls: a GPU waits for its host otherwise."""
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grads, means = [p.grad for p in params], [self.state[p]["momentum_buffer"] for p in params]
        if not params:
            return []
        torch._foreach_lerp_(means, grads, 1 - momentum)
        return list(torch._foreach_lerp(grads, means, momentum))


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, rows, columns) matrices with their singular values brought near 1, in their own precision.

    Newton-Schulz iterations, which are matrix products alone.
    """
    a, b, c = QUINTIC
    x = matrices.to(choose_dtype(matrices.device))
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
