"""Pillow's own limits and errors, made ours: one limit a call, one line an error, and nothing global left behind."""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from titokcodec.errors import ImageError, LimitExceeded, TitokError, TitokWarning


class PillowLimit(int):
    """Stands in for ``Image.MAX_IMAGE_PIXELS`` while any thread is inside :func:`titokcodec.pictures.images.load`.

    Pillow asks ``pixels > 2 * MAX_IMAGE_PIXELS`` (an error) and ``pixels > MAX_IMAGE_PIXELS`` (a warning) of one
    global, at opening and, for some formats, deep inside decoding. In a thread that is inside ``load`` the first
    question is answered with that call's own limit and the second with no; any other thread gets Pillow's answers.
    Changing the number itself, or silencing warnings, would change them for other threads too.
    """

    _here = threading.local()
    _lock = threading.Lock()
    _users = 0
    _original: int | None = None

    def __rmul__(self, factor: int) -> int | float:  # type: ignore[override, misc]
        limit = getattr(self._here, "limit", None)
        return factor * int(self) if limit is None else limit

    def __lt__(self, pixels: int) -> bool:
        return getattr(self._here, "limit", None) is None and int(self) < pixels

    @classmethod
    @contextmanager
    def replaced(cls, max_pixels: int | None) -> Iterator[None]:
        """Within the block, and in this thread only, Pillow refuses pictures of more than ``max_pixels``."""
        outer = getattr(cls._here, "limit", None)
        with cls._lock:
            if cls._users == 0:
                cls._original = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = cls(sys.maxsize if cls._original is None else cls._original)
            cls._users += 1
        cls._here.limit = math.inf if max_pixels is None else max_pixels
        try:
            yield
        finally:
            cls._here.limit = outer
            with cls._lock:
                cls._users -= 1
                if cls._users == 0:
                    Image.MAX_IMAGE_PIXELS = cls._original


@contextmanager
def one_error(name: str, max_pixels: int | None) -> Iterator[None]:
    """Whatever a damaged file makes Pillow raise (a dozen types, by format) becomes one line that names the file."""
    try:
        yield
    except (TitokError, TitokWarning, MemoryError):  # warnings, where their filter makes them errors
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\((\d+) pixels\)", str(error))
        raise too_large(name, count[1] if count else "too many", max_pixels) from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file; check the path") from error
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be read, check that it is a whole picture ({detail})") from error


def too_large(name: str, pixels: object, max_pixels: int | None) -> LimitExceeded:
    """The error for a picture of ``pixels`` pixels."""
    return LimitExceeded(
        f"{name}: {pixels} pixels, over the limit of {max_pixels}; "
        "if you trust it, allow more with max_pixels= (--max-pixels)"
    )
