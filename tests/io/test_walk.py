"""Searching folders: every file once, under its own name, whatever links there are."""

import os

import pytest

from titokcodec.io.walk import AGAIN, HIDDEN, NOWHERE, summary, walk


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_png(path):
    return path.suffix == ".png"


def touch(*names):
    for name in names:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        open(name, "w").close()


def test_files_come_in_the_order_of_their_parts(here):
    touch("set/b/1.png", "set/b-c/1.png", "set/a.png", "set/b/0.png", "set/a.txt", "set/c.png/2.png")
    found = walk("set", is_png)
    assert found.files == ["set/a.png", "set/b/0.png", "set/b/1.png", "set/b-c/1.png", "set/c.png/2.png"]
    assert (found.left_out, found.problems) == ([], [])


def test_a_folders_own_name_goes_before_those_of_links(here):
    touch("set/z/deep/1.png", "far/2.png")
    os.symlink("z/deep", "set/a")
    os.symlink("../far", "set/b")
    os.symlink("..", "far/up")
    found = walk("set", is_png)
    assert found.files == ["set/b/2.png", "set/z/deep/1.png"]
    assert (("set/a", AGAIN) in found.left_out) and found.problems == []


def test_links_that_multiply_cost_no_time(here):
    """Thirty folders with two links each to the next are a thousand million paths."""
    for number in range(30):
        os.makedirs(f"far/{number}")
        for name in "ab":
            os.symlink(f"../{number + 1}", f"far/{number}/{name}")
    touch("far/30/1.png")
    os.mkdir("set")
    os.symlink("../far/0", "set/start")
    found = walk("set", is_png)
    assert found.files == [f"set/start/{'a/' * 30}1.png"] and len(found.left_out) == 30


def test_links_to_files_are_files_even_if_they_lead_nowhere(here):
    """Reading them then fails; a name without a suffix may have been a folder's."""
    touch("1.png")
    os.mkdir("set")
    os.symlink("../1.png", "set/a.png")
    os.symlink("nowhere", "set/b.png")
    os.symlink("c.png", "set/c.png")
    os.symlink("nowhere", "set/pictures")
    os.symlink("nowhere", "set/notes.txt")
    touch("set/.d.png")
    found = walk("set", is_png)
    assert found.files == ["set/a.png", "set/b.png", "set/c.png"]
    assert found.left_out == [("set/.d.png", HIDDEN), ("set/pictures", NOWHERE)]


def test_hidden_folders_are_not_searched_unless_they_are_given(here):
    touch("set/1.png", "set/.cache/2.png", "set/a/.git/b/3.png")
    os.symlink(".cache", "set/.link")
    found = walk("set", is_png)
    assert found.files == ["set/1.png"]
    assert found.left_out == [("set/.cache", HIDDEN), ("set/.link", HIDDEN), ("set/a/.git", HIDDEN)]
    assert walk("set/.cache", is_png).files == ["set/.cache/2.png"]


def test_folders_that_cannot_be_listed_are_named(here):
    (problem,) = walk("missing", is_png).problems
    assert problem.filename == "missing"


def test_a_summary_is_one_line_with_a_few_names():
    left_out = [*((f"{number}.heic", "not read") for number in range(5)), ("two\nlines", HIDDEN)]
    assert summary(left_out) == "6 left out: 0.heic, 1.heic, 2.heic and 2 more (not read); 'two\\nlines' (hidden)"
