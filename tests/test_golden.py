"""Files of released formats, read for ever: tests/data/v1 holds one for every way version 1 has to write a picture.

Bytes and tokens are exact on every machine. Pixels, and the tokens of a picture, come from a network and are compared
within tolerances. The files are made anew only with TITOK_GENERATE_GOLDEN=1 (-k generate), and once released never.
"""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.conftest import DATA
from titokcodec import bitstream, entropy, info
from titokcodec.bitstream import Header
from titokcodec.geometry import tile_count

FOLDER = DATA / "v1"
PEAK, MEAN = 3, 0.5  # of 255: how far decoded pixels may be off on another machine
SAME_TOKENS = 0.95  # share of a picture's tokens that another machine must find as well

CASES = {
    "tile_tables": ("astronaut", (330, 200), {}),
    "tile_packed": ("pattern", (300, 200), {"layout": "tile", "tokens": 8}),
    "tile_grey": ("chelsea", (200, 330), {"tokens": 12}),
    "fit_tables": ("astronaut", (256, 256), {}),
    "fit_packed": ("coffee", (300, 200), {"tokens": 8}),
    "fit_grey": ("coffee", (100, 75), {"tokens": 9}),
    "fit_flat": ("coffee", (300, 1), {"tokens": 8}),
}


def picture(name):
    """What the case's file was made of."""
    source, (width, height), _ = CASES[name]
    if source == "pattern":  # what no table expects
        y, x = np.mgrid[:height, :width] // 24
        return np.stack([(x * 7 + y * 13 + c * 5) ** 2 * 37 % 256 for c in range(3)], axis=-1).astype(np.uint8)
    image = Image.open(DATA / f"{source}.jpg").convert("L" if name.endswith("grey") else "RGB")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def tokens_in(data, codec):
    header, offset = bitstream.parse(data)
    tiles = tile_count(header.width, header.height, header.layout)
    config = codec.weights.config
    return entropy.decode(data[offset:], header.mode, tiles, header.tokens, config.codes, codec.weights.tables)


@pytest.fixture(scope="module")
def golden():
    return json.loads((FOLDER / "tokens.json").read_text())


@pytest.mark.skipif(not os.environ.get("TITOK_GENERATE_GOLDEN"), reason="writes the golden files")
def test_generate(codec):
    FOLDER.mkdir(exist_ok=True)
    made = {}
    for name, (_, _, options) in CASES.items():
        data = codec.compress(picture(name), **options)
        (FOLDER / f"{name}.titok").write_bytes(data)
        codec.decompress(data).save(FOLDER / f"{name}.png", optimize=True)
        header, _ = bitstream.parse(data)
        fields = {key: value for key, value in vars(header).items() if key != "fingerprint"}
        made[name] = {"header": fields, "tokens": tokens_in(data, codec).tolist()}
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in made.items())
    (FOLDER / "tokens.json").write_text("{\n" + rows + "\n}\n")


def test_every_way_to_write_a_picture_is_here(golden):
    assert golden.keys() == CASES.keys()
    ways = {(entry["header"]["mode"], entry["header"]["layout"]) for entry in golden.values()}
    assert ways == {(0, "tile"), (0, "fit"), (1, "tile"), (1, "fit")}
    assert {(e["header"]["layout"], e["header"]["grey"]) for e in golden.values()} >= {("tile", True), ("fit", True)}


@pytest.mark.parametrize("name", CASES)
def test_bytes_to_tokens_and_back_exactly(codec, golden, name):
    data = (FOLDER / f"{name}.titok").read_bytes()
    expected, fields = np.array(golden[name]["tokens"]), golden[name]["header"]
    assert info(data).intact
    assert np.array_equal(tokens_in(data, codec), expected)

    fingerprint = bytes.fromhex("d00e77152a1cd925")
    mode, payload = entropy.encode(expected, 64, codec.weights.tables)
    assert mode == fields["mode"]
    assert bitstream.pack(Header(**fields, fingerprint=fingerprint), payload, fingerprint) == data


@pytest.mark.parametrize("name", CASES)
def test_bytes_to_pixels_closely(codec, name):
    shown = codec.decompress((FOLDER / f"{name}.titok").read_bytes())
    with Image.open(FOLDER / f"{name}.png") as expected:
        assert (shown.size, shown.mode) == (expected.size, expected.mode)
        off = np.abs(np.asarray(shown).astype(int) - np.asarray(expected))
    assert off.max() <= PEAK
    assert off.mean() <= MEAN


def test_pictures_to_tokens_mostly(codec, golden):
    same = []
    for name, (_, _, options) in CASES.items():
        found = tokens_in(codec.compress(picture(name), effort=0, **options), codec)
        same.append((found == np.array(golden[name]["tokens"])).ravel())
    assert np.concatenate(same).mean() >= SAME_TOKENS
