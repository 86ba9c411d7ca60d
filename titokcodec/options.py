"""The options of compressing and decompressing: listed and checked in one place, and shown by every signature.

Functions take them as ``**options: Unpack[CompressOptions]``, which type checkers know by name and type; ``lists``
gives such a function a signature of plain keywords with their defaults, for ``help`` and editors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from inspect import Parameter, signature
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, get_args

from titokcodec.checks import whole_or_none
from titokcodec.errors import TitokError
from titokcodec.format.layout import Grid
from titokcodec.format.limits import DEFAULT_MAX_PIXELS
from titokcodec.format.shape import scaled
from titokcodec.models.config import TiTokConfig
from titokcodec.pictures import images
from titokcodec.search import check_steps, default_steps
from titokcodec.target import Target

Layout: TypeAlias = Literal["auto", "fit", "tile"]
Function = TypeVar("Function", bound=Callable[..., Any])


class CompressOptions(TypedDict, total=False):
    """Keywords of ``Codec.compress_batch``, which describes them. Defaults are those of ``CompressSettings``."""

    tokens: int | None
    layout: str
    max_side: int | None
    target_bytes: int | None
    target_psnr: float | None
    target_lpips: float | None
    lpips: str | os.PathLike[str] | None
    effort: int | None
    background: str
    max_pixels: int | None
    frame: int | None
    white: float | None


class DecompressOptions(TypedDict, total=False):
    """Keywords of ``Codec.decompress_batch``, which describes them. Defaults are those of ``DecompressSettings``."""

    strict: bool
    max_pixels: int | None
    max_side: int | None


@dataclass(frozen=True)
class CompressSettings:
    """All of ``CompressOptions``, checked.

    Raises:
        TitokError: one of them makes no sense, whatever the pictures and the model are.
    """

    tokens: int | None = None
    layout: str = "auto"
    max_side: int | None = None
    target_bytes: int | None = None
    target_psnr: float | None = None
    target_lpips: float | None = None
    lpips: str | os.PathLike[str] | None = None
    effort: int | None = None
    background: str = "white"
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    frame: int | None = None
    white: float | None = None

    def __post_init__(self) -> None:
        self.target.check_tokens(self.tokens)
        whole_or_none("tokens", self.tokens)
        if self.effort is not None:
            check_steps(self.effort)
        if self.layout not in get_args(Layout):
            raise TitokError(f"layout {self.layout!r} is unknown; use 'auto', 'fit' or 'tile'")
        whole_or_none("max_side", self.max_side, 1)
        images.check_options(self.background, self.max_pixels, self.frame, self.white)

    @cached_property
    def target(self) -> Target:
        """Size or quality that a file shall have, if any."""
        return Target(self.target_bytes, self.target_psnr, self.target_lpips, self.lpips)

    def load(self, source: images.Source) -> images.Picture:
        """A picture, read as the options ask."""
        return images.load(
            source, background=self.background, max_pixels=self.max_pixels, frame=self.frame, white=self.white
        )

    def size(self, picture: images.Picture) -> tuple[int, int]:
        """Width and height that the picture's file will have."""
        height, width = picture.pixels.shape[:2]
        return scaled(width, height, self.max_side)

    def steps(self, config: TiTokConfig, grid: Grid) -> int:
        """Steps of the search for the tokens of a picture on this grid."""
        return default_steps(config, grid.tiles) if self.effort is None else self.effort


@dataclass(frozen=True)
class DecompressSettings:
    """All of ``DecompressOptions``, checked. Raises ``TitokError`` if one of them makes no sense."""

    strict: bool = True
    max_pixels: int | None = DEFAULT_MAX_PIXELS
    max_side: int | None = None

    def __post_init__(self) -> None:
        whole_or_none("max_pixels", self.max_pixels, 0)
        whole_or_none("max_side", self.max_side, 1)


Settings = TypeVar("Settings", CompressSettings, DecompressSettings)


def checked(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """The settings that a caller's keywords ask for.

    Raises:
        TypeError: there is no such option, as Python has it for any wrong keyword.
        TitokError: one of them makes no sense.
    """
    names = [field.name for field in fields(kind)]
    for name in options:
        if name not in names:
            raise TypeError(f"there is no option {name!r}: there are {', '.join(names)}")
    return kind(**options)


def lists(settings: type) -> Callable[[Function], Function]:
    """Decorates a function of ``**options``: its signature lists every field of a dataclass of settings instead."""

    def decorate(function: Function) -> Function:
        bare = signature(function)
        own = [parameter for parameter in bare.parameters.values() if parameter.kind != Parameter.VAR_KEYWORD]
        positional = [parameter for parameter in own if parameter.kind != Parameter.KEYWORD_ONLY]
        options = [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for field in fields(settings)
        ]
        listed = [*positional, *options, *(parameter for parameter in own if parameter not in positional)]
        function.__signature__ = bare.replace(parameters=listed)  # type: ignore[attr-defined]
        return function

    return decorate
