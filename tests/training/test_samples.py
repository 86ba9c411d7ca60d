"""Samples of a generator for evaluations: what the file holds, and figures by formula."""

import json
import math

import numpy as np
import pytest
import torch

from tests.training.ranks import two_ranks
from titokcodec import Codec, Generator, TitokError
from titokcodec.cli.script import UsageError
from titokcodec.metrics import Gaussian
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.weights import generators
from training import samples


@pytest.fixture(scope="module")
def pair(tmp_path_factory, tiny_path):
    """Files of a small generator of three classes, and of its tokenizer."""
    codec, file = Codec.from_pretrained(tiny_path), tmp_path_factory.mktemp("pair") / "generator.safetensors"
    torch.manual_seed(0)
    config = GeneratorConfig(
        "bert", 8, classes=3, width=16, layers=1, heads=2, mlp=32, codes=codec.weights.config.codes
    )
    generators.save(file, make(config), "three", tokenizer=codec.weights.fingerprint)
    return file, tiny_path


def words(pair, out, *more):
    common = (pair[0], "--tokenizer", pair[1], "--batch", 2, "--device", "cpu", "--out", out)
    return [*map(str, (*common, *more))]


def test_pictures_are_those_of_the_generator_class_after_class(pair, tmp_path, capsys):
    samples.main(words(pair, tmp_path / "five.npz", "--count", 5, "--seed", 3))
    assert json.loads(capsys.readouterr().out) == {"pictures": 5}
    with np.load(tmp_path / "five.npz") as file:
        found = file["arr_0"]
    assert found.shape == (5, 256, 256, 3) and found.dtype == np.uint8 and file.files == ["arr_0"]
    assert [path.name for path in tmp_path.iterdir()] == ["five.npz"], "nothing else is left"
    generator = Generator.from_pretrained(pair[0], device="cpu", dtype="fp32")
    codec = Codec.from_pretrained(pair[1], device="cpu", dtype="fp32")
    tokens = generator.sample([2, 0], seed=samples.mix(3, 1))  # the second batch
    expected = (codec.decode(tokens) * 255).floor().permute(0, 2, 3, 1)
    assert np.array_equal(found[2:4], expected.numpy())
    with pytest.raises(TitokError, match=r"five\.npz exists"):
        samples.main(words(pair, tmp_path / "five.npz", "--count", 1))
    with pytest.raises(TitokError, match="there is no folder"):
        samples.main(words(pair, tmp_path / "nowhere" / "five.npz", "--count", 1))


def test_two_ranks_make_the_pictures_of_one(pair, tmp_path):
    samples.main(words(pair, tmp_path / "one.npz", "--count", 7))
    said = two_ranks(["-m", "training.samples", *words(pair, tmp_path / "two.npz", "--count", 7)])
    assert "Warning" not in said
    one, two = (np.load(tmp_path / name)["arr_0"] for name in ("one.npz", "two.npz"))
    assert np.array_equal(one, two)


class Means(torch.nn.Module):
    """In the place of Inception: mean colours as features, and logits that are sure of one of two classes."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def pooled(self, pixels):
        return pixels.mean((2, 3))

    def classify(self, features):
        return 1e3 * torch.stack([features[:, 0] - 0.5, 0.5 - features[:, 0]], 1)


def test_figures_by_hand():
    pictures = np.zeros((4, 8, 8, 3), np.uint8)
    pictures[:2] = 255  # two white ones, two black
    variance = 4 * 0.25 / 3
    covariance = torch.full((3, 3), variance)
    found = samples.figures(pictures, Means(), Gaussian(torch.tensor([0.5, 0.5, 1.5]), covariance))
    assert found["inception_score"] == pytest.approx(2) and found["gfid"] == pytest.approx(1, abs=1e-5)
    assert samples.figures(pictures, Means(), None).keys() == {"inception_score"}
    point = samples.figures(pictures, Means(), Gaussian(torch.full((3,), 0.5), torch.zeros(3, 3)))
    assert point["gfid"] == pytest.approx(3 * variance) and not math.isnan(point["gfid"])


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, "not a file in the archive"),
        ({"mu": np.zeros(4)}, "not of 3 features"),
        ({"sigma": np.eye(3)[:2]}, "not of 3 features"),
        ({"mu": np.array([0.0, np.nan, 0.0])}, "finite real numbers"),
        ({"sigma": np.eye(3) * 1j}, "finite real numbers"),
        ({"sigma": np.eye(3, dtype=object)}, "Python objects"),
        ({"sigma": -np.eye(3)}, "no covariance"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "no covariance"),
    ],
)
def test_what_is_no_reference_is_refused(tmp_path, arrays, reason):
    good = {"mu": np.zeros(3, np.float32), "sigma": np.eye(3)}
    np.savez(tmp_path / "bad.npz", **(good | arrays if arrays else {"arr_0": np.zeros(1)}))
    with pytest.raises(TitokError, match=rf"bad\.npz has no mu and sigma: .*{reason}") as found:
        samples.read_reference(tmp_path / "bad.npz", 3)
    assert "\n" not in str(found.value)


def test_a_reference_is_read_before_anything_is_sampled(tmp_path, pair):
    np.savez(tmp_path / "good.npz", mu=np.zeros(3, np.float32), sigma=np.eye(3), arr_0=np.zeros(1))
    assert samples.read_reference(tmp_path / "good.npz", 3).covariance.equal(torch.eye(3, dtype=torch.float64))
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for name in ("junk.npz", "missing.npz"):
        with pytest.raises(TitokError, match=rf"{name} has no mu and sigma"):
            samples.read_reference(tmp_path / name)
    with pytest.raises(UsageError, match="--reference needs the network"):
        samples.main(words(pair, tmp_path / "x.npz", "--reference", tmp_path / "good.npz"))
    with pytest.raises(TitokError, match=r"missing\.pth"):
        samples.main(words(pair, tmp_path / "x.npz", "--count", 2, "--inception", tmp_path / "missing.pth"))
    assert not list(tmp_path.glob("x*"))
