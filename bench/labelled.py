"""Real pictures that a generator's are measured with: which ones, and for what.

Listing names is quick and decoding is not, so that pictures are chosen by their labels first, and only those are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from titokcodec.training.data import Pictures
from titokcodec.training.reading import ClassFiles, find, key_of, read_files
from torch import Tensor

from titokcodec import TitokError
from titokcodec.metrics.distributions import NEIGHBOURS


@dataclass
class Listing:
    """Names, keys and noted classes of pictures that nobody has decoded, see ``labels.Listed``.

    Attributes:
        names, keys, noted: As those of ``Pictures``.
        damaged: Shards and folders that could not be listed to their end, each with the reason.
    """

    names: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    noted: list[str | None] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, sources: Sequence[Path]) -> Listing:
        """All pictures of folders, tar shards and files. Raises ``TitokError`` if there are none."""
        found = cls()

        def lost(where: str, name: str | None, reason: str) -> None:
            if name is None:
                found.damaged.append(f"{where}: {reason}")

        folders = [source for source in sources if source.is_dir()]
        beside, places = ClassFiles(folders), []
        for where, name, _ in read_files(find(sources, lost), lost, beside=beside.add):
            found.names.append(name)
            found.keys.append(key_of(where, name, folders))
            places.append(where)
        found.noted = [beside.of(where, key) for where, key in zip(places, found.keys, strict=True)]
        if not found.names:
            raise TitokError(f"no pictures in {', '.join(map(str, sources))}: give folders or tar shards of pictures")
        return found


@dataclass(frozen=True)
class Roles:
    """Which pictures are for what, by number; none has two roles. Each is in the order of classes.

    Attributes:
        reference: What every set is compared with.
        sets: Real pictures for comparison: sets with as many of each class as the reference.
        fit: What ``ClassMeans`` is fitted on.
    """

    reference: Tensor
    sets: list[Tensor]
    fit: Tensor

    @property
    def all(self) -> Tensor:
        """(n,) numbers of all that have a role."""
        return torch.cat([self.reference, *self.sets, self.fit])


def deal(
    labels: Tensor, names: Sequence[str], held_out: Tensor | None, sets: int, each: int, fit: int, seed: int
) -> Roles:
    """Give the pictures of each class their roles at random.

    Args:
        labels: (n,) class numbers, -1 for none.
        names: Of the classes, C.
        held_out: (n,) bool: pictures for the reference alone, all others for the rest; None to take any for anything.
        sets: How many to compare.
        each: Pictures of a class in the reference, at most; fewer where the sets could not have as many.
        fit: Pictures of a class to fit the classifier on, at most.

    Raises:
        TitokError: there are too few.
    """
    rng = torch.Generator().manual_seed(seed)
    dealt = []
    for number, name in enumerate(names):
        own = (labels == number).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=rng)]
        if held_out is None:
            count = min(each, (len(own) - 2) // (sets + 1))  # two are left for the classifier at least
            first, rest = own[: max(count, 0)], own[max(count, 0) :]
        else:
            first, rest = own[held_out[own]][:each], own[~held_out[own]]
            first = first[: max(len(rest) - 2, 0) // sets]
        if not len(first):
            where = "" if held_out is None else f", {int(held_out[own].sum())} of them held out"
            raise TitokError(
                f"there are too few pictures of {name}, {len(own)}{where}: {sets} sets and the reference need one "
                "each, and the classifier two: give more pictures, or ask for fewer sets"
            )
        dealt.append((first, *rest[: sets * len(first)].split(len(first)), rest[sets * len(first) :][:fit]))
    reference, *others, fitted = (torch.cat(parts) for parts in zip(*dealt, strict=True))
    if len(reference) <= NEIGHBOURS:
        raise TitokError(f"{len(reference)} pictures are too few to compare with: give {NEIGHBOURS + 1} or more")
    return Roles(reference, others, fitted)


class Chosen:
    """The pictures that have a role, read.

    Args:
        listing: All pictures.
        which: (n,) numbers of those to read.
        sources, side, device: As for ``Pictures``.

    Raises:
        TitokError: one cannot be read.
    """

    def __init__(
        self, listing: Listing, which: Tensor, sources: Sequence[Path], side: int, device: str | torch.device
    ) -> None:
        wanted = {listing.keys[number] for number in which.tolist()}
        self.pictures = Pictures(list(sources), side, device=device, only=wanted)
        place = {key: number for number, key in enumerate(self.pictures.keys)}
        if missing := sorted(wanted - place.keys()):
            raise TitokError(
                f"{missing[0]} cannot be read as a picture: take it out of the data or the table of labels"
            )
        self.places = torch.full((len(listing.keys),), -1)
        self.places[which] = torch.tensor([place[listing.keys[number]] for number in which.tolist()])

    def crops(self, which: Tensor, batch: int) -> Iterator[Tensor]:
        """Batches of the centre crops of the (n,) pictures asked for by number, (B, 3, side, side) in [0, 1]."""
        return (self.pictures.centre_crops(part) for part in self.places[which].split(batch))
