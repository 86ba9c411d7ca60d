"""Optimizers of a model's parameters, and the averaged copy of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .checkpoint import take
from .hyper import Optimizer
from .muon import Muon

# Of tokenizers, of generators, and of the 2D tokenizer.
_BLOCKS = re.compile(r"(^|\.)(transformer|layer|in_blocks|mid_block|out_blocks|block|mid|upsample_conv)\.|^blocks\.")
_TABLES = re.compile(r"embed|token|(^|\.)(positions|classes|bias)$")  # a vector for each entry of something


class Optimizers:
    """Muon for the blocks' matrices and kernels, AdamW for the rest; no decay on vectors, embeddings, tokens.

    Muon is worth one to two decibels in short runs with a 2D start.
    """

    def __init__(self, model: nn.Module, hyper: Optimizer) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if hyper.muon_rate and _BLOCKS.search(name) and p.ndim > 1]
        chosen = {id(p) for p in matrices}
        # Linear paths are set in closed form, so they have little left to learn.
        linear = [p for name, p in named if ".linear." in name and id(p) not in chosen]
        chosen |= {id(p) for p in linear}
        rest = [(name, p) for name, p in named if id(p) not in chosen]
        groups = decay_groups(rest, hyper.decay)
        groups += [{"params": linear, "weight_decay": 0.0, "lr": hyper.linear_rate}] if linear else []
        betas = (hyper.beta1, hyper.beta2)
        fused = any(p.is_cuda for _, p in rest) or None
        self.all: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=hyper.rate, betas=betas, fused=fused)]
        if matrices:
            self.all.append(Muon(matrices, lr=hyper.muon_rate, weight_decay=hyper.decay))
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["peak"] = group["lr"]

    def step(self, factor: float) -> None:
        """One update at ``factor`` times the peak learning rates; gradients are cleared."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        """Take moments from a checkpoint; peak rates stay those that this run was given."""
        for optimizer, state in zip(self.all, states, strict=True):
            peaks = [group["peak"] for group in optimizer.param_groups]
            take(optimizer, state)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: ``decay`` on matrices and kernels, none on vectors, embeddings and tokens."""
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in named:
        plain = parameter.ndim < 2 or bool(_TABLES.search(name))
        groups[plain]["params"].append(parameter)
    return groups


class EMA:
    """A slowly following copy of a model, the one that is evaluated and shipped."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow ``model`` after update number ``step``, counted from 0.

        What was before keeps the weight min(decay, (1 + step) / (10 + step)), and none after the first update: a start
        is no part of the average.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step)) if step else 1.0
        mine, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(mine, theirs, weight)
