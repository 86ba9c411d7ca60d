"""The critic on a classifier's features: what it sees, that it learns, and that its loss reaches the decoder."""

import copy
import functools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.metrics.test_lite0 import lite0_state
from titokcodec.metrics.efficientnet import Lite0
from training.adversarial import Adversary, Discriminator
from training.critic import GAIN, HOLE, OFFSET, FeatureCritic, augmented
from training.defaults import STAGE2


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    save_file(lite0_state(), path)
    return Lite0(path)


@pytest.fixture
def critic(lite0):
    torch.manual_seed(0)
    return FeatureCritic(lite0)


def stripes(count):
    return (torch.arange(64) // 2 % 2).float().expand(count, 3, 64, 64) * torch.rand(count, 3, 1, 1)


# ---- what it sees ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_four_maps_at_strides_8_16_32_and_4(critic):
    assert [tuple(logits.shape) for logits in critic(torch.rand(2, 3, 256, 192))] == [
        (2, 1, 28, 20),
        (2, 1, 14, 10),
        (2, 1, 7, 5),
        (2, 1, 56, 40),
    ]


def test_only_the_heads_are_trained_and_the_classifier_is_not_saved(critic):
    trained = {name.split(".")[0] for name, value in critic.named_parameters() if value.requires_grad}
    assert trained == {"heads", "patches"}
    assert sum(value.numel() for value in critic.state_dict().values()) < 400_000  # Lite0 has 4.6 million
    assert not any(value.requires_grad for value in critic.networks[0].parameters())


@torch.no_grad()
def test_coarse_features_reach_the_finest_map_and_none_the_coarsest(critic):
    pixels = torch.rand(1, 3, 256, 256)
    whole = critic.projected(pixels)
    torch.nn.init.zeros_(critic.descents[-1].weight)  # from stride 32 to 16, and from there to 8
    cut = critic.projected(pixels)
    assert [a.allclose(b) for a, b in zip(whole, cut, strict=True)] == [False, False, True]


# ---- random changes -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_changes_stay_within_their_bounds():
    torch.manual_seed(1)
    ramp = torch.linspace(0.2, 0.8, 96).expand(64, 3, 96, 96)
    found = augmented(ramp)
    assert found.shape == (64, 3, 64, 64)
    holes = (found == 0).all(1).float().mean((1, 2))
    assert holes.max() <= (HOLE + 1 / 64) ** 2 and holes.max() > holes.min()
    kept = found[found != 0]
    assert kept.min() >= 0.5 - 0.3 * (1 + GAIN) - OFFSET - 1e-4 and kept.max() <= 0.5 + 0.3 * (1 + GAIN) + OFFSET + 1e-4
    assert found[:, :, 0, 0].std() > 0.01  # each picture has its own


def test_small_pictures_are_not_cropped():
    assert augmented(torch.rand(2, 3, 64, 64)).shape == (2, 3, 64, 64)


def test_changes_pass_gradients_on():
    pixels = torch.rand(2, 3, 96, 96, requires_grad=True)
    augmented(pixels).sum().backward()
    assert (pixels.grad != 0).float().mean() > 0.25  # what is neither cropped off nor in a hole


# ---- learning -------------------------------------------------------------------------------------------------


SHORT = STAGE2.short


def adversary(lite0, **changes):
    torch.manual_seed(0)
    chosen = replace(SHORT.adversary, rate=2e-3, **changes)
    return Adversary(chosen, SHORT.optimizer, SHORT.schedule, torch.device("cpu"), lite0=lite0)


def test_it_learns_to_tell_stripes_from_noise_and_its_gradient_points_to_them(lite0):
    judge = adversary(lite0, share=1.0)
    assert isinstance(judge.critic, FeatureCritic)
    found = [judge.learn(stripes(4), torch.rand(4, 3, 64, 64), 0.3) for _ in range(12)]
    assert found[0]["critic"] > 0.75 and found[-1]["critic"] < 0.5 and found[-1]["margin"] > 1
    decoded = torch.rand(4, 3, 64, 64, requires_grad=True)
    before = [value.clone() for value in judge.critic.state_dict().values()]
    judge.generator_loss(decoded).backward()
    assert decoded.grad.abs().sum() > 0 and all(p.grad is None for p in judge.critic.parameters())
    heads = [name for name in judge.critic.state_dict() if name.endswith("original")]
    after = judge.critic.state_dict()
    assert all(after[name].equal(b) for name, b in zip(after, before, strict=True) if name in heads)
    torch.manual_seed(2)
    better = decoded.detach() - 20 * decoded.grad / decoded.grad.norm()
    with torch.no_grad():  # over many random changes, since each judges differently
        losses = [[judge.generator_loss(x).item() for _ in range(8)] for x in (decoded, better)]
    assert sum(losses[1]) < sum(losses[0])


def test_a_share_of_the_batch_is_judged(lite0):
    judge, seen = adversary(lite0, share=0.5), []
    judge.forward.register_forward_hook(lambda module, given, made: seen.append(len(given[0])))
    judge.learn(stripes(6), torch.rand(6, 3, 64, 64), 0.3)
    judge.generator_loss(torch.rand(6, 3, 64, 64))
    assert seen == [6, 3]  # pairs of three, then three


def test_in_bfloat16_only_its_classifier_is_stored_that_way(lite0):
    torch.manual_seed(0)
    half = copy.deepcopy(lite0).to(torch.bfloat16)
    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)
    judge = Adversary(SHORT.adversary, SHORT.optimizer, SHORT.schedule, torch.device("cpu"), autocast, half)
    found = judge.learn(stripes(4), torch.rand(4, 3, 64, 64), 0.3)
    decoded = torch.rand(4, 3, 64, 64, requires_grad=True)
    judge.generator_loss(decoded).backward()
    assert found["critic"].isfinite() and decoded.grad.isfinite().all() and decoded.grad.abs().sum() > 0
    assert {value.dtype for value in judge.critic.state_dict().values()} == {torch.float32}


def test_without_a_classifier_it_is_the_published_one():
    judge = adversary(None, width=32)
    assert isinstance(judge.critic, Discriminator)
    assert set(judge.learn(stripes(2), torch.rand(2, 3, 64, 64), 0.3)) == {"critic", "margin", "critic_norm"}
