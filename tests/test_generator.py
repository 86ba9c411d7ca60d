"""Generators from files: ours and the published kinds, what they sample, whom they fit, and files that are none."""

import json
import math
import pickle
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import titokcodec
from tests.models import test_code_transformer as on_codes
from tests.models.test_maskgit import BERT, UVIT, build, guesses, plain_logits
from tests.test_sampling import plain, uniform
from titokcodec import Generator, TitokError, WeightsError
from titokcodec.generator import PUBLISHED, Card, save
from titokcodec.models.config import preset
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.sampling import Settings
from titokcodec.weights import releases

PRINT = bytes(range(8))
NAMES = ("ant", "bee", "cat")
KINDS = pytest.mark.parametrize("config", [BERT, UVIT], ids=["bert", "uvit"])
ENDINGS = pytest.mark.parametrize("ending", [".safetensors", ".bin", ".pt", ".pth"])


def load(path):
    return Generator.from_pretrained(path, device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def model():
    return build(BERT)


@pytest.fixture(scope="module")
def generator(model):
    return Generator(model, Card("tiny", BERT, PRINT, NAMES), torch.device("cpu"), torch.float32)


@pytest.fixture
def saved(model, tmp_path):
    save(tmp_path / "g.safetensors", model, "tiny", tokenizer=PRINT, class_names=NAMES)
    return tmp_path / "g.safetensors"


def as_published(path, model, heads=None):
    """Tensors alone, as the published checkpoints are; in a folder, with a published config.json."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if path.suffix == "":
        path.mkdir()
        about = {"model": {"generator": {"num_attention_heads": heads}}} if heads else {"model": {"vq_model": {}}}
        (path / "config.json").write_text(json.dumps(about))
        save_file(state, path / "model.safetensors")
    elif path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


# ---- files that are good --------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(("int8", "error"), [(True, 0.2), (False, 0.01)])
def test_what_is_saved_comes_back(config, int8, error, tmp_path):
    model, path = build(config), tmp_path / "g.safetensors"
    save(path, model, "some name", tokenizer=PRINT, int8=int8)
    opened = load(path)
    assert (opened.name, opened.config, opened.tokenizer, opened.class_names) == ("some name", config, PRINT, None)
    assert (opened.device.type, opened.dtype) == ("cpu", torch.float32)
    tokens = guesses(config)
    assert (opened.logits(tokens) - model(tokens)).abs().mean() < error * model(tokens).std()
    for name, value in model.state_dict().items():
        step = value.flatten(1).abs().max() / 254 if int8 and value.ndim > 1 else value.abs().max() * 2**-11
        torch.testing.assert_close(opened.model.state_dict()[name], value, rtol=0, atol=step.item() * 1.001)


def test_the_description(saved):
    opened = load(saved)
    assert (opened.tokenizer, opened.class_names) == (PRINT, NAMES)
    assert opened.card == Card("tiny", BERT, PRINT, NAMES, opened.fingerprint)
    assert opened.fingerprint == load(saved).fingerprint and len(opened.fingerprint) == 8
    assert not any(value.requires_grad for value in opened.model.parameters()) and not opened.model.training


def test_the_fingerprint_covers_every_tensor(saved, model, tmp_path):
    changed = build(BERT)
    changed.model["lm_head"].bias[3] += 0.25
    save(tmp_path / "h.safetensors", changed, "tiny")
    save(tmp_path / "i.safetensors", model, "another name")
    assert load(tmp_path / "h.safetensors").fingerprint != load(saved).fingerprint
    assert load(tmp_path / "i.safetensors").fingerprint == load(saved).fingerprint


@ENDINGS
def test_a_published_checkpoint_of_either_kind_is_read_as_it_is(ending, tmp_path):
    for config in (BERT, UVIT):
        config = replace(config, width=64, heads=1)  # what the shapes tell of an unpublished width
        model = build(config)
        opened = load(as_published(tmp_path / f"{config.architecture}{ending}", model))
        assert (opened.name, opened.config, opened.tokenizer) == (config.architecture, config, None)
        tokens = guesses(config)
        for found, row, label in zip(opened.logits(tokens, [0, None, 2]), tokens.tolist(), (0, None, 2), strict=True):
            expected = plain_logits(row, label, model.state_dict(), config)
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)
        other = as_published(tmp_path / f"other-{config.architecture}.bin", model)
        assert load(other).fingerprint == opened.fingerprint


def test_a_folder_may_tell_of_heads(tmp_path):
    model = build(BERT)
    assert load(as_published(tmp_path / "told", model, heads=4)).config == BERT
    assert load(as_published(tmp_path / "untold", model)).config == replace(BERT, heads=1)
    (tmp_path / "untold" / "config.json").unlink()
    assert load(tmp_path / "untold").config == replace(BERT, heads=1)
    save(tmp_path / "untold" / "model.safetensors", model, "ours")
    assert load(tmp_path / "untold").config == BERT


def test_position_numbers_of_older_files_are_no_news(tmp_path):
    model = build(replace(BERT, heads=1))
    state = model.state_dict() | {"model.embeddings.position_ids": torch.arange(6)[None]}
    torch.save(state, tmp_path / "g.bin")
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / "g.safetensors")
    assert load(tmp_path / "g.bin").fingerprint == load(tmp_path / "g.safetensors").fingerprint


def test_published_sizes_go_by_their_published_names(tmp_path, monkeypatch):
    assert set(PUBLISHED) - {"demo"} == set(GENERATOR_PRESETS)
    monkeypatch.setitem(GENERATOR_PRESETS, "generator_titok_small", replace(BERT, heads=1))
    assert load(as_published(tmp_path / "g.bin", build(BERT))).name == "generator_titok_small"


def test_the_package_offers_it():
    assert "Generator" in titokcodec.__all__ and titokcodec.Generator is Generator


@pytest.mark.parametrize("config", [on_codes.MASKED, on_codes.CAUSAL], ids=["masked", "causal"])
def test_a_generator_on_codes_comes_back(config, tmp_path):
    """Matrices in 8 bits, but the codes' vectors in 16, from which all embeddings are made."""
    model, path = on_codes.build(config), tmp_path / "g.safetensors"
    save(path, model, "some name", tokenizer=PRINT)
    opened = load(path)
    assert opened.config == config and opened.fingerprint == load(path).fingerprint
    torch.testing.assert_close(opened.model.vectors, model.vectors, rtol=2**-11, atol=2**-24)
    assert opened.model.active.equal(model.active)
    tokens = on_codes.tokens_of(config)
    assert (opened.logits(tokens) - model(tokens)).abs().mean() < 0.2 * model(tokens).std()
    save(path, model, "some name", int8=False)
    assert (load(path).logits(tokens) - model(tokens)).abs().mean() < 0.01 * model(tokens).std()


def test_a_shipped_size_fits_into_12_megabytes(tmp_path):
    config = GeneratorConfig(
        "codes",
        128,
        classes=40,
        width=256,
        layers=8,
        heads=4,
        mlp=1024,
        prefixes=(32, 64, 128),
        codebooks=4,
        code_width=24,
    )
    save(tmp_path / "g.safetensors", make(config), "x")
    assert (tmp_path / "g.safetensors").stat().st_size < 12e6


def test_settings_of_a_file_are_those_of_its_generator(model, saved, tmp_path):
    assert load(saved).settings == Settings() and load(saved).card.settings is None
    own = Settings(3, 1.5, "cosine", "root", 0.5, guidance_interval=(0, 0.5), top_p=0.9)
    save(tmp_path / "h.safetensors", model, "tiny", tokenizer=PRINT, class_names=NAMES, settings=own)
    opened = load(tmp_path / "h.safetensors")
    assert opened.settings == own
    assert opened.fingerprint == load(saved).fingerprint  # they change no tensor
    plain = load(saved)
    for changes in ({}, {"steps": 5}):
        expected = plain.sample([0, 1, 2], seed=3, **{**asdict(own), **changes})
        assert opened.sample([0, 1, 2], seed=3, **changes).equal(expected)
    assert not opened.sample([0, 1, 2], seed=3).equal(plain.sample([0, 1, 2], seed=3))


# ---- logits and samples ---------------------------------------------------------------------------------------


def test_logits_take_numbers_names_and_none(generator, model):
    tokens = guesses(BERT)
    expected = model(tokens, torch.tensor([2, -1, 0]))
    for labels in ([2, None, 0], ["cat", None, "ant"], torch.tensor([2, -1, 0]), np.array([2, -1, 0])):
        assert generator.logits(tokens, labels).equal(expected)
    assert generator.logits(tokens.int()).equal(model(tokens))


@KINDS
@pytest.mark.parametrize("guidance", ["constant", "linear", "power-cosine"])
def test_samples_are_those_of_the_plain_sampler_over_the_plain_network(config, guidance):
    config = replace(config, tokens=4)
    model = build(config)
    state = model.state_dict()
    generator = Generator(model, Card("x", config), torch.device("cpu"), torch.float32)
    options = {"steps": 3, "guidance_scale": 2.5, "guidance": guidance, "temperature": 2.0, "softmax_temperature": True}

    def noise(step, shape):
        return uniform(step, (*shape[:2], 20))[..., : config.codes] if len(shape) == 3 else uniform(step, shape)

    def network(row, label):  # the plain sampler knows mask 20 and 20 codes
        row = [config.mask_id if token == 20 else token for token in row]
        return torch.nn.functional.pad(
            plain_logits(row, label, state, config), (0, 20 - config.codes), value=-1e9
        ).tolist()

    *_, expected = plain(network, [[20] * 4] * 2, [1, None], Settings(**options))
    assert generator.sample([1, None], noise=noise, **options).tolist() == expected


@pytest.fixture(scope="module")
def nested():
    """Pictures of 2, 4 or 8 tokens."""
    config = on_codes.MASKED
    return Generator(on_codes.build(config), Card("coarse", config, None, NAMES), torch.device("cpu"), torch.float32)


def test_fewer_tokens_are_the_first_of_more(nested):
    whole = nested.sample(["ant", "bee", None], seed=4, steps=3)
    assert whole.shape == (3, 8) and whole.max() < 11
    for count in (2, 4, 8):
        assert nested.sample(["ant", "bee", None], tokens=count, seed=4, steps=3).equal(whole[:, :count])
        assert nested.logits(whole[:, :count]).shape == (3, count, 11)


def test_finer_tokens_can_be_chosen_anew(nested):
    tokens = on_codes.tokens_of(nested.config)
    keep = (torch.arange(8) < 4).expand(3, 8)
    found = nested.inpaint(tokens, keep, [0, 1, 2], seed=1)
    assert found[:, :4].equal(tokens[:, :4]) and not found.equal(tokens)
    assert nested.inpaint(tokens[:, :4], keep[:, :4], seed=1).equal(tokens[:, :4])
    assert nested.inpaint(tokens, torch.zeros_like(keep), [0, 1, 2], seed=1).equal(nested.sample([0, 1, 2], seed=1))


def test_finer_tokens_have_a_temperature_of_their_own(nested):
    few, labels = nested.config.counts[0], [0, 1, None]
    usual = nested.sample(labels, seed=3)
    found = nested.sample(labels, seed=3, fine_temperature=0)
    assert found[:, :few].equal(usual[:, :few]) and not found.equal(usual)
    keep = torch.arange(found.shape[1]).expand(found.shape) < few
    assert found.equal(nested.inpaint(usual, keep, labels, seed=4, temperature=0))


def test_a_file_says_how_many_tokens_pictures_get(tmp_path):
    config, path = on_codes.MASKED, tmp_path / "g.safetensors"
    save(path, on_codes.build(config), "few", default_tokens=4)
    opened = load(path)
    assert opened.card.default_tokens == 4 and opened.sample([0, None], seed=1).shape == (2, 4)
    assert opened.sample([0], tokens=8, seed=1).shape == (1, 8)
    for wrong in (3, 8.0, True):
        with pytest.raises(WeightsError, match=r"default_tokens must be one of 2, 4, 8, or left out$"):
            save(path, on_codes.build(config), "few", default_tokens=wrong)


@pytest.mark.parametrize("tokens", [0, 3, 16, 2.0, True, "2"])
def test_other_numbers_of_tokens_are_refused(nested, tokens):
    with pytest.raises(TitokError, match=r"coarse makes pictures of 2, 4 or 8 tokens$"):
        nested.sample([0], tokens=tokens)
    with pytest.raises(TitokError, match=r"\(B, K\) with K 2, 4 or 8, not torch.int64 \(1, 3\)"):
        nested.logits(torch.zeros(1, 3, dtype=torch.int64))


def test_the_same_seed_gives_the_same_tokens(generator):
    first = generator.sample([0, 1, None, "cat"], seed=5)
    assert first.shape == (4, BERT.tokens) and first.dtype == torch.int64
    assert first.min() >= 0 and first.max() < BERT.codes
    torch.rand(1)  # the global stream is another one
    assert generator.sample([0, 1, None, "cat"], seed=5).equal(first)
    assert not generator.sample([0, 1, None, "cat"], seed=6).equal(first)
    state = torch.get_rng_state()
    generator.sample([0], seed=1)
    assert torch.get_rng_state().equal(state)
    assert not generator.sample([0] * 8).equal(generator.sample([0] * 8))


def test_without_noise_a_picture_does_not_depend_on_its_batch(generator):
    labels = ["bee", None, 0]
    together = generator.sample(labels, temperature=0, steps=4)
    alone = [generator.sample([label], temperature=0, steps=4) for label in labels]
    assert torch.cat(alone).equal(together)


def test_no_pictures_are_no_tokens(generator):
    assert generator.sample([]).shape == (0, BERT.tokens)


def test_bfloat16(model):
    generator = Generator(build(BERT), Card("x", BERT), torch.device("cpu"), torch.bfloat16)
    assert generator.logits(guesses(BERT)).dtype == torch.float32
    assert generator.sample([0, 1], seed=3).equal(generator.sample([0, 1], seed=3))


def test_inpainting_keeps_what_it_must(generator):
    tokens = generator.sample([0] * 6, seed=1)
    keep = torch.rand(6, BERT.tokens, generator=torch.Generator().manual_seed(4)) < 0.5
    keep[0], keep[1] = True, False
    found = generator.inpaint(tokens, keep, [1, 1, 1, None, "cat", 2], seed=2, temperature=20.0)
    assert found[keep].equal(tokens[keep]) and found.max() < BERT.codes
    assert not found.equal(tokens)
    masked = tokens.masked_fill(~keep, BERT.mask_id)  # what is not kept may be anything
    again = generator.inpaint(masked, keep, [1, 1, 1, None, "cat", 2], seed=2, temperature=20.0)
    assert again.equal(found)
    assert generator.inpaint(tokens, torch.ones_like(keep), seed=1).equal(tokens)
    everything = generator.inpaint(tokens, torch.zeros_like(keep), [0] * 6, seed=1)
    assert everything.equal(tokens)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda g: g.sample([3]), "no class has the number 3: give 0 to 2"),
        (lambda g: g.sample([-2]), "no class has the number -2"),
        (lambda g: g.sample(["bees"]), "did you mean 'bee'"),
        (lambda g: g.sample(["zebra"]), "has no class 'zebra'"),
        (lambda g: g.sample([1.5]), "label 1.5"),
        (lambda g: g.sample([True]), "label True"),
        (lambda g: g.sample(b"a"), "give a list of them"),
        (lambda g: g.sample(2), "labels is 2"),
        (lambda g: g.sample("cat"), "labels is 'cat'"),
        (lambda g: g.sample(None), "labels is None"),
        (lambda g: g.sample([0], steps=0), "steps is 0"),
        (lambda g: g.sample([0], seed=-1), "seed is -1"),
        (lambda g: g.sample([0], seed="x"), "seed is 'x'"),
        (lambda g: g.sample([0], noise=5), "noise is 5: give a function"),
        (lambda g: g.check_fits(object()), "give codec.weights"),
        (lambda g: g.sample([0], guidance="square"), "guidance is 'square'"),
        (lambda g: g.sample([0], guidance=["linear"]), "guidance is ['linear']"),
        (lambda g: g.sample([0], seed=True), "seed is True"),
        (lambda g: g.sample([0], guidance_scale=10**400), "guidance_scale is 1000"),
        (lambda g: g.sample([0], temperature=math.nan), "temperature is nan"),
        (lambda g: g.sample(np.array(1)), "labels have 0 dimensions"),
        (lambda g: g.sample(torch.tensor([[1, 2]])), "labels have 2 dimensions"),
        (lambda g: g.logits(torch.zeros(1, 4, dtype=torch.int64)), "(B, 5), not torch.int64 (1, 4)"),
        (lambda g: g.logits(torch.zeros(1, 5)), "tokens must be a tensor of integers, (B, 5), not torch.float32"),
        (lambda g: g.logits(torch.zeros(1, 5, dtype=torch.complex64)), "tokens must be a tensor of integers"),
        (lambda g: g.logits([[0] * 5]), "a tensor of integers, (B, 5), not list"),
        (lambda g: g.inpaint(np.zeros((1, 5), int), np.ones((1, 5), bool)), "not ndarray"),
        (lambda g: g.inpaint(torch.zeros(1, 5, dtype=torch.int64), [[True] * 5]), "keep must be a bool tensor"),
        (lambda g: g.logits(torch.full((1, 5), 12)), "give 0 to 11"),
        (lambda g: g.logits(torch.full((1, 5), -1)), "out of range"),
        (lambda g: g.logits(torch.zeros(2, 5, dtype=torch.int64), [0]), "1 labels for 2 rows"),
        (lambda g: g.inpaint(torch.full((1, 5), 11), torch.ones(1, 5, dtype=torch.bool)), "give 0 to 10"),
        (lambda g: g.inpaint(torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 5)), "keep must be a bool"),
        (lambda g: g.inpaint(torch.zeros(2, 5, dtype=torch.int64), torch.ones(1, 5, dtype=torch.bool)), "keep must"),
    ],
)
def test_wrong_arguments_are_named(generator, call, said):
    with pytest.raises(TitokError) as caught:
        call(generator)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_numpy_and_integers_of_any_type_are_welcome(generator):
    theirs = generator.sample([0], seed=np.int64(3), steps=np.int32(2), temperature=np.float32(0.5))
    assert theirs.equal(generator.sample([0], seed=3, steps=2, temperature=0.5))
    keep = torch.tensor([[True, False, True, True, False]])
    for kind in (torch.uint8, torch.uint16, torch.int32, torch.uint32):
        assert generator.inpaint(theirs.to(kind), keep, seed=1).equal(generator.inpaint(theirs, keep, seed=1))
        assert generator.logits(theirs.to(kind)).equal(generator.logits(theirs))


# ---- whose tokens -----------------------------------------------------------------------------------------------


def tokenizer(tokens=5, codes=11, fingerprint=PRINT, **changes):
    config = preset("titok_l32", tokens=tokens, codes=codes, **{"min_tokens": tokens, **changes})
    return SimpleNamespace(name="theirs", config=config, fingerprint=fingerprint)


def test_a_generator_fits_its_own_tokenizer_alone(generator, model, codec):
    generator.check_fits(tokenizer())
    with pytest.raises(WeightsError) as caught:
        generator.check_fits(tokenizer(fingerprint=bytes(8)))
    for part in ("tiny", PRINT.hex(), "theirs", bytes(8).hex()):
        assert part in str(caught.value)
    released = titokcodec.weights.releases.RELEASES[0]
    mine = Generator(model, Card("tiny", BERT, released.fingerprint), torch.device("cpu"), torch.float32)
    with pytest.raises(WeightsError, match=f"{released.name} .*not for {codec.weights.name}"):
        mine.check_fits(codec.weights)


def test_an_unknown_tokenizer_must_agree_in_numbers(model):
    free = Generator(model, Card("free", BERT), torch.device("cpu"), torch.float32)
    free.check_fits(tokenizer(fingerprint=bytes(8)))
    free.check_fits(tokenizer(tokens=9, nested=True, min_tokens=4))  # a prefix that it decodes
    for other in (tokenizer(tokens=6), tokenizer(codes=12), tokenizer(tokens=9, nested=True, min_tokens=6)):
        with pytest.raises(WeightsError, match="free makes 5 tokens of 11 codes, but tokenizer theirs has"):
            free.check_fits(other)


def test_all_its_numbers_of_tokens_must_be_decodable(nested):
    nested.check_fits(tokenizer(tokens=8, nested=True, min_tokens=2))
    for other in (tokenizer(tokens=8), tokenizer(tokens=4, nested=True, min_tokens=2)):
        with pytest.raises(WeightsError, match="coarse makes 2, 4 or 8 tokens of 11 codes"):
            nested.check_fits(other)


# ---- files that are bad -----------------------------------------------------------------------------------------


def refused(path, *parts):
    with pytest.raises(WeightsError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for part in (path.name, *parts):
        assert part in message


def test_missing_files(tmp_path, monkeypatch):
    refused(tmp_path / "none.safetensors", "no weight file")
    monkeypatch.setattr(releases, "GENERATORS", ())
    with pytest.raises(WeightsError, match="no generator comes with"):
        load(None)


@ENDINGS
@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, 0.999])
def test_truncated_files(model, ending, kept, tmp_path):
    path = as_published(tmp_path / f"g{ending}", model)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    refused(path, "not a readable")


@ENDINGS
@pytest.mark.parametrize("kind", ["lacks", "has unknown tensors", "has the wrong shape for"])
def test_wrong_tensors_are_named(model, ending, kind, tmp_path):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    name = "model.encoder.layer.1.attention.self.key.bias"
    if kind == "lacks":
        del state[name]
    elif kind == "has unknown tensors":
        name = "model.pooler\n.dense"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(33)
    path = tmp_path / f"g{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    refused(path, f"{kind} {name.split()[0]}")


@ENDINGS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_tensors_without_numbers_are_named(ending, value, tmp_path):
    state = {name: value.clone() for name, value in build(BERT).state_dict().items()}
    name = "model.lm_head.bias"
    if value is None:
        state[name] = state[name].long()
    else:
        state[name][3] = value
    path = tmp_path / f"g{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    refused(path, name, "finite floating-point numbers")


class Evil:
    def __reduce__(self):
        return open, ("EVIL", "w")


def test_code_in_a_pickle_does_not_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**model.state_dict(), "model.extra": Evil()}, tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("a.bin", "b.bin"):
        refused(tmp_path / name, "damaged or holds more than tensors")
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ({"a": 1}, "entry 'a' is a int"),
        ({1: torch.zeros(3)}, "entry 1 is a Tensor"),
        ({"model": {"a": torch.zeros(3)}}, "no generator"),
        ({}, "no generator"),
        ({"a": torch.zeros(3)}, "no generator"),
    ],
)
def test_pickles_of_other_things(content, said, tmp_path):
    torch.save(content, tmp_path / "g.bin")
    refused(tmp_path / "g.bin", said)


def test_a_view_that_claims_more_than_the_file_holds(tmp_path):
    state = dict(build(replace(BERT, heads=1)).state_dict())
    state["model.lm_head.weight"] = torch.zeros(1, 1).expand(20_000, 32)
    state["model.lm_head.bias"] = torch.zeros(1).expand(20_000)
    state["model.embeddings.word_embeddings.weight"] = torch.zeros(1, 1).expand(20_005, 32)
    torch.save(state, tmp_path / "g.bin")
    refused(tmp_path / "g.bin", "more than the file has")
    state["model.embeddings.word_embeddings.weight"] = torch.zeros(1, 1).expand(10**12, 32)
    torch.save(state, tmp_path / "g.bin")
    refused(tmp_path / "g.bin", "more than the file has")


def test_a_tokenizer_is_no_generator(tiny_path):
    refused(tiny_path, "tokenizer or another model")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.update(kind="tokenizer"), "tokenizer or another model"),
        (lambda a: a.pop("name"), "description is damaged"),
        (lambda a: a.pop("config"), "description is damaged"),
        (lambda a: a.update(name=3), "description is damaged"),
        (lambda a: a.update(tokenizer="xyz"), "description is damaged"),
        (lambda a: a.update(tokenizer=7), "description is damaged"),
        (lambda a: a.update(tokenizer="00"), "8 bytes"),
        (lambda a: a.update(class_names="abc"), "description is damaged"),
        (lambda a: a.update(class_names=["a"]), "class_names must be 3 texts"),
        (lambda a: a.update(class_names=[1, 2, 3]), "class_names must be 3 texts"),
        (lambda a: a.update(settings=3), "description is damaged"),
        (lambda a: a.update(settings=None), "description is damaged"),
        (lambda a: a.update(settings={"speed": 1}), "description is damaged"),
        (lambda a: a.update(settings={"steps": 0}), "its settings make no sense: steps is 0"),
        (lambda a: a.update(settings={"order": "x" * 10_000}), "order is 'xxxxxxxxxxxx...xxxxxxxxxxxxx': give one of"),
        (lambda a: a["config"].update(heads=7), "does not make sense"),
        (lambda a: a["config"].update(layers=200), "lacks model.encoder.layer"),
        (lambda a: a["config"].update(codes=12), "wrong shape"),
    ],
)
def test_descriptions_that_make_no_sense(saved, change, said):
    from safetensors import safe_open

    with safe_open(saved, framework="pt") as file:
        about = json.loads(file.metadata()["titok"])
    change(about)
    save_file(load_file(saved), saved, {"titok": json.dumps(about)})
    refused(saved, said)


@pytest.mark.parametrize("about", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_descriptions_that_are_no_object(saved, about):
    save_file(load_file(saved), saved, {"titok": about})
    refused(saved, "g.safetensors")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no config"),
        ("[" * 100_000, "no config"),
        ("\xff\xfe", "no config"),
        ("[]", "no config"),
        ('{"model": {"generator": {"num_attention_heads": "x"}}}', "heads is 'x'"),
        ('{"model": {"generator": {"num_attention_heads": 5}}}', "not a multiple"),
        ('{"model": {"generator": {"num_attention_heads": true}}}', "heads is True"),
    ],
)
def test_folders_with_a_senseless_config(model, text, said, tmp_path):
    folder = as_published(tmp_path / "g", model)
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError) as caught:
        load(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).count(str(folder)) == 1


@pytest.mark.parametrize("text", ['{"model": []}', '{"model": {"generator": 3}}', "{}"])
def test_a_config_that_does_not_tell_heads_is_as_none(text, tmp_path):
    folder = as_published(tmp_path / "g", build(BERT))
    (folder / "config.json").write_text(text)
    assert load(folder).config == replace(BERT, heads=1)


@pytest.mark.parametrize("int8", [True, False])
def test_a_diverged_model_is_not_saved(int8, tmp_path):
    model = build(BERT)
    model.model["lm_head"].weight[0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"model.lm_head.weight"):
        save(tmp_path / "g.safetensors", model, "x", int8=int8)
    with pytest.raises(WeightsError, match="class_names"):
        save(tmp_path / "g.safetensors", build(BERT), "x", class_names=["a"])
    with pytest.raises(WeightsError, match="8 bytes"):
        save(tmp_path / "g.safetensors", build(BERT), "x", tokenizer=b"1")
    assert not list(tmp_path.iterdir())
