"""Training a generator: masks and losses by hand, the set of tokens, and a tiny one that learns what it is shown."""

import io
import json
import sys
import tarfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.ranks import two_ranks
from tests.training.test_stages import SMALL as TOKENIZER
from tests.training.test_stages import same
from titokcodec import Generator
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.config import PRESETS
from titokcodec.models.generator_config import GENERATOR_PRESETS, GeneratorConfig
from titokcodec.models.tokenizer import TiTok
from titokcodec.sampling import PUBLISHED, Settings
from titokcodec.schedules import SCHEDULES
from titokcodec.weights import generators, tokenizers
from training import defaults, generator, generator_starts, loop, token_sets
from training.data import Pictures
from training.generator import GeneratorTraining
from training.masking import draw_masks, masked_loss
from training.options import parse
from training.trainer import Trainer

SMALL = GeneratorConfig("bert", 8, classes=1, width=64, layers=2, heads=2, mlp=128)
SMALL_UVIT = GeneratorConfig("uvit", 8, classes=1, width=64, layers=2, heads=2, mlp=128)
SMALL_CODES = GeneratorConfig(
    "codes", 8, classes=1, width=64, layers=2, heads=2, mlp=128, prefixes=(1, 4, 8), code_width=12, hidden=32
)
SMALL_CAUSAL = replace(SMALL_CODES, causal=True)
COLOURS = ("blue", "green", "red", "yellow")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # slow to load, and not needed
    monkeypatch.setitem(GeneratorTraining.presets, "small", SMALL)
    monkeypatch.setitem(GeneratorTraining.presets, "small_uvit", SMALL_UVIT)
    monkeypatch.setitem(GeneratorTraining.presets, "small_codes", SMALL_CODES)
    monkeypatch.setitem(GeneratorTraining.presets, "small_causal", SMALL_CAUSAL)
    monkeypatch.setattr(GeneratorTraining, "tokenize", tokenize_pixels)


def tokenize_pixels(self, pixels):
    return torch.stack([unlike(picture) for picture in pixels])


def unlike(pixels):
    """(8,) tokens that are others for every picture, as those of an untrained tokenizer are not."""
    rng = torch.Generator().manual_seed(int(pixels.sum() * 100))
    return torch.randint(64, (8,), generator=rng)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight noisy pictures, two of each colour, with a table of labels."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    colours = {"red": (200, 40, 40), "green": (40, 180, 60), "blue": (50, 60, 210), "yellow": (220, 210, 50)}
    rows = ["key\tlabel"]
    for number in range(8):
        label = sorted(colours)[number % 4]
        pixels = np.clip(np.array(colours[label]) + random.normal(0, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"p{number}.png")
        rows.append(f"p{number}\t{label}")
    (folder / "labels.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.safetensors"
    tokenizers.save(path, TiTok(TOKENIZER), "random")
    return path


@pytest.fixture
def train(photos, tokenizer, tmp_path):
    def words(*more, steps=150, out="run", preset="small", labels=photos / "labels.tsv"):
        return [
            "--data",
            photos,
            *(["--labels", labels] if labels else []),
            "--tokenizer",
            tokenizer,
            "--tokens",
            8,
            "--out",
            tmp_path / out,
            "--device",
            "cpu",
            "--no-bf16",
            "--no-compile",
            "--preset",
            preset,
            "--batch",
            16,
            "--steps",
            steps,
            "--log-every",
            1,
            "--variants",
            1,
            "--dropout",
            0,
            "--smoothing",
            0,
            "--label-drop",
            0,
            "--rate",
            3e-3,
            *more,
        ]

    def run(*more, out="run", **changes):
        line = [str(word) for word in words(*more, out=out, **changes)]
        run.trainer = Trainer(GeneratorTraining, parse(GeneratorTraining, "", line))
        run.stage = run.trainer.stage
        loop.run(run.trainer)
        return [json.loads(line) for line in (tmp_path / out / "log.jsonl").read_text().splitlines()]

    run.out, run.words = tmp_path, words
    return run


# ---- a step by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "mean"), [("linear", 0.5), ("cosine", 0.637), ("arccos", 0.637), ("root", 0.333)])
def test_as_many_are_masked_as_the_schedule_says(schedule, mean):
    """The mean of the mask fraction over uniform ratios: 1/2, 2/pi, 2/pi and 1/3."""
    masked = draw_masks((4000, 64), schedule, torch.Generator().manual_seed(0))
    assert masked.float().mean().item() == pytest.approx(mean, abs=0.02)
    assert masked.sum(1).min() == 1  # never none
    assert masked.float().mean(0).std() < 0.02  # at all positions alike
    assert schedule in SCHEDULES


def test_the_loss_weighs_what_was_masked():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    target = torch.tensor([[0, 0]])
    each = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(1))]
    masked = torch.tensor([[True, False]])
    assert masked_loss(logits, target, masked, 0.0, 0.0).item() == pytest.approx(each[0])
    assert masked_loss(logits, target, masked, 0.0, 0.1).item() == pytest.approx((each[0] + 0.1 * each[1]) / 1.1)
    smooth = 0.9 * each[0] + 0.1 * (each[0] + np.log(1 + np.exp(2))) / 2
    assert masked_loss(logits, target, masked, 0.1, 0.0).item() == pytest.approx(smooth)


# ---- the set -----------------------------------------------------------------------------------------------------


def test_ranks_draw_one_batch_between_them():
    tokenized = token_sets.TokenSet(torch.arange(2 * 10 * 3).view(2, 10, 3).int(), torch.arange(10))
    whole = token_sets.TokenBatches(tokenized, 8, seed=1).batch(4)
    parts = [token_sets.TokenBatches(tokenized, 8, 1, rank, 2).batch(4) for rank in (0, 1)]
    for index in (0, 1):
        assert torch.cat([part[index] for part in parts]).equal(whole[index])
    assert whole[0][:, 0].remainder(30).div(3, rounding_mode="floor").equal(whole[1])  # a label goes with its tokens
    assert not whole[0].equal(token_sets.TokenBatches(tokenized, 8, seed=1).batch(5)[0])
    with pytest.raises(TitokError, match="multiple of 3"):
        token_sets.TokenBatches(tokenized, 8, 1, 0, 3)


def test_one_picture_in_twenty_is_held_out_by_its_key():
    keys = [f"picture_{number:05}" for number in range(20_000)]
    held = {key for key in keys if token_sets.is_held_out(key)}
    assert 0.045 < len(held) / len(keys) < 0.055
    assert {key for key in keys if token_sets.is_held_out(f"cat/{key}")} != held
    assert not any(token_sets.is_held_out(key, 0) for key in keys)
    assert 0.45 < sum(token_sets.is_held_out(key, 2) for key in keys) / len(keys) < 0.55


@pytest.fixture
def classes(tmp_path):
    """A function that makes a folder of two classes, whose pictures have the same names, for a seed."""

    def make(name, seed):
        random = np.random.default_rng(seed)
        for place in ("cat/0000.png", "cat/0001.png", "cup/0000.png", "cup/0001.png"):
            path = tmp_path / name / place
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        return tmp_path / name

    return make


def test_folders_are_classes_and_reported(train, classes, chatty, capsys):
    folder = classes("a", 0)
    train("--data", folder, "--val", folder, steps=2, labels=None)
    assert train.stage.classes == ("cat", "cup") and train.stage.config.classes == 2
    assert train.stage.numbers.tolist() == [0, 0, 1, 1]
    said = capsys.readouterr().err
    assert "folders as classes: 4 of 4 pictures have one of 2 labels\n" in said
    assert "tokenizing: 4 of 4 pictures, " in said and "scoring: 16 of 16 masked pictures, " in said
    made = Generator.from_pretrained(train.out / "run" / "generator.safetensors", device="cpu")
    assert made.class_names == ("cat", "cup")
    train("--data", folder, "--no-labels", steps=1, labels=None, out="none")
    assert train.stage.classes == () and train.stage.numbers.tolist() == [-1] * 4


def test_a_table_that_matches_some_is_reported_and_one_that_matches_none_is_refused(train, photos, tmp_path, capsys):
    (tmp_path / "some.csv").write_text("p0,red\np9,blue\n")
    train(steps=1, labels=tmp_path / "some.csv")
    said = capsys.readouterr().err
    assert "some.csv: 1 of 8 pictures have one of 1 label; none for p1, p2, p3 and 4 more; no picture for p9" in said
    (tmp_path / "none.csv").write_text("a,red\n")
    with pytest.raises(TitokError, match="for none of the 8 pictures: their keys are like p0, the table's like a"):
        train(steps=1, labels=tmp_path / "none.csv", out="none")


def test_tokens_are_kept_for_the_very_same_pictures_tokenizer_and_options(train, classes, capsys, monkeypatch):
    """Not for others of the same names."""
    tokenized, original = [], generator.tokenize
    monkeypatch.setattr(generator, "tokenize", lambda *given: (tokenized.append(1), original(*given))[1])
    first, second = classes("a", 0), classes("b", 1)
    tokenizer = train.out / "other.safetensors"
    tokenizers.save(tokenizer, TiTok(TOKENIZER), "other")

    def said(*more, data=first):
        capsys.readouterr()
        train("--data", data, *more, "--force", steps=1, labels=None)
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("the tokens")]

    assert said() == said() == [] and len(tokenized) == 1
    assert said("--log-every", 5, "--rate", 1e-3, "--bf16") == [] and len(tokenized) == 1
    kept = train.stage.pictures
    file = train.out / "run" / "tokens.pt"
    assert said(data=second) == [f"the tokens in {file} are of other pictures: pictures are tokenized again"]
    assert not train.stage.pictures.tokens.equal(kept.tokens)
    for words, other in (
        (("--seed", 3), "pictures and --seed (0 there)"),
        (("--seed", 3, "--variants", 2), "--variants (1 there)"),
        (("--seed", 3), "--variants (2 there)"),
        (("--seed", 3, "--shift", 0.5), "--shift (1.0 there)"),
        (("--seed", 3), "--shift (0.5 there)"),
        (("--seed", 3, "--tokenizer", tokenizer), "tokenizer"),
        (("--seed", 3, "--tokenizer", tokenizer, "--limit", 3), "pictures"),
        (("--seed", 3, "--tokenizer", tokenizer), "pictures"),
    ):
        assert said(*words) == [f"the tokens in {file} are of other {other}: pictures are tokenized again"]
    (first / "cat" / "0001.png").write_bytes((first / "cat" / "0000.png").read_bytes())
    assert said("--seed", 3, "--tokenizer", tokenizer) == [
        f"the tokens in {file} are of other pictures: pictures are tokenized again"
    ]
    before = file.read_bytes()
    with pytest.raises(TitokError, match=r"are of other --variants \(1 there\): give those that they were made with"):
        train("--data", first, "--seed", 3, "--tokenizer", tokenizer, "--variants", 2, "--resume", steps=2, labels=None)
    assert file.read_bytes() == before, "a run that goes on finds them again"
    for damage in (b"", b"PK", b"x" * 1000):
        file.write_bytes(damage)
        assert said() == [f"the tokens in {file} are damaged: pictures are tokenized again"]
    for old in ("[]", {"precision": "torch.bfloat16"}):
        torch.save({"of": old, "tokens": kept.tokens}, file)
        assert said() == [f"the tokens in {file} are of an older version: pictures are tokenized again"]


# ---- a tiny run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["small", "small_uvit"])
def test_eight_pictures_are_learned_and_sampled_back(train, photos, preset):
    rows = train("--val", photos, preset=preset, steps=250)
    # Two pictures a class: where nothing of them is to be seen, nobody can tell which one it is.
    assert rows[-1]["val/top1"] > 0.75 > 0.2 > rows[1]["top1"]
    known = {tuple(row) for row in train.stage.held_out().tokens[0].tolist()}
    assert len(known) == 8
    made = Generator.from_pretrained(train.out / "run" / "generator.safetensors", device="cpu", dtype="fp32")
    assert made.class_names == COLOURS
    sampled = made.sample(list(COLOURS) * 8, seed=1, steps=8, guidance_scale=0.0, temperature=1.0)
    found = [tuple(row) in known for row in sampled.tolist()]
    assert np.mean(found) > 0.7
    assert len({tuple(row) for row in sampled.tolist()} & known) >= 5  # not one of them over and over
    by_class = {label: {tuple(row) for row in sampled[index::4].tolist()} for index, label in enumerate(COLOURS)}
    tokenized = {
        label: set(map(tuple, train.stage.held_out().tokens[0][train.stage.held_out().labels == n].tolist()))
        for n, label in enumerate(COLOURS)
    }
    assert np.mean([len(by_class[label] & tokenized[label]) > 0 for label in COLOURS]) >= 0.75


@pytest.mark.parametrize("preset", ["small_codes", "small_causal"])
def test_a_nested_tokenizer_s_tokens_are_learned_coarse_to_fine(train, photos, tokenizer, preset):
    """With the vectors of its codes, and from the frequencies of the tokens on."""
    rows = train("--val", photos, "--muon-rate", 0.02, "--label-drop", 0.1, preset=preset, steps=60)
    stage, scores = train.stage, rows[-1]
    assert stage.config.prefixes == (4, 8), "it has 2 to 8 tokens"
    assert stage.config.codes == TOKENIZER.codes and stage.config.codebooks == 1
    parts = [scores[f"val/entropy/{count}"] for count in (4, 8)]
    assert scores["val/entropy"] == pytest.approx(np.mean(parts), abs=1e-4)
    assert scores["val/entropy"] < np.log(64) and scores["val/best"] <= scores["val/entropy"] + 1e-4
    model = stage.model
    vectors = stage.tokenizer.quantize.codebook()
    assert model.vectors[0].allclose(vectors / vectors.std())
    made = Generator.from_pretrained(train.out / "run" / "generator.safetensors", device="cpu", dtype="fp32")
    made.check_fits(tokenizers.read(tokenizer))
    assert made.config == stage.config and made.class_names == COLOURS


def test_the_first_weights_have_the_frequencies_of_the_training_tokens(train, photos):
    line = [str(word) for word in train.words("--variants", 2, preset="small_codes")]
    stage = Trainer(GeneratorTraining, parse(GeneratorTraining, "", line)).stage
    tokens = stage.pictures.tokens[:, stage.trained]
    assert stage.model.bias.equal(token_sets.log_frequencies(tokens, TOKENIZER.codes, 8))
    assert stage.model.bias[0].argmax() in tokens[:, :, 0]


@pytest.mark.parametrize("preset", ["small_codes", "small_causal"])
def test_a_trained_generator_goes_on_with_other_classes(train, photos, tmp_path, preset):
    """Known classes keep what they had learned, by name; a new one begins as pictures without a class do."""
    first, rename = tmp_path / "first" / "generator.safetensors", tmp_path / "rename.tsv"
    train(steps=60, out="first", preset=preset)
    card, before = generators.read(first)
    generators.save(first, before, "first", tokenizer=card.tokenizer, class_names=COLOURS, default_tokens=4)
    rename.write_text("blue\tsky\ngreen\t-\n")
    train("--init", first, "--rename", rename, "--rate", 0, "--muon-rate", 0, steps=1, preset=preset)
    card, after = generators.read(tmp_path / "run" / "generator.safetensors")
    assert card.class_names == ("red", "sky", "yellow") and card.default_tokens == 4
    tokens, none = torch.randint(64, (1, 8)), [4, 3]
    for old, new in ((COLOURS.index("red"), 0), (COLOURS.index("yellow"), 2), none, (4, 1)):
        known, now = (model(tokens, torch.tensor([label])) for model, label in ((before, old), (after, new)))
        assert (known - now).abs().max() < 0.02 * known.std()  # matrices are rounded to int8 once more


def test_what_training_cannot_start_from_is_said_before_pictures_are_read(train, tmp_path, monkeypatch):
    train(steps=1, out="bert")
    monkeypatch.setattr(GeneratorTraining, "read_pictures", None)
    file = tmp_path / "bert" / "generator.safetensors"
    with pytest.raises(TitokError, match=r"another architecture \(.*width.*\): give the --preset and --tokens"):
        train("--init", file, steps=1, preset="small_codes")
    with pytest.raises(TitokError, match=r"generator .* has not learned tokens of random: give its own --tokenizer"):
        train("--init", steps=1, preset="small_codes")


def test_presets_take_what_their_tokenizer_has():
    """Prefixes of nested ones, one length of others; whole codebooks."""

    nested = tokenizers.read(None)
    assert generator_starts.fitted(generator.OURS["default"], nested, None) == generator_starts.DEFAULT
    assert generator_starts.fitted(generator.OURS["autoregressive"], nested, None).causal
    assert generator_starts.fitted(generator.OURS["default"], nested, 64).prefixes == (32, 64)
    assert generator_starts.fitted(generator.OURS["default"], nested, 64).codebooks == 2
    assert generator_starts.fitted(generator.OURS["default"], nested, 32).prefixes == (32,)
    with pytest.raises(TitokError, match="each 32 tokens have a codebook of their own, so 48 do not fit"):
        generator_starts.fitted(generator.OURS["default"], nested, 48)
    plain = SimpleNamespace(name="plain", config=PRESETS["titok_b64"])
    found = generator_starts.fitted(generator.OURS["default"], plain, None)
    assert (found.tokens, found.prefixes, found.codebooks, found.code_width) == (64, (64,), 1, 12)
    with pytest.raises(TitokError, match="plain has 64 tokens, not 32"):
        generator_starts.fitted(generator.OURS["default"], plain, 32)


def test_all_crops_of_a_picture_that_is_held_out_stay_out(train, tmp_path):
    shard = imagenet(tmp_path / "a.tar", [str(number) for number in range(60)])
    train("--data", shard, "--variants", 4, "--zoom", 0.3, steps=1, labels=None)
    held = train.stage.pictures.tokens[:, train.stage.kept_out].flatten(0, 1)
    source = train.stage.batches(None)
    assert len(train.stage.kept_out) and source.set.tokens.shape[:2] == (4, 60 - len(train.stage.kept_out))
    assert not {tuple(row) for row in held.tolist()} & {tuple(row) for row in source.set.tokens.flatten(0, 1).tolist()}


def test_runs_may_share_a_file_of_tokens(train, photos, tmp_path, monkeypatch):
    """Which none of them overwrites by others."""
    train("--token-file", tmp_path / "shared.pt", steps=1, out="one")
    monkeypatch.setattr(generator, "tokenize", lambda *given: pytest.fail("they are there"))
    train("--token-file", tmp_path / "shared.pt", steps=1, out="two")
    assert not (tmp_path / "two" / "tokens.pt").exists()
    said = r"shared.pt are of other --zoom \(0\.2 there\): .* or another --out or --token-file"
    with pytest.raises(TitokError, match=said):
        train("--token-file", tmp_path / "shared.pt", "--zoom", 0.5, steps=1, out="three")


@pytest.mark.parametrize("content", [b"a photo", {"of": {}}, {"of": 3, "tokens": 4, "listing": 5}])
def test_what_is_no_file_of_tokens_stays(train, tmp_path, content, monkeypatch):
    """It may be a photo, or somebody's checkpoint."""
    file = tmp_path / "mine"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    before = file.read_bytes()
    monkeypatch.setattr(generator, "tokenize", lambda *given: pytest.fail("said before the work"))
    with pytest.raises(TitokError, match=f"{file} is no file of tokens, or damaged: give another --token-file"):
        train("--token-file", file, steps=1)
    assert file.read_bytes() == before
    with pytest.raises(TitokError, match="there is no folder"):
        train("--token-file", tmp_path / "lost" / "tokens.pt", steps=1)


def test_a_file_of_tokens_that_does_not_hold_together_is_made_again(train, tmp_path, capsys):
    train(steps=1)
    file = tmp_path / "run" / "tokens.pt"
    state = torch.load(file, weights_only=True)
    tokens, text = state["tokens"], lambda words: torch.frombuffer(bytearray(words), dtype=torch.uint8)
    for change in (
        {"tokens": tokens[:, 1:]},
        {"tokens": tokens.long()},
        {"tokens": tokens[0]},
        {"tokens": "x"},
        {"listing": text(b"[]")},
        {"listing": text(b"{")},
        {"listing": text(b'{"names": 3}')},
    ):
        torch.save(state | change, file)
        capsys.readouterr()
        train("--force", steps=1)
        assert "tokens.pt are damaged: pictures are tokenized again" in capsys.readouterr().err
    torch.save(state | {"tokens": tokens + 64}, file)
    with pytest.raises(TitokError, match=r"tokens.pt has tokens that are no codes of random: delete it"):
        train("--force", steps=1)


def test_tables_of_labels_are_put_together_and_renamed(train, photos, tmp_path, capsys):
    (tmp_path / "more.tsv").write_text("p*\tpicture\np0\t-\n")
    (tmp_path / "names.tsv").write_text("red\twarm\nyellow\twarm\npicture\t-\n")
    more = ("--labels", photos / "labels.tsv", tmp_path / "more.tsv", "--rename", tmp_path / "names.tsv")
    train(*more, "--least-pictures", 2, steps=1, labels=None)
    assert train.stage.classes == ("green", "warm") and train.stage.numbers.tolist() == [-1, 0, 1, 1, -1, 0, 1, 1]
    assert "5 of 8" not in (said := capsys.readouterr().err) and "6 of 8 pictures have one of 2 labels" in said
    assert "too few pictures for blue (1)" in said
    (tmp_path / "less.tsv").write_text("p*\t-\n")
    with pytest.raises(TitokError, match=r"less.tsv gives no label to any picture, it only takes some away"):
        train("--labels", tmp_path / "less.tsv", steps=1, labels=None, out="less")
    with pytest.raises(TitokError, match="--no-labels leaves nothing to rename or to count"):
        train("--no-labels", "--least-pictures", 2, steps=1, labels=None, out="less")
    with pytest.raises(TitokError, match="no label is left: give a smaller --least-pictures"):
        train(*more, "--least-pictures", 5, steps=1, labels=None, out="none")


def test_the_file_fits_its_tokenizer_alone(train, tokenizer, tmp_path):
    train(steps=2)
    made = Generator.from_pretrained(tmp_path / "run", device="cpu")  # the file is found there
    own = tokenizers.read(tokenizer)
    made.check_fits(own)
    tokenizers.save(tmp_path / "other.safetensors", TiTok(own.config), "other")
    with pytest.raises(WeightsError, match="was trained for tokenizer"):
        made.check_fits(tokenizers.read(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("preset", "suited"),
    [
        ("small_causal", Settings(guidance_scale=1.5, guidance="constant", top_p=0.7, fine_temperature=0.8)),
        ("small_codes", Settings(16, 1.5, "constant", "linear", order="random", fine_temperature=0.8)),
    ],
)
def test_a_trained_file_is_sampled_as_suits_its_kind(train, tmp_path, preset, suited):
    train("--preset", preset, steps=1)
    card, _ = generators.read(tmp_path / "run")
    assert card.settings == suited and card.default_tokens == 4  # or 8


def test_published_architectures_are_sampled_as_published():
    for name, config in GENERATOR_PRESETS.items():
        assert generator_starts.sampled_best(name, config) == (Settings(**PUBLISHED[name]), None)


def test_a_run_ends_when_it_gets_no_better_and_the_best_is_kept(train, photos, monkeypatch):
    scores = iter([3.0, 1.0, 2.0, 2.5, 0.5])
    kept = []
    monkeypatch.setattr(GeneratorTraining, "score", lambda self, model, val: self.keep_best(next(scores), model) or {})
    monkeypatch.setattr(GeneratorTraining, "export", lambda self, model: kept.append(self.best))
    train("--val", photos, "--val-minutes", 0, "--patience", 2, steps=50)
    assert kept == [3.0, 1.0, 0.5]  # the last score is the one at the end of every run
    assert train.trainer.step == 4


def test_a_resumed_run_ends_as_one_that_never_stopped(train, photos, monkeypatch):
    more = ("--label-drop", 0.5, "--val", photos)
    train(*more, steps=30, out="whole")
    whole, update, left = train.trainer, Trainer.update, [20]

    def until(self, batch):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", until)
    with pytest.raises(KeyboardInterrupt):
        train(*more, "--save-minutes", 0, "--val-minutes", 0, steps=30, out="stopped")
    best, left[0] = train.stage.best, 1000
    tokenize = generator.tokenize  # which is for --val alone the second time
    monkeypatch.setattr(
        generator, "tokenize", lambda encode, sources, cut, *more: tokenize(encode, sources, cut, *more)
    )
    train(*more, "--resume", steps=30, out="stopped")
    assert train.trainer.step == 30
    same(whole.model.state_dict(), train.trainer.model.state_dict(), 1e-5)
    assert train.stage.best <= best < float("inf")


def test_a_run_of_an_older_version_goes_on_and_one_of_another_architecture_does_not(train, tmp_path):
    """Older ones knew nothing of prefixes and codebooks."""
    train(steps=1)
    file = tmp_path / "run" / "state.pt"
    state = torch.load(file, weights_only=True)
    config = json.loads(state["config"])
    older = {name: value for name, value in config.items() if name not in ("prefixes", "causal", "codebooks", "hidden")}
    torch.save(state | {"config": json.dumps(older)}, file)
    train("--resume", steps=2)
    assert train.trainer.step == 2
    for other, said in (
        (json.dumps(older | {"layers": 3}), "another architecture than generator small, with other layers: give"),
        (json.dumps(older | {"x" * 9999: 3}), "another architecture than generator small, with other fields: give"),
        ("[]", "of another stage than generator"),
        (3, "of another stage than generator"),
    ):
        torch.save(state | {"config": other}, file)
        with pytest.raises(WeightsError, match=said):
            train("--resume", steps=3)


def test_a_run_does_not_go_on_with_other_classes(train, tmp_path):
    """Not even with as many: their rows would be those of the old ones."""
    train(steps=1)
    rename = tmp_path / "rename.tsv"
    rename.write_text("blue\tsky\n")
    with pytest.raises(
        WeightsError, match=r"has learned other classes, blue for example: .* another --out with --init"
    ):
        train("--rename", rename, "--resume", steps=2)
    rename.write_text("blue\t-\n")
    with pytest.raises(WeightsError, match="with other classes: give the options that it was begun with"):
        train("--rename", rename, "--resume", steps=2)


@pytest.mark.parametrize("option", [("--schedule", "cosine"), ("--given-drop", 0.2), ("--unmasked", 0)])
def test_what_masked_generators_alone_have_is_not_for_others(train, option, monkeypatch):
    monkeypatch.setattr(GeneratorTraining, "read_pictures", None)
    with pytest.raises(TitokError, match=f"^{option[0]} is for masked generators: leave it out$"):
        train(*option, steps=1, preset="small_causal")


# ---- as published ------------------------------------------------------------------------------------------------


@pytest.fixture
def publish(train, monkeypatch):
    """Trains as ``train`` does, but with nothing given that the recipe has a say in, save the length of the run."""

    def run(*more, steps, labels=None, **how):
        line = [str(word) for word in train.words(*more, steps=steps, labels=labels, **how)]
        for name in ("--variants", "--dropout", "--smoothing", "--label-drop", "--rate"):
            at = line.index(name)
            del line[at : at + 2]
        run.trainer = Trainer(GeneratorTraining, parse(GeneratorTraining, "", [*line, "--recipe", "published"]))
        run.stage = run.trainer.stage
        loop.run(run.trainer)
        return run.trainer

    return run


def imagenet(path, classes=("207", "0", "999", "207")):
    """A shard as that of the published training: classes in files beside pictures."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as shard:
        for number, label in enumerate(classes):
            target = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (64, 71, 3), dtype=np.uint8)).save(target, "PNG")
            for suffix, data in (("cls", label.encode()), ("png", target.getvalue())):
                member = tarfile.TarInfo(f"{number:08}.{suffix}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    return path


def test_published_runs_learn_from_all_pictures_their_middle_and_its_mirror_image(publish, tmp_path, monkeypatch):
    """And ship the last weights, at the end."""
    monkeypatch.setattr(GeneratorTraining, "tokenize", lambda self, pixels: (pixels[:, 0, 0, :8] * 63).round().long())
    shard = imagenet(tmp_path / "a.tar", [str(number) for number in range(60)])
    publish("--data", shard, "--val-minutes", 0, steps=3)
    stage, pictures = publish.stage, Pictures([shard], TOKENIZER.image_size)
    assert len(stage.trained) == 60 and not len(stage.kept_out) and stage.held_out() is None
    middles = pictures.crops(torch.arange(60), torch.tensor([[0, 4]] * 60), torch.zeros(60, dtype=torch.bool))
    assert pictures.sizes.tolist() == [[64, 71]] * 60  # int(round((71 - 64) / 2.0)) is 4
    tokens = stage.pictures.tokens
    assert tokens.equal(torch.stack([stage.tokenize(middles), stage.tokenize(middles.flip(3))]).int())
    _, made = generators.read(publish.trainer.options.out / "generator.safetensors")
    same(made.state_dict(), publish.trainer.ema.model.state_dict(), 1e-3)


def test_published_runs_go_on_though_they_get_no_better(publish, photos, monkeypatch):
    """With --val: it is scored, but neither ends a run nor chooses weights."""
    scores, kept = iter([3.0, *range(4, 100)]), []
    monkeypatch.setattr(GeneratorTraining, "score", lambda self, model, val: self.keep_best(next(scores), model) or {})
    monkeypatch.setattr(GeneratorTraining, "export", lambda self, model: kept.append(publish.trainer.step))
    publish("--val", photos, "--val-minutes", 0, "--save-minutes", 0, steps=12)
    assert publish.trainer.step == 12 and publish.stage.best == 3.0
    assert sorted({*kept}) == list(range(1, 13)), "the weights of every checkpoint"


def test_short_runs_may_hold_nothing_out(train, tmp_path):
    shard = imagenet(tmp_path / "a.tar", [str(number) for number in range(60)])
    train("--data", shard, steps=1, labels=None)
    assert 0 < len(train.stage.kept_out) < 8
    middle = train.stage.pictures.tokens[0, train.stage.kept_out]
    assert train.stage.held_out().tokens[0].equal(middle)
    train("--data", shard, "--hold-out", 0, steps=1, labels=None, out="all")
    assert len(train.stage.trained) == 60 and train.stage.held_out() is None


def test_classes_of_imagenet_are_those_of_published_generators(train, tmp_path, monkeypatch):
    train("--data", imagenet(tmp_path / "a.tar"), steps=1, labels=None)
    assert train.stage.numbers.tolist() == [207, 0, 999, 207] and train.stage.config.classes == 1000
    made = Generator.from_pretrained(tmp_path / "run" / "generator.safetensors", device="cpu")
    assert made.class_number(207) == made.class_number("207") == 207
    few = imagenet(tmp_path / "b.tar", ("2", "10"))
    train("--data", few, steps=1, labels=None, out="few")
    assert train.stage.numbers.tolist() == [2, 10] and train.stage.config.classes == 11
    monkeypatch.setattr(generator, "GENERATOR_PRESETS", {"small": None})
    monkeypatch.setitem(GeneratorTraining.presets, "small", replace(SMALL, classes=1000))
    train("--data", few, steps=1, labels=None, out="whole")
    assert train.stage.numbers.tolist() == [2, 10] and train.stage.config.classes == 1000
    made = Generator.from_pretrained(tmp_path / "whole" / "generator.safetensors", device="cpu")
    assert made.class_number("999") == 999


def test_a_run_that_numbered_classes_otherwise_is_not_resumed(train, tmp_path):
    shard = imagenet(tmp_path / "a.tar", [str(number) for number in range(12)])
    train("--data", shard, steps=1, labels=None)
    file = tmp_path / "run" / "state.pt"
    state = torch.load(file, weights_only=True)
    assert state["memory"].pop("numbered")
    torch.save(state, file)
    with pytest.raises(WeightsError, match="numbered classes in the order of their names"):
        train("--data", shard, "--resume", steps=2, labels=None)
    train("--data", imagenet(tmp_path / "b.tar", "0123"), steps=1, labels=None, out="few")
    file = tmp_path / "few" / "state.pt"
    state = torch.load(file, weights_only=True)
    del state["memory"]["numbered"]
    torch.save(state, file)
    train("--data", tmp_path / "b.tar", "--resume", steps=2, labels=None, out="few")  # the order is the same


def test_pictures_are_tokenized_in_float32_whatever_the_run_computes_in(train, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(GeneratorTraining.presets, "small", SMALL)
    kinds, encode = [], TiTok.encode

    def seen(self, pixels):
        kinds.append((torch.is_autocast_enabled("cpu"), pixels.dtype))
        return encode(self, pixels)

    monkeypatch.setattr(TiTok, "encode", seen)
    for words in (("--bf16",), ("--bf16", "--variants", 0, "--force")):
        train(*words, steps=1)
    assert train.stage.runtime.dtype is torch.bfloat16
    assert len(kinds) >= 2 and set(kinds) == {(False, torch.float32)}


# ---- two processes -----------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.modules["torch.utils.tensorboard"] = None
import torch
torch.set_num_threads(1)
from tests.training.test_generator import SMALL, SMALL_CAUSAL, SMALL_CODES, SMALL_UVIT, tokenize_pixels
from training import generator
generator.GeneratorTraining.presets |= {"small": SMALL, "small_uvit": SMALL_UVIT}
generator.GeneratorTraining.presets |= {"small_codes": SMALL_CODES, "small_causal": SMALL_CAUSAL}
generator.GeneratorTraining.tokenize = tokenize_pixels
generator.main()
"""


@pytest.mark.parametrize("preset", ["small", "small_codes", "small_causal"])
def test_two_ranks_take_the_steps_of_one(train, photos, tokenizer, tmp_path, preset):
    """With unequal numbers of masked tokens, dropped labels, scores and the file that one rank writes."""
    (tmp_path / "script.py").write_text(SCRIPT)
    more = (
        "--label-drop",
        0.3,
        "--dropout",
        0.2,
        "--val",
        photos,
        "--muon-rate",
        0,
    )  # which makes the most of a rounding
    train(*more, steps=20, out="one", preset=preset)
    said = two_ranks([tmp_path / "script.py", *train.words(*more, steps=20, out="two", preset=preset)])
    assert said.count("generator: 20 steps in ") == 1, "one rank reports"
    two = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    assert two["step"] == 20
    for mine, theirs in ((train.trainer.model, two["model"]), (train.trainer.ema.model, two["ema"])):
        one = mine.state_dict()
        for state in (one, theirs):  # this one shifts all logits alike: AdamW makes the most of a rounding here too
            state.pop("leave.leave.bias", None)
        same(one, theirs, 2e-3)
    assert two["memory"]["best"] == pytest.approx(train.stage.best, abs=1e-3)


@pytest.mark.parametrize("preset", ["small", "small_uvit"])
def test_two_ranks_take_the_published_steps_of_one(publish, tokenizer, tmp_path, preset):
    """With dropout, each tokenizing its half of the pictures of a shard."""
    (tmp_path / "script.py").write_text(SCRIPT)
    shard = imagenet(tmp_path / "a.tar", ("3", "0", "1", "3", "2"))
    words = ("--data", shard, "--rate", 1e-3, "--warmup", 0)
    publish(*words, steps=8, preset=preset, out="one")
    line = ["--data", shard, "--tokenizer", tokenizer, "--tokens", 8, "--device", "cpu", "--no-bf16", "--no-compile"]
    line += ["--preset", preset, "--batch", 16, "--steps", 8, "--rate", 1e-3, "--warmup", 0, "--recipe", "published"]
    two_ranks([tmp_path / "script.py", *line, "--out", tmp_path / "two"])
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    same(one["model"], two["model"], 1e-4)
    same(one["ema"], two["ema"], 1e-4)
    tokens = [torch.load(tmp_path / name / "tokens.pt", weights_only=True) for name in ("one", "two")]
    assert tokens[0]["of"] == tokens[1]["of"] and tokens[0]["listing"].equal(tokens[1]["listing"])
    assert tokens[0]["tokens"].equal(tokens[1]["tokens"]) and tokens[0]["tokens"].shape == (2, 5, 8)


def test_a_u_vit_drops_nothing_unless_asked_to(train):
    """As it was published; a BERT drops a tenth in both recipes."""

    def share(*words, preset):
        line = [str(word) for word in train.words(*words, preset=preset)]
        at = line.index("--dropout")
        options = parse(GeneratorTraining, "", [*line[:at], *line[at + 2 :]])
        return Trainer(GeneratorTraining, options).stage.dropout

    for recipe in ("published", "short"):
        assert share("--recipe", recipe, preset="small_uvit") == 0.0
        assert share("--recipe", recipe, preset="small") == 0.1
    train("--dropout", 0.2, steps=1, preset="small_uvit")
    assert train.stage.dropout == 0.2


def test_pictures_may_be_tokenized_for_every_batch(train):
    rows = train("--variants", 0, "--batch", 4, steps=8)
    assert np.isfinite([row["loss"] for row in rows if "loss" in row]).all()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--tokens", 9), "has 2 to 8 tokens, not 9"),
        (("--stream", "--variants", 0), "leave --stream out"),
        (("--minutes", 0), "the budget is 0.0 minutes: give more than 0"),
        (("--hold-out", 1), "--hold-out 1 would hold out every picture"),
        (("--labels", "nothing.tsv"), "nothing.tsv is no table"),
        (("--rate", "inf"), "--rate is inf"),
        (("--tokens", 0), "0 is no whole number from 1 on"),
        (("--dropout", 1), "--dropout is 1: give 0 or more and less than 1"),
        (("--ema", 1), "--ema is 1: give 0 or more and less than 1"),
        (("--batch", 0), "--batch is 0"),
    ],
)
def test_what_does_not_fit_is_said_before_a_picture_is_read(train, more, said, monkeypatch):
    monkeypatch.setattr(generator, "Pictures", None)
    monkeypatch.setattr(generator, "tokenize", None)
    with pytest.raises(TitokError, match=said):
        train(*more, steps=1)


def test_published_settings_are_those_of_the_paper():
    found = defaults.GENERATOR.published
    optimizer, schedule, masking = found.optimizer, found.schedule, found.masking
    assert (optimizer.batch, optimizer.rate, optimizer.beta1, optimizer.beta2) == (2048, 2e-4, 0.9, 0.96)
    assert (schedule.steps, optimizer.decay) == (500_000, 0.03)
    assert (masking.smoothing, masking.unmasked, masking.label_drop, masking.dropout) == (0.1, 0.1, 0.1, 0.1)
    assert schedule.warmup * schedule.steps == 10_000 and schedule.floor * optimizer.rate == pytest.approx(1e-5)


def test_the_default_fits_in_its_box():
    assert 4e6 < generator_starts.DEFAULT.parameters < 12e6  # a byte each, and a little
