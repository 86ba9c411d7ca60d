"""The published recipe, step by step: what its losses, its critic and its optimizers do, against plain PyTorch."""

import copy
import dataclasses
import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from tests.metrics.test_lite0 import lite0_state
from tests.metrics.test_lpips import lpips_file
from tests.training.ranks import two_ranks
from tests.training.test_stages import PROXIES, SMALL
from titokcodec.cli.script import UsageError
from titokcodec.metrics import LPIPS
from titokcodec.models.config import PRESETS
from titokcodec.models.tokenizer import TiTok
from titokcodec.models.vqgan import VQGAN
from titokcodec.weights import tokenizers
from training import defaults, loop, proxies, stage1, stage2
from training.adversarial import Adversary
from training.compute import Runtime
from training.losses import PixelLoss
from training.options import parse
from training.schedule import schedule
from training.sheet import save_picture
from training.trainer import Trainer

STAGE2 = defaults.STAGE2.published
PLAIN = dataclasses.replace(SMALL, nested=False, min_tokens=8)  # every update decodes all tokens
SQUARED = ("--lpips-weight", 0, "--logits", 0)  # no loss that needs a network


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(PRESETS, "small", SMALL)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve pictures of smooth noise: of flat ones a critic's norms would be those of rounding errors."""
    folder = tmp_path_factory.mktemp("photos")
    torch.manual_seed(0)
    noise = F.interpolate(torch.rand(12, 3, 16, 16), (64, 64), mode="bicubic").clamp(0, 1)
    for number, pixels in enumerate(noise):
        save_picture(pixels, folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("tokenizer") / "start.safetensors"
    tokenizers.save(file, TiTok(PLAIN), "start", int8=False)
    return file


@pytest.fixture
def words(photos, tokenizer, tmp_path):
    """A command line of the published stage 2, some words more."""

    def line(*more, out="run"):
        common = ("--data", photos, "--out", tmp_path / out, "--init", tokenizer, "--recipe", "published")
        return [*map(str, (*common, "--device", "cpu", "--no-compile", "--batch", 4, *more))]

    return line


def begun(words):
    return Trainer(stage2.Stage2, parse(stage2.Stage2, "", words))


# ---- losses ---------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Two logits of pictures that must have 224 x 224 pixels."""

    def logits(self, pixels):
        assert pixels.shape[1:] == (3, 224, 224)
        return torch.stack([pixels[:, 0, :112].mean((1, 2)), pixels[:, 2].square().mean((1, 2))], 1)


def beyond():
    """A pair whose decoded half is not within [0, 1] everywhere."""
    torch.manual_seed(0)
    target = torch.rand(2, 3, 72, 72)
    return (target + torch.randn_like(target)).requires_grad_(), target


def test_logits_are_compared_at_224_pixels_and_nothing_is_clamped():
    loss = PixelLoss(STAGE2.pixel_loss)
    loss.convnext = Classifier()
    for size in (72, 300):  # enlarged, reduced
        decoded, target = (F.interpolate(x, size) for x in beyond())
        total, parts = loss(decoded, target, 0.0)
        pair = (F.interpolate(x, (224, 224), mode="bilinear", antialias=True) for x in (decoded, target))
        apart = torch.stack([loss.convnext.logits(x) for x in pair])
        expected = (apart[0] - apart[1]).square().sum() / 4
        assert parts.keys() == {"mse", "logits"}
        assert parts["logits"].item() == pytest.approx(expected.item(), rel=1e-4)
        assert total.item() == pytest.approx(
            (decoded - target).square().mean().item() + 0.1 * expected.item(), rel=1e-4
        )


def test_lpips_compares_whole_pictures_as_they_are(tmp_path):
    loss = PixelLoss(defaults.SINGLE.published.pixel_loss, lpips_file(tmp_path))
    decoded, target = beyond()
    found = loss(decoded, target, 1.0)[1]["lpips"]
    assert found.item() == pytest.approx(LPIPS(lpips_file(tmp_path))(decoded, target).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ((), "--logits is 0.1, but there is no network for it: give --convnext or --lite0, or --logits 0"),
        (("--logits", 0, "--lpips-weight", 0.2), "--lpips-weight is 0.2, .*: give --lpips, or --lpips-weight 0"),
        (("--recipe", "short", "--features", 0.1), "--features is 0.1, .*: give --lite0, or --features 0"),
        (("--logits", 0, "--jitter", 33), "--jitter is 33: give at most 32, half of a crop's side"),
    ],
)
def test_a_term_that_cannot_be_computed_is_an_error(words, more, line):
    with pytest.raises(UsageError, match=line):
        begun(words(*more))


def test_our_own_recipe_does_without_networks_and_says_so(words, capsys):
    made = begun(words("--recipe", "short", "--adversary", 0))
    assert made.stage.pixel_loss.lpips is None
    said = capsys.readouterr().err
    assert "no --lpips is given: the loss goes without LPIPS" in said and "no --lite0" in said and "logits" not in said


def test_another_classifier_than_the_papers_is_said(words, tmp_path, capsys):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    begun(words("--lite0", tmp_path / "lite0.safetensors"))
    assert "logits are EfficientNet-Lite0's, where the paper has ConvNeXt-S's (--convnext)" in capsys.readouterr().err


def test_a_resume_says_what_has_changed(words, capsys):
    more = (*SQUARED, "--adversary", 0, "--steps", 2)
    loop.run(begun(words(*more)))
    capsys.readouterr()
    begun(words(*more, "--resume"))
    assert "resumed with" not in capsys.readouterr().err
    begun(words(*more, "--resume", "--batch", 2, "--ema", 0.9))
    assert "resumed with --batch 2, not 4, --ema 0.9, not 0.999\n" in capsys.readouterr().err
    by_time = (*SQUARED, "--adversary", 0, "--minutes", 1)  # the steps of a schedule do not count then
    begun(words(*by_time, "--resume"))
    assert "resumed with" not in capsys.readouterr().err


def test_losses_are_float32_in_a_bfloat16_run(words, tmp_path):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    networks = ("--lpips", lpips_file(tmp_path), "--lite0", tmp_path / "lite0.safetensors", "--adversary-width", 32)
    found = {}
    for recipe in ("published", "short"):
        made = begun(words("--recipe", recipe, "--bf16", "--critic", "patches", *networks))
        judge, dtypes = made.adversary, [made.stage.pixel_loss.lite0.fc.weight.dtype]
        judge.critic.register_forward_hook(lambda module, given, maps, dtypes=dtypes: dtypes.append(maps[0].dtype))
        judge.generator_loss(torch.rand(2, 3, 64, 64))
        judge.learn(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), 0.5)
        assert made.runtime.dtype is torch.bfloat16
        found[recipe] = set(dtypes)
    assert found == {"published": {torch.float32}, "short": {torch.bfloat16}}
    asked = begun(words("--bf16", "--loss-bf16", *networks))
    assert asked.stage.pixel_loss.lite0.fc.weight.dtype is torch.bfloat16


def test_proxy_codes_are_those_of_float32_in_a_bfloat16_run(photos, tmp_path):
    torch.manual_seed(0)
    proxies.save(tmp_path / "proxies.safetensors", VQGAN(PROXIES))
    line = ("--data", photos, "--out", tmp_path / "run", "--proxies", tmp_path / "proxies.safetensors")
    given = parse(stage1.Stage1, "", [*map(str, (*line, "--preset", "small", "--device", "cpu", "--bf16"))])
    stage = stage1.Stage1(given, Runtime(torch.device("cpu"), torch.bfloat16))
    pixels = torch.rand(4, 3, 64, 64)
    expected = proxies.load(tmp_path / "proxies.safetensors").encode(pixels)
    assert stage.targets(pixels).equal(expected)
    with stage.runtime.autocast():
        assert not stage.proxies.encode(pixels).equal(expected), "or nothing was at stake"


def test_codes_keep_their_random_start_and_none_is_restarted(photos, tmp_path):
    torch.manual_seed(0)
    proxies.save(tmp_path / "proxies.safetensors", VQGAN(PROXIES))
    line = ("--data", photos, "--proxies", tmp_path / "proxies.safetensors", "--preset", "small", "--device", "cpu")
    line += ("--no-compile", "--no-bf16", "--batch", 4, "--rate", 0, "--steps", 40, "--recipe")
    moved = {}
    for recipe in ("published", "short"):
        given = parse(stage1.Stage1, "", [*map(str, (*line, recipe, "--muon-rate", 0, "--out", tmp_path / recipe))])
        run = Trainer(stage1.Stage1, given)
        start = run.model.quantize.embedding.weight.clone()
        loop.run(run)
        moved[recipe] = not run.model.quantize.embedding.weight.equal(start)
        assert recipe == "short" or run.restarts.idle.max() >= 40, "codes that were never used"
    assert moved == {"published": False, "short": True}
    assert start.abs().max() <= 1 / SMALL.codes, "uniform, as published"


# ---- the critic -----------------------------------------------------------------------------------------------


def test_the_critics_rate_rises_from_its_own_start():
    judge = Adversary(STAGE2.adversary, STAGE2.optimizer, STAGE2.schedule, torch.device("cpu"))
    rates = {step: judge.rate(step / 500_000) for step in (20_000, 21_000, 24_999, 25_000, 262_500, 500_000)}
    middle = 1e-5 + 9e-5 * 0.5  # half-way between the end of the rise and that of the run
    expected = (0, 2e-5, 1e-4 * 4_999 / 5_000, 1e-4, middle, 1e-5)
    assert [*rates.values()] == pytest.approx(expected, abs=1e-12)
    whole = [schedule(step / 500_000, step, STAGE2.schedule) for step in (0, 1, 2_500, 5_000, 252_500, 500_000)]
    assert whole == pytest.approx([0, 1 / 5_000, 0.5, 1, 0.55, 0.1])


def test_the_critic_decays_its_kernels_alone():
    judge = Adversary(STAGE2.adversary, STAGE2.optimizer, STAGE2.schedule, torch.device("cpu"))
    decayed, plain = judge.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (1e-4, 0)
    assert {p.ndim for p in decayed["params"]} == {4} and {p.ndim for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len([*judge.critic.parameters()])


def optimizer_of(parameters, beta2):
    """AdamW that decays matrices, by 1e-4."""
    some = [p for p in parameters if p.ndim > 1]
    groups = [{"params": some}, {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0}]
    return torch.optim.AdamW(groups, betas=(0.9, beta2), weight_decay=1e-4)


def clipped(parameters):
    norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters))
    for p in parameters:
        p.grad.mul_(min(1, 1 / (norm + 1e-6)))


def rate_at(step, first, steps, warmup, peak=0.02):
    if step - first < warmup:
        return peak * (step - first) / warmup
    share = (step - first - warmup) / (steps - first - warmup)
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def test_every_update_is_that_of_plain_pytorch(words):
    """Decoder first, by a critic that is as the last step left it; then the critic, by the pictures of before."""
    steps, first, warmup, peak = 16, 4, 2, 0.02
    more = ("--steps", steps, "--warmup", warmup / steps, "--adversary-start", first / steps, "--rate", peak)
    more += ("--adversary", 1.0, "--adversary-rate", peak, "--adversary-width", 32, "--lecam", 20, *SQUARED)
    run = begun(words(*more, "--no-bf16"))
    model, critic = copy.deepcopy(run.model), copy.deepcopy(run.adversary.critic)
    named = dict(model.named_parameters())
    mine = [p for name, p in named.items() if name.startswith("decoder.")]
    # embeddings and tokens do not decay either
    tables = [p for name, p in named.items() if name.startswith("decoder.") and ("embed" in name or "token" in name)]
    optimizer, judge = optimizer_of(mine, 0.999), optimizer_of([*critic.parameters()], 0.999)
    some = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = [p for p in some if all(p is not table for table in tables)]
    optimizer.param_groups[1]["params"] += [p for p in some if any(p is table for table in tables)]
    average = {name: p.detach().clone() for name, p in named.items()}
    source, means = run.stage.batches(run.ema.model), {"real": 0.0, "fake": 0.0}
    norms = []
    for step in range(steps):
        pixels = source.batch(step)
        run.advance()
        norms.append(run.update(pixels).get("critic_norm"))

        codes = model.quantize(model.encoder(pixels, model.latent_tokens)).codes.detach()
        decoded = model.to_pixels(model.decoder(codes))
        loss = (decoded - pixels).square().mean()
        if step >= first:
            loss = loss - critic(decoded)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        clipped(mine)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, 0, steps, warmup)
        optimizer.step()
        if step >= first:
            judge.zero_grad()
            real, fake = critic(pixels)[0], critic(decoded.detach())[0]
            hinge = ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()) / 2
            lecam = (real.mean() - means["fake"]).clamp_min(0) ** 2 + (means["real"] - fake.mean()).clamp_min(0) ** 2
            (hinge + 20 * lecam).backward()
            clipped([*critic.parameters()])
            for group in judge.param_groups:
                group["lr"] = rate_at(step, first, steps, warmup)
            judge.step()
            means = {"real": 0.999 * means["real"] + 0.001 * real.mean().item()} | {
                "fake": 0.999 * means["fake"] + 0.001 * fake.mean().item()
            }
        weight = min(0.999, (1 + step) / (10 + step)) if step else 0
        average = {name: weight * average[name] + (1 - weight) * p.detach() for name, p in named.items()}

    assert any(norm > 1 for norm in norms if norm is not None), "nothing was clipped"
    for name, value in run.model.named_parameters():
        if name.endswith("in_proj_bias"):
            continue  # attention does not see the biases of its keys: their gradients are rounding errors
        torch.testing.assert_close(value, named[name], rtol=0, atol=1e-4, msg=name)
        torch.testing.assert_close(run.ema.model.get_parameter(name), average[name], rtol=0, atol=1e-4, msg=name)
    for value, other in zip(run.adversary.critic.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=2e-4)
    assert run.adversary.lecam.fake.item() == pytest.approx(means["fake"], rel=1e-3)


SCRIPT = """
import sys

from tests.training.test_stages import SMALL
from titokcodec.models.config import PRESETS
from training import stage2

PRESETS["small"] = SMALL
stage2.main(sys.argv[1:])
"""


def test_two_ranks_take_the_steps_of_one_with_a_critic(words, tmp_path):
    """LeCam is of means over both, and gradients are clipped by their common norm."""
    (tmp_path / "script.py").write_text(SCRIPT)
    more = ("--steps", 12, "--adversary", 0.5, "--adversary-start", 0.25, "--adversary-width", 32, "--rate", 3e-3)
    more += ("--adversary-rate", 3e-3, "--lecam", 10, "--log-every", 1, "--no-bf16", *SQUARED)
    said = two_ranks([tmp_path / "script.py", *words(*more, out="two")])
    assert "Warning" not in said
    one = begun(words(*more, out="one"))
    loop.run(one)
    two = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    parts = {"model": one.model, "ema": one.ema.model}
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            torch.testing.assert_close(two[name][key], value, rtol=0, atol=1e-3, msg=key)
    for name in ("critic", "lecam"):
        for key, value in getattr(one.adversary, name).state_dict().items():
            torch.testing.assert_close(two["adversary"][name][key], value, rtol=0, atol=1e-3, msg=key)
    logs = [(tmp_path / out / "log.jsonl").read_text().splitlines() for out in ("one", "two")]
    rows = [[row for row in map(json.loads, log) if "critic" in row] for log in logs]
    assert len(rows[0]) == len(rows[1]) == 9
    for ours, theirs in zip(*rows, strict=True):
        for name in ("loss", "critic", "critic_norm", "norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=3e-2), name


def test_a_changed_recipe_is_seen_in_the_config():
    """The other stages' published figures, by their steps."""
    single = defaults.SINGLE.published
    assert single.schedule.warmup * single.schedule.steps == pytest.approx(10_000)
    assert single.adversary.start * single.schedule.steps == pytest.approx(200_000)
    assert dataclasses.asdict(single.pixel_loss) | {"grain": 0, "texture": 0} == dataclasses.asdict(single.pixel_loss)
    assert (single.pixel_loss.lpips_weight, single.pixel_loss.logits, single.pixel_loss.jitter) == (1.0, 0.1, 0)
