"""What the training of a generator of ours starts from: its sizes, and what the tokenizer and the tokens tell it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import Network
from titokcodec.models.tokenizer import TiTok
from titokcodec.sampling import PUBLISHED, Settings
from titokcodec.weights import generators
from titokcodec.weights.generators import Card
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
BUNDLED = "bundled"  # what --init takes without a file
OURS = {"autoregressive": replace(DEFAULT, causal=True), "default": DEFAULT}

# How to sample what is trained: the best rows of the README's ablations.
AUTOREGRESSIVE = Settings(guidance_scale=1.5, guidance="constant", top_p=0.7, fine_temperature=0.8)
MASKED = replace(AUTOREGRESSIVE, steps=16, schedule="linear", order="random", top_p=1.0)


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


def sampled_best(preset: str, config: GeneratorConfig) -> tuple[Settings, int | None]:
    """How to sample a generator of a preset, and how many tokens of it: as published, or as suits its kind."""
    if preset in PUBLISHED:
        return Settings(**PUBLISHED[preset]), None
    # Of a nested tokenizer's tokens the first ones are learned best, see the ablation.
    return AUTOREGRESSIVE if config.causal else MASKED, config.counts[0] if len(config.counts) > 1 else None


@torch.no_grad()
def begin(model: CodeTransformer, tokenizer: TiTok, tokens: Tensor | None) -> None:
    """Give a new model the vectors of the tokenizer's codes and, if the (V, n, K) tokens to learn from are there, the
    frequencies of these to begin with."""
    model.set_codes(tokenizer.quantize)
    if tokens is not None:
        model.bias.copy_(log_frequencies(tokens, model.config.codes, model.config.share))


def trained_before(source: str, config: GeneratorConfig, tokenizer: Weights) -> tuple[Card, Network]:
    """A generator that training is to start from.

    Args:
        source: What ``generators.read`` takes, or ``BUNDLED``.
        config: The architecture to train; its classes may be others.
        tokenizer: What the tokens to learn are of.

    Raises:
        TitokError: the file is no generator, or of another architecture or other tokens.
    """
    card, network = generators.read(None if source == BUNDLED else source)
    config = replace(config, classes=card.config.classes)
    if card.tokenizer not in (None, tokenizer.fingerprint):
        raise TitokError(f"generator {card.name} has not learned tokens of {tokenizer.name}: give its own --tokenizer")
    if other := [name for name, value in vars(card.config).items() if value != getattr(config, name)]:
        kind = "--preset autoregressive" if card.config.causal else "--preset default"
        wanted = kind if other == ["causal"] else "the --preset and --tokens that it has"
        raise TitokError(f"generator {card.name} is of another architecture ({', '.join(other)}): give {wanted}")
    return card, network


@torch.no_grad()
def take_over(model: Network, classes: tuple[str, ...], card: Card, before: Network) -> None:
    """Give a new model the weights of one that was trained before. A model of ours may have other classes: those of
    the same name go on, and new ones begin as pictures without a class.

    Args:
        classes: Names of the new model's classes.
        card, before: What ``trained_before`` returned.

    Raises:
        TitokError: a published architecture is to have other classes.
    """
    state, known = before.state_dict(), card.class_names or tuple(map(str, range(card.config.classes)))
    if isinstance(model, CodeTransformer):
        rows = {name: row for row, name in enumerate(known)}
        state["classes"] = state["classes"][[rows.get(name, card.config.classes) for name in (*classes, "")]]
    elif card.config.classes != model.config.classes or (classes and known != classes):
        raise TitokError(f"generator {card.name} has other classes, which only architectures of ours can exchange")
    model.load_state_dict(state)
