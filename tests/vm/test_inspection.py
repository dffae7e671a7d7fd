"""Looking into machines: processes from outside, stacks, and values of every kind."""

from __future__ import annotations

import pytest

from llmbol_core.errors import Deadlock, LinkError, Trap, UsageError
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.exceptions import levels
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.limbo import parse_declarations, parse_type
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.observation import Observer
from llmbol_core.vm.strings import new_strings
from llmbol_core.vm.values import Values
from tests.vm.observed import PICKS, watched
from tests.vm.programs import assemble

WAITS = assemble("newcw 32(fp)\nrecv 32(fp),56(fp)\nret")
FAULTY = assemble("movw 0(32(fp)),56(fp)\nret", name="Faulty")


@pytest.fixture
def vm():
    with InfernoVM({}, limits=Limits(1 << 20)) as vm:
        vm.load_module("waits", WAITS)
        vm.load_module("faulty", FAULTY)
        yield vm


def test_spawned_processes_run_when_the_machine_does(vm):
    pids = [vm.spawn("waits", "main"), vm.spawn("waits", "main")]
    first, second = vm.processes()
    assert (first.pid, first.state, first.function, first.pc) == (pids[0], "ready", "main", 0)
    assert (second.pid, second.module, second.waits_for) == (pids[1], "Test", None)
    with pytest.raises(Deadlock, match="process 2 in Test at pc 1"):
        vm.wait()
    assert vm.processes() == []


def test_wait_raises_what_ended_a_process(vm):
    vm.spawn("faulty", "main")
    with pytest.raises(Trap, match="dereference of nil"):
        vm.wait()
    vm.wait()


def test_killed_processes_never_run(vm):
    pid = vm.spawn("faulty", "main")
    vm.kill(pid)
    vm.wait()
    assert vm.get_stats().instructions == 0
    with pytest.raises(UsageError, match="no process 1: there is none"):
        vm.kill(pid)


def test_modules_can_be_unloaded(vm):
    vm.unload_module("waits")
    assert vm.get_stats().modules == 1
    with pytest.raises(LinkError, match=r"wait: no module of this name is loaded"):
        vm.unload_module("wait")
    with pytest.raises(LinkError):
        vm.spawn("waits", "main")


def test_nothing_is_left_behind(vm):
    vm.kill(vm.spawn("waits", "main"))
    vm.unload_module("waits")
    vm.unload_module("faulty")
    vm.heap.collect()
    assert vm.heap.objects == 0


class _Deepest(Observer):
    """Keeps the stack of a program where it was deepest."""

    def __init__(self):
        self.stack = []

    def before(self, process):
        stack = self.inspector.stack(process)
        if len(stack) > len(self.stack):
            self.stack = stack


def test_stack_names_functions_and_lines():
    observer = _Deepest()
    with watched(observer) as vm:
        vm.run(str(PICKS), host=True)
    assert observer.stack[0].level == 0
    assert observer.stack[-1].function == "init"
    assert {level.function for level in observer.stack[:-1]} <= {"Expr.text", "simp", "deriv"}
    assert all(level.source.startswith("picks.b:") for level in observer.stack)


def test_symbols_of_another_version_are_left_out(tmp_path):
    (tmp_path / "a.dis").write_bytes(PICKS.read_bytes())
    (tmp_path / "a.sbl").write_text("limbo .sbl 2.1\nPicks\n0\n0\n0\n0\n0\n")
    observer = Observer()
    with watched(observer) as vm:
        loaded = vm.load_module("a", tmp_path / "a.dis")
        assert observer.inspector.code(loaded).symbols is None
    (problem,) = observer.inspector.problems
    assert "it tells of 0 instructions, the module has 540" in problem


@pytest.fixture
def place(vm):
    """Return what shows a value given as what makes its reference, as a Limbo type or without."""
    heap = vm.heap
    slot = heap.new_record(TypeDescriptor(-1, 8, b"\x80"))

    def show(ref, kind=None):
        heap.give(slot, ref)
        values = Values(vm.engine)
        if kind is None:
            return values.of_letter("P", slot, 3)
        return values.of_type(kind if not isinstance(kind, str) else parse_type(kind), slot)

    yield show
    heap.release(slot)


def array(heap, number, values, put):
    ref = heap.new_array(number, len(values))
    for i, value in enumerate(values):
        put(heap.array_data(ref) + i * heap.types[number].size, value)
    return ref


def test_references_tell_what_they_lead_to(vm, place):
    heap = vm.heap
    assert place(NIL) == "nil"
    assert place(heap.new_string("ab\né一")) == r'"ab\né一"'
    assert place(heap.new_string("x" * 100)) == f'"{"x" * 60}"... (100 characters)'
    assert place(heap.new_bytes(bytes(range(12)))) == (
        "array[12] {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...}"
    )
    assert place(array(heap, WORD, [-1, 2], heap.set_word)) == "array[2] {-1, 2}"
    assert place(array(heap, REAL, [0.5], heap.set_real)) == "array[1] {0.5}"
    assert place(new_strings(heap, ["a", ""])) == 'list {"a", nil}'
    assert place(heap.new_channel(WORD, 0)) == "chan"
    assert place(heap.new_channel(WORD, 3)) == "chan, 0 of 3 buffered"
    record = heap.new_record(TypeDescriptor(-1, 8, b"\x80"))
    assert place(record) == f"@{record:x} (nil, 0)"


def test_types_tell_more(vm, place):
    heap = vm.heap
    names = parse_declarations(
        "Point: adt { x: int; name: string; };"
        "Shape: adt { id: int; pick { Dot => p: ref Point; Disc or Ring => r: real; } };"
    )
    ref = heap.new_record(TypeDescriptor(-1, 8, b"\x40"))
    heap.set_word(ref, 7)
    heap.give(ref + 4, heap.new_string("here"))
    assert place(heap.retain(ref), parse_type("ref Point", names)) == 'ref Point(x=7, name="here")'
    shape = heap.new_record(TypeDescriptor(-1, 16))
    heap.set_word(shape, 2)
    heap.set_real(shape + 8, 1.5)
    assert (
        place(heap.retain(shape), parse_type("ref Shape", names)) == "ref Shape.Ring(id=0, r=1.5)"
    )
    heap.set_word(shape, 9)
    assert place(shape, parse_type("ref Shape", names)) == "ref Shape.?"
    heap.release(ref)
    assert place(NIL, "string") == '""'
    assert place(array(heap, BIG, [1 << 40], heap.set_big), "array of big") == (
        "array[1] {1099511627776}"
    )
    assert place(new_strings(heap, ["a", ""]), "list of string") == 'list {"a", ""}'
    assert place(heap.new_string("no list"), "list of int") == '"no list"'


def test_damage_is_shown_as_such(vm, place):
    values = Values(vm.engine)
    assert values.of_reference(0x12345678).endswith("?")
    assert values.of_letter("W", NIL) == "?"
    assert values.of_letter("F", 1 << 40) == "?"
    heap = vm.heap
    knot = heap.new_list(BYTE, NIL)
    heap.set_pointer(knot, heap.retain(knot))
    assert place(heap.retain(knot)).count("0") == 10
    heap.give(knot, NIL)
    heap.release(knot)
    lists = heap.new_list(POINTER, NIL)
    heap.set_pointer(heap.head(lists), heap.retain(lists))
    assert place(heap.retain(lists)) == "list {list {list {...}}}"
    heap.give(heap.head(lists), NIL)
    heap.release(lists)


def test_a_damaged_stack_ends_where_it_is_damaged(vm):
    process = vm.scheduler.processes[vm.spawn("waits", "main")]
    vm.heap.set_pointer(process.fp + 4, process.fp)
    assert len(Inspector(vm).levels(process)) == 1000
    vm.heap.set_pointer(process.fp + 8, 0x1234)
    assert len(Inspector(vm).levels(process)) == 1
    vm.heap.set_pointer(process.fp + 4, 0)
    vm.heap.set_pointer(process.fp + 8, 0)
    assert len(list(levels(vm.engine, process))) == 1
