"""Processes: turns, channels, what a process waits for, and what happens when all of them wait."""

from __future__ import annotations

import threading

import pytest

from llmbol_core.errors import Deadlock, LimitError, Trap
from llmbol_core.vm import traps
from llmbol_core.vm.host import RESULT, Sleep, Work
from llmbol_core.vm.limits import Limits
from tests.vm.programs import host_module, run

LOAD_HOST = """
    load 20(mp),$0,32(fp)
    mframe 32(fp),$0,64(fp)
    movw $5,32(64(fp))
    lea 68(fp),16(64(fp))
    mcall 64(fp),$0,32(fp)
    movw 68(fp),0(16(fp))
    ret
"""
HOST = 'string @mp+20,"$Host"\nldts @ldt,1\nword @ldt+0,1\next @ldt+4,"fn(n: int): int","work"\n'


def answer(call, value):
    call.heap.set_word(call.heap.pointer(call.frame + RESULT), value)


def test_a_host_function_gets_its_arguments_and_gives_a_result():
    def work(call):
        assert call.caller.module.name == "Test"
        answer(call, call.heap.word(call.frame + 32) * 3)

    assert run(LOAD_HOST, HOST, host=host_module(work=work)) == 15


def test_a_host_function_can_kill_the_process_that_called_it():
    def work(call):
        call.machine.kill(call.process.pid)
        answer(call, 5)

    # What the function returns, the process does not return any more.
    assert run(LOAD_HOST, HOST, host=host_module(work=work)) == 0


def test_a_host_function_can_sleep_and_work_elsewhere():
    def sleep(call):
        answer(call, 6)
        return Sleep(0.001)

    def work(call):
        return Work(threading.get_ident, lambda found: answer(call, found != threading.get_ident()))

    assert run(LOAD_HOST, HOST, host=host_module(work=sleep)) == 6
    assert run(LOAD_HOST, HOST, host=host_module(work=work)) == 1


def test_work_that_fails_raises_where_it_was_called():
    def fail(found):
        raise Trap("host failed")

    def broken():
        raise RuntimeError("a mistake in the host")

    module = host_module(work=lambda call: Work(int, fail))
    with pytest.raises(Trap, match=r'\[\$Host\] Broken: "host failed"'):
        run(LOAD_HOST, HOST, host=module)
    handler = 'exceptions 1\nexception 4, 5, 36, -1, 1, 0\nexctab "host*", 7\nexctab *, -1\n'
    caught = LOAD_HOST + "movw $77,0(16(fp))\nret"
    assert run(caught, HOST + handler, host=module) == 77
    with pytest.raises(RuntimeError, match="a mistake in the host"):
        run(LOAD_HOST, HOST, host=host_module(work=lambda call: Work(broken, fail)))


def test_others_run_while_one_waits_for_the_host():
    """The process that waits is woken by what the other one does meanwhile."""
    event = threading.Event()

    def work(call):
        if call.heap.word(call.frame + 32) == 5:
            return Work(lambda: event.wait(5), lambda found: answer(call, found))
        event.set()
        answer(call, 0)
        return None

    code = """
    load 20(mp),$0,0(mp)
    frame $6,64(fp)
    spawn 64(fp),other
    mframe 0(mp),$0,64(fp)
    movw $5,32(64(fp))
    lea 0(16(fp)),16(64(fp))
    mcall 64(fp),$0,0(mp)
    ret
    other: mframe 0(mp),$0,32(fp)
    movw $6,32(32(fp))
    lea 36(fp),16(32(fp))
    mcall 32(fp),$0,0(mp)
    ret
    """
    assert run(code, HOST, host=host_module(work=work)) == 1


COUNTERS = """
    frame $6,64(fp)
    movw $1,32(64(fp))
    spawn 64(fp),count
    frame $6,64(fp)
    movw $1000,32(64(fp))
    spawn 64(fp),count
wait: addw $1,72(fp)
    bltw 64(mp),$10010,wait
    movw 64(mp),0(16(fp))
    ret
count: movw $10,36(fp)
next: addw 32(fp),64(mp)
    subw $1,36(fp)
    bgtw 36(fp),$0,next
    ret
"""


def test_processes_take_turns():
    assert run(COUNTERS) == 10_010


def test_processes_take_turns_where_a_branch_goes_to_an_address():
    code = COUNTERS.replace("wait:", "movpc wait,76(fp)\nwait:").replace(
        "$10010,wait", "$10010,76(fp)"
    )
    assert run(code, limits=Limits(1 << 20, instructions=1_000_000)) == 10_010


def test_the_number_of_processes_is_limited():
    with pytest.raises(LimitError, match="process limit: the program has 2 of them"):
        run(COUNTERS, limits=Limits(1 << 20, threads=2))


PIPELINE = """
    newcw {capacity},0(mp)
    frame $6,64(fp)
    movw $0,32(64(fp))
    spawn 64(fp),producer
    movw $0,72(fp)
    movw $0,76(fp)
loop: recv 0(mp),80(fp)
    mulw $3,76(fp)
    addw 80(fp),76(fp)
    addw $1,72(fp)
    bltw 72(fp),$8,loop
    movw 76(fp),0(16(fp))
    ret
producer: send 32(fp),0(mp)
    addw $1,32(fp)
    bltw 32(fp),$8,producer
    ret
"""


@pytest.mark.parametrize("capacity", ["$0", "$1", "$3", "$8"])
def test_values_arrive_in_order(capacity):
    wanted = 0
    for value in range(8):
        wanted = wanted * 3 + value
    assert run(PIPELINE.format(capacity=capacity)) == wanted


def test_a_full_channel_blocks_and_the_deadlock_is_reported_with_places():
    code = """
    newcw $2,0(mp)
    send $1,0(mp)
    send $1,0(mp)
    frame $6,64(fp)
    spawn 64(fp),other
    send $1,0(mp)
    ret
    other: newcw 4(mp)
    recv 4(mp),32(fp)
    ret
    """
    with pytest.raises(Deadlock) as caught:
        run(code)
    assert "process 1 in Test at pc 5 sends; process 2 in Test at pc 8 receives" in str(
        caught.value
    )


def test_who_waits_for_a_program_that_has_ended_is_let_go():
    code = "newcw 0(mp)\nframe $6,64(fp)\nspawn 64(fp),other\nmovw $3,0(16(fp))\nret\n"
    assert run(code + "other: recv 0(mp),32(fp)\nret") == 3


def test_an_exception_ends_its_own_process_only():
    code = """
    newcw 0(mp)
    frame $6,64(fp)
    spawn 64(fp),other
    recv 0(mp),0(16(fp))
    ret
    other: send $4,0(mp)
    movw 0(36(fp)),32(fp)
    ret
    """
    assert run(code.replace("36(fp)", "4(mp)")) == 4


def test_a_channel_that_is_released_raises_in_who_waits():
    code = """
    newcw 0(mp)
    frame $6,64(fp)
    spawn 64(fp),other
    send $4,0(mp)
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
    other: newcw 0(mp)
    ret
    """
    handler = 'exceptions 1\nexception 3, 4, 36, -1, 1, 0\nexctab "{}", 6\nexctab *, -1\n'
    assert run(code, handler.format(traps.CHANNEL_HANGUP)) == 2
    with pytest.raises(Trap, match=traps.CHANNEL_HANGUP):
        run(code)


ALT = """
    newcw $1,0(mp)
    newcw $1,4(mp)
    send $10,0(mp)
    send $20,4(mp)
again: movw $0,64(fp)
    movw $2,68(fp)
    movw 0(mp),72(fp)
    lea 96(fp),76(fp)
    movw 4(mp),80(fp)
    lea 100(fp),84(fp)
    alt 64(fp),88(fp)
    mulw $2,92(fp)
    addw 88(fp),92(fp)
    bnew 88(fp),$0,second
    send 96(fp),0(mp)
    jmp next
second: send 100(fp),4(mp)
next: addw $1,104(fp)
    bltw 104(fp),$16,again
    movw 92(fp),0(16(fp))
    ret
"""


def test_alt_chooses_as_inferno_does():
    """The generator is x = x * 1103515245 + 12345 from 16r20342; (x >> 8) modulo those ready."""
    x, wanted = 0x20342, 0
    for _ in range(16):
        x = (x * 1103515245 + 12345) & 0xFFFFFFFF
        wanted = 2 * wanted + (x >> 8) % 2
    code = "movw $0,92(fp)\nmovw $0,104(fp)\n" + ALT
    assert run(code) == wanted


def test_an_alt_that_waits_takes_what_comes_first():
    code = """
    newcw 0(mp)
    newcw 4(mp)
    frame $6,64(fp)
    spawn 64(fp),other
    movw $1,64(fp)
    movw $1,68(fp)
    movw 0(mp),72(fp)
    lea 96(fp),76(fp)
    movw 4(mp),80(fp)
    lea 100(fp),84(fp)
    alt 64(fp),88(fp)
    movw 0(mp),72(fp)
    movw 4(mp),80(fp)
    nbalt 64(fp),92(fp)
    mulw $10,88(fp)
    addw 92(fp),88(fp)
    mulw $100,88(fp)
    addw 100(fp),88(fp),0(16(fp))
    ret
    other: send $7,4(mp)
    ret
    """
    assert run(code) == 1207
