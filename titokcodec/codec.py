"""The codec: picture <-> tiles <-> tensor <-> tokens <-> bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Literal, overload

import numpy as np
import torch
from PIL import Image

from titokcodec.checks import several, whole
from titokcodec.errors import TitokError, WeightsError
from titokcodec.files import FileSource, data_of
from titokcodec.format.bitstream import DEFAULT_MAX_PIXELS, Header
from titokcodec.format.layout import FIT, TILE, Grid, Plan, plan
from titokcodec.format.shape import Shape, scaled
from titokcodec.jobs import Jobs, Options
from titokcodec.models.tokenizer import TiTok
from titokcodec.outcomes import OnError, Outcomes
from titokcodec.packing import Packer
from titokcodec.pictures import geometry, images
from titokcodec.pictures.batches import paint, rebatch
from titokcodec.runtime.acceleration import Accelerated, AcceleratedEncoder
from titokcodec.runtime.devices import choose_batch_size, choose_device, choose_dtype
from titokcodec.runtime.isolation import isolated
from titokcodec.runtime.pixels import RangeCheck, as_pixels, unit
from titokcodec.runtime.tokens import in_range, shaped
from titokcodec.runtime.transfer import one_ahead, to_device
from titokcodec.search import MOST_STEPS, NEWTON_STEPS, search
from titokcodec.target import Target
from titokcodec.targets import Aim
from titokcodec.weights import tokenizers

MOST_SEARCHED = 64  # tiles at a time: some 150 MB each in float32


class Codec:
    """A network with everything around it. Make one with ``from_pretrained`` and use it for any number of pictures.

    Attributes:
        weights: Name, config, fingerprint and entropy tables of the model.
        device, dtype: Where and in which precision the network runs, whatever the caller's default type, autocast and
            inference mode. All tensors handed out are plain ones, to train with or change in place.
        packer: Makes files of tokens and tokens of files.
        batch_size: Tiles in one forward pass, at most; of searches, which remember all that they draw, 64 at most. On a
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
        if opened.config.image_size != TILE:
            drawn = opened.config.image_size
            raise WeightsError(f"files hold tiles of {TILE} pixels, but this model draws {drawn}")
        self.weights, self.device, self.dtype = opened, device, dtype
        self.batch_size = choose_batch_size(device, batch_size)
        self.packer = Packer(opened)
        self.model = model.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.model.keep_exact()
        self.encoder: Callable[[torch.Tensor, int], torch.Tensor] = self.model.encode
        self.decoder: Callable[[torch.Tensor], torch.Tensor] = self.model.decode
        self._check_range = RangeCheck()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike | None = None,
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
                resampling does, and are clamped. Of those in CUDA memory, the first call's are judged at once, and
                later ones in the next call, so that nobody has to wait for the device.
            tokens: How many; None for all. A shorter answer is a prefix of a longer one.
            effort: Steps of a search for better tokens, see ``titokcodec.search``: more take longer, and none leaves
                the encoder's own.

        Returns:
            (B, tokens) int64 on the codec's device.

        Raises:
            TitokError: wrong shape, type or range of pixels, or a number of tokens that the model was not trained for.
        """
        pixels = as_pixels(pixels, TILE)
        count, steps = self._count(tokens), self._steps(effort)
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
        tokens = self._checked(tokens)
        if not len(tokens):
            return torch.empty(0, 3, TILE, TILE, dtype=torch.float32, device=self.device)
        with isolated(self.device):
            return _joined([self.decoder(batch) for batch in to_device(tokens, self.device).split(self.batch_size)])

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
            grey: The picture is to be drawn without colour.

        Returns:
            The file, which ``decompress`` draws and ``read`` reads.

        Raises:
            TitokError: wrong shape, type, number or values of tokens, or a size or grid that no file can have.
        """
        tokens, width, height = self._checked(tokens), whole("width", width), whole("height", height)
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
            (tiles, K) int64 on the codec's device. ``titokcodec.info`` tells of the picture's size and layout.

        Raises:
            TitokError: as in ``decompress_batch``.
        """
        rows = self._read(source, strict, max_pixels)[1]
        with isolated(self.device):
            return to_device(rows, self.device)

    def compress(
        self,
        image: images.Source,
        *,
        tokens: int | None = None,
        layout: str = "auto",
        max_side: int | None = None,
        target_bytes: int | None = None,
        target_psnr: float | None = None,
        target_lpips: float | None = None,
        lpips: str | os.PathLike[str] | None = None,
        effort: int | None = None,
        background: str = "white",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        frame: int | None = None,
        white: float | None = None,
    ) -> bytes:
        """One picture to the bytes of a ``.titok`` file; ``compress_batch`` says what the options mean."""
        return self.compress_batch(
            [image],
            tokens=tokens,
            layout=layout,
            max_side=max_side,
            target_bytes=target_bytes,
            target_psnr=target_psnr,
            target_lpips=target_lpips,
            lpips=lpips,
            effort=effort,
            background=background,
            max_pixels=max_pixels,
            frame=frame,
            white=white,
        )[0]

    @overload
    def compress_batch(
        self,
        pictures: Iterable[images.Source],
        *,
        tokens: int | None = None,
        layout: str = "auto",
        max_side: int | None = None,
        target_bytes: int | None = None,
        target_psnr: float | None = None,
        target_lpips: float | None = None,
        lpips: str | os.PathLike[str] | None = None,
        effort: int | None = None,
        background: str = "white",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        frame: int | None = None,
        white: float | None = None,
        errors: Literal["raise", "skip"] = "raise",
    ) -> list[bytes]: ...
    @overload
    def compress_batch(
        self,
        pictures: Iterable[images.Source],
        *,
        tokens: int | None = None,
        layout: str = "auto",
        max_side: int | None = None,
        target_bytes: int | None = None,
        target_psnr: float | None = None,
        target_lpips: float | None = None,
        lpips: str | os.PathLike[str] | None = None,
        effort: int | None = None,
        background: str = "white",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        frame: int | None = None,
        white: float | None = None,
        errors: Literal["return"],
    ) -> list[bytes | TitokError]: ...
    def compress_batch(
        self,
        pictures: Iterable[images.Source],
        *,
        tokens: int | None = None,
        layout: str = "auto",
        max_side: int | None = None,
        target_bytes: int | None = None,
        target_psnr: float | None = None,
        target_lpips: float | None = None,
        lpips: str | os.PathLike[str] | None = None,
        effort: int | None = None,
        background: str = "white",
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        frame: int | None = None,
        white: float | None = None,
        errors: OnError = "raise",
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
                as can be: some are drawn and compared (:mod:`titokcodec.targets`), which takes seconds on a CPU where
                there are thousands of bytes.
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
                None goes by the type; where that does not tell, it is a guess and a ``RangeWarning``.
            errors: What a broken picture means: ``raise`` its error; ``skip`` it, with a ``SkippedWarning`` that names
                its index, and return one file less; ``return`` the error in the file's place.

        Returns:
            One file a picture, in order.

        Raises:
            TitokError: a picture cannot be read or is too large, or the options cannot be met.
        """
        target = Target(target_bytes, target_psnr, target_lpips, lpips)
        target.check_tokens(tokens)
        steps = None if effort is None else self._steps(effort)
        options = Options(self._count(tokens), layout, max_side, steps, background, max_pixels, frame, white)
        outcomes, given = Outcomes(errors), several("pictures", pictures, "compress")
        if target:
            aim = Aim(self, options, target)
            made = [outcomes.attempt(aim.file, source) for source in given]
            return outcomes.with_errors(data for data in made if data is not None)
        jobs = Jobs(self.packer, options, outcomes)
        tiles = rebatch(jobs.tiles(given, self.batch_size), self.batch_size)
        return jobs.files(list(one_ahead(self._encode_tiles(batch, jobs.wishes) for batch in tiles)))

    def decompress(
        self,
        source: FileSource,
        *,
        strict: bool = True,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        max_side: int | None = None,
    ) -> Image.Image:
        """One file to a picture; ``decompress_batch`` says what the options mean."""
        return self.decompress_batch([source], strict=strict, max_pixels=max_pixels, max_side=max_side)[0]

    @overload
    def decompress_batch(
        self,
        files: Iterable[FileSource],
        *,
        strict: bool = True,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        max_side: int | None = None,
        errors: Literal["raise", "skip"] = "raise",
    ) -> list[Image.Image]: ...
    @overload
    def decompress_batch(
        self,
        files: Iterable[FileSource],
        *,
        strict: bool = True,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        max_side: int | None = None,
        errors: Literal["return"],
    ) -> list[Image.Image | TitokError]: ...
    def decompress_batch(
        self,
        files: Iterable[FileSource],
        *,
        strict: bool = True,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        max_side: int | None = None,
        errors: OnError = "raise",
    ) -> list[Image.Image] | list[Image.Image | TitokError]:
        """Files to pictures of the sizes that went in, RGB or L.

        Args:
            files: Whole files: paths, open binary files, or bytes; with ``strict=False`` also beginnings of files.
            strict: Refuse a file that is damaged or cut short. Otherwise draw what has arrived of it.
            max_pixels: Refuse pictures larger than this, and those with more tiles than go with it
                (``titokcodec.format.layout.most_tiles``); None for no limit.
            max_side: Draw pictures with at most this on their longer side. A fitted picture then never exists in its
                full size; a tiled one is scaled at the end.
            errors: As in ``compress_batch``.

        Raises:
            TitokError: a file is not one, damaged, too large, or made with another model; or cannot be read.
        """
        outcomes = Outcomes(errors)
        scaled(1, 1, max_side)  # is it one at all?
        given = several("files", files, "decompress")
        read = (outcomes.attempt(self._read, source, strict, max_pixels) for source in given)
        opened = [found for found in read if found is not None]
        # A picture is its canvas until the end: one tile of a fitted one, however large it is to be.
        painted = self._painted([header.plan() for header, _ in opened], [rows for _, rows in opened])
        return outcomes.with_errors(
            images.to_image(pixels, header.grey, scaled(header.width, header.height, max_side))
            for pixels, (header, _) in zip(painted, opened, strict=True)
        )

    def rows(self, canvas: np.ndarray, grid: Grid, effort: int) -> np.ndarray:
        """(tiles, K) int64 of all tokens of the tiles of an (H, W, 3) uint8 canvas, which has the grid's size."""
        wish = [(self.weights.config.tokens, effort)]
        batches = geometry.cut_batches(canvas, plan(grid), self.batch_size)
        return np.concatenate(list(one_ahead(self._encode_tiles(tiles, wish * len(tiles)) for tiles in batches)))

    def canvas(self, grid: Grid, rows: np.ndarray) -> np.ndarray:
        """The (H, W, 3) uint8 canvas that (tiles, K) tokens draw."""
        return next(self._painted([plan(grid)], [rows]))

    def _painted(self, plans: list[Plan], files: list[np.ndarray]) -> Iterator[np.ndarray]:
        return paint(plans, one_ahead(self._decode_rows(files)))

    def _read(self, source: FileSource, strict: bool, max_pixels: int | None) -> tuple[Header, np.ndarray]:
        return self.packer.read(data_of(source, max_pixels), strict, max_pixels)

    def _count(self, tokens: int | None) -> int:
        if tokens is None:
            return self.weights.config.tokens
        count = whole("tokens", tokens)
        self.weights.config.check_count(count)
        return count

    def _steps(self, effort: int) -> int:
        steps = whole("effort", effort, 0)
        if steps > MOST_STEPS:
            raise TitokError(f"effort is {effort}: give {MOST_STEPS} at most; little is gained beyond {NEWTON_STEPS}")
        return steps

    def _checked(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = shaped(tokens)
        self.weights.config.check_depth(tokens.shape[1])
        return in_range(tokens, self.weights.config.codes)

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

    def _decode_rows(self, files: list[np.ndarray]) -> Iterator[torch.Tensor]:
        """(tiles, K) tokens of many files -> (n, 256, 256, 3) uint8 tiles of all of them, in order."""
        for _, alike in groupby(files, key=lambda rows: rows.shape[1]):
            for rows in rebatch(alike, self.batch_size):
                # Tokens are few, and checked on the host: asking the device would wait for it.
                pixels = self.decode(torch.from_numpy(rows))
                yield (pixels * 255).round_().byte().permute(0, 2, 3, 1).contiguous()


def as_grid(given: tuple[int, int]) -> Grid:
    """Columns and rows as a caller hands them in. Raises ``TitokError`` if it is something else."""
    try:
        columns, rows = given
    except (TypeError, ValueError):
        raise TitokError(f"grid is {given!r}: give (columns, rows)") from None
    return Grid(whole("grid", columns, 1), whole("grid", rows, 1))


def _joined(batches: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(batches) if len(batches) > 1 else batches[0]
