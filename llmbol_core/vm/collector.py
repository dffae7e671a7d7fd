"""The cycle collector: finds objects that only each other keep.

An object's count, less the references to it that are found in objects, is the number of references
from elsewhere: frames, the host's tables, the machine's own variables. Every object with such a
reference, and all that can be reached from it, is alive. So no list of roots is needed, and nothing
that is still held can be freed.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.objects import Heap


def collect_cycles(heap: Heap) -> int:
    """Release all objects that nothing outside of their cycles refers to; return how many."""
    outside: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for ref in heap.with_pauses(heap.blocks()):
        outside[ref] = heap.pointers[(ref >> 2) - 4]
    for ref in heap.with_pauses(outside):
        slots = (heap.pointers[slot >> 2] for slot in heap.slots(ref))
        found = [child for child in slots if child != NIL]
        if found:
            children[ref] = found
        for child in found:
            outside[child] -= 1
    living = [ref for ref, count in outside.items() if count > 0]
    for ref in living:
        del outside[ref]
    while living:
        for child in children.get(living.pop(), ()):
            if child in outside:
                del outside[child]
                living.append(child)
    _free(heap, outside, children)
    return len(outside)


def _free(heap: Heap, garbage: dict[int, int], children: dict[int, list[int]]) -> None:
    """Free garbage; what lives and was referred to by it has fewer references now."""
    for ref in garbage:
        for child in children.get(ref, ()):
            if child not in garbage:
                heap.pointers[(child >> 2) - 4] -= 1
    for ref in garbage:
        heap.discard(ref)
