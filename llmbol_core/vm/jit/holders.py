"""Whether a running process holds all objects for which the host keeps something.

Dying objects are freed later if that takes long, but the host is to close at once what it keeps for
an object that dies. So it is checked whether any such object can be among the dying ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from llmbol_core.vm.arena import COUNT, NIL
from llmbol_core.vm.exceptions import levels
from llmbol_core.vm.process import TYPE, Process

if TYPE_CHECKING:
    from llmbol_core.vm.jit.population import Population

_MOST_HANDLES, _MOST = 64, 2048
"""The most objects with something of the host, and references, that are looked at."""
_AT_ONCE = 64
"""References of one object that are looked at before those of the next one."""


def all_are_near(engine: Population, process: Process) -> bool:
    """Return whether all references to what the host keeps are soon found from a process's frames.

    Whatever the frames lead to is alive. May raise any of ``ASTRAY`` if memory is damaged.
    """
    heap = engine.heap
    left = {ref: heap.pointers[(ref + COUNT) >> 2] for ref in heap.hosted}
    if not left or len(left) > _MOST_HANDLES:
        return not left
    seen, looked, rows = set[int](), 0, deque([_held(engine, process)])
    while rows and looked < _MOST:
        refs = list(islice(rows[0], _AT_ONCE))
        looked += len(refs)
        rows.rotate(-1)
        if len(refs) < _AT_ONCE:
            rows.pop()
        for ref in refs:
            if ref in left:
                left[ref] -= 1
                if not any(left.values()):
                    return True
            if ref not in seen and ref != NIL:
                seen.add(ref)
                rows.append(heap.pointers[slot >> 2] for slot in heap.slots(ref))
    return False


def _held(engine: Population, process: Process) -> Iterator[int]:
    """Yield the objects to which a process's frames refer, and the modules whose code they run."""
    heap = engine.heap
    for level in levels(engine, process):
        yield level.handle
        for offset in heap.types[heap.word(level.frame + TYPE)].pointers:
            yield heap.pointer(level.frame + offset)
