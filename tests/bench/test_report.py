"""The report: what its page shows and never does, and how it behaves in a real browser, from a file."""

import html
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("jinja2", reason="the report needs jinja2 (pip install .[bench])")
pytest.importorskip("plotly", reason="the report needs plotly (pip install .[bench])")

from bench import charts, report
from bench.curves import Method, Point, compare, metric_of, paired, read_methods
from titokcodec.errors import TitokError

METRICS = ("psnr-rgb", "ms-ssim-rgb", "lpips-squeeze", "fd-lite0", "top1-agreement")
HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>"
SIZES = (58, 106, 203)

# ---- made-up results ----------------------------------------------------------------------------------------------


def curve(name, kind, sizes, start, pictures=12, **about):
    """A method whose metrics get better with log bytes from ``start``, a number around 0 that makes it worse."""
    at = np.log2(np.array(sizes) / 58)
    results = {
        "bpp": [8 * size / 65536 for size in sizes],
        "bytes": list(sizes),
        "payload_bytes": [s - 9 for s in sizes],
        "psnr-rgb": list(18 + 1.5 * at - start),
        "ms-ssim-rgb": list(0.6 + 0.08 * at - start / 50),
        "lpips-squeeze": list(0.5 - 0.07 * at + start / 15),
        "fd-lite0": list(150 - 30 * at + 9 * start),
        "top1-agreement": [0.2, *[None] * (len(sizes) - 1)],
    }
    bounds = [{"psnr-rgb": [value - 0.3, value + 0.4]} for value in results["psnr-rgb"]]
    labels = [{"label": f"{size} bytes", "pictures": pictures} for size in sizes]
    points = [label | {"intervals": pair} for label, pair in zip(labels, bounds, strict=True)]
    return {"name": name, "description": f"made-up {name}", "results": results, "kind": kind, "points": points} | about


def picture(path, colour, side=64):
    y, x = np.mgrid[0:side, 0:side] * 255 // (side - 1)
    ramp = np.stack([x, y, np.full_like(x, 128)], axis=2) * np.array(colour)
    Image.fromarray(ramp.astype(np.uint8)).save(path, lossless=True)


def entry(folder, number):
    """A picture with three versions of titok's and of a rival's."""
    shown = []
    for method, colour in (("titok-default-1", (0.5, 1, 1)), ("webp-thumbnail", (1, 1, 0.4))):
        for size in SIZES:
            name = f"{number}-{method[:2]}-{size}.webp"
            picture(folder / name, np.array(colour) * (0.6 + number / 10) * (1 - 9 / size))
            about = {"method": method, "label": f"{size} at most", "bytes": size - number, "file": name}
            shown.append(about | {"psnr-rgb": 17.0 - number, "lpips-squeeze": 0.6 + number / 20})
    picture(folder / f"{number}.webp", (1, 1, 1))
    return {"name": f"picture {number}", "original": f"gallery/{number}.webp", "shown": shown}


@pytest.fixture
def folder(tmp_path):
    """What the benchmark leaves, for six methods and four pictures."""
    where = tmp_path / "results"
    (where / "gallery").mkdir(parents=True)
    keep = lambda name, content: (where / name).write_text(json.dumps(content))  # noqa: E731
    keep("titok-default-1.json", curve("titok default-1", "titok", SIZES, 0))
    keep("webp-thumbnail.json", curve("WebP thumbnail", "thumbnail", SIZES, 1, pictures=7))
    keep("jpeg-xl-thumbnail.json", curve("JPEG XL thumbnail", "thumbnail", SIZES, -0.5))
    keep("raw-thumbnail.json", curve("raw thumbnail", "thumbnail", SIZES, 4))
    keep("jpeg-native.json", curve("JPEG", "native", (900, 1400, 2500), 3))
    keep("webp-native.json", curve("WebP", "native", (700, 1100), 2))
    keep("protocol.json", {"pictures": [{"name": "a.png", "sha256": "0f" * 32}], "commit": "abc1234", "skipped": []})
    about = {"titok": "titok-default-1", "rival": "webp-thumbnail", "rate": 0.75, "interval": [0.6, 0.9]}
    about |= {"pictures": 7, "without": 5}
    points = [(size, metric) for size in SIZES for metric in METRICS[:3]]
    keep("wins.json", [about | {"label": f"{s} bytes", "budget": f"budget {s}", "metric": m} for s, m in points])
    shown = [entry(where / "gallery", number) for number in range(4)]
    whys = [(0, "first"), (1, "first"), (3, "worst"), (2, "worst"), (1, "best")]
    keep("gallery/gallery.json", [shown[number] | {"why": why} for number, why in whys])
    return where


@pytest.fixture
def speed(tmp_path):
    path = tmp_path / "speed.json"
    rows = [{"group": "encode", "name": "batch 1", "median": 0.0123, "rounds": 5}]
    path.write_text(json.dumps({"machine": "a machine", "benchmarks": rows}))
    return path


def change(path, **parts):
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


class References(HTMLParser):
    """Every place where a page could ask for something from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "style")]


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    report.main()


# ---- at equal bytes -----------------------------------------------------------------------------------------------


def method(kind, *points, name=""):
    made = [Point(f"budget {size}", size, None, None, None, {"psnr-rgb": value}, {}, {}) for size, value in points]
    return Method(kind, name or kind, "", kind, kind, made)


def test_equal_bytes_by_hand():
    """Half-way between 100 and 400 bytes is 200, on a log axis."""
    rival = method("thumbnail", (100, 20.0), (400, 22.0))
    values = [rival.at(size, "psnr-rgb") for size in (50, 99, 100, 200, 400, 999)]
    assert values == [None, 20.0, 20.0, pytest.approx(21), 22.0, 22.0]
    assert rival.at(100, "lpips-squeeze") is None


def test_verdicts():
    rivals = [method("thumbnail", (100, 20.0), (400, 22.0)), method("native", (400, 26.0), name="large")]
    ours = method("titok", (50, 30.0), (100, 25.0), (200, 21.1), (400, 25.0))
    found = compare(ours, [ours, *rivals], metric_of("psnr-rgb"), {})
    verdicts = [(verdict.word, verdict.rival) for verdict in found]
    assert verdicts == [("alone", ""), ("ahead", "thumbnail"), ("level", "thumbnail"), ("behind", "large")]


def test_a_rival_counts_at_the_budget_that_belongs_to_the_point():
    """Also where its files are a little larger, as under a budget they may be."""
    rival, ours = method("thumbnail", (100, 20.0), (400, 22.0)), method("titok", (90, 19.0), (200, 30))
    pairs = paired([{"titok": "titok", "label": "budget 90", "rival": "any", "budget": "budget 100", "metric": None}])
    assert [v.theirs for v in compare(ours, [rival], metric_of("psnr-rgb"), {})] == [None, pytest.approx(21)]
    assert [v.theirs for v in compare(ours, [rival], metric_of("psnr-rgb"), pairs)] == [20, pytest.approx(21)]


def test_thumbnails_have_other_bytes_for_each_metric(folder):
    change(folder / "raw-thumbnail.json", points=[{"mean_bytes": {"psnr-rgb": 50, "new": 1}}])
    raw = next(found for found in read_methods(folder) if found.slug == "raw-thumbnail")
    assert [point.sizes for point in raw.points] == [{"psnr-rgb": 50}, {}, {}]
    assert raw.at(50, "psnr-rgb") == raw.points[0].values["psnr-rgb"] and raw.at(50, "lpips-squeeze") is None


def test_the_headline_says_where_it_loses(folder):
    methods = read_methods(folder)
    text = report.headline(methods, [metric_of("psnr-rgb"), metric_of("fd-lite0"), metric_of("ms-ssim-rgb")], {})
    assert text[0] == (
        "titok default-1, in 58 to 203 bytes a picture: on PSNR, FD (Lite0) and MS-SSIM "
        "behind the best rival at every size."
    )
    change(folder / "jpeg-xl-thumbnail.json", results={"bytes": [100, 203], "psnr-rgb": [10, 30]})
    text = "".join(report.headline(read_methods(folder), [metric_of("psnr-rgb"), metric_of("lpips-squeeze")], {}))
    assert "on PSNR ahead of the best rival at 58 and 106 bytes, behind it at 203 bytes; " in text
    assert "on LPIPS (squeeze) ahead of it at every size." in text
    assert "fewer than the 12 pictures" in text


def test_directions():
    lower = {key: metric_of(key).lower for key in ("psnr-rgb", "ssimulacra2", "lpips-vgg", "fd-lite0", "new")}
    assert lower == {"psnr-rgb": False, "ssimulacra2": False, "lpips-vgg": True, "fd-lite0": True, "new": False}


# ---- the page -----------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing(folder, speed):
    text = report.page(folder, [speed])
    references = References(text).found
    assert references and all(found.startswith("data:") for found in references)
    own = text.replace(report.get_plotlyjs(), "")
    assert "@import" not in own and not re.search(r"url\(|https?://", own)
    assert "default-src 'none'" in text
    assert 20_000 < len(own) < 200_000 and len(text) < 6e6
    for word in ("12.3 ms", "75% (60% to 90%)", "0f" * 32, "made-up JPEG", "7 of 12", "batch 1"):
        assert word in text, word


def test_each_picture_is_there_once(folder):
    found = json.loads((folder / "gallery/gallery.json").read_text())
    (folder / "gallery/gallery.json").write_text(json.dumps(found + found))
    assert report.page(folder).count("data:image/webp") == 4 * 7 - 3, "the four originals are the same"
    entries, _ = report.read_gallery(folder, read_methods(folder))
    assert [list(entry["why"]) for entry in entries] == [["first"], ["first", "best"], ["worst"], ["worst"]]
    assert {version["method"] for entry in entries for version in entry["shown"]} == {
        "titok default-1",
        "WebP thumbnail",
    }


def test_hostile_names_stay_text(folder, speed):
    change(folder / "webp-thumbnail.json", name=HOSTILE, description=HOSTILE)
    change(folder / "protocol.json", **{HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]})
    change(speed, machine=HOSTILE, benchmarks=[{HOSTILE: HOSTILE}])
    gallery = json.loads((folder / "gallery/gallery.json").read_text())
    gallery[0] |= {"name": HOSTILE, "why": HOSTILE}
    gallery[0]["shown"][0] |= {"method": HOSTILE, "label": HOSTILE}
    (folder / "gallery/gallery.json").write_text(json.dumps(gallery))
    wins = [dict.fromkeys(("titok", "label", "rival", "budget", "metric"), HOSTILE) | {"rate": 0.5}]
    (folder / "wins.json").write_text(json.dumps(wins))
    text = report.page(folder, [speed])
    assert "<img src=x" not in text and References(text).tags.count("script") == 3
    data = re.search(r'id="data">(.*?)</script>', text)[1]
    names = [trace["name"] for trace in json.loads(data)["figures"][0]["data"]]
    assert html.escape(HOSTILE, quote=False) in names, "plotly reads tags in names"


def test_pictures_of_other_folders_stay_there(folder, tmp_path, capsys):
    picture(tmp_path / "secret.webp", (1, 1, 1))
    gallery = json.loads((folder / "gallery/gallery.json").read_text())
    gallery[0]["original"] = "../secret.webp"
    (folder / "gallery/gallery.json").write_text(json.dumps(gallery))
    assert len(report.read_gallery(folder)[0]) == 3
    assert "there is no picture ../secret.webp" in capsys.readouterr().err


def test_what_is_missing_is_left_out(folder):
    for name in ("wins.json", "gallery/gallery.json", "protocol.json"):
        (folder / name).unlink()
    for path in folder.glob("*.json"):
        results = json.loads(path.read_text())["results"]
        path.write_text(json.dumps({"name": "only", "results": {k: results[k] for k in ("bpp", "bytes", "fd-lite0")}}))
    text = report.page(folder)
    assert 'id="wins"' not in text and 'id="protocol"' not in text and 'id="speed"' not in text
    kinds = [found.kind for found in read_methods(folder)]
    assert kinds == ["titok"] + ["thumbnail"] * 3 + ["native"] * 2


def test_values_that_are_no_numbers(folder):
    results = {"bytes": [60, None, 0, 200], "psnr-rgb": [float("nan"), 1, 1, 20.5], "lpips-squeeze": ["a", 1, 1, None]}
    change(folder / "titok-default-1.json", results=results, points="none")
    points = read_methods(folder)[0].points
    assert [(point.bytes, point.values) for point in points] == [(60, {}), (200, {"psnr-rgb": 20.5})]
    assert "NaN" not in report.page(folder).replace(report.get_plotlyjs(), "")


def test_charts_show_every_point(folder):
    go = pytest.importorskip("plotly.graph_objects")
    methods = read_methods(folder)
    figures = charts.figures(methods, [metric_of(key) for key in METRICS])
    assert [figure["metric"] for figure in figures] == [*METRICS]
    for figure in figures:
        shown = go.Figure(data=figure["data"], layout=figure["layout"])  # which refuses what plotly does not know
        assert shown.layout.xaxis.type == "log" and [trace.name for trace in shown.data] == [m.name for m in methods]
    assert [figure["layout"]["showlegend"] for figure in figures] == [True] + [False] * 4
    traces = {trace["name"]: trace for trace in figures[0]["data"]}
    ours = traces["titok default-1"]
    assert ours["x"] == [*SIZES] and ours["y"][0] == 18.0 and ours["error_y"]["array"][0] == pytest.approx(0.4)
    assert ours["text"][0].split("<br>") == [
        "titok default-1, 58 bytes",
        "58 bytes, 0.00708 bpp",
        "PSNR 18.00 dB",
        "interval 17.70 dB to 18.40 dB",
        "12 pictures",
    ]
    assert {name for name, trace in traces.items() if trace["line"]["dash"] == "dash"} == {"JPEG", "WebP"}
    hollow = [name for name, trace in traces.items() if trace["marker"]["symbol"][0].endswith("-open")]
    assert hollow == ["WebP thumbnail"], "the points of fewer pictures"
    assert len({trace["marker"]["symbol"][0].removesuffix("-open") for trace in traces.values()}) == 6


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "holds no results: run python -m bench.rate_distortion first"),
        ("[]", "holds no results"),
        ("{", "a.json cannot be read"),
        ('{"results": {"bytes": [1], "bpp": []}}', "a.json: lists of one length expected"),
    ],
)
def test_no_results_is_one_clear_line(tmp_path, monkeypatch, content, message):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(TitokError, match=message) as error:
        main(monkeypatch, tmp_path)
    assert "\n" not in str(error.value)


def test_no_folder_and_no_timings(folder, monkeypatch, tmp_path):
    with pytest.raises(TitokError, match=r"page.html cannot be written: No such file or directory"):
        main(monkeypatch, folder, "--out", tmp_path / "none" / "page.html")
    with pytest.raises(TitokError, match="is not a folder"):
        main(monkeypatch, tmp_path / "none")
    with pytest.raises(TitokError, match=r"protocol.json holds no timings"):
        change(folder / "protocol.json", pictures={})
        main(monkeypatch, folder, "--speed", folder / "protocol.json")


def test_the_repository_s_own_timings(folder, monkeypatch, tmp_path, capsys):
    names = ("speed", "published-speed", "generation-speed", "scaling")
    paths = [report.PAGE.parent / "results" / f"{name}.json" for name in names]
    main(monkeypatch, folder, "--speed", *paths, "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert all(f"<caption>{name.replace('-', ' ')}, " in text for name in names)
    assert "MB" in capsys.readouterr().err


# ---- in a browser -------------------------------------------------------------------------------------------------

FLAGS = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "hide-scrollbars")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need selenium (pip install .[browser])")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("browser tests need Chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, "force-device-scale-factor=1", f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def opened(browser, folder, speed, tmp_path):
    """The page in a browser window of a desktop, without a word of complaint at the end."""
    path = tmp_path / "report.html"
    path.write_text(report.page(folder, [speed]))
    resize(browser, 1280, 900)
    browser.get(path.as_uri())
    yield browser
    complaints = [line["message"] for line in browser.get_log("browser")]
    assert complaints == []


def resize(browser, width, height):
    """The page's own size: windows cannot be as narrow as phones are."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def find(browser, selector):
    return browser.find_element("css selector", selector)


def count(browser, selector):
    return len(browser.find_elements("css selector", selector))


def actions(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(browser)


def press(browser, *keys):
    from selenium.webdriver.common.keys import Keys

    actions(browser).send_keys(*(getattr(Keys, key, key) for key in keys)).perform()


def focus(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


def split(browser):
    """Where the handle really is, in hundredths of the picture's width, and what the right picture leaves free."""
    return browser.execute_script("""
        const stage = document.getElementById("stage").getBoundingClientRect();
        const handle = document.getElementById("handle").getBoundingClientRect();
        const middle = (handle.left + handle.right) / 2 - stage.left;
        const clip = getComputedStyle(document.getElementById("over")).clipPath;
        return [100 * middle / stage.width, parseFloat(clip.split(" ").pop())];
    """)


def test_the_slider_follows_the_mouse(opened):
    stage = find(opened, "#stage")
    width = stage.size["width"]
    assert split(opened) == pytest.approx([50, 50], abs=0.5)
    actions(opened).move_to_element(stage).click_and_hold().move_by_offset(width // 4, 10).perform()
    assert split(opened) == pytest.approx([75, 75], abs=1)
    actions(opened).move_by_offset(width, 0).perform()
    assert split(opened) == pytest.approx([100, 100], abs=0.5), "held, beyond the edge"
    actions(opened).release().move_to_element(stage).perform()
    assert split(opened) == pytest.approx([100, 100], abs=0.5), "let go"


def test_the_slider_follows_a_finger(opened):
    resize(opened, 360, 740)
    opened.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    opened.execute_script("document.getElementById('stage').scrollIntoView({block: 'center'})")
    box = opened.execute_script("return document.getElementById('stage').getBoundingClientRect()")

    def touch(kind, share):
        points = [{"x": box["left"] + share * box["width"], "y": box["top"] + box["height"] / 2}]
        points = [] if kind == "touchEnd" else points
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.5)
    for share in (0.4, 0.3, 0.2):
        touch("touchMove", share)
    touch("touchEnd", 0.2)
    opened.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert split(opened) == pytest.approx([20, 20], abs=1)


def test_the_slider_follows_the_keyboard(opened):
    focus(opened, "#split")
    press(opened, *["ARROW_LEFT"] * 5)
    assert split(opened) == pytest.approx([45, 45], abs=0.5)
    press(opened, "HOME")
    assert split(opened) == pytest.approx([0, 0], abs=0.5)
    assert find(opened, "#where").text.startswith("1 of 4"), "these arrows do not change the picture"


def test_methods_are_hidden_in_all_charts(opened):
    names = lambda: [plot["names"] for plot in opened.execute_script(SHOWN)]  # noqa: E731
    assert len(names()) == 5 and all(len(shown) == 6 for shown in names())
    toggles = opened.find_elements("css selector", ".legendtoggle")
    assert len(toggles) == 6, "one legend"
    actions(opened).move_to_element(toggles[-1]).click().perform()
    opened.execute_async_script("setTimeout(arguments[0], 700)")  # a second click would isolate it
    assert all(len(shown) == 5 for shown in names())


SHOWN = """return [...document.querySelectorAll(".js-plotly-plot")].map(plot => ({
    names: plot.data.filter(trace => (trace.visible ?? true) === true).map(trace => trace.name)}))"""


def test_marks_show_their_values(opened):
    mark = find(opened, '[data-metric="psnr-rgb"] .scatterlayer .trace .point')
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    actions(opened).move_to_element(mark).perform()
    opened.execute_async_script("setTimeout(arguments[0], 300)")
    assert "PSNR 18.00 dB" in find(opened, '[data-metric="psnr-rgb"] .hovertext').text


def test_pictures_change(opened):
    names = []
    press(opened, "ARROW_RIGHT")
    names.append(find(opened, "#where").text)
    find(opened, "#next").click()
    names.append(find(opened, "#where").text)
    press(opened, "ARROW_LEFT", "ARROW_LEFT", "ARROW_LEFT")
    names.append(find(opened, "#where").text)
    find(opened, "#strip button").click()
    names.append(find(opened, "#where").text)
    assert names == [
        "2 of 4: picture 1, one of the best",
        "3 of 4: picture 3, one of the worst",
        "4 of 4: picture 2, one of the worst",
        "1 of 4: picture 0",
    ]
    assert "picture 0: titok default-1, 203 at most (203 bytes)" in find(opened, "#under").get_attribute("alt")


def test_the_worst_come_first_when_asked(opened):
    find(opened, '[data-order="worst"]').click()
    order = [image.get_attribute("alt") for image in opened.find_elements("css selector", "#strip img")]
    assert order == ["picture 3", "picture 2", "picture 1", "picture 0"]
    assert find(opened, "#where").text == "1 of 4: picture 3, one of the worst"
    focus(opened, '[data-order="best"]')
    press(opened, "ENTER")
    assert find(opened, "#where").text == "1 of 4: picture 1, one of the best"
    assert find(opened, '[data-order="worst"]').get_attribute("aria-pressed") == "false"


def test_versions_keep_to_equal_bytes(opened):
    caption = lambda side: find(opened, f"#caption-{side}").text  # noqa: E731
    choose = lambda side, text: next(  # noqa: E731
        option for option in find(opened, f"#{side}").find_elements("css selector", "option") if option.text == text
    ).click()
    assert caption("left").startswith("titok default-1, 203 at most\n203 bytes\nPSNR 17.00 dB\nLPIPS (squeeze) 0.600")
    assert caption("right").startswith("WebP thumbnail, 203 at most\n203 bytes")
    choose("left", "titok default-1, 58 at most (58 bytes)")
    assert caption("right").startswith("WebP thumbnail, 58 at most\n58 bytes")
    find(opened, "#equal-bytes").click()
    choose("right", "WebP thumbnail, 203 at most (203 bytes)")
    assert caption("left").startswith("titok default-1, 58 at most")
    choose("right", "Original")
    assert caption("right") == "Original"
    sources = [find(opened, selector).get_attribute("src") for selector in ("#under", "#over")]
    assert sources[0] != sources[1] and all(source.startswith("data:image/webp") for source in sources)


@pytest.mark.parametrize("width, height", [(360, 740), (768, 1024), (1280, 900)])
def test_nothing_is_wider_than_the_window(opened, width, height):
    resize(opened, width, height)
    opened.execute_async_script("setTimeout(arguments[0], 500)")  # plotly waits for a resize to end
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    for selector in ("h1", ".headline", ".legend", ".chart h3", "#stage", "#caption-right", "#equal td"):
        assert find(opened, selector).is_displayed(), selector
    box = find(opened, "#stage").rect
    assert box["width"] > min(0.9 * width, 380) and box["height"] == pytest.approx(box["width"], abs=1)
    assert all(chart.rect["width"] <= width for chart in opened.find_elements("css selector", ".chart .main-svg"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened, scheme):
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})

    def style(selector, name):
        return [int(part) / 255 for part in re.findall(r"\d+", find(opened, selector).value_of_css_property(name))[:3]]

    paper = style("body", "background-color")
    assert (sum(paper) > 1.5) == (scheme == "light")
    for selector in ("h1", "#equal td.behind", "th", "#caption-left"):
        assert contrast(style(selector, "color"), paper) > 4.5, selector
    for colour in charts.COLOURS:
        assert contrast([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], paper) > 3, colour
    assert contrast(style(".chart .xtick text", "fill"), paper) > 4.5


def contrast(a, b):
    """Of two colours, as the Web Content Accessibility Guidelines define it."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in (a, b)]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)


def test_hostile_names_do_nothing_in_a_browser(browser, folder, tmp_path):
    change(folder / "webp-thumbnail.json", name=HOSTILE, description=HOSTILE)
    gallery = json.loads((folder / "gallery/gallery.json").read_text())
    gallery[0] |= {"name": HOSTILE}
    gallery[0]["shown"][1] |= {"method": HOSTILE, "label": HOSTILE}
    (folder / "gallery/gallery.json").write_text(json.dumps(gallery))
    path = tmp_path / "hostile.html"
    path.write_text(report.page(folder))
    resize(browser, 360, 740)
    browser.get(path.as_uri())
    assert browser.title.startswith("titok") and count(browser, "img[src=x]") == 0
    assert HOSTILE in find(browser, "#where").text
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    assert browser.get_log("browser") == []


def test_a_page_of_little(browser, folder, tmp_path):
    for path in folder.rglob("*.json"):
        if path.name != "webp-native.json":
            path.unlink()
    change(folder / "webp-native.json", results={"bytes": [700], "psnr-rgb": [20.0]}, points=[])
    path = tmp_path / "little.html"
    path.write_text(report.page(folder))
    browser.get(path.as_uri())
    assert count(browser, "#charts .point") == 1 and not find(browser, "#gallery").is_displayed()
    assert browser.get_log("browser") == []
