"""The closed-form start: a transform coder before anything was learned."""

import math
import time
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from PIL import Image

from tests.models.test_linear import CONFIG, fields, psnr, started
from titokcodec.models.config import PRESETS, preset
from titokcodec.models.tokenizer import TiTok
from training import single
from training.starts import _allocate, _kmeans, _statistics, start_linear


@lru_cache
def started_once(codebooks):
    """An untrained model with linear paths, to be left as it is."""
    return started(replace(CONFIG, codebooks=codebooks))


@pytest.fixture(scope="module")
def model():
    return started_once(CONFIG.codebooks)


def test_equal_pictures_give_equal_weights(model):
    again = started()
    assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_untrained_model_reconstructs_pictures_that_it_has_not_seen_and_more_tokens_reconstruct_better(model):
    pictures = fields(16, 256, seed=9)
    best = [psnr(model, pictures, tokens) for tokens in (4, 8, 12, 16)]
    assert best == sorted(best) and best[-1] > best[0] + 1
    mean = -10 * (pictures - pictures.mean((0, 2, 3), keepdim=True)).square().mean().log10().item()
    assert best[0] > mean + 1 and best[-1] > mean + 4
    torch.manual_seed(0)
    assert best[-1] > psnr(TiTok(CONFIG).eval(), pictures, 16) + 4


def test_latents_as_compared_have_unit_variance_and_codes_are_all_in_use(model):
    seen = fields(1500)
    latents = model.encoder.linear(torch.cat([seen, seen.flip(3)]))
    used = model.quantize.importance > 0
    found = model.quantize(latents)
    assert (found.latents.std(0)[used] - 1).abs().max() < 0.05 and not found.latents[:, ~used].any()
    assert found.latents.mean(0).abs().max() < 0.1
    for book in range(2):
        assert used[book * 8 : book * 8 + 8].sum() > 16
        assert len(found.tokens[:, book * 8 : book * 8 + 8].unique()) > 58


def test_the_encoder_hands_each_component_to_the_first_entry_for_it(model):
    """Later ones hear of it what the codes before have left."""
    seen = fields(1500)
    latents = model.encoder.linear(torch.cat([seen, seen.flip(3)])).flatten(1)
    told, later = set(), 0
    for entry, component in enumerate(model.quantize.component.tolist()):
        if model.quantize.importance.flatten()[entry] == 0 or component in told:
            assert not latents[:, entry].any()
            later += component in told
        else:
            told.add(component)
            assert latents[:, entry].std().item() == pytest.approx(1, abs=0.05)
            assert latents[:, entry].mean().abs() < 0.05
    assert len(told) > 30 and later > 10


def test_both_paths_and_the_quantizer_agree_on_components_and_no_codebook_has_one_twice(model):
    component, used = model.quantize.component, model.quantize.importance.flatten() > 0
    assert model.encoder.linear.component.equal(component) and model.decoder.linear.component.equal(component)
    for part, which in zip(component.chunk(2), used.chunk(2), strict=True):
        assert len(part[which].unique()) == which.sum()


@pytest.mark.parametrize("codebooks", [2, 4])
def test_a_codebooks_worth_of_tokens_reconstructs_better_than_that_part_of_a_rate_shared_out_at_once(codebooks):
    """And all of them draw no worse for it."""
    pictures, first = fields(16, 256, seed=9), CONFIG.tokens // codebooks
    staged, at_once = started_once(codebooks), started_once(1)
    assert psnr(staged, pictures, first) > psnr(at_once, pictures, first) + 1
    assert psnr(staged, pictures, CONFIG.tokens) > psnr(at_once, pictures, CONFIG.tokens)


def test_importance_says_what_an_entry_costs_in_the_picture(model):
    codes = torch.zeros(1, 16, 4)
    sketch = model.decoder.linear(codes)
    used = (model.quantize.importance > 0).nonzero().tolist()
    assert len(used) > 40
    for token, entry in used[::5]:
        moved = codes.clone()
        moved[0, token, entry] = 1
        cost = (model.decoder.linear(moved) - sketch).square().mean().sqrt()
        assert cost.item() == pytest.approx(model.quantize.importance[token, entry].item(), rel=1e-3, abs=1e-7)


def test_mirror_images_count_as_seen():
    spectrum = TiTok(CONFIG).encoder.linear.spectrum
    pictures = fields(200)
    both = spectrum.coefficients(torch.cat([pictures, pictures.flip(3)])).double()
    mean, covariance = _statistics(spectrum.coefficients(pictures), spectrum)
    torch.testing.assert_close(mean, both.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariance, both.T.cov(correction=0), rtol=1e-4, atol=1e-4)


def test_water_filling_by_hand():
    """Two tokens of 2 bits: with the level at 1, components have 2, 1, 1 and 0 bits."""
    place, importance = _allocate(torch.tensor([16.0, 4, 4, 0.9]).double(), 2, 3, 2)
    assert importance.tolist() == [[4, 0, 0], [2, 2, 0]]
    assert place[0, 0] == 0 and place[1, :2].tolist() == [1, 2]


def test_components_below_the_water_get_nothing_and_a_token_takes_as_many_as_it_has_entries():
    _, importance = _allocate(torch.tensor([256.0, 1e-9, 1e-9]).double(), 1, 2, 4)
    assert importance.tolist() == [[16, 0]]
    _, importance = _allocate(torch.ones(8).double() * 4, 2, 2, 2)
    assert (importance == 2).all(), "equal ones share what there is"
    _, importance = _allocate(torch.tensor([4.0]).double(), 3, 2, 12)
    assert importance.max() == 2, "more rate than there is to say"
    places, importance = _allocate(torch.tensor([9.0, 3, 2, 1.5, 1, 0.5, 0.2]).double(), 4, 2, 3)
    kept = places[importance > 0]
    assert len(set(kept.tolist())) == len(kept), "none of them twice"


def test_no_token_stays_empty_where_the_rate_is_more_than_few_components_seem_to_need():
    variance = torch.arange(1, 41).double() ** -1
    _, importance = _allocate(variance, 20, 12, 12)
    assert (importance > 0).any(1).all() and (importance > 0).sum() == 40


def test_kmeans_finds_clusters_and_ignores_entries_without_worth():
    rng = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    points = corners.repeat(300, 1) + 0.05 * torch.randn(1200, 2, generator=rng)
    codes = _kmeans(points, torch.ones(1200, 2), 12, rng)
    assert torch.cdist(points, codes).amin(1).max() < 0.5
    worth = torch.tensor([[1.0, 0]]).expand(1200, 2)
    codes = _kmeans(points, worth, 2, torch.Generator().manual_seed(1))
    assert torch.cdist(points[:, :1], codes[:, :1]).amin(1).mean() < 1.1


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 1, "min_tokens": 1, "codebooks": 1},
        {"tokens": 256, "codebooks": 1, "spectrum": 200},
        {"code_width": 1},
        {"code_width": 32},
        {"codes": 2},
        {"codes": 2048},
        {"codebooks": 16},
        {"spectrum": 1, "components": 1},
        {"components": 7},
        {"spectrum": 896, "codes": 4096, "tokens": 8},
        {"nested": False, "min_tokens": 16},
    ],
    ids=str,
)
def test_every_size_can_start(changes):
    model = started(replace(CONFIG, **changes), count=60)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert math.isfinite(psnr(model, fields(2, 256, seed=4), model.config.tokens))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_pictures_do_not_crash(count):
    model = started(count=count)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model.decode(model.encode(fields(1, 256))).isfinite().all()


def test_pictures_all_of_one_colour_do_not_crash():
    model = TiTok(CONFIG).eval()
    start_linear(model, [torch.full((20, 3, 64, 64), 0.25)], report=lambda line: None)
    decoded = model.decode(model.encode(torch.full((1, 3, 256, 256), 0.25)))
    assert (decoded - 0.25).abs().max() < 0.01


def test_it_says_what_it_does():
    said = []
    start_linear(TiTok(CONFIG), fields(50).split(20), said.append)
    assert said[0] == "linear start: 50 crops" and said[-1].endswith(" components, 2 codebooks of 64 codes")


def test_the_default_preset_has_linear_paths():
    assert preset("default").spectrum and preset("default").head == "refiner" and not preset("default_2").spectrum


def test_from_500_pictures_it_beats_a_model_trained_from_noise_for_longer(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tried", CONFIG)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, pixels in enumerate(fields(500)):
        array = (pixels.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(array).resize((256, 256), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    began = time.monotonic()
    closed = started(count=500)
    seconds = max(3 * (time.monotonic() - began), 2)
    trained = single.main(
        [
            "--data",
            str(folder),
            "--preset",
            "tried",
            "--start",
            "2d",
            "--minutes",
            str(seconds / 60),
            "--batch",
            "16",
            "--lpips-weight",
            "0",
            "--features",
            "0",
            "--no-compile",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "run"),
        ]
    )
    pictures = fields(16, 256, seed=9)
    for tokens in (4, 16):
        assert psnr(closed, pictures, tokens) > psnr(trained, pictures, tokens) + 1
