"""The object cache: private, whole or absent, bounded."""

from __future__ import annotations

import os
import tempfile

import pytest

from llmbol_core.native.cache import ObjectCache, default_directory, key_of


@pytest.fixture
def cache(tmp_path):
    return ObjectCache(str(tmp_path / "cache"), limit=1000)


def test_what_was_put_is_there_and_private(cache):
    assert cache.get("a") is None
    cache.put("a", b"content")
    assert cache.get("a") == b"content"
    assert os.stat(cache.directory).st_mode & 0o777 == 0o700
    (file,) = os.scandir(cache.directory)
    assert file.stat().st_mode & 0o777 == 0o600
    cache.clear()
    assert cache.get("a") is None


def test_damaged_files_are_absent(cache):
    cache.put("a", b"content")
    (file,) = os.scandir(cache.directory)
    with open(file.path, "r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"x")
    assert cache.get("a") is None
    with open(file.path, "wb"):
        pass
    assert cache.get("a") is None


def test_files_in_the_place_of_others_are_absent(cache):
    cache.put("a", b"content")
    os.rename(cache._path("a"), cache._path("b"))
    assert cache.get("b") is None


@pytest.mark.parametrize("there", [True, False])
def test_links_are_not_followed(cache, tmp_path, there):
    other = tmp_path / "other"
    cache.put("a", b"content")
    os.rename(cache._path("a"), other)
    before = other.read_bytes()
    if not there:
        other.unlink()
    os.symlink(other, cache._path("a"))
    assert cache.get("a") is None
    cache.put("a", b"new")
    assert cache.get("a") == b"new"
    assert (other.read_bytes() if there else before) == before
    assert other.exists() == there


def test_what_is_no_file_is_absent(cache):
    cache.put("a", b"content")
    os.mkfifo(cache._path("b"), 0o600)
    os.mkdir(cache._path("c"), 0o700)
    for key in "bc":
        assert cache.get(key) is None
    cache.put("c", b"content")
    assert cache.get("c") is None


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(cache):
    cache.put("a", b"content")
    os.unlink(cache._path("a"))
    os.mkfifo(cache._path("a"))
    assert cache.get("a") is None
    cache.put("a", b"content")
    assert cache.get("a") == b"content"


def test_a_file_that_cannot_be_marked_as_used_is_read(cache, monkeypatch):
    def refuse(*given):
        raise OSError

    cache.put("a", b"content")
    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get("a") == b"content"


def test_what_was_not_written_to_its_end_makes_room(cache):
    cache.put("a", bytes(10))
    left = os.path.join(cache.directory, ".llmbol-0.tmp")
    with open(left, "wb") as file:
        file.write(bytes(2000))
    os.utime(left, (0, 0))
    cache.put("b", bytes(100))
    assert not os.path.exists(left)
    assert cache.get("a") is not None


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_others_can_write_is_not_trusted(cache, what):
    cache.put("a", b"content")
    (file,) = os.scandir(cache.directory)
    os.chmod(file.path if what == "file" else cache.directory, 0o777)
    assert cache.get("a") is None


def test_the_least_recently_used_is_dropped(cache):
    for number in range(3):
        cache.put(str(number), bytes(280))
        os.utime(cache._path(str(number)), (number, number))
    assert cache.get("0") is not None
    cache.put("3", bytes(280))
    assert cache.get("1") is None
    assert cache.get("0") is not None


def test_many_small_objects_stay_near_the_limit_and_are_seldom_looked_at(tmp_path, monkeypatch):
    looks, evict = [], ObjectCache._evict

    def noted(cache):
        looks.append(cache)
        evict(cache)

    monkeypatch.setattr(ObjectCache, "_evict", noted)
    cache = ObjectCache(str(tmp_path / "cache"), limit=10_000)
    for number in range(400):
        cache.put(str(number), bytes(60))
        assert sum(size for _, size, _ in cache._entries()) < 13_000
    assert 20 < len(looks) < 150
    assert sum(size for _, size, _ in cache._entries()) > 9000


def test_a_cache_that_cannot_be_written_is_silent(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ObjectCache(str(tmp_path / "file" / "cache"))
    cache.put("a", b"content")
    assert cache.get("a") is None


def test_the_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", "/somewhere")
    assert default_directory() == "/somewhere"
    monkeypatch.delenv("LLMBOL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == f"{tmp_path}/llmbol"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", f"{tmp_path}/me")
    assert default_directory() == f"{tmp_path}/me/.cache/llmbol"
    assert not os.listdir(tmp_path)


# ~ is what expanduser leaves where nobody knows better; nothing can be made in a file.
@pytest.mark.parametrize("home", ["", "~", "/dev/null/me", __file__])
def test_without_a_home_the_directory_is_a_temporary_one_of_this_user(monkeypatch, home):
    for name in ("LLMBOL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    assert default_directory() == f"{tempfile.gettempdir()}/llmbol-{os.getuid()}"


def test_a_directory_that_can_only_be_read_is_read(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMBOL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "llmbol").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert default_directory() == f"{tmp_path}/llmbol"


def test_keys_tell_parts_apart():
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("ab", "c") == key_of("ab", "c")
