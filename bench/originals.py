"""The pictures of a benchmark: read from folders and tar shards, cut to size, identified by their hashes."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image
from titokcodec.training.reading import Rejects, find, read_files, read_picture

from .thumbnails import reduced

SIDE = 256
CROPS = {
    "256": "shorter side scaled to 256 pixels with Lanczos, centre crop of 256 x 256; pictures of that size left alone",
    "full": "whole pictures at their own size",
}


@dataclass(frozen=True)
class Original:
    """A picture to compress.

    Attributes:
        name: Of its file.
        sha256: Of its file, in hexadecimal digits.
        picture: RGB, as it is compared, and as the rivals get it.
        source: What titok gets: the same, or of a picture that is compared at a smaller size its file. Of many large
            pictures, no two are held in full.
        size: Width and height of what titok gets, in pixels.
    """

    name: str
    sha256: str
    picture: Image.Image
    source: Image.Image | bytes
    size: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many titok gets, which bits per pixel are of."""
        return math.prod(self.size)


def read(
    sources: list[Path], size: str = "256", limit: int | None = None, every: int = 1, side: int | None = None
) -> list[Original]:
    """Pictures of folders, files and tar shards, in order, cut as ``CROPS`` has it.

    Args:
        sources: Where they are.
        size: A key of ``CROPS``.
        limit: The first ones only.
        every: 3 takes the first, the fourth, the seventh and so on; ``limit`` counts those that are taken.
        side: Pictures with more pixels on their longer side are compared with it reduced to so many; None for no limit.

    Raises:
        TitokError: a source does not exist, or there is no readable picture in any.
    """
    rejects = Rejects(verbose=True)
    found = []
    for where, name, data in islice(islice(read_files(find(sources, rejects.add), rejects.add), 0, None, every), limit):
        pixels = read_picture(data)
        if pixels is None:
            rejects.add(where, name, "cannot be read as a picture")
            continue
        picture = Image.fromarray(pixels)
        picture = cropped(picture) if size == "256" else picture
        whole = picture.size
        source: Image.Image | bytes = picture
        if side is not None and max(whole) > side:
            source, picture = data, reduced(picture, side)
        found.append(Original(name, hashlib.sha256(data).hexdigest(), picture, source, whole))
    if not found:
        raise rejects.nothing_in(sources)
    if rejects.skipped:
        print(f"{rejects.skipped} pictures could not be read", file=sys.stderr)
    return found


def cropped(picture: Image.Image) -> Image.Image:
    """The middle of the picture, its shorter side scaled to 256 pixels."""
    if picture.size == (SIDE, SIDE):
        return picture
    scale = SIDE / min(picture.size)
    width, height = (max(SIDE, round(length * scale)) for length in picture.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    return picture.resize((width, height), Image.Resampling.LANCZOS).crop((left, top, left + SIDE, top + SIDE))
