"""Reading inputs and writing results: files, pipes, devices, and the standard streams."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeGuard

from titokcodec.cli.process import discard, write_stderr
from titokcodec.errors import ImageError
from titokcodec.io.atomic import is_stream, write_atomic
from titokcodec.io.names import shown

STREAM_LIMIT = 1 << 30  # 12 bytes for each pixel that is allowed by default; endless pipes fill no more memory
PATIENCE = 1.0  # seconds without a word while a pipe has no writer


# ---- inputs ------------------------------------------------------------------------------------------------------


def read_titok(source: Path | None, max_pixels: int | None) -> bytes:
    """A .titok file; None is standard input. Raises ``TitokError`` or ``OSError``."""
    from titokcodec.files import read

    if source is None:
        return read(stdin(), max_pixels)
    with opened(source) as file:
        return read(file, max_pixels)


@contextmanager
def picture_source(path: Path | None) -> Iterator[Path | bytes | IO[bytes]]:
    """What to read a picture from; None is standard input.

    Pillow needs to seek, so what comes through a pipe or from a device is held in memory, up to a limit.

    Raises:
        OSError: it is closed or fails.
        ImageError: it does not end.
    """
    if path is None:
        source = stdin()
        if _is_whole_file(source):
            with os.fdopen(os.dup(source.fileno()), "rb") as file:
                yield file
        else:
            yield _read_stream(source)
    elif is_stream(path):  # <(a command), say
        with opened(path) as file:
            yield _read_stream(file)
    else:
        yield path


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read. A named pipe cannot be opened before some program opens it for writing: where that takes long, a
    line on standard error says so, also with --quiet."""
    if not path.is_fifo():
        with path.open("rb") as file:
            yield file
        return
    notice = threading.Timer(PATIENCE, write_stderr, [f"{shown(path)}: waiting for a program to write to this pipe"])
    notice.daemon = True
    notice.start()
    try:
        file = path.open("rb")
    finally:
        notice.cancel()
    with file:
        yield file


def stdin() -> Any:
    """Standard input as a binary stream. Raises ``OSError`` if it is closed."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin.buffer


def _is_whole_file(stream: Any) -> bool:
    """Whether a stream is a plain file of which nothing has been read: as in < photo.jpg."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and stream.tell() == 0
    except OSError:  # not one of the system's, as in tests
        return False


def _read_stream(stream: IO[bytes]) -> bytes:
    from titokcodec.files import read_at_most

    data = read_at_most(stream, STREAM_LIMIT + 1)
    if len(data) > STREAM_LIMIT:
        raise ImageError(f"more than {STREAM_LIMIT >> 20} MiB: give a file instead")
    return data


# ---- results -----------------------------------------------------------------------------------------------------


def write_stdout(data: bytes) -> None:
    """Bytes to standard output, now. Raises ``OSError`` if it is closed, full or a pipe that nobody reads."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        discard(sys.stdout)
        raise OSError(f"standard output: {error.strerror or error}") from None


def write_line(text: str) -> None:
    """A line to standard output, whatever encoding the terminal claims to have."""
    write_stdout(f"{text}\n".encode(errors="backslashreplace"))


def write_target(target: Path | None, data: bytes, force: bool) -> None:
    """Write a result whole or not at all: to a file, a device or pipe, or (None) standard output.

    Raises:
        OSError: it cannot be written, or exists and ``force`` is off; the message says which.
    """
    if target is None:
        write_stdout(data)
        return
    try:
        write_atomic(target, data, overwrite=force)
    except FileExistsError:
        raise OSError(exists(target)) from None
    except OSError as error:
        raise OSError(f"cannot write {shown(target)}: {error.strerror or error}") from None


def exists(target: Path) -> str:
    """The message for a file that must not be replaced."""
    return f"{shown(target)} exists: use --force to replace it"


def in_the_way(target: Path | None) -> TypeGuard[Path]:
    """Whether writing ``target`` would replace something. Devices and pipes, such as /dev/null, are written to."""
    return target is not None and os.path.lexists(target) and not is_stream(target)
