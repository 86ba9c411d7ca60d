"""What titok makes of the pictures of a benchmark: whole files at several numbers of tokens, decoded again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

import titokcodec
from bench.measure import Drawn, Key
from titokcodec import Codec, entropy
from titokcodec.geometry import TILE

TOKENS = (32, 48, 64, 96, 128)
WORD = 4  # bytes
BATCH = 16  # pictures compressed together


@dataclass(frozen=True)
class Entrant:
    """A model that takes part.

    Attributes:
        codec: The model at work.
        name: Of the model; no two that take part have the same.
        layouts: How pictures are laid on tiles; of several each is a method by itself.
        effort: Steps of the search for tokens; None as when compressing.
        tokens: The numbers of tokens a tile to take, besides the model's fewest and most.
    """

    codec: Codec
    name: str
    layouts: tuple[str, ...] = ("auto",)
    effort: int | None = None
    tokens: tuple[int, ...] = TOKENS

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of tokens a tile: those of ``tokens`` that the model takes, and its fewest and most."""
        config = self.codec.weights.config
        if not config.nested:
            return (config.tokens,)
        usual = {count for count in self.tokens if config.min_tokens <= count <= config.tokens}
        return tuple(sorted(usual | {config.min_tokens, config.tokens}))

    def method(self, layout: str) -> str:
        """Name of a method's files."""
        stem = f"titok-{slug(self.name)}"
        return stem if layout == "auto" else f"{stem}-{layout}"

    @property
    def keys(self) -> list[Key]:
        """Every point of every method."""
        return [(self.method(layout), label(count)) for layout in self.layouts for count in self.counts]

    def ceiling(self, count: int) -> int:
        """Bytes that no file of one tile exceeds, entropy coding or not, rounded up to words in the rivals' favour."""
        data = self.codec.write(torch.zeros(1, count, dtype=torch.long), TILE, TILE)
        around = len(data) - titokcodec.info(data).payload
        return -(-(around + entropy.packed_size(count, self.codec.weights.config.codes)) // WORD) * WORD

    def draw(self, pictures: Sequence[Image.Image]) -> Iterator[dict[Key, Drawn]]:
        """For each picture its files and what they decode to, compressed in batches."""
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            found: list[dict[Key, Drawn]] = [{} for _ in batch]
            for layout in self.layouts:
                longest = self.codec.compress_batch(batch, layout=layout, effort=self.effort)
                for count in self.counts:
                    files = [self._truncated(data, count) for data in longest]
                    for own, data, picture in zip(found, files, self.codec.decompress_batch(files), strict=True):
                        payload = titokcodec.info(data).payload
                        own[self.method(layout), label(count)] = Drawn(data, payload, picture.convert("RGB"))
            yield from found

    def _truncated(self, data: bytes, count: int) -> bytes:
        """The file with ``count`` tokens a tile, which equals what compressing to so many gives."""
        if count == self.codec.weights.config.tokens:
            return data
        return titokcodec.truncate(data, count, model=self.codec.weights.path)


def entrants(codecs: Sequence[Codec], layouts: tuple[str, ...] = ("auto",), effort: int | None = None,
             tokens: Sequence[int] = TOKENS) -> list[Entrant]:  # fmt: skip
    """Models of one name are told apart by their fingerprints; one that is given twice takes part once."""
    codecs = list({codec.weights.fingerprint: codec for codec in codecs}.values())
    names = [codec.weights.name for codec in codecs]
    slugs = list(map(slug, names))
    told = [f"{name} {codec.weights.fingerprint.hex()[:6]}" if slugs.count(own) > 1 else name
            for name, own, codec in zip(names, slugs, codecs, strict=True)]  # fmt: skip
    return [Entrant(codec, name, layouts, effort, tuple(tokens)) for codec, name in zip(codecs, told, strict=True)]


def label(count: int) -> str:
    """Of a point of titok's."""
    return f"{count} tokens"


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", Path(name).name.lower().removesuffix(".safetensors")).strip("-") or "model"
