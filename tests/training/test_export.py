"""What an export adds to a checkpoint: tables for each codebook, and a share of another decoder."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch

from tests.conftest import DATA
from tests.models.test_linear import CONFIG, started
from titokcodec import Codec
from titokcodec.errors import TitokError
from titokcodec.format import entropy
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers
from training.export import blended, candidates, choose_tables, main, mean_of


@pytest.fixture(scope="module")
def pair():
    """Two models of the same tokens whose decoders differ."""
    one, other = started(count=300), started(count=300)
    with torch.no_grad():
        for parameter in other.decoder.parameters():
            parameter.add_(1.0)
    return one, other


def test_a_blend_takes_a_share_of_the_other_decoder_and_leaves_fine_detail_and_tokens_alone(pair):
    one, other = pair
    before = {name: value.clone() for name, value in one.state_dict().items()}
    after = blended(one, other, 0.25).state_dict()
    for name, value in before.items():
        moved = name in dict(one.decoder.named_parameters(prefix="decoder")) and ".ffn.detail." not in name
        assert torch.allclose(after[name], value + 0.25 if moved else value, atol=1e-6), name
    one.load_state_dict(before)


def test_a_blend_of_other_tokens_or_another_architecture_is_refused(pair):
    stranger = started(count=300)
    with torch.no_grad():
        stranger.encoder.conv_out.bias.add_(1.0)
    with pytest.raises(TitokError, match=r"same tokens, but encoder\.conv_out\.bias"):
        blended(stranger, pair[0], 0.5)


def test_the_mean_of_decoders_is_of_all_alike_fine_detail_included(pair):
    one, other = pair
    before = {name: value.clone() for name, value in one.state_dict().items()}
    after = mean_of(one, [other, other]).state_dict()
    for name, value in before.items():
        moved = name in dict(one.decoder.named_parameters(prefix="decoder"))
        assert torch.allclose(after[name], value + 2 / 3 if moved else value, atol=1e-5), name
    one.load_state_dict(before)


def test_the_command_averages_weight_files(pair, tmp_path):
    for name, model in zip("ab", pair, strict=True):
        tokenizers.save(tmp_path / f"{name}.safetensors", model, name, int8=False)
    main(
        [
            str(tmp_path / "a.safetensors"),
            str(tmp_path / "c.safetensors"),
            "--name",
            "c",
            "--fp16",
            "--average",
            str(tmp_path / "b.safetensors"),
        ]
    )
    middle, one = (tokenizers.load_model(tmp_path / f"{name}.safetensors").decoder for name in "ca")
    assert torch.allclose(middle.ffn.detail.leave.bias, one.ffn.detail.leave.bias + 0.5, atol=1e-3)
    other = TiTok(dataclasses.replace(CONFIG, head_blocks=CONFIG.head_blocks + 1))
    tokenizers.save(tmp_path / "d.safetensors", other, "d", int8=False)
    with pytest.raises(TitokError, match="--average takes a model of the same architecture"):
        main(
            [
                str(tmp_path / "a.safetensors"),
                str(tmp_path / "e.safetensors"),
                "--name",
                "e",
                "--average",
                str(tmp_path / "d.safetensors"),
            ]
        )


def test_the_command_blends_weight_files(pair, tmp_path):
    for name, model in zip("ab", pair, strict=True):
        tokenizers.save(tmp_path / f"{name}.safetensors", model, name, int8=False)
    main(
        [
            str(tmp_path / "a.safetensors"),
            str(tmp_path / "c.safetensors"),
            "--name",
            "c",
            "--fp16",
            "--blend",
            str(tmp_path / "b.safetensors"),
            "1",
        ]
    )
    mixed, other = (tokenizers.load_model(tmp_path / f"{name}.safetensors").decoder for name in "cb")
    assert torch.equal(mixed.mask_token, other.mask_token)
    assert not torch.equal(mixed.ffn.detail.leave.bias, other.ffn.detail.leave.bias)


def skewed(count=400):
    """Tokens of CONFIG whose two codebooks are used differently, and neither evenly."""
    random = np.random.default_rng(0)
    tokens = np.minimum(random.geometric(0.2, (count, CONFIG.tokens)) - 1, CONFIG.codes - 1)
    tokens[:, CONFIG.tokens // 2 :] = CONFIG.codes - 1 - tokens[:, CONFIG.tokens // 2 :]
    return tokens


def test_positions_of_a_codebook_share_a_table():
    rows = candidates(skewed(), CONFIG.codes, 2)["each"].frequencies
    assert len(rows) == CONFIG.tokens
    assert (rows[:8] == rows[0]).all() and (rows[8:] == rows[8]).all() and (rows[0] != rows[8]).any()


def test_a_file_holds_one_table_a_codebook_and_codes_with_all_of_them(pair, tmp_path):
    tokens = skewed()
    tables, bits = choose_tables(tokens, CONFIG.codes, 2)
    assert bits["each"] < bits["shared"] < bits["packed"]
    saved = tokenizers.save(tmp_path / "m.safetensors", pair[0], "m", tables)
    with tokenizers.open_file(saved.path) as file:
        assert file.get_tensor("entropy.frequencies").shape == (2, CONFIG.codes)
    assert np.array_equal(saved.tables.frequencies, tables.frequencies)
    for length in (4, 9, 16):
        mode, payload = entropy.encode(tokens[:3, :length], CONFIG.codes, saved.tables)
        assert mode == 1
        assert np.array_equal(entropy.decode(payload, mode, 3, length, CONFIG.codes, saved.tables), tokens[:3, :length])


@pytest.mark.parametrize("share", ["2", "-0.1", "nan", "x"])
def test_a_share_that_makes_no_sense_is_named(pair, tmp_path, share):
    tokenizers.save(tmp_path / "a.safetensors", pair[0], "a")
    with pytest.raises(TitokError, match="from 0 to 1"):
        main(
            [
                str(tmp_path / "a.safetensors"),
                str(tmp_path / "c.safetensors"),
                "--name",
                "c",
                "--blend",
                str(tmp_path / "a.safetensors"),
                share,
            ]
        )
    assert not (tmp_path / "c.safetensors").exists()


def test_a_file_that_is_no_model_ends_in_one_line(tmp_path):
    for name in ("nope.safetensors", "nope.pt"):
        with pytest.raises(TitokError, match="nope"):
            main([str(tmp_path / name), str(tmp_path / "c.safetensors"), "--name", "c"])


@pytest.fixture
def early(tiny_path, tmp_path):
    """A weight file in float16 without tables, as it is written in haste."""
    tokenizers.save(tmp_path / "early.safetensors", tokenizers.load_model(tiny_path), "early", int8=False)
    return tmp_path / "early.safetensors"


def test_a_weight_file_gets_tables_and_int8_later(early, tmp_path, photo, capsys, chatty):
    out = tmp_path / "late.safetensors"
    main([str(early), str(out), "--name", "late", "--data", str(DATA), "--device", "cpu"])
    out_text, err = capsys.readouterr()
    told = json.loads(out_text)
    assert re.search(r"counting codes: (\d+) of \1 pictures, ", err)
    opened = tokenizers.read(out)
    assert opened.tables and opened.name == "late" and told["fingerprint"] == opened.fingerprint.hex()
    assert told["bits"]["each"] < told["bits"]["packed"] == 6
    with tokenizers.open_file(out) as file:
        assert any(name.endswith(".scale") for name in file.keys())  # noqa: SIM118
    before, after = (Codec.from_pretrained(path, device="cpu", dtype="fp32") for path in (early, out))
    assert len(after.compress(photo, layout="fit")) < len(before.compress(photo, layout="fit"))


@pytest.mark.cuda
def test_pictures_are_encoded_on_the_device_that_is_asked_for(early, tmp_path, monkeypatch):
    seen, encode = [], TiTok.encode
    monkeypatch.setattr(TiTok, "encode", lambda self, pixels: seen.append(pixels.device.type) or encode(self, pixels))
    for more in ([], ["--device", "cpu"]):
        main([str(early), str(tmp_path / "out.safetensors"), "--name", "out", "--data", str(DATA), "--force", *more])
    assert seen == ["cuda", "cpu"]


def test_a_device_that_is_not_there_ends_in_one_line(early, tmp_path):
    with pytest.raises(TitokError, match="no device 'cuda:99' here: try --device cpu"):
        main([str(early), str(tmp_path / "out.safetensors"), "--name", "out", "--device", "cuda:99"])
    assert not (tmp_path / "out.safetensors").exists()
