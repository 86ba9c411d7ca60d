"""Files of a given size or quality: which grid of tiles and how many tokens, by what comes out.

Every grid of :func:`titokcodec.format.layout.grids` is a way to spend bytes: more tiles with fewer tokens each, or
fewer with more. Which is better depends on the picture, so it is encoded on a few of them, drawn from prefixes of its
tokens, and compared with its original. Pictures are taken one by one, so that a file does not depend on what else is
compressed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from titokcodec.errors import ImageError, TitokError
from titokcodec.format import bitstream
from titokcodec.format.layout import FIT, Grid, grids, most_tiles, nearest_grid
from titokcodec.format.shape import Shape, scaled
from titokcodec.jobs import Options, canvas_of
from titokcodec.pictures import images
from titokcodec.target import Target

if TYPE_CHECKING:
    from titokcodec.codec import Codec
    from titokcodec.metrics.lpips import LPIPS

Measure: TypeAlias = Callable[[np.ndarray], float]  # of (H, W, 3) uint8 as large as the original; larger is better

COMPARED_SIDE = 1024  # pixels, to which larger pictures are reduced to be compared; but not for a PSNR that is promised
# What pixels drawn in another precision, or in a batch with others, may be off: .006 dB were seen.
MARGINS = {"psnr": 0.01, "lpips": 0.001}
DENT = 4  # tokens: by how many fewer a score may be as good, since it does not quite rise with every one
PATIENCE = 2  # grids in a row that better nothing, after which no more are tried


class Aim:
    """Makes files that meet a target.

    Args:
        codec: The model at work.
        options: As for any other file; ``tokens`` is not looked at.
        target: What they are to be.
    """

    def __init__(self, codec: Codec, options: Options, target: Target) -> None:
        if target.lpips is not None:
            _ = target.network  # what is wrong with its file is no picture's fault
        self.codec, self.options, self.target = codec, options, target

    def file(self, source: images.Source) -> bytes:
        """The file of a picture.

        Raises:
            TitokError: the picture cannot be read, or no file of it meets the target.
        """
        attempts = Attempts(self.codec, self.options, self.options.load(source))
        if self.target.bytes is not None:
            attempts.compare_by(_nearness, attempts.reduced())
            return _largest(attempts, self.target.bytes)
        if self.target.psnr is not None:
            attempts.compare_by(_psnr, attempts.pixels)
            return _smallest(
                attempts,
                self.target.psnr,
                MARGINS["psnr"],
                f"a PSNR of {self.target.psnr:g} dB",
                lambda best: f"{math.floor(100 * best) / 100:.2f} dB",
            )
        attempts.compare_by(partial(_likeness, self.target.network), attempts.reduced())
        return _smallest(
            attempts,
            -self.target.lpips,
            MARGINS["lpips"],
            f"an LPIPS of {self.target.lpips:g}",
            lambda best: f"{math.ceil(-1000 * best) / 1000:.3f}",
        )


class Attempts:
    """One picture on any grid with any number of tokens; nothing is encoded twice.

    Attributes:
        pixels: (H, W, 3) uint8, the picture as its file will say.
        grids: Those that may be taken, in rising order.
        least, most: Numbers of tokens a tile.
    """

    def __init__(self, codec: Codec, options: Options, picture: images.Picture) -> None:
        self._codec, self._options, self._grey = codec, options, picture.grey
        self._config, self._packer = codec.weights.config, codec.packer
        width, height = options.size(picture)
        self.pixels = images.resize(picture.pixels, (width, height))
        self.least, self.most = self._config.min_tokens, self._config.tokens
        self._shape = Shape(width, height, FIT, self.most)
        found = grids(width, height, most_tiles(options.max_pixels))
        tiled = found[1:] if nearest_grid(width, height) != FIT else found
        self.grids = {"fit": found[:1], "tile": tiled}.get(options.layout, found)
        self._rows: dict[tuple[Grid, int], np.ndarray] = {}
        self._scores: dict[tuple[Grid, int, int], float] = {}

    def reduced(self) -> np.ndarray:
        """The picture with at most 1024 pixels a side."""
        height, width = self.pixels.shape[:2]
        return images.resize(self.pixels, scaled(width, height, COMPARED_SIDE))

    def compare_by(self, measure_of: Callable[[np.ndarray], Measure], pixels: np.ndarray) -> None:
        """Scores come from this measure of likeness to these pixels, and drawings get their size."""
        self._measure, self._size = measure_of(pixels), pixels.shape[1::-1]

    def shape(self, grid: Grid, tokens: int) -> Shape:
        """The file's shape."""
        return replace(self._shape, grid=grid, tokens=tokens)

    def bound(self, grid: Grid, tokens: int) -> int:
        """Bytes that its file has at most."""
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
        return self._options.steps(self._config, grid)

    def score(self, grid: Grid, tokens: int, effort: int) -> float:
        """How near the drawing is to the picture, by the measure."""
        key = grid, tokens, effort
        if key not in self._scores:
            canvas = self._codec.canvas(grid, self._tokens(grid, effort)[:, :tokens])
            drawn = images.to_image(canvas, self._grey, self._size)
            self._scores[key] = self._measure(np.asarray(drawn.convert("RGB")))
        return self._scores[key]

    def _tokens(self, grid: Grid, effort: int) -> np.ndarray:
        """(tiles, most) tokens of its tiles."""
        key = grid, effort
        if key not in self._rows:
            self._rows[key] = self._codec.rows(canvas_of(self.pixels, grid), grid, effort)
        return self._rows[key]


def _largest(attempts: Attempts, limit: int) -> bytes:
    """The best file within a limit in bytes.

    The more tiles, the fewer tokens for each: quality rises and falls again. It is followed both ways from where a tile
    gets half of the model's tokens, which is about where it is best.
    """
    ways = [grid for grid in attempts.grids if attempts.fitting(grid, limit)]
    if not ways:
        grid = attempts.grids[0]
        data = attempts.filled(grid, attempts.final(grid), limit)
        if len(data) > limit:
            raise TitokError(f"cannot make this picture {limit} bytes: the least that it takes is {len(data)}")
        return data

    def score(grid: Grid, effort: int) -> float:
        header, _ = bitstream.parse(attempts.filled(grid, effort, limit))
        return attempts.score(grid, header.tokens, effort)

    fair = min(range(len(ways)), key=lambda number: abs(attempts.fitting(ways[number], limit) - attempts.most / 2))
    best = ways[climb(len(ways), fair, lambda number: score(ways[number], attempts.quick(ways[number])))]
    effort = max((attempts.quick(best), attempts.final(best)), key=lambda effort: score(best, effort))
    return attempts.filled(best, effort, limit)


def _smallest(attempts: Attempts, score: float, margin: float, what: str, shown: Callable[[float], str]) -> bytes:
    """The smallest file with a score, and a margin, among the grids up to where larger ones are no smaller."""
    wanted = score + margin
    start, best = _reaching(attempts, wanted)
    if start is None:
        raise TitokError(
            f"no file of this picture has {what}: {shown(best - margin)} is the best that this model can "
            "do; ask for less, or use another format"
        )
    found: tuple[int, Grid, int] | None = None
    failed = 0
    for grid in attempts.grids[start:]:
        effort, most = attempts.quick(grid), attempts.most
        if found:
            most = attempts.fitting(grid, found[0] - 1)
            if failed == PATIENCE or not most:
                break
        if attempts.score(grid, most, effort) < wanted:
            failed += found is not None
            continue
        tokens = _fewest(attempts, grid, effort, wanted, most)
        found, failed = (len(attempts.pack(grid, tokens, effort)), grid, tokens), 0
    _, grid, tokens = found
    effort, final = attempts.quick(grid), attempts.final(grid)
    if final != effort and attempts.score(grid, attempts.most, final) >= wanted:
        effort, tokens = final, _fewest(attempts, grid, final, wanted, attempts.most)
    fewer = range(max(attempts.least, tokens - DENT), tokens)
    tokens = next((count for count in fewer if attempts.score(grid, count, effort) >= wanted), tokens)
    return attempts.pack(grid, tokens, effort)


def _reaching(attempts: Attempts, wanted: float) -> tuple[int | None, float]:
    """Where to begin to look for a score: behind the last grid that falls short with all of its tokens, of those that
    have twice as many tiles as the one before. None if all do; and the best score that was seen."""
    start, tiles, best = 0, 0, -np.inf
    for number, grid in enumerate(attempts.grids, 1):
        if grid.tiles < 2 * tiles and number < len(attempts.grids):
            continue
        score = attempts.score(grid, attempts.most, attempts.quick(grid))
        if score >= wanted:
            return start, score
        start, tiles, best = number, grid.tiles, max(best, score)
    return None, best


def _fewest(attempts: Attempts, grid: Grid, effort: int, wanted: float, most: int) -> int:
    """Tokens that reach a score which ``most`` of them do, taking quality to rise with every one.

    It rises about as their logarithm does, so false position finds them with half as many drawings as bisection. (The
    Illinois way: an end that stays twice counts half.)
    """
    low, high = attempts.least, most
    below, above = (attempts.score(grid, tokens, effort) - wanted for tokens in (low, high))
    if below >= 0:
        return low
    while high - low > 1:
        guess = round(low * (high / low) ** (below / (below - above)))
        guess = min(max(guess, low + 1), high - 1)
        gap = attempts.score(grid, guess, effort) - wanted
        if gap >= 0:
            high, above, below = guess, gap, below / 2
        else:
            low, below, above = guess, gap, above / 2
    return high


def climb(count: int, start: int, value: Callable[[int], float]) -> int:
    """The best of the numbers below ``count``, for values that rise and fall: looked for from ``start`` both ways, each
    until ``PATIENCE`` in a row are no better."""
    best = start
    for way in (range(start + 1, count), range(start - 1, -1, -1)):
        failed = 0
        for number in way:
            if failed == PATIENCE:
                break
            better = value(number) > value(best)
            best, failed = (number, 0) if better else (best, failed + 1)
    return best


def reached(codec: Codec, target: Target, picture: images.Picture, data: bytes) -> dict[str, float]:
    """The quality of a file that was made for a target, by the metric of that target: ``psnr`` in dB (also where the
    target is a size), or ``lpips``.

    Args:
        codec: The model that decodes the file.
        target: What was asked for.
        picture: The original.
        data: Its file.
    """
    header, _ = bitstream.parse(data)
    pixels = images.resize(picture.pixels, (header.width, header.height))
    side = None if target.lpips is None else COMPARED_SIDE
    decoded = codec.decompress(data, max_pixels=None, max_side=side and min(side, max(header.width, header.height)))
    pixels, seen = images.resize(pixels, decoded.size), np.asarray(decoded.convert("RGB"))
    if target.lpips is None:
        return {"psnr": _psnr(pixels)(seen)}
    return {"lpips": -_likeness(target.network, pixels)(seen)}


# ---- measures of likeness to a picture ---------------------------------------------------------------------------


def _nearness(pixels: np.ndarray) -> Measure:
    """Minus the mean squared error."""
    return lambda drawn: -_squared_error(drawn, pixels)


def _psnr(pixels: np.ndarray) -> Measure:
    def decibels(drawn: np.ndarray) -> float:
        error = _squared_error(drawn, pixels)
        return 10 * np.log10(255**2 / error) if error else np.inf

    return decibels


def _likeness(network: LPIPS, pixels: np.ndarray) -> Measure:
    """Minus LPIPS."""
    import torch

    from titokcodec.metrics.lpips import LPIPS_SIDE

    def tensor(shown: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(shown.transpose(2, 0, 1)[None] / np.float32(255))

    if min(pixels.shape[:2]) < LPIPS_SIDE:
        raise ImageError(
            f"a picture of {pixels.shape[1]}x{pixels.shape[0]} has no LPIPS, which takes {LPIPS_SIDE} "
            "pixels a side or more: give target_psnr or target_bytes"
        )
    with torch.inference_mode():
        directions = network.directions(tensor(pixels))

    def likeness(drawn: np.ndarray) -> float:
        with torch.inference_mode():
            return -float(network.distance(network.directions(tensor(drawn)), directions))

    return likeness


def _squared_error(drawn: np.ndarray, pixels: np.ndarray) -> float:
    """In bands of rows: as floats, a large picture would take eight times its memory."""
    total = sum(
        float(np.square(drawn[band].astype(np.float32) - pixels[band]).sum(dtype=np.float64))
        for band in (slice(top, top + 256) for top in range(0, len(pixels), 256))
    )
    return total / pixels.size
