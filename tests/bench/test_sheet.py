"""The contact sheet with thumbnails, and the thumbnails themselves."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bench import sheet, thumbnails
from bench.sheet import BLANK, MARGIN, labelled_sheet
from bench.thumbnails import FORMATS, Thumbnails, best_thumbnail
from tests.conftest import DATA
from titokcodec.errors import ImageError, TitokError
from training.data import Pictures
from training.sheet import eight_bit

COUNTS = (8, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small photographs."""
    path = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea"):
        ImageOps.fit(Image.open(DATA / f"{name}.jpg"), (80, 64)).save(path / f"{name}.png")
    return path


def test_sheet_has_a_labelled_row_for_each_number_of_tokens_and_the_thumbnails(folder, tiny_path, codec, tmp_path):
    sheet.main([str(tiny_path), "--data", str(folder), "--device", "cpu", "--out", str(tmp_path / "sheet.png")])
    shown = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert shown.shape == ((1 + len(COUNTS) + 1) * 256, MARGIN + 2 * 256, 3)
    pixels = Pictures([folder], 256).centre_crops(torch.arange(2))
    files = codec.compress_batch(map(eight_bit, pixels))
    tokens = torch.cat([codec.read(data) for data in files])
    for row, truth in enumerate((pixels, *(codec.decode(tokens[:, :k]) for k in COUNTS))):
        expected = torch.cat(list(truth), dim=2).permute(1, 2, 0).mul(255).round().numpy()
        assert np.abs(shown[row * 256 : (row + 1) * 256, MARGIN:] - expected).max() <= 1
        assert (shown[row * 256 : (row + 1) * 256, :MARGIN] < 128).any(), "no label"
    assert max(map(len, files)) < 40, "no WebP is that small, so the last row is grey"
    assert (shown[-1, MARGIN:] == BLANK).all()


def test_a_sheet_without_sizes_has_no_thumbnails(folder, codec):
    pixels = Pictures([folder], 256).centre_crops(torch.arange(2))
    found = sheet.comparison(codec.model, pixels, codec.model.encode(pixels), {})
    assert found.size == (MARGIN + 2 * 256, (1 + len(COUNTS)) * 256)


def test_thumbnails_of_a_sheet_have_equal_bytes(folder, codec):
    pixels = Pictures([folder], 256).centre_crops(torch.arange(2))
    found = sheet.comparison(codec.model, pixels, codec.model.encode(pixels), {8: [20, 20], 16: [300, 10]})
    last = np.asarray(found)[-256:, MARGIN:]
    assert len(np.unique(last[:, :256])) > 20 and (last[-1, 256:] == BLANK).all()


def test_a_sheet_that_cannot_be_written_is_an_error_before_the_work(tmp_path):
    with pytest.raises(ImageError, match=r"cannot write a picture as '\.txt'"):
        sheet.main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "sheet.txt")])
    with pytest.raises(TitokError, match="there is no folder"):
        sheet.main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "missing" / "sheet.png")])


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
