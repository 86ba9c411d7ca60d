"""The whole rate-distortion benchmark on four pictures and the tiny model, and its parts by brute force."""

import io
import json
import shutil
import stat
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import titokcodec
from bench import equal, rate_distortion, refresh, report, rivals
from bench.intervals import bootstrap, wilson, win_rate
from bench.measure import Case, measure_all, measure_case
from bench.originals import cropped, read
from bench.ours import Entrant, entrants, slug
from bench.records import write
from bench.rivals import COMMANDS, LARGER_SIDES, RawThumbnails, from_planes, pack, to_planes, unpack
from bench.thumbnails import FORMATS, SIDES, Thumbnails, reduced
from tests.conftest import DATA
from tests.metrics.test_lite0 import lite0_state
from tests.metrics.test_lpips import lpips_file
from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from titokcodec.metrics import grain
from titokcodec.metrics.scores import METRICS, Judge, as_tensor

BUDGETS = (100, 400)
SETS = {"fd-lite0", "top1-agreement"}
RATES = {"bpp", "bytes", "payload_bytes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four pictures of several sizes and shapes."""
    path = tmp_path_factory.mktemp("pictures")
    for name, size in (("astronaut", (256, 256)), ("chelsea", (300, 200)), ("coffee", (128, 180))):
        Image.open(DATA / f"{name}.jpg").convert("RGB").resize(size).save(path / f"{name}.png")
    Image.open(DATA / "coffee.jpg").convert("L").resize((256, 256)).save(path / "grey.png")
    return path


@pytest.fixture(scope="module")
def light():
    """Formats at settings that take little time: what they are set to is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "QUALITIES", (0, 20))
        patch.setattr(rivals, "SIDES", (8, 24, 64))
        patch.setattr(rivals, "LARGER_SIDES", (192,))
        patch.setattr(rivals, "DEPTHS", (2, 4))
        patch.setitem(rivals.CODERS, "avif", replace(FORMATS["avif"], options={"speed": 10, "max_threads": 1}))
        jxl = {**FORMATS["jxl"].options, "effort": 3}
        patch.setitem(rivals.CODERS, "jxl", replace(FORMATS["jxl"], options=jxl))
        yield


@pytest.fixture(scope="module")
def command(folder, tiny_path, light, tmp_path_factory):
    """Runs the benchmark; gives the folder that it leaves."""
    networks = tmp_path_factory.mktemp("networks")
    save_file(lite0_state(), networks / "lite0.safetensors")

    def run(*more):
        out = tmp_path_factory.mktemp("out")
        given = f"--images {folder} --out {out} --model {tiny_path} --lite0 {networks / 'lite0.safetensors'}"
        settings = "--device cpu --workers 1 --effort 0 --gallery 1 --extremes 1"
        rate_distortion.main([*given.split(), *settings.split(), *more])
        return out

    return run


@pytest.fixture(scope="module")
def result(command):
    """The folder of one run with every method."""
    return command("--budgets", *map(str, BUDGETS))


def methods(out):
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*-*.json")}


def protocol(out):
    return json.loads((out / "protocol.json").read_text())


def curves(paths):
    """What CompressAI's plot does with result files: each metric of each method as points over ``bpp``."""
    for path in paths:
        found = json.loads(path.read_text())
        results = found["results"]
        for metric in (name for name in results if name != "bpp"):
            yield found["name"], metric, list(zip(results["bpp"], results[metric], strict=True))


def test_files_are_in_compressai_schema(result):
    found = methods(result)
    usable = {name for name in ("jpeg", "webp", "avif", "jxl") if name not in protocol(result)["skipped"]}
    assert found.keys() == {"titok-tiny", "raw-thumbnail"} | {
        f"{name}-{use}" for name in usable for use in ("native", "thumbnail")
    }
    metrics = set(protocol(result)["metrics"])
    for name, _, points in curves(result.glob("*-*.json")):
        assert name and points and all(a[0] <= b[0] for a, b in pairwise(points))
    for method in found.values():
        assert method["results"].keys() == RATES | metrics
        assert method["kind"] in ("titok", "native", "thumbnail") and method["description"]
        assert len({len(values) for values in method["results"].values()}) == 1
        assert len(method["points"]) == len(method["results"]["bpp"])


def test_skipped_metrics_and_tools_are_named(result):
    found = protocol(result)
    assert "--lpips" in found["skipped"]["lpips-squeeze"] and "bpgenc" in found["skipped"]["bpg"]
    assert found["skipped"].keys() | found["metrics"].keys() >= METRICS.keys()
    assert not found["skipped"].keys() & found["metrics"].keys()
    assert "psnr-rgb" in found["chooser"]


def test_protocol_has_what_to_repeat(result, codec):
    found = protocol(result)
    assert [picture["name"] for picture in found["pictures"]] == [
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "grey.png",
    ]
    assert all(len(picture["sha256"]) == 64 and picture["width"] == 256 for picture in found["pictures"])
    model = found["models"][0]
    assert model["fingerprint"] == codec.weights.fingerprint.hex() and model["effort"] == {"auto": 0}
    assert model["weights_bytes"] == (DATA / "tiny.safetensors").stat().st_size
    assert {"crop", "versions", "commit", "date", "formats"} <= found.keys()


def test_points_are_means_of_their_pictures(result):
    for method in methods(result).values():
        for number, point in enumerate(method["points"]):
            for name, values in point["values"].items():
                reached = [value for value in values if value is not None]
                assert len(values) == 4 and len(reached) == point["pictures"]
                mean = method["results"][name][number]
                assert mean == pytest.approx(np.mean(reached), abs=6e-3)
                low, high = point["intervals"][name]
                assert low - 1e-5 <= mean <= high + 1e-5
            whole = method["results"]["fd-lite0"][number] is not None
            assert whole == (point["pictures"] == 4), "distances of other pictures, or of fewer, do not compare"


def test_no_file_is_over_its_budget(result, codec):
    ceilings = {Entrant(codec, "tiny").ceiling(count) for count in (8, 16)}
    seen = set()
    for method in methods(result).values():
        for point in method["points"]:
            if method["kind"] == "thumbnail":
                budget = int(point["label"].removeprefix("budget "))
                seen.add(budget)
                assert all(size is None or size <= budget for size in point["values"]["bytes"])
                assert all(size <= budget for size in point["mean_bytes"].values())
                assert all(len(choices) == 4 for choices in point["chosen"].values())
    assert seen == {*BUDGETS, *ceilings}


def test_titok_is_measured_through_whole_files(result, folder, codec):
    point = methods(result)["titok-tiny"]["points"][0]
    assert point["label"] == "8 tokens"
    picture = cropped(Image.open(folder / "chelsea.png"))
    data = codec.compress(picture, tokens=8, effort=0)
    assert point["values"]["bytes"][1] == len(data)
    assert point["values"]["payload_bytes"][1] == titokcodec.info(data).payload
    mse = np.mean((np.asarray(codec.decompress(data)).astype(float) - np.asarray(picture)) ** 2)
    assert point["values"]["psnr-rgb"][1] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)


def test_win_rates(result):
    rows = json.loads((result / "wins.json").read_text())
    known = methods(result)
    for row in rows:
        assert row["pictures"] + row["without"] == 4
        if row["pictures"]:
            low, high = row["interval"]
            assert 0 <= low <= row["rate"] <= high <= 1
            assert row["metric"] not in SETS
    row = next(row for row in rows if row["rival"] == "raw-thumbnail" and row["metric"] == "psnr-rgb")
    ours = next(p for p in known[row["titok"]]["points"] if p["label"] == row["label"])["values"]["psnr-rgb"]
    theirs = next(p for p in known[row["rival"]]["points"] if p["label"] == row["budget"])["values"]["psnr-rgb"]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None]
    assert row["rate"] == np.mean([a > b for a, b in pairs])


def test_gallery_lists_pictures_that_are_there(result):
    rows = json.loads((result / "gallery" / "gallery.json").read_text())
    assert [row["why"] for row in rows] == ["first", "worst", "best"]
    psnr = methods(result)["titok-tiny"]["points"][-1]["values"]["psnr-rgb"]
    names = [picture["name"] for picture in protocol(result)["pictures"]]
    assert [row["name"] for row in rows[1:]] == [names[np.argmin(psnr)], names[np.argmax(psnr)]]
    for row in rows:
        labels = [shown["label"] for shown in row["shown"] if shown["method"] == "titok"]
        assert labels == ["8 tokens", "16 tokens"]
        assert Image.open(result / "gallery" / row["original"]).size == (256, 256)
        for shown in row["shown"]:
            assert Image.open(result / "gallery" / shown["file"]).size == (256, 256)
            assert shown["bytes"] < 60 and "psnr-rgb" in shown


def test_the_same_again(result, command):
    """To the byte, whatever other rivals take part."""
    again = command("--budgets", *map(str, BUDGETS), "--methods", "webp", "raw")
    names = {str(path.relative_to(again)) for path in again.rglob("*.*")}
    originals = {name for name in names if "original" in name}
    assert {"titok-tiny.json", "webp-native.json", "webp-thumbnail.json", "raw-thumbnail.json"} <= names and originals
    for name in originals | {name for name in names if name.startswith(("titok", "webp", "raw"))}:
        assert (result / name).read_bytes() == (again / name).read_bytes(), name
    for part in ("pictures", "models", "metrics", "versions"):
        assert protocol(result)[part] == protocol(again)[part]


def test_whole_pictures_at_their_own_size(command):
    out = command("--size", "full", "--limit", "2", "--methods", "webp-thumbnail", "raw", "--budgets", "300")
    found = methods(out)
    assert found.keys() == {"titok-tiny-fit", "titok-tiny-tile", "webp-thumbnail", "raw-thumbnail"}
    took = {
        f"bytes of {name} at {point['label']}": point["values"]["bytes"]
        for name, method in found.items()
        for point in method["points"]
        if method["kind"] == "titok"
    }
    assert len(took) == 4
    for name in ("webp-thumbnail", "raw-thumbnail"):
        points = {point["label"]: point["values"]["bytes"] for point in found[name]["points"]}
        assert "budget 300" in points and points.keys() <= {*took, "budget 300"}
        assert all(
            size is None or size <= most
            for label in points.keys() & took
            for size, most in zip(points[label], took[label], strict=True)
        )
    area = protocol(out)["pictures"][1]
    assert (area["width"], area["height"]) == (300, 200)
    assert "ms-ssim-rgb" not in protocol(out)["skipped"]
    assert json.loads((out / "gallery" / "gallery.json").read_text())[0]["shown"][0]["label"] == "8 tokens, fit"


TARGETS = (30, 300, 900)


@pytest.fixture(scope="module")
def targeted(command):
    """The folder of a run for numbers of bytes, of which the last are more than one tile can use."""
    return command("--size", "full", "--limit", "2", "--methods", "raw", "--targets", *map(str, TARGETS))


def test_files_for_given_bytes(targeted, folder, codec):
    found = methods(targeted)
    assert found.keys() == {"titok-tiny-target", "raw-thumbnail"}
    ours = found["titok-tiny-target"]
    assert [point["label"] for point in ours["points"]] == [f"{target} bytes" for target in TARGETS]
    for target, point in zip(TARGETS, ours["points"], strict=True):
        assert point["values"]["bytes"] == [
            len(codec.compress(path, target_bytes=target, effort=0)) for path in sorted(folder.iterdir())[:2]
        ]
        assert max(point["values"]["bytes"]) <= target
    assert ours["results"]["bytes"][1] == ours["results"]["bytes"][2] < 300, "no more than the pictures can use"
    assert protocol(targeted)["models"][0]["target_bytes"] == [*TARGETS]
    assert protocol(targeted)["models"][0]["effort"] == {"target": 0} and "compared" not in protocol(targeted)


def test_rivals_of_given_bytes_may_have_just_as_many(targeted):
    raw = methods(targeted)["raw-thumbnail"]
    assert [point["label"] for point in raw["points"]] == [f"budget {target}" for target in TARGETS]
    for target, point in zip(TARGETS, raw["points"], strict=True):
        assert 0.8 * target < max(point["values"]["bytes"]) <= target, "whatever titok took"
    rows = json.loads((targeted / "wins.json").read_text())
    told = {(row["label"], row["budget"], row["metric"]) for row in rows}
    metrics = protocol(targeted)["metrics"].keys() - SETS
    assert told == {(f"{target} bytes", f"budget {target}", metric) for target in TARGETS for metric in metrics}
    assert {(row["titok"], row["rival"], row["pictures"]) for row in rows} == {
        ("titok-tiny-target", "raw-thumbnail", 2)
    }


def test_what_is_made_of_given_bytes_can_be_shown(targeted):
    rows = json.loads((targeted / "gallery" / "gallery.json").read_text())
    shown = [(version["method"], version["label"].split(", ")[-1]) for version in rows[0]["shown"]]
    assert shown[:3] == [("titok", f"{target} bytes") for target in TARGETS]
    assert ("raw-thumbnail", "budget 900") in shown
    page = report.page(targeted)
    assert "titok tiny target" in page and all(f"budget {target}" in page for target in TARGETS)
    found = equal.target_rows(targeted)
    assert [(row.pictures, row.number, row.most) for row in found] == [(2, target, target) for target in TARGETS]
    assert found[0].verdicts["psnr-rgb"].rival == "Raw thumbnail"


def test_given_bytes_beside_a_layout(command):
    out = command("--size", "full", "--limit", "1", "--methods", "raw", "--targets", "60", "--layouts", "fit")
    found = methods(out)
    assert found.keys() == {"titok-tiny-fit", "titok-tiny-target", "raw-thumbnail"}
    assert {point["label"] for point in found["raw-thumbnail"]["points"]} == {
        "budget 60",
        "bytes of titok-tiny-fit at 8 tokens",
        "bytes of titok-tiny-fit at 16 tokens",
    }
    model = protocol(out)["models"][0]
    assert (model["tokens"], model["target_bytes"]) == ([8, 16], [60])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "400"], "--targets is for whole pictures: give --size full"),
        (["--layouts", "fit"], "--layouts is for whole pictures"),
        (["--score-side", "64"], "--score-side is for whole pictures"),
        (["--size", "full", "--layouts"], "nothing of titok's is to be measured: give --layouts or --targets"),
        (["--size", "full", "--targets", "0"], "--targets: 0 is no whole number from 1 on"),
        (["--size", "full", "--score-side", "0"], "--score-side: 0 is no whole number from 1 on"),
    ],
)
def test_options_of_whole_pictures(command, options, message):
    with pytest.raises(UsageError, match=message):
        command(*options)


def test_large_pictures_are_compared_at_a_smaller_size(command, folder, codec):
    out = command("--size", "full", "--score-side", "192", "--limit", "3", "--methods", "raw", "--targets", "40")
    found, about = methods(out), protocol(out)
    sizes = [(picture["width"], picture["height"]) for picture in about["pictures"]]
    assert sizes == [(256, 256), (300, 200), (128, 180)], "their own"
    assert "reduces them to 192" in about["compared"] and "max_side=192" in about["compared"]
    point = found["titok-tiny-target"]["points"][0]
    data = codec.compress(folder / "chelsea.png", target_bytes=40, effort=0)
    assert point["values"]["bytes"][1] == len(data), "compressed whole"
    small = Image.open(folder / "chelsea.png").resize((192, 128), Image.Resampling.LANCZOS)
    mse = np.mean((np.asarray(codec.decompress(data, max_side=192)).astype(float) - np.asarray(small)) ** 2)
    assert point["values"]["psnr-rgb"][1] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-3)
    for method in found.values():
        took = method["points"][0]["values"]["bytes"]
        rates = [8 * size / (width * height) for size, (width, height) in zip(took, sizes, strict=True)]
        assert method["results"]["bpp"][0] == pytest.approx(np.mean(rates), abs=1e-6), "of the true size"
    for row in json.loads((out / "gallery" / "gallery.json").read_text()):
        for file in (row["original"], *(shown["file"] for shown in row["shown"])):
            assert max(Image.open(out / "gallery" / file).size) in (192, 180)


def test_a_method_without_any_file_is_named(command):
    out = command("--limit", "2", "--methods", "jpeg-thumbnail", "--budgets")
    assert methods(out).keys() == {"titok-tiny"}
    assert "none of its files fits" in protocol(out)["skipped"]["jpeg-thumbnail"]


def test_files_of_an_earlier_run_are_not_left_among_those_of_this_one(command, tmp_path):
    for name in ("webp", "raw"):
        out = command("--limit", "1", "--methods", f"{name}-thumbnail", "--budgets", "400", "--out", str(tmp_path))
        (tmp_path / "not-ours.json").write_text("{}")
    assert methods(tmp_path).keys() == {"titok-tiny", "raw-thumbnail", "not-ours"} and not any(out.iterdir())


@pytest.mark.parametrize("content", ["{}", "[]", '{"methods": [3], "models": []}', "not JSON"])
def test_a_folder_of_something_else_is_left_alone(command, tmp_path, content):
    """Said before anything is measured."""
    (tmp_path / "protocol.json").write_text(content)
    with pytest.raises(TitokError, match=r"protocol\.json"):
        command("--out", str(tmp_path))
    with pytest.raises(TitokError, match="cannot be made"):
        command("--out", str(tmp_path / "protocol.json"))
    assert [path.read_text() for path in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize(
    ("option", "least"),
    [
        ("every", 1),
        ("limit", 1),
        ("workers", 1),
        ("budgets", 1),
        ("tokens", 1),
        ("effort", 0),
        ("gallery", 0),
        ("extremes", 0),
    ],
)
@pytest.mark.parametrize("value", ["{}", "x", "0.5"])
def test_numbers_that_make_no_sense_are_named(command, option, least, value):
    value = value.format(least - 1)
    with pytest.raises(TitokError, match=f"--{option}: {value} is no whole number from {least} on"):
        command(f"--{option}", value)


def test_metrics_that_need_larger_pictures_are_left_out(photo, tmp_path):
    path = lpips_file(tmp_path)
    sides = {
        "ms-ssim-rgb": 176,
        "grain-32": 64,
        "grain-16": 32,
        "lpips-squeeze": 17,
        "grain-8": 16,
        "ssim-rgb": 11,
        "ssimulacra2": 8,
    }
    for side in (7, 16, 17, 64):
        judge = Judge(path, smallest=side)
        assert {name for name, reason in judge.skipped.items() if "smaller than" in reason} == {
            name for name, least in sides.items() if side < least
        }
        picture = photo.resize((side, max(side, 40)))
        assert judge.against(picture).scores(picture).keys() == {*judge.metrics}
        assert judge.chooser in judge.metrics


def test_wrong_weights_end_the_command_in_one_line(folder, tiny_path, tmp_path):
    with pytest.raises(TitokError, match=r"tiny\.safetensors is not of LPIPS with SqueezeNet: it lacks features\.0\.w"):
        rate_distortion.main(["--images", str(folder), "--out", str(tmp_path), "--lpips", str(tiny_path)])
    with pytest.raises(
        TitokError,
        match=r"tiny\.safetensors is of another network: it lacks .* \d+ more",
    ):
        rate_distortion.main(
            ["--images", str(folder), "--out", str(tmp_path), "--lite0", str(tiny_path), "--methods", "raw"]
        )


# ---- a new model beside rivals of before ------------------------------------------------------------------------


@pytest.fixture
def before(result, tmp_path):
    """A copy of the run with every method, with its networks."""
    return Path(shutil.copytree(result, tmp_path / "before"))


def refreshed(before, folder, tiny_path, tmp_path, *more):
    save_file(lite0_state(), tmp_path / "lite0.safetensors")
    refresh.main(
        [
            str(before),
            "--images",
            str(folder),
            "--model",
            str(tiny_path),
            "--device",
            "cpu",
            "--workers",
            "1",
            "--lite0",
            str(tmp_path / "lite0.safetensors"),
            *more,
        ]
    )


def test_the_same_model_measured_anew_gives_the_same_results(result, before, folder, tiny_path, tmp_path):
    (before / "titok-tiny.json").unlink()
    (before / "titok-former.json").write_text("{}")
    (before / "wins.json").write_text("[]")
    refreshed(before, folder, tiny_path, tmp_path, "--effort", "0")
    for path in result.glob("*.json"):
        if path.name != "protocol.json":
            assert (before / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (before / "titok-former.json").exists(), "a model that does not take part any more"
    then, now = protocol(result), protocol(before)
    assert now["rivals"] == {key: then[key] for key in ("commit", "date", "versions")}
    assert now["models"] == then["models"] and now["pictures"] == then["pictures"]


def test_more_effort_changes_titok_alone(result, before, folder, tiny_path, tmp_path):
    refreshed(before, folder, tiny_path, tmp_path, "--effort", "2")
    was, now = methods(result), methods(before)
    assert {name for name in now if was[name] != now[name]} == {"titok-tiny"}
    pairs = zip(*(found["titok-tiny"]["results"]["psnr-rgb"] for found in (was, now)), strict=True)
    assert all(a < b for a, b in pairs)
    assert protocol(before)["models"][0]["effort"] == {"auto": 2}


def test_other_pictures_or_fewer_networks_are_refused(before, folder, tiny_path, tmp_path):
    with pytest.raises(TitokError, match="not the 4 pictures"):
        refreshed(before, folder, tiny_path, tmp_path, "--limit", "3")
    with pytest.raises(TitokError, match=r"(fd-lite0|top1-agreement) was measured then and cannot be now: .*--lite0"):
        refresh.main([str(before), "--images", str(folder), "--model", str(tiny_path), "--device", "cpu"])
    about = protocol(before) | {"size": "full"}
    (before / "protocol.json").write_text(json.dumps(about))
    with pytest.raises(TitokError, match="size full"):
        refreshed(before, folder, tiny_path, tmp_path)


# ---- rivals -----------------------------------------------------------------------------------------------------


def every_thumbnail(picture, name):
    """Side, quality, bytes and enlarged picture of a whole grid, made without the benchmark's search."""
    for side in (8, 24, 64, 192) if name != "raw" else range(1, 40):
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        lossless = [None] if (name, side) == ("webp", 8) else []
        for quality in rivals.DEPTHS if name == "raw" else [*range(101), *lossless]:
            if name == "raw":
                data = pack(np.asarray(small), quality)
                shown = Image.fromarray(unpack(data, (side, side, 3), quality))
            else:
                data = FORMATS[name].encode(small, quality)
                shown = Image.open(io.BytesIO(data)).convert("RGB")
            yield side, quality, len(data), shown.resize(picture.size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", ["webp", "jpeg", "raw"])
@pytest.mark.parametrize("budget", [150, 400])
def test_the_chosen_thumbnail_is_the_best_of_all(photo, light, monkeypatch, name, budget):
    small = photo.resize((192, 192))
    monkeypatch.setattr("bench.thumbnails.LOSSLESS_SIDES", (8,))
    judge = Judge(smallest=192)
    judge.metrics = ["psnr-rgb", "ssim-rgb"]
    entries = measure_case(Case("", small, {}, {"it": budget}), [f"{name}-thumbnail"], judge).entries
    scores = {
        (side, quality): (size, judge.against(small).scores(shown))
        for side, quality, size, shown in every_thumbnail(small, name)
        if size <= budget
    }
    if name == "raw":  # of which only the largest side of each depth takes part
        largest = {depth: max(side for side, bits in scores if bits == depth) for depth in rivals.DEPTHS}
        scores = {choice: told for choice, told in scores.items() if largest[choice[1]] == choice[0]}
    if not scores:
        assert not entries
        return
    found = entries[f"{name}-thumbnail", "it"]
    for metric in judge.metrics:
        size, own = scores[found.chosen[metric]]
        assert (found.sizes[metric], found.scores[metric]) == (size, own[metric])
        # More bytes at the same side are taken to be better, which holds but for a hair.
        assert own[metric] >= max(values[metric] for _, values in scores.values()) - 0.02


@pytest.fixture
def usual_sides(monkeypatch):
    """Those that the benchmark has."""
    monkeypatch.setattr(rivals, "SIDES", SIDES)
    monkeypatch.setattr(rivals, "LARGER_SIDES", LARGER_SIDES)


def test_sides_of_large_thumbnails_lie_close(photo, usual_sides):
    sides = rivals.thumbnails(photo.resize((768, 512)), "webp-thumbnail").sides
    assert sides == sorted(sides) and sides[-1] == 768
    assert all(b / a <= 1.25 for a, b in pairwise(side for side in sides if 32 <= side <= 640))


def test_crops_have_the_sides_that_they_were_measured_with(photo, usual_sides):
    for size in ((256, 256), (256, 100)):
        assert rivals.thumbnails(photo.resize(size), "webp-thumbnail").sides == [*SIDES, 192, 256]
    assert rivals.thumbnails(photo.resize((200, 200)), "webp-thumbnail").sides == [*SIDES, 192]


@pytest.mark.parametrize("budget", [2000, 4000])
def test_large_budgets_take_large_thumbnails(photo, usual_sides, budget):
    """The climb to the first budget finds what trying all sides finds."""
    large = photo.resize((512, 384), Image.Resampling.LANCZOS)
    judge = Judge(smallest=384, wanted=["psnr-rgb"])
    entry = measure_case(Case("", large, {}, {"it": budget}), ["webp-thumbnail"], judge).entries["webp-thumbnail", "it"]
    comparison = judge.against(large)
    every = rivals.thumbnails(large, "webp-thumbnail").fitting(budget)
    best = max(every, key=lambda file: comparison.scores(file.picture)["psnr-rgb"])
    assert entry.chosen["psnr-rgb"] == (best.side, best.quality)
    assert best.side > 128


def test_a_trial_finds_the_same_quality_as_plain_bisection(photo):
    small, quick = photo.resize((96, 96)), replace(FORMATS["avif"], options={"speed": 7}, trial={"speed": 10})
    plain = replace(quick, trial=None)
    for budget in (400, 700, 1200):
        found, known = (Thumbnails(small, coder, (8, 32, 96)).choices(budget) for coder in (quick, plain))
        assert found == known and found


def test_thumbnails_keep_the_aspect(photo):
    wide = photo.crop((0, 0, 400, 200))
    for source in (Thumbnails(wide, "webp", (64,)), RawThumbnails(wide)):
        found = [source.thumbnail(*choice) for choice in source.choices(1000)]
        assert found and all(file.picture.size == (400, 200) and len(file.data) <= 1000 for file in found)
    assert Image.open(io.BytesIO(Thumbnails(wide).thumbnail(64, 0).data)).size == (64, 32)


def test_raw_pixels_take_their_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for depth in range(1, 9):
        data = pack(pixels, depth)
        assert len(data) == -(-pixels.size * depth // 8)
        error = np.abs(unpack(data, pixels.shape, depth).astype(int) - pixels).max()
        assert error <= 255 / ((1 << depth) - 1) / 2 + 0.5
    assert pack(np.uint8([[[255, 0, 255]]]), 1) == b"\xa0"


def test_containers_are_as_long_as_stated():
    flat, photo = Image.new("RGB", (8, 8), "grey"), Image.open(DATA / "coffee.jpg").resize((64, 64))
    jpeg = FORMATS["jpeg"].encode(flat, 0)
    scan = jpeg.index(b"\xff\xda")
    assert scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big") == FORMATS["jpeg"].fixed
    for picture in (flat, photo):
        avif = replace(FORMATS["avif"], options={"speed": 8}).encode(picture, 10)
        assert avif.index(b"mdat") + 4 == FORMATS["avif"].fixed
        webp = FORMATS["webp"].encode(picture, 10)
        assert webp[20 + 3 : 20 + 6] == b"\x9d\x01\x2a" and FORMATS["webp"].fixed == 20 + 10


FAKE = """#!{python}
import shutil, sys
line = sys.argv
value = lambda name: line[line.index(name) + 1]
shutil.copyfile({source}, value("-o"))
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs of the names looked for, that copy their input."""
    for name, source in (
        ("bpgenc", "line[-1]"),
        ("bpgdec", "line[-1]"),
        ("vvencapp", 'value("-i")'),
        ("vvdecapp", 'value("-b")'),
    ):
        path = tmp_path / name
        path.write_text(FAKE.format(python=sys.executable, source=source))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_formats_that_pillow_lacks_are_named(monkeypatch):
    monkeypatch.delitem(Image.SAVE, "WEBP")
    assert rivals.unusable(["jpeg", "webp"]) == {"webp": "this Pillow cannot write it"}


@pytest.mark.parametrize("name", COMMANDS)
def test_programs_are_used_where_they_are(tools, name, photo):
    assert COMMANDS[name].missing() is None
    small = photo.resize((33, 20))
    shown = COMMANDS[name].decode(COMMANDS[name].encode(small, 10), small.size)
    assert shown.size == (33, 20)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(small)).mean() < (1 if name == "bpg" else 12)
    (tools / COMMANDS[name].encoder[0]).unlink()
    assert "not found on PATH" in COMMANDS[name].missing()


def test_programs_that_fail_are_named(tools):
    (tools / "bpgenc").write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    assert "exit status 3" in COMMANDS["bpg"].missing()


def test_planes_of_ten_bits(photo):
    small = photo.resize((16, 8))
    planes = to_planes(small)
    deep = (np.frombuffer(planes, np.uint8).astype("<u2") << 2).tobytes()
    assert from_planes(deep, small.size).tobytes() == from_planes(planes, small.size).tobytes()
    with pytest.raises(ValueError, match="no planes of 16 x 8"):
        from_planes(planes[:-1], small.size)


# ---- figures ----------------------------------------------------------------------------------------------------


def test_bootstrap():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap(values)
    assert low < values.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert bootstrap(values) == (low, high)
    assert bootstrap([3.0]) == (3.0, 3.0)


def test_wins_and_wilson():
    assert win_rate([1, 2, 3, 4], [0, 2, 4, 1], higher=True) == (1 + 0.5 + 0 + 1) / 4
    assert win_rate([1, 2], [0, 1], higher=False) == 0
    assert wilson(1, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)  # as tabulated
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_scores_of_an_equal_picture(photo):
    small = photo.resize((176, 176))
    judge = Judge()
    found = judge.against(small).scores(small)
    assert found.keys() == {*judge.metrics} and "lpips-squeeze" not in found
    assert found["psnr-rgb"] == 100 and found["ms-ssim-rgb"] == pytest.approx(1, abs=1e-5)
    for period in (8, 16, 32):
        assert found[f"grain-{period}"] == pytest.approx(grain(as_tensor(small), period).item(), rel=1e-4)
    assert found.get("ssimulacra2", 100) == pytest.approx(100)


def test_metrics_that_cannot_be_had_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    monkeypatch.setattr("titokcodec.metrics.scores.importlib.util.find_spec", lambda name: None)
    judge = Judge(smallest=100)
    assert judge.metrics == ["psnr-rgb", "ssim-rgb", "grain-8", "grain-16", "grain-32"]
    assert judge.skipped.keys() == METRICS.keys() - {*judge.metrics}
    assert "176 x 176" in judge.skipped["ms-ssim-rgb"]


def test_workers_find_what_one_process_finds(photo, monkeypatch):
    monkeypatch.setattr(rivals, "SIDES", SIDES)  # other processes have the usual ones
    small = photo.resize((176, 176))
    plan = rate_distortion.Setup(["webp-thumbnail"], None, None, 176)
    cases = [Case(str(turn), small.rotate(90 * turn), {}, {"budget 120": 120}) for turn in range(2)]
    alone, pooled = (list(measure_all(cases, plan, workers)) for workers in (1, 2))
    assert [found.name for found in pooled] == ["0", "1"]
    assert [found.entries for found in alone] == [found.entries for found in pooled]


def test_originals_are_cropped_and_hashed(folder, tmp_path):
    found = read([folder], limit=2)
    assert [original.picture.size for original in found] == [(256, 256)] * 2
    assert found[0].picture.tobytes() == Image.open(folder / "astronaut.png").tobytes(), "left alone"
    assert read([folder], "full")[1].picture.size == (300, 200)
    few = read([folder], "full", side=190)
    assert [(one.size, one.picture.size) for one in few[:3]] == [
        ((256, 256), (190, 190)),
        ((300, 200), (190, 127)),
        ((128, 180), (128, 180)),
    ]
    assert few[1].picture.tobytes() == reduced(Image.open(folder / "chelsea.png"), 190).tobytes()
    assert few[1].source == (folder / "chelsea.png").read_bytes(), "its pixels are not kept"
    names = [original.name for original in read([folder])]
    assert [original.name for original in read([folder], every=2)] == names[::2]
    assert [original.name for original in read([folder], limit=1, every=3)] == names[:1]
    with pytest.raises(TitokError, match="no readable pictures"):
        read([tmp_path])


def test_models_of_one_name_are_told_apart(codec):
    assert [entrant.method("fit") for entrant in entrants([codec])] == ["titok-tiny-fit"]
    other = SimpleNamespace(weights=SimpleNamespace(name="tiny", fingerprint=b"other"))
    stems = [f"titok-tiny-{one.weights.fingerprint.hex()[:6]}" for one in (codec, other)]
    assert [entrant.method("auto") for entrant in entrants([codec, other])] == stems
    assert [entrant.method("auto") for entrant in entrants([codec, codec])] == ["titok-tiny"], "given twice"


def test_json_is_compact_and_plain(tmp_path):
    rows = [{"a": 1, "b": None}, {"a": [1, 2], "b": {"c": [[1, 2], None]}}]
    write(tmp_path / "x.json", rows)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == rows and len(text.splitlines()) == 1
    long = {"a": [0.25] * 100, "b": [{"c": number, "d": [1, None]} for number in range(20)]}
    write(tmp_path / "x.json", long)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == long and len(text.splitlines()) == 5 + 20
    assert slug("Hub/My Model_2.safetensors") == "my-model-2"


def test_only_the_metrics_that_are_asked_for(photo, tmp_path):
    small = photo.resize((192, 192))
    judge = Judge(smallest=192, wanted=["ms-ssim-rgb"])
    assert judge.metrics == ["psnr-rgb", "ms-ssim-rgb"], "PSNR always is"
    assert set(judge.against(small).scores(small)) == {"psnr-rgb", "ms-ssim-rgb"}
    assert "--metrics" in judge.skipped["ssimulacra2"] and "--metrics" in judge.skipped["fd-lite0"]
    assert "no weights" in Judge(wanted=["fd-lite0"]).skipped["top1-agreement"], "metrics of sets come together"
