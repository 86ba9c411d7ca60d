"""The ablation of the sampler: its metrics by hand, its charts, and the whole command on tiny models."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("matplotlib", reason="figures need matplotlib (pip install .[bench])")

from bench import ablation, plots, tables
from bench.ablation import SWEEPS, class_sheet, settings_of, split
from bench.agreement import IMAGENET, Predictions, agreement, class_masks
from bench.sheet import MARGIN
from tests.conftest import DATA
from tests.metrics.test_lite0 import lite0_state
from tests.models.test_maskgit import build
from titokcodec import generator as generators
from titokcodec.errors import TitokError
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.sampling import Settings
from titokcodec.schedules import SCHEDULES
from titokcodec.weights import tokenizers

NAMES = ("cat", "english-springer", "house")

# ---- agreement --------------------------------------------------------------------------------------------------


def test_masks_are_of_known_classes_and_do_not_overlap():
    masks = class_masks(tuple(IMAGENET))
    assert masks.shape == (16, 1000) and masks.sum(0).max() == 1
    assert masks[list(IMAGENET).index("cat")].nonzero().flatten().tolist() == [281, 282, 283, 284, 285]
    assert masks[list(IMAGENET).index("dog")].sum() == 117
    with pytest.raises(TitokError, match="known for unicorn: list them"):
        class_masks(("cat", "unicorn"))
    assert class_masks(("0", "999")).nonzero().tolist() == [[0, 0], [1, 999]], "ImageNet's own numbers"
    with pytest.raises(TitokError, match="1000"):
        class_masks(("0", "1000"))


MASKS = torch.tensor([[True, True, False, False], [False, False, True, False]])  # the fourth belongs to neither


def test_agreement_by_hand():
    # Summed: (.9, .1), (.6, .4), (.2, .2). Means: of class 0 (.9, .1), of class 1 (.4, .3); of both (.65, .2).
    # Divided: (1.4, .5), (.9, 2), (.3, 1): all correct, which they would not be undivided.
    probabilities = torch.tensor([[0.5, 0.4, 0.1, 0], [0.3, 0.3, 0.4, 0], [0.1, 0.1, 0.2, 0.6]], dtype=torch.float64)
    assert agreement(Predictions(torch.zeros(3, 2), probabilities, torch.tensor([0, 1, 1])), MASKS) == {
        "top1_agreement": pytest.approx((1 + 1 / 2) / 2),
        "class_agreement": pytest.approx(1),
        "top1_by_chance": pytest.approx((1 / 2 + (1 / 2 + 0) / 2) / 2),
    }


def test_a_set_that_always_looks_the_same_agrees_by_chance():
    torch.manual_seed(0)
    labels = torch.arange(4000) % 2
    probabilities = torch.tensor([0.1, 0.1, 0.7, 0.1]) + 0.01 * torch.rand(4000, 4)
    found = agreement(Predictions(torch.zeros(4000, 2), probabilities.double(), labels), MASKS)
    assert found["top1_agreement"] == found["top1_by_chance"] == pytest.approx(1 / 2)
    assert found["class_agreement"] == pytest.approx(1 / 2, abs=0.03)


# ---- settings and sets ------------------------------------------------------------------------------------------


def test_each_setting_comes_once_and_differs_in_one_factor():
    base = Settings()
    found = settings_of(base)
    assert found[0] == ("default", base) and len(found) == len(set(found)) == 12
    for factor, settings in found[1:]:
        assert [name for name in SWEEPS if getattr(settings, name) != getattr(base, name)] == [factor]
    assert {settings.schedule for _, settings in found} == set(SCHEDULES)


def test_sets_do_not_overlap():
    labels = torch.tensor([0] * 10 + [-1] * 5 + [1] * 6)
    compared, reference = split(labels, 2, None, 4, seed=0)
    assert labels[compared].tolist() == [0] * 4 + [1] * 3
    assert labels[reference].tolist() == [0] * 6 + [1] * 3
    assert len({*compared.tolist(), *reference.tolist()}) == 16
    assert not compared.equal(split(labels, 2, None, 4, seed=1)[0])
    held = torch.arange(21) % 2 == 0
    compared, reference = split(labels, 2, held, 4, seed=0)
    assert sorted(reference.tolist()) == [0, 2, 4, 6, 8, 16, 18, 20]
    assert not held[compared].any() and labels[compared].tolist() == [0] * 4 + [1] * 3
    for too_few in (torch.tensor([0, 0, 0, 0, 1]), torch.tensor([-1, -1]), torch.tensor([0, 0, 0, 1, 1, 1])):
        with pytest.raises(TitokError, match="too few labelled pictures"):
            split(too_few, 2, None, 4, seed=0)


def test_the_sheet_has_a_row_a_class(monkeypatch):
    monkeypatch.setattr(ablation, "BATCH", 4)
    batches = (torch.full((4, 3, 8, 8), number / 255) for number in range(9))
    sheet = class_sheet(batches, NAMES, 2)  # six of eight pictures
    assert sheet.size == (MARGIN + 2 * ablation.SIDE, 3 * ablation.SIDE)
    shown = [[sheet.getpixel((MARGIN + x * ablation.SIDE, y * ablation.SIDE))[0] for x in (0, 1)] for y in (0, 1, 2)]
    assert shown == [[0, 0], [0, 1], [0, 1]]
    assert next(batches).max() == 2 / 255, "no more batches are generated than needed"


# ---- the whole command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_path):
    """A generator of three classes for the tiny tokenizer, a stand-in for Lite0, and labelled crops of photographs."""
    path = tmp_path_factory.mktemp("ablation")
    save_file(lite0_state(), path / "lite0.safetensors")
    model = build(GeneratorConfig("bert", 8, codes=64, classes=3, width=32, layers=1, heads=2, mlp=32))
    opened = tokenizers.read(tiny_path)
    generators.save(path / "g.safetensors", model, "tiny g", tokenizer=opened.fingerprint, class_names=NAMES)
    generators.save(path / "nameless.safetensors", model, "nameless")
    (path / "crops").mkdir()
    rows = ["key\tlabel"]
    for name, photo in zip(NAMES, ("chelsea", "astronaut", "coffee"), strict=True):
        picture = Image.open(DATA / f"{photo}.jpg").convert("RGB")
        for i in range(5):
            crop = picture.crop((20 * i, 0, 20 * i + 200, 200)).resize((64, 64))
            crop.save(path / "crops" / f"{name}_{i}.png")
            rows.append(f"{name}_{i}\t{name}")
    (path / "crops" / "unknown.png").write_bytes((path / "crops" / "cat_0.png").read_bytes())
    (path / "labels.tsv").write_text("\n".join(rows) + "\n")
    return path


def run(folder, tiny_path, *more, generator="g.safetensors", out="out"):
    files = {"generator": generator, "data": "crops", "labels": "labels.tsv", "lite0": "lite0.safetensors", "out": out}
    line = ["--model", str(tiny_path), "--device", "cpu"]
    for option, name in files.items():
        line += [f"--{option}", str(folder / name)]
    ablation.main([*line, *more])
    return json.loads((folder / out / "ablation.json").read_text())


@pytest.fixture(scope="module")
def found(folder, tiny_path):
    """Two samples a class."""
    return run(folder, tiny_path, "--samples", "7")


def test_protocol(found, folder, tiny_path):
    about = found["protocol"]
    assert about["tokenizer_fingerprint"] == tokenizers.read(tiny_path).fingerprint.hex()
    made = generators.Generator.from_pretrained(folder / "g.safetensors", device="cpu")
    assert about["generator_fingerprint"] == made.fingerprint.hex()
    assert (about["tokens"], about["classes"], about["seed"], about["device"]) == (8, list(NAMES), 0, "cpu")
    assert (about["samples"], about["compared"], about["yardstick"], about["reference"]) == (6, 6, 6, 9)
    assert (about["pictures"], about["labelled"], about["skipped"], about["held_out_by_name"]) == (16, 15, 0, False)


def test_every_setting_has_every_metric(found):
    assert [(row["factor"], row["schedule"], row["steps"], row["guidance_scale"]) for row in found["settings"]] == [
        (factor, s.schedule, s.steps, s.guidance_scale) for factor, s in settings_of(Settings())
    ]
    for row in [*found["settings"], found["yardsticks"]["real"], found["yardsticks"]["tokenizer"]]:
        assert row["fd"] > 0
        assert all(0 <= row[name] <= 1 for name in ("precision", "recall", "top1_agreement", "top1_by_chance"))
        assert row["class_agreement"] * 6 == pytest.approx(round(row["class_agreement"] * 6), abs=1e-3)
    assert len({row["fd"] for row in found["settings"]}) > 8, "settings give different pictures"
    # Crops of the same photographs, and a network however random.
    marks = found["yardsticks"]
    assert marks["real"]["fd"] < min(marks["tokenizer"]["fd"], *(row["fd"] for row in found["settings"]))
    assert marks["real"]["precision"] > 0.5
    assert marks["chance"] == {"class_agreement": 0.3333, "top1_agreement": marks["real"]["top1_by_chance"]}


@pytest.fixture
def few_settings(monkeypatch):
    sweeps = {"schedule": ("arccos",), "steps": (1, 8), "guidance_scale": (4.5,)}
    monkeypatch.setattr(ablation, "SWEEPS", sweeps)


def test_another_run_gives_the_same(found, folder, tiny_path, few_settings):
    again = run(folder, tiny_path, "--samples", "6", out="again")
    assert len(again["settings"]) == 2 and all(row in found["settings"] for row in again["settings"])
    assert {**again, "settings": found["settings"]} == found


def test_the_figure_and_the_grid(found, folder):
    axes = plots.sweeps(found, ablation.METRICS, SWEEPS).axes
    assert len(axes) == len(ablation.METRICS) * 3
    assert [panel.get_title(loc="left") for panel in axes[::3]] == [*ablation.METRICS.values()]
    assert [panel.get_xlabel() for panel in axes[:3]] == ["schedule", "steps", "guidance scale"]
    steps = [row for row in found["settings"] if row["factor"] in ("steps", "default")]
    assert list(axes[1].lines[0].get_ydata()) == [row["fd"] for row in sorted(steps, key=lambda row: row["steps"])]
    assert axes[0].patches[0].get_height() == steps[0]["fd"]
    written = (folder / "out" / "ablation.svg").read_text(encoding="utf-8")
    for label in (*ablation.METRICS.values(), *SCHEDULES, "16", "4.5", "chance 0.333"):
        assert f">{label}<" in written
    assert Image.open(folder / "out" / "samples.png").size == (MARGIN + 2 * ablation.SIDE, 3 * ablation.SIDE)


def test_the_table(found, monkeypatch, folder):
    monkeypatch.setattr(tables, "RESULTS", folder / "out")
    text = tables.TABLES["ablation"]()
    assert len(text.splitlines()) == 2 + 12 + 3 + 2
    assert "| arccos, 8 steps, guidance 4.5 (default) |" in text and "| guidance scale 7 |" in text
    assert "| schedule root |" in text and "| *chance* | - | - | - | 0.333 |" in text
    assert "6 pictures of 3 classes" in text and "compare 6 with 9 real ones" in text


def test_pictures_that_training_held_out(folder, tiny_path, few_settings, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "is_held_out", lambda key: key[-1] in "34")
    found = run(folder, tiny_path, "--samples", "12", "--held-out", out="held")
    about = found["protocol"]
    assert (about["samples"], about["compared"], about["yardstick"], about["reference"]) == (12, 9, 9, 6)
    assert "9 of the samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["--samples", "2"], {}, "2 samples are too few for 3 named classes"),
        (["--samples", "3"], {}, "and 4 in all"),
        ([], {"generator": "nameless.safetensors"}, "nameless has no names of classes"),
        (["--temperature", "-1"], {}, "temperature is -1"),
        (["--model", str(DATA / "lost.safetensors")], {}, "lost.safetensors"),
        (["--lite0", str(DATA / "tiny.safetensors")], {}, "of another network: it lacks"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, options, message, folder, tiny_path):
    with pytest.raises(TitokError, match=message) as caught:
        run(folder, tiny_path, *arguments, **options)
    assert "\n" not in str(caught.value)
