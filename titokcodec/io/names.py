"""Names as they may stand in a line of text: those of files, and those in untrusted files."""

import os
from collections.abc import Sequence

EXAMPLES = 3  # names that a line gives, at most


def printable(text: str) -> str:
    """A text from an untrusted file as one line without codes for the terminal: breaks become spaces, and whatever else
    cannot be printed is escaped."""
    return text if text.isprintable() else "".join(map(_printable, text))


def shown(path: str | bytes | os.PathLike | None, stream: str = "") -> str:
    """A path as it is, or as Python writes it if there is more in it than can be printed; None is a standard stream."""
    if path is None:
        return stream
    text = os.fsdecode(path)
    return text if text.isprintable() else repr(text)


def examples(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = len(names) - EXAMPLES
    return ", ".join(names[:EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
