"""Folders as WebDataset shards: the pictures' own bytes, the published numbers of classes, whole or not at all."""

import json
import tarfile

import pytest

from tests.conftest import plain_pictures
from titokcodec.cli.script import UsageError
from titokcodec.errors import TitokError
from training import shards
from training.data import Pictures
from training.labels import labels_of

SYNSETS = ("n01443537", "n01440764", "n02084071")  # not sorted; the second, a tench, is class 0 of ImageNet


@pytest.fixture
def tree(tmp_path):
    """Three classes of three pictures each, named as ImageNet's."""
    for index, synset in enumerate(SYNSETS):
        folder = tmp_path / "tree" / synset
        folder.mkdir(parents=True)
        plain_pictures(folder, 3)
        for number, path in enumerate(sorted(folder.iterdir())):
            (folder / f"{synset}_{index}{number}.JPEG").write_bytes(path.read_bytes() + synset.encode())  # none alike
            path.unlink()
    return tmp_path / "tree"


def members(out):
    """(shard, name): bytes of all members."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {(path.name, member.name): tar.extractfile(member).read() for member in tar}
    return found


def test_pictures_come_with_the_numbers_of_their_sorted_classes(tree, tmp_path, capsys):
    shards.main([str(tree), "--out", str(tmp_path / "out"), "--size", "4"])
    assert capsys.readouterr().out == "9 pictures of 3 classes in 3 shards\n"
    found = members(tmp_path / "out")
    assert {shard for shard, _ in found} == {"0000.tar", "0001.tar", "0002.tar"}
    assert sorted(name for _, name in found) == sorted(f"{n:08d}{end}" for n in range(9) for end in (".jpg", ".cls"))
    expected = {path.read_bytes(): sorted(SYNSETS).index(path.parent.name) for path in tree.rglob("*.JPEG")}
    numbers = {
        data: int(found[shard, f"{name[:8]}.cls"]) for (shard, name), data in found.items() if name[8:] == ".jpg"
    }
    assert numbers == expected
    assert [sum(name.endswith(".jpg") for at, name in found if at == shard) for shard in ("0000.tar", "0002.tar")] == [
        3,
        3,
    ]
    order = [int(found[key]) for key in sorted(found, key=lambda key: key[1]) if key[1].endswith(".cls")]
    assert order != sorted(order)  # shuffled


def test_training_reads_them_with_their_classes(tree, tmp_path):
    shards.main([str(tree), "--out", str(tmp_path / "out"), "--size", "5"])
    pictures = Pictures([tmp_path / "out"], 32)
    found = labels_of(pictures, None)
    assert found.classes == ("0", "1", "2") and (pictures.skipped, pictures.damaged) == (0, [])
    assert sorted(found.numbers(found.classes).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_table_gives_classes_where_no_folders_do(tree, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = ["key\tlabel"]
    for path in tree.rglob("*.JPEG"):
        rows.append(f"{path.stem}\t{path.parent.name}")
        path.rename(flat / path.name)
    (tmp_path / "val.tsv").write_text("\n".join(rows))
    with pytest.raises(TitokError, match=r"no class for .* and 6 more: put each in the folder of its class, or give"):
        shards.main([str(flat), "--out", str(tmp_path / "out")])
    shards.main([str(flat), "--labels", str(tmp_path / "val.tsv"), "--out", str(tmp_path / "out")])
    assert sorted(int(data) for (_, name), data in members(tmp_path / "out").items() if name.endswith(".cls")) == [
        0, 0, 0, 1, 1, 1, 2, 2, 2,
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "shards.json").read_text())["classes"] == sorted(SYNSETS)


def test_what_was_interrupted_is_finished_and_comes_out_the_same(tree, tmp_path, monkeypatch):
    words = [str(tree), "--size", "4", "--out"]
    shards.main([*words, str(tmp_path / "whole")])
    add, added = shards._add, []

    def stop_in_the_second(tar, name, data):
        added.append(name)
        if len(added) == 9:
            raise KeyboardInterrupt
        add(tar, name, data)

    monkeypatch.setattr(shards, "_add", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        shards.main([*words, str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0000.tar", "shards.json"]
    monkeypatch.setattr(shards, "_add", lambda *given: added.append("again") or add(*given))
    shards.main([*words, str(tmp_path / "out")])
    assert added.count("again") == 12  # not those of the first shard
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_shards_of_other_pictures_are_left_alone(tree, tmp_path):
    words = [str(tree), "--out", str(tmp_path / "out")]
    shards.main(words)
    with pytest.raises(TitokError, match="has shards of other pictures, sizes or orders: give another --out"):
        shards.main([*words, "--seed", "1"])
    next(tree.rglob("*.JPEG")).unlink()
    with pytest.raises(TitokError, match="has shards of other pictures"):
        shards.main(words)


def test_what_is_no_set_of_pictures_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TitokError, match="there are no pictures in"):
        shards.main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_set_is_numbered_as_the_whole(tree, tmp_path):
    shards.main([str(tree), "--out", str(tmp_path / "whole")])
    (tree / SYNSETS[1]).rename(tmp_path / "gone")
    given = ["--classes", str(tmp_path / "whole" / "shards.json")]
    shards.main([str(tree), *given, "--out", str(tmp_path / "part")])
    found = {int(data) for (_, name), data in members(tmp_path / "part").items() if name.endswith(".cls")}
    assert found == {1, 2}
    (tree / SYNSETS[0]).rename(tree / "n99999999")
    with pytest.raises(TitokError, match="not among the classes of --classes: n99999999"):
        shards.main([str(tree), *given, "--out", str(tmp_path / "other")])
    for text in ("[1]", '{"classes": "abc"}', '{"classes": ["a", "a"]}'):
        (tmp_path / "junk.json").write_text(text)
        with pytest.raises(TitokError, match=r"junk\.json has no list of classes"):
            shards.main([str(tree), "--classes", str(tmp_path / "junk.json"), "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_a_class_without_pictures_is_none_and_shards_do_not_lie_among_them(tree, tmp_path):
    (tree / "n00000001").mkdir()
    (tree / "n00000001" / "readme.txt").write_text("a note")
    with pytest.raises(TitokError, match=r"there are no pictures in .*n00000001"):
        shards.main([str(tree), "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="inside of the pictures' folder"):
        shards.main([str(tree), "--out", str(tree / "out")])
    assert not (tree / "out").exists()


def test_classes_that_are_numbers_keep_them(tree, tmp_path):
    for synset, number in zip(SYNSETS, ("10", "9", "2"), strict=True):
        (tree / synset).rename(tree / number)
    shards.main([str(tree), "--out", str(tmp_path / "out")])
    found = members(tmp_path / "out")
    expected = {path.read_bytes(): path.parent.name.encode() for path in tree.rglob("*.JPEG")}
    at = {name[:8]: data for (_, name), data in found.items() if name.endswith(".cls")}
    assert {data: at[name[:8]] for (_, name), data in found.items() if name.endswith(".jpg")} == expected
