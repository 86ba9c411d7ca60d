"""The transformer on codes' vectors: a tokenizer's codes, prefixes, and tokens that come later."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from titokcodec.errors import WeightsError
from titokcodec.models.code_transformer import code_vectors, sizes_of
from titokcodec.models.generator_config import MOST_PARAMETERS, GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.quantizer import VectorQuantizer

MASKED = GeneratorConfig(
    "codes", 8, codes=11, classes=3, width=32, layers=2, heads=4, mlp=40, prefixes=(2, 4, 8), codebooks=4, code_width=6
)
MASKED = replace(MASKED, hidden=20)
CAUSAL = replace(MASKED, causal=True)
KINDS = pytest.mark.parametrize("config", [MASKED, CAUSAL], ids=["masked", "causal"])


def quantizer(codebooks=4, positions=8, seed=3):
    """A tokenizer's codes, of which the later positions have fewer entries."""
    torch.manual_seed(seed)
    found = VectorQuantizer(11, 6, False, codebooks, positions)
    found.embedding.weight.data.normal_(std=3)
    if positions:
        found.importance[positions // 2 :, 4:] = 0
    return found


def build(config, seed=1):
    """A model in which every parameter matters."""
    model = make(config).eval().requires_grad_(False)
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        value.normal_(mean=float("norm" in name and "weight" in name), std=0.3)
    model.set_codes(quantizer(config.codebooks, config.tokens))
    return model


def tokens_of(config, count=3, seed=2, high=None):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(high or config.codes, (count, config.tokens), generator=generator)


# ---- codes ----------------------------------------------------------------------------------------------------


def test_codes_come_from_the_tokenizer():
    source = quantizer()
    vectors, active = code_vectors(source, 8)
    assert vectors.shape == (4, 11, 6) and vectors.std().item() == pytest.approx(1)
    torch.testing.assert_close(vectors.view(44, 6), source.codebook() / source.codebook().std())
    assert active[:4].all() and active[4:, :4].all() and not active[4:, 4:].any()
    fewer, _ = code_vectors(source, 4)
    assert torch.equal(fewer, vectors[:2])
    assert sizes_of(source, 4) == {"tokens": 4, "codes": 11, "codebooks": 2, "code_width": 6}
    with pytest.raises(WeightsError, match="5 tokens have codebooks of 2 each"):
        code_vectors(source, 5)


def test_a_single_codebook_serves_all_positions():
    source = VectorQuantizer(11, 6, True)
    vectors, active = code_vectors(source, 5)
    assert vectors.shape == (1, 11, 6) and active.shape == (5, 6) and active.all()
    assert vectors.norm(dim=-1).std() < 1e-5  # on a sphere, as they are compared


def test_codes_of_another_tokenizer_are_refused():
    with pytest.raises(WeightsError, match=r"\(1, 11, 6\), not \(4, 11, 6\)"):
        make(MASKED).set_codes(VectorQuantizer(11, 6, False))


@KINDS
def test_codes_with_the_same_vector_are_the_same(config):
    model = build(config)
    model.vectors[0, 7] = model.vectors[0, 2]
    one, other = tokens_of(config), tokens_of(config)
    one[:, 0], other[:, 0] = 2, 7
    torch.testing.assert_close(model(one), model(other))
    model.bias.zero_()
    logits = model(one)
    torch.testing.assert_close(logits[:, 0, 2], logits[:, 0, 7])
    assert not torch.allclose(logits[:, 2, 2], logits[:, 2, 7])  # of another codebook


def test_entries_that_do_not_exist_are_not_seen():
    model, tokens = build(MASKED), tokens_of(MASKED)
    before = model.entered(tokens)
    model.vectors[:, :, 4:] += 1  # which positions from 4 on do not have
    torch.testing.assert_close(model.entered(tokens)[:, 4:], before[:, 4:])
    assert not torch.allclose(model.entered(tokens)[:, :4], before[:, :4])


# ---- logits ---------------------------------------------------------------------------------------------------


@KINDS
def test_any_prefix_has_logits(config):
    model, tokens = build(config), tokens_of(config)
    labels = torch.tensor([0, 2, -1])
    for count in (1, 2, 3, 8):
        logits = model(tokens[:, :count], labels)
        assert logits.shape == (3, count, 11) and logits.dtype == torch.float32
    hidden = model.hidden(tokens, labels)
    torch.testing.assert_close(model.logits_of(hidden[:, 3:7], 3), model(tokens, labels)[:, 3:7])
    torch.testing.assert_close(model(tokens, torch.full((3,), -1)), model(tokens))
    assert not torch.allclose(model(tokens, labels)[0], model(tokens)[0])


@KINDS
def test_logits_are_products_with_rows_of_codes(config):
    """A code's map of v, and weights of 4 v and v^2 - 1 where entries exist, over sqrt(W); and a bias. One by one."""
    model, tokens = build(config), tokens_of(config)
    hidden, found = model.hidden(tokens), model(tokens)
    for position in range(8):
        own, vectors = hidden[1, position], model.vectors[position // 2] * 1.0
        weights = (own @ model.leave_weight[position]).view(2, 6) * model.active[position]
        for code, vector in enumerate(vectors):
            expected = own @ model.leave(vector) + weights[0] @ (4 * vector) + weights[1] @ (vector**2 - 1)
            expected = (expected / 32**0.5 + model.bias[position, code]).item()
            assert found[1, position, code].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_causal_one_sees_what_came_before_alone():
    model, tokens = build(CAUSAL), tokens_of(CAUSAL)
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert ((before[:, 5:] - after[:, 5:]).abs().amax(-1) > 1e-4).all()
    torch.testing.assert_close(model(tokens[:, :3]), before[:, :3])


def test_the_masked_one_sees_everything():
    model, tokens = build(MASKED), tokens_of(MASKED)
    for other in ((tokens[:, 4] + 1) % 11, torch.full((3,), 11)):
        changed = tokens.clone()
        changed[:, 4] = other
        assert ((model(tokens) - model(changed)).abs().amax(-1) > 1e-4).all()


@KINDS
def test_rows_are_kept_only_as_long_as_they_hold(config):
    model, tokens = build(config), tokens_of(config)
    with torch.no_grad():
        first = model(tokens)
        assert model.rows(1).data_ptr() == model.rows(1).data_ptr()
        model.leave.enter.weight.lerp_(torch.zeros_like(model.leave.enter.weight), 0.5)  # as averaging does
        second = model(tokens)
        assert not torch.allclose(first, second)
        torch.testing.assert_close(copy.deepcopy(model)(tokens), second)
        model.load_state_dict(build(config).state_dict())
        torch.testing.assert_close(model(tokens), first)
        assert model.to(torch.bfloat16).rows(0).dtype == torch.bfloat16
    model.float()
    with torch.inference_mode():
        model(tokens)
    model.requires_grad_(True)(tokens).sum().backward()
    assert model.leave.enter.weight.grad.abs().sum() > 0


@KINDS
def test_autocast_leaves_nothing_behind(config):
    model, tokens = build(config), tokens_of(config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = model(tokens)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), build(config)(tokens), rtol=0, atol=0)
    assert (narrow - model(tokens)).abs().mean() < 0.1 * narrow.std()


@KINDS
def test_it_learns(config):
    """A handful of pictures by heart, every parameter in it."""
    model, tokens, labels = make(config), tokens_of(config), torch.tensor([0, 1, 2])
    model.set_codes(quantizer())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        shown = tokens if config.causal else tokens.masked_fill(torch.arange(8) % 2 == 0, config.mask_id)
        loss = torch.nn.functional.cross_entropy(model(shown, labels).flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    assert not [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]


def test_dropout_falls_on_what_blocks_add():
    model = make(MASKED, torch.nn.Dropout(0.5))
    tokens = tokens_of(MASKED)
    assert not torch.equal(model(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


# ---- configurations -------------------------------------------------------------------------------------------


@KINDS
def test_parameters_are_counted_without_building_it(config):
    assert sum(value.numel() for value in make(config).state_dict().values()) == config.parameters


@KINDS
def test_a_config_survives_json(config):
    text = config.to_json()
    assert GeneratorConfig.from_json(text) == config and GeneratorConfig.from_json(text).to_json() == text
    assert config.counts == (2, 4, 8) and config.share == 2
    assert replace(config, prefixes=()).counts == (8,)


def test_older_architectures_say_what_they_said():
    """Fingerprints hash it."""
    config = GeneratorConfig("bert", 5, codes=11, classes=3, width=32, layers=3, heads=4, mlp=40)
    text = '{"architecture":"bert","classes":3,"codes":11,"heads":4,"layers":3,"mlp":40,"tokens":5,"width":32}'
    assert config.to_json() == text and GeneratorConfig.from_json(text) == config
    assert config.counts == (5,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prefixes": [2, 4]}, "the last one must be all 8 tokens"),
        ({"prefixes": [4, 4, 8]}, "rising"),
        ({"prefixes": [0, 8]}, "from 1 up"),
        ({"prefixes": [2.0, 8]}, "rising"),
        ({"prefixes": [True, 8]}, "rising"),
        ({"prefixes": 8}, "rising"),
        ({"prefixes": {"8": 1}}, "rising"),
        ({"prefixes": [[[]]]}, "rising"),
        ({"prefixes": list(range(1, 5000))}, "all 8 tokens"),
        ({"codebooks": 3}, "not shared evenly"),
        ({"codebooks": 0}, "codebooks is 0"),
        ({"causal": 1}, "causal is 1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"code_width": "6"}, "code_width is '6'"),
        ({"width": 16384, "heads": 1, "codes": 65536, "codebooks": 8}, f"more than {MOST_PARAMETERS}"),
        ({"architecture": "bert"}, "for the architecture codes alone"),
        ({"more": 1}, "unknown more"),
    ],
)
def test_senseless_configs_are_refused(change, said):
    with pytest.raises(WeightsError, match="does not make sense") as caught:
        GeneratorConfig.from_json(json.dumps(json.loads(MASKED.to_json()) | change))
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_file_must_say_all_of_it():
    values = json.loads(MASKED.to_json())
    del values["hidden"]
    with pytest.raises(WeightsError, match="lacks hidden"):
        GeneratorConfig.from_json(json.dumps(values))
