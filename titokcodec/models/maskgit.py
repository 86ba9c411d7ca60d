"""MaskGIT's transformers: what may stand at the masked positions, given a class and the tokens that are known.

Both generators of TiTok (Yu et al. 2024; MaskGIT is Chang et al. 2022, section 3): a bidirectional BERT for
32 and 64 tokens, a U-ViT with long skips (Bao et al. 2023, section 3) for 128. Parameter names are the published ones.

    tokens (B,K), labels (B,) -> ids [class, token 1 .. token K] -> transformer -> logits (B,K,N) of the K positions

One vocabulary serves both: ids below N are codes, N is the mask, N+1 .. N+C the classes, N+C+1 no class at all.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.errors import WeightsError
from titokcodec.format.limits import MAX_TOKENS
from titokcodec.models.config import DEEPEST
from titokcodec.models.layers import attention
from titokcodec.models.shapes import Shape, Shapes, shape_of
from titokcodec.models.validation import check_fields, check_types, parse_json, require

ARCHITECTURES = ("bert", "uvit")
MOST_PARAMETERS = 1 << 30  # 4 GiB in float32, over three times the largest published one; no file may ask for more
BERT_EPS = 1e-12  # of its norms
_SIXTEEN_HEADS = (768, 1024)  # published widths; the number of heads shows in no tensor's shape


@dataclass(frozen=True)
class GeneratorConfig:
    """Architecture of one generator. Raises ``WeightsError`` for sizes that make no sense.

    Attributes:
        architecture: ``bert`` (post-norm, learned positions) or ``uvit`` (pre-norm, long skips).
        tokens: K, tokens a picture.
        codes: N, entries of the tokenizer's codebook.
        classes: C, classes it can be asked for.
        width, layers, heads, mlp: Of the transformer. A U-ViT has ``layers`` blocks, half before and half after one
            more in the middle.
    """

    architecture: str
    tokens: int
    codes: int = 4096
    classes: int = 1000
    width: int = 768
    layers: int = 24
    heads: int = 16
    mlp: int = 3072

    def __post_init__(self) -> None:
        check_types(self)
        named = reprlib.repr(self.architecture)
        require(self.architecture in ARCHITECTURES, f"architecture {named} is none of bert, uvit")
        require(self.width % self.heads == 0, f"width {self.width} is not a multiple of {self.heads} heads")
        require(self.layers <= DEEPEST, f"layers is {self.layers}")
        require(self.architecture == "bert" or self.layers % 2 == 0, "a U-ViT has as many blocks before as after")
        require(self.tokens <= MAX_TOKENS, f"tokens is {self.tokens}, not 1 to {MAX_TOKENS}")
        require(self.codes >= 2, "a codebook needs two codes or more")
        require(self.parameters <= MOST_PARAMETERS, f"{self.parameters} parameters are more than {MOST_PARAMETERS}")

    @property
    def mask_id(self) -> int:
        """The id that stands where a token is not known yet."""
        return self.codes

    @property
    def null_id(self) -> int:
        """The id of no class, which the unconditional branch of guidance is given."""
        return self.codes + 1 + self.classes

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, without building it."""
        width, mlp = self.width, self.mlp
        common = (self.null_id + 1 + self.tokens + 1) * width + 2 * width + (width + 1) * self.codes
        block = 4 * width * width + 4 * width + (2 * width + 1) * mlp + 2 * width  # attention, norms, both MLP layers
        if self.architecture == "bert":
            return common + 2 * width + self.layers * (block + 3 * width)  # token types; biases of q, k and v
        return common + (self.layers + 1) * block + self.layers // 2 * (2 * width + 1) * width

    def to_json(self) -> str:
        """Canonical text: equal configs give equal bytes, so that fingerprints may hash it."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> GeneratorConfig:
        """Inverse of ``to_json``. Raises ``WeightsError`` for anything but a complete, sensible config."""
        values = parse_json(text)
        check_fields(values, cls, "it")  # a default may change, a file may not
        return cls(**values)


# Published totals: 177 million for L32, which the listed tensors alone make (a pooler would make 178), and 295 million
# for S128 by its code, an output layer of its own with a bias included.
PRESETS: dict[str, GeneratorConfig] = {
    "generator_titok_l32": GeneratorConfig("bert", 32),
    "generator_titok_b64": GeneratorConfig("bert", 64),
    "generator_titok_s128": GeneratorConfig("uvit", 128, width=1024, layers=20, mlp=4096),
}


class _MaskGIT(nn.Module):
    """What both architectures share: ids in front; ``predict`` then takes (B, 1 + K) of them to (B, K, N) logits."""

    def __init__(self, config: GeneratorConfig, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.drop = nn.Dropout(dropout)

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

    def attend(self, x: Tensor) -> Tensor:
        parts: Any = self.attention
        q, k, v = (_split(linear(x), self.heads) for linear in parts["self"].values())
        return parts["output"]["dense"](attention(q, k, v).transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.output["dense"](F.gelu(self.intermediate["dense"](x)))


class Bert(_MaskGIT):
    """The generator of L32 and B64: BERT over [class, tokens] and one linear map to codes.

    In training, dropout (0.1 as published) falls on the embeddings and on what every layer adds.
    """

    def __init__(self, config: GeneratorConfig, dropout: float = 0.0) -> None:
        super().__init__(config, dropout)
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
        for block in parts["encoder"]["layer"]:
            x = block.attention["output"]["LayerNorm"](x + self.drop(block.attend(x)))
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
    """The generator of S128: U-ViT over [class, tokens], whose blocks out meet the blocks in, last ones first."""

    def __init__(self, config: GeneratorConfig, dropout: float = 0.0) -> None:
        super().__init__(config, dropout)
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


def make(config: GeneratorConfig, dropout: float = 0.0) -> Bert | UViT:
    """A generator of the config's architecture, with random weights."""
    return (Bert if config.architecture == "bert" else UViT)(config, dropout)


def config_of(shapes: Shapes, heads: int | None = None) -> GeneratorConfig:
    """The architecture of a published checkpoint, from the tensors that show its sizes.

    Allocates nothing, whatever the shapes claim. That all other tensors fit is checked where they are loaded.

    No shape shows the heads: None takes 16 at the published widths 768 and 1024, one for every 64 channels elsewhere.
    Raises ``WeightsError`` if a tensor that shows a size is missing (it is named) or misshapen, or a size is absurd.
    """

    def shape(name: str, axes: int) -> Shape:
        return shape_of(shapes, name, axes, "no MaskGIT generator")

    if "model.embeddings.word_embeddings.weight" in shapes:
        vocabulary, width = shape("model.embeddings.word_embeddings.weight", 2)
        positions, _ = shape("model.embeddings.position_embeddings.weight", 2)
        codes, _ = shape("model.lm_head.weight", 2)
        mlp, _ = shape("model.encoder.layer.0.intermediate.dense.weight", 2)
        architecture, layers = "bert", _count(shapes, "model.encoder.layer.")
    elif "embeddings.weight" in shapes:
        vocabulary, width = shape("embeddings.weight", 2)
        _, positions, _ = shape("pos_embed", 3)
        codes, _ = shape("lm_head.weight", 2)
        mlp, _ = shape("in_blocks.0.mlp.fc1.weight", 2)
        architecture, layers = "uvit", 2 * _count(shapes, "in_blocks.")
    else:
        raise WeightsError("this is no MaskGIT generator: its tensors are neither BERT's nor U-ViT's")
    if heads is None:
        heads = 16 if width in _SIXTEEN_HEADS else max(1, width // 64)
    return GeneratorConfig(architecture, positions - 1, codes, vocabulary - codes - 2, width, layers, heads, mlp)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many different numbers follow the prefix; a gap shows once all names are compared."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)})


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
