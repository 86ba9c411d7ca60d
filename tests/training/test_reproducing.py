"""The page on the paper's models keeps its word: its commands are understood, and values are those of the code."""

import importlib
import re
import shlex
from collections import Counter

import pytest

from tests.conftest import ROOT
from titokcodec.cli.script import Parser
from titokcodec.models.config import PRESETS
from titokcodec.models.generator_config import GENERATOR_PRESETS
from titokcodec.sampling import PUBLISHED
from training import defaults, hyper

PAGE = (ROOT / "training" / "REPRODUCING.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith(("python -m ", "torchrun "))
]


class Understood(Exception):
    """The command line makes sense."""


def options_of(line, monkeypatch):
    """The options that a line of the page asks for, as its command reads them."""
    module, *arguments = shlex.split(line.partition(" -m ")[2])

    def parsed(parser, given):
        raise Understood(super(Parser, parser).parse_args(given))

    monkeypatch.setattr(Parser, "parse_args", parsed)
    with pytest.raises(Understood) as found:
        importlib.import_module(module).main(arguments)
    return module.removeprefix("training."), found.value.args[0]


def test_every_command_is_understood_and_files_are_made_before_they_are_used(monkeypatch):
    needs = {
        "stage2": ("init",),
        "export": ("state",),
        "generator": ("tokenizer",),
        "evaluate": ("weights",),
        "samples": ("generator", "tokenizer"),
    }
    made, counted = set(), Counter()
    for line in LINES:
        name, options = options_of(line, monkeypatch)
        counted[name] += 1
        for need in needs.get(name, ()):
            assert str(getattr(options, need)) in made, line
        results = {"export": "", "generator": "/generator.safetensors"}
        made.add(f"{options.out}{results.get(name, '/state.pt')}" if "out" in options else "")
        assert getattr(options, "recipe", None) is None, "published presets take the published recipe by themselves"
    assert counted == {"shards": 2, "vqgan": 1, "single": 1, "stage1": 3} | dict.fromkeys(needs, 3)


def test_presets_and_settings_are_those_that_exist():
    assert set(re.findall(r"--preset (generator_\w+)", PAGE)) == GENERATOR_PRESETS.keys()
    assert set(re.findall(r"--preset (titok_\w+)", PAGE)) < PRESETS.keys()
    assert set(re.findall(r"--settings (generator_\w+)", PAGE)) <= PUBLISHED.keys()


def test_the_table_of_both_recipes_has_their_values():
    rows = re.findall(r"\| `--([\w-]+)` \| `(\w+)` \| (\S+) \| (\S+) \|", PAGE)
    assert len(rows) > 25
    for option, stage, published, short in rows:
        columns = getattr(defaults, stage.upper())
        for column, shown in ((columns.published, published), (columns.short, short)):
            (value,) = (v for _, item, v in hyper._items(column) if hyper._name(item) == option.replace("-", "_"))
            assert value == float(shown), (option, stage)


def test_both_readmes_lead_to_the_page():
    assert "](training/REPRODUCING.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](REPRODUCING.md)" in (ROOT / "training" / "README.md").read_text(encoding="utf-8")
