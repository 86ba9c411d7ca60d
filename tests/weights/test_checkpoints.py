"""Published checkpoints: recognised by names, shapes and config, converted, and decoded like a plain forward pass.

The weights themselves are not at hand: stand-ins of the published names and shapes
(``tests.models.test_models.published``) take their place, and ``tests.models.test_models`` has the second way to
compute what they encode and decode.
"""

import json
import math
import os
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

import titokcodec
from tests.conftest import DATA
from tests.models.test_models import make, pictures, plain_latents, plain_pixels, plain_tokens, published
from tests.models.test_vqgan import published as published_proxies
from titokcodec import Codec, cli
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.config import PRESETS, TiTokConfig, Tower
from titokcodec.weights import tokenizers
from titokcodec.weights.checkpoints import describe, read_config, recognise
from titokcodec.weights.convert import convert

NAMES = ["titok_l32", "titok_b64", "titok_s128", "titok_bl64", "titok_bl128", "titok_sl256"]
SMALL_ONE_STAGE = TiTokConfig(  # SL-256 with narrower towers
    Tower(128, 2, 2), Tower(64, 1, 1), tokens=256, codes=8192, code_width=64, l2_normalised=False, head="pixels"
)
SMALL_LEGACY = TiTokConfig(
    Tower(64, 1, 1), Tower(128, 2, 2), tokens=6, codes=50, image_size=32, head="proxy", legacy=True
)
EMBED_PROB = "quantize.embed_prob"


def settings(name="titok_s128", **changes):
    """The published config of a model, of what concerns us and something else."""
    config = PRESETS[name]
    sizes = {512: "small", 768: "base", 1024: "large"}
    vq = {
        "codebook_size": config.codes,
        "token_size": config.code_width,
        "use_l2_norm": config.l2_normalised,
        "commitment_cost": 0.25,
        "vit_enc_model_size": sizes[config.encoder.width],
        "vit_dec_model_size": sizes[config.decoder.width],
        "vit_enc_patch_size": 16,
        "vit_dec_patch_size": 16,
        "num_latent_tokens": config.tokens,
        "finetune_decoder": config.legacy,
    }
    if not config.legacy:
        vq |= {"is_legacy": False, "quantize_mode": "vq"}
    crop = changes.pop("crop_size", 256)
    return {
        "experiment": {"output_dir": name},
        "model": {"vq_model": vq | changes, "generator": {"image_seq_len": "${model.vq_model.num_latent_tokens}"}},
        "dataset": {"preprocessing": {"crop_size": crop}},
    }


def picture(side=256):
    """(1, 3, side, side) float pixels of a photograph."""
    image = Image.open(DATA / "astronaut.jpg").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255


def call(*arguments):
    return CliRunner().invoke(cli.convert, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(problem, function, *arguments, **options):
    with pytest.raises(WeightsError, match=problem) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- recognising ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_published_tokenizer_is_recognised_by_its_shapes(name):
    shapes = published(name)
    assert recognise(shapes) == recognise(shapes, settings(name)) == recognise(shapes, {}) == PRESETS[name]


def test_descriptions_name_the_published_models():
    assert [describe(PRESETS[name]).partition(":")[0] for name in NAMES] == [
        "TiTok-L-32 (legacy)",
        "TiTok-B-64 (legacy)",
        "TiTok-S-128 (legacy)",
        "TiTok-BL-64 (one stage)",
        "TiTok-BL-128 (one stage)",
        "TiTok-SL-256 (one stage)",
    ]
    assert describe(PRESETS["titok_s128"]).endswith(": encoder 512x8, decoder 512x8, 128 tokens of 4096x12 codes, l2")
    assert describe(SMALL_ONE_STAGE) == ("TiTok (one stage): encoder 128x2, decoder 64x1, 256 tokens of 8192x64 codes")


def test_larger_patches_are_larger_pictures():
    shapes = published("titok_bl64") | {"encoder.patch_embed.weight": (768, 3, 32, 32)}
    config = recognise(shapes)
    assert (config.image_size, config.patch_size, config.grid) == (512, 32, 16)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("titok_s128", {"codebook_size": 8192}, "codebook_size is 8192, but by the tensors it is 4096"),
        ("titok_s128", {"token_size": 16}, "token_size is 16, but by the tensors it is 12"),
        ("titok_s128", {"num_latent_tokens": 64}, "num_latent_tokens is 64, but by the tensors it is 128"),
        ("titok_s128", {"vit_enc_model_size": "base"}, "vit_enc_model_size is 'base', but .* it is 'small'"),
        ("titok_bl64", {"vit_dec_model_size": "base"}, "vit_dec_model_size is 'base', but .* it is 'large'"),
        ("titok_s128", {"vit_enc_patch_size": 32}, "vit_enc_patch_size is 32, but by the tensors it is 16"),
        ("titok_bl64", {"vit_dec_patch_size": "16"}, "vit_dec_patch_size is '16', but by the tensors it is 16"),
        ("titok_s128", {"crop_size": 512}, "crop_size is 512, but by the tensors it is 256"),
        ("titok_s128", {"is_legacy": False}, "is_legacy is False, but by the tensors it is True"),
        ("titok_s128", {"finetune_decoder": False}, "finetune_decoder is False, but by the tensors it is True"),
        ("titok_bl64", {"is_legacy": True}, "is_legacy is True, but by the tensors it is False"),
        ("titok_bl64", {"is_legacy": 0}, "is_legacy is 0, but by the tensors it is False"),
        ("titok_bl64", {"quantize_mode": "fsq"}, "quantize_mode is 'fsq', but by the tensors it is 'vq'"),
        ("titok_bl64", {"use_l2_norm": "no"}, "use_l2_norm is 'no', not true or false"),
    ],
)
def test_a_config_that_disagrees_is_refused_with_both_values(name, changes, message):
    refused(message, recognise, published(name), settings(name, **changes))


def test_missing_keys_are_tolerated_and_legacy_is_the_default():
    bare = {"model": {"vq_model": {}}}
    assert recognise(published("titok_s128"), bare) == PRESETS["titok_s128"]
    refused("is_legacy is True", recognise, published("titok_bl64"), bare)
    for other in ({"model": {}}, {"model": None}, {"model": {"vq_model": [1]}}, {"dataset": 3}):
        assert recognise(published("titok_bl64"), other) == PRESETS["titok_bl64"]
    refers = {"model": {"vq_model": {"num_latent_tokens": "${tokens}"}}, "dataset": {"preprocessing": {}}}
    assert recognise(published("titok_s128"), refers) == PRESETS["titok_s128"]


def test_normalisation_is_the_one_thing_that_shapes_do_not_show():
    shapes = published("titok_bl64") | {"quantize.embedding.weight": (4096, 64)}
    refused("do not show whether these 4096x64 codes are l2-normalised: give the published config", recognise, shapes)
    for said in (True, False):
        config = {"model": {"vq_model": {"use_l2_norm": said, "is_legacy": False}}}
        assert recognise(shapes, config).l2_normalised is said
    twelve = published("titok_bl64") | {"quantize.embedding.weight": (4096, 12)}
    assert recognise(twelve).l2_normalised
    without = {"model": {"vq_model": {"use_l2_norm": False}}}
    assert not recognise(published("titok_s128"), without).l2_normalised  # its word, where nothing speaks against it


def test_a_vae_has_no_codes():
    shapes = published("titok_bl64")
    lone = {key: shape for key, shape in shapes.items() if "quantize" not in key}
    wide = shapes | {"encoder.conv_out.weight": (128, 768, 1, 1)}
    for vae, config in ((lone, None), (wide, None), (shapes, settings("titok_bl64", quantize_mode="vae"))):
        refused("this tokenizer has no codes.*take a VQ model", recognise, vae, config)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (published_proxies(), r"the MaskGIT-VQGAN proxy tokenizer: python -m training.stage1 --proxies takes it"),
        ({"model.embeddings.word_embeddings.weight": (5098, 768)}, "a generator, .* Generator.from_pretrained takes"),
        ({"embeddings.weight": (5098, 1024), "in_blocks.0.norm1.weight": (1024,)}, "a generator, not a tokenizer"),
        ({}, "nor a published TiTok: it lacks latent_tokens"),
        (
            {k: s for k, s in published("titok_s128").items() if "pixel_" not in k},
            "of stage 1: it lacks pixel_quantize and pixel_decoder",
        ),
    ],
)
def test_other_checkpoints_are_called_by_their_names(shapes, message):
    refused(message, recognise, shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.patch_embed.weight"), "lacks encoder.patch_embed.weight"),
        (lambda s: s.pop("encoder.positional_embedding"), "lacks encoder.positional_embedding"),
        (lambda s: s.pop("decoder.mask_token"), "lacks decoder.mask_token"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder.tr")], "lacks decoder.transformer.0"),
        (lambda s: s.update(latent_tokens=(128,)), r"wrong shape for latent_tokens: \(128,\), not 2 axes"),
        (lambda s: s.update({"encoder.positional_embedding": (256, 512)}), "has 256 rows, no square and one"),
        (lambda s: s.update({"encoder.positional_embedding": (0, 512)}), "has 0 rows"),
        (lambda s: s.update(latent_tokens=(128, 500)), "encoder is 500 wide, which is no multiple of 64"),
        (lambda s: s.update(latent_tokens=(128, 0)), "encoder is 0 wide"),
        (lambda s: s.update(latent_tokens=(257, 512)), "tokens must be 1 to 256"),
        (lambda s: s.update(latent_tokens=(128, 1 << 40)), "width is 1099511627776"),
        (lambda s: s.update({"encoder.transformer.9999.ln_1.bias": (512,)}), "out of range"),
        (lambda s: s.update({"quantize.embedding.weight": (1 << 40, 12)}), "codes is 1099511627776"),
    ],
)
def test_tensors_that_tell_nothing_sensible_are_named(change, message):
    shapes = published("titok_s128")
    change(shapes)
    tracemalloc.start()
    refused(message, recognise, shapes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


# ---- the full-size S-128 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s128(tmp_path_factory):
    """A stand-in for the published S-128 as a .bin, converted by the command: its tensors, the result, the file."""
    folder = tmp_path_factory.mktemp("s128")
    torch.manual_seed(4)
    noise, state, start = torch.randn(1 << 23), {}, 0
    for name, shape in published("titok_s128").items():
        size = math.prod(shape)
        start = (start + 7919) % (len(noise) - size)  # drawing 84 million numbers anew would take a second
        value = noise[start : start + size].view(shape)
        value = value / math.sqrt(size // shape[0]) if len(shape) > 1 else value / 5 + ("bias" not in name)
        state[name] = value.half()
    source, out = folder / "tokenizer_titok_s128.bin", folder / "s128.safetensors"
    torch.save(state, source)
    result = call(source, out, "--json")
    yield {name: value.float() for name, value in state.items()}, result, out
    for path in (source, out):
        path.unlink()


def test_the_command_says_what_it_recognised(s128):
    _, result, out = s128
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["recognised"] == describe(PRESETS["titok_s128"])
    assert (facts["name"], facts["tensors"], facts["parameters"]) == ("tokenizer_titok_s128", 308, 83_674_639)
    assert (facts["precision"], facts["bytes"]) == ("fp16", out.stat().st_size)
    assert abs(facts["bytes"] - 2 * 83_674_639) < 100_000
    opened = tokenizers.read(out)
    assert (opened.config, opened.name) == (PRESETS["titok_s128"], "tokenizer_titok_s128")
    assert opened.fingerprint.hex() == facts["fingerprint"] and opened.model_id == 0


@torch.no_grad()
def test_s128_gives_the_tokens_and_pixels_of_the_plain_pass(s128):
    state, _, out = s128
    codec, config, pixels = Codec.from_pretrained(out, device="cpu", dtype="fp32"), PRESETS["titok_s128"], picture()
    expected = plain_tokens(plain_latents(pixels, state, config), state, config)
    tokens = codec.encode(pixels)
    assert tokens.unique().numel() > 20
    assert (tokens == expected).float().mean() >= 0.99
    decoded, expected = codec.decode(expected), plain_pixels(expected, state, config)
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.1  # the clamp does not hide it
    assert (decoded - expected).abs().max() <= 1e-3

    data = codec.compress(DATA / "astronaut.jpg", layout="fit")
    about = titokcodec.info(data)
    assert (about.tokens, about.payload, about.nested) == (128, 192, False)
    assert about.fingerprint == codec.weights.fingerprint.hex() and about.model == "custom"


# ---- smaller ones: folders, files, names --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_stage():
    return make(SMALL_ONE_STAGE).state_dict()


@pytest.fixture
def folder(one_stage, tmp_path):
    """A one-stage model in the hub's layout."""
    folder = tmp_path / "tokenizer_mine"
    folder.mkdir()
    save_file(one_stage, folder / "model.safetensors")
    vq = {"use_l2_norm": False, "codebook_size": 8192, "is_legacy": False}
    (folder / "config.json").write_text(json.dumps({"model": {"vq_model": vq}}))
    return folder


@pytest.fixture
def checkpoint(one_stage, tmp_path):
    """A function that writes the one-stage model's tensors, changed, to a file."""

    def write(change=lambda state: None, name="mine.bin", **options):
        state = dict(one_stage)
        state = change(state) or state
        path = tmp_path / name
        save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path, **options)
        return path

    return write


@torch.no_grad()
def test_a_folder_in_the_hubs_layout_is_a_model_whose_files_hold_256_codes_of_13_bits(folder, one_stage):
    codec, pixels = Codec.from_pretrained(folder, device="cpu", dtype="fp32"), picture()
    assert codec.weights.config == SMALL_ONE_STAGE and codec.weights.name == "tokenizer_mine"
    latents = plain_latents(pixels, one_stage, SMALL_ONE_STAGE)
    expected = torch.cat([plain_tokens(part, one_stage, SMALL_ONE_STAGE) for part in latents.split(32, 1)], 1)
    tokens = codec.encode(pixels)
    assert tokens.unique().numel() > 50 and tokens.max() > 4095
    assert (tokens == expected).float().mean() >= 0.99
    plain = plain_pixels(tokens, one_stage, SMALL_ONE_STAGE)
    assert ((plain > 0) & (plain < 1)).float().mean() > 0.1
    assert (codec.decode(tokens) - plain).abs().max() <= 1e-3

    eight_bits = (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()
    data = codec.compress(eight_bits)
    about = titokcodec.info(data)
    assert (about.tokens, about.payload, about.bytes) == (256, 256 * 13 // 8, 416 + 19)  # 19: see the README
    assert about.fingerprint == codec.weights.fingerprint.hex()
    decoded = np.asarray(codec.decompress(data))
    kept = codec.encode(torch.from_numpy(eight_bits).permute(2, 0, 1)[None])
    rounded = (plain_pixels(kept, one_stage, SMALL_ONE_STAGE)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.mean(decoded == rounded) > 0.999  # rounded, where the published demo cuts off
    with pytest.raises(TitokError, match="exactly 256 tokens, not 32"):
        codec.compress(eight_bits, tokens=32)
    with pytest.raises(TitokError, match="needs all 256 tokens"):
        titokcodec.truncate(data, 32)


def test_a_plain_file_is_a_model_if_its_shapes_settle_it(folder):
    path = (folder / "model.safetensors").rename(folder / "theirs.safetensors")
    opened = tokenizers.read(path)
    assert (opened.name, opened.config) == ("theirs", SMALL_ONE_STAGE)
    assert opened.fingerprint == tokenizers.read(path.rename(folder / "model.safetensors")).fingerprint


def test_a_folder_is_read_with_its_config(folder, one_stage):
    config = folder / "config.json"
    config.write_text(json.dumps({"model": {"vq_model": {"use_l2_norm": True, "is_legacy": False}}}))
    assert tokenizers.read(folder).config.l2_normalised
    config.write_text(json.dumps(settings("titok_sl256")))
    refused("vit_enc_model_size is 'small', but by the tensors it is '128 wide and 2 deep'", tokenizers.read, folder)
    for text, message in (
        ("{", "no config in JSON"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "no config"),
        (" " * (1 << 21), "too large"),
    ):
        config.write_text(text)
        refused(message, tokenizers.read, folder)
    config.unlink()
    assert tokenizers.read(folder).config == SMALL_ONE_STAGE
    save_file(one_stage | {EMBED_PROB: torch.zeros(8192)}, folder / "model.safetensors")
    tokenizers.load_model(folder)
    save_file(one_stage | {"more": torch.zeros(2)}, folder / "model.safetensors")
    refused(r"model.safetensors does not fit .* unknown tensors more$", tokenizers.load_model, folder)


@torch.no_grad()
def test_a_legacy_model_keeps_its_quirks_through_a_conversion(tmp_path):
    state = {name: value.half() for name, value in make(SMALL_LEGACY).state_dict().items()}
    torch.save(state, tmp_path / "legacy.bin")
    done = convert(tmp_path / "legacy.bin", tmp_path / "legacy.safetensors")
    model, state = tokenizers.build(done.weights), {name: value.float() for name, value in state.items()}
    assert done.weights.config == SMALL_LEGACY
    pixels = pictures(SMALL_LEGACY, 1)
    latents = plain_latents(pixels, state, SMALL_LEGACY)
    torch.testing.assert_close(model.latents(pixels), latents, rtol=0, atol=1e-4)
    tokens = model.encode(pixels)
    assert tokens.equal(plain_tokens(latents, state, SMALL_LEGACY))
    assert (model.decode(tokens) - plain_pixels(tokens, state, SMALL_LEGACY)).abs().max() <= 1e-3
    (tmp_path / "legacy.bin").unlink()


def test_every_kind_of_file_gives_the_same_model(checkpoint, folder, tmp_path):
    def convert_(source, config=None):
        return convert(source, tmp_path / "out.safetensors", config, overwrite=True).weights

    plain = convert_(checkpoint())
    assert plain.name == "mine" and plain.config == SMALL_ONE_STAGE
    for source in (
        checkpoint(name="other.pt"),
        checkpoint(name="mine.safetensors"),
        checkpoint(name="old.pth", _use_new_zipfile_serialization=False),
        checkpoint(lambda s: {"state_dict": s, "epoch": 3}, "wrapped.bin"),
        checkpoint(lambda s: {"model": {"state_dict": s}}, "twice.bin"),
        checkpoint(lambda s: {f"module.{name}": value for name, value in s.items()}, "parallel.bin"),
        checkpoint(lambda s: s.update({EMBED_PROB: torch.zeros(8192)}), "trained.bin"),
        checkpoint(lambda s: {name: value.double() for name, value in s.items()}, "double.bin"),
    ):
        assert convert_(source).fingerprint == plain.fingerprint, source
    assert convert_(folder).fingerprint == plain.fingerprint
    assert tokenizers.read(tmp_path / "out.safetensors").name == "tokenizer_mine"
    rough = convert_(checkpoint(lambda s: {name: value.bfloat16() for name, value in s.items()}, "rough.safetensors"))
    assert rough.config == plain.config and rough.fingerprint != plain.fingerprint


def test_numbers_are_stored_in_16_or_8_bits(checkpoint, one_stage, tmp_path):
    for int8, bits in ((False, 11), (True, 7)):
        out = tmp_path / f"{bits}.safetensors"
        loaded = tokenizers.load_model(convert(checkpoint(), out, int8=int8).weights.path).state_dict()
        for name, value in one_stage.items():
            step = value.flatten(1).abs().amax(1).max() if value.ndim > 1 else value.abs().max()
            assert (loaded[name] - value).abs().max() <= step * 2**-bits, name
    assert (tmp_path / "7.safetensors").stat().st_size < 0.8 * (tmp_path / "11.safetensors").stat().st_size


def test_yaml_configs(checkpoint, tmp_path):
    pytest.importorskip("yaml")
    path, out = tmp_path / "config.yaml", tmp_path / "out.safetensors"
    path.write_text("model:\n    vq_model:\n        use_l2_norm: True\n        is_legacy: False\n")
    assert convert(checkpoint(), out, path).weights.config.l2_normalised
    for text, message in (
        ("model: {vq_model: {token_size: 12, is_legacy: False}}", "token_size is 12, but by the tensors it is 64"),
        ("model: [", "no config in JSON or YAML"),
        ("3", "holds a int"),
        ("a: !!python/object/new:os.mkdir [x]", "no config"),
        ("model: 3", "no model.vq_model section"),
        ("a: &a [*a, " + "[" * 5000, "no config"),
    ):
        path.write_text(text)
        refused(message, convert, checkpoint(), out, path, overwrite=True)
    refused("cannot read the config .*none.yaml: No such file", convert, checkpoint(), out, tmp_path / "none.yaml")


def test_yaml_needs_its_library_and_json_does_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    for suffix in (".yaml", ".json"):
        (tmp_path / f"config{suffix}").write_text(json.dumps(settings()))
    refused(r"pip install 'titokcodec\[convert\]'", read_config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.json") == settings()


# ---- bad checkpoints ----------------------------------------------------------------------------------------------


def spoil(name, value):
    return lambda state: state.update({name: value})


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.ln_post.bias") is None, "does not fit .* it lacks encoder.ln_post.bias$"),
        (lambda s: s.pop("quantize.embedding.weight") is None, "lacks quantize.embedding.weight"),
        (spoil("extra.weight", torch.zeros(2)), "unknown tensors extra.weight$"),
        (spoil("decoder.ffn.2.weight", torch.zeros(2)), "of stage 1: it lacks pixel_quantize"),
        (
            spoil("decoder.conv_out.weight", torch.zeros(3, 3, 1, 1)),
            r"wrong shape for decoder.conv_out.weight \(3x3x1x1",
        ),
        (spoil("decoder.conv_out.bias", torch.tensor([0.0, torch.nan, 0])), "tensor decoder.conv_out.bias does not"),
        (spoil("decoder.conv_out.bias", torch.tensor([0.0, torch.inf, 0])), "tensor decoder.conv_out.bias does not"),
        (spoil("decoder.conv_out.bias", torch.zeros(3, dtype=torch.int64)), "tensor decoder.conv_out.bias does not"),
        (spoil("decoder.conv_out.bias", torch.full((3,), 1e5)), "decoder.conv_out.bias is too large for float16"),
        (spoil("encoder.transformer.2.ln_1.bias", torch.zeros(128)), r"lacks encoder.transformer.2.* and 8 more$"),
        (spoil("new\nline", torch.zeros(2)), "unknown tensors new line$"),
    ],
    ids=range(11),
)
def test_tensors_that_do_not_fit_are_named(checkpoint, tmp_path, suffix, change, message):
    source, out = checkpoint(change, f"bad{suffix}"), tmp_path / "out.safetensors"
    assert f"bad{suffix}" in refused(message, convert, source, out)
    assert not out.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_unreadable_checkpoints_are_one_line(checkpoint, tmp_path, suffix):
    whole = checkpoint(name=f"whole{suffix}").read_bytes()
    path = tmp_path / f"bad{suffix}"
    for data in (
        b"",
        b"\0" * 40,
        b"PK\x03\x04",
        b"not a weight file",
        whole[: len(whole) // 2],
        whole[:-9],
        whole[:100],
    ):
        path.write_bytes(data)
        assert str(path) in refused("not a readable", convert, path, tmp_path / "out.safetensors")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_in_a_checkpoint_is_run(checkpoint, tmp_path, zipped):
    bomb = Bomb()
    bomb.path = str(tmp_path / "exploded")
    path = checkpoint(spoil("latent_tokens", bomb), _use_new_zipfile_serialization=zipped)
    refused("not a readable PyTorch file: it is damaged or holds more than tensors", convert, path, tmp_path / "o")
    assert not (tmp_path / "exploded").exists()


def test_small_files_cannot_claim_much(checkpoint, tmp_path):
    huge = torch.zeros(1).expand(16384, 1 << 20)
    path = checkpoint(lambda s: {"latent_tokens": huge, "encoder.transformer.0": huge})
    refused("its tensors claim .* bytes, more than the file has", convert, path, tmp_path / "out.safetensors")

    swollen = tmp_path / "swollen.bin"  # a gigabyte of zeros would take a megabyte
    with zipfile.ZipFile(checkpoint()) as plain, zipfile.ZipFile(swollen, "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in plain.namelist():
            deflated.writestr(entry, plain.read(entry))
    refused("not a readable PyTorch file", convert, swollen, tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({1: torch.zeros(1)}, "entry 1 is a"),
        ({"latent_tokens": 3}, "entry 'latent_tokens' is a int"),
        ({}, "lacks latent_tokens"),
        ({"model": {"model": {"model": {}}}}, "'model' is a dict"),
    ],
)
def test_tensors_by_name_are_wanted(tmp_path, content, message):
    torch.save(content, tmp_path / "other.bin")
    refused(message, convert, tmp_path / "other.bin", tmp_path / "out.safetensors")


def test_other_files_are_refused(tmp_path, tiny_path):
    refused("tiny.safetensors: this is a titokcodec weight file already", convert, tiny_path, tmp_path / "out")
    (tmp_path / "a.ckpt").write_bytes(b"")
    refused("unknown kind: give a .safetensors, .bin, .pt or .pth file", convert, tmp_path / "a.ckpt", "out")
    refused("no weight file at", convert, tmp_path / "none.bin", tmp_path / "out")


# ---- the command --------------------------------------------------------------------------------------------------


def test_the_command_writes_once_and_says_so_on_standard_error(checkpoint, tmp_path):
    source, out = checkpoint(), tmp_path / "out.safetensors"
    result = call(source, out, "--name", "new")
    assert result.exit_code == 0 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{source} -> {out}  {describe(SMALL_ONE_STAGE)}; ")
    opened = tokenizers.read(out)
    assert result.stderr.endswith(f" -> fp16, 3 MB, fingerprint {opened.fingerprint.hex()}\n")
    assert opened.name == "new"

    before = out.read_bytes()
    result = call(source, out, "--int8")
    assert result.exit_code == 1 and result.stderr == f"titok-convert: {out} exists: use --force to replace it\n"
    assert out.read_bytes() == before
    link = tmp_path / "link.safetensors"
    link.symlink_to(out)
    result = call(source, link, "--int8", "-f", "-q")
    assert result.exit_code == 0 and result.output == ""
    assert link.is_symlink() and len(out.read_bytes()) < len(before)
    assert out.stat().st_mode & 0o777 == source.stat().st_mode & 0o777  # readable for whom other files are


def test_the_command_fails_in_one_line(checkpoint, tmp_path):
    source = checkpoint(spoil("decoder.conv_out.bias", torch.zeros(4)), "bad.bin")
    result = call(source, tmp_path / "out.safetensors", "--json")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"titok-convert: {source} does not fit ")
    facts = json.loads(result.stdout)
    assert facts["input"] == str(source) and "decoder.conv_out.bias" in facts["error"]
    result = call(source, tmp_path / "none" / "out.safetensors")
    assert result.exit_code == 1 and "there is no folder" in result.stderr
    for out in ("-", tmp_path, "/dev/null"):
        assert call(source, out, "-f").exit_code == 2
    assert call(source).exit_code == 2
    assert not (tmp_path / "out.safetensors").exists()


def test_help_is_instant():
    code = """
import sys
from titokcodec.cli import convert
try:
    convert(["--help"])
except SystemExit as end:
    assert not end.code
assert not {"torch", "numpy", "PIL", "safetensors", "yaml"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for option in ("-h", "--help"):
        text = call(option).stdout
        assert text.startswith("Usage: titok-convert ") and "Example" in text
    assert call("--version").stdout == f"titok-convert {titokcodec.__version__}\n"
