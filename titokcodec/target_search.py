"""Files of a given size or quality: which grid of tiles and how many tokens, by trying and comparing.

Every grid of :func:`titokcodec.format.layout.grids` is a way to spend bytes: more tiles with fewer tokens each, or
fewer with more. Which is better depends on the picture, so it is encoded on a few of them, decoded from prefixes of its
tokens, and compared with its original. Pictures are taken one by one, so that a file does not depend on what else is
compressed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from titokcodec.candidates import COMPARED_SIDE, Candidates
from titokcodec.errors import TitokError
from titokcodec.fidelity import negative_error, negative_lpips, psnr
from titokcodec.format import bitstream
from titokcodec.format.layout import Grid
from titokcodec.options import CompressSettings
from titokcodec.pictures import images
from titokcodec.target import Target

if TYPE_CHECKING:
    from titokcodec.codec import Codec

# What pixels decoded in another precision, or in a batch with others, may be off: .006 dB were seen.
PSNR_MARGIN, LPIPS_MARGIN = 0.01, 0.001
TOKENS_TO_TRY = 4  # fewer ones may do as well: a score does not quite rise with every token
PATIENCE = 2  # grids in a row without improvement, after which no more are tried


class TargetSearch:
    """Finds the files that meet a target.

    Args:
        codec: Its model encodes and decodes.
        settings: As for any other file, with a target.

    Raises:
        TitokError: the weight file of LPIPS is not one.
    """

    def __init__(self, codec: Codec, settings: CompressSettings) -> None:
        self._codec, self._settings, self._target = codec, settings, settings.target
        # A fault of the weight file is no picture's fault: it is found before any is read.
        self._lpips = self._target.network if self._target.lpips is not None else None

    def file(self, source: images.Source) -> bytes:
        """The file of a picture.

        Raises:
            TitokError: the picture cannot be read, or no file of it meets the target.
        """
        target = self._target
        candidates = Candidates(self._codec, self._settings, self._settings.load(source))
        if target.bytes is not None:
            candidates.compare_by(negative_error, candidates.reduced())
            return _largest(candidates, target.bytes)
        if target.psnr is not None:
            candidates.compare_by(psnr, candidates.pixels)
            goal = Goal(target.psnr + PSNR_MARGIN, f"a PSNR of {target.psnr:g} dB", _psnr_text)
        else:
            assert target.lpips is not None and self._lpips is not None
            candidates.compare_by(partial(negative_lpips, self._lpips), candidates.reduced())
            goal = Goal(-target.lpips + LPIPS_MARGIN, f"an LPIPS of {target.lpips:g}", _lpips_text)
        return _smallest(candidates, goal)


class Goal(NamedTuple):
    """A score to reach.

    Attributes:
        score: With its margin.
        text: What it is, for messages.
        show: The best score that was reached, for messages.
    """

    score: float
    text: str
    show: Callable[[float], str]


def _psnr_text(score: float) -> str:
    return f"{math.floor(100 * (score - PSNR_MARGIN)) / 100:.2f} dB"


def _lpips_text(score: float) -> str:
    return f"{math.ceil(-1000 * (score - LPIPS_MARGIN)) / 1000:.3f}"


def _largest(candidates: Candidates, limit: int) -> bytes:
    """The best file within a limit in bytes.

    The more tiles, the fewer tokens for each: quality rises and falls again. It is followed both ways from where a tile
    gets half of the model's tokens, which is about where it is best.
    """
    fitting = {grid: tokens for grid in candidates.grids if (tokens := candidates.fitting(grid, limit))}
    if not fitting:
        grid = candidates.grids[0]
        data = candidates.filled(grid, candidates.final(grid), limit)
        if len(data) > limit:
            raise TitokError(f"cannot make this picture {limit} bytes: the least that it takes is {len(data)}")
        return data

    def score(grid: Grid, effort: int) -> float:
        header, _ = bitstream.parse(candidates.filled(grid, effort, limit))
        return candidates.score(grid, header.tokens, effort)

    grids = list(fitting)
    start = min(range(len(grids)), key=lambda number: abs(fitting[grids[number]] - candidates.most / 2))
    best = grids[climb(len(grids), start, lambda number: score(grids[number], candidates.quick(grids[number])))]
    effort = max((candidates.quick(best), candidates.final(best)), key=lambda effort: score(best, effort))
    return candidates.filled(best, effort, limit)


def _smallest(candidates: Candidates, goal: Goal) -> bytes:
    """The smallest file with a score, among the grids up to where larger ones are no smaller."""
    grid, tokens = _smallest_by_grid(candidates, goal)
    effort, final = candidates.quick(grid), candidates.final(grid)
    if final != effort and candidates.score(grid, candidates.most, final) >= goal.score:
        effort, tokens = final, _fewest(candidates, grid, final, goal.score, candidates.most)
    fewer = range(max(candidates.least, tokens - TOKENS_TO_TRY), tokens)
    tokens = next((count for count in fewer if candidates.score(grid, count, effort) >= goal.score), tokens)
    return candidates.pack(grid, tokens, effort)


def _smallest_by_grid(candidates: Candidates, goal: Goal) -> tuple[Grid, int]:
    """Grid and tokens of the smallest file with a score, at the effort at which grids are compared."""
    smallest: tuple[int, Grid, int] | None = None  # bytes, grid, tokens
    failed = 0
    for grid in candidates.grids[_first(candidates, goal) :]:
        effort, most = candidates.quick(grid), candidates.most
        if smallest:
            smaller = candidates.fitting(grid, smallest[0] - 1)
            if failed == PATIENCE or not smaller:
                break
            most = smaller
        if candidates.score(grid, most, effort) < goal.score:
            failed += smallest is not None
            continue
        tokens = _fewest(candidates, grid, effort, goal.score, most)
        smallest, failed = (len(candidates.pack(grid, tokens, effort)), grid, tokens), 0
    assert smallest is not None, "the first grid was chosen because a later one reaches the score"
    return smallest[1:]


def _first(candidates: Candidates, goal: Goal) -> int:
    """The number of the first grid to try for a score.

    Of the grids with twice as many tiles as the one before, it is behind the last that falls short with all its tokens.
    Raises ``TitokError`` if all of them do.
    """
    start, tiles, best = 0, 0, -math.inf
    for number, grid in enumerate(candidates.grids, 1):
        if grid.tiles < 2 * tiles and number < len(candidates.grids):
            continue
        score = candidates.score(grid, candidates.most, candidates.quick(grid))
        if score >= goal.score:
            return start
        start, tiles, best = number, grid.tiles, max(best, score)
    raise TitokError(
        f"no file of this picture has {goal.text}: {goal.show(best)} is the best that this model can "
        "do; ask for less, or use another format"
    )


def _fewest(candidates: Candidates, grid: Grid, effort: int, wanted: float, most: int) -> int:
    """The fewest tokens that reach a score which ``most`` of them reach, if quality rises with every token.

    It rises about as their logarithm does, so regula falsi takes half as many decodings as bisection. (The Illinois
    variant: an end that stays twice counts half.)
    """
    low, high = candidates.least, most
    below, above = (candidates.score(grid, tokens, effort) - wanted for tokens in (low, high))
    if below >= 0:
        return low
    while high - low > 1:
        guess = round(low * (high / low) ** (below / (below - above)))
        guess = min(max(guess, low + 1), high - 1)
        gap = candidates.score(grid, guess, effort) - wanted
        if gap >= 0:
            high, above, below = guess, gap, below / 2
        else:
            low, below, above = guess, gap, above / 2
    return high


def climb(count: int, start: int, value: Callable[[int], float]) -> int:
    """The best of the numbers below ``count``, for values that rise and then fall.

    They are tried from ``start`` in both directions, each until ``PATIENCE`` in a row are no better.
    """
    best = start
    for direction in (range(start + 1, count), range(start - 1, -1, -1)):
        failed = 0
        for number in direction:
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
        return {"psnr": psnr(pixels)(seen)}
    return {"lpips": -negative_lpips(target.network, pixels)(seen)}
