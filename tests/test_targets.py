"""Meeting a size or a quality: never a byte more, never a decibel less, and the best of what was tried."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.metrics.test_lpips import lpips_file
from titokcodec import info
from titokcodec.errors import ImageError, SkippedWarning, TitokError, WeightsError
from titokcodec.format.shape import scaled
from titokcodec.pictures.images import load
from titokcodec.target import Target
from titokcodec.target_search import PATIENCE, climb, reached

quick = settings(max_examples=60, deadline=None)


def psnr(picture, shown):
    error = np.square(np.asarray(picture.convert("RGB"), float) - np.asarray(shown.convert("RGB"), float)).mean()
    return 10 * np.log10(255**2 / error)


@quick
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 6000))
def test_scaling_keeps_the_aspect_and_never_enlarges(width, height, most):
    w, h = scaled(width, height, most)
    assert max(w, h) == min(max(width, height), most)
    assert 1 <= w <= width and 1 <= h <= height
    if (w, h) != (width, height):
        factor = most / max(width, height)
        assert abs(w - width * factor) <= 1 and abs(h - height * factor) <= 1


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.data())
def test_a_climb_finds_the_top_of_a_single_hill_from_anywhere(heights, data):
    top = data.draw(st.integers(0, len(heights) - 1))
    hill = [*sorted(set(heights[:top])), 100, *sorted(set(heights[top:]), reverse=True)]
    asked = []
    start = data.draw(st.integers(0, len(hill) - 1))
    assert hill[climb(len(hill), start, lambda n: asked.append(n) or hill[n])] == 100
    assert max(asked) <= max(hill.index(100), start) + PATIENCE


# ---- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(512, 512), (300, 200), (900, 100), (30, 20)])
@pytest.mark.parametrize("layout", ["auto", "fit", "tile"])
def test_no_file_is_longer_than_it_may_be_and_all_show_the_whole_picture(codec, photo, shape, layout):
    picture = photo.resize(shape)
    lengths = []
    for target in (27, 30, 34, 45, 70, 130, 300):
        try:
            data = codec.compress(picture, target_bytes=target, layout=layout)
        except TitokError:
            assert layout == "tile" and target < 40
            continue
        assert len(data) <= target
        assert codec.decompress(data).size == shape
        lengths.append(len(data))
    assert lengths[0] <= lengths[-1]


@pytest.fixture(scope="module")
def wide(photo):
    return photo.crop((0, 80, 512, 340))


def test_more_bytes_are_better_pictures(bundled, wide):
    """The bundled model: of the tiny one more tokens or tiles are not always better."""
    files = [bundled.compress(wide, target_bytes=target, effort=0) for target in (62, 210, 500)]
    found = [psnr(wide, bundled.decompress(data)) for data in files]
    assert found[0] + 0.8 < found[1] < found[2] - 0.8
    assert info(files[0]).layout == "fit" and info(files[-1]).layout == "tile"


def test_nothing_else_that_was_open_is_clearly_better(bundled, wide):
    chosen = psnr(wide, bundled.decompress(bundled.compress(wide, target_bytes=220, effort=0)))
    for layout, tokens in (("fit", 128), ("tile", 64)):
        other = bundled.compress(wide, layout=layout, tokens=tokens, effort=0)
        assert len(other) <= 220 and psnr(wide, bundled.decompress(other)) < chosen + 0.02


def test_saved_bytes_are_spent_on_more_tokens(codec, photo):
    """The choice is made as if tokens were packed; what the tables save buys more of them."""
    picture = photo.resize((256, 256))
    whole = codec.compress(picture)
    assert info(whole).entropy == "tables"
    assert codec.compress(picture, target_bytes=len(whole), layout="fit") == whole


def test_what_tables_save_makes_room_where_packed_tokens_have_none(codec, photo):
    short = codec.compress(photo, tokens=8)
    assert info(short).entropy == "tables"
    found = codec.compress(photo, target_bytes=len(short), layout="fit")
    assert len(found) <= len(short) and info(found).tokens >= 8


def test_a_search_that_loses_is_not_taken(codec, photo, monkeypatch):
    """Whatever effort is asked for, the better of both results is written."""
    picture = photo.resize((500, 260))
    options = {"target_bytes": 60, "layout": "tile"}
    plain = codec.compress(picture, effort=0, **options)
    monkeypatch.setattr(
        "titokcodec.tile_codec.search",
        lambda model, pixels, tokens, steps: torch.zeros(len(pixels), tokens, dtype=torch.long),
    )
    assert codec.compress(picture, effort=2, **options) == plain


def test_the_least_that_is_named_can_be_had(codec, photo):
    for options in ({}, {"layout": "fit"}, {"layout": "tile"}, {"max_side": 100}):
        with pytest.raises(TitokError, match="cannot make this picture 10 bytes: the least that it takes") as error:
            codec.compress(photo, target_bytes=10, **options)
        least = int(re.search(r"\d+$", str(error.value))[0])
        assert len(codec.compress(photo, target_bytes=least, **options)) <= least
        with pytest.raises(TitokError, match=f"is {least}"):
            codec.compress(photo, target_bytes=least - 1, **options)


def test_max_side_is_the_size_of_the_picture(codec, photo):
    assert codec.decompress(codec.compress(photo, target_bytes=100, max_side=200)).size == (200, 200)


# ---- quality -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("more", [0.0, 1.0])
def test_a_file_has_the_quality_that_was_asked_for_and_little_more(bundled, wide, mode, more):
    picture = wide.convert(mode)
    simple = bundled.compress(picture, tokens=50, effort=0)
    wanted = psnr(picture, bundled.decompress(simple)) + more
    data = bundled.compress(picture, target_psnr=wanted, effort=0)
    assert wanted <= psnr(picture, bundled.decompress(data)) < wanted + 0.1
    assert len(data) <= len(simple) + 3 or more


@pytest.mark.parametrize("size", [(300, 200), (500, 500)])
def test_a_searched_file_has_it_too(codec, photo, size):
    picture = photo.resize(size)
    wanted = psnr(picture, codec.decompress(codec.compress(picture, tokens=9))) - 0.02
    assert psnr(picture, codec.decompress(codec.compress(picture, target_psnr=wanted, effort=2))) >= wanted


def test_what_cannot_be_reached_is_said_with_what_can(codec, photo):
    picture = photo.resize((256, 256))
    with pytest.raises(TitokError, match=r"no file .* PSNR of 60 dB: (\d+\.\d\d) dB is the best") as error:
        codec.compress(picture, target_psnr=60)
    best = float(re.search(r"([\d.]+) dB is", str(error.value))[1])
    assert psnr(picture, codec.decompress(codec.compress(picture, target_psnr=best))) >= best


def test_lpips_is_met_with_the_weights_of_the_metric(codec, photo, tmp_path):
    from titokcodec.metrics.lpips import LPIPS

    weights = lpips_file(tmp_path)
    network = LPIPS(weights)

    def distance(data):
        a, b = (
            torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None] / 255
            for shown in (picture, codec.decompress(data))
        )
        return float(network(a, b))

    picture = photo.resize((300, 220))
    wanted = distance(codec.compress(picture, effort=0)) + 0.0011
    data = codec.compress(picture, target_lpips=wanted, lpips=weights, effort=0)
    assert distance(data) <= wanted
    assert reached(codec, Target(lpips=wanted, weights=weights), load(picture), data) == {
        "lpips": pytest.approx(distance(data), abs=1e-4)
    }
    for target in (Target(bytes=100), Target(psnr=9)):
        quality = psnr(picture, codec.decompress(data))
        assert reached(codec, target, load(picture), data) == {"psnr": pytest.approx(quality, abs=1e-3)}
    with pytest.raises(TitokError, match=r"LPIPS of 1e-06: \d\.\d+ is the best"):
        codec.compress(picture, target_lpips=1e-6, lpips=weights)
    with pytest.raises(ImageError, match="40x9 has no LPIPS, which takes 17 pixels"):
        codec.compress(photo.resize((40, 9)), target_lpips=wanted, lpips=weights)


def test_wrong_weights_of_the_metric_are_no_picture_s_fault(codec, photo, tmp_path):
    (tmp_path / "odd.safetensors").write_bytes(b"odd")
    for name in ("odd", "none"):
        with pytest.raises(WeightsError, match=f"{name}.safetensors"):
            codec.compress_batch([photo], target_lpips=0.3, lpips=tmp_path / f"{name}.safetensors", errors="skip")


# ---- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": 8, "target_bytes": 100}, "tokens or a target"),
        ({"target_psnr": 20, "target_bytes": 100}, "give one of"),
        ({"target_bytes": 0}, "target_bytes is 0"),
        ({"target_bytes": 9.5}, "target_bytes is 9.5"),
        ({"target_psnr": 0}, "target_psnr is 0"),
        ({"target_psnr": "20"}, "target_psnr is '20'"),
        ({"target_psnr": float("nan")}, "target_psnr is nan"),
        ({"target_psnr": True}, "target_psnr is True"),
        ({"target_psnr": 1000}, "from 0 to 1000"),
        ({"target_lpips": 0.3, "lpips": 5}, "lpips is 5: give the path"),
        ({"target_lpips": 0.3}, "go together"),
        ({"lpips": "lpips.safetensors"}, "go together"),
    ],
)
def test_targets_that_make_no_sense_are_refused(codec, photo, options, said):
    with pytest.raises(TitokError, match=said):
        codec.compress(photo, **options)


def test_a_file_depends_on_its_picture_alone(codec, photo):
    pictures = [photo, photo.resize((300, 200)), photo.rotate(90).resize((90, 700))]
    for options in ({"target_bytes": 90}, {"target_psnr": 11}):
        together = codec.compress_batch(pictures, **options)
        assert together == [codec.compress(picture, **options) for picture in pictures]


def test_a_picture_that_is_broken_or_out_of_reach_is_left_out(codec, photo):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    with pytest.warns(SkippedWarning, match="no file of this picture"):
        assert len(codec.compress_batch([noise, photo], target_psnr=11, errors="skip")) == 1
    found = codec.compress_batch([b"nothing", photo], target_bytes=60, errors="return")
    assert isinstance(found[0], TitokError) and isinstance(found[1], bytes)
