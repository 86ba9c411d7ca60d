"""Pictures on their way through the encoder: read, shaped, cut into tiles; and their tokens packed into files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from titokcodec import geometry, images
from titokcodec.budget import LAYOUTS, Choice, choose, scaled
from titokcodec.checks import whole_or_none
from titokcodec.errors import TitokError
from titokcodec.layout import check_tiles, most_tiles
from titokcodec.outcomes import Outcomes
from titokcodec.packing import Packer
from titokcodec.search import default_steps


@dataclass(frozen=True)
class Options:
    """What ``Codec.compress_batch`` was asked for; its docstring says what each option means.

    Raises:
        TitokError: one of them makes no sense, whatever the pictures are.
    """

    tokens: int
    layout: str
    max_side: int | None
    target_bytes: int | None
    effort: int | None
    background: str
    max_pixels: int | None
    frame: int | None
    white: float | None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise TitokError(f"layout {self.layout!r} is unknown; use 'auto', 'fit' or 'tile'")
        whole_or_none("max_side", self.max_side, 1)
        whole_or_none("target_bytes", self.target_bytes, 1)
        images.check_options(self.background, self.max_pixels, self.frame, self.white)

    def load(self, source: images.Source) -> images.Picture:
        """A picture, read as the options say."""
        return images.load(source, background=self.background, max_pixels=self.max_pixels, frame=self.frame,
                           white=self.white)  # fmt: skip


@dataclass(frozen=True)
class _Job:
    """A picture that has been cut into tiles: everything but its pixels."""

    shape: Choice
    tiles: int
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
            job, pixels, plan = prepared
            self._jobs.append(job)
            # With a budget all tokens may fit.
            most = job.shape.tokens if self._options.target_bytes is None else self._packer.weights.config.tokens
            self.wishes.extend([(most, job.effort)] * plan.tiles)
            for start in range(0, plan.tiles, batch_size):
                yield geometry.cut(pixels, plan, start, min(start + batch_size, plan.tiles))

    def files(self, batches: list[np.ndarray]) -> list[bytes | TitokError]:
        """The files, of (n, K) tokens of all the tiles that ``tiles`` gave."""
        if not self._jobs:
            return self._outcomes.with_errors([])
        ends = np.cumsum([job.tiles for job in self._jobs])[:-1]
        return self._outcomes.with_errors(
            self._packer.pack(job.shape, rows, job.grey, self._options.target_bytes)
            for job, rows in zip(self._jobs, np.split(np.concatenate(batches), ends), strict=True)
        )

    def _prepare(self, source: images.Source) -> tuple[_Job, np.ndarray, geometry.Plan]:
        picture = self._options.load(source)
        shape = self._shape(picture)
        pixels = images.resize(picture.pixels, (shape.width, shape.height))
        plan = geometry.plan(shape.width, shape.height, shape.layout)
        effort = self._options.effort
        if effort is None:
            effort = default_steps(self._packer.weights.config, plan.tiles)
        return _Job(shape, plan.tiles, picture.grey, effort), pixels, plan

    def _shape(self, picture: images.Picture) -> Choice:
        """Size, layout and tokens of a picture, within the limits of what ``decompress`` takes."""
        options = self._options
        height, width = picture.pixels.shape[:2]
        width, height = scaled(width, height, options.max_side)
        most = most_tiles(options.max_pixels)
        if options.target_bytes is not None:
            return choose(width, height, options.layout, options.target_bytes, self._packer.weights.config,
                          lambda shape: self._packer.most(shape, picture.grey), most)  # fmt: skip
        auto = options.layout == "auto"
        layout = geometry.choose_layout(width, height, most) if auto else options.layout
        check_tiles(width, height, layout, options.max_pixels)
        shape = Choice(width, height, layout, options.tokens)
        self._packer.most(shape, picture.grey)  # raises now what writing the header would raise later
        return shape
