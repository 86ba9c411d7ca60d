"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from titokcodec.bitstream import BytesLike


@contextmanager
def replacing(path: str | os.PathLike, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of ``path`` when the block ends well.

    A kill at any moment leaves the old file or the new one, never a part; an exception leaves the old one alone.

    Raises:
        FileExistsError: the file is there and ``overwrite`` is off; also if it appears while we write.
        OSError: the folder is missing, full or not writable. Nothing is left behind.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite or not _link(part, target):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike, data: BytesLike, overwrite: bool = True) -> None:
    """Put ``data`` at ``path`` whole or not at all; see ``replacing`` for what it raises."""
    with replacing(path, overwrite) as file:
        file.write(data)


def _link(part: Path, target: Path) -> bool:
    """Unlike a rename this fails if the target exists. False on file systems without links, where we look first."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists") from None
        return False
    return True
