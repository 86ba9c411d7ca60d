"""The benchmarks of speed: options, workloads, peaks of memory, scaling, tables. No test depends on speed."""

import json
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from bench import cells, conftest, fresh, report, scaling, tables, timings, workloads
from bench.workloads import CodecOptions
from tests.conftest import ROOT, TINY
from titokcodec.runtime.devices import choose_device, choose_dtype

TIMED = {"machine": "a machine", "python": "3.11.7", "torch": "2.13.0"}
NETWORK, CODEC = "bench/test_network_speed.py", "bench/test_codec_speed.py"


def run_pytest(*arguments):
    """pytest on the benchmarks, with the tiny model on the CPU."""
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--model", str(TINY), "--device", "cpu"]
    # Under xdist pytest-benchmark measures nothing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run([*line, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout
    return done.stdout


# ---- pytest on bench/ -------------------------------------------------------------------------------------------


def test_every_benchmark_of_codec_and_networks_runs():
    """But for AVIF, which may take half a minute at its slowest, and the longest search; bf16 only where it is fast."""
    shown = run_pytest(CODEC, NETWORK, "--benchmark-disable", "-rs", "-k", "not avif and not default-16")
    assert int(shown.split(" passed")[0].split()[-1]) >= 13
    assert ("bf16 was not requested" in shown) == (choose_dtype(choose_device("cpu")).itemsize == 4)


def test_what_is_recorded(tmp_path):
    raw = tmp_path / "raw.json"
    chosen = ("-k", "test_encode and fp32-4", "--precision", "fp32", "--times-only")
    run_pytest(NETWORK, *chosen, "--benchmark-max-time", "0.01", "--benchmark-json", str(raw))
    kept = timings.condensed([raw])
    assert {"machine", "python", "torch"} < kept.keys()
    (row,) = kept["benchmarks"]
    assert (row["group"], row["precision"], row["tokens"], row["pictures"]) == ("network encode", "fp32", 16, 4)
    assert row["median"] > 0 and "memory" not in row
    assert "| encode | fp32 | 4 | 16 |" in timings.network(kept)
    assert "peak memory" not in timings.medians(kept)


@pytest.mark.parametrize(("memory", "disabled"), [(True, False), (False, False), (True, True)])
def test_memory_is_measured_on_request(memory, disabled, monkeypatch):
    class Benchmark(SimpleNamespace):
        def __call__(self, work):
            return work()

    monkeypatch.setattr(fresh, "measure_fresh", lambda make, **given: {"memory": len(make(**given)())})
    benchmark = Benchmark(disabled=disabled, extra_info={})
    assert conftest.measured(benchmark, memory, "group", "name", lambda x: lambda: x, 4, x="result") == "result"
    peak = {"memory": len("result")} if memory and not disabled else {}
    assert (benchmark.group, benchmark.name, benchmark.extra_info) == ("group", "name", {"pictures": 4} | peak)


def test_a_device_that_does_not_exist_is_one_clear_line():
    with pytest.raises(pytest.exit.Exception, match=r"^no device 'nowhere' here: try --device cpu, or auto$") as caught:
        conftest.device_or_exit("nowhere")
    assert caught.value.returncode == pytest.ExitCode.USAGE_ERROR


# ---- workloads, their time and memory ---------------------------------------------------------------------------


def test_a_peak_is_of_the_workload_alone():
    """Not of the process that asks for it, however large that has been."""
    held = os.urandom(300_000_000)
    idle, busy = (fresh.measure_fresh(partial(partial, os.urandom, count)) for count in (1, 100_000_000))
    assert len(held) > busy["memory"] > idle["memory"] + 90_000_000 and set(idle) == {"memory"}


def test_peaks_are_of_all_devices(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=0: [10, 500][device])
    assert fresh.peaks()["device_memory"] == 510


def test_a_workload_is_repeated_for_the_given_time():
    assert fresh.timed(lambda: None, 0)["rounds"] == 1
    found = fresh.timed(lambda: sum(range(1000)), 0.05)
    assert found["rounds"] > 1 and 0 < found["seconds"] < 0.05


def test_a_workload_that_fails_shows_why(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        fresh.measure_fresh(partial(partial, os.urandom, -1))
    assert "ValueError" in capfd.readouterr().err


def test_photographs_differ():
    pictures = workloads.photographs(16)
    assert [picture.size for picture in pictures] == [(256, 256)] * 16
    assert len({picture.tobytes() for picture in pictures}) == 16


def test_a_large_picture_is_the_photograph_and_its_mirror_images(photo):
    small, large = np.asarray(photo), workloads.mirrored(1200)
    assert large.shape == (1200, 1200, 3) and large.dtype == np.uint8
    assert np.array_equal(large[:512, :512], small) and np.array_equal(large[:512, 512:1024], small[:, ::-1])
    assert np.array_equal(large[1024:, 1024:], small[:176, :176])
    assert np.array_equal(workloads.mirrored(256), small[:256, :256])


# ---- scaling ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """A result file of the command; measured in this process, which has started already."""
    path = tmp_path_factory.mktemp("scaling") / "scaling.json"
    line = f"--megapixels 0.6 --tokens 16 --model {TINY} --device cpu --precision fp32 --patience 0 --out {path}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            scaling, "measure_fresh", lambda make, seconds, **given: fresh.timed(make(**given), seconds) | fresh.peaks()
        )
        scaling.main(line.split())
    return path


def test_scaling(scaled):
    assert scaling.cases([4, 1], [32, 16]) == [(256, 16), (256, 32), (1000, 16), (1000, 32), (2000, 32)]
    found = json.loads(scaled.read_text())
    assert (found["model"], found["dtype"]) == ("tiny", "float32")
    rows = found["results"]
    cases = [("compress", 256, 1), ("decompress", 256, 1), ("compress", 774, 9), ("decompress", 774, 9)]
    assert [(row["job"], row["side"], row["tiles"]) for row in rows] == cases
    assert all(row["seconds"] > 0 and row["memory"] > 50e6 and row["rounds"] == 1 for row in rows)
    assert rows[0]["bytes"] == rows[1]["bytes"] < rows[2]["bytes"]

    head, _, small, large, _, note = timings.scaling(found).splitlines()
    assert small.startswith("| 0.0655 | 1 | 16 |") and large.startswith("| 0.599 | 9 | 16 |")
    assert head.count("|") == small.count("|") and "Peak memory is that of a process" in note


def test_a_case_of_scaling_in_a_process_of_its_own(tmp_path):
    options = CodecOptions(str(TINY), "cpu", "fp32")
    given = {"options": options, "side": 256, "tokens": 16, "target": tmp_path / "a.titok"}
    found = fresh.measure_fresh(workloads.compress_large, 0.0, **given)
    assert found["rounds"] == 1 and found["seconds"] > 0 and 50e6 < found["memory"] < 4e9  # bytes
    assert workloads.decompress_large(options, tmp_path / "a.titok")().size == (256, 256)


# ---- tables -----------------------------------------------------------------------------------------------------


def benchmark(group, name, median, **extra):
    return {"group": group, "name": name, "extra_info": extra, "stats": {"median": median, "rounds": 5}}


RAW = [
    benchmark("decompress", "titok, fp32", 0.02, pictures=1, memory=5e8),
    benchmark("compress", "titok, effort 0, 16 at once", 0.5, pictures=16, bytes=187, memory=5e8, device_memory=2.5e9),
    benchmark("compress", "WebP, quality 80, method 4", 0.01, pictures=1, bytes=9000),
    benchmark("network decode", "fp32, batch 4, 128 tokens", 0.001, precision="fp32", tokens=128, pictures=4),
    benchmark("cold start", "test_process[titok-info]", 0.08),
    benchmark("header+entropy encode, 24 tiles", "packed", 45e-6, tiles=24),
    benchmark("header+entropy decode", "packed", 12e-6, tiles=1),
    benchmark("header+entropy encode", "packed", 11e-6, tiles=1),
    benchmark("header+entropy decode, 24 tiles", "packed", 44e-6, tiles=24),
]


def test_tables_of_made_up_figures(tmp_path, scaled):
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps({"machine_info": {"titokcodec": TIMED}, "benchmarks": RAW}))
    kept = timings.condensed([raw])
    assert timings.codec(kept).splitlines()[2:5] == [
        "| compress | titok, effort 0, 16 at once | 187 | 500 ms | 32 | 500 MB + 2.5 GB |",
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
    raw.write_text(json.dumps({"benchmarks": [benchmark("compress", "titok", 0.5, pictures=16, memory=512e6)]}))
    table = report.speed_table(raw)
    assert "pictures a second" in table.head and {"32", "512 MB"} <= set(table.body[0])
    table = report.speed_table(scaled)
    assert [row[0] for row in table.body[:2]] == ["compress", "decompress"] and table.body[0][-1].endswith(
        (" MB", " GB")
    )


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


def test_numbers_in_readable_units():
    assert [cells.duration(value) for value in (90, 0.0123, 45e-6, 3e-9)] == ["90 s", "12.3 ms", "45 µs", "3 ns"]
    assert [cells.size(value) for value in (512, 20_480, 5e8, 1.234e9)] == ["512 bytes", "20.5 kB", "500 MB", "1.23 GB"]
    assert [cells.rate(value) for value in (0.1234, 56.78, 1234.5)] == ["0.123", "56.8", "1,234"]
