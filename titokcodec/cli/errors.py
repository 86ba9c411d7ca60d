"""Exceptions as one line of text."""

from __future__ import annotations

import os

from titokcodec.io.names import shown


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch on a GPU, or torch on the CPU could not allocate: three types for one thing."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate" in str(error) and "memory" in str(error)


def reason(error: BaseException, name: str = "") -> str:
    """What went wrong, in one line, without the name of the file if the message begins with it."""
    if out_of_memory(error):
        return "not enough memory: try a smaller picture or a smaller --batch-size"
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        path = shown(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
        text = f"{path}: {error.strerror}" if path else error.strerror
    text = " ".join(text.split()) or type(error).__name__
    return text.removeprefix(f"{name}: ") if name else text
