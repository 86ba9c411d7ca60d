"""Where training pictures come from: batches over ranks, streams over workers, and everything that may be broken."""

import io
import multiprocessing
import os
import resource
import signal
import struct
import tarfile
import time
import zlib
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from titokcodec.errors import TitokError
from training.batches import InMemory, mix
from training.checkpoint import load_state, save_state
from training.data import Pictures
from training.reading import decode, read_files, read_picture
from training.streaming import Portions, Stream, open_source, portion, random_crop, shuffled, units_of
from training.views import PLAIN, Views

SIDE = 16
JUNK = np.random.default_rng(0).bytes(3000)


@pytest.fixture(autouse=True)
def never_a_hang():
    """Every test here gets 20 seconds."""

    def stop(*_):
        pytest.fail("this test hangs")  # no OSError, which a reader might take for a damaged file

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def picture(number, size=(SIDE, SIDE), kind="PNG", **options):
    """A file of one colour that tells its number."""
    target = io.BytesIO()
    Image.new("RGB", size, (number, 255 - number, 7)).save(target, kind, **options)
    return target.getvalue()


def noise(kind, **options):
    """A file of several kilobytes."""
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(target, kind, **options)
    return target.getvalue()


def shard(path, files):
    """A tar of (name, bytes) pairs."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def numbered(path, *numbers):
    return shard(path, [(f"{number}.png", picture(number)) for number in numbers])


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


def numbers(batch):
    """Which pictures a batch of one-coloured ones shows."""
    assert batch.dtype == torch.float32 and batch.shape[1:] == (3, SIDE, SIDE)
    assert batch.min() >= 0 and batch.max() <= 1
    values = (batch * 255).round().long()
    assert (values == values[:, :, :1, :1]).all()
    assert (values[:, 0, 0, 0] + values[:, 1, 0, 0] == 255).all()
    return values[:, 0, 0, 0].tolist()


# ---- batches of held pictures -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(6):
        pixels = random.integers(0, 256, (SIDE + 3 * number, SIDE + 5, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return Pictures([folder], SIDE)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_ranks_together_see_what_one_process_does(pictures, ranks):
    alone = InMemory(pictures, 12, seed=5)
    shares = [InMemory(pictures, 12, seed=5, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in (0, 1, 1000):
        parts = [share.batch(step) for share in shares]
        assert all(part.shape == (12 // ranks, 3, SIDE, SIDE) for part in parts)
        assert torch.cat(parts).equal(alone.batch(step))


def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(pictures):
    whole = [InMemory(pictures, 4, seed=1).batch(step) for step in range(6)]
    resumed = InMemory(pictures, 4, seed=1)
    assert all(resumed.batch(step).equal(whole[step]) for step in (3, 4, 5, 3))


def test_steps_and_seeds_differ_and_leave_other_random_numbers_alone(pictures):
    state = torch.get_rng_state()
    batches = [InMemory(pictures, 8, seed).batch(step) for seed in range(4) for step in range(4)]
    assert not any(a.equal(b) for at, a in enumerate(batches) for b in batches[:at])
    assert torch.get_rng_state().equal(state)
    low = {mix(seed, step) & 0xFFFFFFFF for seed in range(30) for step in range(30)}
    assert len(low) == 900 and max(low) > 2**31


def test_held_batches_say_what_they_are_of(pictures):
    held = InMemory(pictures, 8)
    batch = held.batch(0)
    assert batch.dtype == torch.float32 and batch.min() >= 0 and batch.max() <= 1
    assert (held.pictures, held.skipped, held.damaged) == (6, 0, [])
    held.close()


@pytest.mark.parametrize(("size", "ranks"), [(8, 3), (0, 1), (1, 2)])
def test_a_batch_that_ranks_cannot_share_is_refused(pictures, tmp_path, size, ranks):
    numbered(tmp_path / "a.tar", 1)
    message = f"a batch of {size} cannot be shared by {ranks} processes: give a multiple of {ranks}"
    for build in (
        lambda: InMemory(pictures, size, ranks=ranks),
        lambda: Stream([tmp_path], size, SIDE, ranks=ranks),
        lambda: open_source([tmp_path / "not looked at"], size, SIDE, ranks=ranks),
    ):
        with pytest.raises(TitokError, match=message):
            build()


# ---- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "readable"),
    [
        (300, 0),  # within the first header
        (512 + 10, 0),  # within the first picture
        (1024 + 512 + 10, 1),  # within the second
        (1024 + 512 + 200, 2),  # the second is whole, and its padding is not
        (2 * 1024, 2),  # between two pictures
        (2 * 1024 + 100, 2),  # within a later header
        (4 * 1024, 4),  # only the end marker is gone
    ],
)
def test_of_a_shard_that_was_cut_short_the_first_pictures_are_kept(tmp_path, keep, readable):
    broken = cut(numbered(tmp_path / "cut.tar", 0, 1, 2, 3), keep)
    numbered(tmp_path / "whole.tar", 9)
    found = Pictures([tmp_path], SIDE)
    assert found.names == [*(f"{number}.png" for number in range(readable)), "9.png"]
    assert found.skipped == 0
    (line,) = found.damaged
    assert line.startswith(f"{broken}: not a whole tar file (") and "\n" not in line


def test_a_broken_header_within_a_shard_is_noticed(tmp_path):
    path = numbered(tmp_path / "a.tar", 0, 1, 2)
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 255
    path.write_bytes(data)
    found = Pictures([path], SIDE)
    assert found.names == ["0.png"] and found.damaged == [
        f"{path}: not a whole tar file (cut short or damaged at byte 1024)"
    ]


@pytest.mark.parametrize("data", [b"", b"x", JUNK, b"\x1f\x8b" + bytes(5000), noise("PNG")])
def test_what_is_no_tar_is_counted(tmp_path, data):
    (tmp_path / "bad.tar").write_bytes(data)
    numbered(tmp_path / "good.TAR", 1)
    found = Pictures([tmp_path], SIDE)
    assert found.names == ["1.png"] and len(found.damaged) == 1
    with pytest.raises(TitokError, match=r"no readable pictures in .*bad\.tar \(0 .* folders: 1\): give folders or"):
        Pictures([tmp_path / "bad.tar"], SIDE)


def test_whole_shards_are_not_taken_for_damaged(tmp_path):
    shard(tmp_path / "empty.tar", [])
    shard(
        tmp_path / "deep.tar",
        [("a/b/1.png", picture(1)), ("a/b/1.cls", b"3"), ("a/2.JPG", noise("JPEG")), ("x" * 300 + ".png", picture(2))],
    )
    found = Pictures([tmp_path], SIDE)
    assert found.names == ["a/b/1.png", "a/2.JPG", "x" * 300 + ".png"]
    assert (found.skipped, found.damaged) == (0, [])


def test_a_member_that_claims_more_than_there_is_costs_no_memory(tmp_path):
    path = numbered(tmp_path / "a.tar", 0)
    member = tarfile.TarInfo("1.png")
    member.size = 1 << 40
    path.write_bytes(path.read_bytes()[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    found = Pictures([path], SIDE)
    assert found.names == ["0.png"] and "cut short within 1.png" in found.damaged[0]


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {}), ("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_pictures_that_were_cut_short_are_skipped(tmp_path, kind, options):
    data = noise(kind, **options)
    suffix = "jpg" if kind == "JPEG" else kind.lower()
    shard(tmp_path / "a.tar", [(f"{keep}.{suffix}", data[:keep]) for keep in (0, 5, 100, len(data) // 2)])
    (tmp_path / f"loose.{suffix}").write_bytes(data[: len(data) * 3 // 4])
    (tmp_path / f"whole.{suffix}").write_bytes(data)
    found = Pictures([tmp_path], SIDE)
    assert found.names == [f"whole.{suffix}"]
    assert (found.skipped, found.damaged) == (5, [])


def bomb(side):
    """A whole PNG of side x side black pixels in a few kilobytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9600, 16000])  # over Pillow's limit, and over twice that, where it raises by itself
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_skipped_without_unpacking_them(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side))
    (tmp_path / "fine.png").write_bytes(picture(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Pictures([tmp_path], SIDE)
    assert found.names == ["fine.png"] and found.skipped == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert read_picture(bomb(16)).shape == (16, 16, 3)


def test_pictures_are_turned_as_they_would_be_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    pixels[:, :SIDE] = 255  # white on the left as stored: white on top as seen
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    found = Pictures([tmp_path], SIDE)
    assert found.sizes.tolist() == [[2 * SIDE, SIDE]]
    seen = decode((tmp_path / "turned.jpg").read_bytes(), SIDE)
    assert seen[: SIDE // 2].min() > 200 and seen[-SIDE // 2 :].max() < 50


@pytest.mark.parametrize("stream", [False, True])
def test_sources_that_do_not_exist_or_are_empty_end_the_run(tmp_path, stream):
    def opened(*sources):
        return open_source(list(sources), 2, SIDE, stream=stream, workers=0)

    numbered(tmp_path / "a.tar", 1)
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "nothing.tar", "no\nline.png"):
        with pytest.raises(TitokError, match=r"does not exist or may not be read: check the path$") as caught:
            opened(tmp_path / "a.tar", tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(TitokError, match=r"no readable pictures in .*empty: give folders or tar shards of"):
        opened(tmp_path / "empty")


def test_names_are_not_taken_for_files(tmp_path):
    """Directories named like pictures, pipes nobody writes to, links to nowhere."""
    (tmp_path / "d.png").mkdir()
    (tmp_path / "d.png" / "1.png").write_bytes(picture(1))
    (tmp_path / "e.tar").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    found = Pictures([tmp_path], SIDE)
    assert (found.names, found.skipped) == (["1.png"], 2)
    assert found.damaged == [f"{tmp_path}/pipe.tar: is a pipe or device"]


def test_every_format_that_is_read_is_used_and_others_are_counted(tmp_path):
    for number, kind in enumerate(("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")):
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(picture(number, kind=kind))
    for name in ("7.heic", "8.DNG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    shard(tmp_path / "9.tar", [("10.bmp", picture(10, kind="BMP")), ("11.heic", b"x"), ("10.json", b"{}")])
    found = Pictures([tmp_path], SIDE)
    assert found.names == ["0.png", "1.jpeg", "2.webp", "3.tiff", "4.bmp", "5.gif", "6.avif", "10.bmp"]
    assert (found.skipped, found.damaged) == (4, [])


def test_links_to_folders_are_followed_and_lead_to_each_once(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.png").write_bytes(picture(1))
    (tmp_path / "set").mkdir()
    for name, target in (("a", tmp_path / "far"), ("b", tmp_path / "far"), ("back", tmp_path / "set")):
        (tmp_path / "set" / name).symlink_to(target)
    found = Pictures([tmp_path / "set"], SIDE)
    assert (found.names, found.skipped, found.damaged) == (["1.png"], 0, [])
    (tmp_path / "set" / "gone").symlink_to(tmp_path / "nowhere")
    assert Pictures([tmp_path / "set"], SIDE).damaged == [f"{tmp_path}/set/gone: is a link that leads nowhere"]


def test_a_stream_may_be_asked_for_augmented_batches_but_crops_alone(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number))
    how = Views(zoom=1.5, colour=0.1)
    first, second = (
        open_source([folder], 4, SIDE, stream=True, workers=0, how=how).batch(0, *more) for more in ((), (True,))
    )
    assert first.equal(second)


def test_pictures_are_held_larger_where_views_zoom(tmp_path):
    (tmp_path / "0.png").write_bytes(picture(0, (2 * SIDE, 3 * SIDE)))
    sizes = [
        open_source([tmp_path], 2, SIDE, how=how).store.sizes[0].tolist()
        for how in (PLAIN, Views(colour=0.1), Views(zoom=1.5))
    ]
    assert sizes[0] == sizes[1] and min(sizes[0]) == SIDE and min(sizes[2]) == int(SIDE * 1.25)


def test_held_pictures_through_the_one_door(tmp_path):
    cut(numbered(tmp_path / "a.tar", 1, 2, 3), 2048)
    (tmp_path / "b.png").write_bytes(b"")
    source = open_source([tmp_path], 4, SIDE, seed=3, rank=1, ranks=2)
    assert (source.pictures, source.skipped, len(source.damaged)) == (2, 1, 1)
    assert source.batch(7).equal(InMemory(Pictures([tmp_path], SIDE), 4, seed=3).batch(7)[2:])
    assert open_source([tmp_path], 4, SIDE, limit=1).pictures == 1
    with pytest.raises(TitokError, match="a limit is for pictures that are held"):
        open_source([tmp_path], 4, SIDE, stream=True, limit=1)


# ---- how a stream is split ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("sizes", [[5], [5, 1], [3, 3, 3, 3], [4, 0, 0, 2, 7, 1, 1, 9, 3], [1]])
def test_portions_are_disjoint_and_complete_in_every_epoch(workers, sizes):
    units = [[f"{unit}"] for unit in range(len(sizes))]
    totals, seen = [], []
    for epoch in range(workers):
        read = []
        for worker in range(workers):
            paths, first, stride = portion(units, worker, workers, 0, epoch)
            read.append([(path, n) for path in paths for n in range(sizes[int(path)])][first::stride])
        totals.append(Counter(item for items in read for item in items))
        seen.append([len(items) for items in read])
    everything = Counter((f"{unit}", n) for unit, size in enumerate(sizes) for n in range(size))
    assert all(total == everything for total in totals)
    if len(sizes) < workers:
        assert all(max(lengths) - min(lengths) <= 1 for lengths in seen), "nobody is idle"
        assert all(map(any, zip(*seen, strict=True))), "in turn, if there is less than a picture for each"


def test_portions_change_with_epoch_and_seed_alike_for_all():
    units = [[str(number)] for number in range(50)]
    one, two = (portion(units, 0, 1, 0, epoch)[0] for epoch in (0, 1))
    assert one != two and sorted(one) == sorted(two)
    assert portion(units, 0, 1, 1, 0)[0] != one and portion(units, 0, 1, 0, 0)[0] == one
    assert portion(units, 1, 3, 0, 0)[0] == one[1::3]


def test_files_become_blocks_and_shards_stay_whole():
    files = [f"{number}.png" for number in range(1000)]
    units = units_of([*files, "a.tar", "b.TAR"], workers=4, seed=0)
    assert units[:2] == [["a.tar"], ["b.TAR"]] and all(len(unit) <= 1000 // 16 for unit in units)
    assert sorted(path for unit in units[2:] for path in unit) == sorted(files)
    assert units[2] != files[: len(units[2])], "neighbours are often of one class"
    assert units == units_of([*files, "a.tar", "b.TAR"], workers=4, seed=0)
    assert units_of(files[:2], workers=8, seed=1) in ([["0.png"], ["1.png"]], [["1.png"], ["0.png"]])
    assert max(map(len, units_of([f"{number}.png" for number in range(9000)], workers=2, seed=0))) == 256


def test_every_stride_th_picture_is_read_over_all_sources(tmp_path):
    paths = [str(numbered(tmp_path / "a.tar", 0, 1, 2)), str(tmp_path / "3.png"), str(numbered(tmp_path / "b.tar", 4))]
    (tmp_path / "3.png").write_bytes(picture(3))
    for first, expected in ((0, "024"), (1, "13")):
        read = list(read_files(paths, pytest.fail, first, 2))
        assert [name[0] for _, name, _ in read] == list(expected)
        assert all(read_picture(data)[0, 0, 0] == int(name[0]) for _, name, data in read)


def test_the_buffer_shuffles_and_loses_nothing():
    drawn = list(shuffled(range(500), 50, Random(0)))
    assert sorted(drawn) == list(range(500)) and drawn != sorted(drawn)
    assert all(item < place + 51 for place, item in enumerate(drawn)), "only what was read ahead can come early"
    assert list(shuffled(range(5), 0, Random(0))) == [0, 1, 2, 3, 4]
    assert list(shuffled([], 10, Random(0))) == []


@pytest.mark.parametrize("size", [(16, 16), (40, 16), (16, 23), (90, 50), (9, 7), (1, 500), (333, 1)])
def test_random_crops_are_squares_of_the_right_scale(size):
    rng = Random(0)
    x = np.arange(size[0]) * 255 // max(size[0] - 1, 1)
    pixels = np.broadcast_to(x[None, :, None], (size[1], size[0], 3)).astype(np.uint8)
    crops = [random_crop(pixels, 16, rng) for _ in range(60)]
    assert all(crop.shape == (16, 16, 3) and crop.dtype == torch.uint8 for crop in crops)
    edges = {(int(crop[0, 0, 0]), int(crop[0, -1, 0])) for crop in crops}
    if size[0] > 8:
        assert any(a < b for a, b in edges) and any(a > b for a, b in edges), "flips"
    if min(size) == 16:
        assert {int(value) for crop in crops for value in crop[0, :, 0]} <= set(x.tolist()), "and is not blurred"


def test_random_crops_lie_at_whole_pixels_of_the_whole_resized_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    whole = np.array(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BICUBIC))  # 24.2 of 16, 33 and 50
    windows = [whole[:, left : left + 16] for left in range(9)]
    crops = [random_crop(pixels, 16, Random(seed)).numpy() for seed in range(100)]
    found = [[np.array_equal(view, window) for window in windows for view in (crop, crop[:, ::-1])] for crop in crops]
    assert all(map(any, found)) and np.any(found, axis=0).all(), "no others, and all of them"


# ---- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["shards", "one shard", "files"])
def test_two_workers_see_every_picture_once_in_an_epoch(tmp_path, layout):
    if layout == "files":
        for number in range(8):
            (tmp_path / f"{number}.png").write_bytes(picture(number))
    else:
        split = 4 if layout == "shards" else 8
        for start in range(0, 8, split):
            numbered(tmp_path / f"{start}.tar", *range(start, start + split))
    stream = Stream([tmp_path], 1, SIDE, workers=2, buffer=3)
    assert stream.pictures is None
    epochs = [[numbers(stream.batch(step))[0] for step in range(8)] for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 2 and epochs[0] != epochs[1]
    assert (stream.skipped, stream.damaged) == (0, [])
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert not multiprocessing.active_children()


def test_two_ranks_share_an_epoch(tmp_path):
    for start in range(0, 12, 3):
        numbered(tmp_path / f"{start}.tar", start, start + 1, start + 2)
    streams = [Stream([tmp_path], 4, SIDE, seed=2, rank=rank, ranks=2, workers=0) for rank in range(2)]
    drawn = [[number for step in range(3) for number in numbers(stream.batch(step))] for stream in streams]
    assert [len(part) for part in drawn] == [6, 6]
    assert sorted(drawn[0] + drawn[1]) == list(range(12))


def test_a_stream_is_seeded_by_where_it_starts(tmp_path):
    numbered(tmp_path / "a.tar", *range(30))

    def first(step, seed=0):
        return numbers(Stream([tmp_path], 10, SIDE, seed, workers=0).batch(step))

    assert first(0) == first(0) != first(5) and first(0) != first(0, seed=1)
    state = torch.get_rng_state()
    first(0)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_skips_and_counts_what_is_damaged(tmp_path, capfd, workers):
    cut(numbered(tmp_path / "cut.tar", 1, 2, 3), 2048)
    (tmp_path / "junk.tar").write_bytes(JUNK)
    shard(tmp_path / "mixed.tar", [("4.png", picture(4)), ("5.png", b"no"), ("6.png", picture(6)[:50]), ("b.png", b"")])
    stream = open_source([tmp_path], 4, SIDE, stream=True, workers=workers)
    seen = {number for step in range(12) for number in numbers(stream.batch(step))}
    stream.close()
    assert seen == {1, 2, 4} and stream.skipped >= 3
    assert sorted(line.split(":")[0] for line in stream.damaged) == [str(tmp_path / n) for n in ("cut.tar", "junk.tar")]
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line.split(":")[1] for line in lines) == [f" {tmp_path}/{n}.tar" for n in ("cut", "junk", "mixed")]
    assert all(line.startswith("warning: ") for line in lines)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_nothing_readable_ends_the_run_at_once(tmp_path, workers):
    (tmp_path / "junk.tar").write_bytes(JUNK)
    shard(tmp_path / "bad.tar", [("1.png", b"no")])
    (tmp_path / "bad.jpg").write_bytes(noise("JPEG")[:500])
    stream, began = Stream([tmp_path], 2, SIDE, workers=workers), time.monotonic()
    with pytest.raises(TitokError, match=r"no readable pictures in .*: give folders or tar shards") as caught:
        stream.batch(0)
    assert "\n" not in str(caught.value) and time.monotonic() - began < 10
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("bad", [1, 7])
def test_a_worker_without_a_readable_picture_waits_for_better_epochs(tmp_path, bad):
    units = [[str(numbered(tmp_path / "good.tar", 5))]]
    for number in range(bad):
        (tmp_path / f"{number}.tar").write_bytes(JUNK)
        units.append([str(tmp_path / f"{number}.tar")])
    for worker in range(4):
        crops = Portions(units, 1, SIDE, 0, 0, 1, 10).crops(worker, 4, lambda *event: None)
        assert [int(next(crops)[0, 0, 0]) for _ in range(3)] == [5, 5, 5]


def test_a_worker_that_dies_ends_the_run_in_one_line(tmp_path):
    """As when the kernel kills it; a real kill would let PyTorch's signal handler raise into the tests that follow."""
    numbered(tmp_path / "a.tar", *range(8))
    stream = Stream([tmp_path], 2, SIDE, workers=2)
    stream.batch(0)

    def died(workers):
        yield next(workers)
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nand much more")

    stream._parcels = died(stream._parcels)
    stream.batch(1)
    with pytest.raises(TitokError, match=r"worker \(pid 7\) is killed by signal: Killed.*: check the disk") as caught:
        stream.batch(2)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_number_of_workers_is_needed(tmp_path):
    numbered(tmp_path / "a.tar", 1)
    with pytest.raises(TitokError, match="-1 workers cannot read pictures"):
        Stream([tmp_path], 2, SIDE, workers=-1)


# ---- a full disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [100_000, 3_999_999])
def test_a_full_disk_leaves_the_last_checkpoint_and_no_half_of_the_next(tmp_path, room):
    path = tmp_path / "state.pt"
    save_state(path, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # no file may grow beyond it
        try:
            save_state(path, {"step": 2, "weights": torch.zeros(1_000_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert os.listdir(tmp_path) == ["state.pt"]
            assert load_state(path, torch.device("cpu")) == {"step": 1}
    except OSError:
        return
    pytest.fail("a full disk went unnoticed")
