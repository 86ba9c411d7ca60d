"""The kept inputs pass, and the driver notices what targets can do wrong."""

import os
import random
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz import child, corpus, mutate
from tests.fuzz.__main__ import keep, main
from tests.fuzz.run import run
from titokcodec.errors import TitokError
from titokcodec.format import bitstream
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, SIGNATURE

NAMES = sorted(path.stem for path in corpus.FOLDER.glob("*.txt"))


# ---- targets for the driver itself: whatever is longer than three bytes goes wrong -------------------------------


def raises(data):
    if len(data) > 3:
        raise KeyError("two\nlines")


def hangs(data):
    while len(data) > 3:
        pass


def dies(data):
    if len(data) > 3:
        os.abort()


def hoards(data):
    if len(data) > 3:
        bytes(1 << 31)  # which takes no pages where it is allowed


def behaves(data):
    assert isinstance(data, bytes)


# ---- the corpus --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged pictures
@pytest.mark.parametrize("name", NAMES)
def test_kept_inputs_pass(name):
    from tests.fuzz.targets import TARGETS

    if name == "configs":
        pytest.importorskip("yaml")
    inputs = corpus.read(name)
    assert len(inputs) >= 4 and len(set(inputs)) == len(inputs)
    for data in inputs:
        TARGETS[name](data)


def test_every_target_has_inputs_and_they_are_few():
    from tests.fuzz.targets import TARGETS

    assert sorted(TARGETS) == NAMES
    assert sum(path.stat().st_size for path in corpus.FOLDER.iterdir()) < 40_000


def test_kept_inputs_reach_what_they_are_kept_for():
    """Some are good and some are refused: a target that refuses everything would test nothing."""
    from tests.fuzz.targets import mended, tiny
    from titokcodec import editing

    good = bad = 0
    for data in corpus.read("bitstream"):
        try:
            editing.verify(mended(data), tiny().weights.path)
            good += 1
        except TitokError:
            bad += 1
    assert good >= 4 and bad >= 1


def test_inputs_are_added_once(tmp_path):
    corpus.add("new", [b"\0\xff", b""], tmp_path)
    corpus.add("new", [b"\0\xff", b"a"], tmp_path)
    (tmp_path / "new.txt").open("a").write("# a remark\n62  # another\n\n")
    assert corpus.read("new", tmp_path) == [b"\0\xff", b"a", b"b"]
    assert corpus.read("other", tmp_path) == []


def test_the_security_page_states_the_limits_that_are_set():
    page = " ".join((Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8").split())
    assert f"each within {child.SECONDS:g} seconds and {child.MEGABYTES} MB" in page
    assert f"{DEFAULT_MAX_PIXELS:,} by default" in page
    assert "python -m tests.fuzz --minutes 5 " in page and all(f"| {name} |" in page for name in NAMES)


# ---- the driver --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (raises, "KeyError"),
        (hangs, "exit code -27"),
        (dies, "exit code -6"),
        pytest.param(hoards, "MemoryError", marks=pytest.mark.skipif(sys.platform != "linux", reason="no limit there")),
    ],
)
def test_what_goes_wrong_is_found(target, said):
    limit = 0.5 if target is hangs else child.SECONDS
    outcome = run(f"{__name__}:{target.__name__}", [b"abc", b"abcd"], 0.1, limit=limit)
    assert outcome.findings
    for data, why in outcome.findings:
        assert len(data) > 3 and said in why


def test_what_behaves_has_no_findings():
    outcome = run(f"{__name__}:{behaves.__name__}", [b"abc"], 0.5)
    assert outcome.tried > 2 and not outcome.findings and 0 < outcome.slowest < child.SECONDS


def test_a_target_that_is_not_there_is_not_a_finding(capfd):
    with pytest.raises(RuntimeError, match="could not be started"):
        run("tests.fuzz.test_fuzz:nothing", [], 0.1)
    assert "nothing" in capfd.readouterr().err


def test_new_lines_lead_on():
    """From nothing but the signature, to a header that parses: many bytes, each of which must be there."""

    class Enough(Exception):
        pass

    parsed, tried = [], []

    def check(data):
        tried.append(data)
        if len(tried) == 20_000 or parsed:
            raise Enough
        with suppress(TitokError):
            parsed.append(bitstream.parse(data))

    with pytest.raises(Enough):
        mutate.fuzz(check, [b""], [SIGNATURE], 60, 0)
    assert parsed
    assert sys.gettrace() is None or "Lines" not in repr(sys.gettrace())


def test_mutations_are_those_of_their_seed_and_no_longer_than_allowed():
    pool = [b"a" * 4000, b"", b"xyz"]
    draws = random.Random(3), random.Random(3)
    some = [[mutate.mutated(draw, pool, [b"word"]) for _ in range(500)] for draw in draws]
    assert some[0] == some[1] and len(set(some[0])) > 200
    assert max(map(len, some[0])) <= mutate.LONGEST


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_fuzzes_and_tries_again(tmp_path, capsys):
    assert main(["entropy", "--minutes", "0.005", "--engine", "own", "--findings", str(tmp_path / "found")]) == 0
    assert capsys.readouterr().out.startswith("entropy: ") and not (tmp_path / "found").exists()
    (tmp_path / "a.bin").write_bytes(b"\x9eT")
    assert main(["bitstream", str(tmp_path / "a.bin")]) == 0


def test_findings_are_left_and_figures_kept(tmp_path, capsys, monkeypatch):
    from tests.fuzz import __main__ as command
    from tests.fuzz import targets

    monkeypatch.setitem(targets.TARGETS, "entropy", raises)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "fuzz.json")
    keep({"bitstream": {"findings": 0}})
    options = ["--minutes", "0.005", "--engine", "own", "--findings", str(tmp_path / "found"), "--keep"]
    assert main(["entropy", *options]) == 1
    assert "KeyError" in capsys.readouterr().out
    assert len((tmp_path / "found" / "entropy-0.bin").read_bytes()) > 3
    kept = (tmp_path / "fuzz.json").read_text()
    assert '"bitstream"' in kept and '"findings": 1' in kept
