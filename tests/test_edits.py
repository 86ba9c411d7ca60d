"""Pictures edited through their tokens: regions, what fills them, and the way from one picture to another."""

import numpy as np
import pytest
import torch

from tests.models.test_maskgit import build
from titokcodec import Generator, TitokError
from titokcodec.generator import save
from titokcodec.inpainting import inpaint, paste
from titokcodec.interpolation import interpolate
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.region import Region

CONFIG = GeneratorConfig("bert", 12, codes=64, classes=4, width=32, layers=2, heads=4, mlp=40)  # the tokenizer has 16


@pytest.fixture(scope="module")
def generator(codec, tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "g.safetensors"
    save(path, build(CONFIG), "small", tokenizer=codec.weights.fingerprint)
    return Generator.from_pretrained(path, device="cpu", dtype="fp32")


@pytest.fixture(scope="module")
def tokens(codec):
    """Of two pictures: ramps from dark to light and from left to right."""
    ramp = torch.linspace(0, 1, 256).expand(3, 256, 256)
    return codec.encode(torch.stack([ramp, ramp.transpose(1, 2).flip(1)]))


# ---- regions -----------------------------------------------------------------------------------------------------


def test_a_mask_is_0_outside_and_rises_within():
    mask = Region(40, 20, 60, 40).mask(200, 100)
    assert mask.shape == (100, 200) and mask.dtype == np.float32
    inside = np.zeros_like(mask, bool)
    inside[20:60, 40:100] = True
    assert (mask[~inside] == 0).all() and (mask[inside] > 0).all() and mask[40, 70] == 1
    assert (np.diff(mask[40, 40:55]) >= 0).all() and 0 < mask[40, 40] < mask[40, 45] < 1


def test_at_the_picture_s_border_there_is_no_edge():
    mask = Region(0, 0, 50, 100).mask(100, 100)
    assert (mask[:, 0] == 1).all() and mask[0, 49] < 1
    assert (Region(0, 0, 100, 100).mask(100, 100) == 1).all()


def test_a_mask_of_another_size_covers_the_same_part():
    large, small = Region(30, 60, 90, 30).mask(300, 150), Region(30, 60, 90, 30).mask(300, 150, 100, 50)
    assert np.abs(large.reshape(50, 3, 100, 3).mean((1, 3)) - small).max() < 0.1


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "1,2,0,4", "1,2,3,0", "-1,2,3,4"])
def test_what_is_no_region(text):
    with pytest.raises(TitokError):
        Region.parse(text)


def test_a_region_must_lie_inside():
    region = Region.parse("10, 20, 30, 40")
    assert str(region) == "10,20,30,40"
    region.check_inside(40, 60)
    for size in ((39, 60), (40, 59)):
        with pytest.raises(TitokError, match=f"10,20,30,40 is not inside the picture, which has {size[0]}x{size[1]}"):
            region.mask(*size)


# ---- filled anew -------------------------------------------------------------------------------------------------


def mask_of(*numbers):
    return torch.from_numpy(Region(*numbers).mask(256, 256))


def test_what_is_new_is_inside(generator, codec, tokens):
    """The outside is far nearer to the old picture than where as many tokens are just sampled anew."""
    mask = mask_of(0, 0, 128, 256)
    found = inpaint(generator, codec, tokens, mask, seed=1)
    assert found.shape == tokens.shape and found.dtype == torch.int64
    before, after = codec.decode(tokens), codec.decode(found)
    error = (after - before).square().mean(1)
    assert error[:, mask == 1].mean() > 3 * error[:, mask == 0].mean()
    keep = torch.ones(2, 12, dtype=torch.bool)
    keep[:, ::2] = False
    plain = codec.decode(generator.inpaint(tokens[:, :12], keep, seed=1)) - codec.decode(tokens[:, :12])
    assert error[:, mask == 0].mean() < plain.square().mean(1)[:, mask == 0].mean() / 2


def test_a_seed_fills_the_same_again(generator, codec, tokens):
    mask, labels = mask_of(0, 0, 200, 256), [2, None]
    first, again, other = (
        inpaint(generator, codec, tokens, mask, labels, seed=seed, temperature=50) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_was_in_the_region_has_no_say(generator, codec, tokens):
    """Two pictures that differ in the region alone, by much, become nearly the same."""
    left = torch.zeros(256, 256)
    left[:, :128] = 1
    before = codec.decode(tokens[:1])
    both = codec.encode(torch.cat([before, paste(before, 1 - before, left)]))
    apart = (codec.decode(both[:1]) - codec.decode(both[1:])).abs().mean()
    stream = torch.Generator().manual_seed(0)

    def alike(step, shape):
        return torch.rand(shape[1:], generator=stream).expand(shape)

    filled = codec.decode(inpaint(generator, codec, both, mask_of(0, 0, 140, 256), noise=alike))
    assert (filled[0] - filled[1]).abs().mean() < apart / 2


def test_pasting():
    before, after = torch.zeros(1, 3, 256, 256), torch.ones(1, 3, 256, 256)
    mask = mask_of(64, 64, 128, 128)
    assert torch.equal(paste(before, after, mask)[0, 0], mask)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.zeros(256, 256), "larger one"),
        (torch.full((256, 256), 2.0), "in \\[0, 1\\]"),
        (torch.full((256, 256), float("nan")), "in \\[0, 1\\]"),
        (torch.ones(64, 64), "shape \\(256, 256\\)"),
        (torch.ones(256, 256, dtype=torch.bool), "floats"),
        (None, "floats"),
    ],
)
def test_masks_that_are_none(generator, codec, tokens, mask, said):
    with pytest.raises(TitokError, match=said):
        inpaint(generator, codec, tokens, mask)


def test_a_smaller_share_changes_less(generator, codec, tokens):
    mask = mask_of(0, 0, 128, 256)
    apart = []
    for share in (0.1, 1.0):
        one, other = (
            codec.decode(inpaint(generator, codec, tokens, mask, seed=seed, share=share, temperature=50))
            for seed in (1, 2)
        )
        apart.append((one - other)[..., mask == 1].square().mean())
    assert apart[0] < apart[1]
    for share in (0, 1.1, float("nan"), "half", None):
        with pytest.raises(TitokError, match="share is"):
            inpaint(generator, codec, tokens, mask, share=share)


def test_too_few_tokens(generator, codec, tokens):
    with pytest.raises(TitokError, match="11 tokens are too few: generator small needs 12"):
        inpaint(generator, codec, tokens[:, :11], mask_of(0, 0, 128, 128))


# ---- from one picture to another ---------------------------------------------------------------------------------


def test_the_way_leads_from_end_to_end(codec, tokens):
    first, last = tokens[:1], tokens[1:]
    rows = interpolate(codec, first, last, 5)
    with torch.inference_mode():
        assert not interpolate(codec, first, last, 3).is_inference()
    assert rows.shape == (5, 16) and torch.equal(rows[:1], first) and torch.equal(rows[4:], last)
    shown = codec.decode(rows)
    before = [(picture - shown[0]).square().mean() for picture in shown]
    after = [(picture - shown[4]).square().mean() for picture in shown]
    assert before[1] < after[1] and after[3] < before[3]
    assert max(before[1], after[3], before[2], after[2]) < before[4]
    assert torch.equal(interpolate(codec, first, last, 1), rows[2:3])
    assert torch.equal(interpolate(codec, first, last, 2), torch.cat([first, last]))


def test_ends_must_match(codec, tokens):
    for first, last in ((tokens[:1], tokens[1:, :8]), (tokens, tokens)):
        with pytest.raises(TitokError, match="one picture each, of as many tokens"):
            interpolate(codec, first, last, 3)
    with pytest.raises(TitokError, match="count is 0"):
        interpolate(codec, tokens[:1], tokens[1:], 0)
