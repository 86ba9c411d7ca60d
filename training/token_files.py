"""Tokens of a set of pictures in a file, with all that they depend on, so that they are made once."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from titokcodec.errors import TitokError, WeightsError

from . import parallel, progress
from .checkpoint import load_state, save_state
from .reading import find
from .tokenizing import Cut, TokenizedPictures, merged

OTHER = "of other"  # pictures, options and so on


def once(
    file: Path,
    sources: list[Path],
    limit: int | None,
    cut: Cut,
    more: Mapping[str, object],
    work: Callable[[], TokenizedPictures],
    keep: bool = False,
    shared: bool = False,
) -> TokenizedPictures:
    """The tokens of all pictures, on all ranks: those of the file, or else of ``work``, which are then left in it.

    Args:
        sources, limit, cut: What is tokenized.
        more: What else the tokens depend on, as for ``save``.
        work: Gives this rank's share of them.
        keep: Whether the tokens of something else in the file are to stay, as those of a run that goes on.
        shared: The file is not the run's own: it stays whatever is in it, which may be no tokens at all.

    Raises:
        TitokError: there is not one picture, or what is in the file is something else and is to stay.
    """
    exchange, found, of = parallel.Exchange(), None, dict(more)
    if parallel.rank() == 0:
        of |= {"pictures": digest(sources, limit), "--variants": cut.variants, "--shift": cut.shift, "--seed": cut.seed}
        of |= {"--zoom": cut.zoom} if cut.zoom else {}  # which older files do not mention
        found, reason = load(file, of)
        if shared and reason and not reason.startswith(OTHER):
            raise TitokError(f"{file} is no file of tokens, or damaged: give another --token-file, or delete it")
        if (keep or shared) and reason.startswith(OTHER):
            raise TitokError(
                f"the tokens in {file} are {reason}: give those that they were made with, or another --out or "
                "--token-file"
            )
        if reason:
            progress.message(f"the tokens in {file} are {reason}: pictures are tokenized again")
    if (found := exchange.of_first(found)) is None:
        found = merged(exchange.of_all(work()), sources)
        if parallel.rank() == 0:
            save(file, found, of)
    return found


def digest(sources: list[Path], limit: int | None) -> str:
    """Of the names of all shards and pictures below the sources, their sizes and when they were written: other pictures
    have another one. They need not be read for it."""
    seen = hashlib.blake2b(repr(limit).encode(), digest_size=16)
    for source in sources:
        for path in find([source], lambda *event: None):
            name = os.path.relpath(path, source) if os.path.isdir(source) else os.path.basename(path)
            try:
                about = os.stat(path)
            except OSError:  # which a run will count, and this is no place to
                continue
            seen.update(repr((name, about.st_size, about.st_mtime_ns)).encode())
    return seen.hexdigest()


def save(file: Path, found: TokenizedPictures, of: dict[str, object]) -> None:
    """Write tokens, with what they depend on: plain values by their names in messages."""
    file.parent.mkdir(parents=True, exist_ok=True)
    listing = {name: value for name, value in vars(found).items() if name != "tokens"}
    text = bytearray(json.dumps(listing).encode())  # as a tensor, as a checkpoint may not have so many words
    save_state(file, {"of": of, "tokens": found.tokens, "listing": torch.frombuffer(text, dtype=torch.uint8)})


def load(file: Path, of: dict[str, object]) -> tuple[TokenizedPictures | None, str]:
    """The tokens that ``save`` left there of the very same, else None and why those in the file do not fit."""
    if not file.exists():
        return None, ""
    try:
        state = load_state(file, torch.device("cpu"))
        before, tokens = state["of"], state["tokens"]
        if not isinstance(before, dict) or "listing" not in state:
            return None, "of an older version"
        other = [name for name in dict.fromkeys([*of, *before]) if before.get(name) != of.get(name)]
        if other:
            return None, f"{OTHER} {' and '.join(_said(name, before.get(name)) for name in other)}"
        found = TokenizedPictures(tokens, **json.loads(state["listing"].numpy().tobytes()))
        columns = (found.numbers, found.names, found.keys, found.noted)
        lengths = {tokens.shape[1], *map(len, columns)}
        if tokens.dtype != torch.int32 or tokens.ndim != 3 or len(lengths) != 1 or not tokens.numel():
            return None, "damaged"
    except (WeightsError, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError):
        return None, "damaged"  # pictures can be tokenized again
    return found, ""


def _said(name: str, value: object) -> str:
    """Something that tokens depend on, and of an option what it was, so that it can be given again."""
    return f"{name} ({reprlib.repr(value)} there)" if name.startswith("--") and value is not None else name
