"""MaskGIT's transformers: what may stand at the masked positions, given a class and the tokens that are known.

Both generators of TiTok (Yu et al. 2024; MaskGIT is Chang et al. 2022, section 3): a bidirectional BERT for
32 and 64 tokens, a U-ViT with long skips (Bao et al. 2023, section 3) for 128. Parameter names are the published ones.

    tokens (B,K), labels (B,) -> ids [class, token 1 .. token K] -> transformer -> logits (B,K,N) of the K positions

One vocabulary serves both: ids below N are codes, N is the mask, N+1 .. N+C the classes, N+C+1 no class at all.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.layers import attention

BERT_EPS = 1e-12  # of its norms


class _MaskGIT(nn.Module):
    """What both architectures share: ids in front; ``predict`` then takes (B, 1 + K) of them to (B, K, N) logits."""

    def __init__(self, config: GeneratorConfig, drop: nn.Module | None) -> None:
        super().__init__()
        self.config = config
        self.drop = drop or nn.Identity()

    def predict(self, ids: Tensor) -> Tensor:
        """(B, 1 + K) ids of [class, tokens] -> (B, K, N) logits."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits over codes, at known and masked positions alike.

        Args:
            tokens: (B, K) int64 in [0, N]; N stands for a masked one.
            labels: (B,) int64 in [0, classes), -1 for no class; None for no class anywhere.

        Returns (B, K, N) float32.
        """
        labels = torch.full_like(tokens[:, 0], -1) if labels is None else labels
        classes = torch.where(labels < 0, self.config.null_id, labels + (self.config.codes + 1))
        return self.predict(torch.cat([classes[:, None], tokens], dim=1)).float()


class BertBlock(nn.Module):
    """BERT's layer (Devlin et al. 2019): a norm follows each residual sum; biases everywhere, exact GELU.

    ``attend`` and ``feed_forward`` take (B, L, W) to what attention and the MLP add to it.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({part: nn.Linear(width, width) for part in ("query", "key", "value")}),
                "output": _dense(width, width),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.mlp)})
        self.output = _dense(config.mlp, width)

    def attend(self, x: Tensor, drop: nn.Module | None) -> Tensor:
        parts: Any = self.attention
        q, k, v = (_split(linear(x), self.heads) for linear in parts["self"].values())
        return parts["output"]["dense"](attention(q, k, v, drop).transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.output["dense"](F.gelu(self.intermediate["dense"](x)))


class Bert(_MaskGIT):
    """The generator of L32 and B64: BERT over [class, tokens] and one linear map to codes.

    In training, ``drop`` (a tenth as published) falls on the embeddings, the probabilities of attention, and what every
    layer adds.
    """

    def __init__(self, config: GeneratorConfig, drop: nn.Module | None = None) -> None:
        super().__init__(config, drop)
        self.attention_drop = drop
        width = config.width
        self.model = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(
                    {
                        "word_embeddings": nn.Embedding(config.null_id + 1, width),
                        "position_embeddings": nn.Embedding(config.tokens + 1, width),
                        "token_type_embeddings": nn.Embedding(2, width),
                        "LayerNorm": nn.LayerNorm(width, eps=BERT_EPS),
                    }
                ),
                "encoder": nn.ModuleDict({"layer": nn.ModuleList(BertBlock(config) for _ in range(config.layers))}),
                "lm_head": nn.Linear(width, config.codes),
            }
        )
        self.apply(_start)

    def predict(self, ids: Tensor) -> Tensor:
        parts: Any = self.model
        table = parts["embeddings"]
        # BERT marks two sentences by type; here all is the first one, yet its vector was trained along.
        positions = table["position_embeddings"].weight + table["token_type_embeddings"].weight[0]
        x = self.drop(table["LayerNorm"](table["word_embeddings"](ids) + positions))
        drop = self.attention_drop if self.training else None  # without it, attention has a faster kernel
        for block in parts["encoder"]["layer"]:
            x = block.attention["output"]["LayerNorm"](x + self.drop(block.attend(x, drop)))
            x = block.output["LayerNorm"](x + self.drop(block.feed_forward(x)))
        return parts["lm_head"](x[:, 1:])


class UViTBlock(nn.Module):
    """A pre-norm block of the same two parts; on the way out it first takes in what its twin on the way in gave."""

    def __init__(self, config: GeneratorConfig, skip: bool = False) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=False), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, config.mlp), "fc2": nn.Linear(config.mlp, width)})
        if skip:
            self.skip_linear = nn.Linear(2 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1))
        return self.attn["proj"](attention(q, k, v).transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class UViT(_MaskGIT):
    """The generator of S128: U-ViT over [class, tokens], whose blocks out meet the blocks in, last ones first.

    It was trained without dropout; in training, ``drop`` would fall on what every block adds.
    """

    def __init__(self, config: GeneratorConfig, drop: nn.Module | None = None) -> None:
        super().__init__(config, drop)
        half = config.layers // 2
        self.embeddings = nn.Embedding(config.null_id + 1, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, config.tokens + 1, config.width))
        self.in_blocks = nn.ModuleList(UViTBlock(config) for _ in range(half))
        self.mid_block = UViTBlock(config)
        self.out_blocks = nn.ModuleList(UViTBlock(config, skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(config.width)
        self.lm_head = nn.Linear(config.width, config.codes)
        self.apply(_start)
        nn.init.normal_(self.pos_embed, std=0.02)

    def predict(self, ids: Tensor) -> Tensor:
        x = self.embeddings(ids) + self.pos_embed
        passed = []
        block: Any
        for block in self.in_blocks:
            x = self._through(block, x)
            passed.append(x)
        x = self._through(self.mid_block, x)
        for block in self.out_blocks:
            x = self._through(block, block.skip_linear(torch.cat([x, passed.pop()], dim=-1)))
        return self.lm_head(self.norm(x[:, 1:]))

    def _through(self, block: UViTBlock, x: Tensor) -> Tensor:
        x = x + self.drop(block.attend(x))
        return x + self.drop(block.feed_forward(x))


Network: TypeAlias = Bert | UViT | CodeTransformer
_KINDS: dict[str, type[Bert] | type[UViT] | type[CodeTransformer]] = {
    "bert": Bert,
    "uvit": UViT,
    "codes": CodeTransformer,
}


def make(config: GeneratorConfig, drop: nn.Module | None = None) -> Network:
    """A generator of the config's architecture, with random weights.

    Args:
        drop: A module without parameters that drops activations of any shape in training, ``nn.Dropout`` for example.
    """
    return _KINDS[config.architecture](config, drop)


def _dense(inputs: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, width), "LayerNorm": nn.LayerNorm(width, eps=BERT_EPS)})


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, W) -> (B, heads, L, W / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _start(module: nn.Module) -> None:
    """Both are trained from normal noise of deviation .02 and zero biases."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
