"""Data that processes share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmbol_core.native import shared


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shared"


def make(write):
    write(3, memoryview(b"defg"))
    write(0, memoryview(b"abc"))


def never(write):
    raise AssertionError("made twice")


def test_bytes_are_made_once(folder):
    assert bytes(shared.kept(("a", 1), 7, make) or b"") == b"abcdefg"
    assert bytes(shared.kept(("a", 1), 7, never) or b"") == b"abcdefg"
    assert bytes(shared.kept(("a", 2), 7, make) or b"") == b"abcdefg"
    assert len(list(folder.iterdir())) == 2


def test_of_two_makers_the_first_wins(folder):
    def slow(write):
        assert shared.kept(("a",), 7, make) is not None
        write(0, memoryview(b"0000000"))

    assert bytes(shared.kept(("a",), 7, slow) or b"") == b"abcdefg"
    assert len(list(folder.iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no permissions here")
def test_files_that_others_can_write_are_not_believed(folder):
    shared.kept(("a",), 7, make)
    (path,) = folder.iterdir()
    path.chmod(0o666)
    assert shared.kept(("a",), 7, make) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no permissions here")
def test_directories_that_others_can_write_are_not_believed(folder):
    before = os.umask(0)
    try:
        shared.kept(("a",), 7, make)
    finally:
        os.umask(before)
    for directory in (folder, folder.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
        directory.chmod(0o777)
        assert shared.kept(("a",), 7, make) is None
        directory.chmod(0o700)
    assert shared.kept(("a",), 7, never) is not None


def test_links_are_not_followed(folder, tmp_path):
    shared.kept(("a",), 7, make)
    (path,) = folder.iterdir()
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    assert shared.kept(("a",), 7, make) is None


def test_a_file_of_another_length_is_not_believed(folder):
    shared.kept(("a",), 7, make)
    (path,) = folder.iterdir()
    path.write_bytes(b"abc")
    assert shared.kept(("a",), 7, make) is None


def test_what_was_not_used_for_longest_makes_room(folder, monkeypatch):
    monkeypatch.setattr(shared, "_LIMIT", 20)
    for number, name in enumerate("abc"):
        shared.kept((name,), 7, make)
        for path in folder.iterdir():
            os.utime(path, (number, number))
    assert len(list(folder.iterdir())) == 3
    assert shared.drop_oldest(str(folder)) == 14
    assert len(list(folder.iterdir())) == 2
    assert shared.kept(("d",), 21, make) is None


def test_room_is_made_at_once_where_there_is_far_too_much(folder, monkeypatch):
    monkeypatch.setattr(shared, "_LIMIT", 20)
    for name in "abcdef":
        shared.kept((name,), 7, make)
    assert len(list(folder.iterdir())) <= 4
    assert shared.kept(("f",), 7, never) is not None


def test_a_process_leaves_no_more_than_is_allowed(folder):
    text = (
        "from llmbol_core.native import shared; shared._LIMIT = 20\n"
        "for name in 'abc': shared.kept((name,), 7, lambda write: write(0, memoryview(b'a')))"
    )
    subprocess.run([sys.executable, "-c", text], check=True)
    assert len(list(folder.iterdir())) == 2


def test_a_failing_maker_leaves_nothing(folder):
    def fail(write):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared.kept(("a",), 7, fail)
    assert not list(folder.iterdir())


def test_a_process_maps_them_once(folder):
    first, second = (shared.kept(("a",), 7, make) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.obj is second.obj
