"""The trainer's parts, and a whole run of seconds on eight made-up pictures."""

import io
import json
import math
import re
import sys
import tarfile
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.metrics.test_lpips import lpips_file
from tests.models.test_linear import CONFIG as FITTED
from tests.models.test_linear import fields
from titokcodec.errors import TitokError
from titokcodec.metrics import LPIPS, psnr
from titokcodec.models.config import PRESETS, TiTokConfig, Tower, preset
from titokcodec.models.quantizer import VectorQuantizer
from training import argtypes, defaults, initial, log, loop, options, schedule, single, trainer
from training.batches import InMemory
from training.checkpoint import load_state, save_state
from training.codebook import CodebookRestart
from training.compute import Runtime
from training.data import Pictures
from training.evaluate import score, token_counts
from training.export import choose_tables, load_averaged
from training.optimizers import EMA
from training.options import parse
from training.prefixes import decode_prefixes, prefix_lengths
from training.reading import decode
from training.schedule import Clock, cosine, flat
from training.sheet import contact_sheet
from training.starts import spread_points, start_in_2d
from training.trainer import SETTLING, Trainer
from training.views import PLAIN, Views, sample

CONFIG = TiTokConfig(
    Tower(32, 1, 2),
    Tower(32, 1, 2),
    tokens=8,
    codes=32,
    code_width=4,
    image_size=64,
    patch_size=16,
    head_width=8,
    head_blocks=1,
    head_grid=8,
    nested=True,
    min_tokens=2,
)
LINEAR = replace(FITTED, image_size=64, patch_size=8, pool=1)


def png(pixels):
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def tagged(index, width, height):
    """A picture whose pixels tell where they are: (column, row, index)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, index)], axis=-1).astype(np.uint8)


SQUARED = ("--adversary", "0", "--lpips-weight", "0", "--logits", "0")  # no loss that needs a network


@pytest.fixture
def folder(tmp_path):
    """Eight pictures of one colour each, 64 x 64 and wider."""
    random = np.random.default_rng(0)
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(8):
        pixels = np.full((64, 64 + 8 * number, 3), random.integers(0, 256, 3), np.uint8)
        (path / f"{number}.png").write_bytes(png(pixels))
    return path


# ---- pictures -------------------------------------------------------------------------------------------------


def test_pictures_of_a_folder_in_order_without_the_broken_ones(folder):
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    (folder / "4.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "9.PNG").write_bytes(png(tagged(9, 64, 64)))
    found = Pictures([folder], side=64)
    assert found.names == ["0.png", "1.png", "2.png", "5.png", "6.png", "7.png", "9.PNG"]
    assert found.keys[-2:] == ["7", "deeper/9"]
    assert (len(found), found.skipped) == (7, 2)
    assert found.sizes.tolist()[:3] == [[64, 64], [64, 72], [64, 80]]


def test_pictures_of_a_shard(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, data in (
            ("a/1.png", png(tagged(1, 70, 64))),
            ("a/1.json", b"{}"),
            ("a/2.png", b"broken"),
            ("a/3.png", png(tagged(3, 64, 90))),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    for source in (tmp_path / "shard.tar", tmp_path):
        found = Pictures([source], side=64)
        assert (found.names, found.skipped) == (["a/1.png", "a/3.png"], 1)
    assert Pictures([tmp_path], side=64, limit=1).names == ["a/1.png"]


def test_no_pictures_at_all_end_the_run(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(TitokError, match="no readable pictures in "):
        Pictures([tmp_path], side=64)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((128, 256), (128, 64)),
        ((640, 64), (64, 640)),
        ((65, 64), (64, 65)),
        ((9, 9), (64, 64)),
        ((3, 200), (1024, 64)),
        ((99, 70), (64, 90)),  # 90.5 of 64 and 70; rounded down
        ((70, 107), (97, 64)),  # 97.8
    ],
)
def test_the_shorter_side_is_scaled_and_very_long_pictures_are_cropped(size, expected):
    assert decode(png(tagged(0, *size)), 64).shape == (*expected, 3)


def test_very_long_pictures_are_cropped_to_their_middle():
    row = decode(png(tagged(0, 2000 // 8, 4)), 4)[0, :, 0]
    assert row.tolist() == list(range(93, 157)), "16 times 4 of 250 columns, 93 to the left"


def test_pictures_are_resized_by_the_cubic_kernel_of_published_evaluations():
    """Keys' kernel, a = -1/2, as wide as the picture shrinks; 99 columns become 90, each at 1.1 (i + 1/2)."""
    row = np.random.default_rng(0).integers(0, 256, 99, dtype=np.uint8)
    found = decode(png(np.broadcast_to(row[None, :, None], (70, 99, 3))), 64)
    shrinks = 99 / 90
    away = np.abs(np.arange(99) + 0.5 - (np.arange(90)[:, None] + 0.5) * shrinks) / shrinks
    near, far = 1.5 * away**3 - 2.5 * away**2 + 1, -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    expected = (weights / weights.sum(1, keepdims=True) @ row).round().clip(0, 255)
    assert np.abs(found[:, :, 0] - expected).max() <= 1 and (found[:, :, 0] == expected).mean() > 0.95


@pytest.fixture
def tagged_pictures(tmp_path):
    for index, size in enumerate([(64, 64), (100, 64), (64, 128), (70, 64)]):
        (tmp_path / f"{index}.png").write_bytes(png(tagged(index, *size)))
    return Pictures([tmp_path], side=64)


def check_crop(crop, pictures):
    """It is a window of one picture, maybe mirrored; returns picture, left, top and whether it is."""
    values = (crop * 255).round().long()
    index, (height, width) = int(values[2, 0, 0]), pictures.sizes[values[2, 0, 0]]
    mirrored = bool(values[0, 0, 0] > values[0, 0, -1])
    columns = values[0, 0].flip(0) if mirrored else values[0, 0]
    left, top = int(columns[0]), int(values[1, 0, 0])
    assert 0 <= left <= width - 64 and 0 <= top <= height - 64
    assert (values[2] == index).all()
    assert columns.equal(torch.arange(left, left + 64)) and (values[0] == values[0, 0]).all()
    assert values[1].equal(torch.arange(top, top + 64)[:, None].expand(64, 64))
    return index, left, top, mirrored


def test_random_crops_are_windows_of_every_kind(tagged_pictures):
    crops = tagged_pictures.crops(*tagged_pictures.draw(300, torch.Generator().manual_seed(0)))
    assert crops.shape == (300, 3, 64, 64) and crops.dtype == torch.float32
    assert crops.min() >= 0 and crops.max() <= 1
    index, left, top, mirrored = (set(column) for column in zip(*(check_crop(c, tagged_pictures) for c in crops)))  # noqa: B905
    assert index == {0, 1, 2, 3} and mirrored == {False, True}
    assert {0, 36} <= left and {0, 64} <= top


def test_centre_crops_are_central(tagged_pictures):
    crops = tagged_pictures.centre_crops(torch.arange(4))
    assert [check_crop(crop, tagged_pictures)[1:] for crop in crops] == [
        (0, 0, False),
        (18, 0, False),
        (0, 32, False),
        (3, 0, False),
    ]


def test_centre_crops_of_an_odd_rest_begin_at_the_even_pixel(tmp_path):
    """As torchvision rounds: 2.5 to 2, 3.5 to 4, .5 to 0, 1.5 to 2."""
    for index, size in enumerate([(69, 64), (71, 64), (64, 65), (64, 67)]):
        (tmp_path / f"{index}.png").write_bytes(png(tagged(index, *size)))
    pictures = Pictures([tmp_path], side=64)
    corners = [check_crop(crop, pictures)[1:3] for crop in pictures.centre_crops(torch.arange(4))]
    assert corners == [(2, 0), (4, 0), (0, 0), (0, 2)]
    held = Pictures([tmp_path], side=32, largest=64)
    assert held.middles(torch.arange(4)).corners.tolist() == [[0, 2], [0, 4], [0, 0], [2, 0]], "rows, columns"


# ---- random views ---------------------------------------------------------------------------------------------

EVERYTHING = Views(zoom=1.7, stretch=0.15, colour=0.05)


@pytest.fixture
def large_pictures(tmp_path):
    """InMemory at 64 to 80 pixels on the shorter side, and larger, smaller and as large at first."""
    for index, size in enumerate([(64, 64), (100, 72), (64, 128), (200, 160), (20, 30)]):
        (tmp_path / f"{index}.png").write_bytes(png(tagged(index, *size)))
    return Pictures([tmp_path], side=64, largest=80)


def test_pictures_may_keep_some_of_the_pixels_that_they_have_more(large_pictures):
    assert large_pictures.sizes.tolist() == [[64, 64], [72, 100], [128, 64], [80, 100], [96, 64]]
    middle = large_pictures.centre_crops(torch.tensor([0, 1]))
    assert check_crop(middle[0], large_pictures)[1:] == (0, 0, False)
    column = (middle[1, 0, 0] * 255).tolist()  # 72 of 100 columns, from the 14th on, resized to 64
    assert column == pytest.approx([14 + (i + 0.5) * 72 / 64 - 0.5 for i in range(64)], abs=1e-2)


def test_views_without_strength_are_the_crops_of_the_same_step(tagged_pictures):
    rng = torch.Generator()
    crops = tagged_pictures.crops(*tagged_pictures.draw(50, rng.manual_seed(7)))
    assert tagged_pictures.views(tagged_pictures.draw_views(50, rng.manual_seed(7), PLAIN)).equal(crops)
    held = InMemory(tagged_pictures, 8, seed=1)
    assert held.batch(4, augment=True).equal(held.batch(4))


def test_every_view_lies_within_its_picture_and_all_kinds_occur(large_pictures):
    boxes = large_pictures.draw_views(2000, torch.Generator().manual_seed(0), EVERYTHING)
    whole = large_pictures.sizes[boxes.which].float()
    assert (boxes.corners >= 0).all() and (boxes.corners + boxes.sizes <= whole + 1e-3).all()
    zoom = whole.amin(1) / boxes.sizes.prod(1).sqrt()
    assert 0.999 < zoom.min() < 1.05 and 1.6 < zoom.max() < 1.85, "as asked, or less where it was clipped"
    wider = boxes.sizes[:, 1] / boxes.sizes[:, 0]
    assert 1 / 1.1501 < wider.min() < 0.89 and 1.12 < wider.max() < 1.1501
    assert 0.9 < boxes.gains.min() < 0.95 and 1.05 < boxes.gains.max() < 1.1026 and boxes.lifts.abs().max() < 0.08
    assert 0.4 < boxes.flips.float().mean() < 0.6 and set(boxes.which.tolist()) == {0, 1, 2, 3, 4}
    assert (boxes.corners + boxes.sizes > whole - 1.5).any() and (boxes.corners == 0).any(), "up to every edge"


def test_a_view_shows_what_its_box_holds(large_pictures):
    views = Views(zoom=1.7, stretch=0.15)
    boxes = large_pictures.draw_views(40, torch.Generator().manual_seed(1), views)
    boxes = boxes._replace(which=boxes.which.clamp(max=2))  # the others were resized
    boxes = boxes._replace(corners=torch.zeros_like(boxes.corners), sizes=boxes.sizes.clamp(max=64))
    pixels = large_pictures.views(boxes) * 255
    centres = (torch.arange(64) + 0.5) / 64
    for view, size, flip in zip(pixels, boxes.sizes, boxes.flips, strict=True):
        rows, columns = ((centres * length - 0.5).clamp(min=0) for length in size)
        columns = columns.flip(0) if flip else columns
        torch.testing.assert_close(view[0], columns.expand(64, 64), atol=1e-2, rtol=0)
        torch.testing.assert_close(view[1], rows[:, None].expand(64, 64), atol=1e-2, rtol=0)


def test_colours_change_about_the_middle_grey_and_stay_in_range():
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8).expand(4, 3)
    store = Pictures.__new__(Pictures)
    store.side, store.one_size, store.pixels, store.names = 2, True, pixels, ["a"]
    store.starts, store.sizes = torch.tensor([0]), torch.tensor([[2, 2]])
    boxes = store.draw_views(500, torch.Generator().manual_seed(0), Views(colour=0.1))
    found = store.views(boxes)[:, :, 0, 0]
    assert found.min() == 0 and found.max() == 1
    assert found[:, 1].std() > 0.02 and abs(found[:, 1].mean() - 0.2) < 0.01
    assert (found[:, 1] - 0.2).abs().max() < 0.16


def test_views_depend_on_seed_and_step_alone_and_are_shared_by_ranks(large_pictures):
    def held(**order):
        return InMemory(large_pictures, 8, seed=3, how=EVERYTHING, **order)

    whole = [held().batch(step, augment=True) for step in range(3)]
    later = held()
    assert later.batch(2, True).equal(whole[2]) and later.batch(1, True).equal(whole[1])
    assert not whole[0].equal(whole[1]) and not whole[0].equal(held().batch(0))
    assert torch.cat([held(rank=rank, ranks=2).batch(1, True) for rank in (0, 1)]).equal(whole[1])
    assert whole[0].shape == (8, 3, 64, 64) and whole[0].dtype == torch.float32
    assert whole[0].stride() == held().store.crops(*held().store.draw(8, torch.Generator())).stride()


def test_views_wait_for_nothing(large_pictures):
    boxes = large_pictures.draw_views(4, torch.Generator().manual_seed(0), EVERYTHING)
    with Operations() as seen:
        large_pictures.draw_views(4, torch.Generator().manual_seed(0), EVERYTHING)
        sample(large_pictures.pixels, large_pictures.starts[boxes.which], large_pictures.sizes[boxes.which], boxes, 64)
    assert "index" in seen.names and not seen.names & {"_local_scalar_dense", "nonzero", "index_put_"}


@pytest.mark.parametrize("wrong", [{"zoom": 0.9}, {"stretch": -0.1}, {"colour": 1.0}])
def test_strengths_that_make_no_sense_are_refused(wrong):
    with pytest.raises(TitokError, match="a zoom is 1 or more"):
        Views(**wrong)


# ---- scores ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    return LPIPS(lpips_file(tmp_path_factory.mktemp("lpips")))


def test_score_and_contact_sheet(tagged_pictures, lpips):
    model = single.TiTok(CONFIG).eval()
    assert token_counts(model) == (2, 8)
    found = score(model, tagged_pictures, (2, 8), lpips, batch=3)
    assert found.keys() == {"psnr/2", "psnr/8", "ssim/2", "ssim/8", "lpips/2", "lpips/8", "usage", "entropy"}
    assert 0 < found["usage"] <= 1 and 0 <= found["entropy"] <= 5
    pixels = tagged_pictures.centre_crops(torch.arange(4))
    expected = psnr((model.decode(model.encode(pixels)) * 255).round() / 255, pixels).mean().item()
    assert found["psnr/8"] == pytest.approx(expected, abs=1e-3)
    assert contact_sheet(model, pixels, (2, 8)).shape == (3, 3 * 64, 4 * 64)


# ---- parts of a run -------------------------------------------------------------------------------------------


def test_dead_codes_restart_and_used_ones_stay():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(10, 4, l2_normalised=True)
    restarts = CodebookRestart(quantizer, patience=2)
    before = quantizer.codebook().clone()
    tokens, latents = torch.tensor([[0, 1], [2, 2]]), torch.randn(2, 2, 4)
    assert [int(restarts.step(tokens, latents)) for _ in range(4)] == [0, 0, 7, 0]
    after = quantizer.codebook()
    assert after[:3].equal(before[:3])
    nearest = (after[3:] @ nn.functional.normalize(latents.flatten(0, 1), dim=1).T).amax(1)
    assert (nearest > 0.99).all() and not after[3:].equal(before[3:])
    assert len(after.unique(dim=0)) == 10


def test_dead_codes_are_counted_without_a_restart():
    restarts = CodebookRestart(VectorQuantizer(4, 2, l2_normalised=False), patience=0)
    before = restarts.quantizer.codebook().clone()
    for _ in range(3):
        assert restarts.step(torch.tensor([[1]]), torch.randn(1, 1, 2), restart=False) == 0
    assert restarts.quantizer.codebook().equal(before)
    assert restarts.idle.tolist() == [3, 0, 3, 3]
    restarts.start_from(torch.full((1, 5, 2), 7.0) + torch.randn(1, 5, 2))
    assert restarts.idle.sum() == 0 and (restarts.quantizer.codebook() > 3).all()


def test_clock_counts_what_was_spent_before(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(minutes=2, spent=30)
    assert (clock.spent, clock.progress(1000)) == (30, 0.25)
    now[0] += 60
    assert (clock.spent, clock.progress(1000)) == (90, 0.75)
    now[0] += 60
    assert clock.progress(1000) == 1


def test_a_budget_may_be_of_steps_or_end_with_whichever_comes_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: now[0]))
    by_steps, both = Clock(None, steps=10), Clock(1, steps=10)
    now[0] = 30
    assert [by_steps.progress(step) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]
    assert [both.progress(step) for step in (0, 4, 6, 10)] == [0.5, 0.5, 0.6, 1]
    for minutes, steps in ((0, None), (None, 0), (-1, 5)):
        with pytest.raises(TitokError, match=r"the budget is -?\d (minutes|steps): give more than 0"):
            Clock(minutes, steps)


def test_cosine_rises_and_falls_to_its_floor():
    assert cosine(0) == 0 and cosine(1) == pytest.approx(0.01)
    assert cosine(0.01) == pytest.approx(0.5)
    assert cosine(0.02) == pytest.approx(1)
    assert cosine(0.51) == pytest.approx(0.505)
    assert all(a >= b for a, b in pairwise(cosine(p / 100) for p in range(2, 101)))
    assert cosine(1, floor=0) == pytest.approx(0)


def test_a_plateau_ends_in_a_straight_line():
    assert [flat(p, 0.5, 0.1) for p in (0, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.55, 0.1])
    assert flat(1, 1.0) == 1


def test_schedules_by_hand():
    ours = defaults.SINGLE.short.schedule
    assert (ours.warmup_steps, ours.flat, ours.floor) == (100, 0.55, 0.01)
    assert schedule.schedule(0, 0, ours) == pytest.approx(0.01) and schedule.schedule(0.001, 49, ours) == pytest.approx(
        0.5
    )
    assert schedule.schedule(0.05, 3, ours) == pytest.approx(0.5), "a run of few steps has a tenth of it for the rise"
    assert (
        schedule.schedule(0.1, 9, ours) == schedule.schedule(0.1, 100, ours) == schedule.schedule(0.55, 1000, ours) == 1
    )
    assert schedule.schedule(0.775, 1000, ours) == pytest.approx(0.505) and schedule.schedule(
        1, 2000, ours
    ) == pytest.approx(0.01)

    rounded = replace(ours, flat=0.0)
    assert schedule.schedule(0.5, 1000, rounded) == pytest.approx(0.505)
    assert schedule.schedule(0.01, 49, rounded) == pytest.approx(0.5)

    published = defaults.STAGE1.published.schedule
    for progress in (0, 0.005, 0.01, 0.3, 1):
        assert schedule.schedule(progress, 5, published) == pytest.approx(cosine(progress, 0.01, 0.1))
    assert schedule.schedule(0, 0, replace(published, warmup=0.0)) == 1


def test_a_deadline_ends_the_budget_if_nothing_else_does_before(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 10**9 + now[0]))
    until, sooner, later = Clock(None, deadline=10**9 + 1100), Clock(1, deadline=10**9 + 1100), Clock(9, None, 0, 10**9)
    resumed = Clock(None, spent=300, deadline=10**9 + 1100)
    now[0] += 50
    assert (until.progress(9), sooner.progress(9), later.progress(9)) == (0.5, pytest.approx(50 / 60), 1)
    assert resumed.progress(9) == 350 / 400
    until.go()
    assert until.progress(9) == 0, "what was done before the clock starts is taken off its budget"
    now[0] += 25
    assert until.progress(9) == 0.5


def test_a_deadline_is_a_time_of_day_or_a_number_of_seconds():
    assert argtypes.moment("1700000000.5") == 1700000000.5
    now = datetime.now().timestamp()
    for text in ("00:00:00", "12:30", "23:59:59"):
        found = argtypes.moment(text)
        assert 0 < found - now <= 25 * 3600 and datetime.fromtimestamp(found).strftime("%H:%M:%S").startswith(text)
    for text in ("soon", "25:00", "1:2:3:4"):
        with pytest.raises(ValueError):
            argtypes.moment(text)


def test_a_checkpoint_survives_a_failure_while_the_next_is_written(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    kept = {"stage": "single", "config": "", "ema": {}, "step": 1}
    save_state(path, kept)

    def half(state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, kept | {"step": 2})
    assert load_state(path, torch.device("cpu")) == kept


def test_average_follows_quickly_at_first_and_slowly_later():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.99)
    nn.init.ones_(model.weight)
    ema.update(model, 0)
    assert ema.model.weight.item() == 1, "nothing is left of the start"
    nn.init.constant_(model.weight, 12)
    ema.update(model, 1)
    assert ema.model.weight.item() == pytest.approx(2 / 11 + 12 * 9 / 11)
    nn.init.constant_(model.weight, 100)
    ema.update(model, 10**6)
    assert ema.model.weight.item() == pytest.approx(10 * 0.99 + 1)
    assert not ema.model.weight.requires_grad


def test_start_in_2d_places_every_prefix_over_the_whole_picture():
    points = spread_points(128)
    assert points.min() >= 0 and points.max() < 1
    for count in (4, 16, 64):  # no quarter of the picture is left out
        quarters = (points[:count] * 2).long()
        assert len({tuple(q) for q in quarters.tolist()}) == 4
    model = single.TiTok(CONFIG)
    start_in_2d(model)
    for tower in (model.encoder, model.decoder):
        assert tower.latent_token_positional_embedding.square().mean().item() == pytest.approx(1, abs=1e-3)
    grey = torch.full((1, 3, 64, 64), 0.45)
    assert model.encoder.patch_embed(grey).abs().max() < 1e-5


def test_most_of_each_batch_keeps_all_tokens_and_every_prefix_has_its_turn():
    ladders = [prefix_lengths(PRESETS["default_2"], step) for step in range(6)]
    for lengths in ladders:
        assert len(lengths) == 8 and lengths.count(128) == 5 and lengths.count(32) == 1
    assert {length for lengths in ladders for length in lengths} == {32, 48, 64, 96, 128}
    assert prefix_lengths(PRESETS["titok_l32"], 0) == [32]
    alone = [prefix_lengths(PRESETS["default"], step) for step in range(24)]  # with linear paths
    assert all(lengths == [128] for lengths in alone[::2]) and {len(lengths) for lengths in alone} == {1}
    assert {length for (length,) in alone[1::2]} == {32, 48, 64, 96}
    short = preset("default", tokens=16, min_tokens=12)
    assert all(12 <= length <= 16 for step in range(24) for length in prefix_lengths(short, step))


def test_each_picture_is_decoded_from_its_own_prefix():
    codes = torch.arange(20.0).view(10, 2, 1).expand(10, 2, 3)
    seen = []

    def draw(part):
        seen.append(part.shape[1])
        return part.sum(1)

    decoded, places = decode_prefixes(draw, codes, [2, 1, 2, 1])
    assert seen == [1, 2] and sorted(places.tolist()) == list(range(10))
    for place, values in zip(places.tolist(), decoded, strict=True):
        assert values.equal(codes[place, : 2 if place % 2 == 0 else 1].sum(0))


def test_pictures_that_are_all_decoded_from_one_length_keep_their_order_and_are_not_copied():
    codes, pixels, given = torch.randn(5, 4, 3), torch.randn(5, 3, 8, 8), []
    decoded, places = decode_prefixes(lambda part: given.append(part) or part.sum(1), codes, [2, 2])
    assert decoded.equal(codes[:, :2].sum(1)) and len(given) == 1
    assert given[0].data_ptr() == codes.data_ptr()
    assert pixels[places].equal(pixels) and pixels[places].data_ptr() == pixels.data_ptr()


class Operations(TorchDispatchMode):
    """The operations within the block."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **kwargs or {})


def test_a_step_hands_nothing_from_the_host_to_the_device():
    """Neither places in a batch nor numbers to write somewhere: the host would wait for a GPU with either."""
    codes, lengths = torch.empty(10, 2, 3, device="meta"), [2, 1, 2, 1]
    restarts = CodebookRestart(VectorQuantizer(4, 2, l2_normalised=False))
    decode_prefixes(lambda part: part.sum(1), codes, lengths)
    with Operations() as seen:
        decode_prefixes(lambda part: part.sum(1), codes, lengths)
        restarts.step(torch.tensor([[1]]), torch.randn(1, 1, 2))
    assert "index" in seen.names and not seen.names & {"_to_copy", "nonzero", "index_put_"}


def test_tables_are_kept_where_they_pay():
    random = np.random.default_rng(0)
    assert choose_tables(random.integers(0, 16, (500, 4)), 16)[0] is None
    skewed = np.minimum(random.geometric(0.3, (500, 4)) - 1, 15)
    assert choose_tables(skewed, 16)[0].shared
    by_position = (skewed + 4 * np.arange(4)) % 16
    assert len(choose_tables(by_position, 16)[0].frequencies) == 4


# ---- whole runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    """Runs the stage on the command line's options; every look at the clock takes a twentieth of a second."""
    now = [0.0]

    def tick():
        now[0] += 0.05
        return now[0]

    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(PRESETS, "test", CONFIG)

    def options(*more):
        return parse(
            single.Single,
            "",
            [
                "--data",
                str(folder),
                "--out",
                str(tmp_path / "run"),
                "--preset",
                "test",
                "--device",
                "cpu",
                "--batch",
                "8",
                "--minutes",
                "0.5",
                "--rate",
                "3e-3",
                "--muon-rate",
                "0.02",
                "--continuous",
                "0.4",
                "--log-every",
                "5",
                "--no-bf16",
                "--no-compile",
                *more,
            ],
        )

    def run(*more):
        return loop.train(single.Single, options(*more))

    run.options, run.out = options, tmp_path / "run"
    return run


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def state_of(out):
    return torch.load(out / "state.pt", weights_only=True)


def stop_after(monkeypatch, batches):
    """The run is interrupted when it asks for one batch more."""
    original, left = InMemory.batch, [batches]

    def batch(self, step, *more):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, step, *more)

    monkeypatch.setattr(InMemory, "batch", batch)
    return lambda: monkeypatch.setattr(InMemory, "batch", original)


def test_a_run_learns_and_leaves_its_files(train, folder):
    model = train("--val", str(folder), "--val-minutes", "0.2")
    losses = [row["mse"] for row in rows(train.out) if "mse" in row]
    assert len(losses) > 10
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    state = state_of(train.out)
    assert state["step"] >= 100 and state["started"] and state["spent"] >= 30
    scores = [row for row in rows(train.out) if "val/psnr/8" in row]
    assert len(scores) >= 2 and scores[-1]["val/psnr/8"] > scores[0]["val/psnr/8"]
    assert all(math.isfinite(value) for row in rows(train.out) for value in row.values())
    with Image.open(train.out / "val.png") as sheet:
        assert sheet.size == (6 * 64, 3 * 64)
    averaged = load_averaged(train.out / "state.pt")
    assert all(a.equal(b) for a, b in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_killed_run_goes_on_where_it_was_saved_and_keeps_its_budget(train, monkeypatch):
    budget = ("--minutes", "0.2", "--save-minutes", "0.04")
    lift = stop_after(monkeypatch, 24)
    with pytest.raises(KeyboardInterrupt):
        train(*budget)
    before = state_of(train.out)
    assert 0 < before["step"] <= 24 and 0 < before["spent"] < 10
    lift()
    train("--resume", *budget)
    after = state_of(train.out)
    assert [row["step"] for row in rows(train.out) if "pictures" in row] == [0, before["step"]]
    # One budget for both: a run that began again would have taken as many steps as an uninterrupted one on top.
    pace = before["step"] / before["spent"]
    assert after["step"] == pytest.approx(pace * 12, rel=0.1)
    assert after["spent"] == pytest.approx(12, rel=0.05)

    train("--resume", *budget)
    assert state_of(train.out)["step"] == after["step"], "a finished run has nothing left to do"


@pytest.mark.parametrize(("batches", "started"), [(3, False), (16, True)])
def test_the_codebook_starts_from_data_once_however_often_the_run_is_killed(train, monkeypatch, batches, started):
    monkeypatch.setattr(trainer, "SETTLING", 10)
    starts, original = [], CodebookRestart.start_from
    monkeypatch.setattr(CodebookRestart, "start_from", lambda *args: (starts.append(1), original(*args)))
    lift, budget = stop_after(monkeypatch, batches), ("--minutes", "0.15", "--continuous", "0.1")
    with pytest.raises(KeyboardInterrupt):
        train(*budget, "--save-minutes", "0.001")
    assert state_of(train.out)["started"] is started
    lift()
    train("--resume", *budget)
    assert len(starts) == 1


def test_a_short_run_quantizes_by_its_middle_and_a_long_one_after_settling(train):
    run = Trainer(single.Single, train.options("--continuous", "0.1"))

    def settled(step, progress):
        run.step, run.progress = step, progress
        return run.settled()

    assert [settled(3, progress) for progress in (0.05, 0.2, 0.5)] == [False, False, True]
    assert [settled(SETTLING, progress) for progress in (0.05, 0.1)] == [False, True]


def test_a_run_does_not_resume_another_architecture(train, monkeypatch):
    train("--minutes", "0.02")
    monkeypatch.setitem(PRESETS, "test", preset("test", codes=16))
    with pytest.raises(TitokError, match="of another architecture"):
        train("--resume")


def test_a_loss_that_runs_away_stops_the_run_and_spares_the_checkpoint(train):
    train("--minutes", "0.05")
    before = (train.out / "state.pt").read_bytes()
    with pytest.raises(TitokError, match=r"(loss|norm) is (nan|inf) at step \d+: lower --rate"):
        train("--rate", "1e30", "--save-minutes", "0.05", "--resume", "--minutes", "0.3", "--log-every", "1000")
    assert (train.out / "state.pt").read_bytes() == before


def test_a_run_may_start_from_finished_weights(train, tmp_path):
    from titokcodec.weights import tokenizers

    model = single.TiTok(CONFIG)
    tokenizers.save(tmp_path / "w.safetensors", model, "start", int8=False)
    trained = train(
        "--init", str(tmp_path / "w.safetensors"), "--minutes", "0.01", "--rate", "1e-9", "--muon-rate", "1e-9"
    )
    assert state_of(train.out)["started"], "its codebook is not to be thrown away"
    for a, b in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)


def test_lpips_joins_late_in_a_run(train, tmp_path, lpips):
    state = {
        name.replace("_weight", ".weight")
        .replace("_bias", ".bias")
        .replace("features_", "features.")
        .replace("_squeeze", ".squeeze")
        .replace("_expand", ".expand")
        .replace("lin_", "lin."): value
        for name, value in lpips.named_buffers()
        if name not in ("shift", "scale")
    }
    save_file(state, tmp_path / "lpips.safetensors")
    train("--lpips", str(tmp_path / "lpips.safetensors"), "--lpips-start", "0.5", "--minutes", "0.2")
    logged = [row for row in rows(train.out) if "loss" in row]
    with_lpips = [row["minutes"] / 0.2 for row in logged if "lpips" in row]
    assert 0 < len(with_lpips) < len(logged) and min(with_lpips) >= 0.5


def test_a_run_without_time_for_one_update_leaves_no_checkpoint(train):
    with pytest.raises(loop.TooLate, match="over before the first update: give more --minutes"):
        train("--minutes", "1e-9")
    assert not (train.out / "state.pt").exists()


def test_a_short_run_says_how_many_updates_fit_and_what_came_of_them(train, capsys):
    train("--minutes", "0.02", "--log-every", "1000")
    said = capsys.readouterr().err
    assert re.search(r"(?m)^single: \d+ steps fit in .* at batch 8; try --batch 4$", said), said
    assert re.search(r"single: \d+ steps in \d+ seconds?, loss \d", said), said
    assert len(rows(train.out)) == 1, "the log is as it was"


def test_a_log_is_of_one_run_and_of_those_that_go_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for step in (0, 7, 0, 3):
        found = log.Log(tmp_path, step)
        found.write(step, loss=1.0)
        found.close()
    assert [row["step"] for row in rows(tmp_path)] == [0, 3]


def test_a_finished_run_may_be_resumed_after_its_deadline(train):
    with pytest.raises(TitokError):
        train.options("--resume", "--deadline", "1000000000")
    train("--minutes", "0.02")
    assert train.options("--resume", "--deadline", "1000000000").deadline == 10**9


def test_a_run_ends_at_its_deadline(train, monkeypatch):
    monkeypatch.setattr(schedule.time, "time", lambda: 10**9 + schedule.time.monotonic(), raising=False)
    monkeypatch.setattr(options, "time", schedule.time)
    train("--deadline", str(10**9 + 10))
    assert 9 <= state_of(train.out)["spent"] <= 11


def test_a_rehearsal_leaves_no_trace(train, tmp_path):
    """Neither in weights, averages, moments and codebook restarts nor in what the adversary has learned."""
    common = ("--adversary", "0.1", "--adversary-width", "32", "--adversary-start", "0.5", "--minutes", "100")
    for steps in ("1", "12"):  # of a run that begins, and of one that goes on
        states = []
        for name, more in (("plain", ()), ("rehearsed", ("--rehearse",))):
            updates, original = [], Trainer.update
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Trainer, "update", lambda *args: (updates.append(1), original(*args))[1])  # noqa: B023
                train(*common, *more, "--steps", steps, "--out", str(tmp_path / name), "--resume")
            states.append(state_of(tmp_path / name))
            expected = int(steps) - (1 if steps == "12" else 0)
            assert len(updates) == expected + (
                single.Single.rehearsal + 1 if more else 0
            )  # one scale: there is no LPIPS
        plain, rehearsed = (flattened(state) for state in states)
        assert plain.keys() == rehearsed.keys()
        differing = [key for key, value in plain.items() if key != "/spent" and not same(value, rehearsed[key])]
        assert not differing


def flattened(state, prefix=""):
    """Every leaf of nested dictionaries and lists, by its path."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: leaf for name, value in items for path, leaf in flattened(value, f"{prefix}/{name}").items()}
    return {prefix: state}


def same(a, b):
    return a.equal(b) if isinstance(a, torch.Tensor) else a == b


def test_only_compiled_runs_rehearse_unless_asked(train, monkeypatch):
    rehearsed = []
    monkeypatch.setattr(Trainer, "rehearse", lambda self, batch: rehearsed.append(1))
    monkeypatch.setattr(Runtime, "compiled", lambda self, module: module)
    monkeypatch.setattr(single.Single, "views", lambda self: PLAIN)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for words, expected in (
        (("--no-compile",), 0),
        (("--compile",), 1),
        (("--compile", "--no-rehearse"), 0),
        (("--no-compile", "--rehearse"), 1),
    ):
        rehearsed.clear()
        train("--minutes", "0.01", "--force", *words)
        assert len(rehearsed) == expected


def test_random_views_are_for_the_first_part_of_a_run_of_our_own(train, monkeypatch):
    asked, original = [], InMemory.batch

    def batch(self, step, *more):
        asked.append(bool(more))
        return original(self, step, *more)

    monkeypatch.setattr(InMemory, "batch", batch)
    train("--minutes", "100", "--steps", "20")
    assert asked == [True] * 17 + [False] * 3
    asked.clear()
    train("--minutes", "100", "--steps", "4", "--recipe", "published", *SQUARED, "--force")
    assert asked == [False] * 4


def test_a_row_has_the_pace_and_a_score_how_well_training_pictures_are_reconstructed(train, folder):
    train("--val", str(folder), "--minutes", "0.2", "--log-every", "5")
    paces = [row["pictures_per_second"] for row in rows(train.out) if "pictures_per_second" in row]
    assert paces and all(0 < pace <= 8 / 0.05 for pace in paces)
    last = rows(train.out)[-1]
    assert last["train/psnr/8"] == pytest.approx(last["val/psnr/8"], abs=0.1), "these are the same pictures"


def test_blocks_are_compiled_in_place_and_the_average_is_not(train, monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append((type(self).__name__, options)))
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append("whole") or function)
    plain = Trainer(single.Single, train.options("--no-compile"))
    assert not asked
    compiled = Trainer(single.Single, train.options("--compile"))
    assert [name for name, _ in asked] == ["Block", "Block", "Upsampler"]
    assert all(options == {"dynamic": False} for _, options in asked)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    other = nn.Linear(2, 2)
    assert compiled.runtime.compiled(other) is other and asked[-1] == "whole"


# ---- linear paths ---------------------------------------------------------------------------------------------


@pytest.fixture
def linear(train, monkeypatch):
    """Runs with a preset that has linear paths."""
    monkeypatch.setitem(PRESETS, "linear", LINEAR)

    def run(*more):
        return train("--preset", "linear", *more)

    run.options, run.out = train.options, train.out
    return run


def test_a_closed_form_start_and_scores_say_how_far_they_are(linear, folder, chatty, capsys):
    linear("--minutes", "100", "--steps", "1", "--val", str(folder))
    said = capsys.readouterr().err
    for phase in (
        "reading pictures: 8 pictures",
        "linear start: statistics: 128 of 128 crops",
        "linear start: k-means: 12 of 12 rounds",
        "scoring: 8 of 8 pictures",
    ):
        assert f"{phase}, " in said


def test_a_run_with_linear_paths_begins_in_closed_form_and_keeps_what_it_has(linear, tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for number, field in enumerate(fields(64)):
        Image.fromarray((field.permute(1, 2, 0) * 255).byte().numpy()).save(folder / f"{number:02}.png")
    scores = []
    for steps in ("1", "40"):
        out = linear.out / steps
        linear(
            "--data",
            str(folder),
            "--val",
            str(folder),
            "--minutes",
            "100",
            "--steps",
            steps,
            "--out",
            str(out),
            "--rate",
            "1e-3",
            "--muon-rate",
            "0",
            "--lpips-weight",
            "0",
            "--augment-until",
            "0",
        )
        assert state_of(out)["started"], "codes stand for pictures from the start"
        assert all(math.isfinite(value) for row in rows(out) for value in row.values())
        scores.append(rows(out)[-1]["val/psnr/16"])
        assert load_averaged(out / "state.pt").config == LINEAR
    assert scores[0] > 28 and scores[1] > scores[0] - 0.2


def test_a_killed_run_with_linear_paths_goes_on_without_a_second_start(linear, monkeypatch):
    common = ("--minutes", "100", "--steps", "6")
    linear(*common)
    whole = flattened(state_of(linear.out))
    starts, original = [], initial.start_linear
    monkeypatch.setattr(initial, "start_linear", lambda *args: (starts.append(1), original(*args)))
    other = str(linear.out.with_name("other"))
    linear("--minutes", "100", "--steps", "3", "--out", other)
    linear(*common, "--out", other, "--resume")
    assert len(starts) == 1
    resumed = flattened(state_of(linear.out.with_name("other")))
    assert whole.keys() == resumed.keys()
    assert resumed["/step"] == whole["/step"] == 6


def test_detail_is_learned_where_a_loss_sees_it(linear):
    def detail(*more):
        head = Trainer(single.Single, linear.options("--preset", "linear", *more)).model.decoder.ffn
        return head.detailed, all(value.requires_grad for value in head.detail.parameters())

    assert detail("--lpips-weight", "0") == (False, False)
    assert detail() == (True, True)


def test_a_linear_start_wants_linear_paths(train):
    with pytest.raises(TitokError, match="has no components to start from: give --start 2d"):
        train("--start", "linear")


@pytest.mark.parametrize("start", ["2d", "published"])
def test_other_starts_suit_linear_paths_too(linear, start):
    linear("--start", start, "--minutes", "100", "--steps", "2")
    assert state_of(linear.out)["step"] == 2
