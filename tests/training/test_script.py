"""How commands of training and of the benchmarks end: one line, an exit code, and a traceback for mistakes of ours."""

import ast
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.errors import TitokError
from training.interrupt import Interrupted

SCRIPT = ROOT / "titokcodec" / "cli" / "script.py"
SOURCES = [*sorted(path for folder in ("training", "bench") for path in (ROOT / folder).rglob("*.py")), SCRIPT]


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (TitokError("it is damaged"), 1, "it is damaged"),
        (UsageError("give 0 or more"), 2, "give 0 or more"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 1, "x.json: No such file or directory"),
        (MemoryError(), 1, "not enough memory: try smaller batches or fewer pictures"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(15, "after step 3"), 143, "after step 3"),
    ],
)
def test_what_goes_wrong_is_a_line_and_an_exit_code(raised, code, line, capsys):
    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        start(main)
    assert ended.value.code == code and capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize("mistake", [RuntimeError("shapes differ"), KeyError("a"), ValueError("x")])
def test_a_mistake_of_ours_is_not_hidden(mistake):
    def main():
        raise mistake

    with pytest.raises(type(mistake)):
        start(main)


def test_what_succeeds_goes_on(capsys):
    start(lambda: "a model")
    assert capsys.readouterr() == ("", "")


def test_a_parser_says_what_is_wrong_in_one_line():
    parser = Parser("About\n  it.")
    parser.add_argument("--size", type=int, required=True, help="of it")
    for words, said in (([], "required: --size"), (["--size", "x"], "invalid int value: 'x'")):
        with pytest.raises(UsageError, match=said) as found:
            parser.parse_args(words)
        assert "\n" not in str(found.value)
    assert "About\n  it." in parser.format_help()


@pytest.mark.parametrize(("words", "code"), [(["nowhere", "--out", "x.svg"], 1), (["--nonsense"], 2)])
def test_a_command_ends_so(words, code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bench.headline", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_one_place_alone_ends_the_process():
    """All others raise a ``TitokError``, which whoever calls them can catch."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "id", None) or getattr(node, "attr", None)
            if name in ("SystemExit", "_exit") or (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit"):
                found.append(path.relative_to(ROOT).as_posix())
    assert found == ["titokcodec/cli/script.py"]


def test_every_command_is_started_there():
    kept = {"bench/fresh.py"}  # the far end of a pipe, not a command
    mains = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    mains = {name: text for name, text in mains.items() if '__name__ == "__main__"' in text and name not in kept}
    assert len(mains) > 20 and not [name for name, text in mains.items() if not text.endswith("\n    start(main)\n")]


def test_training_imports_nothing_from_bench():
    for path in sorted((ROOT / "training").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any("bench" in name.split(".") for name in names), path.name
