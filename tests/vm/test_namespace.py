"""The granted file tree: what can be done in it, and that nothing leads out of it."""

import contextlib
import io
import os
import stat as modes
import struct
import threading
import traceback
from dataclasses import replace

import pytest

from llmbol_core.errors import FileError, Trap
from llmbol_core.vm.environment import Descriptors, Environment, Streams
from llmbol_core.vm.files.hosttree import clean
from llmbol_core.vm.files.namespace import MAFTER, MBEFORE, MCREATE, MREPL, Namespace
from llmbol_core.vm.files.openfile import (
    DMDIR,
    OEXCL,
    OEXEC,
    ORCLOSE,
    ORDWR,
    OREAD,
    OTRUNC,
    OWRITE,
    WORD,
    Dir,
    FileFault,
    OpenFile,
)
from llmbol_core.vm.files.pipes import PipeEnd

NULL = Dir("", mode=WORD, atime=WORD, mtime=WORD, length=-1)
NOBODY = 65534


@pytest.fixture
def tree(tmp_path):
    """A root with some files, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    for folder in ("a", "b", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "a/one").write_text("one of a")
    (root / "b/one").write_text("one of b")
    (root / "b/two").write_text("two of b")
    return root


@pytest.fixture
def space(tree):
    return Namespace(tree, writable=True)


def content(space, name):
    file = space.open(name, OREAD)
    try:
        return file.read(1000).decode()
    finally:
        file.close()


def names(space, name):
    file = space.open(name, OREAD)
    found = []
    while entries := file.entries():
        found += [e.name for e in entries]
    return found


def fault(operation, *arguments):
    with pytest.raises(FileFault) as caught:
        operation(*arguments)
    return str(caught.value)


def test_read_write_seek(space):
    file = space.create("/tmp/x", ORDWR, 0o644)
    assert file.write(b"line one\nline two\n") == 18
    assert file.seek(5, 0) == 5
    assert file.read(3) == b"one"
    assert file.seek(1, 1) == 9
    assert file.read(4, 0) == b"line"
    assert file.seek(-4, 2) == 14
    assert file.read(100) == b"two\n"
    assert file.read(100) == b""
    assert file.write(b"LINE", 0) == 4
    assert file.stat().length == 18
    assert fault(file.seek, -1, 0) == "negative i/o offset"
    assert fault(file.read, 1, -1) == "negative i/o offset"
    assert fault(file.seek, 0, 7) == "bad arg in system call"
    assert file.entries() == []
    assert file.seek(0, 0) == 0
    assert fault(file.entries) == "bad directory format"
    file.close()
    assert content(space, "/tmp/x") == "LINE one\nline two\n"


def test_modes_are_kept(space):
    assert fault(space.open("/a/one", OREAD).write, b"x") == "inappropriate use of fd"
    assert fault(space.open("/a/one", OWRITE).read, 1) == "inappropriate use of fd"
    assert fault(space.open, "/a/one", 8) == "bad arg in system call"
    assert fault(space.open, "/a", OWRITE) == "permission denied"


def test_truncate_exclusive_and_remove_on_close(space):
    space.open("/a/one", OWRITE | OTRUNC).close()
    assert content(space, "/a/one") == ""
    assert fault(space.create, "/a/one", OWRITE | OEXCL, 0o644) == "file already exists"
    file = space.create("/tmp/gone", OWRITE | ORCLOSE, 0o600)
    file.close()
    assert fault(space.stat, "/tmp/gone") == "'/tmp/gone' does not exist"


def test_permissions_are_bounded_by_the_directory(space, tree):
    (tree / "tmp").chmod(0o750)
    space.create("/tmp/file", OWRITE, 0o777).close()
    space.create("/tmp/folder", OREAD, DMDIR | 0o777).close()
    assert modes.S_IMODE((tree / "tmp/file").stat().st_mode) == 0o751
    assert modes.S_IMODE((tree / "tmp/folder").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("mode", "refused"),
    [
        (0o444, {OWRITE, ORDWR, OEXEC, OREAD | OTRUNC}),
        (0o222, {OREAD, ORDWR, OEXEC, OREAD | OTRUNC}),
        (0o700, set()),
    ],
)
def test_modes_of_files_hold_for_everybody(space, tree, mode, refused):
    (tree / "a/one").chmod(mode)
    for way in (OREAD, OWRITE, ORDWR, OEXEC, OREAD | OTRUNC):
        if way in refused:
            assert fault(space.open, "/a/one", way) == "permission denied"
        else:
            space.open("/a/one", way).close()
    assert fault(space.open, "/a/one", OEXEC | OTRUNC) == "bad arg in system call"


def test_directories(space):
    assert names(space, "/") == ["a", "b", "tmp"]
    space.create("/tmp/d", OREAD, DMDIR | 0o755)
    for i in range(40):
        space.create(f"/tmp/d/f{i:02}", OWRITE, 0o644).close()
    assert names(space, "/tmp/d") == [f"f{i:02}" for i in range(40)]
    assert space.stat("/tmp/d").mode & DMDIR
    assert space.stat("/").name == "/"
    folder = space.open("/tmp/d", OREAD)
    first = folder.entries()
    assert folder.seek(0, 0) == 0
    assert folder.entries() == first
    assert fault(folder.write, b"x") == "inappropriate use of fd"
    assert fault(folder.seek, 1, 1) == "file is a directory"
    assert "not empty" in fault(space.remove, "/tmp/d")


def test_directories_can_be_read_as_bytes(space, tree):
    folder = space.open("/a", OREAD)
    whole = folder.read(1000)
    found = tree.joinpath("a/one").stat()
    size, kind, device, qid_type, _, path, mode = struct.unpack_from("<HHIBIQI", whole)
    assert (size, kind, device, qid_type) == (len(whole) - 2, ord("U"), 0, 0)
    assert (path, mode) == (found.st_ino, found.st_mode & 0o777)
    assert whole[33:41] == struct.pack("<Q", found.st_size)
    assert whole[41:] == b"\3\0one" + b"\7\0inferno" * 2 + b"\0\0"
    assert folder.read(1000) == b""
    assert folder.read(10, 0) == b""
    assert folder.read(1000, 0) == whole


def test_wstat(space, tree):
    space.wstat("/a/one", NULL)
    assert content(space, "/a/one") == "one of a"
    space.wstat("/a/one", Dir("uno", mode=0o600, mtime=1000, atime=WORD, length=3))
    found = space.stat("/a/uno")
    assert (found.length, found.mtime, found.mode) == (3, 1000, 0o600)
    assert fault(space.wstat, "/a/uno", Dir("../x", mode=WORD, atime=WORD, mtime=WORD, length=-1))
    assert (tree / "a/uno").exists()


def as_user(action):
    """Run something in a process of no privileges; return whether it raised nothing."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        if os.geteuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        action()
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)


def test_modes_bind_neither_who_creates_a_file_nor_who_owns_it(tmp_path):
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    space = Namespace(tmp_path, writable=True)

    def action():
        file = space.create("/x", ORDWR, 0)
        assert file.write(b"text") == 4
        assert fault(space.open, "/x", OREAD) == "permission denied"
        space.wstat("/x", replace(NULL, name="y"))
        space.wstat("/y", replace(NULL, mode=0o600, mtime=1000))
        assert content(space, "/y") == "text"
        assert space.stat("/y").mtime == 1000
        space.create("/d", OREAD, DMDIR | 0o700)
        for mode in (0, 0o700):
            space.wstat("/d", replace(NULL, mode=mode))
        assert space.stat("/d").mode == DMDIR | 0o700

    assert as_user(action)


def test_nothing_is_created_in_a_file(space):
    for permission in (0o644, DMDIR | 0o755):
        assert fault(space.create, "/a/one/x", OREAD, permission) == "Not a directory"
        assert fault(space.create, "/a/one/x/y", OREAD, permission) == "'/a/one' not a directory"


def test_current_directory(space):
    space.change_directory("a")
    assert content(space, "one") == "one of a"
    assert content(space, "../b/one") == "one of b"
    assert fault(space.change_directory, "one") == "not a directory"
    assert fault(space.change_directory, "none") == "'none' file does not exist"


# fmt: off
MISSING = [
    ("/tmp/no/such/file", "'/tmp/no' does not exist"),
    ("/no",               "'/no' file does not exist"),
    ("no's",              "'no''s' file does not exist"),
    ("./tmp/none/x",      "'./tmp/none' does not exist"),
    ("/a/../none",        "'/a/../none' file does not exist"),
    ("/dis/lib/x.dis",    "'/dis/lib/x.dis' does not exist"),
    ("none/../a/one",     "'none' file does not exist"),
    ("/a/one/",           "'/a/one' not a directory"),
    ("/a/one//.",         "'/a/one' not a directory"),
    ("/a/one/../one",     "'/a/one' not a directory"),
]
# fmt: on


@pytest.mark.parametrize(("name", "why"), MISSING)
def test_missing_files_are_named_up_to_the_missing_element(space, name, why):
    assert fault(space.open, name, OREAD) == why
    assert fault(space.stat, name) == why
    assert fault(space.remove, name) == why


# fmt: off
UNCREATED = [
    ("/",       0,           "'/' create without DMDIR"),
    (".",       0,           "'.' create without DMDIR"),
    ("a//b/",   0,           "'a//b' create without DMDIR"),
    ("a/one/.", 0,           "'a/one' create without DMDIR"),
    ("/",       DMDIR,       "file already exists"),
    (".",       DMDIR,       "file already exists"),
    ("a",       DMDIR,       "permission denied"),
    ("a/",      DMDIR,       "permission denied"),
    ("a",       0,           "permission denied"),
    ("",        0,           "empty file name"),
]
# fmt: on


@pytest.mark.parametrize(("name", "permission", "why"), UNCREATED)
def test_names_that_cannot_be_created(space, name, permission, why):
    assert fault(space.create, name, OREAD, permission | 0o755) == why


def test_creating_what_exists_truncates_it(space):
    space.create("new/", OREAD, DMDIR | 0o755)
    assert space.stat("new").mode & DMDIR
    space.create("a/one", OREAD, DMDIR | 0o755)
    assert (content(space, "/a/one"), space.stat("/a/one").mode & DMDIR) == ("", 0)
    assert fault(space.create, "a/one", OREAD | OEXCL, DMDIR | 0o755) == "file already exists"


def test_nothing_is_created_in_a_directory_that_cannot_be_written(space):
    space.create("/tmp/fixed", OREAD, DMDIR | 0o555)
    assert fault(space.create, "/tmp/fixed/new", OWRITE, 0o644) == "permission denied"


def test_made_files_that_are_there_are_opened_when_they_are_created(space):
    Environment.first(space)
    assert space.create("/dev/null", OWRITE, 0o644).write(b"gone") == 4
    assert fault(space.create, "/dev/null", OWRITE | OEXCL, 0o644) == "file already exists"


def test_what_cannot_be_removed(space):
    Environment.first(space)
    assert fault(space.remove, "/") == "permission denied"
    assert fault(space.remove, "/dev/null") == "permission denied"
    assert space.stat("/dev/null").name == "null"


# fmt: off
ESCAPES = [
    ("up",     "../secret"),
    ("far",    "/../../../../../../etc/passwd"),
    ("chain",  "up"),
    ("inside", "a/../../secret"),
]
# fmt: on


@pytest.mark.parametrize(("link", "target"), ESCAPES)
def test_links_do_not_lead_out(space, tree, link, target):
    if link == "chain":
        os.symlink("../secret", tree / "up")
    os.symlink(target, tree / link)
    os.symlink(tree.parent / "secret", tree / "absolute")
    for name in (link, "absolute", "/../secret", "a/../../secret"):
        with pytest.raises(FileFault):
            space.open(name, OREAD)
        with pytest.raises(FileFault):
            space.stat(name)
    # Writing through a link makes a file in the tree or fails, but touches nothing outside.
    for name in (link, "absolute"):
        with contextlib.suppress(FileFault):
            space.create(name, OWRITE, 0o644).write(b"changed")
    assert (tree.parent / "secret").read_text() == "secret"


def test_links_inside_the_tree_work(space, tree):
    os.symlink("/a/one", tree / "b/link")
    os.symlink("../a", tree / "b/folder")
    os.symlink("loop", tree / "loop")
    assert content(space, "/b/link") == "one of a"
    assert content(space, "/b/folder/one") == "one of a"
    assert "symbolic links" in fault(space.open, "/loop", OREAD)
    space.remove("/b/link")
    assert (tree / "a/one").exists()


def test_an_element_replaced_by_a_link_is_not_followed(space, tree, monkeypatch):
    """Even when the link appears between looking and opening."""
    from llmbol_core.vm.files import hosttree

    (tree / "a/one").unlink()
    (tree / "a/one").symlink_to(tree.parent / "secret")
    monkeypatch.setattr(hosttree, "_read_link", lambda name, parent: None)
    with pytest.raises(FileFault):
        space.open("/a/one", OREAD)


def test_special_files_are_refused(space, tree):
    os.mkfifo(tree / "fifo")
    assert fault(space.open, "/fifo", OREAD) == "permission denied"


def test_read_only(tree):
    space = Namespace(tree)
    assert content(space, "/a/one") == "one of a"
    for attempt in (
        lambda: space.open("/a/one", OWRITE),
        lambda: space.open("/a/one", OREAD | OTRUNC),
        lambda: space.open("/a/one", OREAD | ORCLOSE),
        lambda: space.create("/tmp/x", OWRITE, 0o644),
        lambda: space.remove("/a/one"),
        lambda: space.wstat("/a/one", NULL),
    ):
        assert fault(attempt) == "permission denied"


def test_without_a_root_only_the_granted_files_exist(tree, monkeypatch):
    monkeypatch.chdir(tree)
    space = Namespace(granted=["a/one", str(tree / "b/two"), "b"])
    assert content(space, "a/one") == "one of a"
    assert content(space, str(tree / "b/two")) == "two of b"
    assert space.stat("a/one").length == 8
    for name in ("a/two", "b/one", "/etc/passwd", str(tree / "a/one"), "/"):
        with pytest.raises(FileFault):
            space.open(name, OREAD)
    assert fault(space.open, "b", OREAD) == "file is a directory"
    for attempt in (
        lambda: space.open("a/one", OWRITE),
        lambda: space.create("new", OWRITE, 0o644),
        lambda: space.remove("a/one"),
    ):
        assert fault(attempt) == "permission denied"


def test_granted_pipes_and_devices_are_read_as_they_come(tree):
    os.mkfifo(tree / "pipe")
    space = Namespace(granted=[str(tree / "pipe"), os.devnull])
    file = space.open(str(tree / "pipe"), OREAD)
    assert not file.is_ready()

    def write():
        with (tree / "pipe").open("wb") as end:
            end.write(b"through")

    thread = threading.Thread(target=write)
    thread.start()
    assert file.read(4) + file.read(10) == b"through"
    thread.join()
    assert file.read(10) == b""
    null = space.open(os.devnull, OREAD)
    assert null.read(10) == b""
    for some in (file, null):
        some.close()
    assert fault(space.open, str(tree / "pipe"), OWRITE) == "permission denied"


def test_a_root_must_be_a_directory(tree):
    with pytest.raises(FileError):
        Namespace(tree / "none")
    with pytest.raises(FileError):
        Namespace(tree / "a/one")


def test_bind(space):
    space.bind("/b", "/a", MAFTER)
    assert names(space, "/a") == ["one", "one", "two"]
    assert content(space, "/a/one") == "one of a"
    assert content(space, "/a/two") == "two of b"
    assert fault(space.create, "/a/new", OWRITE, 0o644) == "mounted directory forbids creation"
    space.unbind("", "/a")
    assert names(space, "/a") == ["one"]
    space.bind("/b", "/a", MBEFORE | MCREATE)
    assert content(space, "/a/one") == "one of b"
    space.create("/a/new", OWRITE, 0o644).close()
    space.unbind("/b", "/a")
    assert names(space, "/b") == ["new", "one", "two"]
    assert fault(space.unbind, "/b", "/a") == "not in union"
    space.bind("/b/two", "/a/one", MREPL)
    assert content(space, "/a/one") == "two of b"
    assert fault(space.bind, "/b/two", "/a", MREPL) == "inconsistent mount"
    assert fault(space.unbind, "", "/b") == "not mounted"
    assert fault(space.bind, "/a", "/b", MBEFORE | MAFTER) == "bad arg in system call"


def test_forks_change_apart(space):
    other = space.fork()
    other.bind("/b", "/a", MREPL)
    other.change_directory("/tmp")
    assert names(other, "/a") == ["one", "two"]
    assert names(space, "/a") == ["one"]
    assert space.directory == ()


def test_a_namespace_from_the_current_directory(space):
    space.change_directory("/b")
    inner = space.from_here()
    assert names(inner, "/") == ["one", "two"]
    assert content(inner, "/../one") == "one of b"
    assert fault(inner.open, "/a/one", OREAD) == "'/a' file does not exist"


def test_served_files(space):
    ends = PipeEnd.pair()
    withdraw = space.serve("/tmp", "made", lambda path, mode: ends[0])
    assert names(space, "/tmp") == ["made"]
    assert space.open("/tmp/made", ORDWR) is ends[0]
    assert space.stat("/tmp/made").name == "made"
    assert fault(space.serve, "/tmp", "made", lambda path, mode: ends[0]) == "file already exists"
    other = fault(space.serve, "/a/one", "made", lambda path, mode: ends[0])
    assert other == "directory not a srv device"
    space.serve("/tmp", "later", lambda path, mode: ends[1])
    assert names(space, "/tmp") == ["later", "made"]
    withdraw()
    assert names(space, "/tmp") == ["later"]


def test_pipes_keep_writes_apart_and_hang_up():
    one, other = PipeEnd.pair()
    assert not other.is_ready()
    one.write(b"abc")
    one.write(b"de")
    assert [other.read(2), other.read(9), other.read(9)] == [b"ab", b"c", b"de"]
    one.write(b"")
    assert other.is_ready()
    assert (other.read(9), other.is_ready()) == (b"", False)
    other.write(b"back")
    assert fault(one.seek, 0, 0) == "seek on a stream"
    one.write(b"last")
    one.close()
    assert other.is_ready()
    assert [other.read(9), other.read(9)] == [b"last", b""]
    with pytest.raises(Trap, match="write on closed pipe"):
        other.write(b"x")


def test_descriptors_share_files_until_the_last_goes(space):
    class Watched(OpenFile):
        closed = 0

        def close(self):
            self.closed += 1

    file = Watched("x", ORDWR)
    group = Descriptors([file])
    assert group.add(file) == 1
    assert group.add(file, 7) == 7
    fork = group.fork([7])
    group.release()
    assert file.closed == 0
    fork.close(7)
    assert file.closed == 1
    assert fault(fork.__getitem__, 7) == "fd out of range or not open"
    assert fault(fork.add, file, 10**6) == "fd out of range or not open"


def test_room_for_descriptors_grows_by_twenty():
    some = Descriptors([OpenFile("/x", OREAD)])
    assert fault(some.add, some[0], 40) == "fd out of range or not open"
    assert [some.add(some[0], number) for number in (39, 59)] == [39, 59]
    assert some.fork().add(some[0], 79) == 79
    assert [some.add(some[0]) for _ in range(60)][-1] == 62
    assert fault(some.add, some[0], -2) == "fd out of range or not open"


def test_environments_are_inherited():
    out = io.BytesIO()
    first = Environment.first(streams=Streams(stdout=out))
    child = first.inherit()
    child.error = "mine"
    assert child.descriptors is first.descriptors
    assert first.error != "mine"
    first.close()
    child.descriptors[1].write(b"still open")
    assert out.getvalue() == b"still open"
    assert child.descriptors[0].read(5) == b""


def test_devices(space, tree):
    out = io.BytesIO()
    first = Environment.first(space, Streams(stdin=io.BytesIO(b"in"), stdout=out))
    assert content(space, "/dev/null") == ""
    assert int(content(space, "/dev/time")) > 1.7e15
    assert content(space, "dev/user") == content(space, "/dev/user") == space.stat("/a").uid
    assert len(space.open("/dev/random", OREAD).read(8)) == 8
    assert space.open("/dev/null", OWRITE).write(b"gone") == 4
    console = space.open("/dev/cons", ORDWR)
    console.write(b"out")
    assert (console.read(9), out.getvalue()) == (b"in", b"out")
    assert not (tree / "dev").exists()
    first.close()
    bare = Environment.first(Namespace())
    assert fault(bare.namespace.open, "/dev/null", OREAD) == "'/dev/null' file does not exist"


def test_clean():
    assert clean("/a//b/./../c") == ("a", "c")
    assert clean("") == ()


def test_names_with_control_characters_are_refused(space):
    assert fault(space.open, "/a/o\nne", OREAD) == "bad character in file name: '/a/o\nne'"
    assert fault(space.wstat, "/a/one", replace(NULL, name="x/y")) == (
        "bad character in file name: x/y"
    )


def test_without_devices_only_private_ones_can_be_named(space):
    space.is_without_devices = True
    assert fault(space.open, "#c/cons", OREAD) == "mount/attach disallowed"
    assert fault(space.fork().open, "#p", OREAD) == "mount/attach disallowed"
    assert fault(space.open, "#s", OREAD) != "mount/attach disallowed"
