"""What the training of a generator of ours starts from: its sizes, and what the tokenizer and the tokens tell it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError
from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights.tokenizers import Weights

from .token_sets import log_frequencies

DEFAULT = GeneratorConfig(
    "codes",
    128,
    classes=16,
    width=256,
    layers=8,
    heads=4,
    mlp=1024,
    prefixes=(32, 64, 128),
    codebooks=4,
    code_width=24,
)
OURS = {"autoregressive": replace(DEFAULT, causal=True), "default": DEFAULT}


def fitted(base: GeneratorConfig, tokenizer: Weights, tokens: int | None) -> GeneratorConfig:
    """The architecture for the tokens of a tokenizer.

    Args:
        tokens: How many, if they are chosen; else as many as a published architecture has, or all of the tokenizer's.

    Raises:
        UsageError: the tokenizer does not have so many.
    """
    has, ours = tokenizer.config, base.architecture == "codes"
    count = tokens or (has.tokens if ours else base.tokens)
    if not has.min_tokens <= count <= has.tokens:
        span = f"{has.min_tokens} to {has.tokens}" if has.nested else has.tokens
        raise UsageError(
            f"tokenizer {tokenizer.name} has {span} tokens, not {count}: give another --tokenizer or --tokens"
        )
    if not ours:
        return replace(base, tokens=count, codes=has.codes)
    share = has.tokens // has.codebooks
    if count > share and count % share:
        raise UsageError(
            f"each {share} tokens have a codebook of their own, so {count} do not fit: give other --tokens"
        )
    return replace(
        base,
        tokens=count,
        codes=has.codes,
        prefixes=(*(length for length in base.prefixes if has.min_tokens <= length < count), count),
        codebooks=-(-count // share),
        code_width=has.code_width,
    )


@torch.no_grad()
def begin(model: CodeTransformer, tokenizer: TiTok, tokens: Tensor | None) -> None:
    """Give a new model the vectors of the tokenizer's codes and, if the (V, n, K) tokens to learn from are there, the
    frequencies of these to begin with."""
    model.set_codes(tokenizer.quantize)
    if tokens is not None:
        model.bias.copy_(log_frequencies(tokens, model.config.codes, model.config.share))
