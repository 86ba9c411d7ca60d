"""Pictures to tokens as they are read: which crops, in which order, shared by ranks, and no more held than a batch."""

import io
import os
import tarfile
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from titokcodec.errors import TitokError
from training import parallel, token_files, tokenizing
from training.data import Pictures
from training.reading import resized
from training.tokenizing import Cut, TokenizedPictures, merged, tokenize

SIDE = 16


def png(seed, height=SIDE, width=SIDE):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def shard(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def first_row(pixels):
    """(B, SIDE) tokens that tell a picture, a place in it and its mirror image apart."""
    return (pixels[:, 0, 0] * 255).round().long()


@pytest.fixture
def source(tmp_path):
    """Seven pictures, of which the fourth and the last are damaged, in a folder and in a shard."""
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(3):
        (folder / f"a{number}.png").write_bytes(png(number))
    (folder / "a3.png").write_bytes(b"junk")
    files = {"00000.cls": b"207", "00000.png": png(5, SIDE, 20), "00001.png": png(6, 21, SIDE), "00001.cls": b"3\n"}
    shard(folder / "b.tar", files | {"00002.png": b"junk"})
    return folder


# ---- crops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "at"),  # int(round((length - side) / 2.0)), of which Python rounds halves to even numbers
    [(16, 0), (17, 0), (18, 1), (19, 2), (20, 2), (21, 2), (23, 4)],
)
def test_the_published_crops_are_the_middle_and_its_mirror_image(length, at):
    pixels = np.arange(SIDE * length * 3).reshape(SIDE, length, 3)
    middle = pixels[:, at : at + SIDE]
    found = Cut(SIDE, 2, 0.0, seed=7).crops(pixels, 3)
    assert np.array_equal(found, [middle, middle[:, ::-1]])
    upright = Cut(SIDE, 2).crops(pixels.transpose(1, 0, 2), 0)
    assert np.array_equal(upright[0], pixels.transpose(1, 0, 2)[at : at + SIDE])


def test_other_crops_lie_anywhere_and_every_other_one_is_mirrored():
    pixels = np.arange(SIDE * 26 * 3).reshape(SIDE, 26, 3)

    def places(number, shift, variants=8, seed=0):
        crops = Cut(SIDE, variants, shift, seed).crops(pixels, number)
        assert all((crop[0, 0, 0] > crop[0, -1, 0]) == variant % 2 for variant, crop in enumerate(crops))
        return [min(crop[0, 0, 0], crop[0, -1, 0]) // 3 for crop in crops]

    assert all(places(number, 1.0)[0] == 5 for number in range(20))
    assert {place for number in range(50) for place in places(number, 1.0)[1:]} == set(range(11))
    assert {place for number in range(50) for place in places(number, 0.4)} == set(range(3, 8))
    assert places(4, 1.0) == places(4, 1.0) != places(5, 1.0)
    assert places(4, 1.0) != places(4, 1.0, seed=1)
    assert places(4, 1.0, variants=3) == places(4, 1.0)[:3]


def test_zoomed_crops_are_squares_of_the_picture_as_it_came():
    """Of its own resolution, of sides from 1 - zoom to 1 of the shorter one, from anywhere within it."""
    down, across = np.meshgrid(np.arange(160) * 255 / 239, np.arange(240) * 255 / 239, indexing="ij")
    pixels = np.stack([down, across, down], axis=2).round().astype(np.uint8)  # two channels tell the place
    cut = Cut(SIDE, 400, 1.0, 0, 0.4)
    assert cut.largest == 4 * SIDE and Cut(SIDE, 400, 1.0).largest is None
    crops = cut.crops(pixels, 3).astype(float)
    assert crops.shape == (400, SIDE, SIDE, 3)
    assert np.array_equal(crops[0].astype(np.uint8), Cut(SIDE).crops(resized(pixels, SIDE), 3)[0]), "the middle, whole"
    crops[1::2] = crops[1::2, :, ::-1]
    assert (crops[:, 0, 0, 1] < crops[:, 0, -1, 1]).all(), "every other one is mirrored"
    step = 239 / 255 * (SIDE / (SIDE - 1))
    heights = (crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) * step
    widths = (crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) * step
    assert np.abs(heights - widths).max() < 4, "squares"
    assert heights[1:].min() == pytest.approx(96, abs=4) and heights[1:].max() == pytest.approx(160, abs=4)
    tops, lefts = crops[1:, 0, 0, 0], crops[1:, 0, 0, 1]
    assert tops.min() < 8 and tops.max() > 50 and lefts.min() < 8 and lefts.max() > 120
    assert np.array_equal(cut.crops(pixels, 3), cut.crops(pixels, 3)) and not np.array_equal(
        cut.crops(pixels, 3), cut.crops(pixels, 4)
    )


# ---- a set -------------------------------------------------------------------------------------------------------


def test_a_set_is_read_in_order_with_keys_and_classes_and_what_is_damaged_is_counted(source):
    found = merged([tokenize(first_row, [source], Cut(SIDE, 3, 1.0), "cpu")], [source])
    assert found.keys == ["a0", "a1", "a2", "00000", "00001"] and found.numbers == [0, 1, 2, 4, 5]
    assert found.names[0] == "a0.png" and found.noted == [None, None, None, "207", "3"]
    assert (found.skipped, found.damaged) == (2, []) and len(found) == 5
    assert found.tokens.shape == (3, 5, SIDE) and found.tokens.dtype == torch.int32
    held = Pictures([source], SIDE)
    middles = first_row(held.centre_crops(torch.arange(3)))
    assert found.tokens[0, :3].equal(middles.int()) and found.tokens[1, :3].equal(middles.flip(1).int())
    assert (held.keys, held.names, held.noted, held.skipped) == (found.keys, found.names, found.noted, 2)


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("limit", [None, 5])
def test_ranks_have_together_what_one_process_has(source, ranks, limit):
    """In the same order, with more ranks than pictures too; what all of them meet is counted once."""
    (source / "c.tar").write_bytes((source / "b.tar").read_bytes()[:3200])  # cut short
    (source / "d.png").symlink_to(source / "nowhere.png")

    def share(rank, ranks):
        return tokenize(first_row, [source], Cut(SIDE, 2, 1.0, 3), "cpu", limit, rank, ranks)

    whole = merged([share(0, 1)], [source])
    assert len(whole) == (4 if limit else 6) and bool(whole.damaged) == (not limit)
    together = merged([share(rank, ranks) for rank in range(ranks)], [source])
    assert together.tokens.equal(whole.tokens)
    before, after = (vars(part) | {"tokens": None, "damaged": None} for part in (whole, together))
    assert before == after
    if not limit:  # with one, a rank that is done reads no further than it must
        assert together.damaged == whole.damaged


def test_nothing_to_read_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"junk")
    shares = [tokenize(first_row, [tmp_path], Cut(SIDE), "cpu", None, rank, 2) for rank in (0, 1)]
    with pytest.raises(TitokError, match=r"no readable pictures .* \(1 cannot be decoded"):
        merged(shares, [tmp_path])
    with pytest.raises(TitokError, match="does not exist"):
        tokenize(first_row, [tmp_path / "b"], Cut(SIDE), "cpu")


def test_no_more_pictures_are_held_than_a_batch_has(monkeypatch):
    """Whatever the number of pictures."""
    seen, most = [], [0]

    class Held(np.ndarray):
        """An array that can be watched."""

    def decoded(files, side, largest):
        for number in range(300):
            pixels = np.full((SIDE, SIDE, 3), number % 256, np.uint8).view(Held)
            seen.append(weakref.ref(pixels))
            most[0] = max(most[0], sum(picture() is not None for picture in seen))
            yield "folder", f"{number}.png", pixels
            del pixels

    monkeypatch.setattr(tokenizing, "decoded", decoded)
    sizes = []
    found = tokenize(lambda x: sizes.append(len(x)) or first_row(x), [], Cut(SIDE, 2), "cpu")
    assert found.tokens.shape == (2, 300, SIDE) and found.tokens[0, :, 0].equal(torch.arange(300).int() % 256)
    assert max(sizes) == 32 and sum(sizes) == 600
    assert most[0] <= 2


# ---- the file ----------------------------------------------------------------------------------------------------


def test_a_set_survives_its_file(source, tmp_path):
    """With more keys than a checkpoint may have words."""
    keys = [f"folder/{number:020}" for number in range(100_000)]
    found = TokenizedPictures(
        torch.arange(200_000).view(1, 100_000, 2).int(),
        list(range(100_000)),
        keys,
        keys,
        [None, "3"] * 50_000,
        4,
        ["x"],
    )
    token_files.save(tmp_path / "a" / "tokens.pt", found, {"side": 3})
    again, reason = token_files.load(tmp_path / "a" / "tokens.pt", {"side": 3})
    assert reason == "" and again.tokens.equal(found.tokens)
    assert vars(again) | {"tokens": 0} == vars(found) | {"tokens": 0}
    assert token_files.load(tmp_path / "a" / "tokens.pt", {"side": 4, "x": 1}) == (None, "of other side and x")
    assert token_files.load(tmp_path / "b.pt", {}) == (None, "")


def test_the_digest_is_of_names_sizes_and_times_wherever_the_folder_is(source, tmp_path):
    first = token_files.digest([source], None)
    moved = source.rename(tmp_path / "moved")
    assert token_files.digest([moved], None) == first != token_files.digest([moved], 3)
    about = (moved / "a0.png").stat()
    os.utime(moved / "a0.png", ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    later = token_files.digest([moved], None)
    (moved / "a0.png").rename(moved / "a00.png")
    assert len({first, later, token_files.digest([moved], None)}) == 3
    alone = token_files.digest([moved / "a1.png"], None)
    assert alone != first and alone != token_files.digest([moved / "a2.png"], None)


def test_one_process_exchanges_with_itself():
    exchange = parallel.Exchange()
    assert exchange.of_first([1]) == [1] and exchange.of_all("a") == ["a"]
