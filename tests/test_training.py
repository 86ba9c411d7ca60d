"""The trainer's parts, and a whole run of seconds on eight made-up pictures."""

import io
import json
import math
import sys
import tarfile
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from titokcodec.models.config import PRESETS, TiTokConfig, Tower, preset
from titokcodec.models.quantizer import VectorQuantizer
from training import command, engine, single, stage
from training.codebook import CodebookCare
from training.data import Held, Pictures, decode
from training.engine import EMA, Clock, cosine, save_state
from training.evaluate import contact_sheet, psnr, rates, score
from training.export import choose_tables, load_averaged
from training.losses import LPIPS
from training.prefixes import draw_prefixes, prefix_lengths
from training.starts import spread_points, start_in_2d

CONFIG = TiTokConfig(
    Tower(32, 1, 2), Tower(32, 1, 2), tokens=8, codes=32, code_width=4, image_size=64, patch_size=16, head_width=8,
    head_blocks=1, head_grid=8, nested=True, min_tokens=2,
)


def png(pixels):
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def tagged(index, width, height):
    """A picture whose pixels tell where they are: (column, row, index)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, index)], axis=-1).astype(np.uint8)


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
    assert (len(found), found.skipped) == (7, 2)
    assert found.sizes.tolist()[:3] == [[64, 64], [64, 72], [64, 80]]


def test_pictures_of_a_shard(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for name, data in (("a/1.png", png(tagged(1, 70, 64))), ("a/1.json", b"{}"), ("a/2.png", b"broken"),
                           ("a/3.png", png(tagged(3, 64, 90)))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    for source in (tmp_path / "shard.tar", tmp_path):
        found = Pictures([source], side=64)
        assert (found.names, found.skipped) == (["a/1.png", "a/3.png"], 1)
    assert Pictures([tmp_path], side=64, limit=1).names == ["a/1.png"]


def test_no_pictures_at_all_end_the_run(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(SystemExit, match="no readable pictures in "):
        Pictures([tmp_path], side=64)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 256), (128, 64)), ((640, 64), (64, 128)), ((65, 64), (64, 65)), ((9, 9), (64, 64)), ((3, 200), (128, 64))],
)
def test_the_shorter_side_is_scaled_and_long_pictures_are_cropped(size, expected):
    assert decode(png(tagged(0, *size)), 64).shape == (*expected, 3)


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
    crops = tagged_pictures.random_crops(300, torch.Generator().manual_seed(0))
    assert crops.shape == (300, 3, 64, 64) and crops.dtype == torch.float32
    assert crops.min() >= 0 and crops.max() <= 1
    index, left, top, mirrored = (set(column) for column in zip(*(check_crop(c, tagged_pictures) for c in crops)))  # noqa: B905
    assert index == {0, 1, 2, 3} and mirrored == {False, True}
    assert {0, 36} <= left and {0, 64} <= top


def test_centre_crops_are_central(tagged_pictures):
    crops = tagged_pictures.centre_crops(torch.arange(4))
    assert [check_crop(crop, tagged_pictures)[1:] for crop in crops] == [
        (0, 0, False), (18, 0, False), (0, 32, False), (3, 0, False)]


# ---- losses and metrics ---------------------------------------------------------------------------------------


def lpips_file(folder):
    """Weights in the layout of SqueezeNet 1.1, four channels wide."""
    torch.manual_seed(0)
    state = {"features.0.weight": torch.randn(4, 3, 3, 3), "features.0.bias": torch.randn(4) * 0.1}
    width = 4
    for number in (3, 4, 6, 7, 9, 10, 11, 12):
        for part, shape in (("squeeze", (2, width, 1, 1)), ("expand1x1", (3, 2, 1, 1)), ("expand3x3", (3, 2, 3, 3))):
            state[f"features.{number}.{part}.weight"] = torch.randn(shape)
            state[f"features.{number}.{part}.bias"] = 0.3 * torch.rand(shape[0])
        width = 6
    state |= {f"lin.{tap}": torch.rand(1, channels, 1, 1) for tap, channels in enumerate((4, 6, 6, 6, 6, 6, 6))}
    path = folder / "lpips.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
    return LPIPS(lpips_file(tmp_path_factory.mktemp("lpips")))


def test_lpips_is_a_distance_one_for_each_picture(lpips):
    torch.manual_seed(1)
    a, b = torch.rand(2, 3, 3, 64, 64)
    assert lpips(a, a).tolist() == [0, 0, 0]
    assert lpips(a, b).shape == (3,) and (lpips(a, b) > 0).all()
    torch.testing.assert_close(lpips(a, b), lpips(b, a))
    torch.testing.assert_close(lpips(a, b)[1:2], lpips(a[1:2], b[1:2]))
    assert (lpips(a, a + 0.01 * (b - a)) < lpips(a, b)).all()


def test_lpips_has_a_tap_after_each_stage(lpips):
    sides = [tuple(tap.shape[1:]) for tap in lpips.taps(torch.rand(1, 3, 64, 64))]
    assert sides == [(4, 31, 31), (6, 15, 15), (6, 7, 7), (6, 3, 3), (6, 3, 3), (6, 3, 3), (6, 3, 3)]


def test_lpips_passes_gradients_to_pictures_and_has_no_parameters(lpips):
    a = torch.rand(1, 3, 64, 64, requires_grad=True)
    lpips(a, torch.rand(1, 3, 64, 64)).sum().backward()
    assert a.grad.abs().sum() > 0
    assert not list(lpips.parameters()) and not lpips.state_dict()


def test_lpips_refuses_pictures_in_0_to_255(lpips):
    with pytest.raises(ValueError, match=r"takes pictures in \[0, 1\]"):
        lpips(torch.full((1, 3, 64, 64), 100.0), torch.zeros(1, 3, 64, 64))


def test_psnr_of_known_errors():
    zero = torch.zeros(2, 3, 4, 4)
    assert psnr(zero, zero + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)).tolist() == pytest.approx([20, 40])
    assert psnr(zero, zero).tolist() == [100, 100]


def test_score_and_contact_sheet(tagged_pictures, lpips):
    model = single.TiTok(CONFIG).eval()
    assert rates(model) == (2, 8)
    found = score(model, tagged_pictures, (2, 8), lpips, batch=3)
    assert found.keys() == {"psnr/2", "psnr/8", "ssim/2", "ssim/8", "lpips/2", "lpips/8", "usage", "entropy"}
    assert 0 < found["usage"] <= 1 and 0 <= found["entropy"] <= 5
    pixels = tagged_pictures.centre_crops(torch.arange(4))
    expected = psnr((model.decode(model.encode(pixels)) * 255).round() / 255, pixels).mean().item()
    assert found["psnr/8"] == pytest.approx(expected, abs=1e-3)
    assert contact_sheet(model, pixels, (2, 8)).shape == (3, 3 * 64, 4 * 64)


# ---- parts of the engine --------------------------------------------------------------------------------------


def test_care_revives_dead_codes_and_leaves_used_ones_alone():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(10, 4, l2_normalised=True)
    care = CodebookCare(quantizer, patience=2)
    before = quantizer.codebook().clone()
    tokens, latents = torch.tensor([[0, 1], [2, 2]]), torch.randn(2, 2, 4)
    assert [int(care.step(tokens, latents)) for _ in range(4)] == [0, 0, 7, 0]
    after = quantizer.codebook()
    assert after[:3].equal(before[:3])
    nearest = (after[3:] @ nn.functional.normalize(latents.flatten(0, 1), dim=1).T).amax(1)
    assert (nearest > 0.99).all() and not after[3:].equal(before[3:])
    assert len(after.unique(dim=0)) == 10


def test_care_can_watch_without_acting():
    care = CodebookCare(VectorQuantizer(4, 2, l2_normalised=False), patience=0)
    before = care.quantizer.codebook().clone()
    for _ in range(3):
        assert care.step(torch.tensor([[1]]), torch.randn(1, 1, 2), restart=False) == 0
    assert care.quantizer.codebook().equal(before)
    assert care.idle.tolist() == [3, 0, 3, 3]
    care.start_from(torch.full((1, 5, 2), 7.0) + torch.randn(1, 5, 2))
    assert care.idle.sum() == 0 and (care.quantizer.codebook() > 3).all()


def test_clock_counts_what_was_spent_before(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = Clock(minutes=2, spent=30)
    assert (clock.spent, clock.progress(1000)) == (30, 0.25)
    now[0] += 60
    assert (clock.spent, clock.progress(1000)) == (90, 0.75)
    now[0] += 60
    assert clock.progress(1000) == 1


def test_a_budget_may_be_of_steps_or_end_with_whichever_comes_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now[0]))
    by_steps, both = Clock(None, steps=10), Clock(1, steps=10)
    now[0] = 30
    assert [by_steps.progress(step) for step in (0, 5, 10, 11)] == [0, 0.5, 1, 1]
    assert [both.progress(step) for step in (0, 4, 6, 10)] == [0.5, 0.5, 0.6, 1]
    for minutes, steps in ((0, None), (None, 0), (-1, 5)):
        with pytest.raises(SystemExit, match=r"the budget is -?\d (minutes|steps): give more than 0"):
            Clock(minutes, steps)


def test_cosine_rises_and_falls_to_its_floor():
    assert cosine(0) == 0.01 and cosine(1) == pytest.approx(0.01)
    assert cosine(0.01) == pytest.approx(0.5)
    assert cosine(0.02) == pytest.approx(1)
    assert cosine(0.51) == pytest.approx(0.505)
    assert all(a >= b for a, b in pairwise(cosine(p / 100) for p in range(2, 101)))
    assert cosine(1, floor=0) == pytest.approx(0)


def test_a_checkpoint_survives_a_failure_while_the_next_is_written(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})

    def half(state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"step": 2})
    assert engine.load_state(path, torch.device("cpu")) == {"step": 1}


def test_average_follows_quickly_at_first_and_slowly_later():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.99)
    nn.init.ones_(model.weight)
    ema.update(model, 0)
    assert ema.model.weight.item() == pytest.approx(0.9)
    nn.init.constant_(model.weight, 100)
    ema.update(model, 10**6)
    assert ema.model.weight.item() == pytest.approx(0.9 * 0.99 + 1)
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
    ladders = [prefix_lengths(PRESETS["default"], step) for step in range(6)]
    for lengths in ladders:
        assert len(lengths) == 8 and lengths.count(128) == 5 and lengths.count(32) == 1
    assert {length for lengths in ladders for length in lengths} == {32, 48, 64, 96, 128}
    assert prefix_lengths(PRESETS["titok_l32"], 0) == [32]


def test_each_picture_is_drawn_from_its_own_prefix():
    codes = torch.arange(20.0).view(10, 2, 1).expand(10, 2, 3)
    seen = []

    def draw(part):
        seen.append(part.shape[1])
        return part.sum(1)

    drawn, places = draw_prefixes(draw, codes, [2, 1, 2, 1])
    assert seen == [1, 2] and sorted(places.tolist()) == list(range(10))
    for place, values in zip(places.tolist(), drawn, strict=True):
        assert values.equal(codes[place, : 2 if place % 2 == 0 else 1].sum(0))


class Named(TorchDispatchMode):
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
    care = CodebookCare(VectorQuantizer(4, 2, l2_normalised=False))
    draw_prefixes(lambda part: part.sum(1), codes, lengths)
    with Named() as seen:
        draw_prefixes(lambda part: part.sum(1), codes, lengths)
        care.step(torch.tensor([[1]]), torch.randn(1, 1, 2))
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
def trainer(folder, tmp_path, monkeypatch):
    """Runs the stage on the command line's options; every look at the clock takes a twentieth of a second."""
    now = [0.0]

    def tick():
        now[0] += 0.05
        return now[0]

    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=tick))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(PRESETS, "test", CONFIG)

    def options(*more):
        return command.parse(single.Single, "", [
            "--data", str(folder), "--out", str(tmp_path / "run"), "--preset", "test", "--device", "cpu",
            "--batch", "8", "--minutes", "0.5", "--rate", "3e-3", "--muon-rate", "0.02", "--continuous", "0.4",
            "--log-every", "5", "--no-bf16", "--no-compile", *more,
        ])

    def run(*more):
        return stage.run(single.Single(options(*more)))

    run.options, run.out = options, tmp_path / "run"
    return run


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def state_of(out):
    return torch.load(out / "state.pt", weights_only=True)


def stop_after(monkeypatch, batches):
    """The run is interrupted when it asks for one batch more."""
    original, left = Held.batch, [batches]

    def batch(self, step):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, step)

    monkeypatch.setattr(Held, "batch", batch)
    return lambda: monkeypatch.setattr(Held, "batch", original)


def test_a_run_learns_and_leaves_its_files(trainer, folder):
    model = trainer("--val", str(folder), "--val-minutes", "0.2")
    losses = [row["mse"] for row in rows(trainer.out) if "mse" in row]
    assert len(losses) > 10
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    state = state_of(trainer.out)
    assert state["step"] >= 100 and state["started"] and state["spent"] >= 30
    scores = [row for row in rows(trainer.out) if "val/psnr/8" in row]
    assert len(scores) >= 2 and scores[-1]["val/psnr/8"] > scores[0]["val/psnr/8"]
    assert all(math.isfinite(value) for row in rows(trainer.out) for value in row.values())
    with Image.open(trainer.out / "val.png") as sheet:
        assert sheet.size == (6 * 64, 3 * 64)
    averaged = load_averaged(trainer.out / "state.pt")
    assert all(a.equal(b) for a, b in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_killed_run_goes_on_where_it_was_saved_and_keeps_its_budget(trainer, monkeypatch):
    lift = stop_after(monkeypatch, 60)
    with pytest.raises(KeyboardInterrupt):
        trainer("--save-minutes", "0.1")
    before = state_of(trainer.out)
    assert 0 < before["step"] <= 60 and 0 < before["spent"] < 25
    lift()
    trainer("--resume", "--save-minutes", "0.1")
    after = state_of(trainer.out)
    assert [row["step"] for row in rows(trainer.out) if "pictures" in row] == [0, before["step"]]
    # One budget for both: a run that began again would have taken as many steps as an uninterrupted one on top.
    pace = before["step"] / before["spent"]
    assert after["step"] == pytest.approx(pace * 30, rel=0.1)
    assert after["spent"] == pytest.approx(30, rel=0.05)

    trainer("--resume")
    assert state_of(trainer.out)["step"] == after["step"], "a finished run has nothing left to do"


@pytest.mark.parametrize(("batches", "started"), [(8, False), (stage.SETTLING + 16, True)])
def test_the_codebook_starts_from_data_once_however_often_the_run_is_killed(trainer, monkeypatch, batches, started):
    starts, original = [], CodebookCare.start_from
    monkeypatch.setattr(CodebookCare, "start_from", lambda *args: (starts.append(1), original(*args)))
    lift = stop_after(monkeypatch, batches)
    with pytest.raises(KeyboardInterrupt):
        trainer("--continuous", "0.1", "--save-minutes", "0.001")
    assert state_of(trainer.out)["started"] is started
    lift()
    trainer("--resume", "--continuous", "0.1")
    assert len(starts) == 1


def test_a_short_run_quantizes_by_its_middle_and_a_long_one_after_settling(trainer):
    run = single.Single(trainer.options("--continuous", "0.1"))

    def settled(step, progress):
        run.step, run.progress = step, progress
        return run.settled()

    assert [settled(3, progress) for progress in (0.05, 0.2, 0.5)] == [False, False, True]
    assert [settled(stage.SETTLING, progress) for progress in (0.05, 0.1)] == [False, True]


def test_a_run_does_not_resume_another_architecture(trainer, monkeypatch):
    trainer("--minutes", "0.02")
    monkeypatch.setitem(PRESETS, "test", preset("test", codes=16))
    with pytest.raises(SystemExit, match="of another architecture"):
        trainer("--resume")


def test_a_loss_that_runs_away_stops_the_run_and_spares_the_checkpoint(trainer):
    trainer("--minutes", "0.05")
    before = (trainer.out / "state.pt").read_bytes()
    with pytest.raises(FloatingPointError, match=r"(loss|norm) is (nan|inf) at step \d+: lower --rate"):
        trainer("--rate", "1e30", "--save-minutes", "0.05", "--resume", "--minutes", "0.3", "--log-every", "1000")
    assert (trainer.out / "state.pt").read_bytes() == before


def test_a_run_may_start_from_finished_weights(trainer, tmp_path):
    from titokcodec import weights

    model = single.TiTok(CONFIG)
    weights.save(tmp_path / "w.safetensors", model, "start", int8=False)
    trained = trainer("--init", str(tmp_path / "w.safetensors"), "--minutes", "0.01", "--rate", "1e-9",
                      "--muon-rate", "1e-9")
    assert state_of(trainer.out)["started"], "its codebook is not to be thrown away"
    for a, b in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2**-10, atol=1e-5)


def test_lpips_joins_late_in_a_run(trainer, tmp_path, lpips):
    state = {name.replace("_weight", ".weight").replace("_bias", ".bias").replace("features_", "features.")
             .replace("_squeeze", ".squeeze").replace("_expand", ".expand").replace("lin_", "lin."): value
             for name, value in lpips.named_buffers() if name not in ("shift", "scale")}
    save_file(state, tmp_path / "lpips.safetensors")
    trainer("--lpips", str(tmp_path / "lpips.safetensors"), "--lpips-start", "0.5", "--minutes", "0.2")
    logged = [row for row in rows(trainer.out) if "loss" in row]
    with_lpips = [row["minutes"] / 0.2 for row in logged if "lpips" in row]
    assert 0 < len(with_lpips) < len(logged) and min(with_lpips) >= 0.5
