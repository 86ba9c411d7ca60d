"""Files of released formats, read for ever: tests/data/v1 and v2 hold one for every way that a version has to write a
picture.

Bytes and tokens are exact on every machine. Pixels, and the tokens of a picture, come from a network and are compared
within tolerances. Tiles of version 1 are no longer written, so those files are only read. The files of version 2 are
made anew only with TITOK_GENERATE_GOLDEN=1 (-k generate), and once released never.
"""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.conftest import DATA
from titokcodec import info
from titokcodec.format import bitstream, entropy
from titokcodec.format.header import Header
from titokcodec.format.layout import Grid

PEAK, MEAN = 3, 0.5  # of 255: how far decoded pixels may be off on another machine
SAME_TOKENS = 0.95  # share of a picture's tokens that another machine must find as well

CASES = {
    "v1/tile_tables": ("astronaut", (330, 200), None),
    "v1/tile_packed": ("pattern", (300, 200), None),
    "v1/tile_grey": ("chelsea", (200, 330), None),
    "v1/fit_tables": ("astronaut", (256, 256), {}),
    "v1/fit_packed": ("coffee", (300, 200), {"tokens": 8}),
    "v1/fit_grey": ("coffee", (100, 75), {"tokens": 9}),
    "v1/fit_flat": ("coffee", (300, 1), {"tokens": 8}),
    "v2/tile_tables": ("astronaut", (500, 380), {"layout": "tile"}),
    "v2/tile_packed": ("pattern", (400, 200), {"layout": "tile", "tokens": 8}),
    "v2/tile_grey": ("chelsea", (200, 700), {"layout": "tile", "tokens": 12}),
}
WRITTEN = {name: options for name, (_, _, options) in CASES.items() if options is not None}


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
    config = codec.weights.config
    return entropy.decode(data[offset:], header.mode, header.tiles, header.tokens, config.codes, codec.weights.tables)


@pytest.fixture(scope="module")
def golden():
    return {
        f"{version}/{name}": about
        for version in ("v1", "v2")
        for name, about in json.loads((DATA / version / "tokens.json").read_text()).items()
    }


@pytest.mark.skipif(not os.environ.get("TITOK_GENERATE_GOLDEN"), reason="writes the golden files")
def test_generate(codec):
    """Version 2 alone: the files of version 1 are released."""
    folder, made = DATA / "v2", {}
    folder.mkdir(exist_ok=True)
    for name in [name for name in WRITTEN if name.startswith("v2/")]:
        data = codec.compress(picture(name), **WRITTEN[name])
        (DATA / f"{name}.titok").write_bytes(data)
        codec.decompress(data).save(DATA / f"{name}.png", optimize=True)
        header, _ = bitstream.parse(data)
        fields = {key: value for key, value in vars(header).items() if key != "fingerprint"}
        made[name.removeprefix("v2/")] = {"header": fields, "tokens": tokens_in(data, codec).tolist()}
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in made.items())
    (folder / "tokens.json").write_text("{\n" + rows + "\n}\n")


def test_every_way_to_write_a_picture_is_here(golden):
    assert golden.keys() == CASES.keys()
    headers = [(name[:2], entry["header"]) for name, entry in golden.items()]
    ways = {(version, header["mode"], header["layout"]) for version, header in headers}
    assert ways == {
        ("v1", 0, "tile"),
        ("v1", 0, "fit"),
        ("v1", 1, "tile"),
        ("v1", 1, "fit"),
        ("v2", 0, "tile"),
        ("v2", 1, "tile"),
    }
    grey = {(version, header["layout"]) for version, header in headers if header["grey"]}
    assert grey == {("v1", "tile"), ("v1", "fit"), ("v2", "tile")}


@pytest.mark.parametrize("name", CASES)
def test_bytes_to_tokens_and_back_exactly(codec, golden, name):
    data = (DATA / f"{name}.titok").read_bytes()
    expected, fields = np.array(golden[name]["tokens"]), golden[name]["header"]
    assert info(data).intact and info(data).version == int(name[1])
    assert np.array_equal(tokens_in(data, codec), expected)

    fingerprint = bytes.fromhex("d00e77152a1cd925")
    mode, payload = entropy.encode(expected, 64, codec.weights.tables)
    assert mode == fields["mode"]
    grid = fields.pop("grid", None)
    header = Header(**fields, fingerprint=fingerprint, grid=grid and Grid(*grid))
    assert bitstream.pack(header, payload, fingerprint) == data


@pytest.mark.parametrize("name", CASES)
def test_bytes_to_pixels_closely(codec, name):
    shown = codec.decompress((DATA / f"{name}.titok").read_bytes())
    with Image.open(DATA / f"{name}.png") as expected:
        assert (shown.size, shown.mode) == (expected.size, expected.mode)
        off = np.abs(np.asarray(shown).astype(int) - np.asarray(expected))
    assert off.max() <= PEAK
    assert off.mean() <= MEAN


def test_pictures_to_tokens_mostly(codec, golden):
    same = []
    for name, options in WRITTEN.items():
        found = tokens_in(codec.compress(picture(name), effort=0, **options), codec)
        same.append((found == np.array(golden[name]["tokens"])).ravel())
    assert np.concatenate(same).mean() >= SAME_TOKENS
