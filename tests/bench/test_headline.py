"""The README's plot and its table of equal bytes, from made-up results."""

import json
from xml.etree import ElementTree as Xml

import pytest

from bench import equal, headline, tables
from bench.plots import WIDTH, Curve, Panel, round_steps, svg
from titokcodec.errors import TitokError

SVG = "{http://www.w3.org/2000/svg}"
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
        {
            "titok": "titok-default-2",
            "label": label,
            "rival": rival,
            "budget": budget,
            "metric": metric,
            "rate": rate,
            "pictures": 12,
            "without": 0,
        }
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
def drawn(results):
    return Xml.fromstring(headline.plot(results))


def texts(element, **wanted):
    return {
        text.text: (float(text.get("x")), float(text.get("y")))
        for text in element.iter(f"{SVG}text")
        if all(text.get(name.replace("_", "-")) == value for name, value in wanted.items())
    }


# ---- the plot -----------------------------------------------------------------------------------------------------


def test_every_method_and_metric_is_named(drawn):
    panels = drawn.findall(f"{SVG}g")
    titles = [next(iter(texts(panel, font_weight="bold"))) for panel in panels]
    assert titles == [
        "LPIPS (squeeze): lower is better ↓",
        "PSNR, dB: higher is better ↑",
        "MS-SSIM: higher is better ↑",
    ]
    names = {"titok default-2", "WebP thumbnail", "JPEG XL thumbnail", "JPEG native", "HEIC native"}
    assert names < texts(drawn).keys()
    assert not names & {name for panel in panels for name in texts(panel)}, "named once, in the legend"
    assert any("Means over 12 pictures" in text for text in texts(drawn))
    assert [float(drawn.get("width")), drawn[0].get("fill")] == [3 * WIDTH, "white"], "readable on a dark page"


def test_bytes_are_on_a_log_axis(drawn):
    for panel in drawn.findall(f"{SVG}g"):
        at = {int(text): x for text, (x, _) in texts(panel, text_anchor="middle").items() if text.isdigit()}
        assert sorted(at, key=at.get) == [50, 100, 200, 500, 1000, 2000]
        double = at[100] - at[50]
        assert [at[200] - at[100], at[1000] - at[500], at[2000] - at[1000]] == pytest.approx([double] * 3, abs=0.02)
        assert at[500] - at[50] == pytest.approx(double * 3.3219, abs=0.02)
        (line,) = (line for line in panel.iter(f"{SVG}polyline") if line.get("stroke-width") == "4")
        places = [tuple(map(float, place.split(","))) for place in line.get("points").split()]
        assert at[50] < places[0][0] < at[100] < places[1][0] < at[200] < places[2][0] < at[500]


def test_points_beyond_the_axis_are_cut_off(drawn):
    panel = drawn.findall(f"{SVG}g")[1]
    steps = [float(text) for text in texts(panel, text_anchor="end")]
    assert min(steps) >= 10 and max(steps) <= 30, "70 dB at 3000 bytes do not count, 16 and 25 do"
    window = panel.find(f"{SVG}svg")
    assert float(window.get("x")) + float(window.get("width")) <= WIDTH
    assert "AVIF native" not in texts(drawn), "all of it is"
    assert all(shape in list(window) for kind in ("circle", "polygon", "polyline") for shape in panel.iter(SVG + kind))


def test_marks_of_fewer_pictures_are_hollow(drawn):
    for panel in drawn.findall(f"{SVG}g"):
        hollow = [mark for mark in panel.iter(f"{SVG}polygon") if mark.get("fill") == "white"]
        assert [mark.get("stroke") for mark in hollow] == [headline.LOOKS["jxl"][0]]
    assert len([mark for mark in drawn.iter() if mark.get("fill") == "white"]) == 1 + 3


def test_kinds_can_be_told_apart(drawn):
    for panel in drawn.findall(f"{SVG}g"):
        lines = {line.get("stroke"): line for line in panel.iter(f"{SVG}polyline")}
        assert len(lines) == 5
        dashed = {colour for colour, line in lines.items() if line.get("stroke-dasharray")}
        assert dashed == {headline.LOOKS["jpeg"][0], headline.OTHER[0]}
        shaded = [shape.get("fill") for shape in panel.iter(f"{SVG}polygon") if shape.get("fill-opacity")]
        assert shaded == [headline.OURS[0]], "the interval of titok's mean"
        assert list(lines)[-1] == headline.OURS[0], "on top of the others"


def test_two_of_titoks_methods_have_two_colours(results):
    keep(results, "titok-default-2-tile", "titok default-2 tile", {"32 tokens": 120, "64 tokens": 240}, 19)
    drawn = Xml.fromstring(headline.plot(results))
    thick = {line.get("stroke") for line in drawn.iter(f"{SVG}polyline") if line.get("stroke-width") == "4"}
    assert thick == set(headline.OURS[:2]) and "titok default-2 tile" in texts(drawn)


def test_the_command_writes_the_plot(results, tmp_path):
    headline.main([str(results), "--out", str(tmp_path / "plot.svg")])
    assert (tmp_path / "plot.svg").read_text(encoding="utf-8") == headline.plot(results)


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


def test_steps_need_not_begin_at_zero():
    assert round_steps(28.6, 14.3) == [10.0, 15.0, 20.0, 25.0, 30.0]
    assert round_steps(0.83, 0.31) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_steps(8.0, -12.0) == [-15.0, -10.0, -5.0, 0.0, 5.0, 10.0]
    assert round_steps(3.0, 3.0) == [3.0, 4.0]


def test_own_steps_are_the_ends_of_the_axis():
    curve = Curve([(1, -5.0), (2, 5.0)], "#123456")
    root = Xml.fromstring(svg([[Panel("", "", [1, 2], ["1", "2"], {"it": curve}, steps=[-5.0, 0.0, 5.0])]]))
    places = [tuple(map(float, at.split(","))) for at in root.find(f".//{SVG}polyline").get("points").split()]
    heights = {text: y for text, (_, y) in texts(root, text_anchor="end").items()}
    assert [places[0][1], places[1][1]] == pytest.approx([heights["-5"] - 4, heights["5"] - 4])


def test_curves_and_values_share_an_axis():
    curve = Curve([(1.5, 8.0), (2, 2.0)], "#123456", mark="square", hollow=[True, False])
    root = Xml.fromstring(svg([[Panel("", "", [1, 2], ["1", "2"], {"values": [1, 4], "curve": curve})]]))
    values, own = (
        [tuple(map(float, at.split(","))) for at in line.get("points").split()] for line in root.iter(f"{SVG}polyline")
    )
    assert own[1][0] == values[1][0] and own[0][0] == pytest.approx((values[0][0] + values[1][0]) / 2, abs=0.01)
    assert own[1][1] - own[0][1] == pytest.approx(2 * (values[0][1] - values[1][1]), abs=0.02)
    assert [mark.get("fill") for mark in root.iter(f"{SVG}polygon")] == ["white", "#123456"]


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
    told, _, head, _, *body = tables.TABLES["headline"]().splitlines()
    assert told == (
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
        {
            "titok": "titok-default-2-target",
            "label": f"{size} bytes",
            "rival": "webp-thumbnail",
            "budget": f"budget {size}",
            "metric": metric,
            "rate": rate,
            "pictures": 12,
            "without": 0,
        }
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
def test_what_is_missing_is_told_in_one_line(results, gone):
    if gone.endswith("json"):
        (results / gone).unlink()
    else:
        path = results / "titok-default-2.json"
        path.write_text(path.read_text().replace(gone, "33 tokens"))
    with pytest.raises(TitokError, match=r"python -m bench\.rate_distortion|cannot be read") as caught:
        equal.rows(results)
    assert "\n" not in str(caught.value)
