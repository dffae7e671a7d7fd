"""Handlers of the instructions that go elsewhere: calls, returns, jumps, cases, exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.objects import STRING
from llmbol_core.vm.process import Raised
from llmbol_core.vm.steps import handler

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter as Engine

SWITCH, STOP, YIELD = -1, -2, -3
"""What a step returns instead of a pc: the process's state changed, it cannot go on now, or its
slice is over."""


@handler("nop")
def nop(e: Engine, next_pc: int) -> NoReturn:
    """Trap: compilers drop this instruction before they write an object."""
    raise Trap(traps.ILLEGAL)


@handler("runt", "eclr")
def nothing(e: Engine) -> None:
    """Do nothing."""


# Frames and calls


@handler("frame")
def frame(e: Engine, number: int) -> int:
    """Make a frame of a type."""
    return e.process.stack.push(number)


@handler("mframe")
def mframe(e: Engine, handle: int, number: int) -> int:
    """Make a frame for a function of a module."""
    return e.process.stack.push(e.link(handle, number).type)


@handler("call")
def call(e: Engine, frame: int, target: int, next_pc: int) -> int:
    """Enter a function of the same module."""
    process, words, at = e.process, e.heap.pointers, frame >> 2
    words[at] = next_pc
    words[at + 1] = process.fp
    process.fp, process.pc = frame, target
    return SWITCH


@handler("mcall")
def mcall(e: Engine, frame: int, number: int, handle: int, next_pc: int) -> int:
    """Enter a function of a module, or let the host do it."""
    link = e.link(handle, number)
    e.check_frame(frame, link.type)
    if link.function is not None:
        return e.call_host(link.function, frame, next_pc)
    process, words, at = e.process, e.heap.pointers, frame >> 2
    words[at] = next_pc
    words[at + 1] = process.fp
    words[at + 2] = process.handle
    process.fp, process.pc = frame, link.pc
    e.enter_module(process, e.heap.retain(handle))
    return SWITCH


@handler("ret")
def ret(e: Engine, next_pc: int) -> int:
    """Leave a function; the bottom one ends the process."""
    process = e.process
    frame = process.fp
    at, words = frame >> 2, e.heap.pointers
    pc, caller, handle = words[at : at + 3]
    if not caller:
        e.machine.end(process)
        return STOP
    process.stack.pop_releasing(frame)
    process.fp, process.pc = caller, pc
    if handle:
        e.leave_module(process, handle)
    return SWITCH


@handler("spawn")
def spawn(e: Engine, frame: int, target: int) -> None:
    """Start a process in a function of the same module."""
    e.spawn(e.process.handle, frame, target)


@handler("mspawn")
def mspawn(e: Engine, frame: int, number: int, handle: int) -> None:
    """Start a process in a function of a module."""
    link = e.link(handle, number)
    if link.function is not None:
        raise Trap(traps.SPAWN_BUILTIN)
    e.check_frame(frame, link.type)
    e.spawn(handle, frame, link.pc)


@handler("exit")
def exit_(e: Engine, next_pc: int) -> int:
    """End the process."""
    e.machine.end(e.process)
    return STOP


@handler("raise")
def raise_(e: Engine, value: int, next_pc: int) -> NoReturn:
    """Raise a string, or an object whose first word is its name."""
    if value == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    if e.heap.type_of(value) == STRING:
        raise Trap(e.heap.string(value))
    if 0 not in e.heap.offered(e.heap.type_of(value)).pointers:
        raise Trap(traps.TYPE_CHECK)
    ref = e.heap.pointer(value)
    if ref != NIL and e.heap.type_of(ref) != STRING:
        raise Trap(traps.TYPE_CHECK)
    name = e.heap.string(ref)
    raise Raised(name, e.heap.retain(value))


# Modules


@handler("load")
def load(e: Engine, path: int, imports: int) -> int:
    """Return a handle of a module, or nil; the error string then says why."""
    return e.machine.loader.load(e.process, e.heap.string(path), imports)


@handler("self")
def self_(e: Engine) -> int:
    """Return the handle of the module whose code runs."""
    return e.heap.retain(e.process.handle)


# Jumps


def _jump(e: Engine, pc: int) -> int:
    """Return a pc that was read from memory, if it is one."""
    if not 0 <= pc < len(e.process.steps):
        raise Trap(traps.ILLEGAL)
    return pc


@handler("jmp")
def jmp(e: Engine, target: int, next_pc: int) -> int:
    """Go to a label."""
    return target


@handler("movpc")
def movpc(e: Engine, number: int) -> int:
    """Return the code address of an instruction: its number."""
    return number & NIL


@handler("goto")
def goto(e: Engine, number: int, table: int, next_pc: int) -> int:
    """Go to an entry of a table, which has the number of its entries in the word before it."""
    if not 0 <= number < e.heap.word(table - 4):
        raise Trap(traps.BOUNDS)
    return _jump(e, e.heap.word(table + 4 * number))


@handler("case")
def case(e: Engine, value: int, table: int, next_pc: int) -> int:
    """Go where a table of ranges says: count, then low, high (not included), pc; then default."""
    word = e.heap.word
    low, high = 0, word(table)
    default = table + 4 + 12 * high
    while low < high:
        middle = (low + high) // 2
        entry = table + 4 + 12 * middle
        if value < word(entry):
            high = middle
        elif value >= word(entry + 4):
            low = middle + 1
        else:
            return _jump(e, word(entry + 8))
    return _jump(e, word(default))


@handler("casel")
def casel(e: Engine, value: int, table: int, next_pc: int) -> int:
    """Go where a table of big ranges says; its entries are 24 bytes, behind count and padding."""
    big, word = e.heap.big, e.heap.word
    low, high = 0, word(table)
    default = table + 8 + 24 * high
    while low < high:
        middle = (low + high) // 2
        entry = table + 8 + 24 * middle
        if value < big(entry):
            high = middle
        elif value >= big(entry + 8):
            low = middle + 1
        else:
            return _jump(e, word(entry + 16))
    return _jump(e, word(default))


@handler("casec")
def casec(e: Engine, value: int, table: int, next_pc: int) -> int:
    """Go where a table of strings says: count, then low, high (included; nil for low alone), pc."""
    heap = e.heap
    text = heap.string(value)
    low, high = 0, heap.word(table)
    default = table + 4 + 12 * high
    while low < high:
        middle = (low + high) // 2
        entry = table + 4 + 12 * middle
        first, last = heap.string(heap.pointer(entry)), heap.pointer(entry + 4)
        if text < first:
            high = middle
        elif text != first and (last == NIL or text > heap.string(last)):
            low = middle + 1
        else:
            return _jump(e, heap.word(entry + 8))
    return _jump(e, heap.word(default))
