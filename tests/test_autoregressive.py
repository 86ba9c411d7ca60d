"""Token by token: what is kept of earlier passes changes nothing, and the choices are those made by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.test_code_transformer import CAUSAL, build, tokens_of
from tests.test_sampling import gumbel_of, streams
from titokcodec import Generator, TitokError
from titokcodec.autoregressive import Cache, choose, sample
from titokcodec.generator import Card
from titokcodec.guidance import guidance_scale_at
from titokcodec.sampling import Settings

LABELS = torch.tensor([0, 2, -1])


@pytest.fixture(scope="module")
def model():
    return build(CAUSAL)


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, Card("tiny", CAUSAL, class_names=("ant", "bee", "cat")), torch.device("cpu"), torch.float32)


def uniform(step, shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(step))


@torch.no_grad()
def plain(model, labels, settings, kept=None, ends=CAUSAL.prefixes):
    """A whole pass for each token, each row on its own."""
    rows = [list(row) for row in (kept if kept is not None else [[None] * ends[-1]] * len(labels))]
    for a, b in zip((0, *ends), ends, strict=False):
        for k in range(a, b):
            noise = uniform(k, (len(rows), 1, CAUSAL.codes)).tolist()
            for n, (row, label) in enumerate(zip(rows, labels, strict=True)):
                if row[k] is not None:
                    continue
                known = torch.tensor([[*row[:k], 0]])
                with_class, without = (model(known, torch.tensor([c]))[0, -1] for c in (label, -1))
                scale = guidance_scale_at(settings.guidance, settings.guidance_scale, k - a, b - a)
                logits = (with_class + scale * (with_class - without)).double().tolist()
                if settings.temperature:
                    logits = [x / settings.temperature + gumbel_of(u) for x, u in zip(logits, noise[n][0], strict=True)]
                row[k] = max(range(len(logits)), key=logits.__getitem__)
    return rows


@pytest.mark.parametrize("first", [0, 1, 3, 7])
def test_logits_are_those_of_the_whole_pass(model, first):
    """At first any number of tokens goes in, then one after the other."""
    tokens, cache, end = tokens_of(CAUSAL), Cache(model, LABELS, 8), 0
    with torch.no_grad():
        for count in [first] + [1] * (7 - first):
            found = cache.next_logits(tokens[:, end : end + count])
            end += count
            torch.testing.assert_close(found, model(tokens, LABELS)[:, end])


@pytest.mark.parametrize("guidance", ["constant", "linear", "cosine", "linear-decay"])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_samples_are_those_of_whole_passes(generator, model, guidance, temperature):
    options = {"guidance": guidance, "guidance_scale": 1.5, "temperature": temperature}
    found = generator.sample([0, 2, None], noise=uniform, **options)
    assert found.tolist() == plain(model, [0, 2, -1], Settings(**options))


def test_kept_tokens_are_taken_as_they_come(generator, model):
    tokens, keep = tokens_of(CAUSAL), torch.zeros(3, 8, dtype=torch.bool)
    keep[:, :3] = True
    keep[1, 5] = keep[2, 7] = True
    kept = [
        [t if k else None for t, k in zip(*row, strict=True)]
        for row in zip(tokens.tolist(), keep.tolist(), strict=True)
    ]
    found = generator.inpaint(tokens, keep, [0, 2, None], noise=uniform, guidance_scale=2)
    assert found.tolist() == plain(model, [0, 2, -1], Settings(guidance_scale=2), kept)
    assert generator.inpaint(tokens, torch.ones_like(keep), seed=1).equal(tokens)
    everything = generator.inpaint(tokens, torch.zeros_like(keep), [0, 2, 1], seed=1)
    assert everything.equal(generator.sample([0, 2, 1], seed=1))


def test_a_picture_does_not_depend_on_those_beside_it(generator):
    tokens, keep = tokens_of(CAUSAL, 2), torch.zeros(2, 8, dtype=torch.bool)
    keep[0, :5] = True
    alone = generator.inpaint(tokens[:1], keep[:1], [1], noise=streams(1))
    assert generator.inpaint(tokens, keep, [1, 0], noise=streams(2))[:1].equal(alone)
    assert generator.sample([1, 0], noise=streams(2))[:1].equal(generator.sample([1], noise=streams(1)))


def test_fewer_tokens_are_the_first_of_more(generator):
    whole = generator.sample(["ant", "bee"], seed=4)
    for count in CAUSAL.prefixes:
        assert generator.sample(["ant", "bee"], tokens=count, seed=4).equal(whole[:, :count])
    assert not generator.sample(["ant", "bee"], seed=5).equal(whole)


def test_nothing_is_guided_without_classes(generator, model, monkeypatch):
    seen = []
    real = Cache.next_logits
    monkeypatch.setattr(Cache, "next_logits", lambda self, tokens: seen.append(len(tokens)) or real(self, tokens))
    generator.sample([None, None], tokens=2, guidance="constant")
    generator.sample([0, None], tokens=2, guidance_scale=0)
    generator.sample([0, None], tokens=2, guidance="constant")
    generator.sample([0, None], tokens=2, guidance_interval=(0.5, 1))  # the second branch needs a beginning too
    assert seen == [2, 2, 2, 2, 4, 4, 4, 4]


def test_steps_have_no_say(generator):
    one = generator.sample([0, 1], seed=3)
    assert generator.sample([0, 1], seed=3, steps=1, schedule="root", softmax_temperature=True).equal(one)


def test_choices_follow_the_distribution():
    """Frequencies of what is chosen are the probabilities, sharpened by the temperature and cut to the nucleus."""
    odds = torch.tensor([0.5, 0.3, 0.15, 0.05])
    numbers = torch.rand(40_000, 4, generator=torch.Generator().manual_seed(1))
    logits = odds.log().expand(len(numbers), 4)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)):
        expected = odds ** (1 / temperature)
        expected = expected / expected.sum()
        inside = [k for k in range(4) if expected[:k].sum() < top_p]
        expected = [float(expected[k] / expected[inside].sum()) if k in inside else 0 for k in range(4)]
        found = choose(logits, Settings(temperature=temperature, top_p=top_p), numbers)
        shares = [(found == k).double().mean().item() for k in range(4)]
        assert shares == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(numbers)))
    assert choose(logits, Settings(temperature=0), None).eq(0).all()


def test_there_are_no_masks(generator, model):
    tokens = tokens_of(CAUSAL)
    torch.testing.assert_close(generator.logits(tokens, [0, 2, None]), model(tokens, LABELS))
    assert generator.logits(tokens[:, :4]).shape == (3, 4, CAUSAL.codes)
    with pytest.raises(TitokError, match="give 0 to 10"):
        generator.logits(torch.full((1, 8), 11))


def test_bfloat16_and_no_pictures(generator):
    narrow = Generator(build(CAUSAL), Card("x", CAUSAL), torch.device("cpu"), torch.bfloat16)
    assert narrow.sample([0, 1], seed=3).equal(narrow.sample([0, 1], seed=3))
    assert generator.sample([]).shape == (0, 8)


def test_it_samples_what_it_has_learned():
    """A tiny model that knows three pictures by heart, one a class."""
    config = replace(CAUSAL, prefixes=())
    model, tokens = build(config).requires_grad_(True), tokens_of(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        logits = model(tokens, torch.arange(3))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = sample(
        model.requires_grad_(False),
        torch.full((3, 8), config.mask_id),
        torch.arange(3),
        np.ones((3, 8), bool),
        config.counts,
        Settings(temperature=0, guidance="constant", guidance_scale=0.5),
        uniform,
    )
    assert found.equal(tokens)
