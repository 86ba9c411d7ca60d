"""What titok makes of the pictures of a benchmark, decoded again: whole files of several numbers of tokens or bytes.

Files of so many tokens a tile are cut from the longest one, and each layout is a method; files of so many bytes are
made for each number anew, and are a method by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import titokcodec
from titokcodec import Codec
from titokcodec.format import entropy
from titokcodec.pictures.geometry import TILE
from titokcodec.pictures.images import Source

from .measure import Decoded, Key

TOKENS = (32, 48, 64, 96, 128)
WORD = 4  # bytes
BATCH = 16  # pictures compressed together
TARGET = "target"  # the way to compress that takes bytes: the codec chooses scale, layout and tokens


@dataclass(frozen=True)
class Entrant:
    """A model that takes part.

    Attributes:
        codec: The model at work.
        name: Of the model; no two that take part have the same.
        layouts: How pictures are laid on tiles when tokens are given; of several each is a method by itself.
        effort: Steps of the search for tokens; None as when compressing.
        tokens: The numbers of tokens a tile to take, besides the model's fewest and most.
        targets: The numbers of bytes to make files for.
        max_side: Pixels of the longer side of what files are decoded to, at most; None for their own size.
    """

    codec: Codec
    name: str
    layouts: tuple[str, ...] = ("auto",)
    effort: int | None = None
    tokens: tuple[int, ...] = TOKENS
    targets: tuple[int, ...] = ()
    max_side: int | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of tokens a tile: those of ``tokens`` that the model takes, and its fewest and most."""
        config = self.codec.weights.config
        if not config.nested:
            return (config.tokens,)
        usual = {count for count in self.tokens if config.min_tokens <= count <= config.tokens}
        return tuple(sorted(usual | {config.min_tokens, config.tokens}))

    @property
    def ways(self) -> tuple[str, ...]:
        """How pictures are compressed, a method each: the layouts, and ``target`` where there are any."""
        return (*self.layouts, *([TARGET] if self.targets else []))

    def points(self, way: str) -> dict[int, str]:
        """The numbers of tokens, or of bytes, of a way and the labels of their points, rising."""
        if way == TARGET:
            return {target: f"{target} bytes" for target in sorted(set(self.targets))}
        return {count: token_label(count) for count in self.counts}

    def method(self, way: str) -> str:
        """Name of a method's files."""
        stem = f"titok-{slug(self.name)}"
        return stem if way == "auto" else f"{stem}-{way}"

    def ceiling(self, count: int) -> int:
        """Bytes that no file of one tile exceeds, entropy coding or not, rounded up to words in the rivals' favour."""
        data = self.codec.write(torch.zeros(1, count, dtype=torch.long), TILE, TILE)
        around = len(data) - titokcodec.info(data).payload
        return -(-(around + entropy.packed_size(count, self.codec.weights.config.codes)) // WORD) * WORD

    def files(self, pictures: Sequence[Source]) -> Iterator[dict[Key, Decoded]]:
        """For each picture its files and what they decode to, compressed in batches."""
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            found: list[dict[Key, Decoded]] = [{} for _ in batch]
            for way in self.ways:
                for label, files in self._files(batch, way):
                    for own, data, picture in zip(found, files, self.decoded(files), strict=True):
                        own[self.method(way), label] = Decoded(data, titokcodec.info(data).payload, picture)
            yield from found

    def decoded(self, files: Sequence[bytes]) -> list[Image.Image]:
        """What files show, in RGB."""
        return [shown.convert("RGB") for shown in self.codec.decompress_batch(files, max_side=self.max_side)]

    def _files(self, pictures: Sequence[Source], way: str) -> Iterator[tuple[str, list[bytes]]]:
        """The label of each point of a way, and the pictures' files."""
        if way == TARGET:
            for target, label in self.points(way).items():
                yield label, self.codec.compress_batch(pictures, target_bytes=target, effort=self.effort)
            return
        longest = self.codec.compress_batch(pictures, layout=way, effort=self.effort)
        for count, label in self.points(way).items():
            yield label, [self._truncated(data, count) for data in longest]

    def _truncated(self, data: bytes, count: int) -> bytes:
        """The file with ``count`` tokens a tile, which equals what compressing to so many gives."""
        if count == self.codec.weights.config.tokens:
            return data
        return titokcodec.truncate(data, count, model=self.codec.weights.path)


def entrants(codecs: Sequence[Codec], **settings: Any) -> list[Entrant]:
    """Models with the same settings of ``Entrant``.

    Those of one name get their fingerprints added; one that is given twice takes part once.
    """
    codecs = list({codec.weights.fingerprint: codec for codec in codecs}.values())
    names = [codec.weights.name for codec in codecs]
    slugs = list(map(slug, names))
    unique = [
        f"{name} {codec.weights.fingerprint.hex()[:6]}" if slugs.count(own) > 1 else name
        for name, own, codec in zip(names, slugs, codecs, strict=True)
    ]
    return [Entrant(codec, name, **settings) for codec, name in zip(codecs, unique, strict=True)]


def token_label(count: int) -> str:
    """Of a point of so many tokens a tile."""
    return f"{count} tokens"


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", Path(name).name.lower().removesuffix(".safetensors")).strip("-") or "model"
