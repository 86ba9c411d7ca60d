"""A folder of pictures as WebDataset shards, which several GPUs read as fast as a disk gives them.

    python -m training.shards ILSVRC/train --out shards/train
    python -m training.shards ILSVRC/val --labels val.tsv --out shards/val
    python -m training.shards some/ --classes shards/train/shards.json --out shards/some    # numbered as there

OUT/0000.tar and so on hold ``00000000.jpg`` and ``00000000.cls``: a picture's file as it was, and the number of its
class. Classes are the first folders or, with --labels, what a table has for each picture; they are numbered from 0 in
the order of their sorted names, which for ImageNet's synsets is the numbering of every published model, unless all are
whole numbers, which number themselves. Pictures are shuffled, and not looked into: training counts those that it
cannot read. Shards are written whole or not at all; the same command again writes those that are missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from titokcodec.cli.picture_files import is_picture
from titokcodec.cli.script import Parser, UsageError, start
from titokcodec.errors import TitokError
from titokcodec.io.atomic import replacing, write_atomic
from titokcodec.io.names import examples, shown
from titokcodec.io.walk import walk

from .argtypes import whole
from .label_tables import Lookup, read_table
from .labels import classes_of
from .progress import Progress
from .reading import CLASS, key_of

ABOUT = "shards.json"  # in OUT: what the shards are of

Picture: TypeAlias = tuple[Path, str]
"""A picture's file, and the name of its class."""


def pictures_of(folder: Path, table: dict[str, str] | None) -> list[Picture]:
    """All pictures in a folder with their classes, sorted by path.

    Classes are those of ``table`` by the path below the folder without suffix; without a table, its first folder.

    Raises ``TitokError`` if there is no picture, or one without a class, or a class without one.
    """
    paths = [Path(path) for path in walk(folder, is_picture).files]
    if not paths:
        raise TitokError(f"there are no pictures in {shown(folder)}: give the folder that holds those of a set")
    if table is None:
        filled = {path.relative_to(folder).parts[0] for path in paths}
        if empty := sorted(shown(path) for path in folder.iterdir() if path.is_dir() and path.name not in filled):
            raise TitokError(
                f"there are no pictures in {examples(empty)}: remove what is no class, or add the pictures"
            )
    keys = [key_of(str(path.parent), path.name, [folder]) for path in paths]
    lookup = None if table is None else Lookup(table)
    labels = [key.rpartition("/")[0].partition("/")[0] if lookup is None else lookup.label(key) or "" for key in keys]
    if without := [shown(path) for path, label in zip(paths, labels, strict=True) if not label]:
        hint = "put each in the folder of its class, or give --labels" if table is None else "add them to the table"
        raise TitokError(f"there is no class for {examples(without)}: {hint}")
    return list(zip(paths, labels, strict=True))


def read_classes(file: Path) -> list[str]:
    """The classes of a set, in their order, from its ``shards.json``. Raises ``TitokError`` unless it is one."""
    try:
        classes = json.loads(file.read_text(encoding="utf-8"))["classes"]
        if not isinstance(classes, list) or len({*map(str, classes)}) < len(classes):
            raise ValueError
        return [str(label) for label in classes]
    except (OSError, ValueError, KeyError, TypeError):
        raise TitokError(f"{shown(file)} has no list of classes: give the {ABOUT} of other shards") from None


def write_shards(
    pictures: Sequence[Picture], out: Path, size: int, seed: int = 0, classes: Sequence[str] | None = None
) -> int:
    """Write those shards that are missing, of ``size`` pictures or a few less; returns how many there are then.

    Classes are numbered by their place among ``classes`` or, by default, by ``classes_of``.

    Raises ``TitokError`` if ``out`` has shards of other pictures, or a class is not among ``classes``; ``OSError`` if a
    file cannot be read or written.
    """
    present = {label for _, label in pictures}
    classes = list(classes_of(present) if classes is None else classes)
    if strange := sorted(present.difference(classes)):
        raise TitokError(f"not among the classes of --classes: {examples([shown(label) for label in strange])}")
    numbers = {label: str(number).encode() for number, label in enumerate(classes)}
    order = random.Random(seed).sample(pictures, len(pictures))
    count = -(-len(order) // size)
    names = os.fsencode("".join(f"{label}/{path.name}\n" for path, label in order))
    digest = hashlib.blake2b(names, digest_size=16).hexdigest()
    _claim(out, {"pictures": len(order), "shards": count, "digest": digest, "classes": classes})
    with Progress("writing shards", len(order), "pictures") as done:
        for shard in range(count):
            mine = range(shard, len(order), count)
            file = out / f"{shard:04d}.tar"
            if not file.exists():
                with replacing(file) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
                    for number in mine:
                        path, label = order[number]
                        suffix = path.suffix.lower().replace(".jpeg", ".jpg")
                        _add(tar, f"{number:08d}{suffix}", path.read_bytes())
                        _add(tar, f"{number:08d}{CLASS}", numbers[label])
            done.add(len(mine))
    return count


def _claim(out: Path, about: dict[str, object]) -> None:
    """See that a folder is new, or that its shards are the very same."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=1) + "\n"
    if not (file := out / ABOUT).exists() and not any(out.glob("*.tar")):
        write_atomic(file, text.encode())
    elif not file.exists() or file.read_text(encoding="utf-8") != text:
        raise TitokError(f"{shown(out)} has shards of other pictures, sizes or orders: give another --out")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of pictures")
    parser.add_argument("--labels", type=Path, help="table of key and label (tsv, csv, json) for classes of no folders")
    parser.add_argument("--classes", type=Path, help=f"{ABOUT} of other shards, to number classes as there")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--size", type=whole(1), default=4000, help="pictures a shard at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of their order (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.out.resolve().is_relative_to(options.data.resolve()):
        raise UsageError(f"--out {shown(options.out)} is inside of the pictures' folder: give one beside it")
    table = read_table(options.labels) if options.labels else None
    classes = read_classes(options.classes) if options.classes else None
    pictures = pictures_of(options.data, table)
    shards = write_shards(pictures, options.out, options.size, options.seed, classes)
    count = len({label for _, label in pictures})
    print(
        f"{len(pictures):,} pictures of {count:,} class{'es' * (count != 1)} in {shards:,} shard{'s' * (shards != 1)}"
    )


if __name__ == "__main__":
    start(main)
