"""The evaluation command on the tiny model."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from tests.conftest import DATA
from tests.metrics.test_lite0 import inception_state, lite0_state
from titokcodec.errors import TitokError
from titokcodec.format import frequencies, rangecoder
from titokcodec.metrics import frechet_distance, inception_score, psnr, ssim
from titokcodec.metrics.efficientnet import Lite0
from titokcodec.metrics.inception import Inception
from titokcodec.search import STEPS
from titokcodec.weights import tokenizers
from training import evaluate
from training.data import Pictures
from training.evaluate import all_scores, score
from training.sheet import eight_bit

RATES = (8, 16)
PLAIN = {f"{metric}/{k}" for metric in ("psnr", "ssim", "bytes", "mean_bytes") for k in RATES} | {
    "model",
    "fingerprint",
    "pictures",
    "skipped",
    "effort",
    "dtype",
    "usage",
    "entropy",
    "distinct",
    "usage_by_position",
    "entropy_by_position",
    "distinct_by_position",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three small photographs."""
    path = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea", "coffee"):
        ImageOps.fit(Image.open(DATA / f"{name}.jpg"), (80, 64)).save(path / f"{name}.png")
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Weight files with random numbers."""
    path = tmp_path_factory.mktemp("networks")
    save_file(lite0_state(), path / "lite0.safetensors")
    torch.save(inception_state(), path / "inception.pth")
    return path


@pytest.fixture(scope="module")
def full(folder, networks, tiny_path, tmp_path_factory):
    """The scores that one command with all networks leaves."""
    out = tmp_path_factory.mktemp("out")
    evaluate.main(
        [
            str(tiny_path),
            "--data",
            str(folder),
            "--device",
            "cpu",
            "--lite0",
            str(networks / "lite0.safetensors"),
            "--inception",
            str(networks / "inception.pth"),
            "--json",
            str(out / "scores.json"),
        ]
    )
    return json.loads((out / "scores.json").read_text())


@pytest.fixture(scope="module")
def seen(folder, codec):
    """The same pictures, their tokens and what is drawn from them, by the public face."""
    pixels = Pictures([folder], 256).centre_crops(torch.arange(3))
    tokens = torch.cat([codec.read(data) for data in codec.compress_batch(map(eight_bit, pixels))])
    return pixels, tokens, {k: (codec.decode(tokens[:, :k]) * 255).round() / 255 for k in RATES}


def test_command_reports_all_that_it_has_weights_for(full):
    found = full
    assert found.keys() == PLAIN | {
        f"{metric}/{k}" for metric in ("fd_lite0", "top1_agreement", "rfid", "inception_score") for k in RATES
    }
    assert (found["pictures"], found["skipped"]) == (3, 0)


def test_command_leaves_out_what_it_has_no_weights_for(folder, tiny_path, capsys):
    evaluate.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--limit", "1"])
    text = capsys.readouterr().out
    assert json.loads(text).keys() == PLAIN
    assert len(text.splitlines()) == len(PLAIN) + 2, "a list lies on one line"


def test_a_weight_file_without_tables_has_sizes_too(folder, tiny_path, tmp_path, capsys, hushed):
    tokenizers.save(tmp_path / "plain.safetensors", tokenizers.load_model(tiny_path), "plain")
    evaluate.main([str(tmp_path / "plain.safetensors"), "--data", str(folder), "--device", "cpu"])
    out, err = capsys.readouterr()
    assert json.loads(out).keys() == PLAIN and not err


def test_scores_stand_if_sizes_cannot_be_had(folder, tiny_path, tmp_path, monkeypatch, capsys, hushed):
    monkeypatch.setitem(sys.modules, "constriction", None)  # without it tables code nothing
    monkeypatch.setattr(frequencies, "coder", frequencies.coder.__wrapped__)
    monkeypatch.setattr(rangecoder, "coder", frequencies.coder)
    json_file = tmp_path / "scores.json"
    evaluate.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--json", str(json_file)])
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(json_file.read_text())
    assert json.loads(out).keys() == {name for name in PLAIN if "bytes" not in name}
    assert len(err.splitlines()) == 1 and err.startswith("warning: no sizes of files: ") and "constriction" in err


def test_scoring_says_how_far_it_is(folder, tiny_path, chatty, capsys):
    evaluate.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--effort", "1"])
    out, err = capsys.readouterr()
    assert json.loads(out).keys() == PLAIN, "standard output has the scores alone"
    for phase in (
        "reading pictures: 3 pictures",
        "searching tokens: 3 of 3 pictures",
        "scoring: 3 of 3 pictures",
        "writing files: 3 of 3 pictures",
    ):
        assert f"{phase}, " in err


def test_effort_is_that_of_compressing_unless_another_is_asked_for(full, folder, tiny_path, capsys):
    evaluate.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--effort", "0"])
    plain = json.loads(capsys.readouterr().out)
    assert (full["effort"], plain["effort"]) == (STEPS, 0)
    assert full["psnr/16"] > plain["psnr/16"]


def test_scores_of_pictures(full, seen):
    found, (pixels, _, decoded) = full, seen
    for k in RATES:
        assert found[f"psnr/{k}"] == pytest.approx(psnr(decoded[k], pixels).mean().item(), abs=1e-3)
        assert found[f"ssim/{k}"] == pytest.approx(ssim(decoded[k], pixels).mean().item(), abs=1e-3)


def test_scores_of_sets(full, seen, networks):
    found, (pixels, _, decoded) = full, seen
    lite0, inception = Lite0(networks / "lite0.safetensors"), Inception(networks / "inception.pth")
    for k in RATES:
        assert found[f"fd_lite0/{k}"] == pytest.approx(
            frechet_distance(lite0.pooled(pixels), lite0.pooled(decoded[k])), rel=1e-2
        )
        same = lite0.logits(pixels).argmax(1) == lite0.logits(decoded[k]).argmax(1)
        assert found[f"top1_agreement/{k}"] == pytest.approx(same.double().mean().item(), abs=1e-4)
    features = inception.pooled(decoded[8])
    assert found["rfid/8"] == pytest.approx(frechet_distance(inception.pooled(pixels), features), rel=1e-2)
    assert found["inception_score/8"] == pytest.approx(inception_score(inception.classify(features))[0], abs=1e-3)


def test_use_of_the_codebook_at_each_position(full, seen):
    found, (_, tokens, _) = full, seen
    for name in ("usage", "distinct", "entropy"):
        assert len(found[f"{name}_by_position"]) == 16
    assert found["distinct"] == len(tokens.unique())
    assert found["usage"] == pytest.approx(len(tokens.unique()) / 64, abs=1e-4)
    for position in range(16):
        counts = np.unique(tokens[:, position], return_counts=True)[1]
        bits = -sum(n / 3 * math.log2(n / 3) for n in counts)
        assert found["distinct_by_position"][position] == len(counts)
        assert found["usage_by_position"][position] == pytest.approx(len(counts) / 64, abs=1e-4)
        assert found["entropy_by_position"][position] == pytest.approx(bits, abs=1e-4)


def test_a_model_that_loses_nothing():
    """Tokens are the pictures' numbers: every metric is at its end."""
    torch.manual_seed(0)
    pixels = (torch.rand(6, 3, 16, 16) * 255).round() / 255
    taken = []

    class Six:
        centre_crops = staticmethod(lambda which: pixels[which])

        def __len__(self):
            return 6

    def encode(found):
        taken.append(len(found))
        return torch.arange(sum(taken[:-1]), sum(taken))[:, None].repeat(1, 2)

    model = SimpleNamespace(encode=encode, decode=lambda tokens: pixels[tokens[:, 0]], config=SimpleNamespace(codes=8))
    network = SimpleNamespace(
        pooled=lambda x: x[:, 0, :2].flatten(1),
        classify=lambda features: 50 * features,
        fc=SimpleNamespace(weight=pixels),
    )
    found = all_scores(model, Six(), (1, 2), None, network, network, batch=4)
    assert taken == [4, 2]
    for k in (1, 2):
        assert found[f"psnr/{k}"] == 100 and found[f"ssim/{k}"] == pytest.approx(1, abs=1e-5)
        assert found[f"fd_lite0/{k}"] == found[f"rfid/{k}"] == pytest.approx(0, abs=1e-6)
        assert found[f"top1_agreement/{k}"] == 1
        chances = (50 * pixels[:, 0, :2].flatten(1).double()).softmax(1)
        gained = (chances * (chances / chances.mean(0)).log()).sum(1).mean()
        assert found[f"inception_score/{k}"] == pytest.approx(gained.exp().item(), rel=1e-5), "all in one part"
    assert (found["distinct"], found["usage"]) == (6, 6 / 8)
    assert found["entropy_by_position"] == pytest.approx([math.log2(6)] * 2)
    taken.clear()
    assert score(model, Six(), (1,)).keys() == {"psnr/1", "ssim/1", "usage", "entropy"}


def test_wrong_weights_end_the_command_in_one_line(folder, tiny_path):
    with pytest.raises(
        TitokError,
        match=r"tiny\.safetensors is of another network: it lacks .* \d+ more",
    ):
        evaluate.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--lite0", str(tiny_path)])


def test_one_picture_is_no_set(folder, networks, tiny_path):
    with pytest.raises(TitokError, match="needs two pictures or more"):
        evaluate.main(
            [
                str(tiny_path),
                "--data",
                str(folder),
                "--device",
                "cpu",
                "--limit",
                "1",
                "--lite0",
                str(networks / "lite0.safetensors"),
            ]
        )
