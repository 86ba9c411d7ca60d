"""What a run leaves in its folder: nobody overwrites it unasked, nothing damaged is accepted, and a signal costs no
more than the step it came in."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, plain_pictures
from tests.training.test_stages import PROXIES, SCRIPT, SMALL
from tests.training.test_training import flattened, same
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.config import PRESETS
from titokcodec.models.vqgan_config import VQGAN_PRESETS
from training import export, folder, generator, recipe, single, stage2, vqgan
from training.checkpoint import load_checkpoint, load_state, save_state
from training.interrupt import Interrupted, Postponed
from training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(PRESETS, "small", SMALL)
    monkeypatch.setitem(VQGAN_PRESETS, "small", PROXIES)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return plain_pictures(tmp_path_factory.mktemp("photos"), 8)


def words(photos, out, steps, *more):
    given = [
        "--data",
        photos,
        "--out",
        out,
        "--steps",
        steps,
        "--batch",
        4,
        "--rate",
        "1e-3",
        "--log-every",
        1,
        "--device",
        "cpu",
        "--no-bf16",
        "--no-compile",
        *more,
    ]
    return [str(word) for word in given]


@pytest.fixture
def run(photos, tmp_path):
    """Trains a tiny tokenizer for so many steps, by its command."""

    def train(steps, *more, out="run"):
        return single.main(words(photos, tmp_path / out, steps, "--preset", "small", *more))

    return train


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def differing(a, b):
    """Paths of the leaves in which two states are not equal to the last bit, but for the time that they took."""
    a, b = flattened(a), flattened(b)
    equal = {key for key in a if key in b and same(a[key], b[key])}
    return (a.keys() | b.keys()) - equal - {"/spent"}


# ---- nothing is overwritten ------------------------------------------------------------------------------------


def test_a_second_run_goes_on_or_starts_anew_but_only_if_it_is_told_to(run, tmp_path, capsys):
    out = tmp_path / "run"
    run(3)
    before = (out / "state.pt").read_bytes(), (out / "log.jsonl").read_bytes()
    with pytest.raises(TitokError, match=r"state\.pt is of an earlier run: --resume goes .*, --force starts anew"):
        run(3)
    assert before == ((out / "state.pt").read_bytes(), (out / "log.jsonl").read_bytes())
    run(5, "--resume")
    assert [row["step"] for row in log(out) if "loss" in row] == [1, 2, 3, 4, 5]
    assert "no update" not in capsys.readouterr().out
    run(5, "--resume")
    assert "no update: the budget was used up after step 5; give more --minutes or --steps" in capsys.readouterr().out
    (out / "tensorboard").mkdir()
    (out / "tensorboard" / "events").touch()
    (out / "notes.txt").touch()
    run(2, "--force")
    assert [row["step"] for row in log(out)] == [0, 1, 2], "nothing of the old log is in the new one"
    assert load_state(out / "state.pt", CPU)["step"] == 2
    assert sorted(os.listdir(out)) == ["log.jsonl", "notes.txt", "state.pt"], "what is not a run's stays"


@pytest.mark.parametrize("name", ["state.pt", "state.old.pt", "log.jsonl"])
@pytest.mark.parametrize("kind", [single, stage2, vqgan, generator])
def test_every_stage_looks_before_it_reads_anything(kind, name, tmp_path):
    (tmp_path / name).write_bytes(b"precious")
    more = ["--init", "nowhere.pt"] if kind is stage2 else []
    with pytest.raises(TitokError, match="--force starts anew"):
        kind.main(["--data", "nowhere", "--out", str(tmp_path), *more])
    assert (tmp_path / name).read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (vqgan, "vqgan.safetensors"),
        (generator, "generator.safetensors"),
        (recipe, "model.safetensors"),
        (recipe, "single/state.pt"),
    ],
)
def test_results_are_in_the_way_as_well(kind, name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(TitokError, match="--force starts anew"):
        kind.main(["--data", "nowhere", "--val", "nowhere", "--out", str(tmp_path), "--minutes", "1"])
    assert (tmp_path / name).read_bytes() == b"precious"


def test_a_recipe_that_starts_anew_forgets_all_its_links(tmp_path, monkeypatch):
    def train(kind, options):
        assert not (tmp_path / "stage2" / "state.pt").exists(), "a kill now must not leave it to be gone on with"
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe.loop, "train", train)
    for name in ("single/state.pt", "stage2/state.pt", "stage2/log.jsonl", "recipe.json", "model.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(KeyboardInterrupt):
        recipe.main(
            ["--data", "x", "--val", "x", "--out", str(tmp_path), "--minutes", "1", "--chain", "sharpened", "--force"]
        )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_export_replaces_a_file_only_if_it_is_told_to(run, tmp_path):
    run(1)
    target = tmp_path / "x.safetensors"
    target.write_bytes(b"precious")
    line = [str(tmp_path / "run" / "state.pt"), str(target), "--name", "x"]
    with pytest.raises(TitokError, match=r"x\.safetensors exists: use --force"):
        export.main(line)
    assert target.read_bytes() == b"precious"
    export.main([*line, "--force"])
    assert target.stat().st_size > 1000


# ---- nothing damaged is accepted -------------------------------------------------------------------------------


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """Bytes of a checkpoint."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        patch.setitem(PRESETS, "small", SMALL)
        single.main(words(photos, out, 2, "--preset", "small"))
    return (out / "state.pt").read_bytes()


def edited(change):
    """Damage that its author has saved again, with a checksum that is right."""

    def damage(path, data):
        path.write_bytes(data)
        state = torch.load(path, weights_only=True)
        torch.save(change(state) or state, path)

    return damage


def flip(path, data):
    """One bit of the largest tensor's record."""
    path.write_bytes(data)
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda member: member.file_size)
    place = largest.header_offset + largest.file_size // 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


def other_zip(path, data):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("letter.txt", "Dear ...")


def first(state):
    """Of the tensors that the model has."""
    return next(iter(state["model"]))


def moment(state):
    return next(iter(state["optimizers"][0]["state"].values()))


def spoil(tensor, value):
    tensor.view(-1)[0] = value


DAMAGES = {
    "empty": (lambda path, data: path.write_bytes(b""), "is no checkpoint"),
    "cut in its first member": (lambda path, data: path.write_bytes(data[:300]), "is damaged"),
    "cut in the middle": (lambda path, data: path.write_bytes(data[: len(data) // 2]), "is damaged"),
    "cut in its directory": (lambda path, data: path.write_bytes(data[:-10]), "is damaged"),
    "random": (lambda path, data: path.write_bytes(random.Random(0).randbytes(5000)), "is no checkpoint"),
    "another zip": (other_zip, "is damaged"),
    "code": (lambda path, data: path.write_bytes(pickle.dumps(Code())), "is no checkpoint"),
    "code in a zip": (edited(lambda state: state.update(stage=Code())), "is damaged"),
    "a list": (edited(lambda state: [state]), "is damaged"),
    "flipped": (flip, "is damaged"),
    "other names": (edited(lambda state: state["model"].popitem() and None), "other options"),
    "no names": (edited(lambda state: {"a": 1}), "of another stage"),
    "shape": (edited(lambda state: state["model"].update({first(state): torch.zeros(3)})), "other options"),
    "type": (
        edited(lambda state: state["model"].update({first(state): state["model"][first(state)].long()})),
        "other options",
    ),
    "shape of a moment": (edited(lambda state: moment(state).update(exp_avg=torch.zeros(3))), "other options"),
    "type of a moment": (edited(lambda state: moment(state).update(exp_avg="none")), "other options"),
    "type of a step": (edited(lambda state: state.update(step="none")), "other options"),
    "a weight that is no number": (
        edited(lambda state: spoil(state["model"][first(state)], np.nan)),
        "latent_tokens has values that are not finite",
    ),
    "a moment that is no number": (
        edited(lambda state: spoil(moment(state)["exp_avg"], np.inf)),
        "exp_avg has values that are not finite",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_in_one_line_and_left_as_it_is(kind, whole, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "run" / "state.pt"
    state.parent.mkdir()
    damage, message = DAMAGES[kind]
    damage(state, whole)
    before = state.read_bytes()
    with pytest.raises(WeightsError, match=message) as found:
        run(4, "--resume")
    assert "\n" not in str(found.value) and str(state) in str(found.value)
    assert state.read_bytes() == before and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if "moment" not in kind and "step" not in kind])
def test_a_damaged_checkpoint_is_not_exported_or_tuned(kind, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state.pt"
    DAMAGES[kind][0](state, whole)
    if "other names" in kind or kind in ("shape", "type"):  # these are of the model that is trained, not of its average
        edited(lambda state: state.update(ema=state["model"]))(state, state.read_bytes())
    for main, line in (
        (export.main, [str(state), "x.safetensors", "--name", "x"]),
        (stage2.main, ["--data", ".", "--out", "out", "--init", str(state), "--device", "cpu"]),
    ):
        with pytest.raises(WeightsError) as found:
            main(line)
        assert "\n" not in str(found.value) and str(state) in str(found.value)
    assert os.listdir() == ["state.pt"]


def test_no_flipped_bit_changes_what_is_read(whole, tmp_path):
    """A bit may also lie in padding, or where nobody looks."""
    path, rng = tmp_path / "state.pt", random.Random(0)
    path.write_bytes(whole)
    truth, refused = load_state(path, CPU), 0
    directory = whole.rfind(b"PK\x05\x06") - len(whole)
    places = [rng.randrange(len(whole)) for _ in range(40)]
    places += [len(whole) - rng.randrange(16_000) for _ in range(40)]  # the directory of its members
    places += [whole.rfind(b"PK\x01\x02", 0, directory) + 38] * 2  # where it says that a member is a folder
    for place in places:
        bit = 4 if place == places[-1] else rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            assert not differing(load_state(path, CPU), truth), (place, bit)
        except WeightsError:
            refused += 1
    assert refused > 40


def test_the_checkpoint_before_is_kept_and_named_if_the_last_one_is_damaged(run, tmp_path):
    state, older = tmp_path / "run" / "state.pt", tmp_path / "run" / "state.old.pt"
    run(2)
    assert not older.exists()
    first = state.read_bytes()
    run(4, "--resume")
    assert older.read_bytes() == first
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"damaged: state\.old\.pt beside it is the one before, and whole"):
        run(6, "--resume")
    state.unlink()
    with pytest.raises(TitokError, match=r"state\.pt is gone, and state\.old\.pt is the checkpoint before"):
        run(6, "--resume")
    os.replace(older, state)
    run(4, "--resume")
    state.write_bytes(b"")
    older.write_bytes(b"")
    with pytest.raises(WeightsError, match="start anew with --force"):
        run(6, "--resume")


def test_values_that_are_not_finite_replace_no_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"a": torch.ones(3)})
    with pytest.raises(WeightsError, match=r"state\.pt is not written: parts\.1\.b has values that are not finite"):
        save_state(path, {"parts": [torch.ones(2), {"b": torch.tensor([1.0, float("inf")])}]})
    assert load_state(path, CPU)["a"].equal(torch.ones(3)) and os.listdir(tmp_path) == ["state.pt"]


def test_a_checkpoint_of_before_there_were_checks_is_read(whole, tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(whole)
    state = torch.load(path, weights_only=True)
    torch.save(state, path)  # all that was done then
    assert not differing(load_checkpoint(path, CPU), state)


# ---- signals ---------------------------------------------------------------------------------------------------


def signals_in_step(monkeypatch, step, *numbers):
    """These arrive while this step is under way."""
    update, left = Trainer.update, list(numbers)

    def during(self, batch):
        measured = update(self, batch)
        while self.step == step + 1 and left:
            os.kill(os.getpid(), left.pop(0))
            time.sleep(0.001)  # Python's handlers run between two instructions
        return measured

    monkeypatch.setattr(Trainer, "update", during)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_told_to_stop_ends_as_one_that_was_not(run, tmp_path, monkeypatch, number):
    run(9, "--continuous", 0.3, out="whole")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signals_in_step(monkeypatch, 4, number)
    with pytest.raises(Interrupted, match="interrupted after step 5: --resume goes on from there") as ended:
        run(9, "--continuous", 0.3)
    assert ended.value.number == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert load_state(tmp_path / "run" / "state.pt", CPU)["step"] == 5
    run(9, "--continuous", 0.3, "--resume")
    states = [load_state(tmp_path / name / "state.pt", CPU) for name in ("whole", "run")]
    assert states[0]["step"] == 9 and not differing(*states)
    assert [row["step"] for row in log(tmp_path / "run") if "loss" in row] == list(range(1, 10))


def test_a_second_signal_ends_a_run_at_once_and_leaves_its_checkpoint(run, tmp_path, monkeypatch):
    run(2)
    before = (tmp_path / "run" / "state.pt").read_bytes()
    signals_in_step(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    with pytest.raises(Interrupted, match=r"^interrupted$"):
        run(6, "--resume")
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_a_second_signal_while_the_checkpoint_is_written_leaves_the_one_before(run, tmp_path, monkeypatch):
    run(2)
    before = (tmp_path / "run" / "state.pt").read_bytes()
    signals_in_step(monkeypatch, 3, signal.SIGINT)
    save = torch.save

    def interrupted(state, file):
        save({"half": torch.ones(3)}, file)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(Interrupted):
        run(6, "--resume")
    assert (tmp_path / "run" / "state.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".state*")) and not (tmp_path / "run" / "state.old.pt").exists()


def test_what_a_shell_has_told_to_be_ignored_is_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Postponed() as kept:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)
            assert kept.number == 0
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)
            assert kept.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stopped_command_says_so_by_its_exit_code(photos, tmp_path):
    """Even if the signal is for its group, as from ``torchrun``: then it needs its worker until the step is done."""
    more = "--preset", "small", "--save-minutes", 0, "--stream", "--workers", 1
    line = [sys.executable, "-c", SCRIPT, *words(photos, tmp_path, 10**6, *more)]
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (tmp_path / "state.pt").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, message = process.communicate(timeout=120)
    step = load_state(tmp_path / "state.pt", CPU)["step"]
    assert message.endswith(f"\nerror: interrupted after step {step}: --resume goes on from there\n")
    assert process.returncode == 143


def test_a_folder_is_cleared_of_a_runs_files_alone(tmp_path):
    names = ["state.pt", "state.old.pt", "log.jsonl", "val.png", "generator.safetensors"]
    for name in [*names, "mine.txt", "tokens.pt"]:
        (tmp_path / name).touch()
    folder.clear(tmp_path, ("generator.safetensors",))
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "tokens.pt"]
