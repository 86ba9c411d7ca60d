"""The benchmarks of speed: options, jobs, peaks of memory, growth, tables. How long anything takes is not tested."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from bench import cells, fresh, jobs, machine, report, scaling, tables, timings
from tests.conftest import ROOT, TINY
from titokcodec.runtime.devices import choose_device, choose_dtype

TIMED = {"machine": "a machine", "python": "3.11.7", "torch": "2.13.0"}


def benches(*arguments):
    """pytest on the benchmarks, with the tiny model on the CPU."""
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--model", str(TINY), *arguments]
    # One that runs beside others measures nothing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment)


# ---- pytest on bench/ -------------------------------------------------------------------------------------------


def test_every_benchmark_of_codec_and_networks_runs():
    """But for AVIF, which may take half a minute at its slowest; bf16 where it is not slower than that."""
    files = ("bench/test_codec_speed.py", "bench/test_network_speed.py")
    done = benches(*files, "--device", "cpu", "--benchmark-disable", "-rs", "-k", "not avif")
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 13
    slow = choose_dtype(choose_device("cpu")) == torch.float32
    assert ("bf16 was not asked for" in done.stdout) == slow


def test_what_is_kept_of_a_benchmark(tmp_path):
    raw = tmp_path / "raw.json"
    done = benches(
        "bench/test_network_speed.py",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--benchmark-json",
        str(raw),
        "--benchmark-max-time",
        "0.01",
        "-k",
        "encode and 4",
    )
    assert done.returncode == 0, done.stdout
    kept = timings.condensed([raw])
    assert {"machine", "python", "torch"} < kept.keys()
    (row,) = (row for row in kept["benchmarks"] if row["pictures"] == 4)
    assert (row["group"], row["precision"], row["tokens"]) == ("network encode", "fp32", 16)
    assert 50e6 < row["memory"] < 4e9 and row["median"] > 0
    assert "| encode | fp32 | 4 | 16 |" in timings.network(kept)
    assert "peak memory" not in timings.medians(kept)


def test_times_alone(tmp_path):
    raw = tmp_path / "raw.json"
    done = benches(
        "bench/test_network_speed.py",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--times-only",
        "--benchmark-json",
        str(raw),
        "--benchmark-max-time",
        "0.01",
        "-k",
        "encode and 4",
    )
    assert done.returncode == 0, done.stdout
    assert all("memory" not in row and row["median"] > 0 for row in timings.condensed([raw])["benchmarks"])


def test_a_device_that_is_not_there_is_one_clear_line():
    done = benches("bench/test_network_speed.py", "--device", "nowhere")
    told = done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "Traceback" not in told
    assert "no device 'nowhere' here: try --device cpu, or auto" in told


# ---- jobs, and what they take -----------------------------------------------------------------------------------


def test_a_peak_is_of_the_job_alone():
    """Not of the process that asks for it, however large that has been."""
    held = os.urandom(300_000_000)
    idle, busy = (fresh.measure(partial(partial, os.urandom, count))["memory"] for count in (1, 100_000_000))
    assert len(held) > busy > idle + 90_000_000


def test_a_job_is_repeated_within_patience():
    assert len(fresh.times(lambda: None, 0)) == 1 and len(fresh.times(lambda: None, 60)) == fresh.ROUNDS


def test_a_job_that_fails_says_so(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        fresh.measure(partial(partial, os.urandom, -1))
    assert "ValueError" in capfd.readouterr().err


def test_the_device_that_works_is_waited_for_and_every_one_is_counted(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    machine.synchronize(torch.device("cpu"))
    machine.synchronize(torch.device("cuda:1"))
    assert waited == [torch.device("cuda:1")]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=0: [10, 500][device])
    assert fresh.peaks()["device_memory"] == 510


def test_photographs_differ():
    pictures = jobs.photographs(16)
    assert [picture.size for picture in pictures] == [(256, 256)] * 16
    assert len({picture.tobytes() for picture in pictures}) == 16


def test_a_large_picture_is_the_photograph_and_its_mirror_images(photo):
    small, large = np.asarray(photo), jobs.mirrored(1200)
    assert large.shape == (1200, 1200, 3) and large.dtype == np.uint8
    assert np.array_equal(large[:512, :512], small) and np.array_equal(large[:512, 512:1024], small[:, ::-1])
    assert np.array_equal(large[1024:, 1024:], small[:176, :176])
    assert np.array_equal(jobs.mirrored(256), small[:256, :256])


# ---- growth -----------------------------------------------------------------------------------------------------


def test_cases_of_growth():
    assert scaling.cases([4, 1], [32, 16]) == [(256, 16), (256, 32), (1000, 16), (1000, 32), (2000, 32)]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    path = tmp_path_factory.mktemp("scaling") / "scaling.json"
    scaling.main(
        [
            "--out",
            str(path),
            "--megapixels",
            "0.6",
            "--tokens",
            "16",
            "--model",
            str(TINY),
            "--device",
            "cpu",
            "--precision",
            "fp32",
            "--patience",
            "0",
        ]
    )
    return path


def test_growth(grown):
    found = json.loads(grown.read_text())
    assert (found["model"], found["dtype"]) == ("tiny", "float32")
    rows = found["results"]
    assert [(row["job"], row["side"], row["tiles"]) for row in rows] == [
        ("compress", 256, 1),
        ("decompress", 256, 1),
        ("compress", 774, 9),
        ("decompress", 774, 9),
    ]
    assert all(row["seconds"] > 0 and 50e6 < row["memory"] < 4e9 and row["rounds"] == 1 for row in rows)
    assert rows[0]["bytes"] == rows[1]["bytes"] < rows[2]["bytes"]


def test_growth_as_a_table(grown):
    head, _, small, large, _, note = timings.scaling(json.loads(grown.read_text())).splitlines()
    assert small.startswith("| 0.0655 | 1 | 16 |") and large.startswith("| 0.599 | 9 | 16 |")
    assert head.count("|") == small.count("|") and "Peak memory is that of a process" in note


# ---- tables -----------------------------------------------------------------------------------------------------


def benchmark(group, name, median, **extra):
    return {"group": group, "name": name, "extra_info": extra, "stats": {"median": median, "rounds": 5}}


def test_tables_of_made_up_figures(tmp_path):
    raw = tmp_path / "raw.json"
    raw.write_text(
        json.dumps(
            {
                "machine_info": {"titokcodec": TIMED},
                "benchmarks": [
                    benchmark("decompress", "titok, fp32", 0.02, pictures=1, memory=5e8),
                    benchmark(
                        "compress",
                        "titok, effort 0, bf16, 16 at once",
                        0.5,
                        pictures=16,
                        bytes=187,
                        memory=5e8,
                        device_memory=2.5e9,
                    ),
                    benchmark("compress", "WebP, quality 80, method 4", 0.01, pictures=1, bytes=9000),
                    benchmark(
                        "network decode", "fp32, batch 4, 128 tokens", 0.001, precision="fp32", tokens=128, pictures=4
                    ),
                    benchmark("cold start", "test_process[titok-info]", 0.08),
                    benchmark("header+entropy encode, 24 tiles", "packed", 45e-6, tiles=24),
                    benchmark("header+entropy decode", "packed", 12e-6, tiles=1),
                    benchmark("header+entropy encode", "packed", 11e-6, tiles=1),
                    benchmark("header+entropy decode, 24 tiles", "packed", 44e-6, tiles=24),
                ],
            }
        )
    )
    kept = timings.condensed([raw])
    assert timings.codec(kept).splitlines()[2:5] == [
        "| compress | titok, effort 0, bf16, 16 at once | 187 | 500 ms | 32 | 500 MB + 2.5 GB |",
        "| compress | WebP, quality 80, method 4 | 9000 | 10 ms | 100 | - |",
        "| decompress | titok, fp32 | - | 20 ms | 50 | 500 MB |",
    ]
    assert "| decode | fp32 | 4 | 128 | 1 ms | 4,000 | - |" in timings.network(kept)
    assert "| `titok-info` | 80 ms |" in timings.cold(kept)
    assert timings.entropy(kept).splitlines()[::2] == [
        "| tokens as | encode, 1 tile | decode, 1 tile | encode, 24 tiles | decode, 24 tiles |",
        "| packed | 11 µs | 12 µs | 45 µs | 44 µs |",
        "a machine, Python 3.11.7, torch 2.13.0.",
    ]


def test_a_page_may_show_another_result_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    row = {"group": "g", "name": "n", "median": 1.5}
    (tmp_path / "gpu-speed.json").write_text(json.dumps({**TIMED, "benchmarks": [row]}))
    page = "before\n<!-- table: published gpu-speed -->\nold\n<!-- end -->\nafter"
    assert "| g | n | 1.5 s |\n\na machine" in (shown := tables.render(page))
    assert shown.startswith("before\n<!-- table: published gpu-speed -->\n| what") and "old" not in shown
    assert tables.render(shown) == shown


@pytest.mark.parametrize("name", ["speed", "network", "cold", "entropy", "scaling", "published"])
def test_tables_of_the_committed_figures(name):
    head, rule, *body, _, note = tables.TABLES[name]().splitlines()
    assert body and {line.count("|") for line in (head, rule, *body)} == {head.count("|")} and note.endswith(".")


def test_the_report_shows_them(tmp_path, grown):
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps({"benchmarks": [benchmark("compress", "titok", 0.5, pictures=16, memory=512e6)]}))
    text = report.speed_table(raw)
    assert '<th scope="col">pictures a second</th>' in text and "<td>32</td>" in text and "<td>512 MB</td>" in text
    assert "<td>decompress</td>" in report.speed_table(grown) and " MB</td>" in report.speed_table(grown)


def test_numbers_as_people_read_them():
    assert [cells.duration(value) for value in (90, 0.0123, 45e-6, 3e-9)] == ["90 s", "12.3 ms", "45 µs", "3 ns"]
    assert [cells.size(value) for value in (512, 20_480, 5e8, 1.234e9)] == ["512 bytes", "20.5 kB", "500 MB", "1.23 GB"]
    assert [cells.rate(value) for value in (0.1234, 56.78, 1234.5)] == ["0.123", "56.8", "1,234"]
