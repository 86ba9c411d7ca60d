"""Logs condensed to a curve by the minute, against sums by hand."""

import json
import math
import shutil

import pytest

from titokcodec.errors import TitokError
from training import curve

LINES = [
    {"step": 0, "pictures": 9.0},
    {"step": 50, "minutes": 1.0, "mse": 0.01, "lpips": 0.5},
    {"step": 100, "minutes": 2.0, "mse": 0.03},
    {"step": 100, "val/psnr/32": 18.0, "val/psnr/64": 19.0, "val/lpips/32": 0.4, "val/ssim/32": 0.3},
    {"step": 150, "minutes": 3.0, "mse": 0.001, "lpips": 0.25},
    {"step": 200, "minutes": 4.0, "mse": 0.001, "lpips": 0.75},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path / "mine"


def test_each_row_is_the_mean_of_its_share_of_the_minutes(run):
    first, last = curve.curve(curve.read(run), 2)
    assert first == {
        "minutes": 2.0,
        "lpips": 0.5,
        "psnr": pytest.approx(16.9897),
        "val/psnr/32": 18.0,
        "val/psnr/64": 19.0,
        "val/lpips/32": 0.4,
    }
    assert last == {"minutes": 4.0, "lpips": 0.5, "psnr": pytest.approx(30.0)}


def test_the_command_shows_all_runs_and_keeps_their_figures(run, tmp_path, capsys):
    curve.main([str(run), "--points", "4", "--json", str(tmp_path / "found.json")])
    shown = capsys.readouterr().out.splitlines()
    assert shown[3] == "| mine | 2.00 | 15.23 | - | 18.00 / 19.00 | 0.400 |"
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [row["minutes"] for row in kept["mine"]] == [1, 2, 3, 4]
    assert curve.table(kept) == "\n".join(shown) + "\n"


def test_runs_of_one_name_are_told_apart(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "other" / "mine")
    curve.main([str(run), str(tmp_path / "other" / "mine"), "--points", "1"])
    shown = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[1] for line in shown] == [str(run), str(tmp_path / "other" / "mine")]


def test_what_a_resumed_run_does_again_counts_once(run):
    again = {"step": 100, "minutes": 2.5, "mse": 0.001}
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(again) + "\n" + json.dumps({"step": 150, "minutes": 3.0, "mse": math.nan}) + "\n")
    assert [line["step"] for line in curve.read(run)] == [0, 50, 100, 150]
    assert curve.curve(curve.read(run), 1)[0]["psnr"] == pytest.approx(-10 * math.log10((0.01 + 0.001) / 2))


@pytest.mark.parametrize("line", ["{", "[1]", "5", '{"step": 1, "minutes": null}', '{"step": 1, "mse": 0}', '{"a": 1}'])
def test_a_damaged_line_is_named(run, line):
    with (run / "log.jsonl").open("a") as log:
        log.write(line + "\n")
    with pytest.raises(TitokError, match="is damaged in line 7"):
        curve.main([str(run)])


def test_a_folder_without_a_log_and_a_place_for_no_file_end_in_one_line(run, tmp_path, capsys):
    with pytest.raises(TitokError, match="cannot be read: give folders that a training command wrote"):
        curve.main([str(tmp_path)])
    with pytest.raises(TitokError, match="cannot be written"):
        curve.main([str(run), "--json", str(tmp_path)])
    assert capsys.readouterr().out.count("| mine |") == 8


def test_runs_that_compare_no_pictures_are_refused(run, tmp_path):
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator/log.jsonl").write_text('{"step": 1, "minutes": 0.5, "loss": 2.0}\n')
    with pytest.raises(TitokError, match="generator compared no pictures"):
        curve.main([str(run), str(tmp_path / "generator")])


def test_a_log_without_updates_makes_no_rows(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    assert curve.curve(curve.read(tmp_path), 2) == []
