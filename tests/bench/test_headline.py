"""The README's plot and its table of equal bytes, from made-up results."""

import json
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib", reason="figures need matplotlib (pip install .[bench])")

from bench import equal, headline, tables
from titokcodec.errors import TitokError

TITOK = {"32 tokens": 59, "64 tokens": 107, "128 tokens": 203}
BUDGETS = {"budget 60": 60, "budget 108": 106, "budget 204": 200, "budget 1000": 990}


def keep(folder, slug, name, points, start, pictures=12, few=None):
    """A method whose metrics get better with every point from ``start``; at the first one it may have few pictures."""
    steps = range(len(points))
    results = {
        "bytes": [*points.values()],
        "psnr-rgb": [start + step for step in steps],
        "ms-ssim-rgb": [start / 50 + step / 20 for step in steps],
        "lpips-squeeze": [1 - start / 50 - step / 20 for step in steps],
    }
    about = [
        {
            "label": label,
            "pictures": few if few and not step else pictures,
            "intervals": {key: [values[step] - 0.01, values[step] + 0.01] for key, values in results.items()},
        }
        for step, label in enumerate(points)
    ]
    kind = "titok" if slug.startswith("titok") else slug.rsplit("-", 1)[1]
    content = {"name": name, "kind": kind, "results": results, "points": about}
    (folder / f"{slug}.json").write_text(json.dumps(content))


def win(titok, label, rival, budget, metric, rate):
    about = {"titok": titok, "label": label, "rival": rival, "budget": budget, "metric": metric}
    return about | {"rate": rate, "pictures": 12, "without": 0}


@pytest.fixture
def results(tmp_path):
    """titok beside WebP, which has overtaken it at 204 bytes, and JPEG XL, which not all pictures fit at first."""
    keep(tmp_path, "titok-default-2", "titok default-2", TITOK, 18)
    keep(tmp_path, "webp-thumbnail", "WebP thumbnail", BUDGETS, 17)
    change(tmp_path / "webp-thumbnail.json", "psnr-rgb", 2, 23.0)
    keep(tmp_path, "jxl-thumbnail", "JPEG XL thumbnail", BUDGETS, 16, few=7)
    change(tmp_path / "jxl-thumbnail.json", "psnr-rgb", 0, 25.0)
    keep(tmp_path, "jpeg-native", "JPEG native", {"quality 0": 900, "quality 5": 3000}, 22)
    change(tmp_path / "jpeg-native.json", "psnr-rgb", 1, 70.0)
    keep(tmp_path, "avif-native", "AVIF native", {"quality 0": 2800}, 30)
    keep(tmp_path, "heic-native", "HEIC native", {"quality 0": 1500}, 23)
    rows = [
        win("titok-default-2", label, rival, budget, metric, rate)
        for label, budget, rate in zip(TITOK, BUDGETS, (1.0, 0.75, 0.25), strict=False)
        for rival in ("webp-thumbnail", "jxl-thumbnail")
        for metric in headline.METRICS
    ]
    (tmp_path / "wins.json").write_text(json.dumps(rows))
    return tmp_path


def change(path, metric, number, value):
    found = json.loads(path.read_text())
    found["results"][metric][number] = value
    path.write_text(json.dumps(found))


@pytest.fixture
def figure(results):
    return headline.plot(results)


# ---- the figure -----------------------------------------------------------------------------------------------------


def curves(axes):
    """The lines of a panel by their names."""
    return {line.get_gid(): line for line in axes.lines}


def test_every_method_and_metric_is_shown(figure):
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "LPIPS (squeeze): lower is better ↓",
        "PSNR, dB: higher is better ↑",
        "MS-SSIM: higher is better ↑",
    ]
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:4] == ["titok default-2", "WebP", "JPEG XL", "JPEG"] and "HEIC" in names
    assert "AVIF" not in names, "its only file is beyond the axis"
    assert "Means over 12 pictures" in legend.get_title().get_text()
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["titok default-2"]
        assert axes.get_xscale() == "log" and axes.get_xlim() == headline.LIMITS
    psnr = curves(figure.axes[1])
    assert list(psnr["titok-default-2"].get_xdata()) == [59, 107, 203]
    assert list(psnr["titok-default-2"].get_ydata()) == [18, 19, 20]
    assert list(psnr["webp-thumbnail"].get_ydata()) == [17, 18, 23, 20]


def test_values_beyond_the_x_axis_do_not_stretch_the_y_axis(figure):
    low, high = figure.axes[1].get_ylim()
    assert low > 10 and high < 30, "70 dB at 3000 bytes do not count, 16 and 25 do"


def test_kinds_can_be_told_apart(figure):
    for axes in figure.axes:
        lines = curves(axes)
        assert {name for name, line in lines.items() if line.get_linestyle() == "--"} == {"jpeg-native", "heic-native"}
        hollow = lines["jxl-thumbnail-hollow"]
        assert list(hollow.get_xdata()) == [60] and hollow.get_markerfacecolor() == "white"
        assert [name for name in lines if name.endswith("-hollow")] == ["jxl-thumbnail-hollow"]
        assert len(axes.collections) == 1, "the interval of titok's mean"
        assert list(lines)[-1] == "titok-default-2", "on top of the others"


def test_two_of_titoks_methods_have_two_colours(results):
    keep(results, "titok-default-2-tile", "titok default-2 tile", {"32 tokens": 120, "64 tokens": 240}, 19)
    lines = curves(headline.plot(results).axes[0])
    assert {lines[slug].get_color() for slug in ("titok-default-2", "titok-default-2-tile")} == set(headline.OURS[:2])


def test_the_command_writes_the_same_svg_every_time(results, tmp_path):
    for name in ("a.svg", "b.svg"):
        headline.main([str(results), "--out", str(tmp_path / name)])
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == (tmp_path / "b.svg").read_text(encoding="utf-8")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"2000", "bytes per picture", "JPEG XL"} <= texts


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("*", "holds no results: run python -m bench.rate_distortion"),
        ("titok*", "no results of titok: run python -m"),
        ("lpips", "lacks lpips-squeeze: run python -m"),
        ("folder", "is not a folder: python -m bench.rate_distortion makes one"),
    ],
)
def test_no_result_folder_is_one_line(results, gone, message):
    for path in results.glob(f"{gone}.json"):
        path.unlink()
    if gone == "lpips":
        path = results / "titok-default-2.json"
        path.write_text(path.read_text().replace("lpips-squeeze", "lpips-other"))
    with pytest.raises(TitokError, match=message) as caught:
        headline.main([str(results / "none" if gone == "folder" else results), "--out", str(results / "plot.svg")])
    assert "\n" not in str(caught.value) and not (results / "plot.svg").exists()


# ---- at equal bytes -----------------------------------------------------------------------------------------------


def test_the_best_rival_of_all_pictures_counts(results):
    first, _, last = equal.rows(results)
    assert (first.pictures, first.number, first.most) == (12, 32, 60)
    psnr = first.verdicts["psnr-rgb"]
    assert (psnr.rival, psnr.ours, psnr.theirs, psnr.word) == ("WebP thumbnail", 18, 17, "ahead")
    assert first.wins["psnr-rgb"] == 1.0, "JPEG XL has 25 dB, but of 7 pictures"
    assert (last.verdicts["psnr-rgb"].word, last.verdicts["psnr-rgb"].theirs, last.wins["psnr-rgb"]) == (
        "behind",
        23,
        0.25,
    )
    assert last.verdicts["lpips-squeeze"].word == "ahead"


def test_the_table_and_its_reading(results, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", results.parent)
    monkeypatch.setattr(tables, "SETS", {results.name: "of a test"})
    summary, _, head, _, *body = tables.TABLES["headline"]().splitlines()
    assert summary == (
        "12 pictures of a test: on LPIPS (squeeze) and MS-SSIM ahead at every size; on PSNR ahead at 60 "
        "and 108, behind at 204 bytes."
    )
    assert head == "| pictures | tokens | bytes at most | LPIPS (squeeze) ↓ | PSNR ↑ | MS-SSIM ↑ |"
    assert len(body) == 3
    assert body[0] == (
        "| 12 of a test | 32 | 60 | **0.640** / 0.660 WebP, 100% | **18.00** / 17.00 WebP, 100% | "
        "**0.360** / 0.340 WebP, 100% |"
    )
    assert "| 20.00 / **23.00** WebP, 25% |" in body[2]


@pytest.fixture
def targeted(results, monkeypatch):
    """titok's files for 400 and 1,000 bytes, of which it used less; WebP is ahead in PSNR at the latter."""
    for path in results.glob("*.json"):
        path.unlink()
    keep(results, "titok-default-2-target", "titok default-2 target", {"400 bytes": 391.5, "1000 bytes": 702.4}, 18)
    keep(results, "webp-thumbnail", "WebP thumbnail", {"budget 400": 399, "budget 1000": 998}, 17)
    change(results / "webp-thumbnail.json", "psnr-rgb", 1, 23.0)
    rows = [
        win("titok-default-2-target", f"{size} bytes", "webp-thumbnail", f"budget {size}", metric, rate)
        for size, rate in ((400, 1.0), (1000, 0.25))
        for metric in headline.METRICS
    ]
    (results / "wins.json").write_text(json.dumps(rows))
    monkeypatch.setattr(tables, "RESULTS", results.parent)
    monkeypatch.setattr(tables, "TARGETS", {results.name: "of a test", "none": "that nobody measured"})
    return results


def test_the_table_of_given_bytes(targeted):
    text = tables.render(f"<!-- table: targets {targeted.name} -->\n<!-- end -->")
    assert text.splitlines()[1:-1] == [
        "| pictures | bytes at most | titok's | LPIPS (squeeze) ↓ | PSNR ↑ | MS-SSIM ↑ |",
        "| --- | --- | --- | --- | --- | --- |",
        (
            "| 12 of a test | 400 | 392 | **0.640** / 0.660 WebP, 100% | **18.00** / 17.00 WebP, 100% | "
            "**0.360** / 0.340 WebP, 100% |"
        ),
        (
            "| 12 of a test | 1,000 | 702 | **0.590** / 0.610 WebP, 25% | 19.00 / **23.00** WebP, 25% | "
            "**0.410** / 0.390 WebP, 25% |"
        ),
    ]
    with pytest.raises(TitokError, match=r"none is not a folder: python -m bench\.rate_distortion makes one"):
        tables.render("<!-- table: targets -->\n<!-- end -->")


def test_tokens_and_given_bytes_of_one_folder_have_tables_of_their_own(targeted):
    with pytest.raises(TitokError, match="no results of titok"):
        equal.rows(targeted)
    keep(targeted, "titok-default-2-fit", "titok default-2 fit", {"32 tokens": 59}, 18)
    rows = json.loads((targeted / "wins.json").read_text())
    beside = [{**row, "titok": "titok-default-2-fit", "label": "32 tokens"} for row in rows[:3]]
    (targeted / "wins.json").write_text(json.dumps(rows + beside))
    assert [(row.layout, row.number) for row in equal.rows(targeted, (32,))] == [("fit", 32)]
    assert [(row.layout, row.number) for row in equal.target_rows(targeted)] == [("", 400), ("", 1000)]


def test_a_point_without_rivals_stands_alone(results):
    for path in results.glob("*-thumbnail.json"):
        path.unlink()
    found = equal.rows(results)
    assert found[0].verdicts["psnr-rgb"].word == "alone" and not found[0].wins
    assert "**18.00** / -" in equal.table({"of a test": found})[1][0]


@pytest.mark.parametrize("gone", ["wins.json", "titok-default-2.json", "32 tokens"])
def test_what_is_missing_is_one_line(results, gone):
    if gone.endswith("json"):
        (results / gone).unlink()
    else:
        path = results / "titok-default-2.json"
        path.write_text(path.read_text().replace(gone, "33 tokens"))
    with pytest.raises(TitokError, match=r"python -m bench\.rate_distortion|cannot be read") as caught:
        equal.rows(results)
    assert "\n" not in str(caught.value)
