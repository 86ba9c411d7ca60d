"""``.titok`` files as one more format of Pillow's.

    titokcodec.register_pillow()
    image = Image.open("photo.titok")
    image.save("again.titok", tokens=96)

Importing this module changes nothing in Pillow: only ``register_pillow`` does. Opening a file reads its header and
needs no torch; the network runs when the pixels are asked for.

``save`` takes the options of ``Codec.compress_batch``: ``tokens``, ``layout``, ``max_side``, ``target_bytes``,
``effort``, ``background`` and ``white``. Any other, such as ``quality``, is an ``IgnoredWarning``. A file holds one
picture: ``save_all`` saves a picture of one frame and refuses more.

``image.info`` holds ``tokens``, ``layout`` and ``model`` of a file. ``draft`` and ``thumbnail`` take a fitted
picture from its 256x256 tile without enlarging it first, and ``verify`` checks a file without the network. With
``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` a file that is cut short shows what has arrived of it.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from titokcodec import files
from titokcodec.errors import IgnoredWarning, TitokError, UnsupportedFile
from titokcodec.format import bitstream
from titokcodec.format.header import Header
from titokcodec.format.limits import LONGEST_HEADER, SIGNATURE, TILE
from titokcodec.format.shape import scaled
from titokcodec.weights import releases

if TYPE_CHECKING:
    from titokcodec.codec import Codec

FORMAT = "TITOK"
MIME = "image/x-titok"

_SAVE_OPTIONS = (  # of CompressOptions, those that say something about a picture in memory
    "tokens",
    "layout",
    "max_side",
    "target_bytes",
    "target_psnr",
    "target_lpips",
    "lpips",
    "effort",
    "background",
    "white",
)


class _Model:
    """The model that every picture is opened and saved with: Pillow's registry is global, so this is too."""

    source: str | os.PathLike[str] | Codec | None = None
    device: str = "auto"


def register_pillow(model: str | os.PathLike[str] | Codec | None = None, device: str = "auto") -> None:
    """Teach Pillow to open and save ``.titok`` files, until the program ends.

    May be called again, to change the model. Nothing is loaded before it is needed.

    Args:
        model: None for the bundled model, a weight file or folder, ``hub:org/name``, or a ``Codec``.
        device: Where the network runs, as in ``Codec.from_pretrained``; a ``Codec`` stays where it is.
    """
    _Model.source, _Model.device = model, device
    Image.register_open(FORMAT, TitokImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_save_all(FORMAT, _save_all)
    Image.register_extension(FORMAT, ".titok")
    Image.register_mime(FORMAT, MIME)


class TitokImageFile(ImageFile.ImageFile):
    """A ``.titok`` file that has been opened, and perhaps not decoded yet."""

    format = FORMAT
    format_description = "TiTok tokens"

    _decoded = True  # until _open says otherwise: copies and unpickled images have their pixels
    _header: Header

    def _open(self) -> None:
        assert self.fp is not None, "Pillow opens the file before it calls this"
        start = self.fp.tell()
        try:
            self._header, _ = bitstream.parse(files.read_at_most(self.fp, LONGEST_HEADER))
        except TitokError as error:
            raise SyntaxError(str(error)) from error  # Pillow's way to say "not mine"
        self._start, self._decoded, self._lock = start, False, threading.Lock()
        self._mode = "L" if self._header.grey else "RGB"
        self._size = self._header.width, self._header.height
        self.info.update(tokens=self._header.tokens, layout=self._header.layout, model=releases.name_of(self._header))

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, int, int]] | None:
        """Ask for a greyscale or smaller picture before its pixels are decoded.

        A fitted picture holds no more than its tile: if at most 256 pixels a side are wanted, it comes with 256 on its
        longer side, however large it once was. A tiled one is not reduced: its tiles would have to be decoded anyway.
        """
        if self._decoded:
            return None
        if mode == "L":
            self._mode = "L"
        if size and max(size) <= TILE < max(self.size) and self._header.layout == "fit":
            self._size = scaled(*self.size, TILE)
        elif self.mode != mode:
            return None
        return self.mode, (0, 0, *self.size)

    def verify(self) -> None:
        """Check the file without the network, as ``titokcodec.verify`` does; open it again to decode it.

        Raises:
            OSError: it is damaged, or not this model's.
        """
        from titokcodec import editing

        source = _Model.source
        model = source if isinstance(source, str | os.PathLike | None) else source.weights.path
        try:
            editing.verify(self._read(), model, _most_to_decode())
        except TitokError as error:
            raise OSError(str(error)) from error
        super().verify()

    def load(self) -> Any:
        """Decode the picture, once; other threads that want it wait.

        Raises:
            OSError: the file is damaged or needs another model, or the model cannot be loaded.
        """
        if not self._decoded:
            with self._lock:
                if not self._decoded:
                    self._decode()
        return super().load()

    def _decode(self) -> None:
        strict = not ImageFile.LOAD_TRUNCATED_IMAGES
        try:
            data = self._read()
            image = _codec().decompress(data, strict=strict, max_pixels=_most_to_decode(), max_side=max(self.size))
        except TitokError as error:
            raise OSError(str(error)) from error
        self.im = (image if image.mode == self.mode else image.convert(self.mode)).im
        self._decoded = True
        if self._exclusive_fp and self.fp is not None:
            self.fp.close()
        self.fp = None

    def _read(self) -> bytes:
        if self.fp is None:
            raise OSError("the file of this picture is closed: open it again")
        self.fp.seek(self._start)
        return files.read(self.fp, None)


def _accept(prefix: bytes) -> bool | str:
    """Whether these may be the first 16 bytes of one of ours; a text tells the user why it cannot be opened."""
    if not prefix.startswith(SIGNATURE):
        return False
    try:
        bitstream.parse(prefix)
    except UnsupportedFile as error:
        return str(error)
    except TitokError:
        pass  # a header may be longer than what Pillow shows
    return True


def _most_to_decode() -> int | None:
    """Pillow's own limit. At opening, Pillow has checked the pixels, but not the tiles."""
    if Image.MAX_IMAGE_PIXELS is None:
        return None
    limit = 2 * Image.MAX_IMAGE_PIXELS
    return None if math.isinf(limit) else limit


def _most_to_save(image: Image.Image) -> int | None:
    """What is in memory may be saved, but on no more tiles than are decoded without a warning."""
    return Image.MAX_IMAGE_PIXELS and max(int(Image.MAX_IMAGE_PIXELS), image.width * image.height)


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    given = {name: value for name, value in image.encoderinfo.items() if value is not None}
    if ignored := [name for name in given if name not in _SAVE_OPTIONS]:
        warnings.warn(
            f"a .titok file has no option {', '.join(ignored)}: tokens=, target_bytes= and effort= choose between "
            "size and quality",
            IgnoredWarning,
            stacklevel=3,
        )
    options = {name: given[name] for name in _SAVE_OPTIONS if name in given}
    file.write(_codec().compress(image, max_pixels=_most_to_save(image), **options))


def _save_all(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    more = image.encoderinfo.pop("append_images", None)
    if getattr(image, "is_animated", False) or more:
        raise TitokError(
            "a .titok file holds one picture: save every frame to a file of its own, without save_all and append_images"
        )
    _save(image, file, filename)


def _codec() -> Codec:
    from titokcodec.codec import Codec

    if isinstance(_Model.source, Codec):
        return _Model.source
    return _load(None if _Model.source is None else os.fspath(_Model.source), _Model.device)


@lru_cache(maxsize=1)
def _load(source: str | None, device: str) -> Codec:
    from titokcodec.codec import Codec

    if source is None and device == "auto":
        from titokcodec.defaults import default_codec

        return default_codec()
    return Codec.from_pretrained(source, device=device)
