"""The debugger: where programs stop, and what can be seen there."""

from __future__ import annotations

import signal

import pytest

from llmbol_core.errors import UsageError
from llmbol_core.vm.debugger import Catch, Debugger, Way
from llmbol_core.vm.places import Scope, Shown
from tests.vm.observed import PICKS, watched
from tests.vm.programs import assemble

CALLS = """
    frame $8,64(fp)
    movw $3,32(64(fp))
    call 64(fp),work
    movw $0,0(16(fp))
    ret
work:
    movw $7,36(fp)
    frame $6,48(fp)
    call 48(fp),inner
    ret
inner:
    ret
"""


class Script:
    """Does something at each stop, in order, and keeps why and where the program stopped."""

    def __init__(self, *actions):
        self.actions = list(actions)
        self.stops = []
        self.debugger = Debugger(self.stopped)

    def stopped(self, reason):
        process = self.debugger.stopped
        self.stops.append((reason, process.pid, process.pc))
        if self.actions:
            self.actions.pop(0)(self.debugger)


def debug(program, *actions):
    """Run a program (assembled, or a path) and return the stops."""
    script = Script(*actions)
    with watched(script.debugger) as vm:
        if isinstance(program, str):
            vm.run(program, host=True)
        else:
            vm.load_module("test", program)
            try:
                vm.execute("test", "main")
            except UsageError:
                raise
            except Exception as error:  # noqa: BLE001 -- kept for the test
                script.stops.append(str(error))
    return script.stops


def go(way, count=1):
    return lambda debugger: debugger.go(way, count)


MODULE = assemble(CALLS, 'desc $8,56,""')


def test_steps_enter_calls_and_next_passes_them():
    stops = debug(MODULE, go(Way.STEP, 2), go(Way.STEP), go(Way.FINISH), go(Way.STEP))
    assert stops == [
        ("start", 1, 0), ("step", 1, 2), ("step", 1, 5), ("finish", 1, 3), ("step", 1, 4),
    ]  # fmt: skip
    stops = debug(MODULE, go(Way.NEXT, 2), go(Way.NEXT), go(Way.NEXT))
    assert stops == [("start", 1, 0), ("next", 1, 2), ("next", 1, 3), ("next", 1, 4)]


def test_next_leaves_a_function_with_its_return():
    def stop_in_inner(debugger):
        debugger.add_breakpoint("@9")

    stops = debug(MODULE, stop_in_inner, go(Way.NEXT), go(Way.NEXT), go(Way.NEXT), go(Way.LINE))
    assert stops == [
        ("start", 1, 0), ("breakpoint 1", 1, 9), ("next", 1, 8), ("next", 1, 3), ("next", 1, 4),
    ]  # fmt: skip


def test_breakpoints_come_and_go():
    def set_two(debugger):
        assert debugger.add_breakpoint("7").pc == 7
        assert debugger.add_breakpoint("Test.@9").pc == 9
        assert debugger.add_breakpoint("Later:work").pc is None

    def delete(debugger):
        debugger.delete_breakpoint(2)
        assert [b.number for b in debugger.breakpoints] == [1, 3]
        with pytest.raises(UsageError, match="no breakpoint 2: there is 1, 3"):
            debugger.delete_breakpoint(2)

    stops = debug(MODULE, set_two, delete)
    assert stops == [("start", 1, 0), ("breakpoint 1", 1, 7)]


def test_breakpoints_wait_for_their_module():
    debugger = Debugger(lambda reason: stops.append((reason, debugger.stopped.pc)))
    stops: list[tuple[str, int]] = []
    debugger.add_breakpoint("Test:@9")
    with watched(debugger) as vm:
        vm.load_module("test", MODULE)
        vm.execute("test", "main")
    assert stops == [("start", 0), ("breakpoint 1", 9)]
    assert debugger.breakpoints[0].pc == 9


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("10", "Test has instructions 0 to 9, not 10"),
        ("wrok", "Test has no function 'wrok'"),
        ("Test:mian", r"did you mean 'main'\?"),
        (":7", "no source lines are known"),
        ("a.b:x", "'x' is no line number"),
    ],
)
def test_wrong_locations_are_refused(location, message):
    def check(debugger):
        with pytest.raises(UsageError, match=message):
            debugger.add_breakpoint(location)

    assert debug(MODULE, check) == [("start", 1, 0)]


def test_source_lines():
    seen: list[Shown] = []

    def set_line(debugger):
        assert debugger.add_breakpoint("picks.b:40").pc == 35
        assert debugger.add_breakpoint(":41").pc == 36
        with pytest.raises(UsageError, match=r"line 30 of picks\.b: line 32 has some"):
            debugger.add_breakpoint(":30")
        with pytest.raises(UsageError, match=r"no code comes from 'pics\.b' \(did you mean"):
            debugger.add_breakpoint("pics.b:40")
        debugger.delete_breakpoint(2)

    def look(debugger):
        scope = Scope(debugger.inspector, debugger.inspector.levels(debugger.stopped)[0])
        seen.extend(scope.show(text) for text in ("x.pos", "x.l.l.name", "nodes", "e", "sys"))
        for wrong, message in [
            ("y", "no variable 'y'"),
            ("x.poss", r"x has no field 'poss' \(did you mean 'pos'\?\)"),
            ("x[1]", r"x is no array: it is of type ref Expr"),
            ("x!", r"expected .field or \[index\], found '!'"),
            ("x.l.l.name.z", "x.l.l.name has no field 'z': it is of type string"),
            ("1+1", "is neither a place"),
            ("x int", "a type can follow a place such as 40"),
        ]:
            with pytest.raises(UsageError, match=message):
                scope.show(wrong)
        debugger.delete_breakpoint(1)
        debugger.go(Way.LINE)

    stops = debug(str(PICKS), set_line, look, go(Way.LINE))
    assert [stop[0] for stop in stops] == ["start", "breakpoint 1", "line", "line"]
    assert [stop[2] for stop in stops[1:]] == [35, 36, 37]
    values = {shown.name: (shown.type, shown.value) for shown in seen}
    assert values["x.pos"] == ("int", "7")
    assert values["nodes"] == ("int", "8")
    assert values["sys"] == ("Sys", "module $Sys")
    assert values["e"][1].startswith("ref Expr.Bin(pos=7, op=43, l=ref Expr.Bin(")


def test_places_without_symbols():
    seen: dict[str, str] = {}

    def look(debugger):
        scope = Scope(debugger.inspector, debugger.inspector.levels(debugger.stopped)[0])
        words = {shown.name: shown.value for shown in scope.variables()}
        assert (words["32(fp)"], words["56(fp)"]) == ("nil", "3")
        texts = ["56(fp)", "56(fp) B", "0(mp)", "0(mp) string", "32(fp) list of int"]
        seen.update((text, scope.show(text).value) for text in texts)
        for wrong, message in [
            ("56(fp) strin", "'strin' is neither a type of Limbo nor a type letter"),
            ("x", "no symbol file tells any"),
            ("56", "is neither a place"),
        ]:
            with pytest.raises(UsageError, match=message):
                scope.show(wrong)

    code = "movw $3,56(fp)\nmovp 0(mp),36(fp)\nret"
    debug(assemble(code, 'string @mp+0,"text"'), go(Way.STEP, 2), look)
    assert seen == {
        "56(fp)": "3", "56(fp) B": "3", "0(mp)": '"text"', "0(mp) string": '"text"',
        "32(fp) list of int": "nil",
    }  # fmt: skip


def test_damaged_frames_are_said_to_be_so():
    def look(debugger):
        level = debugger.inspector.levels(debugger.stopped)[0]
        heap = debugger.inspector.machine.heap
        number = heap.word(level.frame + 12)
        heap.set_word(level.frame + 12, 1 << 20)
        with pytest.raises(UsageError, match="the frame is damaged"):
            Scope(debugger.inspector, level).variables()
        heap.set_word(level.frame + 12, number)

    debug(MODULE, look)


CATCHES = """
    movw 0(32(fp)),56(fp)
    ret
    raise 0(mp)
"""
HANDLED = (
    'string @mp+0,"own"\nexceptions 1\nexception 0,1,36,-1,1,0\nexctab "deref*",2\nexctab *,-1'
)


def test_exceptions_stop_before_the_stack_is_left():
    def catch(what):
        def action(debugger):
            debugger.catch = what

        return action

    program = assemble(CATCHES, HANDLED)
    handled = ("exception 'dereference of nil', handled at Test 2", 1, 0)
    unhandled = ("exception 'own', which nothing handles", 1, 2)
    end = '[Test] Broken: "own"'
    assert debug(program, catch(Catch.ALL)) == [("start", 1, 0), handled, unhandled, end]
    assert debug(program) == [("start", 1, 0), unhandled, end]
    assert debug(program, catch(Catch.NONE)) == [("start", 1, 0), end]


SPAWNS = """
    newcw 32(fp)
    frame $7,64(fp)
    movp 32(fp),36(64(fp))
    spawn 64(fp),child
    recv 32(fp),56(fp)
    movw 56(fp),0(16(fp))
    ret
child:
    movw $5,40(fp)
    send 40(fp),36(fp)
    ret
"""


def test_other_processes():
    program = assemble(SPAWNS.replace("$7", "$8"), "desc $8,48,(36)")

    def switch(debugger):
        assert sorted(p.pid for p in debugger.inspector.processes()) == [1, 2]
        assert debugger.switch(2).pc == 7
        with pytest.raises(UsageError, match="no process 3: there is 1, 2"):
            debugger.switch(3)
        debugger.go(Way.STEP)

    stops = debug(program, go(Way.STEP, 4), switch, go(Way.NEXT), go(Way.STEP), go(Way.STEP))
    assert stops[1:] == [
        ("step", 1, 4), ("step", 2, 8), ("next", 2, 9), ("process 2 has ended", 1, 5),
        ("step", 1, 6),
    ]  # fmt: skip


def test_killing_a_process_leaves_the_others():
    program = assemble(SPAWNS.replace("$7", "$8"), "desc $8,48,(36)")

    def kill(debugger):
        debugger.kill(2)
        assert [p.pid for p in debugger.inspector.processes()] == [1]

    stops = debug(program, go(Way.STEP, 4), kill)
    assert stops[1:3] == [("step", 1, 4), ("no process can go on", 1, 5)]
    assert "every process waits" in str(stops[3])


def test_killing_the_current_process_ends_it_at_once():
    stops = debug(MODULE, lambda debugger: debugger.kill(1))
    assert stops == [("start", 1, 0)]


def test_interrupt_stops_before_the_next_instruction():
    stops = []

    def stopped(reason):
        stops.append((reason, debugger.stopped.pc))
        if len(stops) == 2:
            debugger.kill(1)

    class Interrupted(Debugger):
        def after(self, process):
            self.interrupt()

    debugger = Interrupted(stopped)
    with watched(debugger) as vm:
        vm.load_module("test", assemble("again: jmp again\nret"))
        vm.execute("test", "main")
    assert stops == [("start", 0), ("interrupted", 0)]


SLEEPS = """
    load 20(mp),$0,32(fp)
    mframe 32(fp),$0,64(fp)
    movw $30000,32(64(fp))
    lea 68(fp),16(64(fp))
    mcall 64(fp),$0,32(fp)
    ret
"""
SLEEP = """
    string @mp+20,"$Sys"
    ldts @ldt,1
    word @ldt+0,1
    ext @ldt+4,"fn(period: int): int","sleep"
"""


def test_interrupt_stops_a_program_that_waits():
    def stopped(reason):
        if reason == "interrupted":
            raise UsageError(f"it {debugger.stopped.waits_for}")
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    debugger = Debugger(stopped)
    before = signal.signal(signal.SIGALRM, lambda *_: debugger.interrupt())
    try:
        with watched(debugger) as vm:
            vm.load_module("test", assemble(SLEEPS, SLEEP))
            with pytest.raises(UsageError, match="it sleeps"):
                vm.execute("test", "main")
    finally:
        signal.signal(signal.SIGALRM, before)


def test_interrupt_ends_what_has_not_begun():
    with pytest.raises(KeyboardInterrupt):
        Debugger(pytest.fail).interrupt()
