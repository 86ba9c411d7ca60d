"""Tiles to tokens and back, with one network on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch

from titokcodec.errors import WeightsError
from titokcodec.format.layout import Grid, Plan, plan
from titokcodec.format.limits import TILE
from titokcodec.models.tokenizer import TiTok
from titokcodec.pictures import geometry
from titokcodec.pictures.batches import TileChunk, compose, rebatch
from titokcodec.runtime.acceleration import Accelerated, AcceleratedEncoder
from titokcodec.runtime.devices import choose_batch_size
from titokcodec.runtime.isolation import isolated
from titokcodec.runtime.pixels import RangeCheck, as_pixels, unit
from titokcodec.runtime.tokens import in_range, shaped
from titokcodec.runtime.transfer import one_ahead, to_device
from titokcodec.search import check_steps, search
from titokcodec.weights import tokenizers

MOST_SEARCHED = 64  # tiles at a time: some 150 MB each in float32


class TileCodec:
    """The network of a ``Codec``, on tensors and canvases; see there for the attributes."""

    def __init__(
        self,
        opened: tokenizers.Weights,
        model: TiTok,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int | None = None,
    ) -> None:
        if opened.config.image_size != TILE:
            side = opened.config.image_size
            raise WeightsError(f"files hold tiles of {TILE} pixels, but this model makes pictures of {side}")
        self.weights, self.device, self.dtype = opened, device, dtype
        self.batch_size = choose_batch_size(device, batch_size)
        channels_last: Any = {"memory_format": torch.channels_last}  # which torch's own annotations lack
        self.model: TiTok = model.to(device=device, dtype=dtype, **channels_last)
        self.model.keep_exact()
        self.encoder: Callable[[torch.Tensor, int], torch.Tensor] = self.model.encode
        self.decoder: Callable[[torch.Tensor], torch.Tensor] = self.model.decode
        self._check_range = RangeCheck()

    def compile(self, *, kernels: bool = True) -> None:
        """Make ``encode`` and ``decode``, and all that goes through them, faster for many calls of few shapes.

        On CUDA, passes are recorded as graphs; the first call at a shape pays for it. Searches go on as they are.

        Args:
            kernels: Fuse kernels by ``torch.compile`` too: tens of seconds for each new shape, and on a CPU a C++
                compiler.
        """
        self.encoder = AcceleratedEncoder(self.model.encode, self.device, kernels)
        self.decoder = Accelerated(self.model.decode, self.device, kernels)

    def encode(self, pixels: torch.Tensor, tokens: int | None = None, *, effort: int = 0) -> torch.Tensor:
        """Pixels to tokens.

        Args:
            pixels: (B, 3, 256, 256) float in [0, 1], RGB; or uint8 in 0..255. Floats may overshoot by a quarter, as
                resampling does, and are clamped. Of those in CUDA memory, the first call's are checked at
                once, and later ones in the next call, so that the host need not wait for the device.
            tokens: How many; None for all. A shorter answer is a prefix of a longer one.
            effort: Steps of a search for better tokens, see ``titokcodec.search``: more take longer, and none leaves
                the encoder's own.

        Returns:
            (B, tokens) int64 on the codec's device.

        Raises:
            TitokError: wrong shape, type or range of pixels, or a number of tokens that the model was not trained for.
        """
        pixels = as_pixels(pixels, TILE)
        count, steps = self.weights.config.token_count(tokens), check_steps(effort)
        with isolated(self.device):
            self._check_range(pixels)
            return _joined([self._encode_batch(batch, count, steps) for batch in pixels.split(self._together(steps))])

    def _together(self, steps: int) -> int:
        """How many tiles are encoded in one pass.

        On a CPU a search takes one at a time, which is no slower and needs a fraction of the memory; and so does
        bfloat16 even without one. Its kernels round otherwise in batches of another size, and a picture's tokens would
        depend on what else is compressed.
        """
        if self.device.type == "cpu" and (steps or self.dtype == torch.bfloat16):
            return 1
        return min(self.batch_size, MOST_SEARCHED) if steps else self.batch_size

    def _encode_batch(self, pixels: torch.Tensor, tokens: int, steps: int) -> torch.Tensor:
        pixels = unit(pixels.to(self.device))
        return search(self.model, pixels, tokens, steps) if steps else self.encoder(pixels, tokens)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens to pixels.

        Args:
            tokens: (B, K) integers below the size of the codebook; K may be less than the model's if it is nested.

        Returns:
            (B, 3, 256, 256) float32 in [0, 1] on the codec's device.

        Raises:
            TitokError: wrong shape, type, number or values of tokens.
        """
        tokens = self.check_tokens(tokens)
        if not len(tokens):
            return torch.empty(0, 3, TILE, TILE, dtype=torch.float32, device=self.device)
        with isolated(self.device):
            return _joined([self.decoder(batch) for batch in to_device(tokens, self.device).split(self.batch_size)])

    def encode_canvas(self, canvas: np.ndarray, grid: Grid, effort: int) -> np.ndarray:
        """An (H, W, 3) uint8 canvas of the grid's size to (tiles, K) int64, all tokens of all of its tiles."""
        tokens = self.weights.config.tokens
        batches = geometry.cut_batches(canvas, plan(grid), self.batch_size)
        chunks = (TileChunk.alike(tiles, tokens, effort) for tiles in batches)
        return np.concatenate(list(one_ahead(self.encode_chunk(chunk) for chunk in chunks)))

    def decode_canvas(self, grid: Grid, rows: np.ndarray) -> np.ndarray:
        """(tiles, K) tokens to the (H, W, 3) uint8 canvas of the grid."""
        return next(self.decode_canvases([plan(grid)], [rows]))

    def decode_canvases(self, plans: list[Plan], files: list[np.ndarray]) -> Iterator[np.ndarray]:
        """(tiles, K) tokens of many pictures to their (H, W, 3) uint8 canvases; pictures share the forward passes.

        Tokens are not checked again: those of a file have been in reading it.
        """
        return compose(plans, one_ahead(self._decode_rows(files)))

    def check_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens as int64. Raises ``TitokError`` unless the model can decode them."""
        tokens = shaped(tokens)
        self.weights.config.check_depth(tokens.shape[1])
        return in_range(tokens, self.weights.config.codes)

    def encode_chunk(self, chunk: TileChunk) -> torch.Tensor:
        """(n, K) tokens: as many for each tile as are asked for, then zeros."""
        pixels = to_device(chunk.tiles, self.device).permute(0, 3, 1, 2)
        rows = torch.zeros(len(chunk.tiles), self.weights.config.tokens, dtype=torch.long, device=self.device)
        for tokens, effort in sorted({*zip(chunk.tokens.tolist(), chunk.effort.tolist(), strict=True)}):
            alike = np.flatnonzero((chunk.tokens == tokens) & (chunk.effort == effort))
            # Pinned: a list as an index would be copied by a host that waits for all the work it has given out.
            where = to_device(alike, self.device)
            rows[where, :tokens] = self.encode(pixels[where], tokens, effort=effort)
        return rows

    def _decode_rows(self, files: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """(tiles, K) tokens of many files -> (n, 256, 256, 3) uint8 tiles of all of them, in order."""
        for _, alike in groupby(files, key=lambda rows: rows.shape[1]):
            for rows in rebatch(alike, self.batch_size):
                with isolated(self.device):
                    pixels = self.decoder(to_device(rows, self.device))
                yield (pixels * 255).round_().byte().permute(0, 2, 3, 1).contiguous()


def _joined(batches: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(batches) if len(batches) > 1 else batches[0]
