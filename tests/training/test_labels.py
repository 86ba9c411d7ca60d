"""Keys of pictures, and the classes that tables and folders give them."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from titokcodec.errors import TitokError
from training.data import Pictures
from training.label_tables import read_table, read_tables
from training.labels import labels_of


def picture(number=0):
    target = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(target, "PNG")
    return target.getvalue()


def folders(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    return root


def shard(path, *names):
    with tarfile.open(path, "w") as file:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(picture())
            file.addfile(member, io.BytesIO(picture()))
    return path


def opened(*sources):
    return Pictures(list(sources), side=16)


@pytest.fixture
def classes(tmp_path):
    return folders(tmp_path / "classes", "cat/0000.png", "cat/0001.png", "cup/0000.png", "cup/0001.png")


def write(tmp_path, text, name="labels.tsv", encoding="utf-8"):
    (tmp_path / name).write_text(text, encoding=encoding)
    return tmp_path / name


def found(tmp_path, pictures, text, name="labels.tsv", encoding="utf-8"):
    return labels_of(pictures, read_table(write(tmp_path, text, name, encoding)))


# ---- keys ------------------------------------------------------------------------------------------------------


def test_a_key_is_the_path_below_the_folder_that_is_given(classes, tmp_path, monkeypatch):
    assert opened(classes).keys == ["cat/0000", "cat/0001", "cup/0000", "cup/0001"]
    assert opened(classes / "cup").keys == ["0000", "0001"]
    assert opened(classes / "cat" / "0001.png").keys == ["0001"]
    monkeypatch.chdir(classes)
    assert opened(".").keys == opened(classes).keys
    folders(tmp_path / "b.tar", "x.y/photo.v2.png")  # a folder, whatever it is called
    assert opened(tmp_path / "b.tar").keys == ["x.y/photo.v2"]


def test_a_key_in_a_shard_is_webdatasets(tmp_path):
    pictures = opened(shard(tmp_path / "a.tar", "./cat/0000.seg.png", "x.y/1.png", "2.jpg.png"))
    assert pictures.keys == ["cat/0000", "x.y/1", "2"]
    assert opened(shard(tmp_path / "b.tar", ".png.png")).keys == [".png.png"], "not nothing"


# ---- classes ---------------------------------------------------------------------------------------------------


def test_pictures_of_one_name_in_two_folders_are_told_apart(classes, tmp_path):
    text = "key\tlabel\ncat/0000\tcat\ncat/0001\tcat\ncup/0000\tcup\ncup/0001\tcup\n"
    labels = found(tmp_path, opened(classes), text)
    assert labels.found == ["cat", "cat", "cup", "cup"] and labels.classes == ("cat", "cup")
    assert labels.numbers(("cup", "cat")).equal(torch.tensor([1, 1, 0, 0]))
    assert labels.numbers(("cup",)).tolist() == [-1, -1, 0, 0]
    bare = found(tmp_path, opened(classes), "0000\tcat\n0001\tcup\n")
    assert bare.found == [None] * 4, "nobody knows which one is meant"
    assert found(tmp_path, opened(classes / "cup"), "0000\tcat\n").found == ["cat", None]


def test_folders_are_classes_where_no_table_is_given(classes, tmp_path):
    (classes / "loose.png").write_bytes(picture())
    labels = labels_of(opened(classes), None)
    assert labels.found == ["cat", "cat", "cup", "cup", None]
    assert labels_of(opened(classes / "cat"), None).classes == ()
    assert labels_of(opened(folders(tmp_path / "one", "only/a.png", "only/b.png")), None).classes == ()
    pictures = opened(shard(tmp_path / "a.tar", "dog/1.png", "fox/deeper/1.png"))
    assert labels_of(pictures, None).found == ["dog", "fox"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.tsv", "key\tlabel\ncat/0000\ttom\ncup/0001\tmug\ncup/0000\t\n"),
        ("labels.tsv", "cat/0000\ttom\ncup/0001\tmug\n"),
        ("labels.csv", "cat/0000.png,tom\r\n\r\n./cup/0001.png, mug\r\n"),
        ("labels.csv", 'File_Name;size;Class\n"cat/0000.png";3;tom\ncup/0001.png;4;"mug"\n'),
        ("metadata.csv", "label,file_name\ntom,cat/0000.png\nmug,cup/0001.png\n"),
        ("labels.json", '{"cat/0000": "tom", "cup/0001.png": "mug", "cup/0000": null}'),
        ("dataset.json", '{"labels": [["cat/0000.png", "tom"], ["cup/0001.png", "mug"]]}'),
        ("labels.JSON", '[{"key": "cat/0000", "label": "tom", "more": 3}, {"label": "mug", "key": "cup/0001"}]'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_of_many_kinds(classes, tmp_path, name, text, encoding):
    labels = found(tmp_path, opened(classes), text, name, encoding)
    assert labels.found == ["tom", None, None, "mug"]
    assert labels.classes == ("mug", "tom")


def test_several_tables_are_one_in_which_later_rows_count(classes, tmp_path):
    first = write(tmp_path, "cat/0000\ttom\ncat/0001\ttom\ncup/0000\tmug\n", "a.tsv")
    second = write(tmp_path, "key,label\ncat/0001,kit\ncup/0000,-\n", "b.csv")
    assert labels_of(opened(classes), read_tables([first, second])).found == ["tom", "kit", None, None]
    assert labels_of(opened(classes), read_tables([second, first])).found == ["tom", "tom", "mug", None]


def test_patterns_label_all_keys_that_fit_unless_these_are_written_out(classes, tmp_path):
    labels = found(tmp_path, opened(classes), "cat/0001\ttom\ncat/*\tcat\n*1\tfirst\n")
    assert labels.found == ["cat", "tom", None, "first"]
    assert "no picture for" not in str(labels)
    assert found(tmp_path, opened(classes), "*\tthing\ncat/*\t-\ncat/0000\tcat\n").found == [
        "cat",
        None,
        "thing",
        "thing",
    ], "the last pattern counts"
    assert "no picture for dog/*, a[1] of the table" in str(found(tmp_path, opened(classes), "dog/*\td\na[1]\ta\n"))
    first, second = (write(tmp_path, text, name) for text, name in (("cat/0000\ttom\n", "a.tsv"), ("c*\tc\n", "b.tsv")))
    assert labels_of(opened(classes), read_tables([first, second])).found == ["tom", "c", "c", "c"]


def test_labels_are_renamed_merged_and_dropped_and_rare_ones_go(classes, tmp_path):
    text = "cat/0000\trose\ncat/0001\ttulip\ncup/0000\tformula one\ncup/0001\tmug\n"
    labels = found(tmp_path, opened(classes), text)
    names = read_tables([write(tmp_path, "rose\tflower\ntulip\tflower\nform*\t-\nlily\tflower\n", "names.tsv")])
    renamed = labels.renamed(names)
    assert renamed.found == ["flower", "flower", None, "mug"] and renamed.classes == ("flower", "mug")
    assert "; no label lily to rename" in str(renamed)
    for header in ("label\tclass\n", "label\tname\n", "from\tto\n", "key\tlabel\n", ""):
        rows = write(tmp_path, f"{header}rose\tflower\n", "names.tsv")
        assert read_tables([rows], renaming=True) == {"rose": "flower"}
    with pytest.raises(TitokError, match="is no table of label and class: No such file"):
        read_tables([tmp_path / "nothing.tsv"], renaming=True)
    objects = write(tmp_path, '[{"label": "rose", "class": "flower"}, {"label": "mug"}]', "names.json")
    assert read_tables([objects], renaming=True) == {"rose": "flower", "mug": ""}
    few = renamed.without_rare(2)
    assert few.found == ["flower", "flower", None, None] and few.classes == ("flower",)
    assert str(few).endswith(
        "2 of 4 pictures have one of 1 label; none for cup/0000, cup/0001; no label lily to rename; too few pictures "
        "for mug (1)"
    )
    assert renamed.without_rare(1).found == renamed.found and "too few" not in str(renamed.without_rare(1))


def test_whole_numbers_are_the_numbers_of_their_classes(classes, tmp_path):
    """And not places in an order of names, in which 10 would come before 2; from wherever they are."""
    labels = found(tmp_path, opened(classes), '{"cat/0000": 10, "cup/0000": 2, "cup/0001": "0"}', "l.json")
    assert labels.numbered and labels.classes == tuple(map(str, range(11)))
    assert labels.numbers(labels.classes).tolist() == [10, -1, 2, 0]
    assert "3 of 4 pictures have one of 3 labels, numbers up to 10" in str(labels)
    numbered = opened(folders(tmp_path / "numbered", *(f"{number}/a.png" for number in (0, 2, 10))))
    assert numbered.keys == ["0/a", "10/a", "2/a"]
    assert labels_of(numbered, None).numbers(labels_of(numbered, None).classes).tolist() == [0, 10, 2]


@pytest.mark.parametrize("other", ["tom", "-1", "1.0", "007", "10000", "٣"])
def test_where_one_is_no_such_number_all_are_names(classes, tmp_path, other):
    labels = found(tmp_path, opened(classes), f"cat/0000\t10\ncat/0001\t2\ncup/0000\t{other}\n")
    assert not labels.numbered and labels.classes == tuple(sorted(["10", "2", other]))


def test_blanks_make_no_other_class(classes, tmp_path):
    labels = found(tmp_path, opened(classes), "cat/0000\tgolden  retriever\ncat/0001\tgolden retriever\n")
    assert labels.classes == ("golden retriever",)


def test_files_beside_pictures_are_classes_where_neither_table_nor_folders_are(tmp_path):
    """As ImageNet's shards have them, before a picture or after it, each of its own shard."""
    data, members = picture(), {"0.cls": b"207", "0.jpg": None, "1.jpg": None, "1.cls": b" 0\n", "2.jpg": None}
    members |= {"3.cls": b"cat", "3.jpg": None, "4.cls": b"1" * 40, "4.jpg": None, "5.cls": b"-1", "5.jpg": None}
    members |= {"6.x.png": None, "6.cls": b"007"}
    for name, moved in (("a.tar", 0), ("b.tar", 1)):
        with tarfile.open(tmp_path / name, "w") as file:
            for key, value in members.items():
                value = data if value is None else value + b"0" * moved
                member = tarfile.TarInfo(key)
                member.size = len(value)
                file.addfile(member, io.BytesIO(value))
    labels = labels_of(opened(tmp_path / "a.tar"), None)
    assert labels.found == ["207", "0", None, None, None, None, "7"]
    assert labels.classes == tuple(map(str, range(208)))
    expected = "3 of 7 pictures have one of 3 labels, numbers up to 207; none for 2, 3, 4 and 1 more"
    assert str(labels) == f"classes in .cls files: {expected}"
    both = opened(tmp_path)
    assert labels_of(both, None).found[7] == "2070" and labels_of(both, None).found[0] == "207"
    assert labels_of(both, {"1": "one"}).names == ["one"], "a table goes before"


def test_files_that_say_no_class_are_reported(tmp_path):
    """Words, and numbers that no class has: one among a thousand would number all of them otherwise."""
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for key, value in {"0.jpg": picture(), "0.cls": b"cat", "1.jpg": picture(), "1.cls": b"1" + b"0" * 30}.items():
            member = tarfile.TarInfo(key)
            member.size = len(value)
            file.addfile(member, io.BytesIO(value))
    labels = labels_of(opened(tmp_path / "a.tar"), None)
    assert labels.tried and not labels.classes
    assert str(labels) == "classes in .cls files: 0 of 2 pictures have one of 0 labels; none for 0, 1"


def test_files_beside_pictures_in_folders(classes, tmp_path):
    (classes / "cat" / "0001.cls").write_text("12\n")
    (classes / "cup" / "0001.cls").mkdir()
    assert labels_of(opened(classes / "cat"), None).found == [None, "12"]
    assert opened(classes).noted == [None, "12", None, None]
    assert not labels_of(opened(classes / "cup"), None).tried
    assert labels_of(opened(classes), None).classes == ("cat", "cup"), "folders go before"


def test_what_a_table_does_not_match_is_counted_and_named(classes, tmp_path):
    labels = found(tmp_path, opened(classes), "cat/0000\ttom\ndog/1\tdog\na\tdog\nb\tdog\nc\tdog\n")
    assert labels.classes == ("tom",), "a class is one of the pictures"
    assert str(labels) == (
        "table: 1 of 4 pictures have one of 1 label; none for cat/0001, cup/0000, cup/0001; "
        "no picture for dog/1, a, b and 1 more of the table"
    )
    whole = found(tmp_path, opened(classes / "cat"), "0000\ttom\n0001\ttom\n")
    assert str(whole) == "table: 2 of 2 pictures have one of 1 label"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("l.tsv", "", "it is empty"),
        ("l.tsv", "key\tlabel\n", "it has no rows"),
        ("l.json", "{}", "it has no rows"),
        ("l.tsv", 'a\t"x\nb\ty\n', "unexpected end of data"),
        ("l.tsv", 'a\t"x\nb\ty"\n', "a row has more than one line: is a quote not closed"),
        ("l.tsv", "key\tlabel\n\tx\n", "a row has no key"),
        ("l.json", '{"x": true}', "the label of 'x' is neither text nor a whole number"),
        ("l.tsv", "key\nx\n", "neither tab nor comma"),
        ("l.tsv", "key\tcolour\na\tred\n", "its header, key, colour, does not name both columns"),
        ("l.csv", "a,b,c\n", "3 columns and no header"),
        ("l.csv", "key,label\nx\n", "row 2 has 1 columns"),
        ("l.csv", "key,label\nx,a\nx,b\n", "'x' has two labels, 'a' and 'b'"),
        ("l.json", "{", "it is no JSON, an object or a list: Expecting"),
        ("l.json", '{"key": "a", "label": "b"}\n{"key": "c"}', "it is no JSON, an object or a list: Extra data"),
        ("l.json", "3", "neither an object nor a list"),
        ("l.json", '["x"]', "no pair of key and label"),
        ("l.json", '{"x": [1]}', "the label of 'x' is neither text nor a whole number"),
        ("l.json", "[" * 100_000, ""),
    ],
)
def test_tables_that_are_none_are_refused_in_one_line(tmp_path, name, text, reason):
    path = write(tmp_path, text, name)
    with pytest.raises(TitokError, match=f"{name} is no table of key and label: .*{reason}") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_as_text_are_no_tables(tmp_path):
    (tmp_path / "l.tsv").write_bytes(b"key\tlabel\n\xff\xfe\t1\n")
    for name, reason in (("l.tsv", "it is not in UTF-8, save it as such"), ("lost.tsv", "No such file")):
        with pytest.raises(TitokError, match=f"{name} is no table of key and label: .*{reason}"):
            read_table(tmp_path / name)
