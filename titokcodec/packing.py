"""Tokens of a picture <-> the bytes of its whole file, for one model. No network runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from titokcodec.errors import CorruptFile, ModelMismatch
from titokcodec.format import bitstream, entropy
from titokcodec.format.canonical import canonical
from titokcodec.format.header import Header
from titokcodec.format.limits import BytesLike
from titokcodec.format.shape import Shape
from titokcodec.weights.releases import by_id, fingerprint_for
from titokcodec.weights.tokenizers import Weights


class Packer:
    """Writes and reads the files of one model.

    Args:
        weights: Its config, fingerprint and entropy tables.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def pack(self, shape: Shape, rows: np.ndarray, grey: bool, budget: int | None = None) -> bytes:
        """The file of a picture.

        Args:
            shape: Its size, grid and number of tokens a tile.
            rows: (tiles, K) tokens below the size of the codebook; those beyond ``shape.tokens`` stay out.
            grey: It is to be decoded without colour.
            budget: Bytes. Of a nested model, more tokens than ``shape.tokens`` are taken in as long as they fit.
        """
        data = self._packed(shape, rows, grey)
        if budget is not None and self.weights.config.nested:
            for tokens in range(shape.tokens + 1, self.weights.config.tokens + 1):
                longer = self._packed(replace(shape, tokens=tokens), rows, grey)
                if len(longer) > budget:
                    break
                data = longer
        return data

    def most(self, shape: Shape, grey: bool) -> int:
        """Bytes that no file of such a picture is longer than: those of a packed one."""
        around = len(bitstream.pack(self._header(shape, grey, 0), b"", self.weights.fingerprint))
        return around + entropy.packed_size(shape.grid.tiles * shape.tokens, self.weights.config.codes)

    def read(self, data: BytesLike, strict: bool, max_pixels: int | None) -> tuple[Header, np.ndarray]:
        """Header and (tiles, K) int64 tokens of a file, every check made before anything large is allocated.

        Args:
            data: A whole file; without ``strict`` also the beginning of one.
            strict: Refuse a file that is damaged or cut short. Otherwise take what has arrived of it.
            max_pixels: Refuse pictures larger than this; None for no limit.

        Raises:
            TitokError: a file is not one, damaged, too large, or made with another model.
        """
        header, offset = bitstream.parse(data)
        needed, config = fingerprint_for(header), self.weights.config
        if needed != self.weights.fingerprint:
            raise mismatch(header, needed, self.weights)
        bitstream.check_pixels(header, max_pixels)
        config.check_depth(header.tokens)
        tiles = header.tiles
        payload = memoryview(data)[offset:]
        try:
            bitstream.verify(data, header, offset, needed)
            return header, entropy.decode(payload, header.mode, tiles, header.tokens, config.codes, self.weights.tables)
        except CorruptFile:
            if strict:
                raise
        rows = entropy.decode_prefix(payload, header.mode, tiles, header.tokens, config.codes, self.weights.tables)
        if not rows.shape[1] or (not config.nested and rows.shape[1] < config.tokens):
            raise CorruptFile("too little of the file has arrived to decode anything: wait for more of it")
        return header, rows

    def _packed(self, shape: Shape, rows: np.ndarray, grey: bool) -> bytes:
        mode, payload = entropy.encode(rows[:, : shape.tokens], self.weights.config.codes, self.weights.tables)
        return bitstream.pack(self._header(shape, grey, mode), payload, self.weights.fingerprint)

    def _header(self, shape: Shape, grey: bool, mode: int) -> Header:
        own, nested = self.weights.fingerprint, self.weights.config.nested
        grid = None if shape.layout == "fit" else shape.grid
        asked = Header(shape.width, shape.height, shape.tokens, shape.layout, grey, nested, mode, 0, own, grid)
        return canonical(asked, own)


def mismatch(header: Header, needed: bytes, weights: Weights) -> ModelMismatch:
    """The error for a file whose model is not the one at hand."""
    if header.model_id:
        which = f"the released model {by_id(header.model_id).name!r}"
    else:
        which = f"the custom model with fingerprint {needed.hex()}"
    return ModelMismatch(
        f"the file needs {which}, but this is {weights.name!r} ({weights.fingerprint.hex()}): "
        "give that one's weight file (--model FILE, or Codec.from_pretrained(FILE))"
    )
