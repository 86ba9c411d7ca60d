"""The evaluation command on the tiny model, its sheet, and the thumbnails that it compares with."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from bench import thumbnails
from bench.thumbnails import FORMATS, Thumbnails, best_thumbnail
from tests.conftest import DATA
from tests.metrics.test_lite0 import inception_state, lite0_state
from titokcodec.errors import ImageError, TitokError
from titokcodec.format import rangecoder, tables
from titokcodec.metrics import psnr
from titokcodec.metrics.inception import Inception
from titokcodec.metrics.lite0 import Lite0
from titokcodec.metrics.measures import frechet, inception_score
from titokcodec.metrics.ssim import ssim
from titokcodec.search import STEPS
from titokcodec.weights import tokenizers
from training import evaluate
from training.data import Pictures
from training.evaluate import measure, score
from training.sheet import BLANK, MARGIN, eight_bit, labelled_sheet

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
    """What one command with everything leaves: its scores and its sheet."""
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
            "--sheet",
            str(out / "sheet.png"),
        ]
    )
    return json.loads((out / "scores.json").read_text()), Image.open(out / "sheet.png")


@pytest.fixture(scope="module")
def seen(folder, codec):
    """The same pictures, their tokens and what is drawn from them, by the public face."""
    pixels = Pictures([folder], 256).centre_crops(torch.arange(3))
    tokens = torch.cat([codec.read(data) for data in codec.compress_batch(map(eight_bit, pixels))])
    return pixels, tokens, {k: (codec.decode(tokens[:, :k]) * 255).round() / 255 for k in RATES}


def test_command_reports_all_that_it_has_weights_for(full):
    found, _ = full
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
    monkeypatch.setattr(tables, "coder", tables.coder.__wrapped__)
    monkeypatch.setattr(rangecoder, "coder", tables.coder)
    json_file, sheet = tmp_path / "scores.json", tmp_path / "sheet.png"
    evaluate.main(
        [str(tiny_path), "--data", str(folder), "--device", "cpu", "--json", str(json_file), "--sheet", str(sheet)]
    )
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(json_file.read_text())
    assert json.loads(out).keys() == {name for name in PLAIN if "bytes" not in name}
    assert len(err.splitlines()) == 1 and err.startswith("warning: no sizes of files: ") and "constriction" in err
    with Image.open(sheet) as drawn:
        assert drawn.size == (MARGIN + 3 * 256, (1 + len(RATES)) * 256), "no thumbnails of as many bytes"


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
    assert (full[0]["effort"], plain["effort"]) == (STEPS, 0)
    assert full[0]["psnr/16"] > plain["psnr/16"]


def test_scores_of_pictures(full, seen):
    found, (pixels, _, drawn) = full[0], seen
    for k in RATES:
        assert found[f"psnr/{k}"] == pytest.approx(psnr(drawn[k], pixels).mean().item(), abs=1e-3)
        assert found[f"ssim/{k}"] == pytest.approx(ssim(drawn[k], pixels).mean().item(), abs=1e-3)


def test_scores_of_sets(full, seen, networks):
    found, (pixels, _, drawn) = full[0], seen
    lite0, inception = Lite0(networks / "lite0.safetensors"), Inception(networks / "inception.pth")
    for k in RATES:
        assert found[f"fd_lite0/{k}"] == pytest.approx(frechet(lite0.pooled(pixels), lite0.pooled(drawn[k])), rel=1e-2)
        same = lite0.logits(pixels).argmax(1) == lite0.logits(drawn[k]).argmax(1)
        assert found[f"top1_agreement/{k}"] == pytest.approx(same.double().mean().item(), abs=1e-4)
    features = inception.pooled(drawn[8])
    assert found["rfid/8"] == pytest.approx(frechet(inception.pooled(pixels), features), rel=1e-2)
    assert found["inception_score/8"] == pytest.approx(inception_score(inception.classify(features), 3)[0], abs=1e-3)


def test_use_of_the_codebook_at_each_position(full, seen):
    found, (_, tokens, _) = full[0], seen
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


def test_sheet_has_a_labelled_row_for_each_rate_and_the_rival(full, seen):
    found, sheet = full
    assert sheet.size == (MARGIN + 3 * 256, (1 + len(RATES) + 1) * 256)
    pixels, _, drawn = seen
    shown = np.asarray(sheet).astype(int)
    for row, truth in enumerate((pixels, *drawn.values())):
        expected = torch.cat(list(truth), dim=2).permute(1, 2, 0).mul(255).round().numpy()
        assert np.abs(shown[row * 256 : (row + 1) * 256, MARGIN:] - expected).max() <= 1
        assert (shown[row * 256 : (row + 1) * 256, :MARGIN] < 128).any(), "no label"
    assert found["bytes/16"] < 40, "nothing fits, so the last row is grey"
    assert (shown[-1, MARGIN:] == BLANK).all()


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
    found = measure(model, Six(), (1, 2), None, network, network, batch=4)
    assert taken == [4, 2]
    for k in (1, 2):
        assert found[f"psnr/{k}"] == 100 and found[f"ssim/{k}"] == pytest.approx(1, abs=1e-5)
        assert found[f"fd_lite0/{k}"] == found[f"rfid/{k}"] == pytest.approx(0, abs=1e-6)
        assert found[f"top1_agreement/{k}"] == 1
        # With fewer than ten pictures each is a part by itself, and a part of one is always certain of itself.
        assert found[f"inception_score/{k}"] == pytest.approx(1)
    assert (found["distinct"], found["usage"]) == (6, 6 / 8)
    assert found["entropy_by_position"] == pytest.approx([math.log2(6)] * 2)
    taken.clear()
    assert score(model, Six(), (1,)).keys() == {"psnr/1", "ssim/1", "usage", "entropy"}


def test_wrong_weights_end_the_command_in_one_line(folder, tiny_path):
    with pytest.raises(TitokError, match=r"tiny\.safetensors lacks stem\.weight and \d+ more$"):
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


def test_labelled_sheet_pastes_rows_in_order():
    red, blue = (Image.new("RGB", (20, 30), colour) for colour in ("red", "blue"))
    sheet = labelled_sheet([("a", [red, blue]), ("b", [None, red])])
    assert sheet.size == (MARGIN + 40, 60)
    corners = [sheet.getpixel((MARGIN + x, y)) for y in (29, 59) for x in (0, 39)]
    assert corners == [(255, 0, 0), (0, 0, 255), BLANK, (255, 0, 0)]


# ---- thumbnails -----------------------------------------------------------------------------------------------


def closeness(truth):
    truth = np.asarray(truth).astype(float)
    return lambda image: -((np.asarray(image) - truth) ** 2).mean()


def fitting(kind, photo, budget):
    small = photo.resize((96, 96))
    found = Thumbnails(small, kind).fitting(budget)
    assert found and all(len(t.data) <= budget and t.picture.size == (96, 96) for t in found)
    for t in found:
        if t.quality is not None:
            scaled = small.resize((t.side, t.side), Image.Resampling.LANCZOS)
            assert FORMATS[kind].encode(scaled, t.quality) == t.data
            assert t.quality == FORMATS[kind].best or len(FORMATS[kind].encode(scaled, t.quality + 1)) > budget
    best = best_thumbnail(small, budget, kind, closeness(small))
    assert closeness(small)(best.picture) == max(closeness(small)(t.picture) for t in found)
    assert best_thumbnail(small, 10, kind, closeness(small)) is None
    return found


def test_webp_thumbnails_fit_and_the_best_is_taken(photo):
    found = fitting("webp", photo, 150)
    assert {t.side for t in found} >= {8, 16, 24}
    assert all(t.data[:4] == b"RIFF" for t in found)


def test_jxl_thumbnails_fit_and_the_best_is_taken(photo):
    pytest.importorskip("pillow_jxl")
    assert thumbnails.installed("jxl")
    found = fitting("jxl", photo, 108)
    assert all(t.data[:2] == b"\xff\x0a" for t in found), "a bare codestream, no container"
    assert {t.quality is None for t in found} == {True, False}


def test_a_sheet_that_cannot_be_written_is_said_before_anything_is_scored(tmp_path):
    with pytest.raises(ImageError, match=r"cannot write a picture as '\.txt'"):
        evaluate.main(["--data", str(tmp_path / "nowhere"), "--sheet", str(tmp_path / "sheet.txt")])
