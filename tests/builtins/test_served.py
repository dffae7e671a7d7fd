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
from llmbol_core.vm.files.openfile import OWRITE
from llmbol_core.vm.limits import Limits
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
    desc $0,64,(0,4,8,12,16,20,24,28,32,36,40,44)
    desc $1,96,(32,36,40)
    desc $2,96,(32,36,40)
    desc $3,16,(0)
    desc $4,1,"00"
    desc $5,96,(60,72,76)
    desc $6,16,"00"
    desc $7,96,(52,60)
    var @mp,64
    string @mp+0,"$Sys"
    string @mp+4,"/"
    string @mp+8,"file"
    string @mp+12,"/file"
    string @mp+28,"/prog/2/ctl"
    string @mp+32,"kill"
    string @mp+36,"/prog/1/ctl"
    string @mp+40,"exceptions propagate"
    string @mp+44,"boo"
    ldts @ldt,1
    word @ldt+0,4
    {imported("file2chan")} {imported("open")} {imported("read")} {imported("write")}
    link 1,0,0x4244b354,"init"
"""


def client(name, function):
    """Return the code of a process that opens the file and calls a function with 8 bytes."""
    return f"""
{name}: mframe 16(mp),$1,48(fp)
    movp 12(mp),32(48(fp))
    movw $2,36(48(fp))
    lea 36(fp),16(48(fp))
    mcall 48(fp),$1,16(mp)
    mframe 16(mp),${function},48(fp)
    movp 36(fp),32(48(fp))
    newa $8,$4,36(48(fp))
    movw $8,40(48(fp))
    lea 64(fp),16(48(fp))
    mcall 48(fp),${function},16(mp)
    ret
"""


CONTROL = """
control: mframe 16(mp),$1,48(fp)
    movp 32(fp),32(48(fp))
    movw $1,36(48(fp))
    lea 40(fp),16(48(fp))
    mcall 48(fp),$1,16(mp)
    mframe 16(mp),$3,48(fp)
    movp 40(fp),32(48(fp))
    cvtca 36(fp),36(48(fp))
    lenc 36(fp),40(48(fp))
    lea 64(fp),16(48(fp))
    mcall 48(fp),$3,16(mp)
    ret
"""
SERVE = f"""
    load 0(mp),$0,16(mp)
    mframe 16(mp),$0,48(fp)
    movp 4(mp),32(48(fp))
    movp 8(mp),36(48(fp))
    lea 20(mp),16(48(fp))
    mcall 48(fp),$0,16(mp)
    {{}}
    ret
    {client("read", 2)} {client("write", 3)} {CONTROL}
"""
REPLACED = """
    movp 24(mp),0(20(mp))
    newcmp $3,24(mp)
    frame $2,48(fp)
    spawn 48(fp),read
    recv 24(mp),40(fp)
"""
ANSWERED = """
    frame $2,48(fp)
    spawn 48(fp),read
    frame $5,48(fp)
    call 48(fp),answer
    ret
answer: recv 0(20(mp)),48(fp)
    {}
    send 72(fp),60(fp)
"""


def served(tree, code, name, **options):
    """Return how a program ends that serves a file by itself; it leaves nothing behind."""
    out = io.BytesIO()
    streams = Streams(stdout=out, stderr=out)
    how = ""
    options |= {"streams": streams, "engine": engine(name)}
    with InfernoVM(HOST_MODULES, Namespace(tree), **options) as vm:
        vm.load_module("a", parse_assembly(SERVE.format(code) + FRAME, "a"))
        try:
            vm.execute("a", "init", [])
        except LlmbolError as error:
            how = str(error)
    assert vm.heap.objects == vm.heap.reserved == 0
    return f"{out.getvalue().decode()}{how}"


@pytest.mark.parametrize("name", ENGINES)
def test_a_channel_that_a_server_drops_is_not_taken_for_another_one(tmp_path, name):
    assert "waits for a file server" in served(tmp_path, REPLACED, name)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("answer", ["newz $6,72(fp)", "newcw 72(fp)", "newz $6,76(fp)"])
def test_answers_of_a_server_are_looked_at(tmp_path, answer, name):
    assert 'Broken: "type check"' in served(tmp_path, ANSWERED.format(answer), name)


def controlled(file, what):
    """Return code that writes to a control file; others run meanwhile."""
    return (
        f"frame $2,48(fp)\nmovp {file}(mp),32(48(fp))\nmovp {what}(mp),36(48(fp))\n"
        "call 48(fp),control\n"
    )


ENDS = {
    "killed": (controlled(28, 32), ""),
    "interrupted": ("raise 44(mp)", "boo"),
    "stopped": ("spin: jmp spin", "instruction limit"),
    "deadlocked": ("newcw 24(mp)\nrecv 24(mp),64(fp)", "waits for a file server"),
    "hung up on": ("movp 24(mp),20(mp)", "channel hangup"),
}
"""What the server does while a client waits, and how all ends."""
STAGES = {
    "read": "",
    "write": "",
    "read, taken": "frame $5,48(fp)\ncall 48(fp),taken\n",
    "write, taken": "frame $7,48(fp)\ncall 48(fp),taken\n",
}
"""What the client does, and how the server takes its request."""


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_of_a_request_whose_maker_goes(tmp_path, end, stage, name):
    does, _, is_taken = stage.partition(", ")
    after, how = ENDS[end]
    if is_taken and end == "hung up on":
        how = ""  # the client holds the channel for the reply itself
    pauses = 3 * controlled(36, 8)
    code = (
        f"{controlled(36, 40)}frame $2,48(fp)\nspawn 48(fp),{does}\n{pauses}{STAGES[stage]}{after}"
        f"\nret\ntaken: recv {0 if does == 'read' else 4}(20(mp)),48(fp)"
    )
    limits = Limits(1 << 20, instructions=10_000)
    assert how in served(tmp_path, code, name, limits=limits)


@pytest.mark.parametrize("maker", ["new_record", "new_bytes", "new_channel"])
def test_a_request_that_memory_is_too_short_for_leaves_nothing(monkeypatch, maker):
    with InfernoVM() as vm:
        server = Server(vm.heap, vm.engine.channels, 5)
        offered = server.offer()
        file, objects = server.open("/file", OWRITE), vm.heap.objects

        def full(*given):
            raise Trap("out of memory: heap")

        with monkeypatch.context() as patch:
            patch.setattr(vm.heap, maker, full)
            with pytest.raises(Trap, match="out of memory"):
                file.ask_to_write(vm.heap, b"abc", None)
        assert vm.heap.objects == objects
        vm.heap.release(offered)
