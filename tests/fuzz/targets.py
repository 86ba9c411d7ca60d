"""What is fuzzed: functions of bytes that raise only if the library breaks its word.

Its word is: whatever the bytes, an answer that holds together or one line of ``TitokError``. Bytes are taken as they
are, and again with the checksum put right, because nobody who means harm will stop at a CRC.
"""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save

import titokcodec
from titokcodec import editing, files, pillow_plugin
from titokcodec.codec import Codec
from titokcodec.errors import CorruptFile, TitokError
from titokcodec.format import bitstream, entropy
from titokcodec.format.canonical import Spelling
from titokcodec.format.frequencies import FrequencyTables
from titokcodec.format.header import Header
from titokcodec.models.config import TiTokConfig, Tower
from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from titokcodec.models.meta import on_meta
from titokcodec.models.tokenizer import TiTok
from titokcodec.packing import Packer
from titokcodec.pictures import images
from titokcodec.sampling import Settings
from titokcodec.weights import checkpoints, generators, tokenizers

TINY = Path(__file__).parents[1] / "data" / "tiny.safetensors"
MAX_PIXELS = 1 << 18  # what a picture may claim here, so that an honest one takes milliseconds

TARGETS: dict[str, Callable[[bytes], None]] = {}


def target(name: str, *words: bytes) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Enters a function into ``TARGETS``; ``words`` are what its inputs are made of, for the engine."""

    def enter(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
        function.words = words  # type: ignore[attr-defined]
        TARGETS[name] = function
        return function

    return enter


@contextmanager
def one_line(*more: type[Exception]) -> Iterator[None]:
    """A ``TitokError``, or an error of these kinds, is a good answer if it is one line, with nothing hidden in it."""
    try:
        yield
    except (TitokError, *more) as error:
        if not str(error) or not str(error).isprintable():
            raise AssertionError(f"not one line of text: {error!r}") from error


@cache
def tiny() -> Codec:
    return Codec.from_pretrained(TINY, device="cpu", dtype="fp32")


def mended(data: bytes) -> bytes:
    """The same file, of the tiny model and with a right checksum, if its header can be read."""
    header, offset = bitstream.parse(data)
    own = tiny().weights.fingerprint
    changed = Header(**{**vars(header), "model_id": 0, "fingerprint": own})
    return bitstream.pack(changed, data[offset:], own)


# ---- files -------------------------------------------------------------------------------------------------------


@target("bitstream", b"\x9eT", b"\x9eT\x29\x01", b"\x9eT\x2b\x00", b"\xff\x01\xff\x01", b"\x80", b"\xff\xff\x7f")
def whole_file(data: bytes) -> None:
    """A file that is looked at, checked and cut, as it is and mended."""
    with one_line():
        header, offset = bitstream.parse(data)
        again = bitstream.pack(header, data[offset:], header.fingerprint or bytes(8))
        assert again[: offset - 2] == data[: offset - 2] and len(again) == len(data)
        assert titokcodec.info(data).bytes == len(data)
    for file in _both(data):
        spelling = None
        with one_line():
            assert file.startswith(files.read(io.BytesIO(file), MAX_PIXELS))
            spelling = editing.verify(file, TINY, MAX_PIXELS)
        if spelling:
            _good(file, spelling)
        with one_line():
            Packer(tiny().weights).read(file, False, MAX_PIXELS)


def _good(file: bytes, spelling: Spelling) -> None:
    """What verifies is decoded, and cut to as many tokens it is canonical: nothing may be raised here."""
    packer = Packer(tiny().weights)
    _, rows = packer.read(file, True, MAX_PIXELS)
    cut = editing.truncate(file, rows.shape[1], TINY, MAX_PIXELS)
    assert editing.verify(cut, TINY).canonical and (cut == file) == spelling.canonical
    for again in (packer.read(cut, True, MAX_PIXELS), packer.read(file, False, MAX_PIXELS)):
        assert np.array_equal(again[1], rows)
    assert editing.verify(editing.truncate(file, 1, TINY, MAX_PIXELS), TINY).canonical


def _both(data: bytes) -> list[bytes]:
    """A file as it is and, if its header can be read, mended."""
    try:
        return [data, mended(data)]
    except TitokError:
        return [data]


@cache
def _vocabularies() -> list[tuple[int, FrequencyTables | None]]:
    """Sizes of codebooks with tables: those of a model, even, extreme, one for each position, none."""
    even = FrequencyTables.from_counts(np.zeros((1, 100), int))
    steep = FrequencyTables.from_counts(np.array([[10**9] + [0] * 4095]), max_extra_bits=24)
    harsh = FrequencyTables(np.array([[2**24 - 3, 0, 0]] * 5))  # an all but certain code costs next to nothing
    return [
        (64, tiny().weights.tables),
        (100, even),
        (4096, steep),
        (3, harsh),
        (2, None),
        (65536, None),
        (3, None),
    ]


@target("entropy", b"\x00", b"\xff\xff\xff\xff", b"\x01\x00\x00\x00")
def payload_and_tokens(data: bytes) -> None:
    """A payload, whole and in part; and the same bytes as tokens, written and read. The first four choose shapes."""
    if len(data) < 4:
        return
    mode, tiles, count, payload = data[0] % 4, data[1] % 20 + 1, data[2] % 20 + 1, data[4:]
    size, tables = _vocabularies()[data[3] % len(_vocabularies())]
    shape = (mode, tiles, count, size, tables)
    rows = None
    with one_line():
        rows = entropy.decode(payload, *shape)
        assert rows.shape == (tiles, count) and rows.dtype == np.int64 and rows.min() >= 0 and rows.max() < size
        assert entropy.encode(rows, size, tables if mode == entropy.TABLES else None) == (mode, payload)
    for part in (payload, payload[: len(payload) // 2]):
        with one_line():
            known = entropy.decode_prefix(part, *shape)
            assert known.shape[0] == tiles and known.shape[1] <= count
            assert rows is None or np.array_equal(known, rows[:, : known.shape[1]])
    with suppress(CorruptFile):
        for bits in {entropy.code_bits_from_length(len(payload), tiles * count)} - {None}:
            entropy.truncate_packed(payload, tiles, count, max(1, count // 2), bits)
    numbers = np.frombuffer(payload[: len(payload) // 2 * 2], "<u2")[: tiles * count].astype(np.int64) % size
    if tables is not None and tables.positions is not None:
        count = min(count, tables.positions)
    if numbers.size >= tiles * count:
        rows = numbers[: tiles * count].reshape(tiles, count)
        mode, coded = entropy.encode(rows, size, tables)
        assert np.array_equal(entropy.decode(coded, mode, tiles, count, size, tables), rows)
        assert len(coded) <= entropy.packed_size(rows.size, size)


# ---- weights and configs -----------------------------------------------------------------------------------------


@cache
def _scratch() -> Path:
    """A folder that goes when the process does."""
    _scratch.folder = tempfile.TemporaryDirectory()  # type: ignore[attr-defined]
    return Path(_scratch.folder.name)  # type: ignore[attr-defined]


@target(
    "weights",
    b'"dtype"',
    b'"shape"',
    b'"data_offsets"',
    b'"F16"',
    b'"F32"',
    b'"I8"',
    b'"U32"',
    b'"BF16"',
    b'"F8_E4M3"',
    b'"I64"',
    b"[0,0]",
    b"[1073741824]",
    b"18446744073709551615",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"true",
    b"{",
    b"}",
    b'"tokens"',
    b'"codes"',
    b'"head"',
    b'"refiner"',
    b'"pixels"',
    b'"proxy"',
    b'"spectrum"',
    b'"components"',
    b"\\n",
    b"\\u001b",
    b'"classes"',
    b'"layers"',
    b'"tokenizer"',
    b'"class_names"',
    b'"settings"',
    b'"default_tokens"',
    b'"prefixes"',
    b'"codebooks"',
    b'"code_width"',
    b'"causal"',
)
def weight_file(data: bytes) -> None:
    """A file for the reader of tokenizers and that of generators, see :func:`_weight_file`."""
    path = _scratch() / "fuzzed.safetensors"
    path.write_bytes(_weight_file(data[:1], data[1:]))
    with one_line():
        opened = tokenizers.read(path)
        model = tokenizers.build(opened)
        assert model.config == opened.config and TiTokConfig.from_json(opened.config.to_json()) == opened.config
    with one_line():
        card, _ = generators.read(path)
        assert GeneratorConfig.from_json(card.config.to_json()) == card.config


def _weight_file(kind: bytes, rest: bytes) -> bytes:
    """Any bytes, a good file with one place changed, or a good tokenizer or generator with another description."""
    if kind == b"\1":  # two bytes say where, one how much goes, the others come in; the header's length is kept right
        whole = TINY.read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        at, gone = 8 + int.from_bytes(rest[:2], "big") % (end - 8), sum(rest[2:3])
        head = whole[8:at] + rest[3:] + whole[at + gone : end]
        return len(head).to_bytes(8, "little") + head + whole[end:]
    if kind in (b"\2", b"\3", b"\4"):
        arrays = load_file(TINY if kind == b"\2" else _generator(ours=kind == b"\4"))
        return save(arrays, {"titok": rest.decode("utf-8", "replace")})
    return rest


@cache
def _generator(ours: bool = False) -> Path:
    """A small generator's file, of a published architecture or of ours, which says how it is sampled."""
    path = _scratch() / f"generator-{ours}.safetensors"
    config = GeneratorConfig("bert", 8, codes=64, classes=4, width=32, layers=1, heads=1, mlp=32)
    how: dict[str, Any] = {}
    if ours:
        config = replace(config, architecture="codes", causal=True, prefixes=(4, 8), codebooks=2, code_width=4)
        how = {"settings": Settings(top_p=0.9), "default_tokens": 4, "class_names": ["a", "b", "c", "d"]}
    generators.save(path, make(config), "small", **how)
    return path


@cache
def _published() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small tokenizer that looks like a published one."""
    towers = Tower(64, 1, 1), Tower(64, 1, 1)
    model = on_meta(lambda: TiTok(TiTokConfig(*towers, tokens=32, l2_normalised=True, head="proxy", legacy=True)))
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@target(
    "configs",
    b"model:",
    b"vq_model:",
    b"dataset:",
    b"preprocessing:",
    b"crop_size: 256",
    b"use_l2_norm: true",
    b"\n  ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!python/object",
    b"!!binary ",
    b"!!set",
    b"!!timestamp 2001-01-01",
    b"|\n",
    b"? ",
    b"{",
    b"[",
    b"]",
    b"}",
    b", ",
    b'"',
    b"'",
    b"0x",
    b"1e999",
    b".inf",
    b"1:2:3:4",
    b"---\n",
    b"\xef\xbb\xbf",
    b"\x00",
    b"codebook_size: ",
    b"quantize_mode: vae",
    b"9999999999999999",
)
def published_config(data: bytes) -> None:
    """A published config, as YAML or (if the first byte is odd) as JSON, beside a small tokenizer."""
    path = _scratch() / ("config.json" if data[:1] and data[0] & 1 else "config.yaml")
    path.write_bytes(data[1:])
    with one_line():
        config = checkpoints.recognise(_published(), checkpoints.read_config(path))
        assert config.tokens == 32
        assert "TiTok" in checkpoints.describe(config)


# ---- pictures ----------------------------------------------------------------------------------------------------


@target("pillow", b"\x9eT\x29\x01", b"\x9eT\x2b\x00", b"\xff\x01\xff\x01", b"\x07", b"\x0f")
def pillow_file(data: bytes) -> None:
    """A file that Pillow opens: checked, drawn small, drawn; as it is and mended."""
    before = pillow_plugin._Model.source, pillow_plugin._Model.device
    pillow_plugin.register_pillow(tiny())
    try:
        for file in _both(data):
            with one_line(OSError, Image.DecompressionBombError):
                _opened(file).verify()
            with one_line(OSError, Image.DecompressionBombError):
                _draw(file)
    finally:
        pillow_plugin._Model.source, pillow_plugin._Model.device = before


def _draw(file: bytes) -> None:
    image = _opened(file)
    if image.width * image.height > MAX_PIXELS:
        return
    size = image.size
    assert image.convert("RGB").size == size and image.mode in ("L", "RGB")
    small = _opened(file)
    small.draft("L", (64, 64))
    small.load()
    assert small.mode == "L" and max(small.size) <= max(size)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["TITOK"])


@target(
    "pictures",
    b"\x89PNG\r\n\x1a\n",
    b"IHDR",
    b"IDAT",
    b"eXIf",
    b"iCCP",
    b"tRNS",
    b"PLTE",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xe1",
    b"Exif\x00\x00",
    b"\xff\xda",
    b"RIFF",
    b"WEBPVP8L",
    b"BM",
    b"P6\n",
    b"P7\n",
    b"qoif",
    b"\x00\x00\x01\x00",
    b"8BPS",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
)
def picture(data: bytes) -> None:
    """A picture that is to be compressed, up to the pixels that the network would see."""
    with one_line():
        pixels = images.load(data, max_pixels=MAX_PIXELS).pixels
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert 0 < pixels.size <= 3 * MAX_PIXELS
