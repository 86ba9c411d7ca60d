"""Weight files: what is saved comes back, the fingerprint covers every bit of it, and bad files are named."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save, save_file

from tests.conftest import ROOT
from titokcodec import Codec
from titokcodec.errors import ModelMismatch, WeightsError
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.models.config import TiTokConfig, Tower
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import releases, tokenizers
from titokcodec.weights.releases import Release
from titokcodec.weights.storage import open_file, write_safetensors

CONFIG = TiTokConfig(
    Tower(16, 1, 2),
    Tower(16, 1, 2),
    tokens=4,
    codes=16,
    code_width=4,
    image_size=32,
    patch_size=16,
    head_width=4,
    head_blocks=1,
    head_grid=4,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TiTok(CONFIG).eval()


@pytest.fixture(scope="module")
def tables():
    return FrequencyTables.from_counts(np.arange(1, 17)[None])


@pytest.fixture
def saved(model, tables, tmp_path):
    return tokenizers.save(tmp_path / "w.safetensors", model, "example", tables)


def rewrite(path, change=None, about=None, **metadata):
    """The file at ``path`` written again beside it, with its tensors and description changed."""
    arrays = load_file(path)
    with open_file(path) as file:
        description = json.loads(file.metadata()["titok"])
    if change:
        arrays = change(arrays) or arrays
    description |= about or {}
    other = path.with_name("other.safetensors")
    save_file(arrays, other, {"titok": json.dumps(description), **metadata})
    return other


# ---- round trips ----------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_read(saved, tables):
    again = tokenizers.read(saved.path)
    assert (again.name, again.config, again.fingerprint) == ("example", CONFIG, saved.fingerprint)
    assert np.array_equal(again.tables.frequencies, tables.frequencies)
    assert again.model_id == 0


def test_float16_keeps_every_number_to_eleven_bits(model, tmp_path):
    opened = tokenizers.save(tmp_path / "w.safetensors", model, "example", int8=False)
    assert opened.tables is None
    loaded = tokenizers.build(opened).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded[name], value, rtol=2**-11, atol=2**-24)


def test_int8_keeps_every_number_to_half_a_step_of_its_row(model, saved):
    loaded = tokenizers.build(saved).state_dict()
    stored = load_file(saved.path)
    narrow = {name for name, value in stored.items() if value.dtype == np.int8}
    assert {
        "encoder.transformer.0.mlp.c_fc.weight",
        "encoder.patch_embed.weight",
        "decoder.decoder_embed.weight",
        "encoder.transformer.0.attn.in_proj_weight",
    } <= narrow
    assert not {"quantize.embedding.weight", "encoder.positional_embedding", "encoder.ln_pre.weight"} & narrow
    for name, value in model.state_dict().items():
        if name in narrow:
            step = value.flatten(1).abs().amax(1) / 127
            assert ((loaded[name] - value).flatten(1).abs() <= step[:, None] * 0.501).all(), name
        else:
            torch.testing.assert_close(loaded[name], value, rtol=2**-11, atol=2**-24)


def test_a_loaded_model_is_ready_to_run(saved):
    loaded = tokenizers.load_model(saved.path)
    assert not loaded.training
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())
    tokens = loaded.encode(torch.rand(2, 3, 32, 32))
    assert loaded.decode(tokens).shape == (2, 3, 32, 32)


def test_saving_again_what_was_loaded_changes_nothing(saved, tables, tmp_path):
    again = tokenizers.save(tmp_path / "again.safetensors", tokenizers.build(saved), "example", tables)
    assert again.fingerprint == saved.fingerprint


def test_a_row_of_zeros_survives(model, tmp_path):
    model = copy.deepcopy(model)
    model.encoder.patch_embed.weight.data[3] = 0
    loaded = tokenizers.build(tokenizers.save(tmp_path / "w.safetensors", model, "example"))
    assert loaded.encoder.patch_embed.weight[3].abs().max() == 0


def test_the_file_is_laid_out_as_safetensors_does_it(saved, tmp_path):
    arrays = load_file(saved.path)
    with open_file(saved.path) as file:
        metadata = file.metadata()
    assert saved.path.read_bytes() == save(arrays, metadata)
    odd = {"é": np.zeros((0, 3), np.float16), "b": np.float32(3).reshape(()), "a": np.arange(6, dtype=np.int8)[::2]}
    write_safetensors(tmp_path / "odd", odd, {"titok": 'quotes " and ü'})
    whole = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in odd.items()}
    assert (tmp_path / "odd").read_bytes() == save(whole, {"titok": 'quotes " and ü'})


# ---- fingerprints ---------------------------------------------------------------------------------------------


def test_fingerprint_of_the_tiny_model(tiny_path):
    assert tokenizers.read(tiny_path).fingerprint.hex() == "d00e77152a1cd925"


def test_fingerprint_is_of_the_content_not_of_the_file(saved):
    def reverse(arrays):
        return dict(reversed(arrays.items()))

    other = rewrite(saved.path, reverse, {"name": "renamed"}, extra="more metadata")
    assert other.read_bytes() != saved.path.read_bytes()
    assert tokenizers.read(other).fingerprint == saved.fingerprint


def test_fingerprint_ignores_where_the_file_puts_each_tensor(saved):
    """Tensors laid out by hand in the order of their names backwards; safetensors itself sorts them by type."""
    arrays = load_file(saved.path)
    header, body = {"__metadata__": {}}, b""
    with open_file(saved.path) as file:
        header["__metadata__"] = file.metadata()
    kinds = {"float16": "F16", "float32": "F32", "int8": "I8", "uint32": "U32"}
    for name in sorted(arrays, reverse=True):
        data = arrays[name].tobytes()
        header[name] = {
            "dtype": kinds[arrays[name].dtype.name],
            "shape": list(arrays[name].shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    other = saved.path.with_name("by_hand.safetensors")
    other.write_bytes(len(text).to_bytes(8, "little") + text + body)
    assert tokenizers.read(other).fingerprint == saved.fingerprint


def test_one_bit_of_any_tensor_changes_the_fingerprint(saved):
    arrays = load_file(saved.path)
    seen = {saved.fingerprint}
    for name in arrays:
        damaged = dict(arrays)
        damaged[name] = arrays[name].copy()
        damaged[name].reshape(-1).view(np.uint8)[-1] ^= 1
        seen.add(tokenizers.fingerprint_of(CONFIG, sorted(damaged.items())))
    assert len(seen) == len(arrays) + 1


def test_names_shapes_types_and_config_change_the_fingerprint():
    def of(name="a", array=None, config=CONFIG):
        array = np.arange(6, dtype=np.float32).reshape(2, 3) if array is None else array
        return tokenizers.fingerprint_of(config, [(name, array)])

    plain = np.arange(6, dtype=np.float32)
    others = [
        of(),
        of("b"),
        of(array=plain.reshape(3, 2)),
        of(array=plain),
        of(array=plain.view(np.int32).reshape(2, 3)),
        of(config=TiTokConfig.from_json(CONFIG.to_json().replace('"l2_normalised":true', '"l2_normalised":false'))),
    ]
    assert len(set(others)) == len(others)
    assert of(array=np.asfortranarray(plain.reshape(2, 3))) == of()


def test_tables_are_part_of_the_fingerprint(saved, model, tmp_path):
    without = tokenizers.save(tmp_path / "without.safetensors", model, "example")
    assert without.fingerprint != saved.fingerprint


# ---- files that are wrong -------------------------------------------------------------------------------------


def drop(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (drop("latent_tokens"), "lacks latent_tokens"),
        (drop("encoder.patch_embed.bias"), "lacks encoder.patch_embed.bias"),
        (lambda a: {k: v for k, v in a.items() if "decoder" not in k}, r"lacks decoder\..* and \d+ more"),
        (lambda a: a.update({"extra": np.zeros(2, np.float32)}), "unknown tensors extra"),
        (lambda a: a.update({"latent_tokens.scale.scale": np.zeros(2, np.float32)}), "unknown tensors latent_tokens"),
        (lambda a: a.update({"latent_tokens": np.zeros((5, 16), np.float16)}), "wrong shape for latent_tokens"),
        (lambda a: a.update({"latent_tokens": np.zeros(64, np.float16)}), "wrong shape for latent_tokens"),
        (
            lambda a: a.update({"encoder.patch_embed.weight.scale": np.ones(1, np.float32)}),
            "wrong shape for encoder.patch_embed.weight.scale",
        ),
    ],
    ids=range(8),
)
def test_a_tensor_that_does_not_fit_is_named_in_one_line(saved, change, problem):
    with pytest.raises(WeightsError, match=problem) as error:
        tokenizers.load_model(rewrite(saved.path, change))
    assert "\n" not in str(error.value) and "other.safetensors" in str(error.value)


@pytest.mark.parametrize(
    "frequencies",
    [
        np.full((2, 16), (2**24 - 16) // 16, np.uint32),  # neither one row nor four
        np.full((1, 8), (2**24 - 8) // 8, np.uint32),  # of another codebook
        np.full((1, 16), 5, np.uint32),  # not the right sum
        np.full((1, 16), (2**24 - 16) / 16, np.float32),
        np.zeros(16, np.uint32),
    ],
    ids=range(5),
)
def test_tables_that_do_not_fit_are_refused(saved, frequencies):
    with pytest.raises(WeightsError, match=r"tables|frequency"):
        tokenizers.read(rewrite(saved.path, lambda arrays: arrays.update({tokenizers.TABLES: frequencies})))


@pytest.mark.parametrize(
    "about",
    ["", "[]", "5", "null", '"x"', "{}", '{"name":"x"}', '{"name":"x","config":5}', "[" * 100_000],
    ids=range(9),
)
def test_a_description_that_makes_no_sense_is_refused(saved, about):
    other = saved.path.with_name("other.safetensors")
    save_file(load_file(saved.path), other, {"titok": about})
    with pytest.raises(WeightsError, match=r"not a titokcodec weight file|does not make sense"):
        tokenizers.read(other)


def test_other_safetensors_files_and_other_files_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, path)
    with pytest.raises(WeightsError, match="not a titokcodec weight file, nor a published TiTok: it lacks latent_t"):
        tokenizers.read(path)
    for junk in (b"", b"\0" * 7, b"\xff" * 100, b"PK\x03\x04 a checkpoint of another kind"):
        path.write_bytes(junk)
        with pytest.raises(WeightsError, match="not a readable safetensors file"):
            tokenizers.read(path)


def test_a_file_that_was_cut_short_is_refused(saved):
    saved.path.write_bytes(saved.path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        tokenizers.read(saved.path)


def test_bfloat16_is_refused_by_name(saved):
    text = saved.path.read_bytes()
    saved.path.write_bytes(
        text.replace(b'"dtype":"F16"', b'"dtype":"BF16"').replace(
            text[:8], (int.from_bytes(text[:8], "little") + text.count(b'"dtype":"F16"')).to_bytes(8, "little"), 1
        )
    )
    with pytest.raises(WeightsError, match="type that is not supported"):
        tokenizers.read(saved.path)


def test_a_failed_save_leaves_the_old_file(saved, model, monkeypatch):
    before = saved.path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk on fire")))
    with pytest.raises(OSError, match="on fire"):
        tokenizers.save(saved.path, model, "newer")
    assert saved.path.read_bytes() == before
    assert [path.name for path in saved.path.parent.iterdir()] == ["w.safetensors"]


def test_a_codec_needs_tiles_of_256_pixels(saved):
    with pytest.raises(WeightsError, match="256 pixels, but this model makes pictures of 32"):
        Codec.from_pretrained(saved.path, device="cpu")


# ---- where weights come from ----------------------------------------------------------------------------------


def test_a_folder_stands_for_the_model_in_it(model, tmp_path):
    tokenizers.save(tmp_path / "model.safetensors", model, "example")
    assert tokenizers.locate(tmp_path) == tokenizers.locate(str(tmp_path)) == tmp_path / "model.safetensors"


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no weight file at .*absent.safetensors"):
        tokenizers.locate(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match=r"no weight file at .*model.safetensors"):
        tokenizers.locate(tmp_path)


@pytest.fixture
def released(monkeypatch, tmp_path, tiny_path):
    """The tiny model as if the package had it inside, after a first model that is no longer shipped."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "second.safetensors").write_bytes(tiny_path.read_bytes())
    fingerprint = tokenizers.read(tiny_path).fingerprint
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    monkeypatch.setattr(
        releases,
        "RELEASES",
        (
            Release(1, "first", bytes(8), None),
            Release(2, "second", fingerprint, "second.safetensors"),
        ),
    )
    return tmp_path / "assets" / "second.safetensors"


def test_the_bundled_model_is_the_newest_that_is_shipped(released):
    assert tokenizers.locate() == tokenizers.locate(None) == released
    assert tokenizers.read().model_id == 2
    assert Codec.from_pretrained(device="cpu").weights.path == released


def test_a_released_model_costs_one_byte_and_needs_no_path_to_truncate(released, photo):
    from titokcodec import info, truncate

    codec = Codec.from_pretrained(device="cpu", dtype="fp32")
    data = codec.compress(photo)
    assert data[3] == 2
    assert (info(data).model, info(data).intact, info(data).fingerprint) == (
        "second",
        True,
        codec.weights.fingerprint.hex(),
    )
    assert truncate(data, 9) == codec.compress(photo, tokens=9)
    assert codec.decompress(data).size == photo.size


def test_a_file_of_a_replaced_model_names_it(released, photo):
    codec = Codec.from_pretrained(device="cpu", dtype="fp32")
    data = bytearray(codec.compress(photo))
    data[3] = 1
    with pytest.raises(ModelMismatch, match="needs the released model 'first', but this is 'tiny'"):
        codec.decompress(data)
    data[3] = 3
    with pytest.raises(ModelMismatch, match="released model 3, which this version does not know: upgrade"):
        codec.decompress(data)


def test_without_weights_in_the_package_a_path_is_asked_for(monkeypatch):
    monkeypatch.setattr(releases, "RELEASES", ())
    with pytest.raises(WeightsError, match="no weights in it: name a weight file"):
        tokenizers.locate()


def test_a_generator_is_no_tokenizer():
    with pytest.raises(WeightsError, match=r"classes-7\.safetensors holds a generator, .*titok-generate -g"):
        tokenizers.read(ROOT / "titokcodec" / "assets" / "classes-7.safetensors")
