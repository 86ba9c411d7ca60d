"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from titokcodec.bitstream import BytesLike


def write_atomic(path: str | os.PathLike, data: BytesLike, overwrite: bool = True) -> None:
    """Put ``data`` at ``path`` so that a kill at any moment leaves the old file or the new one, never a part.

    Raises:
        FileExistsError: the file is there and ``overwrite`` is off; also if it appears while we write.
        OSError: the folder is missing, full or not writable. Nothing is left behind.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite or not _link(part, target):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


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
