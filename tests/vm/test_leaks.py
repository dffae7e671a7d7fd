"""What fails leaves nothing behind, and nothing goes too early: all is gone in the end."""

from __future__ import annotations

import itertools

import pytest

from llmbol_core.errors import Deadlock, LimitError, Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.channels import Offer
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.groups import SHARING
from llmbol_core.vm.heaptypes import WORD
from llmbol_core.vm.host import ARGUMENTS, Until
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.processfiles import ProcessFiles
from tests.vm import ledger
from tests.vm.programs import assemble, host_module

NIL_DEREFERENCE = "dereference of nil"


def run(code, more="", limits=None, folder=None, fails=None, **functions):
    """Return what ends a program, or what it returns; all that there is has been counted.

    It finds functions of the host in the handle at 4(mp), by their names. One allocation may fail.
    """
    if functions:
        more += f'string @mp+0,"$Host"\nldts @ldt,2\nword @ldt+0,{len(functions)}\n'
        more += "".join(f'ext @ldt+0,"fn(n: int): int","{name}"\n' for name in functions)
        more += "word @ldt+0,0\n"
        code = f"load 0(mp),$0,4(mp)\n{code}"
    host = host_module(**functions)
    with InfernoVM(host, Namespace(folder), limits or Limits(1 << 20)) as vm:
        if fails is not None:
            fail(vm.heap, fails)
        try:
            vm.load_module("test", assemble(code, more))
            how = vm.execute("test", "main")
        except Trap as trap:
            how = trap.name
        except Deadlock:
            how = "deadlock"
        ledger.check(vm)
    vm.heap.make_room()
    assert vm.heap.objects == 0
    assert vm.heap.reserved == 0
    return how


MAKERS = [
    "new $2", "newz $7", "newa $3,$3", "newaz $3,$5", "newcw", "newcw $2", "newcp $1", "newcm $8",
    "newcmp $7,$1", "cvtwc $77", "cvtca 4(mp)", "cvtfc 64(fp)", "cvtlc 64(fp)", "self",
    "movp 4(mp)",
]  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_made_for_a_place_behind_nil_is_freed(maker):
    code = f"movl 120(mp),64(fp)\n{maker}{' ' if maker == 'self' else ','}0(32(fp))\nret"
    code = code.replace("newcw,", "newcw ")
    assert run(code, 'string @mp+4,"abc"\n') == NIL_DEREFERENCE


def test_where_somebody_waited_for_a_value_is_no_place_that_is_kept_for_it():
    code = (
        "newcw 0(mp)\nnew $7,4(mp)\nframe $8,64(fp)\ncall 64(fp),wait\nret\n"
        "wait: movw $0,64(fp)\nmovw $1,68(fp)\nmovp 0(mp),72(fp)\n"
        "lea 8(4(mp)),76(fp)\nalt 64(fp),80(fp)\nret"
    )
    assert run(code, "desc $8,96,(32,72)\n") == "deadlock"


def fail(heap, number):
    """Let an allocation fail, however often it is tried."""
    allocate, count = heap.allocate, itertools.count()

    def allocated(size, is_record=False, clears=True):
        fails = number <= next(count) < number + 3
        return None if fails else allocate(size, is_record, clears)

    heap.allocate = allocated


def asked(number, slot="$0"):
    """Return the code of a call of a function of the host."""
    return (
        f"mframe 4(mp),${number},60(fp)\nmovw {slot},32(60(fp))\nlea 64(fp),16(60(fp))\n"
        f"mcall 60(fp),${number},4(mp)\n"
    )


def control(what):
    """Return a function of the host that writes to the control file of a process."""

    def write(call):
        number = call.heap.word(call.frame + ARGUMENTS) or call.process.pid
        ProcessFiles(call.machine)._control(number, what)

    return write


def test_what_a_group_hears_is_raised_where_a_process_is_and_not_in_the_function_before():
    code = (
        f"{asked(0)}frame $6,64(fp)\nspawn 64(fp),fail\nframe $6,64(fp)\n"
        f"movw $70000,32(64(fp))\nspawn 64(fp),number\nnewcw 12(mp)\nrecv 12(mp),64(fp)\nret\n"
        "fail: raise 8(mp)\nret\nbefore: movp 8(mp),32(fp)\nret\nnumber: movw $1,36(fp)\nret\n"
    )
    at = code[: code.index("before:")].count("\n") + 1
    table = f"exceptions 1\nexception {at},{at + 2},32,-1,0,0\nexctab *,{at}\n"
    more = f'string @mp+8,"boo"\nlink 1,{at},"fn()","before"\n{table}'
    assert run(code, more, share=control("exceptions propagate")) == "boo"


KILLERS = {
    "itself": (asked(1), "killed"),
    "itself while it waits": (asked(2), "killed"),
    "another": (asked(1, "$2"), "killed"),
    "its group": (asked(3), 0),
    "the leader": (asked(1, "$1"), 0),
}
"""What a member does, and what the leader ends with."""


@pytest.mark.parametrize("killer", KILLERS)
@pytest.mark.parametrize("mode", SHARING)
def test_who_kills_others_may_be_killed_by_that(killer, mode):
    code, end = KILLERS[killer]
    spawn = "frame $8,64(fp)\nspawn 64(fp),"
    program = (
        f"{asked(0)}newcw 12(mp)\n{spawn}w\n{spawn}w\n{spawn}k\nrecv 12(mp),64(fp)\nret\n"
        f"w: recv 12(mp),64(fp)\nret\nk: {code}movp 8(mp),32(fp)\naddc 32(fp),32(fp)\nret\n"
    )
    more = 'desc $8,128,(32)\nstring @mp+8,"boo"\n'
    functions = {
        "a": control(f"exceptions {mode}"),
        "b": control("kill"),
        "c": lambda call: Until(lambda: True, lambda: control("kill")(call)),
        "d": control("killgrp"),
    }
    assert run(program, more, **functions) == end


@pytest.mark.parametrize("room", [1, 2, 5])
def test_a_channel_can_be_received_over_by_what_it_holds(room):
    code = (
        f"newcp ${room},32(fp)\nnewcp $2,36(fp)\nsend 36(fp),32(fp)\nrecv 32(fp),32(fp)\n"
        "movw $9,0(16(fp))\nret"
    )
    assert run(code) == 9
    code = (
        f"new $2,32(fp)\nnewcp ${room},0(32(fp))\nnew $2,36(fp)\nmovw $5,4(36(fp))\n"
        "send 36(fp),0(32(fp))\nrecv 0(32(fp)),32(fp)\nmovw 4(32(fp)),0(16(fp))\nret"
    )
    assert run(code) == 5


NESTED = "array @mp+12,$5,2\nindir @mp+12,0\narray @mp+0,$5,3\narray @mp+4,$3,2\napop\n"
ALLOCATING = {
    "a load": f"load 8(mp),$0,32(fp)\n{asked(0)}ret",
    "a spawn": "frame $8,64(fp)\nspawn 64(fp),go\nret\ngo: new $2,36(fp)\nret",
    "calls": "frame $8,64(fp)\ncall 64(fp),go\nret\ngo: frame $8,64(fp)\ncall 64(fp),more\nret\n"
             "more: frame $8,64(fp)\ncall 64(fp),most\nret\nmost: raise 20(mp)",
    "text": "cvtwc $77,32(fp)\naddc 20(mp),32(fp),36(fp)\ncvtca 36(fp),40(fp)\n"
            "insc $9731,$0,36(fp)\ncvtac 40(fp),32(fp)\nslicec $1,$2,32(fp)\nret",
    "objects": "newa $4,$5,32(fp)\nslicea $1,$3,32(fp)\nconsp 20(mp),36(fp)\nnewcmp $7,$2,40(fp)\n"
               "newz $7,44(fp)\nraise 20(mp)",
}  # fmt: skip


@pytest.mark.parametrize("code", ALLOCATING)
def test_every_allocation_may_fail(code, tmp_path):
    more = f'desc $8,1500,(32,36)\nstring @mp+8,"/test.dis"\nstring @mp+20,"abc"\n{NESTED}'
    (tmp_path / "test.dis").write_bytes(write_module(assemble("ret", more)))
    ends = set()
    for number in range(40):
        how = run(ALLOCATING[code], more, Limits(1 << 20), tmp_path, number, ask=lambda call: None)
        ends.add(how)
    assert {"out of memory: heap", "out of memory: main"} & ends
    assert ends - {"out of memory: heap", "out of memory: main"}


def test_arrays_in_module_data_may_be_nested_as_deep_as_a_file_can_say():
    depth = 3000
    data = "array @mp+8,$5,1\nindir @mp+8,0\narray @mp+0,$5,1\n" + (
        "indir @mp+0,0\narray @mp+0,$5,1\n" * (depth - 1) + "apop\n" * depth
    )
    assert run("movw $1,0(16(fp))\nret", data) == 1


def test_a_module_may_outlast_the_one_that_took_its_place(tmp_path):
    file = tmp_path / "b.dis"
    file.write_bytes(write_module(assemble("ret", name="B")))

    def change(call):
        file.write_bytes(write_module(assemble("runt\nret", name="Other")))

    code = (
        f"load 8(mp),$1,32(fp)\n{asked(0)}load 8(mp),$1,36(fp)\nmovp 28(mp),36(fp)\n"
        f"{asked(1)}movp 28(mp),32(fp)\nmovw $1,0(16(fp))\nret"
    )
    more = 'string @mp+8,"/b.dis"\n'
    room = {"change": change, "room": lambda call: call.heap.make_room()}
    assert run(code, more, folder=tmp_path, **room) == 1


def test_nothing_is_kept_of_modules_that_were_unloaded(tmp_path):
    with InfernoVM(limits=Limits(1 << 20)) as vm:
        for _ in range(3):
            vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
            assert vm.execute("test", "main") == 1
        assert len(vm.loader.modules) == 1
        vm.unload_module("test")
        assert vm.loader.modules == []
        vm.load_module("test", assemble("ret"))
        vm.execute("test", "main")
        natives = getattr(vm.engine, "_natives", None)
        assert natives is None or len(natives.usual) <= 1


def test_modules_that_are_read_again_have_the_types_that_they_had(tmp_path):
    for number in range(34):  # more than are kept out of use
        file = write_module(assemble("ret", name=f"M{number}"))
        (tmp_path / f"{number}.dis").write_bytes(file)
    code = (
        "again: movw $0,68(fp)\nnext: cvtwc 68(fp),32(fp)\naddc 32(fp),0(mp),32(fp)\n"
        "addc 4(mp),32(fp),32(fp)\nload 32(fp),$0,36(fp)\naddw $1,68(fp)\n"
        "bltw 68(fp),$34,next\naddw $1,64(fp)\nbltw 64(fp),40(mp),again\nret"
    )
    more = 'string @mp+0,"/"\nstring @mp+4,".dis"\nldts @ldt,1\nword @ldt+0,0\nword @mp+40,{}\n'
    found = set()
    for rounds in (1, 2, 3):
        module = assemble(f"movw $0,64(fp)\n{code}", more.format(rounds))
        with InfernoVM(namespace=Namespace(tmp_path), limits=Limits(1 << 20)) as vm:
            vm.load_module("test", module)
            vm.execute("test", "main")
            assert len(vm.loader._resting) == 32
            found.add(len(vm.heap.types))
    assert len(found) == 1


@pytest.mark.parametrize("name", ["alt", "nbalt"])
@pytest.mark.parametrize("counts", [(-1, 0), (0, -1), (-1, 2), (2, -1), (1 << 16 | 1, 0)])
def test_a_table_for_alt_has_no_fewer_entries_than_none(name, counts):
    with InfernoVM(limits=Limits(1 << 20), verify=False) as vm:
        lines = [f"movw ${count},{72 + 4 * at}(fp)" for at, count in enumerate(counts)]
        lines += ["newcw $1,32(fp)", "movw 32(fp),80(fp)", f"{name} 72(fp),64(fp)", "ret"]
        vm.load_module("test", assemble("\n".join(lines)))
        with pytest.raises(Trap, match="array bounds error"):
            vm.execute("test", "main")


def test_no_more_is_kept_of_an_exception_than_is_told():
    kept: list[str] = []
    code = (
        "movp 8(mp),32(fp)\nmovw $0,64(fp)\nmore: addc 32(fp),32(fp)\naddw $1,64(fp)\n"
        "bltw 64(fp),$15,more\nraise 32(fp)\n"
        f"{asked(0)}raise 36(fp)"
    )
    more = 'string @mp+8,"x"\nexceptions 1\nexception 6,7,36,-1,0,0\nexctab *,7\n'
    how = run(code, more, look=lambda call: kept.append(call.process.last_exception))
    assert kept == [f"6 Test {'x' * 120}"]
    assert how == "x" * 4096


def test_killing_a_group_ends_when_time_is_up():
    def late(call):
        call.machine.scheduler.until = 0.0
        control("killgrp")(call)

    spawn = "frame $8,64(fp)\nspawn 64(fp),w\n"
    code = f"newcw 12(mp)\n{spawn * 3}{asked(0)}ret\nw: recv 12(mp),64(fp)\nret\n"
    with pytest.raises(LimitError, match="time limit"):
        run(code, 'desc $8,128,""\n', late=late)


def test_a_channel_is_let_go_if_its_value_goes_nowhere():
    with InfernoVM() as vm:
        heap, channels = vm.heap, vm.engine.channels
        channel, place = heap.new_channel(WORD, 1), heap.new_record(WORD)
        assert channels._complete(Offer(channel, True, place))
        with pytest.raises(IndexError):
            channels._complete(Offer(channel, False, NIL - 1))
        heap.release(place)
        heap.release(channel)
        assert heap.objects == 0
