"""The ablation of the sampler: its rows, its chart and table, and the whole command on tiny models."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("matplotlib", reason="figures need matplotlib (pip install .[bench])")

from bench import ablation, plots, sweeps, tables
from bench.ablation import Row, class_sheet, generated
from bench.sheet import MARGIN
from bench.sweeps import SWEEPS, chosen, rows_of, settings_of
from tests.conftest import DATA
from tests.metrics.test_lite0 import LITE, inception_state, lite0_state, published_state
from tests.models.test_maskgit import build
from titokcodec import generator as generators
from titokcodec.errors import TitokError
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.sampling import Settings
from titokcodec.schedules import SCHEDULES
from titokcodec.weights import tokenizers

NAMES = ("cat", "english-springer", "sunset")

# ---- rows -------------------------------------------------------------------------------------------------------


def test_each_setting_comes_once_and_differs_in_one_factor():
    base = Settings()
    rows = rows_of(base, (8, 16, 32))
    first, *others = rows
    assert (first.name, first.tokens, first.settings) == ("default", 32, base)
    assert len({(row.tokens, row.settings) for row in rows}) == len({row.name for row in rows}) == len(rows)
    assert [row.tokens for row in rows if row.factor == "tokens"] == [8, 16]
    for row in others:
        changed = {name for name in row.about if row.about[name] != first.about[name]} - {"factor"}
        assert changed == {row.factor}
    assert {row.settings.schedule for row in rows} == set(SCHEDULES)
    assert "steps=4" in {row.name for row in rows}


def test_autoregressive_generators_have_no_schedule():
    factors = {row.factor for row in rows_of(Settings(), (32,), causal=True)}
    assert "guidance_scale" in factors and not factors & {"steps", "schedule", "tokens"}


def test_fewer_tokens_can_be_the_default():
    rows = rows_of(Settings(), (8, 16, 32), tokens=8)
    assert rows[0].tokens == 8 and [row.tokens for row in rows if row.factor == "tokens"] == [16, 32]
    assert not [row for row in rows if row.factor == "fine_temperature"]  # there are no fine tokens
    assert {row.tokens for row in rows if row.factor == "steps"} == {8}


def test_some_rows_alone():
    rows = rows_of(Settings(), (8, 32))
    assert [row.name for row in chosen(rows, ["steps=4", "tokens", "default"])] == ["default", "tokens=8", "steps=4"]
    assert chosen(rows, None) == rows
    with pytest.raises(TitokError, match="no rows are called step, colour=5: give some of default, tokens, steps, "):
        chosen(rows, ["step", "steps=4", "colour=5"])
    with pytest.raises(TitokError, match=r"no rows are called steps=4: give .*, or a value, as top_p=0\.95"):
        chosen(rows_of(Settings(), (8, 32), causal=True), ["steps=4"])


def test_any_value_is_a_row():
    """However it is written, and whether it is one of the usual ones or not; that of the default is the default."""
    rows = rows_of(Settings(top_p=0.9), (8, 32))
    words = [
        "guidance_interval=0,0.5",
        "steps=3",
        "guidance=cosine",
        "guidance_scale=3",
        "guidance_scale=4.50",
        "tokens=8",
    ]
    found = chosen(rows, [*words, "guidance_interval=0-.5", "steps=3", "top_p=1"])
    assert [(row.factor, row.about.get(row.factor)) for row in found] == [
        ("default", None),
        ("tokens", 8),
        ("steps", 3),
        ("guidance_scale", 3),
        ("guidance", "cosine"),
        ("guidance_interval", (0.0, 0.5)),
        ("top_p", 1),
    ]
    for word, said in (
        ("tokens=9", "give 8 or 32"),
        ("steps=0", "steps is 0"),
        ("guidance=x", "guidance is 'x'"),
        ("top_p=", "no setting"),
    ):
        with pytest.raises(TitokError, match=said):
            chosen(rows, [word])


def test_other_defaults():
    found = settings_of(["steps=4", "guidance=constant", "guidance_interval=[0, 0.5]"], Settings(guidance_scale=2))
    assert found == Settings(4, 2, "constant", guidance_interval=(0, 0.5))
    assert settings_of([], Settings(9)) == Settings(9)
    for word, message in (("step=4", "step=4 is no setting"), ("steps", "steps is no"), ("steps=0", "steps is 0")):
        with pytest.raises(TitokError, match=message):
            settings_of([word], Settings())


def test_numbers_of_tokens_are_asked_of_the_generator():
    class Recorder:
        config = GeneratorConfig("bert", 8, codes=64, classes=3)

        def sample(self, labels, **options):
            calls.append((labels.tolist(), options))
            return labels

    class Plain:
        def decode(self, tokens):
            return tokens

    labels, clock, calls = torch.arange(40) % 3, [], []
    for tokens in (4, 8):
        assert torch.cat([*generated(Recorder(), Plain(), Row("", tokens, Settings()), labels, 5, clock)]).equal(labels)
    assert [len(labels) for labels, _ in calls] == [32, 8] * 2 and len(clock) == 4
    assert [options.get("tokens") for _, options in calls] == [4, 4, 8, 8]
    seeds = [options["seed"] for _, options in calls]
    assert seeds[:2] == seeds[2:] and seeds[0] != seeds[1], "the same noise for all settings"


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
def few_settings():
    with pytest.MonkeyPatch.context() as patch:
        few = {"tokens": (), "steps": (1, 8), "schedule": ("root",)}
        patch.setattr(sweeps, "SWEEPS", few)
        patch.setattr(ablation, "SWEEPS", few)
        patch.setattr(ablation, "COLUMNS", 2)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_path, few_settings):
    """A generator of three classes for the tiny tokenizer, stand-ins for Lite0 and Lite1, and labelled crops of
    photographs."""
    path = tmp_path_factory.mktemp("ablation")
    save_file(lite0_state(), path / "lite0.safetensors")
    torch.save(published_state(*LITE[1][:2]), path / "lite1.pth")
    model = build(GeneratorConfig("bert", 8, codes=64, classes=3, width=32, layers=1, heads=2, mlp=32))
    opened = tokenizers.read(tiny_path)
    generators.save(path / "g.safetensors", model, "tiny g", tokenizer=opened.fingerprint, class_names=NAMES)
    generators.save(path / "nameless.safetensors", model, "nameless")
    (path / "crops").mkdir()
    rows = ["key\tlabel"]
    for name, photo in zip(NAMES, ("chelsea", "astronaut", "coffee"), strict=True):
        picture = Image.open(DATA / f"{photo}.jpg").convert("RGB")
        for i in range(8):
            crop = picture.crop((12 * i, 0, 12 * i + 200, 200)).resize((64, 64))
            crop.save(path / "crops" / f"{name}_{i}.png")
            rows.append(f"{name}_{i}\t{name}")
    (path / "crops" / "unknown.png").write_bytes((path / "crops" / "cat_0.png").read_bytes())
    (path / "labels.tsv").write_text("\n".join(rows) + "\n")
    return path


def run(folder, tiny_path, *more, generator="g.safetensors", out="out", lite0="lite0.safetensors"):
    files = {"generator": generator, "data": "crops", "labels": "labels.tsv", "lite0": lite0, "out": out}
    line = ["--model", str(tiny_path), "--device", "cpu", "--seeds", "2", "--each", "2", "--fit", "3"]
    for option, name in files.items():
        line += [f"--{option}", str(folder / name)]
    ablation.main([*line, *more])
    return json.loads((folder / out / "ablation.json").read_text())


@pytest.fixture(scope="module")
def found(folder, tiny_path):
    """Two samples a class and set."""
    return run(folder, tiny_path, "--classifier", str(folder / "lite1.pth"))


def test_protocol(found, folder, tiny_path):
    about = found["protocol"]
    assert about["tokenizer_fingerprint"] == tokenizers.read(tiny_path).fingerprint.hex()
    made = generators.Generator.from_pretrained(folder / "g.safetensors", device="cpu")
    assert about["generator_fingerprint"] == made.fingerprint.hex()
    assert (about["tokens"], about["classes"], about["seeds"], about["device"]) == (8, list(NAMES), [0, 1], "cpu")
    assert (about["samples"], about["reference"], about["fitted"]) == (12, 6, 6)
    assert (about["pictures"], about["labelled"], about["held_out_by_name"]) == (25, 24, False)
    assert (about["judge"], about["unlisted"]) == ("EfficientNet-Lite1", ["sunset"])


def test_every_setting_has_every_metric(found):
    assert [row["factor"] for row in found["settings"]] == ["default", "steps", "schedule"]
    assert [row["steps"] for row in found["settings"]] == [8, 1, 8] and found["settings"][2]["schedule"] == "root"
    shares = [f"{name}{end}" for name in ("class_agreement", "top1_agreement") for end in ("", "_lite0")]
    marks = found["yardsticks"]
    for row in [*found["settings"], marks["real"], marks["8 tokens"]]:
        assert row["fd"] > 0 and all(0 <= row[name] <= 1 for name in ("precision", "recall", *shares))
        for metric in ("fd", *shares):
            low, high = row["intervals"][metric]
            assert low <= row[metric] <= high and len(row["values"][metric]) == 2
            assert row[metric] == pytest.approx(sum(row["values"][metric]) / 2, abs=1e-4)
    assert len({row["fd"] for row in found["settings"]}) == 3, "settings give different pictures"
    # Crops of the same photographs, and networks however random.
    assert marks["real"]["fd"] < min(marks["8 tokens"]["fd"], *(row["fd"] for row in found["settings"]))
    assert min(marks["real"]["class_agreement"], marks["real"]["class_agreement_lite0"]) > 0.5
    assert marks["chance"]["class_agreement"] == marks["chance"]["class_agreement_lite0"] == 0.3333
    assert marks["chance"]["top1_agreement"] == marks["real"]["top1_by_chance"]


def test_a_run_goes_on_where_it_was(found, folder, tiny_path, capsys, monkeypatch):
    """Row by row, what is measured is not measured again, and the whole is the same."""
    classifier = ["--classifier", str(folder / "lite1.pth")]
    part = run(folder, tiny_path, *classifier, "--rows", "schedule", out="again")
    assert [row["factor"] for row in part["settings"]] == ["schedule"]
    measured = []
    whole = ablation.Ablation.row
    monkeypatch.setattr(ablation.Ablation, "row", lambda self, row: measured.append(row.name) or whole(self, row))
    again = run(folder, tiny_path, *classifier, "--rows", "schedule", "default", "steps=1", out="again")
    assert measured == ["default", "steps=1"]
    for row in (*again["settings"], *found["settings"]):
        row.pop("milliseconds", None)
    assert again == found
    assert [json.loads(line)["factor"] for line in capsys.readouterr().out.splitlines()[-3:]] == [
        "default",
        "steps",
        "schedule",
    ]
    with pytest.raises(TitokError, match="is of another run, which differs in judge, seeds: give another --out"):
        run(folder, tiny_path, "--seed", "7", out="again")


def test_the_figure_and_the_grid(found, folder):
    axes = [panel for panel in plots.sweeps(found, ablation.METRICS, SWEEPS).axes if panel.get_xlabel()]
    assert len(axes) == len(ablation.METRICS) * 2
    assert [panel.get_title(loc="left") for panel in axes[::2]] == [*ablation.METRICS.values()]
    assert [panel.get_xlabel() for panel in axes[:2]] == ["steps", "schedule"]
    steps = sorted((row for row in found["settings"] if row["factor"] != "schedule"), key=lambda row: row["steps"])
    assert list(axes[0].lines[0].get_ydata()) == [row["fd"] for row in steps]
    assert axes[1].patches[0].get_height() == found["settings"][0]["fd"]
    ends = axes[0].collections[0].get_segments()
    assert [end[:, 1].tolist() for end in ends] == [pytest.approx(row["intervals"]["fd"]) for row in steps]
    written = (folder / "out" / "ablation.svg").read_text(encoding="utf-8")
    for label in (*ablation.METRICS.values(), "arccos", "root", "1", "chance 0.333"):
        assert f">{label}<" in written
    assert Image.open(folder / "out" / "samples.png").size == (MARGIN + 2 * ablation.SIDE, 3 * ablation.SIDE)


def test_the_table(found, monkeypatch, folder):
    monkeypatch.setattr(tables, "RESULTS", folder / "out")
    text = tables.TABLES["ablation"]()
    lines = text.splitlines()
    assert len(lines) == 2 + 3 + 3 + 2
    low, high = found["settings"][0]["intervals"]["fd"]
    fd = f"{found['settings'][0]['fd']:.1f} ± {(high - low) / 2:.1f}"
    assert f"| 8 tokens, arccos, 8 steps, linear guidance 4.5 (default) | {fd} |" in text
    assert "| steps 1 |" in text and "| *real pictures, 8 tokens* |" in text and "| *chance* | - | 0.333 |" in text
    assert "tiny g: 12 pictures of 3 classes a row, in 2 sets of 6" in text and "EfficientNet-Lite1 judges" in text


def test_pictures_that_training_held_out(folder, tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "is_held_out", lambda key: key[-1] in "34")
    run(folder, tiny_path, "--held-out", "--rows", "default", out="held")
    assert not (folder / "held/ablation.svg").exists()  # there is nothing to compare
    found = run(folder, tiny_path, "--held-out", "--rows", "steps=2", out="other")
    assert {"real", "8 tokens", "chance"} == set(found["yardsticks"])  # though nothing is compared with the default
    found = run(folder, tiny_path, "--held-out", "--rows", "default", "steps", out="held")
    assert (folder / "held/ablation.svg").exists()
    about = found["protocol"]
    assert (about["samples"], about["reference"], about["judge"]) == (12, 6, "EfficientNet-Lite0")
    assert not any("lite0" in name for name in found["settings"][0])
    said = capsys.readouterr().err
    assert "12 samples a row mean little" in said and "ImageNet has no sunset" in said
    assert "row 2 of 2, steps=1: 12 pictures" in said


def test_inception_gives_fid_and_its_score(folder, tiny_path):
    torch.save(inception_state(), folder / "inception.pth")
    line = ["--inception", str(folder / "inception.pth"), "--rows", "default", "steps", "--seeds", "1"]
    found = run(folder, tiny_path, *line, out="inception")
    for row in (*found["settings"], found["yardsticks"]["real"]):
        assert row["fid"] > 0 and 1 <= row["inception_score"] <= 6 and row["intervals"] == {}
    shutil.rmtree(folder / "inception")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["--seeds", "9"], {}, "too few pictures of cat, 8"),
        (["--seeds", "11"], {}, "--seeds is 11: give 10 at most"),
        ([], {"generator": "nameless.safetensors"}, "nameless has no names of classes"),
        (["--base", "temperature=-1"], {}, "temperature is -1"),
        (["--rows", "colour"], {}, "no rows are called colour"),
        (["--model", str(DATA / "lost.safetensors")], {}, "lost.safetensors"),
        ([], {"lite0": "lite1.pth"}, "of another network: it has unknown tensors"),
        (["--classifier", str(DATA / "tiny.safetensors")], {}, "of another network: it lacks"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, options, message, folder, tiny_path):
    with pytest.raises(TitokError, match=message) as caught:
        run(folder, tiny_path, *arguments, **options, out="wrong")
    assert "\n" not in str(caught.value)
