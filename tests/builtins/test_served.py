"""file2chan: a program that answers for a file of its own, with a client in another process.

``data/NAME.dis`` is ``data/NAME.b`` compiled by Inferno's limbo; the expected output is Inferno's.
"""

import io
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.builtins.served import Server
from llmbol_core.errors import LlmbolError, Trap
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.engines import ENGINES, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.machine import InfernoVM

EXPECTED = """\
[nothi]
[ng ye]
[t]
fprint 8
pread 5 [lo 42]
bad -1 rejected
stat 0 echo
after 1
"""

CLOSED = """\
4 serv
7 ed data
0
read closed 0 0
write closed 1
read closed 0 0
done
"""


def output(tree, name):
    """Return what a program of the data prints in a tree."""
    out = io.BytesIO()
    (tree / "chan").mkdir()
    path = f"{name}.dis"
    (tree / path).write_bytes((Path(__file__).parent / "data" / path).read_bytes())
    with InfernoVM(HOST_MODULES, Namespace(tree), streams=Streams(stdout=out)) as vm:
        vm.run(f"/{path}", [])
    return out.getvalue().decode()


def test_a_program_serves_a_file(tmp_path):
    assert output(tmp_path, "served") == EXPECTED


def test_a_server_hears_that_a_file_is_closed(tmp_path):
    assert output(tmp_path, "closed") == CLOSED


def test_a_served_file_counts_against_the_memory(monkeypatch):
    with InfernoVM() as vm:
        server = Server(vm.heap, vm.engine.channels, 500)
        offered = server.offer()
        assert vm.heap.reserved >= 1024 + 4 * 500
        vm.heap.release(offered)
        assert vm.heap.reserved == 0

        def full(number, capacity):
            raise Trap("out of memory: heap")

        monkeypatch.setattr(vm.heap, "new_channel", full)
        with pytest.raises(Trap):
            server.offer()
        assert not vm.heap.hosted


def imported(name):
    """Return the directive that imports a function of $Sys."""
    function = HOST_MODULES["$Sys"].functions.find(name)
    assert function
    return f'ext @ldt+0,{function.signature},"{name}"\n'


FRAME = f"""
    module A
    entry 0,1
    desc $0,64,(0,4,8,12,16,20,24)
    desc $1,96,(32,36,40)
    desc $2,96,(32,36,40)
    desc $3,16,(0)
    desc $4,1,"00"
    desc $5,96,(60,72,76)
    desc $6,16,"00"
    var @mp,64
    string @mp+0,"$Sys"
    string @mp+4,"/"
    string @mp+8,"file"
    string @mp+12,"/file"
    ldts @ldt,1
    word @ldt+0,3
    {imported("file2chan")} {imported("open")} {imported("read")}
    link 1,0,0x4244b354,"init"
"""
SERVE = """
    load 0(mp),$0,16(mp)
    mframe 16(mp),$0,48(fp)
    movp 4(mp),32(48(fp))
    movp 8(mp),36(48(fp))
    lea 20(mp),16(48(fp))
    mcall 48(fp),$0,16(mp)
    frame $2,48(fp)
    {}
    ret
read: mframe 16(mp),$1,48(fp)
    movp 12(mp),32(48(fp))
    movw $0,36(48(fp))
    lea 36(fp),16(48(fp))
    mcall 48(fp),$1,16(mp)
    mframe 16(mp),$2,48(fp)
    movp 36(fp),32(48(fp))
    newa $8,$4,36(48(fp))
    movw $8,40(48(fp))
    lea 64(fp),16(48(fp))
    mcall 48(fp),$2,16(mp)
    ret
"""
REPLACED = """
    movp 24(mp),0(20(mp))
    newcmp $3,24(mp)
    spawn 48(fp),read
    recv 24(mp),40(fp)
"""
ANSWERED = """
    spawn 48(fp),read
    frame $5,48(fp)
    call 48(fp),answer
    ret
answer: recv 0(20(mp)),48(fp)
    {}
    send 72(fp),60(fp)
"""


def served(tree, code, name):
    """Return how a program ends that serves a file by itself."""
    out = io.BytesIO()
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(tree), streams=streams, engine=engine(name)) as vm:
        vm.load_module("a", parse_assembly(SERVE.format(code) + FRAME, "a"))
        try:
            vm.execute("a", "init", [])
        except LlmbolError as error:
            return f"{out.getvalue().decode()}{error}"
    return out.getvalue().decode()


@pytest.mark.parametrize("name", ENGINES)
def test_a_channel_that_a_server_drops_is_not_taken_for_another_one(tmp_path, name):
    assert "waits for a file server" in served(tmp_path, REPLACED, name)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("answer", ["newz $6,72(fp)", "newcw 72(fp)", "newz $6,76(fp)"])
def test_answers_of_a_server_are_looked_at(tmp_path, answer, name):
    assert 'Broken: "type check"' in served(tmp_path, ANSWERED.format(answer), name)
