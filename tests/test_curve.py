"""Logs condensed to a curve by the minute, against sums by hand."""

import json

import pytest

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
        "minutes": 2.0, "lpips": 0.5, "psnr": pytest.approx(16.9897), "val/psnr/32": 18.0, "val/psnr/64": 19.0,
        "val/lpips/32": 0.4,
    }  # fmt: skip
    assert last == {"minutes": 4.0, "lpips": 0.5, "psnr": pytest.approx(30.0)}


def test_the_command_shows_all_runs_and_keeps_their_figures(run, tmp_path, capsys):
    curve.main([str(run), str(run), "--points", "4", "--json", str(tmp_path / "found.json")])
    shown = capsys.readouterr().out.splitlines()
    assert shown[3] == "| mine | 2.0 | 15.23 | - | 18.00 / 19.00 | 0.400 |"
    kept = json.loads((tmp_path / "found.json").read_text())
    assert [row["minutes"] for row in kept["mine"]] == [1, 2, 3, 4]
    assert curve.table(kept) == "\n".join(shown) + "\n"


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read as a log"), ("{", "cannot be read as a log")])
def test_a_folder_without_a_log_ends_in_one_line(tmp_path, text, said):
    if text:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(SystemExit, match=said):
        curve.main([str(tmp_path)])


def test_an_empty_log_makes_an_empty_curve(tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    assert curve.curve(curve.read(tmp_path), 2) == [{"minutes": 0.0}, {"minutes": 0.0}]
