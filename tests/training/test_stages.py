"""Every stage in seconds on a handful of pictures: it learns, what is frozen stays frozen, and a stop costs nothing."""

import argparse
import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.conftest import ROOT, plain_pictures
from tests.metrics.test_lite0 import lite0_state
from tests.metrics.test_lpips import lpips_file
from tests.training.ranks import two_ranks
from tests.training.test_training import CONFIG, LINEAR
from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models import vqgan as vqgan_model
from titokcodec.models.config import PRESETS, TiTokConfig, Tower
from titokcodec.models.tokenizer import TiTok
from titokcodec.models.vqgan import VQGAN
from titokcodec.models.vqgan_config import VQGAN_PRESETS, VQGANConfig
from titokcodec.weights import tokenizers
from training import defaults, export, generator, loop, options, proxies, single, stage1, stage2, trainer, vqgan
from training.adversarial import Discriminator
from training.critic import FeatureCritic
from training.losses import SCALES
from training.options import parse
from training.searched import SearchedCrops
from training.trainer import Trainer

SMALL = dataclasses.replace(CONFIG, codes=64)
LEGACY = TiTokConfig(
    Tower(16, 1, 2), Tower(16, 1, 2), tokens=4, codes=32, code_width=4, image_size=32, head="proxy", legacy=True
)
PROXIES = VQGANConfig(channels=(32, 32, 32, 32, 32), blocks=1, code_width=8)


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setitem(PRESETS, "titok_legacy", LEGACY)
    monkeypatch.setitem(VQGAN_PRESETS, "small", PROXIES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return plain_pictures(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture
def proxy_file(tmp_path):
    torch.manual_seed(0)
    proxies.save(tmp_path / "proxies.safetensors", VQGAN(PROXIES))
    return tmp_path / "proxies.safetensors"


@pytest.fixture
def train(photos, tmp_path):
    """Runs a stage; options as on the command line, short ones given."""

    def run(kind, *more, steps=40, preset="small", out="run"):
        words = [
            "--data",
            photos,
            "--out",
            tmp_path / out,
            "--device",
            "cpu",
            "--no-bf16",
            "--no-compile",
            "--batch",
            8,
            "--steps",
            steps,
            "--log-every",
            1,
            "--rate",
            3e-3,
            *more,
        ]
        if kind.presets:
            words += [kind.preset_option, preset]
        run.trainer = Trainer(kind, parse(kind, "", [str(word) for word in words]))
        run.before = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
        loop.run(run.trainer)
        return [json.loads(line) for line in (tmp_path / out / "log.jsonl").read_text().splitlines()]

    run.out = tmp_path
    return run


def falls(rows, name, by):
    values = [row[name] for row in rows if name in row]
    assert np.mean(values[-5:]) < by * np.mean(values[:3]), values


def changed(run):
    """Names of the parameters and buffers that the run moved."""
    return {name for name, value in run.trainer.model.state_dict().items() if not value.equal(run.before[name])}


# ---- each stage learns -----------------------------------------------------------------------------------------


def test_the_2d_tokenizer_learns_and_leaves_a_file_for_stage_1(train, photos):
    rows = train(vqgan.ProxyTokenizer, "--side", 32, "--continuous", 0.3, "--val", photos)
    falls(rows, "mse", 0.5)
    assert rows[-1]["val/psnr"] > 8 and 0 < rows[-1]["val/usage"] <= 1
    kept = proxies.load(train.out / "run" / "vqgan.safetensors")
    assert kept.config == PROXIES
    assert all(a.equal(b) for a, b in zip(kept.parameters(), train.trainer.ema.model.parameters(), strict=True))
    assert Image.open(train.out / "run" / "val.png").size == (6 * 32, 2 * 32)


def test_stage_1_learns_to_predict_frozen_proxies(train, photos, proxy_file):
    rows = train(stage1.Stage1, "--proxies", proxy_file, "--val", photos, steps=60)
    falls(rows, "entropy", 0.75)
    assert rows[-1]["val/top1"] > 5 / 1024
    assert all(
        a.equal(b)
        for a, b in zip(train.trainer.stage.proxies.parameters(), proxies.load(proxy_file).parameters(), strict=True)
    )
    with pytest.raises(TitokError, match="predicts proxy codes, not pixels: run training"):
        export.main([str(train.out / "run" / "state.pt"), str(train.out / "x.safetensors"), "--name", "x"])


@pytest.fixture(scope="module")
def tokenizer(photos, tmp_path_factory):
    """A weight file whose tokens tell the pictures apart, and whose decoder has forgotten how to decode them."""
    out = tmp_path_factory.mktemp("tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", SMALL)
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        words = (
            f"--data {photos} --out {out} --preset small --steps 120 --batch 8 --rate 3e-3 --muon-rate 0.02 "
            "--continuous 0.4 --device cpu --no-bf16 --no-compile"
        )
        model = loop.train(single.Single, parse(single.Single, "", words.split()))
    torch.nn.init.zeros_(model.decoder.ffn.spread[0].weight)
    tokenizers.save(out / "start.safetensors", model, "start", int8=False)
    return out / "start.safetensors"


def test_stage_2_tunes_the_decoder_alone(train, photos, tokenizer):
    rows = train(stage2.Stage2, "--init", tokenizer, "--val", photos, "--adversary", 0, steps=60)
    falls(rows, "mse", 0.6)
    moved = changed(train)
    assert moved and all(name.startswith("decoder.") for name in moved)
    assert {"decoder.ffn.spread.0.weight", "decoder.decoder_embed.weight"} <= moved


def test_stages_1_and_2_make_a_codec(train, proxy_file):
    train(stage1.Stage1, "--proxies", proxy_file, steps=4, out="one")
    kept = train.trainer.ema.model.state_dict()
    train(stage2.Stage2, "--init", train.out / "one" / "state.pt", "--adversary", 0, steps=3, out="two")
    assert all(
        value.equal(kept[name])
        for name, value in train.before.items()
        if not name.startswith(("decoder.ffn.", "decoder.conv_out."))
    )
    export.main([str(train.out / "two" / "state.pt"), str(train.out / "x.safetensors"), "--name", "x"])
    assert tokenizers.load_model(train.out / "x.safetensors").config == SMALL


def test_two_stages_on_a_model_with_linear_paths(train, proxy_file, monkeypatch):
    monkeypatch.setitem(PRESETS, "small", dataclasses.replace(LINEAR, patch_size=16))
    falls(train(stage1.Stage1, "--proxies", proxy_file, steps=30), "entropy", 0.95)
    rows = train(stage2.Stage2, "--init", train.out / "run" / "state.pt", "--adversary", 0, steps=20, out="two")
    assert rows[-1]["mse"] < 0.2


def test_the_published_two_stages_on_a_legacy_model(train, tmp_path, monkeypatch):
    thin = VQGANConfig(channels=(32,) * 5, blocks=1)  # for the published sizes, which take a minute
    monkeypatch.setitem(VQGAN_PRESETS, "published", thin)
    monkeypatch.setattr(vqgan_model.Decoder.__init__, "__defaults__", (thin,))
    torch.manual_seed(0)
    teacher = VQGAN(thin)
    proxies.save(tmp_path / "published.safetensors", teacher)
    rows = train(
        stage1.Stage1,
        "--proxies",
        tmp_path / "published.safetensors",
        "--beta2",
        0.9,
        preset="titok_legacy",
        steps=12,
        out="one",
    )
    assert train.trainer.hyper.optimizer.ema == 0.999 and train.trainer.hyper.optimizer.muon_rate == 0, (
        "published settings for its presets"
    )
    falls(rows, "entropy", 0.99)
    assert not any(name.startswith("pixel_") for name in changed(train))
    assert train.trainer.model.pixel_decoder.conv_out.weight.equal(teacher.decoder.conv_out.weight)
    words = ("--init", tmp_path / "one" / "state.pt", "--rate", 1e-3, "--adversary", 0, "--logits", 0)
    rows = train(stage2.Stage2, *words, steps=8, out="two")
    moved = changed(train)
    assert {name.split(".")[0] for name in moved} == {"decoder", "pixel_decoder", "pixel_quantize"}
    falls(rows, "mse", 0.9)


def test_a_published_model_needs_proxies_of_the_published_size(train, proxy_file):
    with pytest.raises(WeightsError, match="2D tokenizer of the published size"):
        train(stage1.Stage1, "--proxies", proxy_file, preset="titok_legacy", steps=1)


def test_one_stage_presets_decode_pixels_from_plain_codes(train, monkeypatch):
    config = TiTokConfig(
        Tower(32, 1, 2),
        Tower(32, 1, 2),
        tokens=4,
        codes=32,
        code_width=8,
        image_size=32,
        l2_normalised=False,
        head="pixels",
    )
    monkeypatch.setitem(PRESETS, "titok_one", config)
    rows = train(single.Single, "--recipe", "short", preset="titok_one", steps=80)
    falls(rows, "mse", 0.6)
    assert train.trainer.model.decoder.conv_out.weight.shape == (3, 3, 3, 3)


def test_pictures_may_be_streamed_by_workers(train, tmp_path, photos):
    rows = train(single.Single, "--stream", "--workers", 1, steps=3)
    assert rows[0]["pictures"] == 0 and rows[-1]["step"] == 3
    (tmp_path / "bad.tar").write_bytes(b"not a shard")
    with pytest.raises(TitokError, match="readable"):
        train(single.Single, "--data", tmp_path / "bad.tar", "--stream", "--workers", 1, steps=3, out="bad")


def test_the_adversary_learns_joins_late_and_survives_a_resume(train, tokenizer):
    common = ("--adversary", 0.1, "--adversary-width", 32, "--adversary-start", 0.5, "--adversary-rate", 1e-3)
    rows = train(stage2.Stage2, "--init", tokenizer, *common, steps=30)
    judged = [row["step"] for row in rows if "critic" in row]
    assert judged == list(range(16, 31))
    falls([row for row in rows if "critic" in row], "critic", 0.95)
    critic = train.trainer.adversary.critic.state_dict()
    train(stage2.Stage2, "--init", tokenizer, *common, "--resume", steps=30)
    assert all(value.equal(critic[name]) for name, value in train.trainer.adversary.critic.state_dict().items())
    assert train.trainer.adversary.lecam.real != 0


def test_stage_2_tunes_on_searched_tokens(train, photos, tokenizer, chatty, capsys):
    rows = train(stage2.Stage2, "--init", tokenizer, "--adversary", 0, "--searched", 20, "--pixels", 30, steps=40)
    assert rows[0]["pictures"] == 24, "whole batches"
    falls(rows, "mse", 0.7)
    assert {name.split(".")[0] for name in changed(train)} == {"decoder"}
    assert "searching tokens: 16 of 24 crops, " in capsys.readouterr().err
    again = train(stage2.Stage2, "--init", tokenizer, "--adversary", 0, "--searched", 20, "--pixels", 30, out="b")
    assert again[-1]["loss"] == rows[-1]["loss"]


def test_searched_tokens_decode_to_better_crops_than_the_encoders(tokenizer):
    model = tokenizers.load_model(tokenizer)
    torch.nn.init.normal_(model.decoder.ffn.spread[0].weight, std=0.1)
    crops = [torch.rand(4, 3, 1, 1).expand(4, 3, 64, 64).contiguous() for _ in range(3)]
    source = argparse.Namespace(batch=lambda number: crops[number], skipped=0, damaged=[], close=lambda: None)
    found = SearchedCrops(source, model, 10, contextlib.nullcontext(), None, 4)
    assert found.pictures == 12
    pixels, tokens = found.batch(0)
    assert pixels.shape == (4, 3, 64, 64) and tokens.shape == (4, 8)
    errors = [(model.decode(t) - pixels).square().mean() for t in (tokens, model.encode(pixels))]
    assert errors[0] < errors[1]
    assert found.batch(0)[1].equal(tokens) and not found.batch(1)[1].equal(tokens)


def test_a_model_without_a_search_has_no_searched_tokens(train, photos, tmp_path):
    torch.manual_seed(0)
    tokenizers.save(tmp_path / "pixels.safetensors", TiTok(dataclasses.replace(SMALL, head="pixels")), "p", int8=False)
    with pytest.raises(TitokError, match="--searched is for models"):
        words = ("--init", tmp_path / "pixels.safetensors", "--adversary", 0, "--logits", 0, "--searched", 8)
        train(stage2.Stage2, *words, steps=2)


def test_the_critic_of_a_checkpoint_goes_on_in_the_next_stage(train, tokenizer, capsys):
    common = ("--adversary", 0.1, "--adversary-width", 32, "--adversary-start", 0)
    train(stage2.Stage2, "--init", tokenizer, *common, steps=4)
    critic = {name: value.clone() for name, value in train.trainer.adversary.critic.state_dict().items()}
    init = train.out / "run" / "state.pt"

    def begun(*more):
        words = ["--data", train.out, "--out", train.out / "next", "--init", init, "--device", "cpu", *more]
        return Trainer(stage2.Stage2, parse(stage2.Stage2, "", [str(word) for word in words])).adversary

    kept = begun(*common)
    assert f"the critic of {init} goes on" in capsys.readouterr().out
    assert all(value.equal(critic[name]) for name, value in kept.critic.state_dict().items())
    assert kept.lecam.real != 0
    state = torch.load(init, weights_only=True)
    state["adversary"]["optimizer"]["param_groups"] = state["adversary"]["optimizer"]["param_groups"][:1]
    torch.save(state, init)  # as versions left it whose critic saw other pixels
    begun(*common)
    assert "a new critic" in capsys.readouterr().out
    other = begun("--adversary", 0.1, "--adversary-width", 64)  # which cannot be the same one, and begins anew
    assert "a new critic" in capsys.readouterr().out
    assert other.lecam.real == 0


def test_a_critic_on_features_moves_the_decoder_and_survives_a_resume(train, tokenizer, tmp_path):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    common = (
        "--init",
        tokenizer,
        "--adversary",
        0.01,
        "--adversary-start",
        0,
        "--pixels",
        0,
        "--batch",
        4,
        "--lite0",
        tmp_path / "lite0.safetensors",
        "--features",
        0,
        "--decay",
        0,
    )
    train(stage2.Stage2, *common, steps=3)
    adversary, model = train.trainer.adversary, train.trainer.model
    assert isinstance(adversary.critic, FeatureCritic)
    start = tokenizers.load_model(tokenizer)
    moved = {
        name.split(".")[0]
        for (name, a), b in zip(model.named_parameters(), start.parameters(), strict=True)
        if not a.equal(b)
    }
    assert moved == {"decoder"}, "nothing but the critic was in the loss"
    left = adversary.critic.state_dict()
    train(stage2.Stage2, *common, "--resume", steps=3)
    assert all(value.equal(left[name]) for name, value in train.trainer.adversary.critic.state_dict().items())


@pytest.fixture
def perceptual(tmp_path):
    """Words for a stage with all networks in its loss, and a critic."""
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    return (
        "--lpips",
        lpips_file(tmp_path),
        "--lite0",
        tmp_path / "lite0.safetensors",
        "--lpips-weight",
        0.1,
        "--features",
        0.1,
        "--logits",
        1e-4,
        "--lpips-share",
        0.5,
        "--adversary",
        1e-3,
    )


def test_a_decoder_learns_in_bfloat16_by_all_networks(train, tokenizer, perceptual):
    rows = train(stage2.Stage2, "--init", tokenizer, "--bf16", "--batch", 4, *perceptual, steps=25)
    falls(rows, "mse", 0.6)
    falls(rows, "lpips", 0.9)
    assert {"features", "logits", "critic", "push"} <= rows[-1].keys()
    assert train.trainer.adversary.critic.networks[0].fc.weight.dtype == torch.bfloat16


def test_scores_are_float32_whatever_a_run_computes_in(photos, tokenizer, perceptual, tmp_path):
    scores, dtypes = [], []
    for word in ("--no-bf16", "--bf16"):
        words = ["--data", photos, "--val", photos, "--out", tmp_path, "--device", "cpu", "--no-compile", word]
        given = parse(stage2.Stage2, "", [*map(str, (*words, "--init", tokenizer, *perceptual))])
        run = Trainer(stage2.Stage2, given)
        made = run.stage
        scores.append(made.score(run.ema.model, made.held_out()))
        dtypes.append(made.pixel_loss.lpips.features_0_weight.dtype)
        assert {value.dtype for value in made.lpips.buffers()} == {torch.float32}
    assert dtypes == [torch.float32, torch.bfloat16]
    assert scores[0] == scores[1] and scores[0]["lpips/8"] > 0


def test_nothing_is_compiled_once_the_clock_runs(train, tokenizer, perceptual, monkeypatch, graphs):
    """Not even for losses that join late, at scales that have not been drawn before."""
    counts, rehearse = [], Trainer.rehearse
    monkeypatch.setattr(Trainer, "rehearse", lambda *given: (rehearse(*given), counts.append(len(graphs))))
    common = ("--init", tokenizer, "--compile", "--lpips-start", 0.5, *perceptual)
    for out in ("first", "second"):  # which has nothing left to compile
        train(stage2.Stage2, *common, "--lpips-share", 0.25, "--adversary-share", 0.25, steps=8, out=out)
        counts.append(len(graphs))
    assert counts[0] > 0 and len(set(counts)) == 1
    assert train.trainer.stage.pixel_loss.scales == SCALES, "all of them, once it has rehearsed"


def test_the_critic_follows_the_recipe_and_the_networks(train, tokenizer, tmp_path):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    common = ("--init", tokenizer, "--adversary", 0.01, "--adversary-width", 32)
    given = ("--lite0", tmp_path / "lite0.safetensors", "--features", 0)
    for number, (words, kind) in enumerate(
        (
            ((), Discriminator),
            (given, FeatureCritic),
            ((*given, "--critic", "patches"), Discriminator),
            ((*given, "--recipe", "published", "--logits", 0), Discriminator),
        )
    ):
        train(stage2.Stage2, *common, *words, steps=1, out=str(number))
        assert isinstance(train.trainer.adversary.critic, kind)
    with pytest.raises(TitokError, match="--lite0"):
        train(stage2.Stage2, *common, "--critic", "features", steps=1, out="none")
    with pytest.raises(UsageError, match="--critic patches does nothing while --adversary is 0"):
        train(stage2.Stage2, *common, "--critic", "patches", "--adversary", 0, steps=1, out="none")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--adversary-share 0", "--adversary-share is 0: give more than 0 and at most 1"),
        ("--adversary-share nan", "--adversary-share is nan: give more than 0 and at most 1"),
        ("--adversary -1", "--adversary is -1: give 0 or more"),
        ("--adversary-start 2", "--adversary-start is 2: give 0 or more and at most 1"),
        ("--rate inf", "--rate is inf: give 0 or more"),
        ("--adversary 1 --adversary-width 20", "--adversary-width: width 20"),
        ("--minutes nan", "the budget is nan minutes: give more than 0"),
    ],
)
def test_values_that_make_no_sense_are_named(train, tokenizer, words, line):
    with pytest.raises(TitokError, match=line):
        train(stage2.Stage2, "--init", tokenizer, "--adversary", 0, *words.split(), steps=2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--searched -1", "-1 is no whole number from 0 on"),
        ("--log-every 0", "0 is no whole number from 1 on"),
        ("--deadline 12:99", "12:99 is no time: give a time of day"),
        ("--limit 0", "0 is no whole number from 1 on"),
        ("--deadline 1000000000", "is over: give a time to come"),
        ("--val-limit -1", "-1 is no whole number from 0 on"),
        ("--resume --force", "not allowed with"),
    ],
)
def test_usage_errors_say_what_would_be_right(photos, tmp_path, tokenizer, words, line):
    with pytest.raises(UsageError, match=line) as found:
        stage2.main(["--data", str(photos), "--out", str(tmp_path), "--init", str(tokenizer), *words.split()])
    assert "\n" not in str(found.value)


def test_files_and_devices_that_are_none_end_in_one_line(photos, tmp_path, tokenizer):
    common = ["--data", str(photos), "--out", str(tmp_path / "out"), "--steps", "1", "--adversary", "0", "--no-compile"]
    torch.save({"a": 1}, tmp_path / "other.pt")
    for init in (ROOT / "README.md", tmp_path / "other.pt"):
        with pytest.raises(TitokError, match="is no checkpoint: give the state"):
            stage2.main([*common, "--device", "cpu", "--init", str(init)])
        with pytest.raises(TitokError, match="is no checkpoint: give the state"):
            export.main([str(init), str(tmp_path / "x.safetensors"), "--name", "x"])
    with pytest.raises(TitokError, match="no device 'foo' here"):
        stage2.main([*common, "--device", "foo", "--init", str(tokenizer)])
    with pytest.raises(TitokError, match=r"there is no folder .*nowhere"):
        export.main([str(tokenizer), str(tmp_path / "nowhere" / "x.safetensors"), "--name", "x"])
    for init in ("missing.pt", "missing.safetensors"):
        with pytest.raises(TitokError, match=rf"{init}.*: give") as found:
            stage2.main([*common, "--device", "cpu", "--init", str(tmp_path / init)])
        assert "\n" not in str(found.value) and "--resume" not in str(found.value)
    with pytest.raises(UsageError, match="required: --init"):
        stage2.main(common)


def test_a_resume_with_another_critic_says_so(train, tokenizer, tmp_path):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    common = ("--init", tokenizer, "--adversary", 0.01, "--adversary-width", 32, "--features", 0, "--batch", 2)
    train(stage2.Stage2, *common, steps=1)
    with pytest.raises(TitokError, match="left by a run with other options"):
        train(stage2.Stage2, *common, "--resume", "--lite0", tmp_path / "lite0.safetensors", steps=1)
    other = dataclasses.replace(SMALL, head_blocks=2)
    tokenizers.save(tmp_path / "other.safetensors", TiTok(other), "o", int8=False)
    with pytest.raises(TitokError, match="another architecture than stage2 of --init, with other head_blocks: give"):
        train(stage2.Stage2, *common, "--init", tmp_path / "other.safetensors", "--resume", steps=1)


def test_a_search_ends_at_the_deadline(tokenizer):
    model = tokenizers.load_model(tokenizer)
    source = argparse.Namespace(
        batch=lambda number: torch.rand(2, 3, 64, 64), skipped=0, damaged=[], close=lambda: None
    )
    assert SearchedCrops(source, model, 10**9, contextlib.nullcontext(), time.time() - 1, 2).pictures == 2


# ---- stops and resumes -----------------------------------------------------------------------------------------


def same(a, b, tolerance=0.0):
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=tolerance, atol=tolerance, msg=lambda text, n=name: n + text)


def stop_after(updates, monkeypatch):
    """Interrupts a run after so many updates; returns a list of what is left of them, to be set anew."""
    update, left = Trainer.update, [updates]

    def until(self, pixels):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return update(self, pixels)

    monkeypatch.setattr(Trainer, "update", until)
    return left


def test_a_resumed_run_ends_as_one_that_never_stopped(train, monkeypatch):
    monkeypatch.setattr(trainer, "SETTLING", 8)
    train(single.Single, "--continuous", 0.2, steps=45, out="whole")
    whole = train.trainer
    left = stop_after(40, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(single.Single, "--continuous", 0.2, "--save-minutes", 0, steps=45, out="stopped")
    left[0] = 1000
    train(single.Single, "--continuous", 0.2, "--resume", steps=45, out="stopped")
    assert whole.step == train.trainer.step == 45
    same(whole.model.state_dict(), train.trainer.model.state_dict(), 1e-5)
    same(whole.ema.model.state_dict(), train.trainer.ema.model.state_dict(), 1e-5)
    assert whole.restarts.idle.equal(train.trainer.restarts.idle)


def test_a_resumed_critic_on_features_goes_on_as_if_nothing_had_been(train, tokenizer, monkeypatch, tmp_path):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    common = (
        "--init",
        tokenizer,
        "--adversary",
        0.01,
        "--adversary-start",
        0,
        "--batch",
        4,
        "--adversary-share",
        0.5,
        "--lite0",
        tmp_path / "lite0.safetensors",
        "--features",
        0,
    )
    train(stage2.Stage2, *common, steps=6, out="whole")
    whole, left = train.trainer, stop_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(stage2.Stage2, *common, "--save-minutes", 0, steps=6, out="stopped")
    left[0] = 1000
    train(stage2.Stage2, *common, "--resume", steps=6, out="stopped")
    same(whole.model.state_dict(), train.trainer.model.state_dict(), 1e-5)
    same(whole.adversary.critic.state_dict(), train.trainer.adversary.critic.state_dict(), 1e-5)
    assert whole.adversary.lecam.real == pytest.approx(train.trainer.adversary.lecam.real)


def test_a_checkpoint_is_read_on_the_host(train, monkeypatch):
    """AdamW's counts of steps have to stay there."""
    train(single.Single, steps=2)
    places, load = [], trainer.load_state
    monkeypatch.setattr(trainer, "load_state", lambda path, device, *more: places.append(device) or load(path, device))
    monkeypatch.setattr(trainer.parallel, "start", lambda device: torch.device("cpu", 0))
    train(single.Single, "--resume", steps=3)
    assert places == [torch.device("cpu")]


SCRIPT = """
import os, signal, sys
sys.modules["torch.utils.tensorboard"] = None
import torch
torch.set_num_threads(1)
from titokcodec.models.config import PRESETS
from tests.training.test_stages import SMALL
from titokcodec.cli import script
from training import single
from training.trainer import Trainer
PRESETS["small"] = SMALL
update = Trainer.update

def until(self, pixels):
    if self.step + 1 == int(os.environ.get("STOP", -1)) and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return update(self, pixels)

Trainer.update = until
script.start(single.main)
"""


def words(photos, out, *more):
    return [
        "--data",
        photos,
        "--out",
        out,
        "--preset",
        "small",
        "--device",
        "cpu",
        "--no-bf16",
        "--no-compile",
        "--rate",
        "1e-3",
        "--log-every",
        "1",
        *more,
    ]


def test_a_killed_run_loses_no_file_and_goes_on(photos, tmp_path):
    line = [sys.executable, "-c", SCRIPT, *words(photos, tmp_path, "--batch", 8, "--steps", 10**6, "--save-minutes", 0)]
    state = tmp_path / "state.pt"
    for _ in range(2):  # the second one resumes the first
        seen = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen([*map(str, line), "--resume"], cwd=ROOT, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not state.exists() or state.stat().st_mtime_ns == seen:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert torch.load(state, weights_only=True)["step"] > 0
        left = list(tmp_path.glob(".titok-*.part"))
        assert len(left) <= 1, "leftovers of kills do not pile up"
        for path in left:
            os.utime(path, (0, 0))  # younger ones might be a living writer's
    starts = [
        row["step"] for row in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()) if "pictures" in row
    ]
    assert starts[0] == 0 and starts[1] > 0


# ---- many processes --------------------------------------------------------------------------------------------


def test_a_full_disk_ends_a_run_with_one_line_and_spares_the_checkpoint(photos, tmp_path, monkeypatch):
    line = list(map(str, words(photos, tmp_path, "--batch", 8, "--steps", 2)))
    single.main(line)
    before = (tmp_path / "state.pt").read_bytes()

    def full(state, file):
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TitokError, match=r": No space left on device; the last checkpoint is whole"):
        single.main([*line, "--resume", "--steps", "4"])
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".titok*"))


def test_two_ranks_with_a_stop_between_take_the_steps_of_one(photos, tmp_path):
    """Gradients, averages, the codebook's start and restarts, and a resume half-way, after a signal to one of them."""
    (tmp_path / "script.py").write_text(SCRIPT)
    common = ("--continuous", 0, "--muon-rate", 0, "--batch", 16, "--steps", 44, "--resume")
    line = [tmp_path / "script.py", *words(photos, tmp_path / "two", *common)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "STOP": "20"}
    stopped = subprocess.run(
        list(map(str, [*launch, *line])), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert stopped.returncode, stopped.stderr
    assert stopped.stderr.count("interrupted after step 20: --resume goes on") == 2
    two_ranks(line)
    rows = [json.loads(line) for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "pictures" in row] == [0, 20]
    assert sum(row.get("revived", 0) for row in rows) > 0, "no code was restarted, so nothing was compared"

    line = words(photos, tmp_path / "one", *common)
    one = Trainer(single.Single, parse(single.Single, "", list(map(str, line))))
    loop.run(one)
    two = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    assert one.step == two["step"] == 44
    same(one.model.state_dict(), two["model"], 2e-3)
    same(one.ema.model.state_dict(), two["ema"], 2e-3)
    assert one.restarts.idle.equal(two["care"]["idle"])


# ---- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [vqgan.ProxyTokenizer, stage1.Stage1, stage2.Stage2, single.Single, generator.GeneratorTraining]
)
def test_every_option_is_explained(kind):
    parser = options.parser_of(kind, "about")
    unexplained = [action.dest for action in parser._actions if not action.help]
    assert not unexplained
    assert all(
        "default" in a.help or a.default in (None, False) or a.required or isinstance(a, argparse._HelpAction)
        for a in parser._actions
    )


def test_published_settings_are_those_of_the_paper():
    one, two = defaults.STAGE1.published, defaults.STAGE2.published
    optimizer, schedule = one.optimizer, one.schedule
    assert (optimizer.batch, optimizer.rate, optimizer.beta1, optimizer.beta2) == (256, 1e-4, 0.9, 0.99)
    assert (schedule.steps, optimizer.decay, optimizer.ema) == (1_000_000, 1e-4, 0.999)
    assert schedule.warmup * schedule.steps == 10_000 and schedule.floor * optimizer.rate == pytest.approx(1e-5)
    schedule, adversary = two.schedule, two.adversary
    assert (schedule.steps, two.optimizer.beta2, two.pixel_loss.logits) == (500_000, 0.999, 0.1)
    assert (adversary.weight, adversary.lecam, adversary.start * schedule.steps) == (0.01, 0.001, 20_000)
    assert schedule.warmup * schedule.steps == 5_000 and not hasattr(two, "codebook")


def test_stages_refuse_what_is_not_theirs(train, tmp_path, proxy_file):
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    with pytest.raises(TitokError, match=r"w\.safetensors"):
        stage2.main(f"--data {tmp_path} --out {tmp_path} --init {tmp_path / 'w.safetensors'} --device cpu".split())
    train(single.Single, steps=2)
    with pytest.raises(TitokError, match="of another stage than stage1"):
        train(stage1.Stage1, "--proxies", proxy_file, "--resume", steps=2)


def test_frozen_modules_take_no_memory_for_gradients(train, tokenizer):
    train(stage2.Stage2, "--init", tokenizer, "--adversary", 0, steps=1)
    assert all(p.grad is None and not p.requires_grad for p in train.trainer.model.encoder.parameters())
