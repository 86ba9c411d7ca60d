"""Many pictures on their way to files: each is read and cut into tiles, whose tokens are then packed into a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from titokcodec.errors import TitokError
from titokcodec.format.layout import FIT, check_tiles, nearest_grid, plan
from titokcodec.format.shape import Shape
from titokcodec.options import CompressSettings
from titokcodec.outcomes import Outcomes
from titokcodec.packing import Packer
from titokcodec.pictures import geometry, images
from titokcodec.pictures.batches import TileChunk


@dataclass(frozen=True)
class _Prepared:
    """A picture that has been cut into tiles: everything but its pixels."""

    shape: Shape
    grey: bool


class PictureBatch:
    """The pictures of one call.

    Args:
        packer: Writes the files, and knows the model.
        settings: The same for all pictures.
        outcomes: What happens to pictures that are broken.

    Raises:
        TitokError: the model was not trained for this number of tokens.
    """

    def __init__(self, packer: Packer, settings: CompressSettings, outcomes: Outcomes) -> None:
        self._packer, self._settings, self._outcomes = packer, settings, outcomes
        self._tokens = packer.weights.config.token_count(settings.tokens)
        self._pictures: list[_Prepared] = []

    def tiles(self, sources: Iterable[images.Source], batch_size: int) -> Iterator[TileChunk]:
        """Tiles of one picture after the other, at most ``batch_size`` at a time, with tokens and effort for each."""
        for source in sources:
            prepared = self._outcomes.attempt(self._prepare, source)
            if prepared is None:
                continue
            picture, canvas = prepared
            self._pictures.append(picture)
            grid = picture.shape.grid
            effort = self._settings.steps(self._packer.weights.config, grid)
            for tiles in geometry.cut_batches(canvas, plan(grid), batch_size):
                yield TileChunk.alike(tiles, self._tokens, effort)

    def files(self, batches: list[np.ndarray]) -> list[bytes | TitokError]:
        """The files, given the (n, K) tokens of all tiles in order."""
        if not self._pictures:
            return self._outcomes.with_errors([])
        ends = np.cumsum([picture.shape.grid.tiles for picture in self._pictures])[:-1]
        return self._outcomes.with_errors(
            self._packer.pack(picture.shape, rows, picture.grey)
            for picture, rows in zip(self._pictures, np.split(np.concatenate(batches), ends), strict=True)
        )

    def _prepare(self, source: images.Source) -> tuple[_Prepared, np.ndarray]:
        settings = self._settings
        picture = settings.load(source)
        width, height = settings.size(picture)
        grid = nearest_grid(width, height) if settings.layout == "tile" else FIT
        check_tiles(width, height, grid.tiles, settings.max_pixels)
        shape = Shape(width, height, grid, self._tokens)
        self._packer.most(shape, picture.grey)  # raises now what writing the header would raise later
        return _Prepared(shape, picture.grey), images.to_canvas(picture.pixels, grid)
