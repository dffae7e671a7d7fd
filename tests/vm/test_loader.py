"""Loading: names, fresh module data, links checked by name and signature, payloads."""

from __future__ import annotations

import io
import os
import time
from dataclasses import replace

import pytest

from llmbol_core.errors import DisFormatError, LlmbolError, Trap, VerifyError
from llmbol_core.vm import loader, payload
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.host import RESULT
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_object, write_module
from tests.vm.programs import assemble, host_module

LIBRARY = """
    addw 32(fp),8(mp)
    movw 8(mp),0(16(fp))
    ret
    raise 0(mp)
    desc $0,24,"88"
    desc $1,40,""
    desc $2,4,"80"
    var @mp,24
    string @mp+0,"thrown"
    word @mp+8,100
    array @mp+16,$2,2
    indir @mp+16,1
    string @mp+0,"inside"
    apop
    module Library
    link 1,0,"fn(n: int): int","count"
    link 1,3,"fn(n: int): int","throw"
    ldts @ldt,0
"""
IMPORTS = """
    string @mp+20,"{path}"
    ldts @ldt,1
    word @ldt+0,2
    ext @ldt+4,"fn(n: int): int","count"
    ext @ldt+4,"{type}","{second}"
"""


def imports(path="/lib.dis", kind="fn(n: int): int", second="throw"):
    return IMPORTS.format(path=path, type=kind, second=second)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "lib.dis").write_bytes(write_module(parse_assembly(LIBRARY)))
    return tmp_path


def run(tree, code, more, host=None, verify=True):
    """Return what main returns, with the error string and what was reported."""
    stderr = io.BytesIO()
    streams = Streams(stderr=stderr)
    limits = Limits(1 << 20)
    with InfernoVM(host or {}, Namespace(tree), limits, streams, verify) as vm:
        vm.load_module("main", assemble(code, more))
        value = vm.execute("main", "main")
        stats = vm.get_stats()
    vm.heap.collect()
    assert vm.heap.objects == 0
    return value, stderr.getvalue().decode(), stats


COUNT = """
    mframe {0}(mp),$0,64(fp)
    movw ${1},32(64(fp))
    lea 68(fp),16(64(fp))
    mcall 64(fp),$0,{0}(mp)
"""


def test_every_load_makes_module_data_of_its_own_and_reads_the_file_once(tree):
    code = "load 20(mp),$0,0(mp)\nload 20(mp),$0,4(mp)\n"
    code += COUNT.format(0, 5) + COUNT.format(0, 5) + COUNT.format(4, 1)
    value, _, stats = run(tree, code + "movw 68(fp),0(16(fp))\nret", imports())
    assert value == 101
    assert stats.modules == 2


def test_a_file_that_was_only_read_is_not_read_again(tree):
    os.utime(tree / "lib.dis", (0, 0))
    reads: list[str] = []

    def touch(call):
        os.utime(tree / "lib.dis", (5, 0))
        reads.append("lib.dis")
        call.heap.set_word(call.heap.pointer(call.frame + RESULT), 1)

    code = """
    load 20(mp),$0,0(mp)
    load 24(mp),$1,4(mp)
    mframe 4(mp),$0,64(fp)
    lea 68(fp),16(64(fp))
    mcall 64(fp),$0,4(mp)
    load 20(mp),$0,8(mp)
    movw $0,0(16(fp))
    ret
    """
    more = imports().replace("ldts @ldt,1", "ldts @ldt,2")
    more += 'string @mp+24,"$Host"\nword @ldt+0,1\next @ldt+4,"fn(n: int): int","touch"\n'
    _, _, stats = run(tree, code, more, host_module(touch=touch))
    assert reads
    assert stats.modules == 2


def test_self_shares_the_module_data():
    code = """
    movw $7,64(mp)
    load 20(mp),$0,0(mp)
    movw 0(0(mp)),60(fp)
    movw 64(60(fp)),0(16(fp))
    ret
    """
    more = 'string @mp+20,"$self"\nldts @ldt,1\nword @ldt+0,0\n'
    assert run(None, code, more, verify=False)[0] == 7


FAILURES = [
    ("/none.dis", "fn(n: int): int", "throw", "'/none.dis' file does not exist", ""),
    ("$Nope", "fn(n: int): int", "throw", "module not built-in", ""),
    ("/lib.dis", "fn(n: int): int", "miss", None, "link typecheck Library->miss() 0/e67bf126\n"),
    ("/lib.dis", "fn(): int", "throw", None,
     "link typecheck Library->throw() e67bf126/616977e8\n"),
    ("$Host", "fn(n: int): int", "throw", None, "link typecheck $Host->count() 0/e67bf126\n"),
    ("/bad.dis", "fn(n: int): int", "throw", "bad magic", ""),
    ("/cut.dis", "fn(n: int): int", "throw", "the file ends inside", ""),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind", "second", "error", "reported"), FAILURES)
def test_what_cannot_be_loaded_is_nil(tree, path, kind, second, error, reported):
    (tree / "bad.dis").write_bytes(b"no module at all")
    (tree / "cut.dis").write_bytes((tree / "lib.dis").read_bytes()[:40])
    seen = []

    def look(call):
        seen.append(call.process.environment.error)
        call.heap.set_word(call.heap.pointer(call.frame + RESULT), 1)

    code = """
    load 20(mp),$0,0(mp)
    load 24(mp),$1,4(mp)
    mframe 4(mp),$0,64(fp)
    lea 68(fp),16(64(fp))
    mcall 64(fp),$0,4(mp)
    beqw 0(mp),$-1,nil
    movw $0,0(16(fp))
    ret
    nil: movw $1,0(16(fp))
    ret
    """
    more = imports(path, kind, second).replace("ldts @ldt,1", "ldts @ldt,2")
    more += 'string @mp+24,"$Host"\nword @ldt+0,1\next @ldt+4,"fn(n: int): int","look"\n'
    value, text, _ = run(tree, code, more, host_module(look=look), verify=False)
    assert value == 1
    assert text == reported
    assert seen[0].startswith(error or reported.strip())


MFRAME = "mframe 0(mp),$0,64(fp)"
CALLS = [
    # What a caller does with the frame and the result of another module's function.
    (MFRAME, "movw $1,36(64(fp))", ""),
    (MFRAME, "movw $1,40(64(fp))", "a caller stores 4 bytes at 40, beyond the 40 in its frame"),
    (MFRAME, "movp 20(mp),36(64(fp))",
     "a caller stores a pointer at 36, where none is, in its frame"),
    ("frame $6,64(fp)", "", ""),
    ("frame $8,64(fp)", "", "a caller makes a frame of 36 bytes that is not its own"),
    ("frame $9,64(fp)", "", "a caller makes a frame of 40 bytes that is not its own"),
    (MFRAME, "lea 36(fp),16(64(fp))",
     "it returns 4 bytes at 0, where a pointer is, where a caller wants its result"),
    (MFRAME, "lea 126(fp),16(64(fp))",
     "it returns 4 bytes at 0, beyond the 2 where a caller wants its result"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "rest", "why"), CALLS)
def test_frames_and_results_fit_the_functions_of_other_modules(tree, made, rest, why):
    code = f"""
    load 20(mp),$0,0(mp)
    beqw 0(mp),$-1,nil
    {made}
    movw $1,32(64(fp))
    lea 68(fp),16(64(fp))
    {rest}
    mcall 64(fp),$0,0(mp)
    nil: movw $1,0(16(fp))
    ret
    """
    value, text, _ = run(tree, code, imports() + 'desc $8,36,""\ndesc $9,40,(36)\n')
    assert value == 1
    assert text == (f"link typecheck Library->count() {why}\n" if why else "")


def test_an_old_object_cannot_load(tree):
    module = assemble("load 20(mp),$0,0(mp)\nret", imports())
    with InfernoVM(verify=False) as vm:
        vm.load_module("main", replace(module, flags=0, imports=()))
        with pytest.raises(Trap, match="obsolete dis"):
            vm.execute("main", "main")


def test_a_file_that_has_changed_is_read_again(tree):
    with InfernoVM(namespace=Namespace(tree)) as vm:
        first = vm.loader.find(vm.environment.namespace, "/lib.dis")
        assert vm.loader.find(vm.environment.namespace, "/lib.dis") is first
        os.utime(tree / "lib.dis", (1, 1))
        assert vm.loader.find(vm.environment.namespace, "/lib.dis") is not first


def test_a_file_that_has_changed_in_the_same_second_is_read_again(tree):
    file = tree / "lib.dis"
    with InfernoVM(namespace=Namespace(tree)) as vm:
        found = []
        for name in (b"Lib", b"Lib", b"Bil"):
            file.write_bytes(file.read_bytes().replace(b"Lib", name))
            os.utime(file, (time.time(), int(time.time())))
            found.append(vm.loader.find(vm.environment.namespace, "/lib.dis"))
        assert found[0] is found[1]
        assert [loaded.module.name for loaded in found] == ["Library", "Library", "Bilrary"]


def test_a_file_that_changes_while_it_is_read_is_what_it_was(tree, monkeypatch):
    file = tree / "lib.dis"
    before = file.read_bytes()

    def reading(data, path):
        with open(file, "r+b") as other:
            other.write(b"\xff" * len(before))
        return read_object(data, path)

    monkeypatch.setattr(loader, "read_object", reading)
    with InfernoVM(namespace=Namespace(tree)) as vm:
        loaded = vm.loader.find(vm.environment.namespace, "/lib.dis")
        assert loaded.content == before
        assert loaded.module == read_object(memoryview(before), "lib.dis")[0]


def test_the_payload_behind_an_object_is_seen_by_host_functions(tree):
    pieces = payload.attach((tree / "lib.dis").read_bytes(), b"weights")
    (tree / "carrier.dis").write_bytes(b"".join(pieces))
    with InfernoVM(namespace=Namespace(tree)) as vm:
        carrier = vm.load_module("carrier", tree / "carrier.dis")
        assert bytes(carrier.payload or b"") == b"weights"
        assert vm.load_module("plain", tree / "lib.dis").payload is None
        inside = vm.loader.find(vm.environment.namespace, "/carrier.dis")
        assert bytes(inside.payload or b"") == b"weights"


def test_handlers_of_the_caller_take_what_another_module_raises(tree):
    code = """
    load 20(mp),$0,0(mp)
    mframe 0(mp),$1,64(fp)
    mcall 64(fp),$1,0(mp)
    ret
    lenc 36(fp),0(16(fp))
    ret
    """
    handler = 'exceptions 1\nexception 2, 3, 36, -1, 1, 0\nexctab "thr*", 4\nexctab *, -1\n'
    assert run(tree, code, imports() + handler)[0] == 6


BAD_DATA = [
    ("word @mp+252,1,2", "bad data item"),
    ("array @mp+0,$99,1", "bad array type"),
    ("indir @mp+0,0", "ind not array"),
    ("array @mp+0,$3,2\nindir @mp+0,5", "array init range"),
    ("apop", "pop range"),
]


@pytest.mark.parametrize(("data", "why"), BAD_DATA)
def test_data_items_that_do_not_fit_are_refused(data, why):
    module = assemble("ret", data)
    with InfernoVM(verify=False) as vm, pytest.raises(DisFormatError, match=why):
        vm.load_module("main", module)
    assert vm.heap.objects == 0
    with InfernoVM() as vm, pytest.raises(LlmbolError):
        vm.load_module("main", module)


def test_nothing_unverified_runs():
    module = assemble("movw $1,32(fp)\nret")
    with InfernoVM() as vm, pytest.raises(VerifyError):
        vm.load_module("main", module)


def test_modules_out_of_use_are_unloaded(tree):
    with InfernoVM(namespace=Namespace(tree)) as vm:
        code = "load 20(mp),$0,0(mp)\nmovp 4(mp),0(mp)\nret"
        vm.load_module("main", assemble(code, imports()))
        vm.execute("main", "main")
        assert vm.get_stats().modules == 1
        first = vm.loader.find(vm.environment.namespace, "/lib.dis")
        assert vm.get_stats().modules == 2
        vm.loader.rest(first)
        os.utime(tree / "lib.dis", (1, 1))
        assert vm.loader.find(vm.environment.namespace, "/lib.dis") is not first
        assert first.data == NIL
        vm.heap.collect()


def test_few_modules_are_kept_for_their_next_use(tree):
    with InfernoVM(namespace=Namespace(tree)) as vm:
        kept = []
        for number in range(50):
            (tree / f"{number}.dis").write_bytes((tree / "lib.dis").read_bytes())
            found = vm.loader.find(vm.environment.namespace, f"/{number}.dis")
            vm.loader.rest(found)
            kept.append(found)
        assert [found.data == NIL for found in kept] == [True] * 18 + [False] * 32
        assert vm.loader.find(vm.environment.namespace, "/49.dis") is kept[-1]
        vm.loader.rest(kept[-1])
        vm.heap.collect()
        assert vm.heap.objects == 0


def test_relative_names_are_looked_for_on_the_search_path(tree):
    (tree / "modules").mkdir()
    (tree / "lib.dis").rename(tree / "modules" / "lib.dis")
    code = "load 20(mp),$0,0(mp)\nbeqw 0(mp),$-1,none\nmovw $1,0(16(fp))\nret\n"
    code += "none: movw $0,0(16(fp))\nret"
    for search, path, is_there in [
        ((), "lib.dis", 0),
        (("/none", "/modules"), "lib.dis", 1),
        (("modules",), "lib.dis", 1),
        (("/modules",), "/lib.dis", 0),
    ]:
        with InfernoVM(namespace=Namespace(tree)) as vm:
            vm.loader.search = search
            vm.load_module("main", assemble(code, imports(path)))
            assert vm.execute("main", "main") == is_there
