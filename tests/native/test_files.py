import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmbol_core.errors import FileError
from llmbol_core.native import files
from llmbol_core.native.files import (
    atomic_write,
    check_target,
    is_temporary,
    map_file,
    read_bytes,
)


def test_new_file_has_the_mode_that_the_umask_allows(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"hello")
    finally:
        os.umask(old)
    assert read_bytes(tmp_path / "a") == b"hello"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_keeps_mode_and_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o600


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a").write_bytes(b"old")
    expected = FileError if error is OSError else error

    def write_some() -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            raise error("stop")

    with pytest.raises(expected):
        write_some()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_disk():
    with (
        pytest.raises(FileError, match=r"^/dev/full: no space left on device$"),
        atomic_write("/dev/full") as file,
    ):
        file.write(b"x")


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="all files have names here")
def test_what_a_killed_process_left_goes_with_a_later_one(tmp_path, monkeypatch):
    dying = """
        import os, sys
        from llmbol_core.native.files import atomic_write
        os.replace = lambda source, target: os._exit(0)
        with atomic_write(sys.argv[1]):
            pass
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(dying), tmp_path / "a"], check=True)
    (left,) = os.listdir(tmp_path)
    assert is_temporary(left)
    for text, names in ((b"one", [left, "a"]), (b"two", ["a"])):
        with atomic_write(tmp_path / "a") as file:
            file.write(text)
        assert read_bytes(tmp_path / "a") == text
        assert sorted(os.listdir(tmp_path)) == names
        monkeypatch.setattr(files, "_ABANDONED", -1)


@pytest.mark.parametrize("name", ["a", "\N{SNOWMAN}" * 80], ids=["short", "long"])
def test_of_many_who_write_a_file_each_leaves_a_whole_one(tmp_path, name):
    path = tmp_path / name

    def write(number):
        for _ in range(20):
            with atomic_write(path) as file:
                file.write(bytes([number]) * 5000)
            found = read_bytes(path)
            assert len(found) == 5000
            assert len(set(found)) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert os.listdir(tmp_path) == [name]


def test_write_errors_name_the_path_asked_for(tmp_path):
    missing = tmp_path / "missing" / "a"
    with pytest.raises(FileError, match=r"missing/a: no such file"), atomic_write(missing):
        pass
    with pytest.raises(FileError, match=r"is a directory"), atomic_write(tmp_path):
        pass
    with pytest.raises(FileError, match=r"/other: no such file"), atomic_write(tmp_path / "a"):
        os.stat(tmp_path / "other")


def test_map_file(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "a").write_bytes(b"hello")
    assert bytes(map_file(tmp_path / "empty")) == b""
    view = map_file(tmp_path / "a")
    assert bytes(view) == b"hello"
    assert view.readonly


@pytest.mark.parametrize("read", [read_bytes, map_file])
def test_read_errors(read, tmp_path):
    with pytest.raises(FileError, match=r"/none: no such file or directory$"):
        read(tmp_path / "none")
    with pytest.raises(FileError, match=r"is a directory$"):
        read(tmp_path)


def test_a_pipe_is_read_where_it_cannot_be_mapped():
    reader, writer = os.pipe()
    os.write(writer, b"hello")
    os.close(writer)
    assert bytes(map_file(f"/dev/fd/{reader}")) == b"hello"
    os.close(reader)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device without an end")
@pytest.mark.parametrize("read", [read_bytes, map_file])
def test_what_has_no_end_is_refused(read, monkeypatch):
    why = "more than 1 MiB and no end: expected a file"
    with pytest.raises(FileError, match=f"^/dev/zero: {why}$"):
        read("/dev/zero")
    with open("/dev/zero") as zeros, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", zeros)
        with pytest.raises(FileError, match=f"^standard input: {why}$"):
            read("-")
    assert read(os.devnull) == b""


@pytest.mark.parametrize("path", ["", "new/", ".", "there", "there/"])
def test_a_directory_is_no_file_to_write(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(FileError, match=r"is a directory$"):
        check_target(path)
    with pytest.raises(FileError, match="is a directory"), atomic_write(path) as file:
        file.write(b"x")
    assert os.listdir(tmp_path) == ["there"]


def test_what_is_read_is_not_written(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to("a")
    check_target(tmp_path / "a")
    check_target(tmp_path / "new", tmp_path / "a")
    for target in ("a", "link"):
        with pytest.raises(FileError, match="this file is read, so it cannot be written"):
            check_target(tmp_path / target, tmp_path / "a")
    with pytest.raises(FileError, match="no such file or directory"):
        check_target(tmp_path / "none" / "a")
    check_target(os.devnull)


def test_what_is_larger_than_memory_is_refused(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(FileError, match="a: 8796093022208 bytes do not fit into memory"):
        read_bytes(tmp_path / "a")
    assert map_file(tmp_path / "a")[-1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="files without names are a thing of Linux")
def test_a_process_that_is_killed_leaves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    code = (
        "import os, sys; from llmbol_core.native.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write(bytes(100_000)); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "a"]).returncode == -9
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
