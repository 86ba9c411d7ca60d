"""Many files: folders, targets, failures, shards, JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import titokcodec
from tests.cli.conftest import call, compressed, outputs, picture
from tests.conftest import ROOT
from titokcodec import cli
from titokcodec.search import MOST_STEPS


def test_a_folder_is_mirrored(album, codec):
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 0 and "3 of 3 files" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]
    assert Path("out/sub/c.titok").read_bytes() == compressed(codec, "album/sub/c.png", effort=1)
    assert call(cli.decompress, "out", "-o", "back").exit_code == 0
    assert outputs(Path("back")) == ["a.png", "b.png", "sub/c.png"]
    assert Image.open("back/b.png").size == (60, 50)


@pytest.mark.full_search
def test_a_folder_is_searched_quickly_and_a_single_picture_well(album, codec):
    single, folder = Path("one.titok"), Path("out/a.titok")
    assert call(cli.compress, "album/a.png", single).exit_code == 0
    assert call(cli.compress, "album/a.png", "-o", "out").exit_code == 0
    assert single.read_bytes() == compressed(codec, "album/a.png")
    assert folder.read_bytes() == compressed(codec, "album/a.png", effort=1) != single.read_bytes()
    assert call(cli.compress, "album/a.png", "-o", "out", "-f", "--effort", "8").exit_code == 0
    assert folder.read_bytes() == compressed(codec, "album/a.png", effort=8)
    picture(album / "wide.png", (600, 300))
    assert call(cli.compress, "album/wide.png", "-o", "out", "--layout", "tile").exit_code == 0
    assert Path("out/wide.titok").read_bytes() == compressed(codec, "album/wide.png", layout="tile", effort=0)


def test_targets(here, codec):
    picture("a.png", (600, 300))
    for name, options in (
        ("target_bytes", {"target_bytes": 60}),
        ("target_psnr", {"target_psnr": 9.5}),
        ("layout", {"target_bytes": 60, "layout": "fit"}),
    ):
        line = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        result = call(cli.compress, "a.png", f"{name}.titok", *line)
        assert result.exit_code == 0, result.stderr
        data = Path(f"{name}.titok").read_bytes()
        assert data == compressed(codec, "a.png", **options)
        about = titokcodec.info(data)
        how = f"{about.columns}x{about.rows} tiles, {about.tokens} tokens each" if about.tiles > 1 else "fit, "
        assert f"600x300  {how}" in result.stderr and f"{len(data)} bytes" in result.stderr
        original, decoded = (np.asarray(shown, float) for shown in (Image.open("a.png"), codec.decompress(data)))
        reached = 10 * np.log10(255**2 / np.square(original - decoded).mean())
        assert f"  PSNR {reached:.2f} dB\n" in result.stderr
    result = call(cli.compress, "a.png", "a.titok", "--target-psnr", 9.5, "--effort", 0, "--json")
    assert json.loads(result.stdout)["psnr"] >= 9.5
    result = call(cli.compress, "a.png", "b.titok", "--target-psnr", 70)
    assert result.exit_code == 1 and "dB is the best that this model can do" in result.stderr
    assert not Path("b.titok").exists()


def test_files_for_which_another_format_is_better_are_remarked_on(album, monkeypatch):
    from titokcodec.cli import batch_reporter

    monkeypatch.setattr(batch_reporter, "SENSIBLE_BYTES", 40)
    message = "above 40 bytes, an AVIF or WebP thumbnail of the same size is closer to the picture"
    picture(album / "wide.png", (600, 300))
    line = ("album/wide.png", "one.titok", "--layout", "tile", "-f")
    assert f"this file: {message}" in call(cli.compress, *line).stderr
    assert message not in call(cli.compress, *line, "-q").stderr + call(cli.compress, *line, "--json").stderr
    assert message not in call(cli.compress, "album/wide.png", "one.titok", "-f").stderr
    result = call(cli.compress, "album", "-o", "out", "--layout", "tile")
    assert result.exit_code == 0 and result.stderr.count(f"1 of these files: {message}") == 1
    assert message not in call(cli.decompress, "out", "-o", "back").stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["-t", "9", "--target-psnr", "20"], "--tokens or --target-psnr"),
        (["--target-bytes", "90", "--target-psnr", "20"], "give one of target_bytes, target_psnr and target_lpips"),
        (["--target-lpips", "0.3"], "--target-lpips and --lpips"),
        (["--lpips", "x"], "--target-lpips and --lpips"),
        (["--target-psnr", "0"], "--target-psnr"),
        (["--target-psnr", "nan"], "target_psnr is nan: give a number"),
        (["--target-psnr", "inf"], "target_psnr is inf: give a number"),
    ],
)
def test_targets_that_make_no_sense(here, line, message):
    picture("a.png")
    result = call(cli.compress, "a.png", *line)
    assert result.exit_code == 2 and message in result.stderr
    assert outputs(here) == ["a.png"]


def test_weights_of_a_metric_that_are_none(here):
    picture("a.png")
    picture("b.png")
    Path("odd.safetensors").write_text("odd")
    for name, message in (("odd.safetensors", "odd.safetensors "), ("gone.safetensors", "no weight file at gone.")):
        result = call(cli.compress, "a.png", "b.png", "-o", "out", "--target-lpips", "0.3", "--lpips", name)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert result.stderr.startswith(f"titok-compress: {message}")


def test_the_remark_stands_where_thumbnails_overtake():
    """Of the sizes that were measured, titok wins those below it, and the best thumbnail of any format those above."""
    from titokcodec.cli.batch_reporter import SENSIBLE_BYTES

    folder = ROOT / "bench/results/kodak-targets"
    results = {path.stem: json.loads(path.read_text())["results"] for path in folder.glob("*-t*.json")}
    (ours,) = (found for name, found in results.items() if name.startswith("titok"))
    rivals = [found for name, found in results.items() if name.endswith("thumbnail")]
    for metric in ("psnr-rgb", "ssimulacra2"):
        for number, limit in enumerate((400, 1000, 2000, 4000)):
            best = max(found[metric][number] for found in rivals)
            assert (ours[metric][number] > best) == (limit < SENSIBLE_BYTES)


def test_effort_ends_where_the_library_ends():
    (effort,) = (param for param in cli.compress.params if param.name == "effort")
    assert effort.type.max == MOST_STEPS


def test_the_help_gives_the_cost_of_effort_as_measured():
    """Seconds a picture, and decibels at 128 tokens, to the figure that the help rounds to."""
    rows = {row["effort"]: row for row in json.loads((ROOT / "bench/results/effort.json").read_text())["rows"]}
    message = " ".join(call(cli.compress, "--help").stdout.split())
    for effort, digits in ((0, 3), (1, 2), (8, 1)):
        assert f"{rows[effort]['seconds/1']:.{digits}f} s".removeprefix("0") in message
    for effort, digits in ((1, 2), (8, 1)):
        gain = rows[effort]["psnr/128"] - rows[0]["psnr/128"]
        assert f"{gain:.{digits}f} dB".removeprefix("0") in message


def test_several_inputs_share_forward_passes(album, codec, monkeypatch):
    sizes = []
    real = codec.encode
    monkeypatch.setattr(codec, "encode", lambda *given, **named: sizes.append(len(given[0])) or real(*given, **named))
    assert call(cli.compress, "album/a.png", "album/b.jpg", "album/sub", "-o", "out").exit_code == 0
    assert sizes == [3]
    assert outputs(Path("out")) == ["a.titok", "b.titok", "c.titok"]


def test_a_bad_file_does_not_stop_the_others(album):
    (album / "bad.png").write_bytes(b"no picture at all")
    result = call(cli.compress, "album", "missing.png", "-o", "out")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("titok-compress: ")]
    assert len(lines) == 2
    assert lines[0].startswith("titok-compress: album/bad.png: not a picture")
    assert lines[1].startswith("titok-compress: missing.png: no such file")
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]


def test_what_fails_in_the_network_fails_alone(album, codec):
    """A budget that one picture of a group cannot meet, as it is to be tiled."""
    picture(album / "wide.png", (2000, 300))
    result = call(cli.compress, "album", "-o", "out", "--target-bytes", "28", "--layout", "tile")
    assert result.exit_code == 1
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]
    assert "titok-compress: album/wide.png: cannot make this picture 28 bytes: the least" in result.stderr


def test_memory_that_runs_out_for_a_group_is_tried_file_by_file(album, codec, monkeypatch):
    real = codec.compress_batch

    def limited(pictures, **options):
        if len(pictures) > 1 or pictures[0].pixels.shape[0] == 50:
            raise MemoryError
        return real(pictures, **options)

    monkeypatch.setattr(codec, "compress_batch", limited)
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and "album/b.jpg: not enough memory" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "sub/c.titok"]


def test_a_rerun_does_what_is_missing(album):
    Path("out").mkdir()
    Path("out/a.titok").write_text("done before")
    result = call(cli.compress, "album", "-o", "out", "--skip-existing")
    assert result.exit_code == 0 and "2 of 3 files, 1 skipped" in result.stderr
    assert Path("out/a.titok").read_text() == "done before"
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and result.stderr.count("exists") == 3


def test_two_inputs_with_one_output_are_refused(album):
    picture(album / "a.bmp")
    result = call(cli.compress, "album", "-o", "out")
    assert result.exit_code == 1 and "album/a.png: would be written to out/a.titok" in result.stderr
    assert outputs(Path("out")) == ["a.titok", "b.titok", "sub/c.titok"]


def test_shards_share_the_work(album):
    for index in range(2):
        assert call(cli.compress, "album", "-o", f"out{index}", "--shard", f"{index}/2").exit_code == 0
    assert outputs(Path("out0")) == ["a.titok", "sub/c.titok"]
    assert outputs(Path("out1")) == ["b.titok"]
    assert call(cli.compress, "album", "-o", "out2", "--shard", "8/9").exit_code == 0
    assert not Path("out2").exists()


def test_an_empty_folder_is_an_error(here):
    Path("empty").mkdir()
    result = call(cli.compress, "empty", "-o", "out")
    assert result.exit_code == 1 and "no pictures in this folder" in result.stderr


def test_json_is_one_object_a_file(album):
    (album / "bad.png").write_bytes(b"")
    result = call(cli.compress, "album", "-o", "out", "--json")
    facts = {Path(item["input"]).name: item for item in map(json.loads, result.stdout.splitlines())}
    assert result.exit_code == 1 and sorted(facts) == ["a.png", "b.jpg", "bad.png", "c.png"]
    assert "not a picture" in facts["bad.png"]["error"]
    a = facts["a.png"]
    assert a["output"] == "out/a.titok" and (a["width"], a["height"], a["tiles"], a["tokens"]) == (40, 30, 1, 16)
    assert a["bytes"] == Path("out/a.titok").stat().st_size and a["seconds"] > 0
    assert a["bpp"] == pytest.approx(8 * a["bytes"] / 1200, abs=1e-5)
    again = call(cli.compress, "album/a.png", "-o", "out", "--json", "--skip-existing")
    assert json.loads(again.stdout)["skipped"] is True


def test_verbose_names_the_model_and_every_file(album):
    result = call(cli.compress, "album", "-o", "out", "-v")
    assert "model tiny (" in result.stderr and "on cpu in float32" in result.stderr
    assert "album/sub/c.png -> out/sub/c.titok  20x20" in result.stderr


def test_odd_names_stay_on_one_line(here):
    Path("two\nlines.png").write_bytes(b"")
    result = call(cli.compress, "two\nlines.png")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    picture("Grüße ☀.png")
    assert call(cli.compress, "Grüße ☀.png").exit_code == 0
    assert "Grüße ☀.titok" in call(cli.info, "Grüße ☀.titok").stdout
