"""The whole chain in one command, on a handful of pictures: it ends with a weight file that works."""

import json
import sys
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageOps

import titokcodec
from tests.conftest import DATA
from tests.training.test_stages import SMALL
from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from titokcodec.models import vqgan
from titokcodec.models.config import PRESETS
from titokcodec.models.vqgan_config import VQGANConfig
from titokcodec.weights.tokenizers import read
from training import loop, recipe


@pytest.fixture
def tiny_preset(monkeypatch, tiny_path):
    monkeypatch.setitem(PRESETS, "tiny", read(tiny_path).config)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        ImageOps.fit(Image.open(DATA / f"{name}.jpg"), (256, 256)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("chain", "last"), [("single", "single"), ("sharpened", "stage2"), ("finished", "critic"), ("two-stage", "stage2")]
)
def test_recipe_leaves_a_scored_model_that_compresses(chain, last, tiny_preset, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(vqgan.VQGAN_PRESETS, "tiny", VQGANConfig(channels=(32,) * 5, blocks=1, code_width=8))
    out, steps = tmp_path / "out", 20 if chain == "single" else 8
    given = (
        f"--data {photos} --val {photos} --out {out} --minutes 9 --steps {steps} --name mine --preset tiny --batch 4 "
        f"--no-bf16 --no-compile --chain {chain} --proxy-preset tiny --side 64 --adversary 0 --device cpu"
    )
    if chain != "two-stage":
        given = given.replace("--proxy-preset tiny --side 64", "")
    recipe.run(*recipe.parse(given.split()))

    scores = json.loads((out / "scores.json").read_text())
    assert (scores["model"], scores["pictures"]) == ("mine", 3)
    assert scores["psnr/16"] > (8 if chain == "single" else 4)
    assert (out / last / "state.pt").exists()
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (3 * 256, 3 * 256), "the originals, and both numbers of tokens"
    codec = titokcodec.Codec.from_pretrained(out / "model.safetensors", device="cpu")
    data = codec.compress(DATA / "coffee.jpg")
    assert codec.decompress(data).size == (600, 400)
    assert len(codec.compress(photos / "coffee.png")) <= scores["bytes/16"]


def test_the_recipe_names_words_that_no_stage_knows(photos, tmp_path):
    line = f"--data {photos} --val {photos} --out {tmp_path} --minutes 0.1 --chain two-stage --beta9 3"
    with pytest.raises(TitokError, match="no stage of the chain two-stage knows --beta9"):
        recipe.run(*recipe.parse(line.split()))


def test_what_would_end_a_chain_half_way_ends_it_at_once(tmp_path):
    line = f"--data {tmp_path} --val {tmp_path} --out {tmp_path} --lpips x.pth"
    line += " --chain two-stage --minutes 1 --preset titok_s128"
    assert recipe.plan(*recipe.parse(f"{line} --convnext x.pth --proxy-preset published".split()))
    with pytest.raises(UsageError, match="add --proxy-preset published, or give a trained one by --proxies"):
        recipe.plan(*recipe.parse(line.split()))
    single = line.replace("two-stage", "single").replace("titok_s128", "default")
    with pytest.raises(UsageError, match="--critic does nothing while --adversary is 0"):
        recipe.plan(*recipe.parse(f"{single} --critic patches".split()))
    with pytest.raises(UsageError, match=r"--logits is 0\.1, but there is no network for it"):
        recipe.plan(*recipe.parse(f"{line} --proxies there.bin".split()))


def test_a_sharpened_run_trains_by_squared_error_first(photos, tmp_path):
    line = f"--data {photos} --val {photos} --out {tmp_path} --minutes 1 --chain sharpened"
    line += " --lpips-weight 0.2 --lpips x.pth"
    (_, first), (_, second) = recipe.plan(*recipe.parse(line.split()))
    assert (first.hyper["lpips_weight"], first.hyper["features"]) == (0, 0)
    assert second.hyper["lpips_weight"] == 0.2 and first.minutes == 3 * second.minutes


def test_a_finished_run_has_an_adversary_last_and_is_the_mean_of_two_decoders(chain, monkeypatch, tmp_path):
    exported = []
    monkeypatch.setattr(recipe.export, "main", exported.extend)
    chain("--chain finished --minutes 10 --lpips-weight 0.2 --lpips x.pth --adversary 0.003")
    assert [minutes for _, minutes, _ in chain.seen[:3]] == pytest.approx([4.5, 1.98, 2.52])
    assert exported[0] == chain.state("critic")
    assert exported[exported.index("--average") + 1 :] == [chain.state("stage2")]
    line = f"--data {tmp_path} --val {tmp_path} --out {tmp_path} --chain finished --minutes 1 --adversary 0.003"
    plans = [given for _, given in recipe.plan(*recipe.parse(line.split()))]
    assert [given.hyper["adversary"] for given in plans] == [0.003, 0, 0.003]
    assert [given.init and given.init.parent.name for given in plans] == [None, "single", "stage2"]


def test_a_stage_compiles_no_shape_that_one_before_has_compiled(photos, tmp_path, monkeypatch, graphs):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(PRESETS, "small", SMALL)
    compiled, train = {}, loop.train

    def run(kind, options):
        before = len(graphs)
        train(kind, options)
        compiled[kind.name] = len(graphs) - before

    monkeypatch.setattr(loop, "train", run)
    for command in (recipe.export, recipe.evaluate):
        monkeypatch.setattr(command, "main", lambda words: None)
    monkeypatch.setattr(recipe, "draw_sheet", lambda *paths: None)
    line = (
        f"--data {photos} --val {photos} --out {tmp_path} --minutes 9 --steps 2 --preset small --batch 8 "
        "--no-bf16 --compile --chain sharpened --adversary 0 --device cpu"
    )
    recipe.run(*recipe.parse(line.split()))
    assert compiled["stage2"] < compiled["single"] / 4, "its encoder alone is new: it is frozen"


# ---- deadlines -------------------------------------------------------------------------------------------------


START = 10**9  # seconds since the epoch
EARLY, LATE = "killed before its first checkpoint", "killed after it"


@pytest.fixture
def chain(monkeypatch, tmp_path):
    """Runs a recipe whose stages take no time but that of ``lasts``, by a clock that nothing else moves."""
    now, seen, lasts = [START], [], {}
    monkeypatch.setattr(recipe, "time", SimpleNamespace(time=lambda: now[0]))

    def train(kind, options):
        minutes = options.minutes and pytest.approx(options.minutes)
        seen.append((kind.name, minutes, options.deadline and pytest.approx(options.deadline - START)))
        takes = lasts.get(kind.name, 0)
        if takes == EARLY:
            raise KeyboardInterrupt
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "state.pt").touch()
        if takes == LATE:
            raise KeyboardInterrupt
        now[0] += takes

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(recipe.export, "main", lambda words: seen.append(words[0]))
    monkeypatch.setattr(recipe.evaluate, "main", lambda words: seen.append("scores"))
    monkeypatch.setattr(recipe, "draw_sheet", lambda *paths: None)

    def run(line, at=START, **takes):
        seen.clear()
        lasts.clear()
        lasts.update(takes)
        now[0] = at
        recipe.run(*recipe.parse(f"--data {tmp_path} --val {tmp_path} --out {tmp_path} {line}".split()))
        return seen[:-2], seen[-2:]

    run.seen, run.state = seen, lambda name: str(tmp_path / name / "state.pt")
    return run


def test_codes_are_counted_on_the_device_of_the_stages(chain, monkeypatch):
    exported = []
    monkeypatch.setattr(recipe.export, "main", exported.extend)
    chain("--minutes 1 --device cuda:1")
    assert exported[exported.index("--device") + 1] == "cuda:1"


def test_stages_share_what_is_left_until_a_tenth_before_the_deadline(chain):
    trained, after = chain(f"--chain two-stage --deadline {START + 1000}", vqgan=285, stage1=500)
    assert trained == [("vqgan", None, 225), ("stage1", None, 285 + 0.6 * 615), ("stage2", None, 900)]
    assert after == [chain.state("stage2"), "scores"]


def test_with_minutes_and_a_deadline_stages_have_both(chain):
    trained, _ = chain(f"--chain sharpened --minutes 10 --deadline {START + 1000}")
    assert trained == [("single", 6.75, 675), ("stage2", 2.25, 900)]


def test_without_a_deadline_minutes_are_all_that_counts(chain):
    trained, _ = chain("--chain sharpened --minutes 10", single=5000)
    assert trained == [("single", 6.75, None), ("stage2", 2.25, None)]


def test_a_stage_that_comes_too_late_is_left_out(chain, capsys):
    trained, after = chain(f"--chain sharpened --deadline {START + 1000}", single=950)
    assert [name for name, *_ in trained] == ["single"] and after == [chain.state("single"), "scores"]
    assert capsys.readouterr().out == "no time is left for stage2\n"


def test_a_resumed_recipe_keeps_to_its_deadline(chain):
    line = f"--chain two-stage --deadline {START + 1000}"
    with pytest.raises(KeyboardInterrupt):
        chain(line, vqgan=225, stage1=LATE)
    trained, _ = chain(f"{line} --resume", at=START + 400, stage1=230)
    assert trained == [("stage1", None, 630), ("stage2", None, 900)], "what it has begun ends as planned"


def test_a_stage_that_was_killed_before_its_first_checkpoint_gets_a_share_of_what_is_left(chain):
    line = f"--chain sharpened --deadline {START + 1000}"
    with pytest.raises(KeyboardInterrupt):
        chain(line, single=EARLY)
    assert chain(line, at=START + 700)[0] == [("single", None, 850), ("stage2", None, 900)]


def test_a_deadline_may_be_spelled_with_or_without_seconds(chain, monkeypatch):
    monkeypatch.setattr(recipe.argtypes, "moment", lambda text: START + 1000)
    with pytest.raises(KeyboardInterrupt):
        chain("--chain sharpened --deadline 12:30", single=LATE)
    monkeypatch.setattr(recipe.argtypes, "moment", lambda text: START + 1000 + 24 * 3600)
    assert chain("--chain sharpened --deadline 12:30:00 --resume", at=START + 1001)[0] == []


def test_what_a_later_link_lacks_is_said_before_the_first_one_trains(chain, tmp_path):
    with pytest.raises(TitokError, match="--critic features needs Lite0"):
        chain("--chain sharpened --minutes 1 --critic features")
    assert not chain.seen
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(TitokError, match=r"recipe\.json is damaged"):
        chain(f"--deadline {START + 100}")


def test_another_deadline_counts_anew(chain):
    with pytest.raises(KeyboardInterrupt):
        chain(f"--chain sharpened --deadline {START + 1000}", single=LATE)
    trained, _ = chain(f"--chain sharpened --deadline {START + 2100} --resume", at=START + 100)
    assert trained[0] == ("single", None, 1450)


def test_a_time_of_day_that_has_passed_is_not_tomorrows_for_a_run_that_has_begun(chain, monkeypatch):
    monkeypatch.setattr(recipe.argtypes, "moment", lambda text: START + 1000)
    with pytest.raises(KeyboardInterrupt):
        chain("--chain sharpened --deadline 12:30", single=LATE)
    monkeypatch.setattr(recipe.argtypes, "moment", lambda text: START + 1000 + 24 * 3600)
    again = chain("--chain sharpened --deadline 12:30 --resume", at=START + 1001)
    assert again == ([], [chain.state("single"), "scores"])


def test_a_deadline_that_passes_before_any_checkpoint_is_named(chain):
    with pytest.raises(TitokError, match=f"there is no checkpoint in .* give a later deadline than {START - 1}"):
        chain(f"--deadline {START - 1}")
    assert not chain.seen


def test_a_stage_without_time_for_one_update_ends_the_training_not_the_recipe(chain, monkeypatch, capsys):
    train = loop.train

    def too_late(kind, options):
        if kind.name == "stage2":
            raise loop.TooLate("no time")
        train(kind, options)

    monkeypatch.setattr(loop, "train", too_late)
    line = f"--chain finished --deadline {START + 1000}"
    trained, after = chain(line)
    assert [name for name, *_ in trained] == ["single"] and after == [chain.state("single"), "scores"]
    assert capsys.readouterr().out == "no time is left for stage2\n"
    with pytest.raises(loop.TooLate):
        chain("--chain finished --minutes 1 --resume")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "give --minutes or --deadline, or both"),
        ("--deadline soon", "soon is no time: give a time of day, HH:MM or HH:MM:SS, or seconds since the epoch"),
    ],
)
def test_a_budget_has_to_be_given(chain, words, reason):
    with pytest.raises(TitokError, match=reason):
        chain(words)


def test_a_recipe_is_through_with_training_by_its_deadline_and_trains_no_more_after_it(
    tiny_preset, photos, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    until = (datetime.now() + timedelta(seconds=6)).replace(microsecond=0)
    line = (
        f"--data {photos} --val {photos} --out {tmp_path} --deadline {until:%H:%M:%S} --preset tiny --batch 4 "
        "--no-bf16 --no-compile --device cpu"
    )
    recipe.run(*recipe.parse(line.split()))
    state = torch.load(tmp_path / "single" / "state.pt", weights_only=True)
    assert state["step"] > 0 and state["spent"] < 6
    (tmp_path / "scores.json").unlink()
    time.sleep(max(until.timestamp() - time.time(), 0))
    recipe.run(*recipe.parse([*line.split(), "--resume"]))
    assert torch.load(tmp_path / "single" / "state.pt", weights_only=True)["step"] == state["step"]
    assert json.loads((tmp_path / "scores.json").read_text())["psnr/16"] > 4
