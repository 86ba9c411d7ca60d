"""The README's worst and best pictures, from a made-up gallery."""

import json

import numpy as np
import pytest
from PIL import Image

from bench import extremes, tables
from bench.gallery import GAP, sheet
from titokcodec.errors import TitokError

TOKENS = (32, 64, 128)
METHODS = {
    "titok-default-2": "titok default-2",
    "webp-thumbnail": "WebP thumbnail",
    "jxl-thumbnail": "JPEG XL thumbnail",
}
COLOURS = {"titok": 200, "webp-thumbnail": 120, "jxl-thumbnail": 60}


def version(folder, number, method, label, size):
    """One of a picture's, whose grey depends on the method, the picture and the bytes."""
    name = f"{number}-{method}-{size}.webp"
    grey = COLOURS[method] - 10 * number - size // 50
    Image.new("RGB", (256, 256), (grey,) * 3).save(folder / name, lossless=True)
    return {
        "method": method,
        "label": label,
        "bytes": size,
        "file": name,
        "psnr-rgb": 20.0 - number,
        "lpips-squeeze": 0.4 + number / 10,
    }


def entry(folder, number, why):
    """A picture in versions of titok's and of its rivals'; JPEG XL has no file of 60 bytes of the last one."""
    shown = [version(folder, number, "titok", f"{count} tokens", 11 + count * 3 // 2) for count in TOKENS]
    for budget in (60, 204):
        shown.append(version(folder, number, "webp-thumbnail", f"16 pixels, quality 0, budget {budget}", budget - 2))
        if (number, budget) != (3, 60):
            shown.append(version(folder, number, "jxl-thumbnail", f"3 pixels, lossless, budget {budget}", budget - 1))
    Image.new("RGB", (256, 256), "white").save(folder / f"{number}.webp", lossless=True)
    return {"name": f"a_picture-{number}.png", "why": why, "original": f"{number}.webp", "shown": shown}


@pytest.fixture
def results(tmp_path):
    """Of four pictures the first, the two worst and the three best."""
    (tmp_path / "gallery").mkdir()
    order = [(0, "first"), (3, "worst"), (2, "worst"), (0, "best"), (1, "best"), (2, "best")]
    rows = [entry(tmp_path / "gallery", number, why) for number, why in order]
    (tmp_path / "gallery" / "gallery.json").write_text(json.dumps(rows))
    for slug, name in METHODS.items():
        content = {"name": name, "results": {"bytes": [60.0]}, "points": [{"label": "any", "pictures": 4}]}
        (tmp_path / f"{slug}.json").write_text(json.dumps(content))
    pairs = zip(TOKENS, (60, 108, 204), strict=True)
    about = {"titok": "titok-default-2", "rival": "webp-thumbnail", "metric": "psnr-rgb", "rate": 0.2502, "pictures": 4}
    wins = [{**about, "label": f"{count} tokens", "budget": f"budget {most}"} for count, most in pairs]
    (tmp_path / "wins.json").write_text(json.dumps(wins))
    (tmp_path / "protocol.json").write_text(json.dumps({"pictures": [{}] * 4}))
    return tmp_path


def grey(picture):
    return int(np.asarray(picture).mean())


def test_rows_are_the_worst_then_the_best(results):
    table = extremes.table(results)
    assert [row[0][0] for row in table] == [
        "worst of 4:\na_picture-3",
        "second worst of 4:\na_picture-2",
        "best of 4:\na_picture-0",
        "second best of 4:\na_picture-1",
    ]
    assert [row[0][0].split(" of")[0] for row in extremes.table(results, 1)] == ["worst", "best"]
    assert all(grey(row[0][1]) == 255 for row in table)


def test_captions_are_the_gallerys(results):
    captions = [caption for caption, _ in extremes.table(results)[1]]
    assert captions[1:] == [
        "titok, 59 bytes\nLPIPS 0.600, 18.00 dB",
        "WebP, 58 bytes\nLPIPS 0.600, 18.00 dB",
        "JPEG XL, 59 bytes\nLPIPS 0.600, 18.00 dB",
        "titok, 203 bytes\nLPIPS 0.600, 18.00 dB",
        "WebP, 202 bytes\nLPIPS 0.600, 18.00 dB",
        "JPEG XL, 203 bytes\nLPIPS 0.600, 18.00 dB",
    ]


def test_pictures_stand_over_their_captions(results):
    for number, row in zip((3, 2, 0, 1), extremes.table(results), strict=True):
        for (caption, picture), method in zip(row[1:], [*COLOURS, *COLOURS], strict=True):
            if "no file" not in caption:
                size = int(caption.split(" bytes")[0].split()[-1])
                assert grey(picture) == pytest.approx(COLOURS[method] - 10 * number - size // 50, abs=1), caption


def test_a_rival_without_a_file_leaves_a_gap(results):
    caption, picture = extremes.table(results)[0][3]
    assert caption == "JPEG XL\nhas no file so small" and grey(picture) == int(extremes.NOTHING[1:3], 16)


def test_other_numbers_of_tokens(results):
    assert [row[1][0].split(",")[0] for row in extremes.table(results, tokens=[64])] == ["titok"] * 4
    with pytest.raises(TitokError, match="no thumbnails beside 48 tokens of titok: choose others with --tokens"):
        extremes.table(results, tokens=[48])


def test_the_command_writes_the_sheet(results, tmp_path):
    extremes.main([str(results), "--out", str(tmp_path / "sheet.webp"), "--each", "1"])
    shown = Image.open(tmp_path / "sheet.webp")
    assert shown.format == "WEBP" and shown.width == 7 * 256 + 6 * GAP and 2 * 256 < shown.height < 2.5 * 256
    assert grey(shown.crop((256 + GAP + 20, 20, 2 * 256, 240))) == pytest.approx(200 - 30 - 1, abs=2)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("gallery/gallery.json", "gallery.json is not there: python -m bench.rate_distortion makes it"),
        ("gallery/3-titok-59.webp", "3-titok-59.webp is not there: python -m bench.rate_distortion makes it"),
        ("lpips-squeeze", "lacks lpips-squeeze: run python -m bench.rate_distortion with it"),
        ("extremes", "run python -m bench.rate_distortion with --extremes"),
    ],
)
def test_what_is_missing_is_one_line(results, gone, message):
    path = results / "gallery" / "gallery.json"
    if gone == "extremes":
        path.write_text(json.dumps(json.loads(path.read_text())[:1]))
    elif gone == "lpips-squeeze":
        path.write_text(path.read_text().replace(gone, "other"))
    else:
        (results / gone).unlink()
    with pytest.raises(TitokError, match=message) as caught:
        extremes.main([str(results), "--out", str(results / "sheet.webp")])
    assert "\n" not in str(caught.value) and not (results / "sheet.webp").exists()


def test_captions_of_several_lines_do_not_touch_pictures():
    black = Image.new("RGB", (64, 64), "black")
    one, two = (np.asarray(sheet([[(caption, black)]] * 2, letters=10)) for caption in ("a", "a\nb"))
    for pixels, lines in ((one, 1), (two, 2)):
        dark = np.flatnonzero((pixels[:, 32:] < 128).all(axis=(1, 2)))
        assert len(dark) == 2 * 64 and pixels.shape[0] == 2 * (64 + 12 * lines + 6 + GAP)


def test_the_sentence_names_them(results, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", results.parent)
    monkeypatch.setattr(tables, "GALLERY", results.name)
    assert tables.TABLES["extremes"]() == (
        "Of 4 pictures under free licences by LPIPS at 128 tokens, worst: a picture-3 (0.700, 17.00 dB) and a "
        "picture-2 (0.600, 18.00 dB); best: a picture-0 (0.400, 20.00 dB) and a picture-1 (0.500, 19.00 dB) and a "
        "picture-2 (0.600, 18.00 dB). On 3 of them a WebP thumbnail of as many bytes has the higher PSNR.\n"
    )
