"""The codec: picture <-> tiles <-> tensor <-> tokens <-> bytes."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from PIL import Image

from titokcodec import geometry, images, weights
from titokcodec.acceleration import accelerated
from titokcodec.batches import paint, rebatch
from titokcodec.bitstream import DEFAULT_MAX_PIXELS, BytesLike
from titokcodec.budget import Choice, choose, scaled
from titokcodec.devices import choose_device, choose_dtype
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.tokenizer import TiTok
from titokcodec.packing import Packer
from titokcodec.search import MOST_STEPS, NEWTON_STEPS, default_steps, search
from titokcodec.tokens import in_range, shaped
from titokcodec.transfer import one_ahead, to_device


@dataclass(frozen=True)
class _Job:
    """A picture on its way through the encoder: everything but its pixels."""

    shape: Choice
    tiles: int
    grey: bool
    budget: int | None
    effort: int

    def wish(self, most: int) -> tuple[int, int]:
        """How many tokens of every tile are wanted, and with how much effort: with a budget, all that may fit."""
        return self.shape.tokens if self.budget is None else most, self.effort


class Codec:
    """A network with everything around it. Make one with ``from_pretrained`` and use it for any number of pictures.

    Attributes:
        weights: Name, config, fingerprint and entropy tables of the model.
        device, dtype: Where and in which precision the network runs.
        batch_size: Tiles in one forward pass.
    """

    def __init__(
        self, opened: weights.Weights, model: TiTok, device: torch.device, dtype: torch.dtype, batch_size: int = 16
    ) -> None:
        if opened.config.image_size != geometry.TILE:
            drawn = opened.config.image_size
            raise WeightsError(f"files hold tiles of {geometry.TILE} pixels, but this model draws {drawn}")
        if batch_size < 1:
            raise TitokError(f"batch_size is {batch_size}: give 1 or more")
        self.weights, self.device, self.dtype, self.batch_size = opened, device, dtype, batch_size
        self._packer = Packer(opened)
        self.model = model.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.model.keep_exact()

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike | None = None, *, device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto", batch_size: int = 16,
    ) -> Codec:
        """Load a model.

        Args:
            source: None for the bundled model, a weight file or folder, or ``hub:org/name``.
            device: ``auto`` takes CUDA, then MPS, then the CPU.
            dtype: ``auto``, ``bf16`` or ``fp32``.
            batch_size: Tiles in one forward pass.

        Raises:
            TitokError: the weights or the device cannot be had.
        """
        chosen = choose_device(device)
        with torch.inference_mode(False):  # weights loaded in inference mode could never be searched through
            opened = weights.read(source)
            return cls(opened, weights.build(opened), chosen, choose_dtype(chosen, dtype), batch_size)

    def compile(self, *, kernels: bool = True) -> None:
        """Make ``encode`` and ``decode``, and all that goes through them, faster for many calls of few shapes.

        On CUDA, passes are recorded as graphs; the first call at a shape pays for it. Searches go on as they are.

        Args:
            kernels: Fuse kernels by ``torch.compile`` too: tens of seconds for each new shape, and on a CPU a C++
                compiler.
        """
        encode = accelerated(self.model.encode, self.device, kernels)
        self._encode = lambda pixels, tokens: encode(pixels)[:, :tokens]  # one recording for all numbers of tokens
        self._decode = accelerated(self.model.decode, self.device, kernels)

    def encode(self, pixels: torch.Tensor, tokens: int | None = None, *, effort: int = 0) -> torch.Tensor:
        """Pixels to tokens.

        Args:
            pixels: (B, 3, 256, 256) float in [0, 1], RGB; or uint8 in 0..255.
            tokens: How many; None for all. A shorter answer is a prefix of a longer one.
            effort: Steps of a search for better tokens, see ``titokcodec.search``: more take longer, and none leaves
                the encoder's own.

        Returns:
            (B, tokens) int64 on the codec's device.

        Raises:
            TitokError: wrong shape or type, or a number of tokens that the model was not trained for.
        """
        side = geometry.TILE
        if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
            raise TitokError(f"takes pixels of shape (B, 3, {side}, {side}), not {tuple(pixels.shape)}")
        if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
            raise TitokError(f"takes float pixels in [0, 1] or uint8 in 0..255, not {pixels.dtype}")
        count, steps = self._count(tokens), self._steps(effort, 1)
        with torch.inference_mode():
            moved = pixels.to(self.device)
            moved = moved.float() / 255 if pixels.dtype == torch.uint8 else moved.float()
            return search(self.model, moved, count, steps) if steps else self._encode(moved, count)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens to pixels.

        Args:
            tokens: (B, K) integers below the size of the codebook; K may be less than the model's if it is nested.

        Returns:
            (B, 3, 256, 256) float32 in [0, 1] on the codec's device.

        Raises:
            TitokError: wrong shape, type, number or values of tokens.
        """
        tokens = self._checked(tokens)
        with torch.inference_mode():
            return self._decode(to_device(tokens, self.device))

    def write(
        self, tokens: torch.Tensor, width: int = geometry.TILE, height: int = geometry.TILE, *, layout: str = "auto",
        grey: bool = False,
    ) -> bytes:
        """Tokens of one picture, wherever they come from, to the bytes of a ``.titok`` file; no network runs.

        Args:
            tokens: (tiles, K) integers below the size of the codebook; K may be less than the model's if it is nested.
            width, height: Size of the picture in pixels. Up to 320 each, one tile holds it.
            layout: ``fit``, ``tile`` or ``auto``, as in ``compress_batch``; it says how many tiles there must be.
            grey: The picture is to be drawn without colour.

        Returns:
            The file, which ``decompress`` draws and ``read`` reads.

        Raises:
            TitokError: wrong shape, type, number or values of tokens, or a size that no file can have.
        """
        tokens = self._checked(tokens)
        layout = geometry.choose_layout(width, height) if layout == "auto" else layout
        tiles = geometry.tile_count(width, height, layout)
        if len(tokens) != tiles:
            raise TitokError(f"a picture of {width}x{height} in layout {layout} has {tiles} tiles, but here are tokens "
                             f"of {len(tokens)}: give (tiles, K)")
        return self._packer.pack(Choice(width, height, layout, tokens.shape[1]), tokens.cpu().numpy(), grey)

    def read(
        self, data: BytesLike, *, strict: bool = True, max_pixels: int | None = DEFAULT_MAX_PIXELS
    ) -> torch.Tensor:
        """The tokens in a file; no network runs.

        Args:
            data: A whole file; with ``strict=False`` also the beginning of one.
            strict: Refuse a file that is damaged or cut short. Otherwise take what has arrived of it.
            max_pixels: Refuse pictures larger than this; None for no limit.

        Returns:
            (tiles, K) int64 on the codec's device. ``titokcodec.info`` tells of the picture's size and layout.

        Raises:
            TitokError: as in ``decompress_batch``.
        """
        return to_device(self._packer.read(data, strict, max_pixels)[1], self.device)

    def compress(self, image: images.Source, **options: object) -> bytes:
        """One picture to the bytes of a ``.titok`` file; see ``compress_batch`` for the options."""
        return self.compress_batch([image], **options)[0]

    def compress_batch(
        self, pictures: Iterable[images.Source], *, tokens: int | None = None, layout: str = "auto",
        max_side: int | None = None, target_bytes: int | None = None, effort: int | None = None,
        background: str = "white", max_pixels: int | None = DEFAULT_MAX_PIXELS,
    ) -> list[bytes]:
        """Pictures of any sizes to files. Tiles of all of them share the forward passes.

        Args:
            pictures: PIL images, uint8 arrays (H, W, 3) or (H, W), paths, open binary files or bytes.
            tokens: Tokens a tile; None for the model's full number.
            layout: ``fit`` squeezes the whole picture into one tile, ``tile`` covers it with tiles of its own
                resolution, ``auto`` fits up to about 256 x 256 and tiles above.
            max_side: Scale the picture down first, so that its longer side is at most this.
            target_bytes: Choose scale, layout and tokens so that no file is longer than this.
            effort: As in ``encode``. None searches for pictures on one tile, unless the architecture is a published
                one, and not for larger pictures.
            background: What transparent pixels are laid on: any colour name that Pillow knows.
            max_pixels: Refuse pictures larger than this; None for no limit.

        Returns:
            One file a picture, in order.

        Raises:
            TitokError: a picture cannot be read or is too large, or the options cannot be met.
        """
        if tokens is not None and target_bytes is not None:
            raise TitokError("give tokens or target_bytes, not both: the target chooses the tokens")
        count = self._count(tokens)
        self._steps(effort, 1)  # before any picture is read
        jobs: list[_Job] = []
        wishes: list[tuple[int, int]] = []  # of the tiles that no network has seen yet

        def tiles() -> Iterator[np.ndarray]:
            for source in pictures:
                picture = images.load(source, background=background, max_pixels=max_pixels)
                shape = self._choose(picture, count, layout, max_side, target_bytes)
                pixels = images.resize(picture.pixels, (shape.width, shape.height))
                plan = geometry.plan(shape.width, shape.height, shape.layout)
                jobs.append(_Job(shape, plan.tiles, picture.grey, target_bytes, self._steps(effort, plan.tiles)))
                wishes.extend([jobs[-1].wish(self.weights.config.tokens)] * plan.tiles)
                for start in range(0, plan.tiles, self.batch_size):
                    yield geometry.cut(pixels, plan, start, min(start + self.batch_size, plan.tiles))

        rows = list(one_ahead(self._encode_tiles(batch, wishes) for batch in rebatch(tiles(), self.batch_size)))
        if not rows:
            return []
        ends = np.cumsum([job.tiles for job in jobs])[:-1]
        return [
            self._packer.pack(job.shape, own, job.grey, job.budget)
            for job, own in zip(jobs, np.split(np.concatenate(rows), ends), strict=True)
        ]

    def decompress(self, data: BytesLike, **options: object) -> Image.Image:
        """The bytes of one file to a picture; see ``decompress_batch`` for the options."""
        return self.decompress_batch([data], **options)[0]

    def decompress_batch(
        self, files: Sequence[BytesLike], *, strict: bool = True, max_pixels: int | None = DEFAULT_MAX_PIXELS,
        max_side: int | None = None,
    ) -> list[Image.Image]:
        """Files to pictures of the sizes that went in, RGB or L.

        Args:
            files: Whole files; with ``strict=False`` also beginnings of files.
            strict: Refuse a file that is damaged or cut short. Otherwise draw what has arrived of it.
            max_pixels: Refuse pictures larger than this; None for no limit.
            max_side: Draw pictures with at most this on their longer side. A fitted picture then never exists in its
                full size; a tiled one is scaled at the end.

        Raises:
            TitokError: a file is not one, damaged, too large, or made with another model.
        """
        opened = [self._packer.read(data, strict, max_pixels) for data in files]
        sizes = [scaled(header.width, header.height, max_side) for header, _ in opened]
        plans = [
            geometry.plan(*(size if header.layout == "fit" else (header.width, header.height)), header.layout)
            for size, (header, _) in zip(sizes, opened, strict=True)
        ]
        painted = paint(plans, one_ahead(self._decode_rows([rows for _, rows in opened])))
        return [
            images.to_image(images.resize(pixels, size), header.grey)
            for pixels, size, (header, _) in zip(painted, sizes, opened, strict=True)
        ]

    def _count(self, tokens: int | None) -> int:
        if tokens is None:
            return self.weights.config.tokens
        try:
            count = operator.index(tokens)  # numpy's integers are welcome
        except TypeError:
            raise TitokError(f"tokens is {tokens!r}: give a whole number") from None
        self.weights.config.check_count(count)
        return count

    def _steps(self, effort: int | None, tiles: int) -> int:
        if effort is None:
            return default_steps(self.weights.config, tiles)
        try:
            steps = operator.index(effort)
        except TypeError:
            steps = -1
        if steps < 0:
            raise TitokError(f"effort is {effort!r}: give a whole number, 0 for no search")
        if steps > MOST_STEPS:
            raise TitokError(f"effort is {effort}: give {MOST_STEPS} at most; little is gained beyond {NEWTON_STEPS}")
        return steps

    def _checked(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = shaped(tokens)
        self._packer.check_depth(tokens.shape[1])
        return in_range(tokens, self.weights.config.codes)

    def _choose(
        self, picture: images.Picture, count: int, layout: str, max_side: int | None, target: int | None
    ) -> Choice:
        height, width = picture.pixels.shape[:2]
        width, height = scaled(width, height, max_side)
        if target is None:
            return Choice(width, height, geometry.choose_layout(width, height) if layout == "auto" else layout, count)

        return choose(
            width, height, layout, target, self.weights.config, lambda shape: self._packer.most(shape, picture.grey)
        )

    def _encode_tiles(self, tiles: np.ndarray, wishes: list[tuple[int, int]]) -> torch.Tensor:
        """(n, K) each tile's tokens, as many as it wishes, and zeros. Takes their wishes off the list's beginning."""
        own, wishes[: len(tiles)] = wishes[: len(tiles)], []
        pixels = to_device(tiles, self.device).permute(0, 3, 1, 2)
        rows = torch.zeros(len(tiles), self.weights.config.tokens, dtype=torch.long, device=self.device)
        for tokens, effort in set(own):
            # A list would be copied to the device by a host that waits for all the work it has given out.
            alike = to_device(np.flatnonzero([wish == (tokens, effort) for wish in own]), self.device)
            rows[alike, :tokens] = self.encode(pixels[alike], tokens, effort=effort)
        return rows

    def _encode(self, pixels: torch.Tensor, tokens: int) -> torch.Tensor:
        """The network, until ``compile`` puts something faster in its place."""
        return self.model.encode(pixels, tokens)

    def _decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Likewise."""
        return self.model.decode(tokens)

    def _decode_rows(self, files: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """(tiles, K) tokens of many files -> (n, 256, 256, 3) uint8 tiles of all of them, in order."""
        for _, alike in groupby(files, key=lambda rows: rows.shape[1]):
            for rows in rebatch(alike, self.batch_size):
                # Tokens are few, and checked on the host: asking the device would wait for it.
                pixels = self.decode(torch.from_numpy(rows))
                yield (pixels * 255).round_().byte().permute(0, 2, 3, 1).contiguous()


@lru_cache(maxsize=1)
def default_codec() -> Codec:
    """The bundled model on the best device, loaded once."""
    return Codec.from_pretrained()


def compress(image: images.Source, **options: object) -> bytes:
    """One picture to ``.titok`` bytes with the bundled model; options as in ``Codec.compress_batch``."""
    return default_codec().compress(image, **options)


def decompress(data: BytesLike, **options: object) -> Image.Image:
    """``.titok`` bytes to a picture with the bundled model; options as in ``Codec.decompress_batch``."""
    return default_codec().decompress(data, **options)
