"""Where the tokens of ``titok-generate`` come from: sampled, or made of compressed pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titokcodec.cli.request import Edit, Request, class_number, named
from titokcodec.cli.streams import read_titok
from titokcodec.errors import TitokError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from torch import Tensor

    from titokcodec.codec import Codec
    from titokcodec.files import FileInfo
    from titokcodec.generator import Generator
    from titokcodec.region import Region
    from titokcodec.sampling import Noise


@dataclass(frozen=True)
class SourceFile:
    """A compressed picture of one tile: its name as it was given, the file, and its header."""

    name: str
    data: bytes
    about: FileInfo


@dataclass(frozen=True)
class Sources:
    """What there is to edit, and the tokens that come of it.

    Attributes:
        edit: What to do; None for new pictures.
        files: None for new pictures, one to edit, or the two ends of an interpolation.
    """

    edit: Edit | None
    files: list[SourceFile]

    @classmethod
    def opened(cls, edit: Edit | None, max_pixels: int | None) -> Sources:
        """Read the files of an edit. Raises ``TitokError`` or ``OSError`` if they cannot be edited so."""
        if edit is None:
            return cls(None, [])
        names = [edit.source] if edit.last is None else [edit.source, edit.last]
        files = [_opened(name, max_pixels) for name in names]
        if edit.region is not None:
            with naming(edit.source):
                _check_region(edit.region, files[0].about)
        return cls(edit, files)

    @property
    def first(self) -> FileInfo | None:
        """The header of the first file."""
        return self.files[0].about if self.files else None

    @property
    def size(self) -> dict[str, Any]:
        """What ``Codec.write`` is told of the results: they have the size of the first, and are grey if all are."""
        if not self.files:
            return {}
        about = self.files[0].about
        return {"width": about.width, "height": about.height, "grey": all(file.about.grey for file in self.files)}

    def tokens(self, generator: Generator | None, codec: Codec, request: Request) -> Iterator[Tensor]:
        """(B, K) rows of all pictures in order; those in one went through the network together."""
        if request.between:
            yield self._between(codec, request)
            return
        assert generator is not None, "only an interpolation does without"
        make = self._maker(generator, codec, request)
        for first in range(0, len(request.labels), codec.batch_size):
            labels = [class_number(generator, label) for label in request.labels[first : first + codec.batch_size]]
            yield make(labels, [_seed(request.seed, first + row) for row in range(len(labels))])

    def _between(self, codec: Codec, request: Request) -> Tensor:
        from titokcodec.interpolation import interpolate

        first, last = (_read(file, codec, request.tokens) for file in self.files)
        tokens = min(first.shape[1], last.shape[1])
        return interpolate(codec, first[:, :tokens], last[:, :tokens], len(request.labels))

    def _maker(
        self, generator: Generator, codec: Codec, request: Request
    ) -> Callable[[list[int], list[np.random.SeedSequence]], Tensor]:
        """How to make rows of tokens for class numbers and seeds."""
        settings, edit, device = request.settings, self.edit, generator.device
        if edit is None:
            return lambda labels, seeds: generator.sample(
                labels, tokens=request.tokens, noise=_noise(seeds, device), **settings
            )
        (file,) = self.files
        tokens = _read(file, codec, request.tokens)
        with naming(file.name):
            count = _count(generator, tokens.shape[1], edit.keep)

        def vary(labels: list[int], seeds: list[np.random.SeedSequence]) -> Tensor:
            rows = tokens[:, :count].expand(len(labels), -1)
            kept = _kept(seeds, count, edit.keep, edit.share)
            return generator.inpaint(rows, kept, labels, noise=_noise(seeds, device), **settings)

        def fill(labels: list[int], seeds: list[np.random.SeedSequence]) -> Tensor:
            import torch

            from titokcodec.format.limits import TILE
            from titokcodec.inpainting import inpaint

            assert edit.region is not None
            mask = torch.from_numpy(edit.region.mask(file.about.width, file.about.height, TILE, TILE))
            rows = tokens.expand(len(labels), -1)
            noise = _noise(seeds, device)
            return inpaint(generator, codec, rows, mask, labels, share=edit.share, noise=noise, **settings)

        return vary if edit.region is None else fill

    def pictures(self, codec: Codec, files: list[bytes]) -> list[Image.Image]:
        """What files of the results show; around a region that was filled anew, exactly what was there before."""
        shown = codec.decompress_batch(files, max_pixels=None)
        if self.edit is None or self.edit.region is None:
            return shown
        from PIL import Image

        before = codec.decompress(self.files[0].data, max_pixels=None)
        mask = Image.fromarray((self.edit.region.mask(*before.size) * 255).round().astype("uint8"))
        return [Image.composite(picture, before, mask) for picture in shown]


def _check_region(region: Region, about: FileInfo) -> None:
    """Raise ``TitokError`` if a region is not inside the picture, or so small that the tile shows nothing of it."""
    from titokcodec.format.limits import TILE

    if not region.mask(about.width, about.height, TILE, TILE).any():
        raise TitokError(f"--region {region} is too small to change anything: give a larger one")


def _opened(name: str, max_pixels: int | None) -> SourceFile:
    from titokcodec.files import info

    with naming(name):
        data = read_titok(None if name == "-" else Path(name), max_pixels)
        about = info(data)
        if about.layout != "fit":
            raise TitokError(f"has {about.tiles} tiles, and one can be edited: compress the picture with --layout fit")
    return SourceFile(name, data, about)


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Errors about a file name it."""
    try:
        yield
    except TitokError as error:
        raise type(error)(f"{named(source)}: {error}") from None


def _read(file: SourceFile, codec: Codec, wanted: int | None) -> Tensor:
    """(1, K) tokens of a file, as many as are wanted or all. Raises ``TitokError`` if there are fewer."""
    with naming(file.name):
        tokens = codec.read(file.data, max_pixels=None)
        if wanted is not None and tokens.shape[1] < wanted:
            raise TitokError(
                f"has {tokens.shape[1]} tokens, but this needs {wanted}: compress the picture with --tokens {wanted}"
            )
        return tokens[:, :wanted]


def _count(generator: Generator, available: int, keep: int) -> int:
    """How many of a file's tokens are edited. Raises ``TitokError`` if they are too few, or all to be kept."""
    counts = generator.config.counts
    if available < counts[0]:
        raise TitokError(
            f"has {available} tokens, but generator {generator.name} needs {counts[0]}: compress "
            f"the picture with --tokens {counts[-1]}"
        )
    count = generator.most(available)
    if keep >= count:
        more = next((f", or compress the picture with --tokens {n}" for n in generator.config.counts if n > keep), "")
        raise TitokError(f"{count} of its tokens can be sampled, and --keep {keep} leaves none: keep fewer{more}")
    return count


def _seed(seed: int, number: int) -> np.random.SeedSequence:
    """Each picture has a random sequence of its own, so that it does not depend on what is generated with it."""
    import numpy as np

    return np.random.SeedSequence(seed, spawn_key=(number,))


def _noise(seeds: list[np.random.SeedSequence], device: torch.device) -> Noise:
    import torch

    numbers = [int(own.generate_state(1, "uint64")[0]) for own in seeds]
    generators = [torch.Generator(device).manual_seed(number) for number in numbers]
    return lambda step, shape: torch.stack([torch.rand(shape[1:], generator=own, device=device) for own in generators])


def _kept(seeds: list[np.random.SeedSequence], count: int, keep: int, share: float) -> Tensor:
    """(B, count) bool: False for that share of each picture's tokens after the first ``keep``, at least one."""
    import numpy as np
    import torch

    rows = np.ones((len(seeds), count), bool)
    later = count - keep
    for row, own in zip(rows, seeds, strict=True):
        row[keep + np.random.default_rng(own).permutation(later)[: max(1, round(share * later))]] = False
    return torch.from_numpy(rows)
