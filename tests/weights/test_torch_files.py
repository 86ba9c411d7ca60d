"""Weights and checkpoints from strangers: dense floats, no larger than the file that holds them, or one line."""

import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import numpy as safe_numpy
from safetensors.torch import save_file

from tests.conftest import ROOT, TINY
from tests.metrics.test_lite0 import lite0_state
from titokcodec import cli
from titokcodec.errors import WeightsError
from titokcodec.metrics import Lite0
from titokcodec.models.config import TiTokConfig
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.weights import state_dicts, tokenizers, torch_files
from titokcodec.weights.convert import convert
from training import checkpoint, evaluate, proxies
from training.reading import LARGEST, read_files

ROOM = 3 << 29  # bytes of addresses: twice what Python with torch takes here


@pytest.fixture
def write(tmp_path):
    """A function that writes something as ``torch.save`` does, changed within its archive if that is asked for."""

    def write_(content, change=lambda names: names, compression=zipfile.ZIP_STORED, name="bad.bin"):
        path = tmp_path / name
        torch.save(content, path)
        with zipfile.ZipFile(path) as archive:
            entries = [(entry, archive.read(entry)) for entry in archive.namelist()]
        with zipfile.ZipFile(path, "w", compression) as archive:
            for entry, data in change(entries):
                archive.writestr(entry, data)
        return path

    return write_


def raw(code):
    """A change of an archive: another pickle in it."""
    return lambda entries: [(name, code if name.endswith("data.pkl") else data) for name, data in entries]


def everywhere(path):
    """All that open such files, as functions without arguments."""
    return [
        lambda: torch_files.load(path),
        lambda: convert(path, path.with_name("out.safetensors")),
        lambda: proxies.load(path),
        lambda: state_dicts.open_state_dict(path).tensors(),
        lambda: checkpoint.load_state(path, torch.device("cpu")),
        lambda: checkpoint.load_checkpoint(path, torch.device("cpu")),
    ]


def refused(path, problem=".", calls=everywhere):
    for call in calls(path):
        with pytest.raises(WeightsError, match=problem) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_keeps_comes_back(tmp_path, zipped):
    path = tmp_path / "state.pt"
    base = torch.randn(6, 5)
    state = {
        "numbers": [1, -1, 1 << 40, 2.5, True, None, float("inf")],
        "text": "ü" * 300,
        "pair": (1, ("a", ())),
        "ordered": OrderedDict(a=torch.zeros(0, 3), b=torch.tensor(7)),
        3: {"nested": {0: "zero", 2.5: "float"}},
        "views": [base, base.t(), base[1:, 2]],
        "parameter": torch.nn.Parameter(base.clone()),
        "kinds": [
            torch.ones(3, dtype=kind)
            for kind in (torch.uint8, torch.int8, torch.int64, torch.bool, torch.bfloat16, torch.float16, torch.float64)
        ],
        "module": torch.nn.BatchNorm1d(3).state_dict(),
    }
    optimizer = torch.optim.AdamW([state["parameter"]])
    state["parameter"].sum().backward()
    optimizer.step()
    torch.save(state | {"optimizer": optimizer.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    found = torch_files.load(path)
    torch.testing.assert_close(found["views"], state["views"])
    for name in ("numbers", "text", "pair", 3):
        assert found[name] == state[name]
    assert found["ordered"]["b"] == 7 and [kept.dtype for kept in found["kinds"]][4] == torch.bfloat16
    assert found["module"].keys() == state["module"].keys() and isinstance(found["parameter"], torch.nn.Parameter)
    assert found["optimizer"]["state"][0]["exp_avg"].shape == (6, 5)
    mapped = torch_files.load(path, mapped=True)["views"]
    torch.testing.assert_close(mapped, state["views"])


@pytest.mark.filterwarnings("ignore")  # torch does not like to make some of them
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.zeros(3).to(torch.float8_e4m3fn),
        lambda: bytearray(9),
        lambda: {1, 2},
        lambda: b"bytes",
    ],
    ids=["nested", "sparse", "quantized", "meta", "complex", "float8", "bytearray", "set", "bytes"],
)
def test_only_dense_tensors_and_plain_data_are_taken(write, make):
    value = make()
    refused(write({"stage": "x", "config": "{}", "ema": {}, "a": value}), calls=lambda path: everywhere(path)[:5])
    refused(write({"a": value}))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "int64", "bool"])
def test_other_numbers_in_safetensors_are_refused(tmp_path, kind, lite0_like):
    values = {name: torch.ones(value.shape).to(getattr(torch, kind)) for name, value in lite0_like.items()}
    save_file(values, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match="does not hold finite floating-point numbers"):
        Lite0(tmp_path / "bad.safetensors")
    good = safe_numpy.load_file(TINY)
    name = next(name for name, value in good.items() if value.dtype == np.float16)
    tensors = {key: torch.from_numpy(value.copy()) for key, value in good.items()}
    tensors[name] = torch.ones(good[name].shape).to(getattr(torch, kind))
    save_file(tensors, tmp_path / "ours.safetensors", {"titok": titok()})
    with pytest.raises(WeightsError, match=name):
        tokenizers.load_model(tmp_path / "ours.safetensors")


@pytest.fixture(scope="module")
def lite0_like():
    return lite0_state()


def titok():
    from titokcodec.weights.storage import open_file

    with open_file(TINY) as file:
        return file.metadata()["titok"]


def test_scales_that_overflow_are_refused(tmp_path):
    """Finite by themselves, int8 times float32 is not; the pictures would be black."""
    arrays = {name: value.copy() for name, value in safe_numpy.load_file(TINY).items()}
    name = next(name for name in arrays if name.endswith(".scale"))
    arrays[name][:] = 3e38
    path = tmp_path / "bad.safetensors"
    path.write_bytes(safe_numpy.save(arrays, {"titok": titok()}))
    with pytest.raises(WeightsError, match=f"{name.removesuffix('.scale')} does not hold finite"):
        tokenizers.load_model(path)


# ---- bombs -------------------------------------------------------------------------------------------------------


def test_compressed_archives_are_refused_before_they_swell(tmp_path, write):
    swollen = write({"a": torch.zeros(1 << 24)}, compression=zipfile.ZIP_DEFLATED)  # 64 MB in 64 KB
    assert swollen.stat().st_size < 1 << 17
    refused(swollen, calls=lambda path: everywhere(path)[:4], problem="compressed")
    refused(swollen)


def test_entries_that_share_their_bytes_are_refused(write):
    path = write({str(number): torch.zeros(1 << 14) for number in range(9)})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("bad/data/0").header_offset
        others = [archive.getinfo(f"bad/data/{number}").header_offset for number in range(1, 9)]
    directory = data.rindex(b"PK\5\6")
    start = int.from_bytes(data[directory + 16 : directory + 20], "little")
    for other in others:  # all point to the first one's, and their own bytes could be left out
        place = data.index(other.to_bytes(4, "little"), start)
        data[place : place + 4] = first.to_bytes(4, "little")
    del data[others[0] : start]
    directory = data.rindex(b"PK\5\6")
    data[directory + 16 : directory + 20] = others[0].to_bytes(4, "little")
    path.write_bytes(data)
    refused(path)


def large(count):
    return count.to_bytes(4, "little") + bytes(4)


PREFIX = b"\x80\x02}X\x01\0\0\0a"
BOMBS = {
    "bytearray": PREFIX + b"cbuiltins\nbytearray\n\x8a\x08" + large(2_000_000_000) + b"\x85Rs.",
    "storage": PREFIX + b"ctorch\nByteStorage\n\x8a\x08" + large(2_000_000_000) + b"\x85Rs.",
    "tensor": PREFIX + b"ctorch\nFloatTensor\n\x8a\x08" + large(500_000_000) + b"\x85Rs.",
    "memo": b"\x80\x02}r" + (0xFFFFFFF0).to_bytes(4, "little") + b".",
    "text": b"\x80\x02}X" + (0xFFFFFFF0).to_bytes(4, "little") + b"ab.",
    "names": PREFIX + b")" + b"\x85" * 200_000 + b"Ns" + b"s.",
    "tuples": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "lists": b"\x80\x02" + b"]" * ((1 << 21) + 9) + b".",
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """Files of a few bytes, or a few megabytes, that ask for gigabytes or for more calls than a stack holds."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, code in BOMBS.items():
        with zipfile.ZipFile(folder / f"{name}.bin", "w") as archive:
            for entry, data in (("a/data.pkl", code), ("a/version", b"3\n"), ("a/byteorder", b"little")):
                archive.writestr(entry, data)
        magic = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
        (folder / f"{name}-old.bin").write_bytes(b"".join(magic) + code + pickle.dumps([], 2))
    torch.save({"a": torch.zeros(1).expand(1 << 31)}, folder / "view.bin")
    with (folder / "sparse.tar").open("wb") as file:
        member = tarfile.TarInfo("a.png")
        member.size = 3 << 30
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(tarfile.BLOCKSIZE + member.size)
        file.seek(0, io.SEEK_END)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(3 << 30)
    return folder


def test_files_that_ask_for_more_than_they_hold_get_none(bombs):
    """In a process of little memory, where whatever they ask for would end in another error, or in the process."""
    code = f"""
import resource, sys
from pathlib import Path
import torch
from titokcodec.weights import torch_files
from titokcodec.weights.convert import convert
from titokcodec.errors import WeightsError
from titokcodec.weights import state_dicts
from training import checkpoint, proxies
from training.reading import read_files
torch.set_num_threads(1)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {ROOM}, used + {ROOM}))
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder = Path({str(bombs)!r})
for path in sorted(folder.glob("*.bin")):
    calls = [lambda: convert(path, folder / "o.safetensors")]
    if path.stem.split("-")[0] not in ("memo", "names", "tuples", "lists"):  # a dictionary after all; what takes long
        calls += [lambda: proxies.load(path), lambda: state_dicts.open_state_dict(path).tensors(),
                  lambda: checkpoint.load_state(path, torch.device("cpu"))]
    for call in calls:
        try:
            call()
        except WeightsError as error:
            assert "\\n" not in str(error) and "MemoryError" not in str(error), error
        else:
            raise AssertionError(path)
lost = []
paths = [str(folder / "sparse.tar"), str(folder / "sparse.png")]
assert [data for _, _, data in read_files(paths, lambda *event: lost.append(event))] == [b"", b""]
assert not lost, lost
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 400 << 10  # kilobytes: lists take 64 times what they have in a pickle


def test_pictures_of_a_usual_size_are_read_as_before(tmp_path):
    assert LARGEST > 100 << 20
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 1000)
    assert [data for _, _, data in read_files([str(path)], print)] == [b"x" * 1000]


# ---- what a file is ----------------------------------------------------------------------------------------------


def test_a_runs_checkpoint_in_place_of_weights_is_called_by_its_name(write, tmp_path, monkeypatch):
    path = write({"stage": "single", "config": "{}", "ema": {}, "step": 3}, name="state.pt")
    said = r"state.pt is not a readable safetensors file: it is a PyTorch file; python -m training.export makes"
    with pytest.raises(WeightsError, match=said):
        tokenizers.read(path)
    with pytest.raises(WeightsError, match=said):
        evaluate.main([str(path), "--data", str(TINY.parent / "coffee.jpg")])
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes((TINY.parent / "coffee.jpg").read_bytes())
    result = CliRunner().invoke(cli.compress, ["a.jpg", "-m", "state.pt"])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "training.export" in result.stderr
    with pytest.raises(WeightsError, match=r"training run's checkpoint: python -m training.export"):
        convert(path, tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match="it is a JPEG picture"):
        tokenizers.read(TINY.parent / "coffee.jpg")


@pytest.mark.parametrize(
    "text",
    [
        '{"encoder": {"width": 32, "layers": 1}}',
        '{"encoder": 5}',
        '{"encoder": {"width": 32, "layers": 1, "x": 1}}',
        '{"more": 1}',
        '{"architecture": [[[]]]}',
        "[" * 900 + "]" * 900,
        '{"tokens": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_configs_are_refused_in_the_words_of_a_config(text):
    """Not in those of a Python call that lacks an argument."""
    import json

    whole = json.loads(tokenizers.read(TINY).config.to_json())
    given = json.loads(text)
    texts = [text] + ([json.dumps(whole | given)] if isinstance(given, dict) else [])
    for kind in (TiTokConfig, GeneratorConfig):
        for each in texts:
            with pytest.raises(WeightsError, match="configuration does not make sense") as caught:
                kind.from_json(each)
            assert "__init__" not in str(caught.value) and len(str(caught.value)) < 300
    if "layers" in text:
        with pytest.raises(WeightsError, match="encoder lacks heads"):
            TiTokConfig.from_json(texts[1])
