"""Pictures on their way through the encoder: read, shaped, cut into tiles; and their tokens packed into files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from titokcodec.checks import whole_or_none
from titokcodec.errors import TitokError
from titokcodec.format.layout import FIT, Grid, check_tiles, nearest_grid, plan
from titokcodec.format.shape import Shape, scaled
from titokcodec.models.config import TiTokConfig
from titokcodec.outcomes import Outcomes
from titokcodec.packing import Packer
from titokcodec.pictures import geometry, images
from titokcodec.search import default_steps

Layout: TypeAlias = Literal["auto", "fit", "tile"]  # what a caller may ask for


@dataclass(frozen=True)
class Options:
    """What ``Codec.compress_batch`` was asked for; its docstring says what each option means.

    Raises:
        TitokError: one of them makes no sense, whatever the pictures are.
    """

    tokens: int
    layout: str
    max_side: int | None
    effort: int | None
    background: str
    max_pixels: int | None
    frame: int | None
    white: float | None

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise TitokError(f"layout {self.layout!r} is unknown; use 'auto', 'fit' or 'tile'")
        whole_or_none("max_side", self.max_side, 1)
        images.check_options(self.background, self.max_pixels, self.frame, self.white)

    def load(self, source: images.Source) -> images.Picture:
        """A picture, read as the options say."""
        return images.load(
            source, background=self.background, max_pixels=self.max_pixels, frame=self.frame, white=self.white
        )

    def size(self, picture: images.Picture) -> tuple[int, int]:
        """Width and height that its file will have."""
        height, width = picture.pixels.shape[:2]
        return scaled(width, height, self.max_side)

    def steps(self, config: TiTokConfig, grid: Grid) -> int:
        """Steps of the search for the tokens of a picture on this grid."""
        return default_steps(config, grid.tiles) if self.effort is None else self.effort


@dataclass(frozen=True)
class _Job:
    """A picture that has been cut into tiles: everything but its pixels."""

    shape: Shape
    grey: bool
    effort: int


class Jobs:
    """The pictures of one call.

    Args:
        packer: Writes the files, and knows the model.
        options: The same for all pictures.
        outcomes: What happens to those that are broken.

    Attributes:
        wishes: Tokens and effort of every tile that no network has seen yet.
    """

    def __init__(self, packer: Packer, options: Options, outcomes: Outcomes) -> None:
        self._packer, self._options, self._outcomes = packer, options, outcomes
        self._jobs: list[_Job] = []
        self.wishes: list[tuple[int, int]] = []

    def tiles(self, pictures: Iterable[images.Source], batch_size: int) -> Iterator[np.ndarray]:
        """(n, 256, 256, 3) uint8 tiles of one picture after the other, ``batch_size`` at most at a time."""
        for source in pictures:
            prepared = self._outcomes.attempt(self._prepare, source)
            if prepared is None:
                continue
            job, canvas = prepared
            self._jobs.append(job)
            self.wishes.extend([(job.shape.tokens, job.effort)] * job.shape.grid.tiles)
            yield from geometry.cut_batches(canvas, plan(job.shape.grid), batch_size)

    def files(self, batches: list[np.ndarray]) -> list[bytes | TitokError]:
        """The files, of (n, K) tokens of all the tiles that ``tiles`` gave."""
        if not self._jobs:
            return self._outcomes.with_errors([])
        ends = np.cumsum([job.shape.grid.tiles for job in self._jobs])[:-1]
        return self._outcomes.with_errors(
            self._packer.pack(job.shape, rows, job.grey)
            for job, rows in zip(self._jobs, np.split(np.concatenate(batches), ends), strict=True)
        )

    def _prepare(self, source: images.Source) -> tuple[_Job, np.ndarray]:
        options = self._options
        picture = options.load(source)
        width, height = options.size(picture)
        grid = nearest_grid(width, height) if options.layout == "tile" else FIT
        check_tiles(width, height, grid.tiles, options.max_pixels)
        shape = Shape(width, height, grid, options.tokens)
        self._packer.most(shape, picture.grey)  # raises now what writing the header would raise later
        effort = options.steps(self._packer.weights.config, grid)
        return _Job(shape, picture.grey, effort), canvas_of(picture.pixels, grid)


def canvas_of(pixels: np.ndarray, grid: Grid) -> np.ndarray:
    """(H, W, 3) uint8 pixels of a picture, scaled to the canvas of a grid."""
    laid = plan(grid)
    return images.resize(pixels, (laid.width, laid.height))
