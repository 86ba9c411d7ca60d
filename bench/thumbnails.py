"""The rivals at these sizes: the best thumbnail that fits the same number of bytes, enlarged again.

For each picture and budget, sides are tried at the highest quality that fits, the smallest ones losslessly as well.
Pictures are scaled down with Lanczos and up with bicubic. JPEG XL needs ``pillow-jxl-plugin``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from PIL import Image

SIDES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128)  # pixels of the longer side
LOSSLESS_SIDES = (2, 3, 4, 5, 6, 8)  # JPEG XL's best below 100 bytes
OVERSHOOT = 2  # times the budget: where a side's smallest file is longer, no larger side has one that fits
PATIENCE = 2  # sides in a row that better nothing, after which a climb turns back

Choice = tuple[int, "int | None"]  # side and quality of a thumbnail; without quality it is lossless


@dataclass(frozen=True)
class Format:
    """How Pillow is asked for the smallest file at a quality.

    Attributes:
        name: Pillow's name of it.
        options: What ``Image.save`` takes besides the quality.
        variants: Further options, each tried for every file; the shortest is taken.
        trial: Further options that make it quick, for a first guess at the quality that fits a budget.
        best: The highest quality; 0 is the lowest.
        lossless: Pillow can write it without loss.
        fixed: Bytes that every file spends on its container: signatures, boxes, headers and tables.
        plugin: Module to import first, if any.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Mapping[str, Any], ...] = ({},)
    trial: Mapping[str, Any] | None = None
    best: int = 100
    lossless: bool = True
    fixed: int = 0
    plugin: str | None = None

    def encode(self, image: Image.Image, quality: int | None) -> bytes:
        """The file at this quality; None is lossless."""
        kind = {"lossless": True} if quality is None else {"quality": quality}
        return min((self._saved(image, {**kind, **self.options, **variant}) for variant in self.variants), key=len)

    def estimate(self, image: Image.Image, quality: int) -> int:
        """About how many bytes ``encode`` makes, in less time where there is a trial."""
        if self.trial is None:
            return len(self.encode(image, quality))
        return len(self._saved(image, {"quality": quality, **self.options, **self.trial}))

    def decode(self, data: bytes, size: tuple[int, int]) -> Image.Image:
        """The RGB picture in a file; ``size``, in pixels, is for formats whose files do not store it."""
        return Image.open(io.BytesIO(data)).convert("RGB")

    def settings(self) -> dict[str, Any]:
        """How a protocol describes it."""
        tried = {"shortest_of": list(self.variants)} if len(self.variants) > 1 else {}
        return {"format": self.name, **self.options, **tried}

    def _saved(self, image: Image.Image, options: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, self.name, **options)
        return buffer.getvalue()


# Containers as measured: JPEG up to the first scan byte of a flat grey picture, whose Huffman tables are the shortest;
# WebP's RIFF, chunk and frame headers; AVIF but for the content of its box mdat; JPEG XL's signature.
FORMATS = MappingProxyType(
    {
        "webp": Format("WEBP", {"method": 6}, fixed=30),
        # A bare codestream, and effort 9: at these sizes 10 takes longer and is no smaller. The plugin fails at 100.
        "jxl": Format(
            "JXL", {"effort": 9, "use_container": False, "num_threads": 0}, best=99, fixed=2, plugin="pillow_jxl"
        ),
        # The scans of progressive files have a table each, which small pictures do not pay back.
        "jpeg": Format(
            "JPEG",
            {"optimize": True, "subsampling": "4:2:0"},
            lossless=False,
            fixed=279,
            variants=({"progressive": False}, {"progressive": True}),
        ),
        "avif": Format(
            "AVIF",
            {"speed": 0, "subsampling": "4:2:0", "max_threads": 1},
            lossless=False,
            fixed=275,
            trial={"speed": 6},
        ),
    }
)


def installed(kind: str) -> bool:
    """Whether the format can be written here; registers its plugin."""
    plugin = FORMATS[kind].plugin
    try:
        if plugin:
            importlib.import_module(plugin)
    except ImportError:
        return False
    Image.init()
    return FORMATS[kind].name in Image.SAVE


class Coder(Protocol):
    """What a format must be able to do; ``Format`` documents the members."""

    best: int
    lossless: bool
    trial: Mapping[str, Any] | None

    def encode(self, image: Image.Image, quality: int | None) -> bytes: ...

    def estimate(self, image: Image.Image, quality: int) -> int: ...

    def decode(self, data: bytes, size: tuple[int, int]) -> Image.Image: ...


@dataclass(frozen=True)
class Thumbnail:
    """A picture that went through a small file.

    Attributes:
        data: The file.
        side: Its pixels, in the longer direction.
        quality: The encoder's, None if lossless.
        picture: What it shows, enlarged to the size of the original.
    """

    data: bytes
    side: int
    quality: int | None
    picture: Image.Image


class Thumbnails:
    """One picture's thumbnails of one format, no file made twice.

    Args:
        picture: RGB.
        kind: A format, or its name in ``FORMATS``.
        sides: Pixels of the longer sides to try, rising. Thumbnails keep the picture's aspect.
    """

    def __init__(self, picture: Image.Image, kind: str | Coder = "webp", sides: Sequence[int] = SIDES) -> None:
        self.picture, self.sides = picture, sides
        self.format: Coder = FORMATS[kind] if isinstance(kind, str) else kind
        self._small: dict[int, Image.Image] = {}
        self._peak = 0  # index of the side that bettered something last
        self._files: dict[tuple[int, int | None], bytes] = {}
        self._estimates: dict[tuple[int, int], int] = {}

    def fitting(self, budget: int) -> list[Thumbnail]:
        """Of each side the thumbnail of the highest quality in ``budget`` bytes, and the lossless ones, where any."""
        return [self.thumbnail(*choice) for choice in self.choices(budget)]

    def choices(self, budget: int) -> list[Choice]:
        """Their sides and qualities."""
        kept: list[Choice] = []
        for side in self.sides:
            if self._too_large(side, budget):
                break
            quality = self._best_quality(side, budget)
            kept += [] if quality is None else [(side, quality)]
        return kept + self._lossless(budget)

    def climb(self, budget: int, gains: Callable[[Choice], bool]) -> None:
        """Offer those choices of which one may be the best, by whatever ``gains`` goes by.

        Pictures get better with their side, to the point where too few bytes are left for a pixel. So sides are
        offered upwards and then downwards from the one that was best in the last budget, each way until ``PATIENCE``
        of them in a row better nothing. Meant for budgets in rising order.

        Args:
            budget: Bytes of the whole file.
            gains: Called with a side and quality; returns whether it is the best so far.
        """
        for choice in self._lossless(budget):
            gains(choice)
        start = self._peak
        for way in (range(start, len(self.sides)), range(start - 1, -1, -1)):
            failed = 0
            for index in way:
                side = self.sides[index]
                if failed == PATIENCE or (index >= start and self._too_large(side, budget)):
                    break
                quality = self._best_quality(side, budget)
                if quality is not None and gains((side, quality)):
                    self._peak, failed = index, 0
                else:
                    failed += quality is not None

    def thumbnail(self, side: int, quality: int | None) -> Thumbnail:
        """The file of this side and quality, and what it shows."""
        data = self._file(side, quality)
        small = self.format.decode(data, self._small[side].size)
        return Thumbnail(data, side, quality, small.resize(self.picture.size, Image.Resampling.BICUBIC))

    def _too_large(self, side: int, budget: int) -> bool:
        return len(self._file(side, 0)) > OVERSHOOT * budget

    def _lossless(self, budget: int) -> list[Choice]:
        tiny = LOSSLESS_SIDES if self.format.lossless else ()
        return [(side, None) for side in tiny if len(self._file(side, None)) <= budget]

    def _best_quality(self, side: int, budget: int) -> int | None:
        """The highest that fits, and the next does not; None if even quality 0 is too long."""
        best = self.format.best

        def fits(quality: int) -> bool:
            return len(self._file(side, quality)) <= budget

        if not fits(0):
            return None
        if self.format.trial is None:
            return last(fits, 0, best)
        guess = last(lambda quality: self._estimate(side, quality) <= budget, 0, best)
        step = 1
        if fits(guess):
            while guess + step <= best and fits(guess + step):
                step *= 2
            return last(fits, guess + step // 2, min(guess + step, best + 1) - 1)
        while guess - step > 0 and not fits(guess - step):
            step *= 2
        return last(fits, max(guess - step, 0), guess - step // 2 - 1)

    def _estimate(self, side: int, quality: int) -> int:
        if (side, quality) not in self._estimates:
            self._estimates[side, quality] = self.format.estimate(self._small[side], quality)
        return self._estimates[side, quality]

    def _file(self, side: int, quality: int | None) -> bytes:
        if side not in self._small:
            self._small[side] = reduced(self.picture, side)
        if (side, quality) not in self._files:
            self._files[side, quality] = self.format.encode(self._small[side], quality)
        return self._files[side, quality]


def last(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from ``low``, where it holds, to ``high`` before it holds no more, by bisection."""
    found = low
    while low <= high:
        middle = (low + high) // 2
        if holds(middle):
            low, found = middle + 1, middle
        else:
            high = middle - 1
    return found


def reduced(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longer side at ``side`` pixels, by Lanczos."""
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def best_thumbnail(
    picture: Image.Image, budget: int, kind: str, measure: Callable[[Image.Image], float]
) -> Thumbnail | None:
    """The thumbnail in ``budget`` bytes that ``measure`` likes most when enlarged, or None if none fits.

    Args:
        picture: RGB.
        budget: Bytes of the whole file.
        kind: A name of ``FORMATS``.
        measure: Of a picture as large as the original; larger is better.
    """
    return max(Thumbnails(picture, kind).fitting(budget), key=lambda found: measure(found.picture), default=None)
