"""What a MaskGIT-VQGAN looks like: as published, and a light one of this project's own."""

from __future__ import annotations

from dataclasses import dataclass

from titokcodec.errors import WeightsError
from titokcodec.format.limits import MAX_CODEBOOK_SIZE
from titokcodec.models.config import PROXY_CODES
from titokcodec.models.validation import LARGEST

CODE_WIDTH = 256
GROUPS = 32  # of every norm: numbers of channels are multiples of it
MOST_LEVELS = 8
MOST_BLOCKS = 16
LARGEST_PATCH = 16
MOST_PARAMETERS = 1 << 28  # a gibibyte, five times the published model; no file may ask for more


def require_vqgan(condition: bool, problem: str) -> None:
    """Raise ``WeightsError`` with the problem unless the condition holds."""
    if not condition:
        raise WeightsError(f"this is no MaskGIT-VQGAN: {problem}")


@dataclass(frozen=True)
class VQGANConfig:
    """Architecture of one 2D tokenizer. Raises ``WeightsError`` for sizes that make no sense.

    Attributes:
        channels: By level, finest first; every level but the last halves both sides, so five make sixteen-fold.
        blocks: Residual blocks a level. The middle always has two.
        code_width: Width of one codebook entry.
        codes: Entries of the codebook.
        patch: Pixels along one side of the square that is one position of the finest level; 1 as published.
    """

    channels: tuple[int, ...] = (128, 128, 256, 256, 512)
    blocks: int = 2
    code_width: int = CODE_WIDTH
    codes: int = PROXY_CODES
    patch: int = 1

    def __post_init__(self) -> None:
        levels = len(self.channels)
        require_vqgan(2 <= levels <= MOST_LEVELS, f"it has {levels} levels, not 2 to {MOST_LEVELS}")
        for width in self.channels:
            fits = type(width) is int and 0 < width <= LARGEST and width % GROUPS == 0
            require_vqgan(fits, f"{width!r} channels are not a multiple of {GROUPS} up to {LARGEST}")
        limits = (
            ("blocks", 1, MOST_BLOCKS),
            ("code_width", 1, LARGEST),
            ("codes", 2, MAX_CODEBOOK_SIZE),
            ("patch", 1, LARGEST_PATCH),
        )
        for name, least, most in limits:
            value = getattr(self, name)
            require_vqgan(type(value) is int and least <= value <= most, f"{name} is {value!r}, not {least} to {most}")

    @property
    def factor(self) -> int:
        """Pixels along one side of the square that one token stands for; 16 as published."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @property
    def samples(self) -> int:
        """Numbers that a position of the finest level stands for: three for each of its pixels."""
        return 3 * self.patch**2


VQGAN_PRESETS: dict[str, VQGANConfig] = {
    "published": VQGANConfig(),
    "light": VQGANConfig(channels=(96, 96, 96), blocks=2, code_width=64, patch=4),  # trains in minutes
}
