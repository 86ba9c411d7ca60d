"""The README keeps its word: its examples run, its figures are those of the result files, its commands exist."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from bench import extremes
from bench.gallery import GAP
from bench.tables import GALLERY, PAGES, RESULTS, SETS, TABLES, render
from titokcodec import generator
from titokcodec.models.config import TiTokConfig, Tower
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder that the example pictures can be reached from."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", [block for block in blocks("python") if "hub:" not in block])
def test_python_examples_run(code, workplace, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "tokens=32" in capsys.readouterr().out


def test_the_example_of_published_weights_runs_on_small_ones(tmp_path):
    tokenizers.save(
        tmp_path / "tokenizer.safetensors",
        TiTok(TiTokConfig(Tower(64, 1, 1), Tower(64, 1, 1), tokens=32, l2_normalised=True, head="proxy", legacy=True)),
        "small",
    )
    model = make(GeneratorConfig("bert", 32, width=64, layers=1, heads=1, mlp=64))
    generator.save(tmp_path / "generator.safetensors", model, "small")
    (code,) = (block for block in blocks("python") if "hub:" in block)
    code = re.sub(r"hub:yucornetto/(tokenizer|generator)_titok_l32_imagenet", rf"{tmp_path}/\1.safetensors", code)
    made: dict = {}
    exec(compile(code, "README.md", "exec"), made)
    assert made["tokens"].shape == (3, 32) and made["pixels"].shape == (3, 3, 256, 256)


def test_python_example_keeps_the_picture_size(workplace, capsys):
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "(451, 300)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_match_the_result_files(page):
    assert render(page.read_text()) == page.read_text(), "run python -m bench.tables"


def test_every_table_marker_has_a_maker():
    for page in PAGES:
        assert set(re.findall(r"<!-- table: (\w+)", page.read_text())) <= TABLES.keys()


def test_the_figures_are_those_of_their_results(tmp_path):
    """Byte for byte, where the same matplotlib is installed; others place text a little differently."""
    matplotlib = pytest.importorskip("matplotlib", reason="figures need matplotlib (pip install .[bench])")
    from bench import ablation, headline, plots

    plots.save(headline.plot(RESULTS / next(iter(SETS))), tmp_path / "headline.svg")
    found = json.loads((RESULTS / "ablation.json").read_text())
    plots.save(plots.sweeps(found, ablation.METRICS, ablation.SWEEPS), tmp_path / "ablation.svg")
    for name in ("headline.svg", "ablation.svg"):
        committed, now = ((folder / name).read_text(encoding="utf-8") for folder in (RESULTS, tmp_path))
        texts = [re.findall(r">([^<>]+)</text>", svg) for svg in (committed, now)]
        assert texts[0] == texts[1], f"{name}: run python -m bench.headline"
        if f"Matplotlib v{matplotlib.__version__}," in committed:
            assert committed == now, f"{name} is of other results: make it again"


def test_the_sheet_is_that_of_its_gallery():
    path = RESULTS / "extremes.webp"
    whys = [row["why"] for row in extremes.chosen(RESULTS / GALLERY, 2)]
    assert whys == ["worst", "second worst", "best", "second best"]
    width, height = Image.open(path).size
    assert width == 7 * 256 + 6 * GAP and 4 * 256 < height < 4 * 330
    assert path.stat().st_size < 180_000


def test_the_first_picture_is_small_and_of_rows_of_seven():
    path = RESULTS / "gallery.webp"
    width, height = Image.open(path).size
    assert width == 7 * 256 + 6 * GAP and 5 * 256 < height < 5 * 330
    assert path.stat().st_size < 250_000 and "](bench/results/gallery.webp)" in README


@pytest.mark.parametrize(
    ("module", "folder", "out"),
    [("headline", next(iter(SETS)), "headline.svg"), ("extremes", GALLERY, "extremes.webp")],
)
def test_pictures_stand_beside_the_commands_that_make_them(module, folder, out):
    assert f"python -m bench.{module} bench/results/{folder} --out bench/results/{out}\n" in README
    assert f"](bench/results/{out})" in README


def test_linked_files_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), target


def test_command_lines_are_understood(workplace):
    """Each titok-* line of the README parses: its options exist and its arguments are enough."""
    from titokcodec import cli

    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("titok-")]
    assert len(lines) >= 8
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        command = getattr(cli, name.removeprefix("titok-"))
        command.make_context(name, arguments, resilient_parsing=False).close()
