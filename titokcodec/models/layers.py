"""The transformer that both halves of TiTok are made of, with the published parameter names.

Pre-norm blocks in CLIP's manner: ``x += attention(ln_1(x)); x += mlp(ln_2(x))``, biases everywhere, exact GELU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import Tower


def attention(q: Tensor, k: Tensor, v: Tensor, drop: nn.Module | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over (B, heads, L, d); ``drop`` is applied to the (B, heads, L, L) probabilities.

    With ``causal``, which goes without ``drop``, each position sees itself and those before it.

    PyTorch's fused kernel, except where they are to be dropped, and in bfloat16 on a CPU: at our lengths two batched
    products are up to twice as fast there, and three times in the backward pass.
    """
    if causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if drop is None and (q.device.type != "cpu" or q.dtype != torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v)
    shape = q.shape
    q, k, v = (x.reshape(-1, *x.shape[2:]) for x in (q, k, v))
    scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=shape[-1] ** -0.5)
    found = scores.softmax(-1)
    if drop is not None:
        found = drop(found.view(*shape[:2], *found.shape[1:])).flatten(0, 1)
    return torch.bmm(found, v).view(shape)


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, W) -> (B, L, W); parameters laid out as ``nn.MultiheadAttention`` has them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """One residual attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """What encoder and decoder share: a class token, positions for cells and latents, normed blocks.

    The sequence is [class, cells, latents]; subclasses say what a cell and a latent start from.
    """

    def __init__(self, tower: Tower, cells: int, tokens: int) -> None:
        super().__init__()
        width = tower.width
        self.cells = cells
        self.class_embedding = nn.Parameter(_noise(1, width))
        self.positional_embedding = nn.Parameter(_noise(cells + 1, width))
        self.latent_token_positional_embedding = nn.Parameter(_noise(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Block(width, tower.heads) for _ in range(tower.layers))
        self.ln_post = nn.LayerNorm(width)

    def attend(self, cells: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, cells, W) and (B, k, W) -> the same two after the blocks; k may be less than K."""
        first = self.class_embedding.expand(len(cells), 1, -1)
        x = torch.cat([first, cells], dim=1) + self.positional_embedding
        latents = latents + self.latent_token_positional_embedding[: latents.shape[1]]
        x = self.ln_pre(torch.cat([x, latents], dim=1))
        for block in self.transformer:
            x = block(x)
        return x[:, 1 : 1 + self.cells], x[:, 1 + self.cells :]


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape) * shape[-1] ** -0.5


def init_weights(module: nn.Module) -> None:
    """TiTok's start: truncated normal of deviation .02 for every linear map, zero biases."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
