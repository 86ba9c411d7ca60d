"""The model in the box: it is there, it is the released one, and it has plainly been trained."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import titokcodec
from tests.conftest import DATA
from titokcodec import Codec, Generator
from titokcodec.format import bitstream, entropy
from titokcodec.weights import releases


@pytest.fixture(scope="module")
def squares() -> list[Image.Image]:
    """The middles of the three photographs, 256 x 256."""
    names = ("astronaut", "chelsea", "coffee")
    return [ImageOps.fit(Image.open(DATA / f"{name}.jpg").convert("RGB"), (256, 256)) for name in names]


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.square(np.asarray(a, float) - np.asarray(b, float)).mean()
    return float(10 * np.log10(255**2 / error))


def tensor(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2) / 255


def test_weights_are_those_of_the_newest_release(bundled):
    newest = [known for known in releases.RELEASES if known.file][-1]
    assert bundled.weights.fingerprint == newest.fingerprint
    assert (bundled.weights.name, bundled.weights.model_id) == (newest.name, newest.id)


def test_release_ids_are_unique():
    assert len({known.id for known in releases.RELEASES}) == len(releases.RELEASES)


@pytest.fixture(scope="module")
def files(bundled, squares):
    """A function that gives the files of the photographs, noise and stripes with so many tokens.

    The search for tokens takes long, so it is made once: a shorter file is the beginning of a longer one.
    """
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    stripes = np.tile(np.array([[[255, 0, 0]], [[0, 255, 255]]], np.uint8), (128, 256, 1))
    longest = bundled.compress_batch([*squares, noise, stripes])
    assert titokcodec.truncate(longest[0], 32) == bundled.compress(squares[0], tokens=32)
    return lambda tokens: [titokcodec.truncate(data, tokens) for data in longest]


@pytest.mark.parametrize(("tokens", "most"), [(32, 60), (64, 108), (96, 156), (128, 204)])
def test_files_of_any_256_pixel_picture_stay_within_their_promise(files, tokens, most):
    for data in files(tokens):
        assert len(data) <= most
        about = titokcodec.info(data)
        assert about.bytes - about.payload <= 11
        assert about.intact


def test_more_tokens_show_more(bundled, squares, files):
    quality = [
        np.mean([psnr(picture, bundled.decompress(data)) for picture, data in zip(squares, files(k), strict=False)])
        for k in (32, 64, 128)
    ]
    assert quality[0] < quality[1] < quality[2]


@pytest.mark.parametrize("tokens", [32, 64, 128])
def test_pictures_come_back_recognisable(bundled, squares, files, tokens):
    """Each is closer to its original than a picture of its mean colour is, by 1.5 dB at least and 3 dB on average."""
    gains = []
    for picture, data in zip(squares, files(tokens), strict=False):
        mean = Image.new("RGB", picture.size, tuple(np.asarray(picture).mean((0, 1)).round().astype(int)))
        decoded = bundled.decompress(data)
        gains.append(psnr(picture, decoded) - psnr(picture, mean))
    assert min(gains) > 1.5
    assert np.mean(gains) > 3


def test_bf16_stays_within_the_stated_tolerance(bundled, squares):
    """As the README says: at least 70 % of the tokens, and from the same tokens pixels within 2/255 on average."""
    short = Codec.from_pretrained(device="cpu", dtype="bf16")
    pixels = tensor(squares)
    tokens = bundled.encode(pixels)
    assert (short.encode(pixels) == tokens).float().mean() >= 0.7
    assert (short.decode(tokens) - bundled.decode(tokens)).abs().mean() <= 2 / 255


def test_a_file_made_with_this_release_still_reads(bundled, squares):
    """When another replaces it, its file goes to the list of the retired below."""
    data = (DATA / "v1" / "default-5.titok").read_bytes()
    tokens = json.loads((DATA / "v1" / "default-5.json").read_text())
    header, offset = bitstream.parse(data)
    assert (header.model_id, header.tokens, header.width, header.height) == (5, 128, 256, 256)
    read = entropy.decode(data[offset:], header.mode, 1, 128, 4096, bundled.weights.tables)
    assert read.tolist() == [tokens]
    assert entropy.encode(np.array([tokens]), 4096, bundled.weights.tables) == (header.mode, data[offset:])
    assert psnr(squares[2], bundled.decompress(data)) > 17


def test_the_model_in_the_box_still_encodes_as_it_did_when_it_was_released(bundled, squares):
    assert bundled.weights.fingerprint.hex() == "bc1c4407e591df58"
    released = torch.tensor(json.loads((DATA / "v1" / "default-5-encoded.json").read_text()))
    assert (bundled.encode(tensor(squares[2:]))[0] == released).float().mean() > 0.97


@pytest.mark.parametrize("retired", [known.name for known in releases.RELEASES if not known.file])
def test_a_file_of_a_retired_release_names_the_model_it_needs(bundled, tiny_path, retired):
    data = (DATA / "v1" / f"{retired}.titok").read_bytes()
    for codec in (bundled, Codec.from_pretrained(tiny_path, device="cpu")):
        with pytest.raises(titokcodec.ModelMismatch, match=retired):
            codec.decompress(data)
    assert titokcodec.info(data).model == retired
    assert titokcodec.info(data).tokens == 128


def test_module_level_functions_use_it(squares):
    data = titokcodec.compress(squares[0], tokens=32)
    assert titokcodec.info(data).model == releases.RELEASES[-1].name
    assert titokcodec.decompress(titokcodec.truncate(data, 32)).size == (256, 256)


def test_tiles_of_a_photograph_leave_no_seam(bundled):
    from titokcodec.format import layout
    from titokcodec.pictures import geometry, images

    laid = layout.plan(layout.Grid(2, 2))
    pixels = images.resize(images.load(DATA / "coffee.jpg").pixels, (laid.width, laid.height))
    decoded = np.asarray(bundled.decompress(bundled.compress(pixels, layout="tile")))
    assert geometry.seam_contrast(decoded, laid) < 1.25


def test_the_generator_in_the_box_fits_the_tokenizer_in_the_box(bundled):
    generator = Generator.from_pretrained(device="cpu", dtype="fp32")
    generator.check_fits(bundled.weights)
    assert len(generator.class_names) == 40
    file = resources.files("titokcodec") / "assets" / releases.GENERATORS[-1]
    assert Path(str(file)).stat().st_size <= 12e6
    tokens = generator.sample([generator.class_names.index("church")] * 4, steps=8, seed=1)
    assert tokens.shape == (4, 32)
    decoded = [bundled.decompress(bundled.write(row[None])) for row in tokens]
    assert np.mean([np.asarray(picture).std() for picture in decoded]) > 20, "one colour is no church"


def test_the_generator_in_the_box_refuses_another_tokenizer(tiny_path):
    custom = Codec.from_pretrained(tiny_path, device="cpu")
    with pytest.raises(titokcodec.TitokError, match=r"was trained for tokenizer default-5 .* not for tiny"):
        Generator.from_pretrained(device="cpu").check_fits(custom.weights)
