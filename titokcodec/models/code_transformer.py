"""A transformer that knows tokens by the vectors of their codes: few pictures teach it what each code stands for.

Other generators learn a row of a table for each code. Four codebooks of 4096 codes are 16,384 rows, and twenty thousand
pictures show each of them a few times only. But a code has a vector, and near vectors mean near pictures: here a small
network, the same for all codes, maps vectors to embeddings, and another one to the rows that outputs are compared with.
What an entry of a vector means differs from position to position, so each has a linear map of its own too, and, where
outputs are compared, one to the entries and their squares: the logarithm of a normal distribution, which classes shift
and scale.

    tokens (B,k), labels (B,) -> [class, embeddings] -> pre-norm blocks -> (B,k,W) -> products with all codes' rows

Masked (MaskGIT, Chang et al. 2022) or causal (autoregressive: each token from the class and those before it).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.errors import WeightsError
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.layers import attention
from titokcodec.models.quantizer import VectorQuantizer


class CodeMap(nn.Module):
    """(..., d) vectors -> (..., W): a hidden layer with GELU, and a linear map beside it."""

    def __init__(self, code_width: int, hidden: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(code_width, hidden)
        self.leave = nn.Linear(hidden, width)
        self.beside = nn.Linear(code_width, width, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.leave(F.gelu(self.enter(vectors))) + self.beside(vectors)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to what was there; biases everywhere, exact GELU."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width, self.heads, self.causal = config.width, config.heads, config.causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.mlp)
        self.fc2 = nn.Linear(config.mlp, width)

    def forward(self, x: Tensor, drop: nn.Module) -> Tensor:
        q, k, v = self.projected(x)
        x = x + drop(self.joined(attention(q, k, v, causal=self.causal)))
        return x + drop(self.feed_forward(x))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, W) -> queries, keys and values, each (B, heads, L, W / heads)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        return q, k, v

    def joined(self, heads: Tensor) -> Tensor:
        """(B, heads, L, W / heads) that attention found -> (B, L, W)."""
        return self.proj(heads.transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm2(x))))


class CodeTransformer(nn.Module):
    """The generator of architecture ``codes``. Its codes are those of a tokenizer: see ``set_codes``.

    Args:
        config: Its sizes.
        drop: Falls, in training, on what each block adds.

    Attributes:
        vectors: (G, N, d) buffer, the codebooks' vectors, scaled to a deviation of 1.
        active: (K, d) buffer, 1 for entries of vectors that exist at a position, 0 for others.
        bias: (K, N), what codes have beforehand; training begins it at the logarithms of their frequencies.
        enter_weight: (K, d, W), each position's map from vectors to embeddings.
        leave_weight: (K, W, 2 d), each position's map from hidden states to what entries and their squares weigh.
    """

    vectors: Tensor
    active: Tensor

    def __init__(self, config: GeneratorConfig, drop: nn.Module | None = None) -> None:
        super().__init__()
        self.config, self.drop = config, drop or nn.Identity()
        width, tokens = config.width, config.tokens
        self.register_buffer("vectors", torch.zeros(config.codebooks, config.codes, config.code_width))
        self.register_buffer("active", torch.ones(tokens, config.code_width))
        self.positions = nn.Parameter(torch.empty(tokens + 1, width))
        self.classes = nn.Parameter(torch.empty(config.classes + 1, width))  # the last stands for no class
        self.mask = None if config.causal else nn.Parameter(torch.empty(width))
        self.enter = CodeMap(config.code_width, config.hidden, width)
        self.leave = CodeMap(config.code_width, config.hidden, width)
        self.enter_weight = nn.Parameter(torch.empty(tokens, config.code_width, width))
        self.leave_weight = nn.Parameter(torch.zeros(tokens, width, 2 * config.code_width))
        self.bias = nn.Parameter(torch.zeros(tokens, config.codes))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self._table: tuple[list, Tensor] | None = None  # what it was made of, and the table: see ``rows``
        self._start()

    def _start(self) -> None:
        """Normal noise of deviation .02, less where blocks add to what was there (GPT-2); code maps as torch has it."""
        for table in (self.positions, self.classes, self.mask):
            if table is not None:
                nn.init.normal_(table, std=0.02)
        nn.init.normal_(self.enter_weight, std=0.5 * self.config.code_width**-0.5)
        for name, value in self.blocks.named_parameters():
            if value.ndim == 2:
                adds = name.split(".")[-2] in ("proj", "fc2")
                nn.init.normal_(value, std=0.02 / math.sqrt(2 * self.config.layers) if adds else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(value)

    def set_codes(self, quantizer: VectorQuantizer) -> None:
        """Take over the codes of a tokenizer (``TiTok.quantize``), whose first K tokens are to be generated.

        Raises:
            WeightsError: its codebooks do not fit the config.
        """
        vectors, active = code_vectors(quantizer, self.config.tokens)
        for own, given in ((self.vectors, vectors), (self.active, active)):
            if own.shape != given.shape:
                raise WeightsError(f"the tokenizer's codes are {tuple(given.shape)}, not {tuple(own.shape)}")
            own.copy_(given)

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits over codes at each position: from all others, or, if causal, from those before it.

        Args:
            tokens: (B, k) int64 in [0, N], the first k <= K of a picture; N stands for a masked one, which there is
                none of if causal. The last is of no account then.
            labels: (B,) int64 in [0, classes), -1 for no class; None for no class anywhere.

        Returns (B, k, N) float32.
        """
        return self.logits_of(self.hidden(tokens, labels))

    def hidden(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, k, W): what ``logits_of`` makes logits of; arguments as of ``forward``."""
        x = self.embedded(tokens, labels)
        for block in self.blocks:
            x = block(x, self.drop)
        return self.norm(x if self.config.causal else x[:, 1:])

    def logits_of(self, hidden: Tensor, first: int = 0) -> Tensor:
        """(B, k, W) hidden states of the positions from ``first`` on -> (B, k, N) float32 logits."""
        share, end = self.config.share, first + hidden.shape[1]
        parts = []
        while first < end:
            book = first // share
            stop = min((book + 1) * share, end)
            here, hidden = hidden[:, : stop - first], hidden[:, stop - first :]
            weights = torch.einsum("bkw,kwd->bkd", here, self.leave_weight[first:stop].to(here.dtype))
            weights = weights * self.active[first:stop].repeat(1, 2)
            here = torch.cat([here, weights.to(here.dtype)], 2)
            parts.append((here @ self.rows(book).T).float() + self.bias[first:stop].float())
            first = stop
        return torch.cat(parts, 1)

    def embedded(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        """(B, k) tokens -> (B, 1 + k, W): the class in front, and added to all. If causal, without the last token."""
        label = self.labelled(torch.full_like(tokens[:, 0], -1) if labels is None else labels)
        tokens = tokens[:, :-1] if self.config.causal else tokens
        x = torch.cat([label, self.entered(tokens).to(label.dtype)], 1)
        return x + self.positions[: x.shape[1]] + label

    def labelled(self, labels: Tensor) -> Tensor:
        """(B,) labels, -1 for no class -> (B, 1, W)."""
        return self.classes[torch.where(labels < 0, self.config.classes, labels)][:, None]

    def entered(self, tokens: Tensor, first: int = 0) -> Tensor:
        """(B, k) tokens of the positions from ``first`` on -> (B, k, W), without class and positions."""
        at = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        found = self.vectors[at // self.config.share, tokens.clamp(max=self.config.codes - 1)]
        here = slice(first, first + tokens.shape[1])
        found = found * self.active[here]
        x = self.enter(found)
        x = x + torch.einsum("bkd,kdw->bkw", found, self.enter_weight[here]).to(x.dtype)
        if self.mask is None:
            return x
        return torch.where((tokens == self.config.mask_id)[..., None], self.mask.to(x.dtype), x)

    def rows(self, book: int) -> Tensor:
        """(N, W + 2 d) of a codebook: what hidden states, and weights of entries and squares, are multiplied with.

        All codebooks' are kept while what they are made of stays as it is, but not with gradients or in compiled code.
        """
        made_of = [self.vectors, *self.leave.parameters()]
        anew = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if anew or any(value.is_inference() for value in made_of):
            return self._rows(self.vectors[book])
        state = [(id(value), value._version, value.dtype, value.device) for value in made_of]
        if self._table is None or self._table[0] != state:
            with torch.autocast(self.vectors.device.type, enabled=False):  # which may be on today and off tomorrow
                self._table = state, self._rows(self.vectors)
        return self._table[1][book]

    def _rows(self, vectors: Tensor) -> Tensor:
        """(..., d) -> (..., W + 2 d)."""
        # Squares reach a hundred, so that a step of theirs must be smaller than one of the entries.
        parts = self.leave(vectors), vectors * 4, vectors.square() - 1
        return torch.cat([part.to(parts[0].dtype) for part in parts], -1) * self.config.width**-0.5


def sizes_of(quantizer: VectorQuantizer, tokens: int) -> dict[str, int]:
    """What a ``GeneratorConfig`` says of a tokenizer's codes: ``tokens``, ``codes``, ``codebooks`` and ``code_width``.

    Raises as ``code_vectors`` does.
    """
    books, codes, code_width = code_vectors(quantizer, tokens)[0].shape
    return {"tokens": tokens, "codes": codes, "codebooks": books, "code_width": code_width}


def code_vectors(quantizer: VectorQuantizer, tokens: int) -> tuple[Tensor, Tensor]:
    """What a tokenizer's codes are at its first positions.

    Args:
        quantizer: Of the tokenizer.
        tokens: K, how many positions.

    Returns:
        (G, N, d) float32 vectors of the G codebooks that these positions have, scaled to a deviation of 1 over all
        codebooks, and (K, d) float32, 1 for entries that exist at a position and 0 for others.

    Raises:
        WeightsError: the last of the codebooks serves fewer positions than the others.
    """
    codebook = quantizer.codebook().detach()
    if quantizer.importance is None:
        vectors, active = codebook[None], torch.ones(tokens, codebook.shape[1], device=codebook.device)
    else:
        books = -(-tokens // quantizer.share)
        if tokens > quantizer.share and tokens % quantizer.share:
            raise WeightsError(f"{tokens} tokens have codebooks of {quantizer.share} each: give a multiple of that")
        vectors = codebook.view(-1, quantizer.codes, codebook.shape[1])[:books]
        active = (quantizer.importance[:tokens] > 0).float()
    return vectors / codebook.std(), active
