"""What generators learn: which part at which step, what is shown and what is asked, and tiny ones that learn it."""

import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.generator_config import GeneratorConfig
from training import defaults
from training.objectives import MaskedTokens, NextToken, Predictor, objective_of
from training.token_sets import TokenSet, log_frequencies

CODES = 8
CONFIG = GeneratorConfig(
    "codes",
    8,
    CODES,
    classes=2,
    width=48,
    layers=2,
    heads=2,
    mlp=96,
    prefixes=(4, 8),
    codebooks=2,
    code_width=6,
    hidden=32,
)
HYPER = replace(defaults.GENERATOR.short.masking, label_drop=0.0, given_drop=0.0)


def objective(config=CONFIG, **changes):
    return objective_of(config, replace(HYPER, **changes), nullcontext, "arccos")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(count, seed):
    """(count, 8) tokens of which the last four are another name of the first."""
    first = torch.randint(CODES, (count, 4), generator=rng(seed))
    return torch.cat([first, (first * 3 + 1) % CODES], dim=1)


# ---- parts -------------------------------------------------------------------------------------------------------


def test_cheap_parts_are_trained_as_much_oftener_as_is_asked():
    whole = replace(CONFIG, tokens=128, prefixes=(32, 64, 128), codebooks=4)
    for balance, shares in ((1.0, (4 / 7, 2 / 7, 1 / 7)), (0.0, (1 / 3, 1 / 3, 1 / 3))):
        found = objective(whole, part_balance=balance)
        ends = [found.part_at(step).end for step in range(2000)]
        assert [ends.count(end) / 2000 for end in (32, 64, 128)] == pytest.approx(shares, abs=0.005)
        windows = [set(ends[start : start + found.turns]) for start in range(1900)]
        assert all(len(window) == 3 for window in windows) and found.turns < 20
    assert list(found.parts) == [(0, 32), (32, 64), (64, 128)]
    assert objective(replace(CONFIG, prefixes=())).parts == ((0, 8),)


def test_a_part_is_asked_for_given_all_before_it_and_some_of_itself():
    seen, target = [], pairs(64, 0)

    def forward(tokens, labels, first=0):
        seen.append((tokens, labels, first))
        return torch.zeros(len(tokens), tokens.shape[1] - first, CODES)

    found = objective()
    labels = torch.arange(64) % 2
    for step in range(20):
        loss, more = found.loss(forward, target, labels, step, rng(step))
        assert loss.item() == pytest.approx(math.log(CODES)) and more["tokens"] == found.part_at(step).end
    assert {tokens.shape[1] for tokens, _, _ in seen} == {4, 8}
    for tokens, given, first in seen:
        masked = tokens == CONFIG.mask_id
        assert first == tokens.shape[1] - 4 and given.equal(labels)
        assert not masked[:, :first].any() and masked[:, first:].any(1).all() and not masked[:, first:].all()
        assert torch.where(masked, target[:, : first + 4], tokens).equal(target[:, : first + 4])
    seen.clear()
    for step in range(20):
        objective(given_drop=0.25, label_drop=0.5).loss(forward, target, labels, step, rng(step))
    lost = torch.cat([tokens[:, :4] == CONFIG.mask_id for tokens, _, first in seen if first])
    assert lost.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.cat([given for _, given, _ in seen]).eq(-1).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_an_autoregressive_generator_sees_all_of_a_prefix():
    seen = []

    def forward(tokens, labels, first=0):
        seen.append(tokens)
        return torch.zeros(*tokens.shape, CODES)

    found, target = objective(replace(CONFIG, causal=True)), pairs(16, 0)
    for step in range(20):
        loss, more = found.loss(forward, target, torch.zeros(16, dtype=torch.int64), step, rng(step))
        assert loss.item() == pytest.approx(math.log(CODES)) and more["tokens"] == seen[-1].shape[1]
    assert {tokens.shape[1] for tokens in seen} == {4, 8}
    assert all(tokens.equal(target[:, : tokens.shape[1]]) for tokens in seen)


# ---- what training starts from -----------------------------------------------------------------------------------


def test_a_generator_starts_from_the_frequencies_of_its_tokens():
    tokens = torch.stack([torch.tensor([[0, 1], [0, 2], [0, 1]]), torch.tensor([[0, 1], [1, 1], [0, 1]])])
    found = log_frequencies(tokens, 4, share=2).exp()
    assert found.sum(1).tolist() == pytest.approx([1, 1])
    seen = torch.tensor([[5, 1, 0, 0], [0, 5, 1, 0]]) / 2  # two crops of a picture count as one
    book = seen.sum(0) + 1  # of both positions, each code once more
    assert found.flatten().tolist() == pytest.approx(((seen + 4 * book / 10) / 7).flatten().tolist())
    alone = log_frequencies(tokens, 4, share=1).exp()  # each position has a codebook of its own
    assert alone[0].tolist() == pytest.approx(((seen[0] + 4 * (seen[0] + 1) / 7) / 7).tolist())


# ---- tiny ones that learn ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_what_the_first_part_determines_is_learned(causal):
    """Held out: the first part is as good as chance, the second is known."""
    torch.manual_seed(0)
    config = replace(CONFIG, causal=causal)
    model, found = CodeTransformer(config), objective(config, part_balance=0.0)
    assert isinstance(found, NextToken if causal else MaskedTokens)
    model.vectors.normal_()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    for step in range(500):
        loss, _ = found.loss(Predictor(model), pairs(64, step), torch.full((64,), -1), step, rng(-step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    val = TokenSet(pairs(200, -1)[None], torch.full((200,), -1))
    scores = found.score(model.eval(), val)
    assert scores["entropy/4"] == pytest.approx(math.log(CODES), abs=0.15)
    assert scores["entropy/8"] < 0.1
    assert scores["entropy"] == pytest.approx((scores["entropy/4"] + scores["entropy/8"]) / 2)
    assert scores == found.score(model, val), "the same masks at every score"
    if causal:  # the exact log-likelihood
        each = torch.nn.functional.cross_entropy(model(val.tokens[0]).transpose(1, 2), val.tokens[0], reduction="none")
        assert scores["entropy"] == pytest.approx(each.mean().item(), rel=1e-4)
