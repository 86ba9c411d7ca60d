"""MaskGIT's networks: names, shapes and totals as published, and the same logits as a plain pass written from facts."""

import math
from dataclasses import replace

import pytest
import torch

from titokcodec.errors import WeightsError
from titokcodec.models.generator_config import GENERATOR_PRESETS, MOST_PARAMETERS, GeneratorConfig, config_of
from titokcodec.models.maskgit import make
from titokcodec.models.meta import on_meta

BERT = GeneratorConfig("bert", 5, codes=11, classes=3, width=32, layers=3, heads=4, mlp=40)
UVIT = GeneratorConfig("uvit", 6, codes=13, classes=4, width=32, layers=4, heads=2, mlp=48)
KINDS = pytest.mark.parametrize("config", [BERT, UVIT], ids=["bert", "uvit"])
NAMES = pytest.mark.parametrize("name", list(GENERATOR_PRESETS))


def build(config, seed=1):
    """A model in which every parameter matters: no zero bias, no norm of one."""
    model = make(config).eval().requires_grad_(False)
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        if value.ndim > 1:
            value.normal_(std=1 if "embed" in name else 1 / math.sqrt(value.shape[1]))
        else:
            value.normal_(mean=0 if "bias" in name else 1, std=0.2)
    return model


def guesses(config, count=3, seed=2):
    """Tokens of which some are masked."""
    return torch.randint(config.codes + 1, (count, config.tokens), generator=torch.Generator().manual_seed(seed))


# ---- what the published checkpoints hold ----------------------------------------------------------------------


def published(name):
    """Names and shapes of a published checkpoint, from the facts alone."""
    tokens = int(name[-3:].strip("lbs"))
    shapes = {}

    def add(key, *shape, bias=True):
        shapes[f"{key}.weight"] = shape
        if bias:
            shapes[f"{key}.bias"] = shape[:1]

    if "s128" in name:
        add("embeddings", 4096 + 1002, 1024, bias=False)
        shapes["pos_embed"] = (1, tokens + 1, 1024)
        for block in [f"{way}_blocks.{i}" for way in ("in", "out") for i in range(10)] + ["mid_block"]:
            add(f"{block}.norm1", 1024)
            add(f"{block}.attn.qkv", 3072, 1024, bias=False)
            add(f"{block}.attn.proj", 1024, 1024)
            add(f"{block}.norm2", 1024)
            add(f"{block}.mlp.fc1", 4096, 1024)
            add(f"{block}.mlp.fc2", 1024, 4096)
            if block.startswith("out"):
                add(f"{block}.skip_linear", 1024, 2048)
        add("norm", 1024)
        add("lm_head", 4096, 1024)
        return shapes
    add("model.embeddings.word_embeddings", 4096 + 1002, 768, bias=False)
    add("model.embeddings.position_embeddings", tokens + 1, 768, bias=False)
    add("model.embeddings.token_type_embeddings", 2, 768, bias=False)
    add("model.embeddings.LayerNorm", 768)
    for i in range(24):
        layer = f"model.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            add(f"{layer}.attention.self.{part}", 768, 768)
        add(f"{layer}.attention.output.dense", 768, 768)
        add(f"{layer}.attention.output.LayerNorm", 768)
        add(f"{layer}.intermediate.dense", 3072, 768)
        add(f"{layer}.output.dense", 768, 3072)
        add(f"{layer}.output.LayerNorm", 768)
    add("model.lm_head", 4096, 768)
    return shapes


@pytest.fixture(scope="module")
def published_states():
    return {
        name: on_meta(lambda config=config: make(config)).state_dict() for name, config in GENERATOR_PRESETS.items()
    }


@NAMES
def test_published_sizes_have_the_published_tensors(published_states, name):
    assert {key: tuple(value.shape) for key, value in published_states[name].items()} == published(name)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "millions"),
    [
        ("generator_titok_l32", 391, 177_202_432, 177),
        ("generator_titok_b64", 391, 177_227_008, 177),
        ("generator_titok_s128", 257, 294_990_848, 295),
    ],
)
def test_published_totals(published_states, name, tensors, parameters, millions):
    state = published_states[name]
    assert (len(state), sum(value.numel() for value in state.values())) == (tensors, parameters)
    assert round(parameters / 1e6) == millions
    assert GENERATOR_PRESETS[name].parameters == parameters


@NAMES
def test_the_architecture_can_be_read_off_a_published_checkpoint(name):
    assert config_of(published(name)) == GENERATOR_PRESETS[name]


@KINDS
def test_the_architecture_can_be_read_off_any_other(config):
    shapes = {key: tuple(value.shape) for key, value in make(config).state_dict().items()}
    assert config_of(shapes, heads=config.heads) == config
    assert config_of(shapes) == replace(config, heads=1)  # one for every 64 channels
    assert sum(map(math.prod, shapes.values())) == config.parameters


# ---- the same forward pass, written plainly, a row and a head at a time ---------------------------------------


def norm(x, state, key, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * state[f"{key}.weight"] + state[f"{key}.bias"]


def linear(x, state, key):
    y = x @ state[f"{key}.weight"].T
    return y + state[f"{key}.bias"] if f"{key}.bias" in state else y


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def kept(x):
    return x


def heads_of(q, k, v, count, drop=kept):
    """Attention over (L, W), head after head."""
    width = q.shape[1] // count
    outs = []
    for head in range(count):
        a, b, c = (x[:, head * width : (head + 1) * width] for x in (q, k, v))
        scores = (a @ b.T / math.sqrt(width)).exp()
        outs.append(drop(scores / scores.sum(1, keepdim=True)) @ c)
    return torch.cat(outs, dim=1)


def plain_logits(row, label, state, config):
    """(K, N) for K token ids and one label, None for no class; float64."""
    state = {key: value.double() for key, value in state.items()}
    label = config.codes + 1 + (config.classes if label is None else label)
    return (plain_bert if config.architecture == "bert" else plain_uvit)([label, *row], state, config)


def plain_bert(ids, state, config, drop=kept):
    table = "model.embeddings"
    x = torch.stack(
        [
            state[f"{table}.word_embeddings.weight"][number]
            + state[f"{table}.position_embeddings.weight"][place]
            + state[f"{table}.token_type_embeddings.weight"][0]
            for place, number in enumerate(ids)
        ]
    )
    x = drop(norm(x, state, f"{table}.LayerNorm", 1e-12))
    for i in range(config.layers):
        layer = f"model.encoder.layer.{i}"
        qkv = (linear(x, state, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        y = linear(heads_of(*qkv, config.heads, drop), state, f"{layer}.attention.output.dense")
        x = norm(x + drop(y), state, f"{layer}.attention.output.LayerNorm", 1e-12)
        y = linear(gelu(linear(x, state, f"{layer}.intermediate.dense")), state, f"{layer}.output.dense")
        x = norm(x + drop(y), state, f"{layer}.output.LayerNorm", 1e-12)
    return linear(x, state, "model.lm_head")[1:]


def plain_uvit(ids, state, config):
    def block(x, key):
        qkv = linear(norm(x, state, f"{key}.norm1", 1e-5), state, f"{key}.attn.qkv")
        q, k, v = (qkv[:, part * config.width : (part + 1) * config.width] for part in range(3))
        x = x + linear(heads_of(q, k, v, config.heads), state, f"{key}.attn.proj")
        y = gelu(linear(norm(x, state, f"{key}.norm2", 1e-5), state, f"{key}.mlp.fc1"))
        return x + linear(y, state, f"{key}.mlp.fc2")

    x = state["embeddings.weight"][ids] + state["pos_embed"][0]
    half, passed = config.layers // 2, {}
    for i in range(half):
        x = passed[i] = block(x, f"in_blocks.{i}")
    x = block(x, "mid_block")
    for i in range(half):  # the first block out meets the last one in
        both = torch.cat([x, passed[half - 1 - i]], dim=1)
        x = block(linear(both, state, f"out_blocks.{i}.skip_linear"), f"out_blocks.{i}")
    return linear(norm(x, state, "norm", 1e-5), state, "lm_head")[1:]


@KINDS
def test_logits_agree_with_the_plain_ones(config):
    model, tokens = build(config), guesses(config)
    expected = torch.stack(
        [
            plain_logits(row, label, model.state_dict(), config)
            for row, label in zip(tokens.tolist(), (0, None, config.classes - 1), strict=True)
        ]
    )
    found = model(tokens, torch.tensor([0, -1, config.classes - 1]))
    assert found.shape == (3, config.tokens, config.codes) and found.dtype == torch.float32
    assert expected.std() > 0.5
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def sparse(x):
    """Drops by position alone: one in five of the last two dimensions, whatever is before them."""
    rows, columns = (torch.arange(length) for length in x.shape[-2:])
    return x * ((rows[:, None] * 7 + columns * 3) % 5 > 0) / 0.8


def test_bert_drops_embeddings_probabilities_of_attention_and_what_its_layers_add():
    model, tokens = build(BERT), guesses(BERT)
    expected = torch.stack(
        [
            plain_bert(
                [BERT.codes + 2, *row],
                {key: value.double() for key, value in model.state_dict().items()},
                BERT,
                sparse,
            )
            for row in tokens.tolist()
        ]
    )
    dropping = make(BERT, Sparse()).train()
    dropping.load_state_dict(model.state_dict())
    labels = torch.ones(3, dtype=torch.int64)
    torch.testing.assert_close(dropping(tokens, labels).double(), expected, rtol=0, atol=1e-4)
    assert not dropping(tokens, labels).allclose(model(tokens, labels), atol=0.1)
    assert make(BERT).train().load_state_dict(model.state_dict())  # dropout has no parameters


class Sparse(torch.nn.Module):
    forward = staticmethod(sparse)


@KINDS
def test_norms_of_small_numbers_add_the_published_epsilon(config):
    """Embeddings start near .02, where the epsilons of BERT (1e-12) and of U-ViT (1e-5) begin to tell."""
    model, tokens = build(config), guesses(config, 1)
    for name, value in model.named_parameters():
        if "embed" in name and value.ndim > 1:
            value.mul_(1e-3)
    expected = plain_logits(tokens[0].tolist(), 1, model.state_dict(), config)
    torch.testing.assert_close(model(tokens, torch.tensor([1]))[0].double(), expected, rtol=0, atol=1e-4)


@KINDS
def test_a_head_is_the_sixteenth_part_of_a_published_width(config):
    """The real width and heads, on two layers."""
    config = replace(config, width=768 if config is BERT else 1024, heads=16, layers=2, mlp=64)
    model, tokens = build(config), guesses(config, 1)
    expected = plain_logits(tokens[0].tolist(), 1, model.state_dict(), config)
    torch.testing.assert_close(model(tokens, torch.tensor([1]))[0].double(), expected, rtol=0, atol=1e-3)


@KINDS
def test_no_labels_are_labels_of_no_class(config):
    model, tokens = build(config), guesses(config)
    without = model(tokens)
    assert without.equal(model(tokens, torch.full((3,), -1)))
    assert (without - model(tokens, torch.zeros(3, dtype=torch.int64))).abs().max() > 0.01


@KINDS
def test_rows_of_a_batch_do_not_touch_each_other(config):
    model, tokens, labels = build(config), guesses(config), torch.tensor([2, -1, 0])
    alone = [model(tokens[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), model(tokens, labels), rtol=0, atol=1e-5)


@KINDS
def test_bfloat16_stays_close_and_answers_in_float32(config):
    model, tokens = build(config), guesses(config)
    single = model(tokens)
    half = model.bfloat16()(tokens)
    assert half.dtype == torch.float32
    assert (single - half).abs().mean() < 0.05 * single.std()


@KINDS
def test_it_starts_from_small_noise_and_learns_everywhere(config):
    torch.manual_seed(0)
    model = make(config, torch.nn.Dropout(0.1))
    tokens = guesses(config)
    assert not model(tokens).equal(model(tokens))  # dropout
    model.eval()
    assert model(tokens).equal(model(tokens)) and model(tokens).std() < 0.2
    model(tokens).square().sum().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
        if value.ndim > 1 and "token_type" not in name:
            assert 0.01 < value.std() < 0.03, name


# ---- configurations from files --------------------------------------------------------------------------------


@NAMES
def test_a_config_survives_json(name):
    text = GENERATOR_PRESETS[name].to_json()
    assert GeneratorConfig.from_json(text) == GENERATOR_PRESETS[name]
    assert GeneratorConfig.from_json(text).to_json() == text


def test_vocabulary():
    config = GENERATOR_PRESETS["generator_titok_l32"]
    assert (config.mask_id, config.null_id) == (4096, 5097)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not make sense"),
        ("[]", "no set of values by name"),
        ("null", "does not make sense"),
        ("[" * 100_000, "does not make sense"),
        ('{"architecture":"bert","tokens":32}', "lacks classes, codes, heads and 3 more"),
        (BERT.to_json().replace('"bert"', '"gpt"'), "architecture 'gpt'"),
        (BERT.to_json().replace('"bert"', "[]"), "architecture"),
        (BERT.to_json().replace('"heads":4', '"heads":5'), "not a multiple"),
        (BERT.to_json().replace('"heads":4', '"heads":0'), "heads is 0"),
        (BERT.to_json().replace('"heads":4', '"heads":4.0'), "heads is 4.0"),
        (BERT.to_json().replace('"heads":4', '"heads":true'), "heads is True"),
        (BERT.to_json().replace('"tokens":5', '"tokens":257'), "tokens is 257"),
        (BERT.to_json().replace('"codes":11', '"codes":1'), "two codes"),
        (BERT.to_json().replace('"layers":3', '"layers":257'), "layers is 257"),
        (UVIT.to_json().replace('"layers":4', '"layers":3'), "as many blocks"),
        (BERT.to_json().replace('"width":32', '"width":16384').replace('"layers":3', '"layers":256'), "more than"),
        (BERT.to_json().replace('"width":32', '"width":1e99'), "width is"),
        (BERT.to_json().replace("{", '{"other":1,'), "other"),
    ],
)
def test_senseless_configs_are_refused(text, said):
    with pytest.raises(WeightsError, match="does not make sense") as caught:
        GeneratorConfig.from_json(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["generator_titok_l32", "generator_titok_s128"])
@pytest.mark.parametrize("factor", [10**6, 10**12, 0])
def test_absurd_shapes_cost_nothing(name, factor):
    for key, shape in published(name).items():
        for axis in range(len(shape)):
            shapes = published(name)
            shapes[key] = (*shape[:axis], shape[axis] * factor, *shape[axis + 1 :])
            try:
                assert config_of(shapes).parameters <= MOST_PARAMETERS
            except WeightsError as error:
                assert "\n" not in str(error)
        if ".1" in key:
            break


@pytest.mark.parametrize("shapes", [{}, {"a": (1,)}, {"latent_tokens": (32, 512)}])
def test_other_checkpoints_are_no_generators(shapes):
    with pytest.raises(WeightsError, match="no generator"):
        config_of(shapes)


@pytest.mark.parametrize("name", ["generator_titok_l32", "generator_titok_s128"])
def test_a_size_that_nothing_shows_is_an_error(name):
    shown = {key for key in published(name) if key.endswith(("embeddings.weight", "pos_embed", "lm_head.weight"))}
    shown -= {"model.embeddings.token_type_embeddings.weight"}
    for key in shown:
        shapes = published(name)
        del shapes[key]
        with pytest.raises(WeightsError, match="this is no generator"):
            config_of(shapes)
        shapes[key] = (7,)
        with pytest.raises(WeightsError, match="this is no generator"):
            config_of(shapes)
