"""What every file of a call is to reach: a size or a quality. Light enough for a command line to check at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING

from titokcodec.checks import whole_or_none
from titokcodec.errors import TitokError

if TYPE_CHECKING:
    from titokcodec.metrics.lpips import LPIPS

_EXAMPLES = {"target_psnr": "21 dB", "target_lpips": "0.3"}


@dataclass(frozen=True)
class Target:
    """One of three: the best file of a size, or the smallest of a quality.

    Messages name the arguments of the library and the options of the command line, which both check theirs here.

    Attributes:
        bytes: The largest size of a file, which is then as close to its picture as that allows.
        psnr: The least PSNR in dB, over all pixels and channels of what ``decompress`` gives.
        lpips: The largest LPIPS, of pictures reduced to 1024 pixels.
        weights: The weight file of LPIPS.

    Raises:
        TitokError: more than one of the three is given, or one makes no sense.
    """

    bytes: int | None = None
    psnr: float | None = None
    lpips: float | None = None
    weights: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.bytes, self.psnr, self.lpips)) > 1:
            raise TitokError(
                "give one of target_bytes, target_psnr and target_lpips: a file has a single target "
                "(--target-bytes, --target-psnr or --target-lpips)"
            )
        whole_or_none("target_bytes", self.bytes, 1)
        for name, value in (("target_psnr", self.psnr), ("target_lpips", self.lpips)):
            if value is not None and not (isinstance(value, Real) and value is not True and 0 < value < 1000):
                raise TitokError(
                    f"{name} is {value!r}: give a number from 0 to 1000, such as {_EXAMPLES[name]} ({_option(name)})"
                )
        if (self.lpips is None) != (self.weights is None):
            raise TitokError(
                "target_lpips= and lpips=, the weight file of the metric, go together: give both "
                "(--target-lpips and --lpips)"
            )
        if not isinstance(self.weights, str | os.PathLike | None):
            raise TitokError(f"lpips is {self.weights!r}: give the path of a weight file")

    def __bool__(self) -> bool:
        return (self.bytes, self.psnr, self.lpips) != (None, None, None)

    def check_tokens(self, tokens: int | None) -> None:
        """Raise ``TitokError`` if a number of tokens is asked for too."""
        if self and tokens is not None:
            name = next(name for name in ("bytes", "psnr", "lpips") if getattr(self, name) is not None)
            raise TitokError(
                "give tokens or a target, not both: the target chooses the tokens "
                f"(--tokens or {_option(f'target_{name}')})"
            )

    @property
    def network(self) -> LPIPS:
        """LPIPS. Raises ``TitokError`` if the weights are not its own."""
        return read_lpips(os.fspath(self.weights or ""))


@lru_cache(maxsize=1)
def read_lpips(path: str) -> LPIPS:
    """LPIPS with the weights in a file, the last one kept. Raises ``TitokError`` if they are not its own."""
    from titokcodec.metrics.lpips import LPIPS

    return LPIPS(path)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
