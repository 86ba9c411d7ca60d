"""The order of the house: imports run one way, the exact layer knows no networks, and the map is complete."""

import ast
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGES = ("titokcodec", "training", "bench")
MAP = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SOURCES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path, absolute=False):
    """Full names of all that a source file imports, anywhere in it; or only of what it imports by absolute names."""
    package = list(path.parent.parts)
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not (absolute and node.level):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def of(name, *modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_run_one_way(path):
    """titokcodec < training < bench, under either of their names; none of them imports tests."""
    own = path.parts[0]
    later = PACKAGES[PACKAGES.index(own) + 1 :]
    forbidden = ("tests", *later, *(f"titokcodec.{package}" for package in later))
    assert not [name for name in imports(path) if of(name, *forbidden)]
    if own != "titokcodec":
        twice = [name for name in imports(path, absolute=True) if of(name, "training", "bench", f"titokcodec.{own}")]
        assert not twice, "a second copy would be imported under that name: inside a package, import by relative names"


@pytest.mark.parametrize("path", sorted((ROOT / "titokcodec" / "format").glob("*.py")), ids=lambda path: path.name)
def test_the_exact_layer_knows_no_networks_and_no_pictures(path):
    names = list(imports(path.relative_to(ROOT)))
    assert not [name for name in names if of(name, "torch", "PIL", "safetensors")]
    rooms = ("pictures", "models", "weights", "metrics", "runtime", "cli", "codec", "generator", "search")
    found = [name for name in names if of(name, *(f"titokcodec.{room}" for room in rooms))]
    assert set(found) <= {"titokcodec.weights.releases"}  # a list of numbers


@pytest.mark.parametrize("path", sorted((ROOT / "titokcodec" / "models").glob("*.py")), ids=lambda path: path.name)
def test_models_know_no_files(path):
    rooms = ("pictures", "weights", "metrics", "cli", "codec", "generator", "io.atomic", "io.kinds", "io.walk")
    names = list(imports(path.relative_to(ROOT)))
    assert not [name for name in names if of(name, "PIL", "safetensors", *(f"titokcodec.{room}" for room in rooms))]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_private_names_stay_in_their_module(path):
    for name in imports(path):
        private = [part for part in name.split(".") if re.match(r"_[a-z]", part)]
        assert not private or not of(name, *PACKAGES), name


def test_the_face_of_the_package_and_the_header_need_neither_numpy_nor_torch():
    code = """
import sys, titokcodec
titokcodec.info(sys.argv[1])
print(sorted({"numpy", "torch", "PIL", "click"} & set(sys.modules)))
"""
    path = next((ROOT / "tests" / "data" / "v1").glob("*.titok"))
    line = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(line, cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


def test_the_map_is_complete():
    """Every module stands in CONTRIBUTING.md, below its folder and with a word on what it is, and none that is gone."""
    (block,) = re.findall(r"```text\n(titokcodec/.*?)```", MAP, re.DOTALL)
    folder, mapped = "", []
    for line in block.splitlines():
        (names,) = re.fullmatch(r" *(\S+/|\w+(?:, \w+)*)  +\S.+", line).groups()
        if names.endswith("/"):
            folder = names
            assert (ROOT / folder).is_dir()
        else:
            mapped += [f"{folder}{name}.py" for name in names.split(", ")]
    here = [path.as_posix() for path in SOURCES if path.name not in ("__init__.py", "conftest.py")]
    assert sorted(mapped) == [name for name in sorted(here) if not name.startswith("bench/test_")]


def test_files_that_the_training_page_names_are_there():
    page = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    table = [line for line in page.splitlines() if line.startswith("| `")]
    names = {name for line in table for name in re.findall(r"`(\w+\.py)`", line.split("|")[1])}
    assert len(names) > 20 and not [name for name in names if not (ROOT / "training" / name).exists()]


def test_modules_are_short():
    lengths = {path.as_posix(): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


LONGEST = 350  # lines; 300 is what we aim at
