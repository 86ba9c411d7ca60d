"""Pictures to files and back: sizes, options, prefixes, limits. The network is the tiny one."""

import copy
import io
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from titokcodec import Codec, info, truncate
from titokcodec.errors import CorruptFile, ImageError, LimitExceeded, ModelMismatch, TitokError, WeightsError
from titokcodec.format import bitstream, entropy
from titokcodec.format.layout import Grid, plan
from titokcodec.models.quantizer import VectorQuantizer
from titokcodec.models.tokenizer import TiTok
from titokcodec.pictures import geometry, images
from titokcodec.weights import tokenizers

SIZES = [(1, 1), (3, 700), (700, 3), (256, 256), (257, 255), (320, 320), (321, 200), (1000, 64), (513, 480)]


def tokens_in(data, codec):
    """The (tiles, K) tokens of a file."""
    header, offset = bitstream.parse(data)
    config = codec.weights.config
    return entropy.decode(data[offset:], header.mode, header.tiles, header.tokens, config.codes, codec.weights.tables)


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


@pytest.fixture(scope="module")
def pictures(photo):
    """Of many sizes and both modes."""
    return [photo.resize(size).convert("L" if n % 3 == 1 else "RGB") for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def file(codec, photo):
    """A file of four tiles."""
    return codec.compress(photo.resize((400, 390)), layout="tile")


# ---- round trips ----------------------------------------------------------------------------------------------


def test_size_and_mode_come_back(codec, pictures):
    for picture in pictures:
        shown = codec.decompress(codec.compress(picture))
        assert (shown.size, shown.mode) == (picture.size, picture.mode)


def test_what_comes_back_resembles_what_went_in(codec, photo):
    """Not by much, with 12 bytes from a tiny model, but far more than another picture does."""
    small = photo.resize((256, 256))
    shown = codec.decompress(codec.compress(small))
    other = codec.decompress(codec.compress(small.rotate(180)))
    assert difference(small, shown).mean() < 0.75 * difference(small, other).mean()


def test_a_batch_gives_what_single_pictures_give(codec, pictures):
    files = codec.compress_batch(iter(pictures), tokens=12)
    singles = [codec.compress(picture, tokens=12) for picture in pictures]
    assert [bitstream.parse(data)[0].width for data in files] == [picture.width for picture in pictures]
    # Sums may be ordered differently in batches of another shape, so a latent between two codes may go either way.
    pairs = [(tokens_in(a, codec), tokens_in(b, codec)) for a, b in zip(files, singles, strict=True)]
    same = np.concatenate([(a == b).ravel() for a, b in pairs])
    assert same.mean() >= 0.99

    for shown, data in zip(codec.decompress_batch(files), files, strict=True):
        alone = codec.decompress(data)
        assert (shown.size, shown.mode) == (alone.size, alone.mode)
        assert difference(shown, alone).max() <= 1


def test_files_of_different_lengths_share_a_batch(codec, photo):
    files = [codec.compress(photo.resize((300, 200)), tokens=k) for k in (8, 16, 16, 9)]
    for shown, data in zip(codec.decompress_batch(files), files, strict=True):
        assert difference(shown, codec.decompress(data)).max() <= 1


def test_no_pictures_give_no_files(codec):
    assert codec.compress_batch([]) == []
    assert codec.decompress_batch([]) == []


@pytest.mark.parametrize("single", ["a.png", b"PNG", Path("a.png"), bytearray(b"PNG"), Image.new("RGB", (2, 2)), 5])
def test_a_single_input_is_no_batch(codec, single):
    with pytest.raises(TitokError, match=r"a single \w+: give a list, or use compress$"):
        codec.compress_batch(single)
    with pytest.raises(TitokError, match=r"a single \w+: give a list, or use decompress$"):
        codec.decompress_batch(single)


def test_nothing_in_a_file_is_said_so(codec, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for source in (b"", tmp_path / "a.png"):
        with pytest.raises(ImageError, match="an empty file"):
            codec.compress(source)


@pytest.mark.parametrize("source", [5, ["a.safetensors"], b"a.safetensors"])
def test_weights_are_named_by_a_path(source):
    with pytest.raises(WeightsError, match="named by its path"):
        Codec.from_pretrained(source)


def test_batch_size_does_not_matter(codec, photo):
    other = Codec(codec.weights, copy.deepcopy(codec.model), codec.device, codec.dtype, batch_size=1)
    assert (tokens_in(other.compress(photo), codec) == tokens_in(codec.compress(photo), codec)).mean() >= 0.97
    data = codec.compress(photo)
    assert difference(other.decompress(data), codec.decompress(data)).max() <= 1
    for size in (0, True, 1.5):
        with pytest.raises(TitokError, match=f"batch_size is {size}: give"):
            Codec(codec.weights, codec.model, codec.device, codec.dtype, batch_size=size)


@pytest.mark.parametrize("effort", [0, 1])
def test_tensors_go_through_in_batches_too(codec, monkeypatch, effort):
    """However many there are, the network holds no more than a batch of them; and tokens are those of the batches."""
    other = Codec(codec.weights, copy.deepcopy(codec.model), codec.device, codec.dtype, batch_size=2)
    seen = []
    latents, lookup = TiTok.latents, VectorQuantizer.lookup
    monkeypatch.setattr(TiTok, "latents", lambda self, pixels: seen.append(len(pixels)) or latents(self, pixels))
    monkeypatch.setattr(VectorQuantizer, "lookup", lambda self, ids: seen.append(len(ids)) or lookup(self, ids))
    pixels = torch.rand(5, 3, 256, 256)
    tokens = other.encode(pixels, 8, effort=effort)
    decoded = other.decode(tokens)
    assert max(seen) == 2 and decoded.shape == pixels.shape
    assert tokens.equal(torch.cat([codec.encode(batch, 8, effort=effort) for batch in pixels.split(2)]))
    assert decoded.equal(torch.cat([codec.decode(batch) for batch in tokens.split(2)]))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("effort", [0, 1, 2])
def test_tokens_do_not_depend_on_what_else_is_compressed(photo, dtype, effort):
    """On a CPU, with the bundled model, in whose bfloat16 batches of other sizes round otherwise."""
    bundled = Codec.from_pretrained(device="cpu", dtype=dtype)
    count = 6 // (1 + effort)
    views = [np.asarray(photo.rotate(15 * n).resize((256, 256))) for n in range(count)]
    pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
    alone = torch.cat([bundled.encode(one, effort=effort) for one in pixels.split(1)])
    assert bundled.encode(pixels, effort=effort).equal(alone)
    assert torch.cat([bundled.encode(some, effort=effort) for some in pixels.split(count - 1)]).equal(alone)


def test_every_kind_of_input_gives_the_same_file(codec, photo, tmp_path):
    picture = photo.resize((300, 200))
    path = tmp_path / "picture.png"
    picture.save(path)
    sources = [picture, np.asarray(picture), path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())]
    assert len({codec.compress(source) for source in sources}) == 1


def test_grey_is_given_back_as_grey_however_it_came(codec, photo):
    grey = photo.convert("L").resize((300, 200))
    data = codec.compress(grey)
    assert info(data).grey and codec.decompress(data).mode == "L"
    assert codec.compress(grey.convert("RGB")) == data
    assert codec.compress(np.asarray(grey)) == data


def test_transparency_lies_on_the_background(codec):
    clear = Image.new("RGBA", (64, 64), (10, 200, 30, 0))
    assert codec.compress(clear) == codec.compress(Image.new("RGB", (64, 64), "white"))
    assert codec.compress(clear, background="#112233") == codec.compress(Image.new("RGB", (64, 64), "#112233"))


# ---- options --------------------------------------------------------------------------------------------------


def test_every_count_of_tokens_the_model_was_trained_for(codec, photo):
    picture = photo.resize((256, 256))
    whole = tokens_in(codec.compress(picture), codec)
    assert whole.shape == (1, 16)
    for count in range(8, 17):
        data = codec.compress(picture, tokens=np.int64(count))
        assert info(data).tokens == count
        assert np.array_equal(tokens_in(data, codec), whole[:, :count])


@pytest.mark.parametrize("count", [7, 17, 0, -1])
def test_other_counts_are_refused(codec, photo, count):
    with pytest.raises(TitokError, match="takes 8 to 16 tokens"):
        codec.compress(photo, tokens=count)


@pytest.mark.parametrize("count", [8.0, "8", [8], True])
def test_counts_that_are_no_numbers_are_refused(codec, photo, count):
    with pytest.raises(TitokError, match="whole number"):
        codec.compress(photo, tokens=count)


def test_layouts(codec, photo):
    small, large = photo.resize((300, 100)), photo.resize((760, 500))
    for picture in (small, large, large.rotate(90, expand=True)):
        assert codec.compress(picture) == codec.compress(picture, layout="fit")
        about = info(codec.compress(picture))
        assert (about.layout, about.columns, about.rows, about.version) == ("fit", 1, 1, 1)
    about = info(codec.compress(large, layout="tile"))
    assert (about.layout, about.columns, about.rows, about.tiles, about.version) == ("tile", 3, 2, 6, 2)
    assert codec.compress(small, layout="tile", effort=0) == codec.compress(small, effort=0), "one tile is enough"
    for options in ({}, {"target_bytes": 100}):
        with pytest.raises(TitokError, match="layout 'mosaic' is unknown"):
            codec.compress(small, layout="mosaic", **options)


def test_max_side_scales_down_but_never_up(codec, photo):
    picture = photo.resize((500, 250))
    assert codec.decompress(codec.compress(picture, max_side=200)).size == (200, 100)
    assert codec.decompress(codec.compress(picture, max_side=1)).size == (1, 1)
    assert codec.decompress(codec.compress(picture, max_side=501)).size == (500, 250)
    with pytest.raises(TitokError, match="max_side is 0"):
        codec.compress(picture, max_side=0)


def test_decoding_to_a_smaller_side(codec, file):
    whole = codec.decompress(file)
    small = codec.decompress(file, max_side=100)
    assert small.size == (100, 98)
    assert difference(small, whole.resize((100, 98), Image.Resampling.LANCZOS)).mean() < 2
    assert codec.decompress(file, max_side=1000).size == whole.size


def test_limits_hold_both_ways(codec, photo, file):
    with pytest.raises(LimitExceeded, match="max_pixels"):
        codec.compress(photo, max_pixels=512 * 512 - 1)
    with pytest.raises(LimitExceeded, match="max_pixels"):
        codec.decompress(file, max_pixels=400 * 390 - 1)
    assert codec.decompress(codec.compress(photo, max_pixels=512 * 512), max_pixels=None).size == photo.size


# ---- tensors and tokens ---------------------------------------------------------------------------------------


def test_encode_takes_floats_and_bytes_alike(codec, photo):
    pixels = torch.from_numpy(np.array(photo.resize((256, 256)))).permute(2, 0, 1)[None]
    tokens = codec.encode(pixels)
    assert tokens.shape == (1, 16) and tokens.dtype == torch.int64
    assert codec.encode(pixels / 255).equal(tokens)
    assert codec.encode(pixels, 9).equal(tokens[:, :9])
    decoded = codec.decode(tokens[:, :9])
    assert decoded.shape == (1, 3, 256, 256) and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_a_fitted_file_is_encode_and_decode_and_nothing_else(codec, photo):
    picture = photo.resize((256, 256))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    data = codec.compress(picture, effort=0)
    assert np.array_equal(tokens_in(data, codec), codec.encode(pixels).numpy())
    decoded = (codec.decode(codec.encode(pixels)) * 255).round()[0].permute(1, 2, 0).numpy()
    assert difference(codec.decompress(data), decoded).max() == 0


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 256, 256),
        torch.zeros(1, 256, 256, 3),
        torch.zeros(1, 3, 128, 128),
        torch.zeros(1, 3, 256, 256, dtype=torch.int64),
    ],
    ids=range(4),
)
def test_encode_refuses_other_shapes_and_types(codec, pixels):
    with pytest.raises(TitokError, match="takes"):
        codec.encode(pixels)


@pytest.mark.parametrize(
    "tokens",
    [
        torch.zeros(16, dtype=torch.int64),
        torch.zeros(1, 16),
        torch.zeros(1, 0, dtype=torch.int64),
        torch.zeros(1, 17, dtype=torch.int64),
        torch.full((1, 16), 64),
        torch.full((1, 16), -1),
        torch.zeros(1, 16, dtype=torch.bool),
        torch.zeros(1, 16, dtype=torch.complex64),
        [[0] * 16],
    ],
    ids=range(9),
)
def test_decode_refuses_other_shapes_types_and_values(codec, tokens):
    with pytest.raises(TitokError, match=r"must be a tensor|takes|out of range"):
        codec.decode(tokens)


@pytest.mark.parametrize("size", [(256, 256), (300, 90), (400, 340), (700, 30)])
@pytest.mark.parametrize("layout", ["auto", "fit", "tile"])
def test_tokens_that_are_read_are_written_as_they_were(codec, photo, size, layout):
    for mode, count in (("RGB", 16), ("L", 9)):
        data = codec.compress(photo.resize(size).convert(mode), layout=layout, tokens=count)
        tokens = codec.read(data)
        assert np.array_equal(tokens.numpy(), tokens_in(data, codec)) and tokens.dtype == torch.int64
        grid = info(data).columns, info(data).rows
        assert codec.write(tokens, *size, grid=grid, grey=mode == "L") == data


def test_tokens_out_of_nothing_make_a_file(codec):
    """Those of a generator, say. Without a size they are one tile in its own size."""
    tokens = torch.randint(64, (1, 13), generator=torch.Generator().manual_seed(1))
    for given in (tokens, tokens.int(), tokens.to(torch.uint8), tokens.to(torch.uint16)):
        data = codec.write(given)
        assert (info(data).width, info(data).height, info(data).tokens, info(data).intact) == (256, 256, 13, True)
        assert codec.read(data).equal(tokens)
    decoded = (codec.decode(tokens) * 255).round()[0].permute(1, 2, 0).numpy()
    assert difference(codec.decompress(data), decoded).max() == 0


@pytest.mark.parametrize(
    ("tokens", "options", "said"),
    [
        (torch.zeros(16, dtype=torch.int64), {}, r"tokens must be a tensor of integers, \(B, K\)"),
        (torch.zeros(1, 16), {}, r"tokens must be a tensor of integers, \(B, K\)"),
        (torch.full((1, 16), 64), {}, "out of range"),
        (torch.full((1, 16), -1), {}, "out of range"),
        (torch.zeros(1, 17, dtype=torch.int64), {}, "takes 8 to 16 tokens"),
        (torch.zeros(0, 16, dtype=torch.int64), {}, "has 1 tiles"),
        (torch.zeros(2, 16, dtype=torch.int64), {}, "has 1 tiles"),
        (torch.zeros(1, 16, dtype=torch.int64), {"grid": (2, 1)}, "has 2 tiles, but here are tokens of 1"),
        (torch.zeros(2, 16, dtype=torch.int64), {"grid": (2, 0)}, "grid is 0: give 1 or more"),
        (torch.zeros(2, 16, dtype=torch.int64), {"grid": (2,)}, r"grid is \(2,\): give \(columns, rows\)"),
        (torch.zeros(2, 16, dtype=torch.int64), {"grid": 2}, r"grid is 2: give \(columns, rows\)"),
        (torch.zeros(65, 16, dtype=torch.int64), {"grid": (65, 1)}, "too fine for a picture of 256x256"),
        (torch.zeros(257, 16, dtype=torch.int64), {"grid": (257, 1)}, "give 1 to 256 columns"),
        (torch.zeros(1, 16, dtype=torch.int64), {"height": 0}, "height is 0; give"),
        (torch.zeros(1, 16, dtype=torch.int64), {"width": (256, 256)}, "width is .*: give a whole number"),
        (torch.zeros(1, 16, dtype=torch.int64), {"width": 1 << 22}, "width is 4194304"),
    ],
)
def test_tokens_that_are_no_picture_are_not_written(codec, tokens, options, said):
    with pytest.raises(TitokError, match=said):
        codec.write(tokens, **options)


def test_reading_checks_as_decoding_does(codec, file):
    with pytest.raises(CorruptFile, match="checksum"):
        codec.read(file[:-5])
    part = codec.read(file[:-5], strict=False)
    assert part.shape[1] < 16 and part.equal(codec.read(file)[:, : part.shape[1]])
    with pytest.raises(LimitExceeded, match="max_pixels"):
        codec.read(file, max_pixels=400 * 390 - 1)


# ---- prefixes and damage --------------------------------------------------------------------------------------


def test_truncated_files_show_what_shorter_ones_show(codec, photo, tiny_path, file):
    for count in range(8, 17):
        cut = truncate(file, count, model=tiny_path)
        shorter = codec.compress(photo.resize((400, 390)), tokens=count, layout="tile")
        assert codec.decompress(cut).tobytes() == codec.decompress(shorter).tobytes()


@pytest.mark.parametrize("mode", [entropy.PACKED, entropy.TABLES])
def test_every_cut_of_a_file_shows_a_picture_or_says_why_not(codec, photo, mode):
    tables = None if mode == entropy.PACKED else codec.weights.tables
    writer = Codec(replace(codec.weights, tables=tables), codec.model, codec.device, codec.dtype)
    data = writer.compress(photo.resize((400, 200)), layout="tile")
    header, offset = bitstream.parse(data)
    assert (header.mode, header.layout) == (mode, "tile")
    whole = codec.decompress(data)
    decoded = []
    for length in range(len(data) + 1):
        try:
            shown = codec.decompress(data[:length], strict=False)
        except TitokError:
            assert length < offset + 8, "this much must show something"
            continue
        assert (shown.size, shown.mode) == (whole.size, whole.mode)
        decoded.append(shown)
    assert shown.tobytes() == whole.tobytes()
    off = [difference(shown, whole).mean() for shown in decoded]
    assert off[0] > 2 * off[-3] > 0  # it gets there step by step, and not with the last byte


def test_strict_decoding_refuses_every_cut(codec, file):
    for length in range(len(file)):
        with pytest.raises(CorruptFile):
            codec.decompress(file[:length])


def test_damage_is_refused_or_decoded_if_asked(codec, file):
    _, offset = bitstream.parse(file)
    damaged = bytearray(file)
    damaged[offset + 20] ^= 64
    with pytest.raises(CorruptFile, match="checksum"):
        codec.decompress(damaged)
    assert codec.decompress(damaged, strict=False).size == (400, 390)
    with pytest.raises(CorruptFile):
        codec.decompress(file + b"\0")


def test_a_model_that_is_not_nested_decodes_no_part_of_its_tokens(codec, photo):
    config = replace(codec.weights.config, nested=False, min_tokens=16)
    fixed = Codec(replace(codec.weights, config=config), codec.model, codec.device, codec.dtype)
    data = fixed.compress(photo)
    assert not info(data).nested
    with pytest.raises(CorruptFile, match="too little of the file"):
        fixed.decompress(data[:-5], strict=False)
    with pytest.raises(TitokError, match="exactly 16"):
        fixed.compress(photo, tokens=8)
    with pytest.raises(TitokError, match="exactly 16"):
        fixed.decode(torch.zeros(1, 8, dtype=torch.int64))


def test_another_model_is_an_error_that_names_both(codec, file, tmp_path):
    model = copy.deepcopy(codec.model)
    model.latent_tokens.data += 1
    opened = tokenizers.save(tmp_path / "other.safetensors", model, "other", codec.weights.tables)
    other = Codec.from_pretrained(opened.path, device="cpu")
    for strict in (True, False):
        with pytest.raises(ModelMismatch) as error:
            other.decompress(file, strict=strict)
        for part in (codec.weights.fingerprint.hex(), "'other'", opened.fingerprint.hex()):
            assert part in str(error.value)


# ---- devices and memory ---------------------------------------------------------------------------------------


def test_bfloat16_reads_what_float32_wrote(codec, tiny_path, photo, file):
    half = Codec.from_pretrained(tiny_path, device="cpu", dtype="bf16")
    assert half.model.decoder.mask_token.dtype == torch.bfloat16
    assert half.model.quantize.embedding.weight.dtype == torch.float32
    assert difference(half.decompress(file), codec.decompress(file)).mean() < 2
    data = half.compress(photo.resize((400, 390)), layout="tile")
    assert (tokens_in(data, codec) == tokens_in(file, codec)).mean() > 0.8
    assert codec.decompress(data).size == (400, 390)


def test_unknown_devices_and_precisions_are_refused(tiny_path):
    with pytest.raises(TitokError, match="no device 'abacus'"):
        Codec.from_pretrained(tiny_path, device="abacus")
    with pytest.raises(TitokError, match="no precision 'fp4'"):
        Codec.from_pretrained(tiny_path, device="cpu", dtype="fp4")


def test_memory_grows_with_the_picture_and_not_with_its_tiles(codec):
    width, height = 3000, 2000
    y, x = np.ogrid[:height, :width]
    pixels = np.stack(np.broadcast_arrays(x * 255 // width, y * 255 // height, (x + y) % 256), -1).astype(np.uint8)
    tracemalloc.start()
    try:
        data = codec.compress(pixels, layout="tile")
        compressing = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        shown = codec.decompress(data)
        decompressing = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert shown.size == (width, height)
    assert info(data).tiles == 117  # 23 MB as uint8, 92 MB as floats; picture and canvas have 18 MB each
    assert compressing < 16e6 + 18e6
    assert decompressing < 50e6


def test_tile_borders_are_no_stronger_than_the_rest(codec, smooth):
    """1 is invisible, and here the rest is nearly flat. The same tiles side by side without blending reach 20."""
    laid = plan(Grid(3, 2))
    shown = codec.decompress(codec.compress(images.resize(smooth, (laid.width, laid.height)), layout="tile"))
    assert geometry.seam_contrast(np.asarray(shown), laid) < 3


def test_no_pictures_are_no_tokens_and_back(codec):
    tokens = codec.encode(torch.empty(0, 3, 256, 256))
    assert tokens.shape == (0, 16) and codec.decode(tokens).shape == (0, 3, 256, 256)
