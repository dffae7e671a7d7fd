"""$Sys: its functions called as a program would, with a tree and streams of the test."""

import io

import pytest

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.environment import Environment, Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import DMDIR
from llmbol_core.vm.heaptypes import BYTE, POINTER, WORD
from llmbol_core.vm.host import Sleep
from llmbol_core.vm.layout import BIG, INT, REAL, STRING
from llmbol_core.vm.module import TypeDescriptor
from tests.builtins.calling import Borrowed, Caller

OREAD, OWRITE, ORDWR = 0, 1, 2
NULL = ("", "", "", "", (-1, -1, -1), -1, -1, -1, -1, -1, -1)


@pytest.fixture
def out():
    return io.BytesIO()


@pytest.fixture
def call(tmp_path, out):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o755)
    streams = Streams(stdin=io.BytesIO(b"typed in"), stdout=out)
    return Caller("$Sys", Environment.first(Namespace(tmp_path, writable=True), streams))


def held(call, name, *values):
    """Call a function that returns a ``ref FD`` and keep what it made."""
    number = call(name, *values)
    assert number >= 0, call.error
    return next(
        Borrowed(ref)
        for ref in call.heap.blocks()
        if getattr(call.heap.handle(ref), "number", None) == number
    )


def test_print(call, out):
    rest = [(INT, 42), (REAL, 0.5), (STRING, "ünï"), (BIG, -1), (INT, ord("x"))]
    assert call("print", "%d %g %s %bd %c\n", rest=rest) == len("42 .5 ünï -1 x\n".encode())
    assert out.getvalue().decode() == "42 .5 ünï -1 x\n"
    assert call("sprint", "[%5d]", rest=[(INT, 7)]) == "[    7]"
    assert call("aprint", "é", rest=[]).tobytes() == "é".encode()
    assert call("sprint", "a\0b") == "a"
    assert call("print", "") == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda heap: heap.new_text("?"),
        lambda heap: heap.new_array(BYTE, 1),
        lambda heap: heap.new_channel(WORD, 0),
        lambda heap: heap.new_record(TypeDescriptor(-1, 0)),
        lambda heap: heap.new_record(TypeDescriptor(-1, 4, b"\x80")),
    ],
)
def test_a_descriptor_is_a_record_that_begins_with_a_number(call, make):
    with pytest.raises(Trap, match=traps.TYPE_CHECK):
        call("fprint", Borrowed(make(call.heap)), "printed")


def test_error_strings(call):
    assert call("sprint", "%r") == "file does not exist"
    assert call("werrstr", "custom") == 0
    assert call("sprint", "%r") == "custom"
    call("werrstr", "é" * 100)
    assert call.error == "é" * 61 + "..."
    assert call("open", "/none", OREAD) == -1
    assert call("sprint", "%r") == "'/none' file does not exist"


def test_files(call):
    fd = held(call, "create", "/tmp/x", ORDWR, 0o644)
    assert call("write", fd, b"line one\nline two\n", 18) == 18
    assert call("fprint", fd, "%d:%s\n", rest=[(INT, 4), (STRING, "four")]) == 7
    assert call("seek", fd, 5, 0) == 5
    buffer = call.array(BYTE, bytes(8))
    assert call("read", fd, buffer, 3) == 3
    assert bytes(call.items(buffer, "B")[:3]) == b"one"
    assert call("read", fd, buffer, 100) == 8
    assert call("pread", fd, buffer, 4, 9) == 4
    assert bytes(call.items(buffer, "B")[:4]) == b"line"
    assert call("pwrite", fd, b"LINE", 4, 9) == 4
    assert call("seek", fd, -5, 2) == 20
    assert call("readn", fd, buffer, 8) == 5
    assert call("read", fd, buffer, 8) == 0
    assert call("fd2path", fd) == "/tmp/x"
    assert call("iounit", fd) == 0
    status, entry = call("fstat", fd)
    assert (status, entry[0], entry[5], entry[8]) == (0, "x", 0o644, 25)


def test_a_descriptor_closes_with_its_last_reference(call):
    fd = held(call, "create", "/tmp/x", OWRITE, 0o644)
    group = call.process.environment.descriptors
    number = call.heap.word(fd.ref)
    assert group[number].path == "/tmp/x"
    call.heap.release(fd.ref)
    with pytest.raises(Exception, match="fd out of range or not open"):
        group[number]


def test_reads_that_are_no_use(call):
    fd = held(call, "create", "/tmp/x", ORDWR, 0o644)
    for name in ("read", "readn", "write"):
        assert call(name, fd, None, 5) == 0
        assert call(name, fd, b"abc", -1) == 0
        assert call(name, None, b"abc", 3) == -1
        assert call.error == "fd out of range or not open"


def test_standard_input(call):
    buffer = call.array(BYTE, bytes(20))
    fd = held(call, "fildes", 0)
    assert call("read", fd, buffer, 20) == 8
    assert bytes(call.items(buffer, "B")[:8]) == b"typed in"
    assert call("read", fd, buffer, 20) == 0


def test_directories(call):
    assert call("create", "/tmp/d", OREAD, DMDIR - (1 << 32) | 0o755) >= 0
    for name in "abc":
        call.heap.release(held(call, "create", f"/tmp/d/{name}", OWRITE, 0o600).ref)
    fd = held(call, "open", "/tmp/d", OREAD)
    count, array = call("dirread", fd)
    names = call._binding.decoder(call._binding.declared("stat").result.fields[1].type)
    start = call.heap.array_data(array)
    assert [names(call.heap, start + 64 * i)[0] for i in range(count)] == ["a", "b", "c"]
    assert call("dirread", fd) == (0, NIL)
    assert call("dirread", None) == (-1, NIL)
    assert call("stat", "/tmp/d")[1][5] < 0
    assert call("remove", "/tmp/d") == -1
    assert [call("remove", f"/tmp/d/{name}") for name in "abc"] == [0, 0, 0]
    assert call("remove", "/tmp/d") == 0


def test_stat_and_wstat(call):
    fd = held(call, "create", "/tmp/x", ORDWR, 0o644)
    assert call("stat", "/tmp/none")[0] == -1
    assert call("wstat", "/tmp/x", ("y", *NULL[1:])) == 0
    assert call("stat", "/tmp/y")[0] == 0
    assert call("fwstat", fd, NULL) == 0
    assert call("fwstat", fd, (*NULL[:5], 0o600, *NULL[6:])) == 0
    assert call("stat", "/tmp/y")[1][5] == 0o600
    call.process.environment.descriptors[call.heap.word(fd.ref)].path = "/tmp/y"
    assert call("fwstat", fd, ("z", *NULL[1:])) == 0
    assert call("fd2path", fd) == "/tmp/z"
    assert call("wstat", "/tmp/none", NULL) == -1


def test_dup_and_fildes(call, out):
    assert call("dup", 1, 20) == 20
    fd = held(call, "fildes", 20)
    assert call("fprint", fd, "via 20") == 6
    assert out.getvalue() == b"via 20"
    assert call("fildes", 99) == -1
    assert call("dup", 99, 5) == -1
    assert call("dup", 1, 10**6) == -1


def test_pipe(call):
    fds = call.heap.new_array(POINTER, 2)
    assert call("pipe", Borrowed(fds)) == 0
    start = call.heap.array_data(fds)
    one, other = (Borrowed(call.heap.pointer(start + 4 * i)) for i in range(2))
    assert call("write", one, b"thru", 4) == 4
    buffer = call.array(BYTE, bytes(8))
    assert call("read", other, buffer, 8) == 4
    assert call("seek", other, 0, 0) == -1
    call.heap.give(start, NIL)
    assert call("read", other, buffer, 8) == 0
    assert call("pipe", Borrowed(call.heap.new_array(POINTER, 1))) == -1
    with pytest.raises(Trap, match="dereference of nil"):
        call("pipe", Borrowed(NIL))


def test_the_ends_of_a_pipe_go_into_nothing_but_an_array_of_references(call):
    heap = call.heap
    words = heap.new_array(WORD, 2)
    record = heap.new_record(TypeDescriptor(-1, 16))
    for at, value in ((words + 16, 70_000), (record, 2), (record + 12, words)):
        heap.set_word(at, value)
    for wrong in (words, record, heap.new_text("two and more")):
        with pytest.raises(Trap, match="type check"):
            call("pipe", Borrowed(wrong))
    assert heap.word(words + 16) == 70_000


def test_what_waits_in_pipes_counts_against_the_memory(call):
    heap = call.heap
    fds = heap.new_array(POINTER, 2)
    assert call("pipe", Borrowed(fds)) == 0
    one, other = (Borrowed(heap.pointer(heap.array_data(fds) + 4 * i)) for i in range(2))
    assert call("write", one, bytes(100), 100) == 100
    assert call("write", other, bytes(7), 7) == 7
    assert heap.reserved == 107
    assert call("read", other, call.array(BYTE, bytes(40)), 40) == 40
    assert heap.reserved == 67
    heap.give(heap.array_data(fds), NIL)
    assert heap.reserved == 60
    heap.give(heap.array_data(fds) + 4, NIL)
    assert heap.reserved == 0
    assert call("pipe", Borrowed(fds)) == 0
    one = Borrowed(heap.pointer(heap.array_data(fds)))
    with pytest.raises(Trap, match="out of memory"):
        call("write", one, bytes(heap.limit // 2), heap.limit // 2)


def test_a_descriptor_without_memory_for_it_is_closed(call, monkeypatch):
    def full(*given):
        raise Trap(traps.HEAP_FULL)

    monkeypatch.setattr(call.heap, "new_handle", full)
    before = call.process.environment.descriptors.numbers
    with pytest.raises(Trap, match="out of memory"):
        call("open", "/tmp", OREAD)
    assert call.process.environment.descriptors.numbers == before


def test_stream(call, out):
    fd = held(call, "create", "/tmp/x", ORDWR, 0o644)
    call("write", fd, b"x" * 1000, 1000)
    call("seek", fd, 0, 0)
    target = held(call, "fildes", 1)
    assert call("stream", fd, target, 64) == 1000
    assert out.getvalue() == b"x" * 1000
    assert call("stream", None, target, 64) == 0


# fmt: off
TOKENS = [
    ("a b  c",              " ",    (3, ["a", "b", "c"])),
    ("  lead and trail  ",  " ",    (3, ["lead", "and", "trail"])),
    ("k=v;k2=v2,,x",        "=;,",  (5, ["k", "v", "k2", "v2", "x"])),
    ("",                    " ",    (0, [])),
    ("nodelims",            "",     (0, [])),
    ("αβγ·δ·ε",             "·",    (3, ["αβγ", "δ", "ε"])),
    ("   ",                 " ",    (0, [])),
]
RUNES = [
    (b"a",                  (0x61, 1, 1)),
    ("é".encode(),          (0xE9, 2, 1)),
    ("☃".encode(),          (0x2603, 3, 1)),
    ("😀".encode(),         (0x1F600, 4, 1)),
    ("\ufffd".encode(),     (0xFFFD, 3, 1)),
    (b"\x80abcd",           (0xFFFD, 1, 0)),
    (b"\xe2\x98",           (0xFFFD, 0, 0)),
    (b"\xed\xa0\x80a",      (0xFFFD, 1, 0)),
    (b"\xf8\x88\x80\x80",   (0xFFFD, 1, 0)),
]
ENCODED = [
    (0x61, b"a"), (0xE9, b"\xc3\xa9"), (0x2603, b"\xe2\x98\x83"), (0x1F600, b"\xf0\x9f\x98\x80"),
    (-1, b"\xef\xbf\xbd"), (0x7FFFFFFF, b"\xef\xbf\xbd"), (0xD800, b"\xef\xbf\xbd"),
]
# fmt: on


@pytest.mark.parametrize(("text", "delimiters", "expected"), TOKENS)
def test_tokenize(call, text, delimiters, expected):
    assert call("tokenize", text, delimiters) == expected


@pytest.mark.parametrize(("data", "expected"), RUNES)
def test_byte2char(call, data, expected):
    assert call("byte2char", data, 0) == expected


@pytest.mark.parametrize(("rune", "data"), ENCODED)
def test_char2byte(call, rune, data):
    buffer = call.array(BYTE, bytes(8))
    assert call("char2byte", rune, buffer, 2) == len(data)
    assert bytes(call.items(buffer, "B")[2 : 2 + len(data)]) == data
    assert call("char2byte", rune, call.array(BYTE, bytes(len(data) - 1) or b"x"), 0) in (0, 1)


def test_utfbytes(call):
    data = "aé☃😀z".encode()
    found = [call("utfbytes", data, n) for n in range(len(data) + 1)]
    assert found == [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11]


# fmt: off
OUTSIDE = [
    ("utfbytes", (b"abc", 4)), ("utfbytes", (b"abc", -1)), ("utfbytes", (None, 0)),
    ("byte2char", (b"abc", 3)), ("byte2char", (None, 0)), ("char2byte", (65, b"abc", 3)),
    ("char2byte", (65, b"abc", -1)),
]
# fmt: on


@pytest.mark.parametrize(("name", "values"), OUTSIDE)
def test_text_functions_check_bounds(call, name, values):
    with pytest.raises(Trap, match="array bounds error"):
        call(name, *values)


def test_time(call):
    assert call("sleep", 30) == Sleep(0.03)
    assert call("sleep", -1) == Sleep(0.0)
    assert 0 <= call("millisec") <= call("millisec")


def test_pctl(call, out):
    environment = call.process.environment
    group, space = environment.descriptors, environment.namespace
    assert call("pctl", 0, []) == 7
    assert (environment.descriptors, environment.namespace) == (group, space)
    call("pctl", 2 | 8, [])
    assert environment.descriptors is not group
    assert environment.namespace is not space
    call("pctl", 1, [1])
    assert call("fildes", 0) == -1
    assert call("print", "still here") == 10
    call("pctl", 16, [])
    assert call.process.group == 7


def test_the_tree_can_be_rearranged(call):
    for name in ("a", "b"):
        call("create", f"/tmp/{name}", OREAD, DMDIR - (1 << 32) | 0o755)
    call("create", "/tmp/b/file", OWRITE, 0o644)
    assert call("chdir", "/tmp") == 0
    assert call("bind", "b", "a", 0) == 1
    assert call("stat", "a/file")[0] == 0
    assert call("unmount", "", "a") == 0
    assert call("stat", "a/file")[0] == -1
    assert call("chdir", "none") == -1
    assert call("mount", held(call, "fildes", 0), None, "/tmp", 0, "") == -1


# fmt: off
REFUSED = [
    ("dial",     ("tcp!host!80", ""),       (-1, (-1, -1, ""))),
    ("announce", ("tcp!*!80",),             (-1, (-1, -1, ""))),
    ("listen",   ((None, None, ""),),       (-1, (-1, -1, ""))),
    ("export",   (None, "/", 0),            -1),
    ("fauth",    (None, "x"),               -1),
    ("fversion", (None, 100, "9P2000"),     (-1, "")),
]
# fmt: on


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("dial", ("tcp!host!80", ""), "'/net/tcp/clone' file does not exist (/net/tcp/clone)"),
        ("announce", ("tcp!*!80",), "'/net/tcp/clone' file does not exist"),
        ("listen", ((None, None, "/net/tcp/0"),), "'/net/tcp/0/listen' file does not exist"),
        ("open", ("/net/cs", 2), "'/net/cs' file does not exist"),
        ("remove", ("/net/cs",), "'/net/cs' file does not exist"),
    ],
)
def test_what_leads_to_a_network_does_not_exist(call, name, values, error):
    call(name, *values)
    assert call.error == error


@pytest.mark.parametrize(("name", "values", "expected"), REFUSED)
def test_what_is_not_granted_fails_and_says_so(call, name, values, expected):
    assert call(name, *values) == expected
    assert call.error not in ("", "file does not exist")


def test_nothing_is_left_behind(call):
    """Descriptors aside, calls own nothing after they return."""
    before = call.heap.objects
    call("tokenize", "a b c", " ")
    call("sprint", "%s", rest=[(STRING, "x")])
    call("stat", "/tmp")
    assert call.heap.objects >= before
