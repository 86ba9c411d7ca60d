"""The codec: picture <-> tiles <-> tensor <-> tokens <-> bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from PIL import Image

from titokcodec.checks import several, whole
from titokcodec.errors import TitokError
from titokcodec.files import FileSource, data_of
from titokcodec.format.header import Header
from titokcodec.format.layout import FIT, Grid
from titokcodec.format.limits import DEFAULT_MAX_PIXELS, TILE
from titokcodec.format.shape import Shape, scaled
from titokcodec.models.tokenizer import TiTok
from titokcodec.options import (
    CompressOptions,
    CompressSettings,
    DecompressOptions,
    DecompressSettings,
    checked,
    lists,
)
from titokcodec.outcomes import OnError, Outcomes
from titokcodec.packing import Packer
from titokcodec.picture_batch import PictureBatch
from titokcodec.pictures import images
from titokcodec.pictures.batches import rebatch_chunks
from titokcodec.runtime.devices import choose_device, choose_dtype
from titokcodec.runtime.isolation import isolated
from titokcodec.runtime.transfer import one_ahead, to_device
from titokcodec.target_search import TargetSearch
from titokcodec.tile_codec import TileCodec
from titokcodec.weights import tokenizers

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Codec(TileCodec):
    """A network with everything around it. Make one with ``from_pretrained`` and use it for any number of pictures.

    Attributes:
        weights: Name, config, fingerprint and entropy tables of the model.
        device, dtype: Where and in which precision the network runs, whatever the caller's default type, autocast and
            inference mode. All tensors handed out are plain ones, to train with or change in place.
        packer: Makes files of tokens and tokens of files.
        batch_size: Tiles in one forward pass, at most; of searches, which keep all activations, 64 at most. On a
            CPU, tiles are searched, and in bfloat16 encoded, one by one.
        encoder, decoder: What is called for tokens and for pixels: the model's ``encode`` and ``decode``, until
            ``compile`` puts something faster in their place. Pickled or copied, a codec has the former again.
    """

    def __init__(
        self,
        opened: tokenizers.Weights,
        model: TiTok,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(opened, model, device, dtype, batch_size)
        self.packer = Packer(opened)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        batch_size: int | None = None,
    ) -> Codec:
        """Load a model.

        Args:
            source: None for the bundled model, a weight file or folder, or ``hub:org/name``.
            device: ``auto`` takes CUDA, then MPS, then the CPU.
            dtype: ``auto``, ``bf16`` or ``fp32``.
            batch_size: Tiles in one forward pass, at most; None for 16, or 256 on CUDA.

        Raises:
            TitokError: the weights or the device cannot be had.
        """
        chosen = choose_device(device)
        with isolated(chosen):  # weights loaded in inference mode could never be searched through
            opened = tokenizers.read(source)
            return cls(opened, tokenizers.build(opened), chosen, choose_dtype(chosen, dtype), batch_size)

    def write(
        self,
        tokens: torch.Tensor,
        width: int = TILE,
        height: int = TILE,
        *,
        grid: tuple[int, int] | None = None,
        grey: bool = False,
    ) -> bytes:
        """Tokens of one picture, wherever they come from, to the bytes of a ``.titok`` file; no network runs.

        Args:
            tokens: (tiles, K) integers below the size of the codebook; K may be less than the model's if it is nested.
            width, height: Size of the picture in pixels.
            grid: Columns and rows of tiles; None for a single one.
            grey: The picture is to be decoded without colour.

        Returns:
            The file, for ``decompress`` and ``read``.

        Raises:
            TitokError: wrong shape, type, number or values of tokens, or a size or grid that no file can have.
        """
        tokens, width, height = self.check_tokens(tokens), whole("width", width), whole("height", height)
        laid = FIT if grid is None else as_grid(grid)
        if len(tokens) != laid.tiles:
            raise TitokError(
                f"a grid of {laid} has {laid.tiles} tiles, but here are tokens of {len(tokens)}: give "
                "(tiles, K), and grid=(columns, rows)"
            )
        return self.packer.pack(Shape(width, height, laid, tokens.shape[1]), tokens.cpu().numpy(), grey)

    def read(
        self, source: FileSource, *, strict: bool = True, max_pixels: int | None = DEFAULT_MAX_PIXELS
    ) -> torch.Tensor:
        """The tokens in a file; no network runs.

        Args:
            source: A whole file: a path, an open binary file, or the bytes; with ``strict=False`` also the beginning of
                one.
            strict: Refuse a file that is damaged or cut short. Otherwise take what has arrived of it.
            max_pixels: As in ``decompress_batch``.

        Returns:
            (tiles, K) int64 on the codec's device. ``titokcodec.info`` gives the picture's size and layout.

        Raises:
            TitokError: as in ``decompress_batch``.
        """
        rows = self._read(source, strict, max_pixels)[1]
        with isolated(self.device):
            return to_device(rows, self.device)

    @lists(CompressSettings)
    def compress(self, image: images.Source, **options: Unpack[CompressOptions]) -> bytes:
        """One picture to the bytes of a ``.titok`` file; ``compress_batch`` describes the options."""
        return self.compress_batch([image], **options)[0]

    @overload
    def compress_batch(
        self,
        pictures: Iterable[images.Source],
        *,
        errors: Literal["raise", "skip"] = "raise",
        **options: Unpack[CompressOptions],
    ) -> list[bytes]: ...
    @overload
    def compress_batch(
        self, pictures: Iterable[images.Source], *, errors: Literal["return"], **options: Unpack[CompressOptions]
    ) -> list[bytes | TitokError]: ...
    @lists(CompressSettings)
    def compress_batch(
        self, pictures: Iterable[images.Source], *, errors: OnError = "raise", **options: Unpack[CompressOptions]
    ) -> list[bytes] | list[bytes | TitokError]:
        """Pictures of any sizes to files. Tiles of all of them share the forward passes.

        Args:
            pictures: PIL images, arrays (H, W, 3) or (H, W), paths, open binary files or bytes; see
                ``titokcodec.pictures.images.load``.
            tokens: Tokens a tile; None for the model's full number.
            layout: ``fit`` squeezes the whole picture into one tile, whatever its size; ``tile`` covers it with a grid
                of tiles near its own resolution. ``auto`` is ``fit``, and with a target whichever serves it better.
            max_side: Scale the picture down first, so that its longer side is at most this.
            target_bytes: Choose grid and tokens so that no file is longer than this, and each as near to its picture
                as possible: some are made and compared (:mod:`titokcodec.target_search`), which takes seconds on a
                CPU where there are thousands of bytes.
            target_psnr: Make the smallest file whose picture has this PSNR in dB.
            target_lpips: Make the smallest file whose picture has at most this LPIPS (with SqueezeNet), of pictures
                reduced to 1024 pixels a side; ``lpips`` is the metric's weight file.
            effort: As in ``encode``. None searches for pictures on one tile, unless the architecture is a published
                one, and not for those on several.
            background: What transparent pixels are laid on: any colour name that Pillow knows.
            max_pixels: Refuse pictures larger than this; None for no limit. It bounds their tiles too
                (``titokcodec.format.layout.most_tiles``): a very long, thin picture that would need more is refused by
                ``tile``, so that ``decompress`` takes whatever is written within the same limit.
            frame: Which frame or page of a file to take, from 0. None takes the first, with a ``FramesWarning`` if
                there are more; of a PIL image the current one.
            white: Which value is white in pictures of more than 8 bits a channel, such as 4095 for 12 bits in uint16.
                None goes by the type; where that does not settle it, it is a guess and a ``RangeWarning``.
            errors: What a broken picture means: ``raise`` its error; ``skip`` it, with a ``SkippedWarning`` that names
                its index, and return one file less; ``return`` the error in the file's place.

        Returns:
            One file a picture, in order.

        Raises:
            TitokError: a picture cannot be read or is too large, or the options cannot be met.
        """
        settings = checked(CompressSettings, options)
        outcomes = Outcomes(errors)
        batch = PictureBatch(self.packer, settings, outcomes)
        given = several("pictures", pictures, "compress")
        if settings.target:
            search = TargetSearch(self, settings)
            made = [outcomes.attempt(search.file, source) for source in given]
            return outcomes.with_errors(data for data in made if data is not None)
        chunks = rebatch_chunks(batch.tiles(given, self.batch_size), self.batch_size)
        return batch.files(list(one_ahead(self.encode_chunk(chunk) for chunk in chunks)))

    @lists(DecompressSettings)
    def decompress(self, source: FileSource, **options: Unpack[DecompressOptions]) -> Image.Image:
        """One file to a picture; ``decompress_batch`` describes the options."""
        return self.decompress_batch([source], **options)[0]

    @overload
    def decompress_batch(
        self,
        files: Iterable[FileSource],
        *,
        errors: Literal["raise", "skip"] = "raise",
        **options: Unpack[DecompressOptions],
    ) -> list[Image.Image]: ...
    @overload
    def decompress_batch(
        self, files: Iterable[FileSource], *, errors: Literal["return"], **options: Unpack[DecompressOptions]
    ) -> list[Image.Image | TitokError]: ...
    @lists(DecompressSettings)
    def decompress_batch(
        self, files: Iterable[FileSource], *, errors: OnError = "raise", **options: Unpack[DecompressOptions]
    ) -> list[Image.Image] | list[Image.Image | TitokError]:
        """Files to pictures of the sizes that went in, RGB or L.

        Args:
            files: Whole files: paths, open binary files, or bytes; with ``strict=False`` also beginnings of files.
            strict: Refuse a file that is damaged or cut short. Otherwise decode what has arrived of it.
            max_pixels: Refuse pictures larger than this, and those with more tiles than go with it
                (``titokcodec.format.layout.most_tiles``); None for no limit.
            max_side: Decode pictures with at most this on their longer side. A fitted picture then never exists in its
                full size; a tiled one is scaled at the end.
            errors: As in ``compress_batch``.

        Raises:
            TitokError: a file is not one, damaged, too large, or made with another model; or cannot be read.
        """
        settings, outcomes = checked(DecompressSettings, options), Outcomes(errors)
        given = several("files", files, "decompress")
        read = (outcomes.attempt(self._read, source, settings.strict, settings.max_pixels) for source in given)
        opened = [found for found in read if found is not None]
        # A picture is its canvas until the end: one tile of a fitted one, however large it is to be.
        canvases = self.decode_canvases([header.plan() for header, _ in opened], [rows for _, rows in opened])
        return outcomes.with_errors(
            images.to_image(pixels, header.grey, scaled(header.width, header.height, settings.max_side))
            for pixels, (header, _) in zip(canvases, opened, strict=True)
        )

    def _read(self, source: FileSource, strict: bool, max_pixels: int | None) -> tuple[Header, np.ndarray]:
        return self.packer.read(data_of(source, max_pixels), strict, max_pixels)


def as_grid(given: tuple[int, int]) -> Grid:
    """Columns and rows as a caller hands them in. Raises ``TitokError`` if it is something else."""
    try:
        columns, rows = given
    except (TypeError, ValueError):
        raise TitokError(f"grid is {given!r}: give (columns, rows)") from None
    return Grid(whole("grid", columns, 1), whole("grid", rows, 1))
