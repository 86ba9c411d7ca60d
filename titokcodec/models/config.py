"""What a TiTok model looks like: one frozen dataclass that travels as JSON inside its weight file.

Sizes follow "An Image is Worth 32 Tokens for Reconstruction and Generation" (Yu et al. 2024), section 3 and table 7
of its appendix; ``default`` is this project's own.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from titokcodec.checks import whole
from titokcodec.errors import TitokError, WeightsError
from titokcodec.format.limits import MAX_TOKENS, TILE
from titokcodec.models.validation import check_fields, check_types, parse_json, require

HEADS = ("upsampler", "pixels", "proxy", "refiner")
PROXY_CODES = 1024  # codes of the MaskGIT-VQGAN, the 2D tokenizer that legacy models were taught by
MAX_LAYERS = 256
SKETCH = 64  # pixels along a side of what the linear decoder gives
LOW = 32  # frequencies along one side that a spectrum may keep, see titokcodec.models.linear
LARGEST_SPECTRUM = 3 * LOW**2  # of three colours
LARGEST_COMPONENTS = 2048  # float16, as weight files have vectors in, has all whole numbers up to it
REFINED = (SKETCH, 2 * SKETCH, 4 * SKETCH)  # sides of what the refiner can make of it
# Fields that older files lack; at their defaults, they are left out of new ones too.
LATER = ("spectrum", "codebooks", "components", "detail_width", "detail_blocks")


@dataclass(frozen=True)
class Tower:
    """Width, depth and heads of one vision transformer."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class TiTokConfig:
    """Architecture of one tokenizer.

    Attributes:
        encoder, decoder: The two transformers.
        tokens: K, latent tokens a picture.
        codes: N, entries of the codebook.
        code_width: Width of one codebook entry.
        image_size: Side of the square picture in pixels.
        patch_size: Side in pixels of the patches that the encoder reads and of the cells that the decoder gives.
        pool: The encoder averages pool x pool pixels before it cuts patches; it saves work on detail that no code
            could hold anyway.
        l2_normalised: Codes and latents live on the unit sphere.
        head: What turns decoder cells into pixels: ``refiner`` (ours: convolutions over cells and the linear sketch,
            then finer and finer grids), ``upsampler`` (ours, earlier: convolutions on a finer grid, then sub-pixels),
            ``pixels`` (published one-stage models) or ``proxy`` (published two-stage models: soft MaskGIT-VQGAN codes).
        head_width, head_blocks, head_grid: Channels, residual blocks and grid side of the refiner or upsampler.
        nested: Every prefix of the tokens is a picture (One-D-Piece's tail drop).
        min_tokens: The shortest prefix that the model was trained for; equals ``tokens`` unless nested.
        legacy: The encoder mixes tokens and channels in a reshape, as the first published weights were trained with.
        spectrum: Low frequencies of the picture that linear paths beside both transformers work with
            (``titokcodec.models.linear``); 0: there are none.
        codebooks: Codebooks of ``codes`` entries each; consecutive tokens share one.
        components: Directions of the spectrum that tokens describe. An entry of a code belongs to one of them, several
            entries to the same one: the tokens of each codebook describe the residual of those of the codebooks before.
            0: every entry has a direction of its own.
        detail_width: Channels at 64 x 64 of the refiner's fine detail, with a residual block there; half
            and a third of them at 128 and 256. 0: a third, a sixth and an eighth of ``head_width``, without the block.
        detail_blocks: Grids that have such a residual block: 1: that of 64 x 64; 2: that of 128 as well; 3: all.
    """

    encoder: Tower
    decoder: Tower
    tokens: int
    codes: int = 4096
    code_width: int = 12
    image_size: int = TILE
    patch_size: int = 16
    pool: int = 1
    l2_normalised: bool = True
    head: str = "upsampler"
    head_width: int = 64
    head_blocks: int = 2
    head_grid: int = 32
    nested: bool = False
    min_tokens: int = 0
    legacy: bool = False
    spectrum: int = 0
    codebooks: int = 1
    components: int = 0
    detail_width: int = 0
    detail_blocks: int = 1

    def __post_init__(self) -> None:
        if not self.min_tokens:
            object.__setattr__(self, "min_tokens", self.tokens)
        check_types(self)
        for name, tower in (("encoder", self.encoder), ("decoder", self.decoder)):
            check_types(tower)
            require(tower.width % tower.heads == 0, f"{name} width {tower.width} is not a multiple of its heads")
            require(tower.width % 4 == 0 and tower.layers <= MAX_LAYERS, f"{name} {tower} is out of range")
        require(self.head in HEADS, f"head {reprlib.repr(self.head)} is none of {', '.join(HEADS)}")
        require(self.codes >= 2, "a codebook needs two codes or more")
        require(self.head_blocks <= MAX_LAYERS, f"head_blocks is {self.head_blocks}")
        require(
            1 <= self.min_tokens <= self.tokens <= MAX_TOKENS,
            "tokens must be 1 to 256 and min_tokens at most that",
        )
        require(self.nested or self.min_tokens == self.tokens, "only a nested model takes fewer tokens")
        require(self.image_size % self.patch_size == 0, "the patch size must divide the image size")
        require(self.patch_size % self.pool == 0, "the pooling must divide the patch size")
        require(self.spectrum <= LARGEST_SPECTRUM, f"spectrum is {self.spectrum}, more than {LARGEST_SPECTRUM}")
        require(self.tokens % self.codebooks == 0, f"{self.codebooks} codebooks cannot share {self.tokens} tokens")
        require(not (self.spectrum and (self.l2_normalised or self.legacy)), "linear paths want codes of any length")
        require(self.codebooks == 1 or self.spectrum > 0, "several codebooks want linear paths")
        fits = self.components <= min(self.spectrum, LARGEST_COMPONENTS)
        require(fits, f"components are {self.components}, more than the spectrum or {LARGEST_COMPONENTS}")
        require((self.head == "refiner") == (self.spectrum > 0), "linear paths and the head 'refiner' go together")
        require(self.detail_width != 1 and self.detail_width != 2, "detail_width must be 3 or more, or 0")
        require(self.head == "refiner" or not self.detail_width, "only the head 'refiner' has a detail_width")
        most = len(REFINED) if self.detail_width else 1
        without = "" if self.detail_width else ", without a detail_width"
        require(self.detail_blocks <= most, f"detail_blocks is {self.detail_blocks}, more than {most}{without}")
        if self.head == "refiner":
            sides = ", ".join(map(str, REFINED))
            require(self.image_size in REFINED, f"the head 'refiner' makes pictures of {sides} pixels a side")
            require(SKETCH % self.grid == 0, f"a sketch of {SKETCH} pixels wants a grid that divides it")
            fits = SKETCH % self.head_grid == 0 and self.head_grid % self.grid == 0
            require(fits, f"head_grid {self.head_grid} must be a multiple of {self.grid} and divide {SKETCH}")
        if self.head == "upsampler":
            fits = self.head_grid % self.grid == 0 and self.image_size % self.head_grid == 0
            require(fits, f"head_grid {self.head_grid} must be a multiple of {self.grid} and divide the image size")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    def check_count(self, count: int) -> None:
        """Raise ``TitokError`` unless the model was trained to write ``count`` tokens."""
        if not self.min_tokens <= count <= self.tokens:
            span = f"{self.min_tokens} to {self.tokens}" if self.nested else f"exactly {self.tokens}"
            raise TitokError(f"this model takes {span} tokens, not {count}")

    def token_count(self, asked: int | None) -> int:
        """How many tokens to write: those that are asked for, or all. Raises ``TitokError`` like ``check_count``."""
        if asked is None:
            return self.tokens
        count = whole("tokens", asked)
        self.check_count(count)
        return count

    def check_depth(self, tokens: int) -> None:
        """Raise ``TitokError`` unless the model decodes ``tokens`` tokens.

        Decoding is freer than encoding: a nested model decodes any prefix, as a file that is still arriving needs.
        """
        if tokens > self.tokens or not self.nested:
            self.check_count(tokens)

    def to_json(self) -> str:
        """Canonical text: equal configs give equal bytes, so that fingerprints may hash it."""
        values = asdict(self)
        for name in LATER:
            if values[name] == _DEFAULTS[name]:
                del values[name]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> TiTokConfig:
        """Inverse of ``to_json``. Raises ``WeightsError`` for anything but a complete, sensible config."""
        values = parse_json(text)
        check_fields(values, cls, "it", LATER)  # a default may change, a weight file may not
        for side in ("encoder", "decoder"):
            check_fields(values[side], Tower, side)
            values[side] = Tower(**values[side])
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(TiTokConfig)}


SMALL, BASE, LARGE = Tower(512, 8, 8), Tower(768, 12, 12), Tower(1024, 24, 16)

_LEGACY: dict[str, Any] = {"head": "proxy", "legacy": True}
_ONE_STAGE: dict[str, Any] = {"head": "pixels", "codes": 8192, "code_width": 64, "l2_normalised": False}

PRESETS: dict[str, TiTokConfig] = {
    "titok_l32": TiTokConfig(LARGE, LARGE, 32, **_LEGACY),
    "titok_b64": TiTokConfig(BASE, BASE, 64, **_LEGACY),
    "titok_s128": TiTokConfig(SMALL, SMALL, 128, **_LEGACY),
    "titok_bl64": TiTokConfig(BASE, LARGE, 64, **_ONE_STAGE),
    "titok_bl128": TiTokConfig(BASE, LARGE, 128, **_ONE_STAGE),
    "titok_sl256": TiTokConfig(SMALL, LARGE, 256, **_ONE_STAGE),
    "default_large": TiTokConfig(  # as much as 24 MB hold, for training on an accelerator
        Tower(320, 4, 5), Tower(384, 8, 6), 128, head_width=96, head_blocks=3, head_grid=64, nested=True, min_tokens=32
    ),
    "default_2": TiTokConfig(  # what came before linear paths
        Tower(256, 4, 4), Tower(256, 6, 4), 128, patch_size=32, pool=2, nested=True, min_tokens=32
    ),
    "default": TiTokConfig(
        Tower(256, 3, 4),
        Tower(320, 6, 5),
        128,
        patch_size=32,
        pool=2,
        nested=True,
        min_tokens=32,
        l2_normalised=False,
        head="refiner",
        head_width=96,
        head_blocks=8,
        spectrum=896,
        codebooks=4,
        components=832,
        code_width=24,
        detail_width=64,
        detail_blocks=2,
    ),
}


def preset(name: str, **changes: Any) -> TiTokConfig:
    """The named preset, with some fields replaced. Raises ``WeightsError`` for an unknown name."""
    if name not in PRESETS:
        raise WeightsError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
