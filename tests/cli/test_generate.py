"""``titok-generate`` as a user meets it. Generator and tokenizer are tiny; their pictures are noise."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.cli.conftest import ENVIRONMENT, NETWORK, TINY
from tests.models.test_maskgit import build
from titokcodec import Codec, Generator, WeightsError, cli, info
from titokcodec.cli.reporter import Reporter
from titokcodec.generator import Card, save
from titokcodec.guidance import NEUTRAL
from titokcodec.models.code_transformer import sizes_of
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.sampling import Settings
from titokcodec.schedules import SCHEDULES
from titokcodec.weights import generators, releases

CONFIG = GeneratorConfig("bert", 12, codes=64, classes=4, width=32, layers=2, heads=4, mlp=40)  # the file has 16 tokens
NAMES = ("ant", "bee", "golden retriever", "tench, Tinca/tinca")
CELL = 256 + 4


@pytest.fixture(scope="module")
def weights(codec, tmp_path_factory):
    """A generator's file."""
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    save(path, build(CONFIG), "small", tokenizer=codec.weights.fingerprint, class_names=NAMES)
    return path


@pytest.fixture(scope="module")
def shared(weights):
    """It, loaded."""
    return Generator.from_pretrained(weights, device="cpu", dtype="fp32")


@pytest.fixture(autouse=True)
def one_generator(weights, shared, monkeypatch):
    """Commands take the shared generator too."""
    real = Generator.from_pretrained

    def generator_of(source=None, **options):
        return shared if source == str(weights) else real(source, **options)

    monkeypatch.setattr(Generator, "from_pretrained", generator_of)
    return shared


@pytest.fixture
def call(here, weights):
    """Run the command in this process and an empty folder, with the tiny models."""

    def run(*arguments, stdin=None):
        generator = [] if "--to" in arguments else ["--generator", weights]
        network = ["--model", TINY, *generator, "--device", "cpu", "--dtype", "fp32"]
        line = [str(argument) for argument in (*network, *arguments)]
        return CliRunner().invoke(cli.generate, line, input=stdin, catch_exceptions=False)

    return run


@pytest.fixture
def photo_file(here, codec, photo):
    """photo.titok, one tile of 16 tokens for 300 x 200 pixels."""
    data = codec.compress(photo.resize((300, 200)))
    Path("photo.titok").write_bytes(data)
    return data


def failed(result, *parts, code=1):
    """The command reported it in one line and wrote nothing to standard output."""
    assert (result.exit_code, result.stdout) == (code, "")
    if code == 1:
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("titok-generate: "), result.stderr
    for part in parts:
        assert part in result.stderr


def files(folder="."):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def cell(sheet, row, column, size=(256, 256)):
    left, top = column * (size[0] + 4), row * (size[1] + 4)
    return np.asarray(sheet.crop((left, top, left + size[0], top + size[1])))


# ---- pictures of a class ---------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(call):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call("--class", "bee", "-n", 3, "--seed", seed, "-o", f"{name}.png").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() != Path("c.png").read_bytes()
    call("--class", "ant", "-n", 3, "--seed", 1, "-o", "d.png")
    assert Path("d.png").read_bytes() != Path("a.png").read_bytes()


def test_networks_run_in_float32_unless_asked(call, monkeypatch):
    """In bfloat16 what a picture is may depend on how many are made with it, which --seed promises not to."""
    asked = []

    def opened(source=None, **options):
        asked.append(options["dtype"])
        raise WeightsError("enough")

    monkeypatch.setattr(Generator, "from_pretrained", opened)
    for line in ([], ["--dtype", "bf16"]):
        CliRunner().invoke(cli.generate, ["-o", "a.png", *line])
    assert asked == ["fp32", "bf16"]


def test_a_class_is_a_name_or_a_number(call):
    call("-c", "golden retriever", "--seed", 4, "-o", "a.titok")
    call("-c", "2", "--seed", 4, "-o", "b.titok")
    call("--seed", 4, "-o", "c.titok")
    found = files()
    assert found["a.titok"] == found["b.titok"] != found["c.titok"]


def test_without_a_seed_one_is_chosen_and_printed(call):
    message, later = (call("-o", name).stderr for name in ("a.titok", "c.titok"))
    seed, other = (line.split("seed ")[1].split()[0] for line in (message, later))
    assert message.startswith("a picture -> a.titok  256x256  fit, 12 tokens  ")
    assert seed != other  # so small a generator may still make the same picture of both
    assert call("-o", "b.titok", "--seed", seed).exit_code == 0
    found = files()
    assert found["a.titok"] == found["b.titok"]


@pytest.mark.parametrize(("count", "size"), [(2, (2, 1)), (3, (2, 2)), (5, (3, 2)), (7, (3, 3)), (17, (5, 4))])
def test_grids_are_nearly_square(call, codec, monkeypatch, count, size):
    monkeypatch.setattr(codec, "decompress_batch", lambda files, **_: [Image.new("RGB", (256, 256))] * len(files))
    assert call("-n", count, "--seed", 1, "-o", "grid.png").exit_code == 0
    assert Image.open("grid.png").size == (size[0] * CELL - 4, size[1] * CELL - 4)


def test_one_picture_is_no_grid(call, codec):
    call("-c", "bee", "--seed", 1, "-o", "a.png")
    call("-c", "bee", "--seed", 1, "-o", "a.titok")
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(codec.decompress(Path("a.titok").read_bytes())))


def test_files_hold_what_the_grid_shows_and_decompress_as_it(call):
    """Five pictures of three classes in turns; in files named after them, in a grid, and decompressed."""
    request = ["-c", "ant", "-c", "2", "-c", "tench, Tinca/tinca", "-n", 5, "--seed", 7]
    assert call(*request, "-o", "out/", "--format", "titok").exit_code == 0
    assert call(*request, "-o", "grid.png").exit_code == 0
    names = ["2-001", "2-004", "ant-000", "ant-003", "tench-Tinca-tinca-002"]
    assert list(files("out")) == [f"{name}.titok" for name in names]
    line = ["out", "-o", "back", "-m", TINY, "-d", "cpu", "--dtype", "fp32"]
    assert CliRunner().invoke(cli.decompress, line).exit_code == 0
    sheet = Image.open("grid.png")
    for name in names:
        row, column = divmod(int(name[-3:]), 3)
        shown = np.asarray(Image.open(f"back/{name}.png")).astype(int)
        assert np.abs(cell(sheet, row, column) - shown).max() <= 1
    assert (cell(sheet, 1, 2) == 255).all() and (np.asarray(sheet)[:, 256:260] == 255).all()


def test_files_are_small_and_of_the_generators_tokens(call, codec):
    call("-n", 3, "-o", "out", "--format", "titok")
    for data in files("out").values():
        about = info(data)
        assert (about.width, about.height, about.tiles, about.tokens, about.layout) == (256, 256, 1, 12, "fit")
        assert about.intact and about.bytes <= 32 and codec.read(data).shape == (1, 12)


@pytest.mark.parametrize(("classes", "count", "size"), [(2, 8, (4, 2)), (3, 9, (3, 3)), (3, 6, (3, 2)), (4, 4, (2, 2))])
def test_a_class_stands_below_itself_in_a_grid(call, classes, count, size):
    line = [word for name in NAMES[:classes] for word in ("-c", name)]
    assert call(*line, "-n", count, "-o", "grid.png").exit_code == 0
    assert Image.open("grid.png").size == (size[0] * CELL - 4, size[1] * CELL - 4)


def test_more_pictures_begin_with_the_same_ones(call, codec, monkeypatch):
    """Whatever they share a batch with; and no two are alike."""
    call("-c", "bee", "-n", 2, "--seed", 3, "-o", "two", "--format", "titok")
    call("-c", "bee", "-n", 5, "--seed", 3, "-o", "five", "--format", "titok")
    monkeypatch.setattr(codec, "batch_size", 2)
    call("-c", "bee", "-n", 5, "--seed", 3, "-o", "slow", "--format", "titok")
    two, five = files("two"), files("five")
    assert files("slow") == five and len(set(five.values())) == 5
    assert two.items() < five.items()


def test_settings_reach_the_sampler(call, one_generator, monkeypatch):
    asked = []
    real = one_generator.sample
    monkeypatch.setattr(
        one_generator,
        "sample",
        lambda labels, noise, **settings: asked.append(settings) or real(labels, noise=noise, **settings),
    )
    call("-o", "a.titok")
    line = "--steps 3 --guidance-scale 2 --guidance power-cosine --guidance-interval 0.25,1 --schedule root"
    line += " --temperature 0 --top-p .5 --softmax-temperature --tokens 12"
    call("-o", "b.titok", *line.split())
    assert asked[0] == {"tokens": None}  # the rest is as the generator has it
    assert asked[1].pop("tokens") == 12
    assert Settings(**asked[1]) == Settings(3, 2.0, "power-cosine", "root", 0.0, True, (0.25, 1.0), 0.5)


def test_defaults_in_the_help_are_those_of_the_library():
    shown = {param.name: getattr(param, "show_default", "") for param in cli.generate.params}
    for field in fields(Settings):
        default = {"guidance_interval": "0,1", "softmax_temperature": "no"}.get(
            field.name, f"{field.default:g}" if isinstance(field.default, float) else field.default
        )
        assert shown[field.name] == f"the generator's own, else {default}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--guidance-interval", "1"], "rising numbers from 0 to 1"),
        (["--guidance-interval", "0.5,0.5"], "rising numbers from 0 to 1"),
        (["--guidance-interval", "nan,1"], "rising numbers from 0 to 1"),
        (["--guidance-interval", "0,1,2"], "rising numbers from 0 to 1"),
        (["--top-p", "0"], "above 0, up to 1"),
        (["--temperature", "-1"], "0 or more"),
        (["--guidance-scale", "inf"], "finite"),
        (["--tokens", "0"], "0 is not in the range"),
        (["-n", "9" * 24], "is not in the range 1<=x<=100000"),
    ],
)
def test_senseless_settings_are_refused(call, arguments, said):
    failed(call("-o", "a.png", *arguments), said, code=2)
    assert files() == {}


def test_the_command_knows_all_kinds_of_the_sampler():
    choices = {param.name: getattr(param.type, "choices", None) for param in cli.generate.params}
    assert list(choices["schedule"]) == list(SCHEDULES) and list(choices["guidance"]) == list(NEUTRAL)


# ---- coarse to fine, and token by token ------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["masked", "causal"])
def nested(request, codec, tmp_path):
    """The file of a generator of 8, 12 or 16 tokens of the tiny tokenizer's codes, and whether it is causal."""
    torch.manual_seed(1)
    quantizer = codec.model.quantize
    config = GeneratorConfig(
        "codes",
        classes=2,
        width=32,
        layers=1,
        heads=2,
        mlp=32,
        hidden=16,
        prefixes=(8, 12, 16),
        causal=request.param,
        **sizes_of(quantizer, 16),
    )
    model = make(config)
    model.set_codes(quantizer)
    save(tmp_path / "nested.safetensors", model, "coarse", class_names=("ant", "bee"), settings=Settings(2))
    return tmp_path / "nested.safetensors", request.param


def test_fewer_tokens_are_asked_for(call, nested):
    path, causal = nested
    for count in (8, 12, 16):
        result = call("-g", path, "-c", "bee", "--tokens", count, "--seed", 1, "-o", f"{count}.titok")
        assert result.exit_code == 0 and f"{count} tokens" in result.stderr, result.stderr
    call("-g", path, "-c", "bee", "--seed", 1, "-o", "all.titok")
    assert Path("all.titok").read_bytes() == Path("16.titok").read_bytes()
    assert [info(f"{count}.titok").tokens for count in (8, 12, 16)] == [8, 12, 16]
    failed(call("-g", path, "--tokens", 5, "-o", "a.png"), "tokens is 5: coarse makes pictures of 8, 12 or 16 tokens")
    result = call("-g", path, "--steps", 3, "-o", "a.titok")
    if causal:
        failed(result, "generator coarse samples one token after the other: leave --steps out")
    else:
        assert result.exit_code == 0


def test_pictures_of_any_number_of_tokens_can_be_varied(call, codec, nested, photo):
    path, _ = nested
    for count, asked, found in ((16, [], 16), (13, [], 12), (16, ["--tokens", 8], 8)):
        Path("photo.titok").write_bytes(codec.compress(photo, tokens=count))
        line = ["-g", path, "--from", "photo.titok", "--seed", 1, "-o", "new.titok", "-f"]
        assert call(*line, *asked).exit_code == 0
        assert info("new.titok").tokens == found
    Path("photo.titok").write_bytes(codec.compress(photo, tokens=8))
    failed(call("-g", path, "--from", "photo.titok", "--tokens", 12, "-o", "a.png"), "has 8 tokens", "needs 12")


# ---- where they go ---------------------------------------------------------------------------------------------


def test_the_suffix_or_the_format_decides_what_is_written(call):
    for arguments, name, kind in [
        (["-o", "a.jpg"], "a.jpg", "JPEG"),
        (["-o", "a.x", "--format", "webp"], "a.x", "WEBP"),
        (["-o", "new"], "new/any-000.png", "PNG"),
        (["-o", "b/c/", "--format", "bmp"], "b/c/any-000.bmp", "BMP"),
        (["-o", "d", "--format", "jpg"], "d/any-000.jpg", "JPEG"),
    ]:
        assert call(*arguments).exit_code == 0
        assert Image.open(name).format == kind


def test_streams_hold_the_result_and_nothing_else(call):
    call("-c", "bee", "-n", 2, "--seed", 1, "-o", "a.png")
    call("-c", "bee", "--seed", 1, "-o", "a.titok")
    result = call("-c", "bee", "-n", 2, "--seed", 1, "-o", "-")
    assert result.stdout_bytes == Path("a.png").read_bytes()
    assert result.stderr.startswith("2 pictures of bee -> stdout  ")
    result = call("-c", "bee", "--seed", 1, "-o", "-", "--format", "titok", "--json")
    assert result.stdout_bytes == Path("a.titok").read_bytes()
    assert json.loads(result.stderr)["output"] == "-"


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null here")
def test_devices_get_what_standard_output_would(call):
    result = call("-o", "/dev/null", "--seed", 1)
    assert result.exit_code == 0 and result.stderr.startswith("a picture -> /dev/null  ")


def test_nothing_is_replaced_unasked(call, one_generator, monkeypatch):
    Path("out").mkdir()
    Path("out/any-002.png").write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(one_generator, "sample", None)  # it is not even tried
        failed(call("-n", 3, "-o", "out"), "out/any-002.png exists", "--force")
    assert files("out") == {"any-002.png": b"precious"}
    assert call("-n", 3, "-o", "out", "-f", "-q").stderr == ""
    assert len(files("out")) == 3 and b"precious" not in files("out").values()
    before = files("out")
    failed(call("-o", "out/any-001.png"), "exists")
    failed(call("-o", "missing/a.png"), "there is no folder missing")
    Path("plain").write_text("")
    failed(call("-o", "plain/"), "plain/ is not a folder")
    failed(call("-o", "plain"), "without a suffix", code=2)
    assert files("out") == before


def test_what_fails_leaves_nothing(call, codec, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    failed(call("-n", 2, "-o", "grid.png"), "cannot write grid.png: No space left")
    assert files() == {}


def test_json_is_one_object_a_file(call):
    result = call("-c", "ant", "-c", "3", "--seed", 8, "-o", "out", "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    size = Path("out/3-001.png").stat().st_size
    assert (first["output"], first["classes"], second["classes"]) == ("out/ant-000.png", ["ant"], ["3"])
    assert (first["width"], first["tokens"], first["seed"], first["pictures"]) == (256, 12, 8, 1)
    assert 0 < second["bytes"] < 40 < size and second["seconds"] >= 0 and result.stderr == ""
    facts = json.loads(call("-n", 3, "-o", "grid.png", "--json").stdout)
    assert facts["pictures"] == 3 and facts["classes"] == [None] * 3
    result = call("-c", "bees", "-o", "b.png", "--json")
    assert result.exit_code == 1 and "did you mean 'bee'" in json.loads(result.stdout)["error"]


def test_the_last_line_counts_them(call):
    message = call("-c", "ant", "-c", "bee", "-n", 4, "--seed", 8, "-o", "out").stderr
    assert message.startswith("4 pictures of ant, bee -> out  ") and "bytes as .titok files  seed 8" in message
    many = [part for name in NAMES for part in ("-c", name)]
    assert call(*many, "-o", "grid.png").stderr.startswith("4 pictures of 4 classes -> grid.png  ")


# ---- variations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "changed"), [(0.25, 3), (0.5, 6), (0.001, 1), (1, 12)])
def test_variations_keep_the_other_tokens(call, codec, photo_file, share, changed):
    """The generator has 12 tokens: of the file's 16 they are the first."""
    line = ["--from", "photo.titok", "--vary", share, "-n", 6, "--temperature", 50, "--format", "titok"]
    assert call(*line, "--seed", 1, "-o", "a").exit_code == 0
    assert call(*line, "--seed", 1, "-o", "b").exit_code == 0
    assert call(*line, "--seed", 2, "-o", "c").exit_code == 0
    assert list(files("a")) == [f"photo-00{n}.titok" for n in range(6)]
    assert files("a") == files("b") and files("a") != files("c")
    before = codec.read(photo_file)[:, :12]
    differ = [(codec.read(data) != before).sum().item() for data in files("a").values()]
    assert max(differ) <= changed and sum(differ) > 6 * changed * 0.7  # one in 64 new tokens is the old one by chance


def test_the_seed_chooses_which_tokens(call, codec, photo_file):
    call("--from", "photo.titok", "-n", 8, "--temperature", 50, "-o", "a", "--format", "titok", "--seed", 1)
    before = codec.read(photo_file)[:, :12]
    places = {tuple((codec.read(data) != before)[0].tolist()) for data in files("a").values()}
    assert len(places) >= 6 and all(sum(place) <= 4 for place in places)  # 0.3 of 12


def test_variations_have_the_size_and_colour_of_the_original(call, codec, photo):
    Path("grey.titok").write_bytes(codec.compress(photo.convert("L").resize((200, 120))))
    line = ["--from", "grey.titok", "-n", 2, "--seed", 1]
    assert call(*line, "-o", "a.png").exit_code == 0
    assert call(*line, "-o", "b", "--format", "titok").exit_code == 0
    sheet = Image.open("a.png")
    assert (sheet.size, sheet.mode) == ((404, 120), "L")
    for column, data in enumerate(files("b").values()):
        about = info(data)
        assert (about.width, about.height, about.layout, about.grey) == (200, 120, "fit", True)
        shown = np.asarray(codec.decompress(data)).astype(int)
        assert np.abs(cell(sheet, 0, column, (200, 120)) - shown).max() <= 1


def test_a_variation_may_go_from_stream_to_stream(call, photo_file):
    message = call("--from", "photo.titok", "--seed", 1, "-o", "a.titok").stderr
    assert message.startswith("a variation of photo.titok -> a.titok  300x200  ")
    result = call("--from", "-", "--seed", 1, "-o", "-", "--format", "titok", stdin=photo_file)
    assert result.stdout_bytes == Path("a.titok").read_bytes()
    assert call("--from", "-", "-o", "out", "-q", stdin=photo_file).exit_code == 0
    assert list(files("out")) == ["variation-000.png"]


def test_a_variation_may_have_a_class(call, photo_file):
    for name, label in (("a", "ant"), ("b", "bee")):
        message = call("--from", "photo.titok", "--vary", 1, "-c", label, "--seed", 1, "-o", f"{name}.titok").stderr
        assert message.startswith(f"a variation of photo.titok as {label} -> ")
    assert Path("a.titok").read_bytes() != Path("b.titok").read_bytes()


def test_files_that_cannot_be_varied_are_refused(call, codec, photo, photo_file, monkeypatch):
    Path("few.titok").write_bytes(codec.compress(photo, layout="fit", tokens=11))
    Path("tiles.titok").write_bytes(codec.compress(photo, layout="tile"))
    Path("cut.titok").write_bytes(photo_file[:-3])
    Path("text.titok").write_text("no picture")
    for name, *parts in [
        ("few", "11 tokens", "small needs 12", "--tokens 12"),
        ("tiles", "tiles", "--layout fit"),
        ("cut", "checksum"),
        ("text", "not a .titok file"),
        ("missing", "No such file"),
    ]:
        failed(call("--from", f"{name}.titok", "-o", "a.png"), f"titok-generate: {name}.titok: ", *parts)
    other = replace(codec.weights, fingerprint=b"retired!", name="other")
    Path("other.titok").write_bytes(Codec(other, codec.model, codec.device, codec.dtype).compress(photo, layout="fit"))
    failed(call("--from", "other.titok", "-o", "a.png"), "other.titok: ", b"retired!".hex(), "'tiny'", "weight file")
    monkeypatch.setattr(Codec, "from_pretrained", None)  # a file that is too large is not worth a model
    failed(call("--from", "photo.titok", "-o", "a.png", "--max-pixels", 59_999), "photo.titok: ", "--max-pixels")
    assert not Path("a.png").exists()


def test_coarse_tokens_can_be_kept(call, codec, photo_file):
    """All others change unless a share is given; of 64 codes, one is drawn again by chance now and then."""
    before = codec.read(photo_file)[0, :12]
    line = ["--from", "photo.titok", "--keep", 8, "-n", 6, "--temperature", 50, "--format", "titok", "--seed", 1]
    for folder, added, expected in (("all", [], 4), ("half", ["--vary", 0.5], 2)):
        assert call(*line, *added, "-o", folder).exit_code == 0
        changed = [(codec.read(data)[0] != before) for data in files(folder).values()]
        assert not any(row[:8].any() for row in changed)
        assert max(row.sum() for row in changed) <= expected and sum(row.sum() for row in changed) > 6 * expected * 0.7
    failed(call("--from", "photo.titok", "--keep", 12, "-o", "a.png"), "photo.titok: ", "12", "keep fewer")


# ---- a region filled anew --------------------------------------------------------------------------------------


def test_around_a_region_a_picture_stays_as_it_was(call, codec, photo_file):
    """To the pixel, whatever the size; inside the samples differ, and a class has its say."""
    line = ["--from", "photo.titok", "--region", "60,50,120,90", "-n", 2, "--seed", 1]
    message = call(*line, "-o", "out").stderr
    assert message.startswith("2 fillings of 60,50,120,90 in photo.titok -> out  "), message
    before = np.asarray(codec.decompress(photo_file)).astype(int)
    outside = np.ones((200, 300), bool)
    outside[50:140, 60:180] = False
    first, second = (np.asarray(Image.open(f"out/photo-00{n}.png")).astype(int) for n in range(2))
    for picture in (first, second):
        assert picture.shape == before.shape and (picture[outside] == before[outside]).all()
        assert np.abs(picture - before)[80:110, 100:140].mean() > 3
    assert (first != second).any()
    for added in (["-c", "bee"], ["--vary", 0.1]):
        assert call(*line, *added, "-o", added[0].strip("-")).exit_code == 0
        assert files(added[0].strip("-")) != files("out")


def test_a_filled_region_as_a_file(call, codec, photo_file):
    """It has as many tokens as the original, though the generator makes fewer, and the same seed gives it again."""
    line = ["--from", "photo.titok", "--region", "0,0,150,200", "--seed", 3]
    for name in ("a.titok", "b.titok"):
        assert call(*line, "-o", name).exit_code == 0
    assert Path("a.titok").read_bytes() == Path("b.titok").read_bytes() != photo_file
    about = info("a.titok")
    assert (about.width, about.height, about.tokens) == (300, 200, 16)


@pytest.mark.parametrize(
    ("region", "code", "parts"),
    [
        ("60,50,241,90", 1, ["photo.titok: ", "60,50,241,90 is not inside the picture, which has 300x200 pixels"]),
        ("300,0,1,1", 1, ["not inside"]),
        ("3,0,1,1", 1, ["photo.titok: --region 3,0,1,1 is too small to change anything: give a larger one"]),
        ("0,0,0,10", 2, ["width is 0", "1 or more"]),
        ("-1,0,5,10", 2, ["left is -1"]),
        ("1,2,3", 2, ["LEFT,TOP,WIDTH,HEIGHT"]),
        ("a,b,c,d", 2, ["LEFT,TOP,WIDTH,HEIGHT"]),
    ],
)
def test_regions_that_cannot_be_filled(call, photo_file, region, code, parts):
    failed(call("--from", "photo.titok", "--region", region, "-o", "a.png"), *parts, code=code)
    assert not Path("a.png").exists()


def test_coarse_to_fine_generators_edit_any_number_of_tokens(call, codec, nested, photo):
    """The coarse tokens of 12 stay where only the finer ones are sampled; a filled region leaves a file its 16."""
    path, _ = nested
    Path("photo.titok").write_bytes(codec.compress(photo))
    line = ["-g", path, "--from", "photo.titok", "--seed", 1, "-f", "-o", "new.titok"]
    assert call(*line, "--tokens", 12, "--keep", 8).exit_code == 0
    before, after = codec.read("photo.titok"), codec.read("new.titok")
    assert after.shape == (1, 12) and (after[:, :8] == before[:, :8]).all()
    assert call(*line, "--region", "0,0,64,64").exit_code == 0
    assert codec.read("new.titok").shape == (1, 16)


# ---- what is printed on the way ---------------------------------------------------------------------------------


def test_a_terminal_shows_how_many_are_done(monkeypatch, capsys):
    """In a line that is rewritten, and gone when the next one is printed."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    reporter = Reporter("titok-generate")
    reporter.count(16, 40)
    reporter.text("done")
    reporter.count(1, 1)
    Reporter("titok-generate", quiet=True).count(16, 40)
    assert capsys.readouterr().err == "\r16 of 40\r\x1b[Kdone\n"


# ---- pictures between two --------------------------------------------------------------------------------------


def test_the_way_from_one_picture_to_another(call, codec, photo, photo_file, monkeypatch):
    """Without a generator; both ends are those of the files, and all have the size of the first."""
    monkeypatch.setattr(Generator, "from_pretrained", None)
    Path("other.titok").write_bytes(codec.compress(photo.rotate(180).convert("L"), layout="fit"))
    message = call("--from", "photo.titok", "--to", "other.titok", "-n", 4, "-o", "strip.png").stderr
    assert message.startswith("4 pictures from photo.titok to other.titok -> strip.png  ")
    strip = Image.open("strip.png")
    assert (strip.size, strip.mode) == ((4 * 304 - 4, 200), "RGB")
    assert call("--from", "photo.titok", "--to", "other.titok", "-o", "way", "--format", "titok").exit_code == 0
    made = [*files("way").values()]
    assert len(made) == 7 and len({*made}) == 7 and made[0] == photo_file
    assert (codec.read(made[-1]) == codec.read("other.titok")).all()
    shown = [np.asarray(codec.decompress(data)).astype(float) for data in made]
    apart = [np.abs(picture - shown[0]).mean() for picture in shown]
    assert apart[1] < apart[3] < apart[6]


@pytest.mark.parametrize(
    "idle",
    [("-g", "no.safetensors"), ("-c", "ant"), ("--seed", "1"), ("--temperature", "0.5"), ("--steps", "2")],
)
def test_the_way_asks_no_generator(call, photo_file, idle):
    """Options that would have no effect are refused, and nothing is said of a seed that plays no part."""
    result = call("--from", "photo.titok", "--to", "photo.titok", *idle, "-o", "a.png")
    assert result.exit_code == 2 and "--to mixes two pictures and asks no generator: leave --" in result.stderr
    line = ["--from", "photo.titok", "--to", "photo.titok", "-n", 1, "-o", "a.png"]
    said = call(*line).stderr
    assert said.startswith("a picture from photo.titok to photo.titok -> a.png") and "seed" not in said
    assert json.loads(call(*line, "--force", "--json").stdout)["seed"] is None


def test_two_files_that_do_not_go_together(call, codec, photo, photo_file):
    Path("few.titok").write_bytes(codec.compress(photo, layout="fit", tokens=8))
    Path("tiles.titok").write_bytes(codec.compress(photo, layout="tile"))
    other = replace(codec.weights, fingerprint=b"retired!", name="other")
    Path("other.titok").write_bytes(Codec(other, codec.model, codec.device, codec.dtype).compress(photo, layout="fit"))
    failed(call("--from", "photo.titok", "--to", "other.titok", "-o", "a.png"), "other.titok: ", b"retired!".hex())
    failed(call("--from", "photo.titok", "--to", "tiles.titok", "-o", "a.png"), "tiles.titok: ", "--layout fit")
    failed(call("--from", "photo.titok", "--to", "few.titok", "--tokens", 16, "-o", "a.png"), "few.titok: ", "8 tokens")
    assert call("--from", "photo.titok", "--to", "few.titok", "-n", 3, "-o", "way", "--format", "titok").exit_code == 0
    assert {codec.read(data).shape for data in files("way").values()} == {(1, 8)}  # as many as both have


# ---- what cannot be done ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("bees", "has no class 'bees': did you mean 'bee'? It has ant, bee, golden retriever, tench, Tinca/tinca"),
        ("Retriever", "did you mean 'golden retriever'?"),
        ("zebra", "has no class 'zebra': it has ant, bee, golden retriever"),
        ("zebra", "has no class 'zebra'"),
        ("4", "no class has the number 4: give 0 to 3\n"),
        ("-1", "has no class '-1'"),
        ("", "has no class ''"),
    ],
)
def test_unknown_classes(call, label, message):
    """Nothing is made of the known ones either."""
    failed(call("-c", "ant", "-c", label, "-o", "out"), message)
    assert files() == {}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-n", "3"],
        ["-o", "a.png", "-n", "0"],
        ["-o", "a.png", "--seed", "-1"],
        ["-o", "a.png", "--seed", "x"],
        ["-o", "a.titok", "-n", "2"],
        ["-o", "-", "-n", "2", "--format", "titok"],
        ["-o", "a.png", "--format", "nonsense"],
        ["-o", "a.png", "-c", "ant", "-c", "bee", "-n", "1"],
        ["-o", "a.png", "--vary", "0.5"],
        ["-o", "a.png", "--from", "b.titok", "--vary", "0"],
        ["-o", "a.png", "--from", "b.titok", "--vary", "1.1"],
        ["-o", "a.png", "--from", "b.titok", "--vary", "nan"],
        ["-o", "a.png", "--keep", "8"],
        ["-o", "a.png", "--from", "b.titok", "--keep", "0"],
        ["-o", "a.png", "--region", "0,0,9,9"],
        ["-o", "a.png", "--to", "b.titok"],
        ["-o", "a.png", "--from", "-", "--to", "-"],
        ["-o", "a.png", "--from", "b.titok", "--to", "c.titok", "-c", "ant"],
        ["-o", "a.png", "--from", "b.titok", "--to", "c.titok", "--region", "0,0,9,9"],
        ["-o", "a.png", "--from", "b.titok", "--region", "0,0,9,9", "--keep", "8"],
        ["-o", "a.png", "--steps", "0"],
        ["-o", "a.png", "--guidance", "square"],
        ["-o", "a.png", "stray"],
    ],
)
def test_usage_errors_end_with_2_and_write_nothing(call, arguments):
    failed(call(*arguments), "Error: ", code=2)
    assert files() == {}


def test_numbers_that_make_no_sense_are_one_line(call):
    failed(call("-o", "a.png", "--temperature", "-1"), "temperature is -1.0", code=2)
    failed(call("-o", "a.png", "--guidance-scale", "nan"), "guidance_scale is nan", code=2)
    failed(call("-o", "a.xyz"), "cannot write a picture as '.xyz'", code=2)
    failed(call("-o", "grid.png", "-n", "2000"), "a grid of 2000 pictures", "-o a folder", "--max-pixels")
    failed(call("-o", "grid.png", "-n", "2", "--max-pixels", 516 * 256 - 1), "516x256")
    assert call("-o", "grid.png", "-n", "2", "--max-pixels", 516 * 256).exit_code == 0


def test_generators_and_models_must_fit(call, codec, here, tmp_path):
    save(tmp_path / "other.safetensors", build(CONFIG), "other", tokenizer=bytes(8))
    failed(call("-g", tmp_path / "other.safetensors", "-o", "a.png"), "other was trained for tokenizer", "not for tiny")
    failed(call("-g", TINY, "-o", "a.png"), "tokenizer or another model")
    failed(call("-g", "missing.safetensors", "-o", "a.png"), "no weight file at missing.safetensors")
    failed(call("-m", "missing.safetensors", "-o", "a.png"), "no weight file at missing.safetensors")
    assert not Path("a.png").exists()


def test_interruption_is_quiet(call, one_generator, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(one_generator, "sample", interrupted)
    result = call("-n", 2, "-o", "out")
    assert (result.exit_code, result.stderr) == (130, "") and files() == {}


# ---- classes, the bundled generator, and what is loaded ----------------------------------------------------------


def test_list_classes(call, tmp_path):
    result = call("--list-classes")
    assert result.stdout == "0\tant\n1\tbee\n2\tgolden retriever\n3\ttench, Tinca/tinca\n"
    assert (result.exit_code, result.stderr) == (0, "")
    facts = [json.loads(line) for line in call("--list-classes", "--json").stdout.splitlines()]
    assert facts == [{"number": number, "name": name} for number, name in enumerate(NAMES)]
    save(tmp_path / "nameless.safetensors", build(CONFIG), "nameless")
    failed(call("--list-classes", "-g", tmp_path / "nameless.safetensors"), "nameless has no names", "0 to 3")


def test_without_a_bundled_generator_one_must_be_named(here, monkeypatch):
    monkeypatch.setattr(releases, "GENERATORS", ())
    for arguments in (["--list-classes"], ["-o", "a.png"]):
        failed(CliRunner().invoke(cli.generate, [*arguments, "-m", TINY]), "no generator comes with", "--generator")


def test_the_newest_bundled_generator_is_the_default(weights, codec, tmp_path, monkeypatch):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "second.safetensors").write_bytes(weights.read_bytes())
    monkeypatch.setattr(generators.resources, "files", lambda package: tmp_path)
    monkeypatch.setattr(releases, "GENERATORS", ("first.safetensors", "second.safetensors"))
    fingerprint = Generator.from_pretrained(weights).fingerprint
    assert Generator.from_pretrained().fingerprint == Generator.from_pretrained(None).fingerprint == fingerprint
    card, _ = generators.read()
    assert card == Card("small", CONFIG, codec.weights.fingerprint, NAMES, fingerprint)
    assert CliRunner().invoke(cli.generate, ["--list-classes"]).stdout.startswith("0\tant\n")
    monkeypatch.setattr(releases, "GENERATORS", ("third.safetensors",))
    with pytest.raises(WeightsError, match=r"third\.safetensors"):
        Generator.from_pretrained()


def test_help_is_instant_and_mistakes_show_before_torch_is_loaded(here):
    code = """
import sys
from titokcodec import cli
def end(*arguments):
    try:
        cli.generate(list(arguments))
    except SystemExit as end:
        return end.code
assert end("--help") == 0
assert not {"torch", "numpy", "PIL", "safetensors", "constriction"} & set(sys.modules), sorted(sys.modules)
open("a.png", "w").close(), open("b.titok", "w").close()
assert end("-o", "a.png") == 1 and end("-o", "c.png", "--from", "b.titok") == 1 and end("-n", "3") == 2
assert "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=ENVIRONMENT)
    assert b"a.png exists" in result.stderr and b"b.titok: " in result.stderr


def test_the_descriptor_of_standard_output_gets_exactly_the_stream(call, weights, capfdbinary):
    line = [*NETWORK, "-g", str(weights), "-c", "bee", "--seed", "5"]
    cli.generate([*line, "-o", "-", "--format", "titok"], standalone_mode=False)
    written = capfdbinary.readouterr().out
    call("-c", "bee", "--seed", 5, "-o", "a.titok")
    assert written == Path("a.titok").read_bytes()
