"""The search for better tokens: what it promises of quality, of prefixes, and of what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import titokcodec.search as searching
from titokcodec import Codec, TitokError, info, truncate
from titokcodec.metrics import ssim
from titokcodec.models.config import PRESETS, Tower
from titokcodec.models.tokenizer import TiTok
from titokcodec.search import NEWTON_STEPS, STEPS, default_steps, prefix_lengths, prefix_schedule, search


@pytest.fixture(scope="module")
def pixels(photo) -> torch.Tensor:
    """(6, 3, 256, 256) float: the photograph whole, its quarters, and noise."""
    boxes = [(0, 0, 512, 512), (0, 0, 256, 256), (256, 0, 512, 256), (0, 256, 256, 512), (256, 256, 512, 512)]
    views = [np.asarray(photo.resize((256, 256), box=box)) for box in boxes]
    views.append(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2) / 255


def errors(codec, tokens, pixels):
    return (codec.decode(tokens) - pixels).square().mean((1, 2, 3))


def test_found_tokens_decode_every_picture_no_worse_and_most_of_them_better(codec, pixels):
    own, found = (errors(codec, codec.encode(pixels, 8, effort=effort), pixels) for effort in (0, 8))
    assert (found <= own * 1.001).all()
    assert (found < own * 0.99).sum() >= 3


def test_more_effort_finds_more(codec, pixels):
    means = [errors(codec, codec.encode(pixels, effort=effort), pixels).mean() for effort in (0, 2, 12)]
    assert means[0] > means[1] > means[2]


@pytest.fixture(scope="module")
def searched(bundled, pixels):
    """Tokens of the five photographs by the bundled model: the encoder's own, and those that a search finds."""
    return bundled.encode(pixels[:5]), bundled.encode(pixels[:5], effort=NEWTON_STEPS)


def test_the_bundled_model_gains_in_similarity_at_every_length_and_in_decibels_at_most(bundled, pixels, searched):
    photographs = pixels[:5]
    own, found = searched
    for tokens, decibels, similarity in ((32, -0.03, 0.003), (64, 0.05, 0.005), (128, 0.05, 0.01)):
        before, after = (bundled.decode(t[:, :tokens]) for t in (own, found))
        ratio = (before - photographs).square().mean((1, 2, 3)) / (after - photographs).square().mean((1, 2, 3))
        assert 10 * ratio.log10().mean() > decibels
        assert ssim(after, photographs).mean() > ssim(before, photographs).mean() + similarity


def test_the_first_step_decodes_a_sketch_alone(bundled, pixels, monkeypatch):
    def refused(*_):
        raise AssertionError("a whole picture was decoded")

    monkeypatch.setattr(TiTok, "decode_codes", refused)
    found = bundled.encode(pixels[:4], effort=1)
    with pytest.raises(AssertionError, match="whole"):
        bundled.encode(pixels[:4], effort=2)
    monkeypatch.undo()
    assert errors(bundled, found, pixels[:4]).mean() < errors(bundled, bundled.encode(pixels[:4]), pixels[:4]).mean()


@pytest.fixture(scope="module")
def flat() -> torch.Tensor:
    colours = [(0, 0, 0), (128, 128, 128), (255, 255, 255), (100, 90, 30), (222, 87, 58), (139, 69, 19)]
    return (torch.tensor(colours) / 255).view(-1, 3, 1, 1).expand(-1, 3, 256, 256)


@pytest.fixture(scope="module")
def unevenness(bundled, flat):
    """How far pixels of the flat pictures are off at most, by the encoder's own tokens."""
    return (bundled.decode(bundled.encode(flat)) - flat).abs().amax((1, 2, 3))


@pytest.mark.parametrize("effort", [1, 2, 8, 16])
def test_flat_grounds_stay_as_flat_as_the_encoder_leaves_them(bundled, flat, unevenness, effort):
    """A search for similarity covered them with a few strong marks, for the sake of a faint grain."""
    after = (bundled.decode(bundled.encode(flat, effort=effort)) - flat).abs().amax((1, 2, 3))
    assert (after < unevenness + 0.06).all()


@pytest.mark.parametrize("tokens", [8, 9, 13, 15])
def test_a_shorter_answer_is_a_prefix_of_a_longer_one(codec, pixels, tokens):
    assert codec.encode(pixels, tokens, effort=3).equal(codec.encode(pixels, effort=3)[:, :tokens])


def test_a_truncated_file_is_the_shorter_file(codec, photo):
    small = photo.resize((250, 256))
    assert truncate(codec.compress(small), 8, codec.weights.path) == codec.compress(small, tokens=8)


def test_prefix_lengths_double_from_the_shortest_prefix_to_what_is_asked():
    default = PRESETS["default"]
    assert prefix_lengths(default, 32) == [32]
    assert prefix_lengths(default, 33) == prefix_lengths(default, 64) == [32, 64]
    assert prefix_lengths(default, 65) == prefix_lengths(default, 128) == [32, 64, 128]
    assert prefix_lengths(replace(default, min_tokens=48), 128) == [48, 96, 128]
    assert prefix_lengths(PRESETS["titok_s128"], 128) == [128]


@pytest.mark.parametrize(
    ("lengths", "steps", "expected"),
    [
        ([32, 64, 128], 8, [32, 128, 64, 128, 32, 128, 64, 128]),
        ([32, 64, 128], 3, [128, 32, 128]),
        ([32, 64, 128], 1, [128]),
        ([128], 2, [128, 128]),
    ],
)
def test_lengths_take_turns_and_the_last_decoding_is_whole(lengths, steps, expected):
    assert prefix_schedule(lengths, steps) == expected


def test_pictures_on_one_tile_are_searched_for_and_tiles_only_on_request(codec, photo):
    small, large = photo.resize((300, 200)), photo.resize((400, 340))
    for picture in (small, large):
        assert codec.compress(picture) == codec.compress(picture, effort=STEPS) != codec.compress(picture, effort=0)
    tiled = [codec.compress(large, layout="tile", effort=effort) for effort in (None, 0, 1)]
    assert tiled[0] == tiled[1] != tiled[2]


def test_published_architectures_keep_the_tokens_of_their_encoder():
    assert default_steps(PRESETS["default_2"], 1) == STEPS and default_steps(PRESETS["default"], 1) > 0
    assert not any(default_steps(config, 1) for name, config in PRESETS.items() if name.startswith("titok_"))


def test_other_heads_can_be_searched_too(pixels):
    """A one-stage model with codes of any length, not nested."""
    torch.manual_seed(0)
    small = Tower(32, 1, 2)
    sizes = {"encoder": small, "decoder": small, "tokens": 8, "min_tokens": 8, "codes": 64, "code_width": 4}
    model = TiTok(replace(PRESETS["titok_bl64"], **sizes)).eval()
    with torch.no_grad():
        model.quantize.embedding.weight.normal_()
        own, found = model.encode(pixels), search(model, pixels, 8, 6)
        far = [(model.decode(tokens) - pixels).square().mean((1, 2, 3)) for tokens in (own, found)]
    assert (far[1] <= far[0]).all() and (far[1] < far[0]).any()


def test_the_model_is_left_as_it_was(codec, pixels):
    before = {name: value.clone() for name, value in codec.model.state_dict().items()}
    with torch.inference_mode():
        found = codec.encode(pixels[:1], effort=2)
    assert found.equal(codec.encode(pixels[:1], effort=2))
    assert all(value.equal(before[name]) for name, value in codec.model.state_dict().items())
    assert all(value.grad is None for value in codec.model.parameters())


def test_a_codec_loaded_in_inference_mode_can_search(codec, tiny_path, photo):
    small = photo.resize((256, 256))
    with torch.inference_mode():
        own = Codec.from_pretrained(tiny_path, device="cpu", dtype="fp32")
        assert own.compress(small) == codec.compress(small)


def test_a_budget_is_kept_and_holds_a_prefix_of_the_whole(codec, photo):
    small = photo.resize((256, 256))
    for budget in range(25, len(codec.compress(small)) + 1):
        data = codec.compress(small, target_bytes=budget)
        assert len(data) <= budget
        assert codec.read(data).equal(codec.read(codec.compress(small))[:, : info(data).tokens])


@pytest.mark.parametrize("effort", [-1, 0.5, "much", True, True + 0j])
def test_an_effort_that_is_no_number_of_steps_is_refused(codec, photo, effort):
    with pytest.raises(TitokError, match=r"effort is .*: give (a whole number|0 or more)"):
        codec.compress(photo, effort=effort)


def test_an_effort_beyond_reason_is_refused_at_once(codec, photo):
    with pytest.raises(TitokError, match="effort is 99999999999999999999: give 1000 at most"):
        codec.compress(photo, effort=99999999999999999999)


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_no_pictures_have_no_tokens(bundled, effort):
    assert bundled.encode(torch.empty(0, 3, 256, 256), 64, effort=effort).shape == (0, 64)


def test_pillow_and_the_command_line_pass_it_on(codec, photo, tmp_path, tiny_path):
    from click.testing import CliRunner

    from titokcodec import cli, register_pillow

    photo.resize((90, 70)).save(tmp_path / "a.png")
    small = Image.open(tmp_path / "a.png")
    for effort in (0, 2):
        expected = codec.compress(small, effort=effort)
        options = ["-f", "-m", tiny_path, "--dtype", "fp32", "--effort", effort]
        arguments = [str(word) for word in (tmp_path / "a.png", tmp_path / "a.titok", *options)]
        done = CliRunner().invoke(cli.compress, arguments)
        assert done.exit_code == 0, done.output
        assert (tmp_path / "a.titok").read_bytes() == expected
        register_pillow(codec)
        small.save(tmp_path / "b.titok", effort=effort)
        assert (tmp_path / "b.titok").read_bytes() == expected
    register_pillow()


def test_a_search_does_not_buy_brightness_with_colour(bundled, pixels, searched, monkeypatch):
    """Squared error alone drew this astronaut with green hair."""
    photographs = pixels[:5]

    def wrong(tokens):
        apart = F.avg_pool2d(bundled.decode(tokens[:, :64]) - photographs, 8)
        return (apart - apart.mean(1, keepdim=True)).square().mean((1, 2, 3))

    own, found = map(wrong, searched)
    monkeypatch.setattr(searching, "COLOUR", 1.0)
    monkeypatch.setattr(searching, "SIMILARITY", 0.0)
    assert (found / own).mean() < 0.93 < (wrong(bundled.encode(photographs, 64, effort=NEWTON_STEPS)) / own).mean()


def test_colours_count_more_than_grey_and_all_together_as_much_as_ever():
    none, squared_error = torch.zeros(1, 3, 4, 4), searching.squared_error
    grey, red = torch.ones(1, 3, 4, 4), torch.tensor([1.0, 0, -1]).view(1, 3, 1, 1).expand(1, 3, 4, 4) * 1.5**0.5
    assert squared_error(red, none).item() == pytest.approx(searching.COLOUR * squared_error(grey, none).item())
    blue = torch.tensor([-1.0, 2, -1]).view(1, 3, 1, 1).expand(1, 3, 4, 4) * 0.5**0.5
    assert sum(squared_error(axis, none).item() for axis in (grey, red, blue)) == pytest.approx(3)
