"""Files that are written whole or not at all.

What is written goes to a file with a name of its own beside the target, and then takes the target's place by a rename.
That name is short, so that every legal name can be written, and cannot be guessed, so that no link can be put
where it will be. A link given as the target stays, and what it leads to is replaced, as ``cp`` would. What nothing can
take the place of is written into instead: devices, pipes, and names for open descriptors such as ``/dev/stdout``.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from titokcodec.format.limits import BytesLike

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    flock = None  # type: ignore[assignment]

_PART = re.compile(r"\.titok-[0-9a-f]{16}\.part")
_STALE = 600  # seconds without a write: also where locks are not seen from other machines, no living writer's file

_unfinished: set[str] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unfinished.clear)  # they are the parent's


@contextmanager
def replacing(path: str | os.PathLike, overwrite: bool | None = None) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of ``path`` when the block ends well.

    A kill at any moment leaves the old file or the new one, never a part; an exception leaves the old one alone. The
    new file has the permissions of the old one, or those that the umask leaves. What killed processes left of their
    unfinished files in the folder is removed.

    Args:
        path: The file; or a device, pipe or descriptor, which is written into at once.
        overwrite: True replaces any file, False none, None (the default) any that is not read-only.

    Raises:
        FileExistsError: the file is there and ``overwrite`` is off; also if it appears while we write.
        PermissionError: the file is read-only and ``overwrite`` is not on.
        OSError: the folder is missing, full or not writable. Nothing is left behind.
    """
    path = Path(path)
    if is_stream(path):
        with _open_stream(path) as file:
            yield file
        return
    before = _before(path, overwrite)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    _sweep(folder)
    part = os.path.join(folder, f".titok-{secrets.token_hex(8)}.part")
    _unfinished.add(part)
    try:
        with _create(part, before) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite is not False or not _link(part, target):
            os.replace(part, target)
    except OSError as error:
        if error.filename == part:  # which means nothing to users
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
        _unfinished.discard(part)


def write_atomic(path: str | os.PathLike, data: BytesLike, overwrite: bool | None = None) -> None:
    """Put ``data`` at ``path`` whole or not at all; see ``replacing`` for what it raises."""
    with replacing(path, overwrite) as file:
        file.write(data)


def abandon() -> None:
    """Remove what this process has not finished writing: for one that ends without unwinding its stack."""
    for part in list(_unfinished):
        with suppress(OSError):
            os.unlink(part)


def is_stream(path: Path) -> bool:
    """Whether a path is written into rather than replaced: a device, a pipe, or a name of an open descriptor."""
    if _descriptor(path) is not None:
        return True
    with suppress(OSError):
        mode = os.stat(path).st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


def _descriptor(path: Path) -> int | None:
    """The number that /dev/stdout, /dev/fd/3 and the like stand for. What is open there may well be a plain file."""
    folder = os.path.realpath("/dev/fd")
    for _ in range(8):  # links on the way: /dev/stdout -> /proc/self/fd/1
        if path.name.isdecimal() and os.path.realpath(path.parent) == folder:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


def _open_stream(path: Path) -> IO[bytes]:
    descriptor = _descriptor(path)
    if descriptor is None:
        return open(path, "wb")
    return os.fdopen(os.dup(descriptor), "wb")  # opening the name would empty a file that others append to


def _before(path: Path, overwrite: bool | None) -> os.stat_result | None:
    """What is known of the file to replace; None if there is none. Raises ``OSError`` if it must not be replaced."""
    if overwrite is False and os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    try:
        before = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if overwrite is None and not (before.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise PermissionError(errno.EACCES, "File is read-only", str(path))
    return before


def _create(part: str, before: os.stat_result | None) -> IO[bytes]:
    """A new file, locked for as long as it is open, with the permissions and the owner of the one before if it can."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    mode = stat.S_IMODE(before.st_mode) & 0o777 if before else 0o666
    file = os.fdopen(os.open(part, flags, mode), "wb")
    if flock is not None:
        with suppress(OSError):  # a file system without locks
            flock(file.fileno(), LOCK_EX | LOCK_NB)
    if before and hasattr(os, "fchown"):
        with suppress(OSError):  # another user's file, or a file system without owners
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
        with suppress(OSError):
            os.fchmod(file.fileno(), mode)  # whatever the umask is
    return file


def _link(part: str, target: str) -> bool:
    """Unlike a rename this fails if the target exists. False on file systems without links, where we look first."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        return False
    return True


@lru_cache(maxsize=4096)  # once a folder: listing one of a million files for each of them would take for ever
def _sweep(folder: str) -> None:
    """Remove unfinished files of processes that were killed."""
    old = time.time() - _STALE
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < old:
                        _remove_unless_locked(entry.path)


def _remove_unless_locked(part: str) -> None:
    if flock is None:
        os.unlink(part)
        return
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)  # fails while the writer lives
        os.unlink(part)
    finally:
        os.close(descriptor)
