"""Tables of labels: read from files, put together, and asked for the label of a picture or the new name of a label.

A table says a label for each key. A key with ``*``, which stands for any text, is a pattern: ``cub_*`` is all keys that
begin so. Keys that are written out win over patterns, whatever the order. An empty label, or ``-``, is none: such a row
takes a label away. Tables that rename labels are read and asked in just the same way, by labels in place of keys.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from titokcodec.errors import TitokError

Columns = tuple[frozenset[str], frozenset[str]]
"""What a header may call the one column, and what the other."""
KEYS_AND_LABELS = (
    frozenset({"key", "name", "file", "filename", "file_name", "path", "image"}),
    frozenset({"label", "class", "category"}),
)
OLD_AND_NEW = (frozenset({"label", "old", "from"}), frozenset({"class", "category", "name", "new", "to"}))
ANY, NONE = "*", "-"  # what stands for any text in a key, and, besides nothing at all, for no label


class Lookup:
    """A table to be asked.

    Args:
        table: Label by key or pattern, empty for none; of several patterns that fit, the last one counts.
    """

    def __init__(self, table: Mapping[str, str]) -> None:
        self.exact = {key: label for key, label in table.items() if ANY not in key}
        self.patterns = {key: _pattern(key) for key in reversed(table) if ANY in key}
        self.table = table

    def label(self, name: str) -> str | None:
        """The label that the table has for a name, empty if that is none; None if it says nothing of it."""
        match = self.find([name])
        return None if match is None else self.table[match]

    def find(self, names: Sequence[str]) -> str | None:
        """The key or pattern that one of the names fits, earlier names first; None if none does."""
        for name in names:
            if name in self.exact:
                return name
        for name in names:
            for key, pattern in self.patterns.items():
                if pattern.fullmatch(name):
                    return key
        return None


def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, key.split(ANY))), re.DOTALL)


def read_tables(paths: Iterable[Path], renaming: bool = False) -> dict[str, str]:
    """The rows of several tables in one. Where two have the same key, the later table counts.

    Args:
        renaming: They have labels in place of keys, and the classes that these are to be.

    Raises:
        TitokError: see ``read_table``.
    """
    rows: dict[str, str] = {}
    for path in paths:
        for key, label in read_table(path, renaming).items():
            rows.pop(key, None)  # so that it also comes after all earlier patterns
            rows[key] = label
    return rows


def read_table(path: Path, renaming: bool = False) -> dict[str, str]:
    """Label by key, from a table of two columns with tabs, commas or semicolons between them, or from JSON.

    A header names the columns ``key`` and ``label`` (or the like: ``file_name``, ``class``), among others perhaps, or
    if the table renames labels, ``label`` and ``class``; there may be none if there are two columns. JSON is an object
    of keys and labels, a list of pairs or of objects, or an object with such a list called ``labels``. An empty label,
    null or ``-`` is none, and empty in what is returned.

    Raises:
        TitokError: it cannot be read as such a table, has no rows, or has two labels for one key.
    """
    table: dict[str, str] = {}
    columns = (OLD_AND_NEW, KEYS_AND_LABELS) if renaming else (KEYS_AND_LABELS,)
    kind = f"table of {'label and class' if renaming else 'key and label'}"
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a byte order mark
        for key, label in (_json_rows if path.suffix.lower() == ".json" else _rows)(text, columns):
            if not key:
                raise ValueError("a row has no key")
            if "\n" in key + label:
                raise ValueError("a row has more than one line: is a quote not closed?")
            label = " ".join(label.split())  # names that look alike are alike
            key, label = key.removeprefix("./"), "" if label == NONE else label
            if table.setdefault(key, label) != label:
                raise ValueError(f"{key!r} has two labels, {table[key]!r} and {label!r}")
        if not table:
            raise ValueError("it has no rows")
    except UnicodeDecodeError:
        raise TitokError(f"{path} is no {kind}: it is not in UTF-8, save it as such") from None
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise TitokError(f"{path} is no {kind}: {reason}") from None
    return table


def _rows(text: str, columns: Sequence[Columns]) -> Iterator[tuple[str, str]]:
    text = text.lstrip("\r\n")
    if not text:
        raise ValueError("it is empty")
    delimiter = next((mark for mark in "\t,;" if mark in text.partition("\n")[0]), None)
    if delimiter is None:
        raise ValueError("its first line has neither tab nor comma")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = ([cell.strip() for cell in row] for row in reader)
    first = next(rows)
    key, label = _places(first, columns)
    if (key is None) != (label is None):
        raise ValueError(f"its header, {', '.join(first)}, does not name both columns")
    if key is None or label is None:
        if len(first) != 2:
            raise ValueError(f"it has {len(first)} columns and no header that names key and label")
        key, label = 0, 1
        yield first[0], first[1]
    for number, row in enumerate(rows, 2):
        if any(row):
            if len(row) <= max(key, label):
                raise ValueError(f"row {number} has {len(row)} columns")
            yield row[key], row[label]


def _places(header: Sequence[str], columns: Sequence[Columns]) -> tuple[int | None, int | None]:
    """Which columns of a header are the two, by those of the names that most are found of; None for one that is not."""
    found = [(_column(header, keys), _column(header, labels)) for keys, labels in columns]
    return max(found, key=lambda pair: 2 - pair.count(None))


def _column(header: Sequence[str], names: Collection[str]) -> int | None:
    return next((number for number, cell in enumerate(header) if cell.lower() in names), None)


def _json_rows(text: str, columns: Sequence[Columns]) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON, an object or a list: {error}") from None
    if isinstance(found, dict):
        found = found["labels"] if isinstance(found.get("labels"), list) else list(found.items())
    if not isinstance(found, list):
        raise ValueError("its JSON is neither an object nor a list")
    for entry in found:
        if isinstance(entry, dict):
            cells = list(entry.values())
            entry = [None if place is None else cells[place] for place in _places(list(entry), columns)]
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ValueError(f"{json.dumps(entry)[:60]} is no pair of key and label")
        if isinstance(entry[1], bool) or not isinstance(entry[1], (str, int, type(None))):
            raise ValueError(f"the label of {entry[0]!r} is neither text nor a whole number")
        yield entry[0], "" if entry[1] is None else str(entry[1])
