"""Machine code for instructions left to the runtime: on lists, elements, channels."""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.handlers_channel import ELEMENTS
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.runtime import State


@lowering("self")
def self_(out: Lowerer) -> None:
    """Store the handle of the module whose code runs."""
    handle, place = out.value(f"load i32, ptr {out.state_word(State.HANDLE)}"), out.target("d")
    out.emit(f"call void @retain(ptr %m, i32 {handle})")
    out.give(place, handle)


@lowering("tcmp")
def tcmp(out: Lowerer) -> None:
    """Leave unless an object is nil or has the same type as another."""
    ref, like = out.read("s"), out.read("d")
    kinds = [out.value(f"load i32, ptr {out.at(r, -12)}, align 4") for r in (ref, like)]
    differs = out.value(f"icmp ne i32 {kinds[0]}, {kinds[1]}")
    is_nil = out.value(f"icmp eq i32 {like}, -1")
    wrong = out.value(f"or i1 {differs}, {is_nil}")
    is_some = out.value(f"icmp ne i32 {ref}, -1")
    out.guard(out.value(f"and i1 {wrong}, {is_some}"), traps.TYPE_CHECK)


@lowering("lenl")
def lenl(out: Lowerer) -> None:
    """Store the length of a list."""
    length = out.call("list_length", out.read("s"))
    out.guard(out.value(f"icmp slt i32 {length}, 0"))
    out.store(out.target("d"), "W", length)


@lowering("slicela")
def slicela(out: Lowerer) -> None:
    """Copy the elements of an array into another one."""
    out.must(out.call("copy_elements", out.read("s"), out.read("m"), out.read("d")))


@lowering(*ELEMENTS)
def new_channel(out: Lowerer) -> None:
    """Make a channel."""
    kind, place = str(ELEMENTS[out.instruction.op.mnemonic]), out.target("d")
    out.give(place, out.must(out.call("new_channel", kind, out.read("m"))))
