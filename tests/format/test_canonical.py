"""One picture, many spellings: which of them decode to it, and that one alone is called canonical and written."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import DATA, TINY
from titokcodec import cli, editing, truncate
from titokcodec.errors import ModelMismatch, TitokError
from titokcodec.format import bitstream, entropy
from titokcodec.format.header import Header
from titokcodec.format.layout import Grid
from titokcodec.weights import releases

SIZES = [(256, 256), (256, 255), (255, 256), (100, 75), (300, 200)]


@pytest.fixture
def released(codec, monkeypatch):
    """The tiny model as a release, in the box: there is every way to name the model of its files."""
    tiny = releases.Release(77, "tiny", codec.weights.fingerprint, str(TINY))
    monkeypatch.setattr(releases, "RELEASES", (*releases.RELEASES, tiny))
    return codec


def some_tokens(codec, likely, tiles=1):
    """(tiles, 16) tokens that the model's tables make shorter, or longer, than packing does."""
    frequencies = codec.weights.tables.frequencies
    return np.tile(frequencies.argmax(1) if likely else frequencies.argmin(1), (tiles, 1))


def headers(codec, size, count):
    """Every header that names this model in some way and claims this size and number of tokens."""
    for (layout, grid), grey, nested, mode, model_id in itertools.product(
        (("tile", None), ("fit", None), ("tile", Grid(2, 1)), ("tile", Grid(1, 2))),
        (False, True),
        (False, True),
        (0, 1, 2),
        (0, 1, 5, 77, 78, 255),
    ):
        yield Header(
            *size, count, layout, grey, nested, mode, model_id, None if model_id else codec.weights.fingerprint, grid
        )


def payloads(codec, rows):
    """Every string of bytes that stands for these tokens in some mode."""
    codes, tables = codec.weights.config.codes, codec.weights.tables
    return {entropy.encode(rows, codes)[1], entropy.encode(rows, codes, tables)[1]}


def decoded(codec, data):
    """Size, mode and pixels of a file; None if it is refused."""
    try:
        image = codec.decompress(data)
    except TitokError:
        return None
    return image.size, image.mode, image.tobytes()


def alike(codec, own, rows, size):
    """All files that are decoded as ``own``, a file of these tokens, is."""
    picture, fingerprint = decoded(codec, own), codec.weights.fingerprint
    files_of_it = (
        bitstream.pack(header, payload, fingerprint)
        for header in headers(codec, size, rows.shape[1])
        for payload in payloads(codec, rows)
    )
    return {data for data in files_of_it if decoded(codec, data) == picture}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("likely", [True, False])
def test_of_all_spellings_one_is_canonical_and_written(released, size, likely):
    rows = some_tokens(released, likely)
    own = released.write(torch.from_numpy(rows), *size)
    found = {data: editing.verify(data) for data in alike(released, own, rows, size)}
    # Two names of the model, two nested bits; packed too if tables are shorter; tiled too if a tile is the picture.
    assert len(found) == 2 * 2 * (1 + likely) * (1 + (size == (256, 256)))
    assert [data for data, spelling in found.items() if spelling.canonical] == [own]
    assert not any(spelling.canonical is None for spelling in found.values())
    assert all(bool(spelling.why) != spelling.canonical for spelling in found.values())
    for data in found:
        assert truncate(data, 16) == own


def test_tiles_have_fewer_spellings(released):
    rows = some_tokens(released, True, tiles=2)
    own = released.write(torch.from_numpy(rows), 300, 200, grid=(2, 1))
    found = alike(released, own, rows, (300, 200))
    assert len(found) == 8 and {data for data in found if editing.verify(data).canonical} == {own}


def test_a_square_of_one_tile_is_written_fitted_whatever_is_asked_for(released, photo):
    square = photo.resize((256, 256))
    assert released.compress(square, layout="tile") == released.compress(square, layout="fit")
    assert released.compress(square, layout="tile", tokens=9) == released.compress(square, tokens=9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.integers(0, 63) | st.just(5), min_size=1, max_size=16),
    keep=st.integers(1, 16),
    size=st.sampled_from(SIZES),
    grid=st.sampled_from([None, (2, 1), (3, 2)]),
    nested=st.booleans(),
    named=st.booleans(),
    packed=st.booleans(),
    grey=st.booleans(),
)
def test_a_cut_of_any_spelling_is_what_is_written_of_fewer_tokens(
    released, rows, keep, size, grid, nested, named, packed, grey
):
    config, own = released.weights.config, released.weights.fingerprint
    rows = np.array([rows] * (grid[0] * grid[1] if grid else 1))
    count, keep = rows.shape[1], min(keep, rows.shape[1])
    mode, payload = entropy.encode(rows, config.codes, None if packed else released.weights.tables)
    header = Header(
        *size,
        count,
        "tile" if grid else "fit",
        grey,
        nested,
        mode,
        77 if named else 0,
        None if named else own,
        grid and Grid(*grid),
    )
    short = truncate(bitstream.pack(header, payload, own), keep)
    assert short == released.write(torch.from_numpy(rows[:, :keep]), *size, grid=grid, grey=grey)
    assert editing.verify(short).canonical is True


# ---- what can be told without the model -------------------------------------------------------------------------


def packed(codec, model_id=0, layout="fit", nested=True):
    """A packed file of 256x256 pixels that tables would make shorter."""
    fingerprint = codec.weights.fingerprint
    header = Header(256, 256, 16, layout, False, nested, 0, model_id, None if model_id else fingerprint)
    payload = entropy.encode(some_tokens(codec, True), codec.weights.config.codes)[1]
    return bitstream.pack(header, payload, fingerprint)


def test_without_its_weights_a_file_is_judged_by_its_header(codec):
    assert editing.verify(packed(codec)).canonical is None
    assert "weight file" in editing.verify(packed(codec)).why
    tiled = editing.verify(packed(codec, layout="tile"))
    assert tiled.canonical is False and "fitted, not tiled" in tiled.why
    for data, words in ((packed(codec), "tables"), (packed(codec, nested=False), "nested bit")):
        spelling = editing.verify(data, TINY)
        assert spelling.canonical is False and words in spelling.why


def test_a_cut_without_the_weights_keeps_what_only_they_tell(codec):
    assert truncate(packed(codec, layout="tile"), 9) == truncate(packed(codec), 9)
    assert "tables" in editing.verify(truncate(packed(codec), 9), TINY).why
    assert editing.verify(truncate(packed(codec), 9, TINY), TINY).canonical
    with pytest.raises(TitokError, match="needs all 16 tokens"):
        truncate(packed(codec, nested=False), 9)
    assert truncate(packed(codec, nested=False), 9, TINY) == truncate(packed(codec), 9, TINY)


def test_a_model_that_is_not_nested_is_not_cut_because_a_file_says_so(tmp_path, codec):
    from titokcodec.models.tokenizer import TiTok
    from titokcodec.weights import tokenizers

    config = replace(codec.weights.config, nested=False, min_tokens=16)
    own = tokenizers.save(tmp_path / "fixed.safetensors", TiTok(config), "fixed")
    header = Header(256, 256, 16, "fit", False, True, 0, 0, own.fingerprint)
    data = bitstream.pack(header, entropy.encode(some_tokens(codec, True), 64)[1], own.fingerprint)
    assert editing.verify(data, own.path).why == "the nested bit is not its model's"
    with pytest.raises(TitokError, match="needs all 16 tokens"):
        truncate(data, 9, own.path)
    assert editing.verify(truncate(data, 16, own.path), own.path).canonical


def test_more_tokens_than_the_model_has_do_not_verify(codec):
    fingerprint = codec.weights.fingerprint
    header = Header(256, 256, 17, "fit", False, True, 0, 0, fingerprint)
    data = bitstream.pack(header, bytes(entropy.packed_size(17, 64)), fingerprint)
    for action in (lambda: editing.verify(data, TINY), lambda: truncate(data, 9, TINY), lambda: codec.decompress(data)):
        with pytest.raises(TitokError, match="takes 8 to 16 tokens, not 17"):
            action()


# ---- files of old, and the command ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DATA.glob("v?/*.titok")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_files_are_canonical(path):
    data = path.read_bytes()
    retired = path.stem in {known.name for known in releases.RELEASES if not known.file}
    try:
        spelling = editing.verify(data, None if path.stem.startswith("default") else TINY)
    except ModelMismatch:  # tables of a model that is no longer in the box
        assert retired
    else:
        assert spelling.canonical is (None if retired else True), spelling.why


def test_the_command_remarks_on_a_file_that_is_not_canonical(codec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd.titok").write_bytes(packed(codec, layout="tile"))
    (tmp_path / "good.titok").write_bytes(codec.write(torch.from_numpy(some_tokens(codec, True))))

    def call(*options):
        arguments = ["--verify", "good.titok", "odd.titok", "-m", str(TINY), *options]
        return CliRunner().invoke(cli.decompress, arguments, catch_exceptions=False)

    result = call()
    assert result.exit_code == 0 and result.stderr.count("\n") == 1
    said = "odd.titok  not canonical: a picture of 256x256 on one tile is fitted, not tiled; its model's"
    assert result.stderr.startswith(said)
    assert call("-q").stderr == ""
    facts = [json.loads(line) for line in call("--json").stdout.splitlines()]
    assert [(item["ok"], item["canonical"], bool(item["why"])) for item in facts] == [
        (True, True, False),
        (True, False, True),
    ]
