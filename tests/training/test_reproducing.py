"""The page on the paper's models keeps its word: its commands are understood, its example runs, its tables are true."""

import importlib
import re
import shlex

import numpy as np
import pytest

from tests.conftest import ROOT
from titokcodec import generator
from titokcodec.cli.script import Parser
from titokcodec.models.config import PRESETS, TiTokConfig, Tower
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.tokenizer import TiTok
from titokcodec.sampling import PUBLISHED
from titokcodec.weights import tokenizers
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
    made = {"runs/vqgan/vqgan.safetensors"}
    counted = dict.fromkeys(("shards", "vqgan", "stage1", "stage2", "export", "generator", "evaluate"), 0)
    for line in LINES:
        name, options = options_of(line, monkeypatch)
        counted[name] += 1
        sources = {"stage2": "init", "export": "state", "generator": "tokenizer", "evaluate": "weights"}
        if name in sources:
            assert str(getattr(options, sources[name])) in made, line
        if name in ("stage1", "stage2"):
            made.add(f"{options.out}/state.pt")
        if name == "export":
            made.add(str(options.out))
        assert getattr(options, "recipe", None) is None, "published presets take the published recipe by themselves"
    assert counted == {
        "shards": 2,
        "vqgan": 1,
        **dict.fromkeys(("stage1", "stage2", "export", "generator", "evaluate"), 3),
    }


def test_presets_and_settings_are_those_that_exist():
    assert set(re.findall(r"--preset (generator_\w+)", PAGE)) == GENERATOR_PRESETS.keys()
    assert set(re.findall(r"--preset (titok_\w+)", PAGE)) < PRESETS.keys()
    assert set(re.findall(r'PUBLISHED\["(\w+)"\]', PAGE)) <= PUBLISHED.keys()


def test_samples_are_written_as_the_evaluator_reads_them(tmp_path, monkeypatch):
    """Of small models, and of two classes."""
    monkeypatch.chdir(tmp_path)
    config = TiTokConfig(Tower(64, 1, 1), Tower(64, 1, 1), tokens=32, l2_normalised=True, head="proxy", legacy=True)
    tokenizers.save(tmp_path / "l32.safetensors", TiTok(config), "small")
    (tmp_path / "runs" / "l32-3").mkdir(parents=True)
    model = make(GeneratorConfig("bert", 32, width=64, layers=1, heads=1, mlp=64))
    generator.save(tmp_path / "runs" / "l32-3" / "generator.safetensors", model, "small")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    small = code.replace("list(range(1000)) * 50, 100,", "list(range(2)) * 1, 1,")
    assert small != code
    exec(compile(small, "REPRODUCING.md", "exec"), {})
    found = np.load("samples.npz")["arr_0"]
    assert (found.shape, found.dtype) == ((2, 256, 256, 3), np.uint8)


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
