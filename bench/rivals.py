"""What titok is compared with: files of common formats, thumbnails of them, and thumbnails of bare pixels.

Every rival is a way to use a format: ``native`` files hold the picture at its own size, ``thumbnail`` ones a smaller
copy that is enlarged again (``bench.thumbnails``). BPG and VVC are used through their programs, where these are
installed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from .thumbnails import FORMATS, SIDES, Choice, Coder, Thumbnail, Thumbnails, installed, reduced

QUALITIES = (0, 5, 10, 15, 20, 30)  # of native files
# Further sides for large pictures and budgets, as close as the others: twice as far apart, 4,000 bytes lost 0.26 dB.
LARGER_SIDES = (112, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
CROP_SIDES = (192, 256)  # instead, for pictures no larger than crops: as all results of these were measured
DEPTHS = range(1, 7)  # bits a channel of raw thumbnails
WORST_QP = 51  # of BPG; VVC goes on to 63


@dataclass(frozen=True)
class Command:
    """A format that a pair of programs writes and reads.

    Attributes:
        name: Of the format.
        encoder, decoder: Command lines with places for ``{source}``, ``{target}``, ``{qp}`` and ``{size}``.
        suffix: Of the files that the encoder takes and the decoder makes: ``png``, or ``yuv`` for planar 4:2:0.
        best: The highest quality; the quantisation parameter falls from that to 0 as quality rises.
    """

    name: str
    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    suffix: str
    best: int
    lossless: bool = False
    fixed: int = 0
    trial: None = None

    def encode(self, image: Image.Image, quality: int | None) -> bytes:
        """The file at this quality."""
        with TemporaryDirectory() as folder:
            source, target = Path(folder, f"in.{self.suffix}"), Path(folder, "file")
            if self.suffix == "yuv":
                image = _even(image)
                source.write_bytes(to_planes(image))
            else:
                image.save(source)
            size = f"{image.width}x{image.height}"
            self._run(self.encoder, source=source, target=target, qp=self.best - (quality or 0), size=size)
            return target.read_bytes()

    def estimate(self, image: Image.Image, quality: int) -> int:
        """How many bytes ``encode`` makes."""
        return len(self.encode(image, quality))

    def decode(self, data: bytes, size: tuple[int, int]) -> Image.Image:
        """The RGB picture of ``size`` pixels in a file."""
        with TemporaryDirectory() as folder:
            source, target = Path(folder, "file"), Path(folder, f"out.{self.suffix}")
            source.write_bytes(data)
            self._run(self.decoder, source=source, target=target)
            if self.suffix == "yuv":
                return from_planes(target.read_bytes(), size)
            return Image.open(target).convert("RGB")

    def settings(self) -> dict[str, Any]:
        """What a protocol says of it."""
        return {"encoder": " ".join(self.encoder), "decoder": " ".join(self.decoder)}

    def missing(self) -> str | None:
        """Why it cannot be used here; None if a small picture goes through it unharmed."""
        absent = [line[0] for line in (self.encoder, self.decoder) if not shutil.which(line[0])]
        if absent:
            return f"{' and '.join(absent)} not found on PATH"
        try:
            image = Image.new("RGB", (64, 64), "olive")
            shown = np.asarray(self.decode(self.encode(image, self.best), image.size)).astype(int)
        except (subprocess.CalledProcessError, OSError, ValueError) as error:
            return f"its programs fail: {error}"
        return None if np.abs(shown - np.asarray(image)).max() < 16 else "its programs change the picture"

    def _run(self, line: tuple[str, ...], **places: object) -> None:
        subprocess.run([part.format(**places) for part in line], check=True, capture_output=True)


COMMANDS = {
    "bpg": Command(
        "BPG",
        ("bpgenc", "-q", "{qp}", "-f", "420", "-m", "9", "-o", "{target}", "{source}"),
        ("bpgdec", "-o", "{target}", "{source}"),
        "png",
        WORST_QP,
    ),
    "vvc": Command(  # --qpa 0: fitting quality to what viewers of films notice costs squared error
        "VVC",
        (
            *("vvencapp", "--preset", "slower", "-i", "{source}", "-s", "{size}", "--format", "yuv420"),
            *("-r", "1", "-f", "1", "--qpa", "0", "-q", "{qp}", "-o", "{target}"),
        ),
        ("vvdecapp", "-b", "{source}", "-o", "{target}"),
        "yuv",
        63,
    ),
}
CODERS: dict[str, Any] = {**{name: FORMATS[name] for name in ("jpeg", "webp", "avif", "jxl")}, **COMMANDS}
METHODS = (*(f"{name}-{use}" for name in CODERS for use in ("native", "thumbnail")), "raw-thumbnail")
NAMES = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "jxl": "JPEG XL", "bpg": "BPG", "vvc": "VVC", "raw": "Raw"}


def family(method: str) -> str:
    """``webp`` for ``webp-thumbnail``."""
    return method.rsplit("-", 1)[0]


def fixed(method: str) -> int:
    """Bytes of a rival's files that are not payload."""
    return getattr(CODERS.get(family(method)), "fixed", 0)


def unusable(names: Collection[str]) -> dict[str, str]:
    """Those of the formats that cannot be written here, each with the reason."""
    reasons = {name: COMMANDS[name].missing() for name in names if name in COMMANDS}
    for name in (name for name in names if name in FORMATS and not installed(name)):
        plugin = FORMATS[name].plugin
        absent = f"it needs the module {plugin}, which is not installed"
        reasons[name] = absent if plugin else "this Pillow cannot write it"
    return {name: reason for name, reason in reasons.items() if reason}


def register(methods: Iterable[str]) -> None:
    """Make Pillow know the formats of plugins, as every process must by itself."""
    for name in {family(method) for method in methods} & FORMATS.keys():
        installed(name)


def settings(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How a protocol describes the formats that these methods use."""
    names = dict.fromkeys(family(method) for method in methods)
    found = {name: {**CODERS[name].settings(), "fixed_bytes": CODERS[name].fixed} for name in names if name in CODERS}
    raw = {"raw": {"bits_a_channel": list(DEPTHS), "fixed_bytes": 0}} if "raw" in names else {}
    return found | raw


def natives(picture: Image.Image, method: str) -> Iterator[Thumbnail]:
    """The picture's files at its own size, by rising quality."""
    coder: Coder = CODERS[family(method)]
    for quality in QUALITIES:
        data = coder.encode(picture, quality)
        yield Thumbnail(data, max(picture.size), quality, coder.decode(data, picture.size))


def thumbnails(picture: Image.Image, method: str) -> Thumbnails | RawThumbnails:
    """The picture's thumbnails of this rival, up to its own size."""
    if family(method) == "raw":
        return RawThumbnails(picture)
    larger = LARGER_SIDES if max(picture.size) > CROP_SIDES[-1] else CROP_SIDES
    sides = [side for side in sorted({*SIDES, *larger}) if side <= max(picture.size)]
    return Thumbnails(picture, CODERS[family(method)], sides)


class RawThumbnails:
    """Bare pixels: three channels of a few bits each, packed, without any header.

    The reader is taken to know size and depth, so that no real format can be cheaper. A quality is a number of bits a
    channel.
    """

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture

    def choices(self, budget: int) -> list[tuple[int, int]]:
        """Of each depth the largest side in ``budget`` bytes."""
        found = ((self._largest_side(budget, depth), depth) for depth in DEPTHS)
        return [(side, depth) for side, depth in found if side]

    def climb(self, budget: int, gains: Callable[[Choice], bool]) -> None:
        """Offer them all."""
        for choice in self.choices(budget):
            gains(choice)

    def thumbnail(self, side: int, quality: int) -> Thumbnail:
        """The file of this side and depth, and what it shows."""
        small = reduced(self.picture, side)
        data = pack(np.asarray(small), quality)
        shown = Image.fromarray(unpack(data, (small.height, small.width, 3), quality))
        return Thumbnail(data, side, quality, shown.resize(self.picture.size, Image.Resampling.BICUBIC))

    def _largest_side(self, budget: int, depth: int) -> int:
        side = 0
        while side < max(self.picture.size) and self._size(side + 1, depth) <= budget:
            side += 1
        return side

    def _size(self, side: int, depth: int) -> int:
        scale = side / max(self.picture.size)
        return math.ceil(math.prod(max(1, round(length * scale)) for length in self.picture.size) * 3 * depth / 8)


def pack(pixels: np.ndarray, depth: int) -> bytes:
    """uint8 pixels of any shape as levels of ``depth`` bits, one behind another."""
    top = (1 << depth) - 1
    levels = (pixels.astype(np.uint32) * top * 2 + 255) // 510  # rounded
    return np.packbits(np.unpackbits(levels.astype(np.uint8).reshape(-1, 1), axis=1)[:, -depth:]).tobytes()


def unpack(data: bytes, shape: tuple[int, ...], depth: int) -> np.ndarray:
    """uint8 pixels from their levels."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=math.prod(shape) * depth).reshape(-1, depth)
    levels = bits @ (1 << np.arange(depth)[::-1])
    return np.rint(levels * 255 / ((1 << depth) - 1)).astype(np.uint8).reshape(shape)


def _even(image: Image.Image) -> Image.Image:
    """With both sides even, the last row or column repeated."""
    pixels = np.asarray(image)
    pads = [(0, length % 2) for length in pixels.shape[:2]]
    return Image.fromarray(np.pad(pixels, [*pads, (0, 0)], "edge"))


def to_planes(image: Image.Image) -> bytes:
    """8-bit Y, Cb and Cr (BT.601, full range), the latter two at half the size."""
    luma, *chroma = image.convert("YCbCr").split()
    half = image.width // 2, image.height // 2
    return b"".join([luma.tobytes(), *(plane.resize(half, Image.Resampling.BOX).tobytes() for plane in chroma)])


def from_planes(data: bytes, size: tuple[int, int]) -> Image.Image:
    """What ``to_planes`` made, cut to ``size``; also with 10 bits a sample, in two bytes each."""
    width, height = (length + length % 2 for length in size)
    samples = np.frombuffer(data, np.uint8)
    if len(samples) == width * height * 3:
        samples = np.minimum((samples.view("<u2") + 2) >> 2, 255).astype(np.uint8)
    if len(samples) != width * height * 3 // 2:
        raise ValueError(f"{len(data)} bytes are no planes of {width} x {height}")
    luma, *chroma = np.split(samples, [width * height, width * height * 5 // 4])
    small = [Image.fromarray(plane.reshape(height // 2, width // 2)) for plane in chroma]
    large = [plane.resize((width, height), Image.Resampling.BILINEAR) for plane in small]
    whole = Image.merge("YCbCr", [Image.fromarray(luma.reshape(height, width)), *large])
    return whole.convert("RGB").crop((0, 0, *size))
