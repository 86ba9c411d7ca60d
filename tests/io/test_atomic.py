"""Files that are written whole or not at all, whatever their names, links, permissions and other writers are."""

import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from titokcodec.io import atomic
from titokcodec.io.atomic import replacing, write_atomic

PART = f".titok-{'0' * 16}.part"
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and pipes")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, as a process that has just begun finds it."""
    monkeypatch.chdir(tmp_path)
    atomic._sweep.cache_clear()
    return tmp_path


def permissions(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_every_legal_name_can_be_written(here):
    for length in (1, 237, 238, 251, 255):
        name = "n" * length
        for data in (b"first", b"second"):
            write_atomic(name, data)
            assert Path(name).read_bytes() == data
    assert len(os.listdir(here)) == 5


def test_an_error_leaves_the_old_file_and_nothing_else(here):
    write_atomic("a", b"old")
    with pytest.raises(RuntimeError), replacing("a") as file:
        file.write(b"new")
        raise RuntimeError
    with pytest.raises(RuntimeError), replacing("b") as file:
        raise RuntimeError
    assert os.listdir(here) == ["a"] and Path("a").read_bytes() == b"old"


def test_the_unfinished_file_has_another_name_each_time(here):
    names = set()
    for _ in range(3):
        with replacing("a"):
            names |= set(os.listdir(here)) - {"a"}
    assert len(names) == 3


def test_a_link_in_place_of_the_unfinished_file_is_not_followed(here, monkeypatch):
    Path("precious").write_bytes(b"precious")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda count: "0" * 2 * count)
    os.symlink("precious", PART)
    with pytest.raises(OSError):
        write_atomic("a", b"new")
    assert Path("precious").read_bytes() == b"precious" and not Path("a").exists()


def test_threads_that_write_one_file_leave_one_of_their_contents(here):
    contents = [bytes([number]) * 100_000 for number in range(8)]
    together = threading.Barrier(8)

    def work(content):
        together.wait()
        for _ in range(5):
            with replacing("a") as file:
                for start in range(0, len(content), 10_000):
                    file.write(content[start : start + 10_000])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, contents))
    assert Path("a").read_bytes() in contents and os.listdir(here) == ["a"]


@posix
def test_permissions_are_those_of_the_old_file_or_what_the_umask_leaves(here):
    before = os.umask(0o027)
    try:
        write_atomic("new", b"")
        assert permissions("new") == 0o640
        for mode in (0o600, 0o666, 0o755):
            os.chmod("new", mode)
            write_atomic("new", b"newer")
            assert permissions("new") == mode
    finally:
        os.umask(before)


@posix
def test_a_read_only_file_is_replaced_only_if_that_is_asked_for(here):
    write_atomic("a", b"old")
    os.chmod("a", 0o444)
    with pytest.raises(PermissionError, match="read-only"):
        write_atomic("a", b"new")
    with pytest.raises(FileExistsError):
        write_atomic("a", b"new", overwrite=False)
    assert Path("a").read_bytes() == b"old"
    write_atomic("a", b"new", overwrite=True)
    assert Path("a").read_bytes() == b"new" and permissions("a") == 0o444


def test_a_link_stays_and_what_it_leads_to_is_replaced(here):
    os.mkdir("far")
    os.symlink("far/real", "link")
    for data in (b"first", b"second"):  # it may lead to what is not there yet
        write_atomic("link", data)
        assert Path("link").is_symlink() and Path("far/real").read_bytes() == data
    with pytest.raises(FileExistsError):
        write_atomic("link", b"third", overwrite=False)
    os.symlink("loop", "loop")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomic("loop", b"never")
    assert os.readlink("loop") == "loop" and sorted(os.listdir(here)) == ["far", "link", "loop"]


def test_folders_and_missing_folders_are_errors_that_name_the_target(here):
    os.mkdir("folder")
    for path in ("folder", "missing/a"):
        with pytest.raises(OSError) as caught:
            write_atomic(path, b"")
        assert caught.value.filename == path
    assert os.listdir(here) == ["folder"]


@posix
@pytest.mark.parametrize("overwrite", [None, True, False])
def test_devices_and_pipes_are_written_into(here, overwrite):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic("pipe", b"through", overwrite)
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(os.stat("pipe").st_mode)
    os.close(reader)
    os.symlink("/dev/null", "null")
    for path in ("/dev/null", "null"):
        write_atomic(path, b"gone", overwrite)
        assert stat.S_ISCHR(os.stat(path).st_mode) and Path("null").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_open_descriptors_are_written_into_even_if_they_are_files(here, name):
    code = f"from titokcodec.io.atomic import write_atomic; write_atomic({name!r}, b'more', overwrite=False)"
    Path("log").write_bytes(b"some ")
    before = os.stat("log").st_ino
    with open("log", "ab") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert Path("log").read_bytes() == b"some more" and os.stat("log").st_ino == before
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert piped.stdout == b"more" and os.listdir(here) == ["log"]


@posix
def test_what_killed_runs_left_is_removed_and_nothing_else(here):
    code = """
import time
from titokcodec.io.atomic import replacing
with replacing("b") as file:
    print("open", flush=True)
    time.sleep(300)
"""
    killed, living = (subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2))
    parts = []
    for process in (killed, living):
        assert process.stdout.readline() == b"open\n"
        parts += set(os.listdir(here)) - set(parts)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for name in (others := [".titok-1.part", ".titok-0123456789abcdef.part.txt", "a.part", ".b.17.part"]):
        Path(name).write_bytes(b"somebody else's")
    try:
        write_atomic("a", b"")
        assert set(os.listdir(here)) == {"a", *parts, *others}, "too young to be distinguished from a new one"
        for name in (*parts, *others):
            os.utime(name, (0, 0))
        atomic._sweep.cache_clear()
        write_atomic("a", b"")
        (kept,) = set(parts) & set(os.listdir(here))
        assert set(os.listdir(here)) == {"a", kept, *others}, "the living one's stays"
    finally:
        living.kill()
        living.wait()
    atomic._sweep.cache_clear()
    write_atomic("a", b"")
    assert set(os.listdir(here)) == {"a", *others}
