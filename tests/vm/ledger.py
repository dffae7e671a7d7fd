"""An account of all references in a machine, between two turns of its processes.

It finds everything that refers to an object: other objects, the frames of processes, including
those not yet called, exceptions on their way, and the machine itself. The reference count of an
object must be exactly that number: if it is less, the object is freed too early; if more, never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llmbol_core.vm.arena import FREE, NIL
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objects import STACK
from llmbol_core.vm.process import MODULE, TYPE, Process, frame_size
from tests.vm.areas import Forgery


def check(machine: InfernoVM) -> None:
    """Raise Forgery unless every reference count in a machine is right."""
    heap = machine.heap
    living = {ref for ref in heap.blocks() if heap.type_of(ref) not in (STACK, FREE)}
    found = Counter(roots(machine))
    for ref in living:
        found.update(heap.pointer(slot) for slot in heap.slots(ref))
    del found[NIL]
    for ref in found.keys() - living:
        raise Forgery(f"{ref:x} leads to no object")
    for ref in living:
        count = heap.pointers[(ref >> 2) - 4]
        if count != found[ref]:
            kind = heap.type_of(ref)
            raise Forgery(f"{ref:x} of kind {kind} has {found[ref]} references and counts {count}")


def roots(machine: InfernoVM) -> Iterator[int]:
    """Yield the references that lie in no object."""
    loader, engine = machine.loader, machine.engine
    yield from machine._handles.values()
    yield from machine._results.values()
    yield from (ref for ref, _ in machine.heap.lent.elements())
    yield from (loaded.data for loaded in (*loader.modules, *loader._resting))
    yield from engine.remains._refs
    yield from held(machine)
    for process in (*machine.scheduler.processes.values(), *machine._stopped._processes):
        yield process.handle
        process.last_exception  # noqa: B018 -- takes over what native code has raised
        for frame in frames(machine, process):
            yield machine.heap.pointer(frame + MODULE) or NIL
            number = machine.heap.word(frame + TYPE)
            for at in machine.heap.types[number].pointers:
                yield machine.heap.pointer(frame + at)


def held(machine: InfernoVM) -> Iterator[int]:
    """Yield the references that lie in what the host keeps for objects."""
    traces = {}
    for value, _ in machine.heap.hosted.values():
        yield from (getattr(value, name, NIL) for name in ("keeps", "reads", "writes"))
        trace = getattr(value, "_trace", None) or getattr(
            getattr(value, "symbol", None), "trace", None
        )
        traces[id(trace)] = trace
    yield from (ref for trace in traces.values() if trace for ref in trace._kept)


def frames(machine: InfernoVM, process: Process) -> Iterator[int]:
    """Yield the frames of a process, including those that it has made and not yet called."""
    heap, stack = machine.heap, process.stack
    extents = [stack._extents[number] for number in range(stack.pieces)]
    ends = [*(extent.previous_top for extent in extents[1:]), stack.top]
    for extent, end in zip(extents, ends, strict=True):
        at = extent.base
        if not at <= end <= extent.limit:
            raise Forgery("the top of a stack lies outside of it")
        while at < end:
            yield at
            at += frame_size(heap.types[heap.word(at + TYPE)].size)
