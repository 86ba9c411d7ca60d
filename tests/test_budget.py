"""Meeting a size: the largest picture and the most tokens that fit, and never a byte more."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from titokcodec import info
from titokcodec.budget import Choice, choose, scaled
from titokcodec.errors import TitokError
from titokcodec.geometry import FIT_SIDE, tile_count
from titokcodec.models.config import TiTokConfig, Tower

CONFIG = TiTokConfig(Tower(32, 1, 2), Tower(32, 1, 2), tokens=128, nested=True, min_tokens=32)
sides = st.integers(1, 5000)
layouts = st.sampled_from(["auto", "fit", "tile"])
quick = settings(max_examples=60, deadline=None)


def size(choice):
    """What a file takes at 12 bits a token."""
    return 14 + -(-tile_count(choice.width, choice.height, choice.layout) * choice.tokens * 12 // 8)


def chosen(width, height, layout, target):
    return choose(width, height, layout, target, CONFIG, size)


@quick
@given(sides, sides, st.integers(1, 6000))
def test_scaling_keeps_the_aspect_and_never_enlarges(width, height, most):
    w, h = scaled(width, height, most)
    assert max(w, h) == min(max(width, height), most)
    assert 1 <= w <= width and 1 <= h <= height
    if (w, h) != (width, height):
        factor = most / max(width, height)
        assert abs(w - width * factor) <= 1 and abs(h - height * factor) <= 1


@quick
@given(sides, sides, layouts, st.integers(0, 20000))
def test_a_choice_meets_the_target_and_the_model(width, height, layout, target):
    try:
        choice = chosen(width, height, layout, target)
    except TitokError as error:
        least = int(re.search(r"\d+$", str(error))[0])
        assert least > target
        assert size(chosen(width, height, layout, least)) == least
        return
    assert size(choice) <= target
    CONFIG.check_count(choice.tokens)
    assert choice.width <= width and choice.height <= height
    assert layout in ("auto", choice.layout)
    more = Choice(choice.width, choice.height, choice.layout, choice.tokens + 1)
    assert choice.tokens == CONFIG.tokens or size(more) > target


@quick
@given(sides, sides, layouts)
@example(300, 200, "tile")
def test_with_bytes_to_spare_nothing_is_lost(width, height, layout):
    choice = chosen(width, height, layout, 10**9)
    assert (choice.width, choice.height, choice.tokens) == (width, height, CONFIG.tokens)


@quick
@given(sides, sides, st.integers(64, 20000), st.integers(0, 1000))
def test_more_bytes_never_show_fewer_pixels(width, height, target, more):
    few, many = (chosen(width, height, "tile", bytes_) for bytes_ in (target, target + more))
    assert (few.width, few.height) <= (many.width, many.height)


def test_few_bytes_squeeze_the_whole_picture_into_one_tile():
    assert chosen(2000, 1000, "auto", 205) == Choice(2000, 1000, "fit", 127)
    assert chosen(2000, 1000, "tile", 205) == Choice(256, 128, "tile", 127)
    assert chosen(2000, 1000, "auto", 62) == Choice(2000, 1000, "fit", 32)
    with pytest.raises(TitokError, match=r"cannot make this picture 61 bytes: the least .* is 62"):
        chosen(2000, 1000, "auto", 61)


def test_tiles_get_at_least_half_of_the_tokens():
    for target in range(300, 3000, 100):
        choice = chosen(2000, 1000, "auto", target)
        assert choice.layout == "fit" or (choice.tokens >= 64 and choice.width > FIT_SIDE)


@pytest.mark.parametrize("shape", [(512, 512), (300, 200), (900, 100)])
@pytest.mark.parametrize("layout", ["auto", "fit", "tile"])
def test_no_file_is_longer_than_it_may_be(codec, photo, shape, layout):
    picture = photo.resize(shape)
    lengths = []
    for target in (27, 30, 34, 45, 70, 130, 300):
        data = codec.compress(picture, target_bytes=target, layout=layout)
        assert len(data) <= target
        assert codec.decompress(data).width <= shape[0]
        lengths.append(len(data))
    assert lengths[0] < lengths[-1] or info(data).layout == "fit"


def test_saved_bytes_are_spent_on_more_tokens(codec, photo):
    """The choice is made as if tokens were packed; what the tables save buys more of them."""
    picture = photo.resize((256, 256))
    whole = codec.compress(picture)
    assert info(whole).entropy == "tables"
    assert codec.compress(picture, target_bytes=len(whole)) == whole


def test_the_least_that_is_named_can_be_had(codec, photo):
    for options in ({}, {"layout": "fit"}, {"layout": "tile"}, {"max_side": 100}):
        with pytest.raises(TitokError, match="cannot make this picture 10 bytes") as error:
            codec.compress(photo, target_bytes=10, **options)
        least = int(re.search(r"\d+$", str(error.value))[0])
        assert len(codec.compress(photo, target_bytes=least, **options)) <= least
        with pytest.raises(TitokError, match=f"is {least}"):
            codec.compress(photo, target_bytes=least - 1, **options)


def test_a_target_and_a_count_exclude_each_other(codec, photo):
    with pytest.raises(TitokError, match="tokens or target_bytes, not both"):
        codec.compress(photo, tokens=8, target_bytes=100)


def test_a_long_thin_picture_is_fitted_rather_than_shrunk_to_fewer_pixels_than_a_tile_has():
    assert chosen(2400, 100, "auto", 300) == Choice(2400, 100, "fit", 128)
    assert chosen(2400, 100, "auto", 4000) == Choice(2400, 100, "tile", 128)
