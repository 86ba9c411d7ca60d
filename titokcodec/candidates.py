"""One picture as a file on any grid with any number of tokens, and how near each comes to the picture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from titokcodec.fidelity import Fidelity
from titokcodec.format.layout import FIT, Grid, grids, most_tiles, nearest_grid
from titokcodec.format.shape import Shape, scaled
from titokcodec.options import CompressSettings
from titokcodec.pictures import images

if TYPE_CHECKING:
    from titokcodec.codec import Codec

COMPARED_SIDE = 1024  # pixels, to which larger pictures are reduced to be compared; but not for a PSNR that is promised


class Candidates:
    """One picture on any grid with any number of tokens; no grid is encoded twice.

    Attributes:
        pixels: (H, W, 3) uint8, the picture in the size that its file will have.
        grids: Those to choose from, in rising order.
        least, most: Numbers of tokens a tile.
    """

    def __init__(self, codec: Codec, settings: CompressSettings, picture: images.Picture) -> None:
        self._codec, self._settings, self._grey = codec, settings, picture.grey
        self._config, self._packer = codec.weights.config, codec.packer
        width, height = settings.size(picture)
        self.pixels = images.resize(picture.pixels, (width, height))
        self.least, self.most = self._config.min_tokens, self._config.tokens
        self._shape = Shape(width, height, FIT, self.most)
        found = grids(width, height, most_tiles(settings.max_pixels))
        tiled = found[1:] if nearest_grid(width, height) != FIT else found
        self.grids = {"fit": found[:1], "tile": tiled}.get(settings.layout, found)
        self._rows: dict[tuple[Grid, int], np.ndarray] = {}
        self._scores: dict[tuple[Grid, int, int], float] = {}

    def reduced(self) -> np.ndarray:
        """The picture with at most 1024 pixels a side."""
        height, width = self.pixels.shape[:2]
        return images.resize(self.pixels, scaled(width, height, COMPARED_SIDE))

    def compare_by(self, fidelity_to: Callable[[np.ndarray], Fidelity], pixels: np.ndarray) -> None:
        """Score by this measure of nearness to these pixels, whose size decoded pictures are scaled to."""
        self._fidelity, self._size = fidelity_to(pixels), pixels.shape[1::-1]

    def shape(self, grid: Grid, tokens: int) -> Shape:
        """What the file's header says of its size, grid and tokens."""
        return replace(self._shape, grid=grid, tokens=tokens)

    def bound(self, grid: Grid, tokens: int) -> int:
        """Bytes that its file takes at most."""
        return self._packer.most(self.shape(grid, tokens), self._grey)

    def fitting(self, grid: Grid, limit: int) -> int | None:
        """The most tokens a tile whose file has at most so many bytes; None if there are none."""
        counts = range(self.least, self.most + 1)
        fits = bisect_right(counts, limit, key=lambda tokens: self.bound(grid, tokens))
        return counts[fits - 1] if fits else None

    def filled(self, grid: Grid, effort: int, limit: int) -> bytes:
        """The longest file within a limit in bytes; if there is none, the shortest."""
        return self.pack(grid, self.fitting(grid, limit) or self.least, effort, limit)

    def pack(self, grid: Grid, tokens: int, effort: int, budget: int | None = None) -> bytes:
        """The file, which takes in more tokens as long as they fit a budget, as they may where tables save some."""
        return self._packer.pack(self.shape(grid, tokens), self._tokens(grid, effort), self._grey, budget)

    def quick(self, grid: Grid) -> int:
        """Effort while grids are compared: a search takes as long as a hundred tiles without one."""
        return self.final(grid) if grid == FIT else 0

    def final(self, grid: Grid) -> int:
        """Effort for the file."""
        return self._settings.steps(self._config, grid)

    def score(self, grid: Grid, tokens: int, effort: int) -> float:
        """How near the decoded picture is to the original."""
        key = grid, tokens, effort
        if key not in self._scores:
            canvas = self._codec.decode_canvas(grid, self._tokens(grid, effort)[:, :tokens])
            decoded = images.to_image(canvas, self._grey, self._size)
            self._scores[key] = self._fidelity(np.asarray(decoded.convert("RGB")))
        return self._scores[key]

    def _tokens(self, grid: Grid, effort: int) -> np.ndarray:
        """(tiles, most) tokens of its tiles."""
        key = grid, effort
        if key not in self._rows:
            self._rows[key] = self._codec.encode_canvas(images.to_canvas(self.pixels, grid), grid, effort)
        return self._rows[key]
