"""Tokens of a set of pictures in a file, with all that they depend on, so that they are made once."""

from __future__ import annotations

import hashlib
import json
import os
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
) -> TokenizedPictures:
    """The tokens of all pictures, on all ranks: those of the file, or else of ``work``, which are then left in it.

    Args:
        sources, limit, cut: What is tokenized.
        more: What else the tokens depend on, as for ``save``.
        work: Gives this rank's share of them.
        keep: Whether the tokens of something else in the file are to stay, as those of a run that goes on or of others.

    Raises:
        TitokError: there is not one picture, or the tokens are of something else and are to stay.
    """
    exchange, found, of = parallel.Exchange(), None, dict(more)
    if parallel.rank() == 0:
        of |= {"pictures": digest(sources, limit), "--variants": cut.variants, "--shift": cut.shift, "--seed": cut.seed}
        of |= {"--zoom": cut.zoom} if cut.zoom else {}  # which older files do not mention
        found, reason = load(file, of)
        if keep and reason.startswith(OTHER):
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
        listing = json.loads(state["listing"].numpy().tobytes())
    except (WeightsError, KeyError):  # pictures can be tokenized again
        return None, "damaged"
    other = [name for name in dict.fromkeys([*of, *before]) if before.get(name) != of.get(name)]
    if other:
        return None, f"{OTHER} {' and '.join(other)}"
    return TokenizedPictures(tokens, **listing), ""
