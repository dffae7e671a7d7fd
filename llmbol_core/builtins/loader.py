"""$Loader: inspecting modules, and making new ones.

A made module gets its instructions and data first, then its types, then functions at its links.
Each ``ext`` verifies the module as it is by then; before the first one nothing in it can be called,
and none is possible while a process runs its code.
An address operand of an indirect mode has the slot in its low half and the offset in the high one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llmbol_core.builtins.binding import Binding
from llmbol_core.errors import VerifyError
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.exceptions import levels
from llmbol_core.vm.handles import charge
from llmbol_core.vm.host import HostCall, HostModule
from llmbol_core.vm.isa import MIDDLE_MODES, MODES, OPS, Mode
from llmbol_core.vm.links import Link, Linked
from llmbol_core.vm.loader import LoadedModule
from llmbol_core.vm.module import (
    ABSENT,
    DATA_EXPORT,
    Export,
    Instruction,
    Module,
    Operand,
    TypeDescriptor,
)
from llmbol_core.vm.objects import ARRAY, STACK, Heap

binding = Binding(
    "Loader",
    """
    Nilmod: module {
    };
    Inst: adt {
        op, addr: byte;
        src, mid, dst: int;
    };
    Typedesc: adt {
        size: int;
        map: array of byte;
    };
    Link: adt {
        name: string;
        sig, pc, tdesc: int;
    };
    Niladt: adt {
    };
    """,
)

_HALF = 0xFFFF
_INDIRECT = (Mode.MP_INDIRECT, Mode.FP_INDIRECT)
_NO_CODE = Link(-1, 0)
_MOST_LINKS = 1 << 16
_TYPE = 1 << 10
"""Upper bound of the bytes of the host that a type takes."""
_INSTRUCTION = 16
"""Bytes of an Inst."""

_Fields = tuple[int, int, int, int, int]


def _fail(call: HostCall, why: str) -> None:
    call.process.environment.error = why


# Looking into modules


@binding.function("ifetch: fn(mp: Nilmod): array of Inst")
def ifetch(call: HostCall, handle: int) -> list[_Fields] | None:
    """Return the instructions of a module."""
    if handle == NIL:
        return None
    module = call.machine.engine.linked_of(handle).module
    return (
        [] if isinstance(module, HostModule) else [_fields(i) for i in module.module.instructions]
    )


@binding.function("tdesc: fn(mp: Nilmod): array of Typedesc")
def tdesc(call: HostCall, handle: int) -> list[tuple[int, bytes | None]] | None:
    """Return the types of a module."""
    if handle == NIL:
        return None
    module = call.machine.engine.linked_of(handle).module
    types = () if isinstance(module, HostModule) else module.module.types
    return [(t.size, t.pointer_map or None) for t in types]


@binding.function("link: fn(mp: Nilmod): array of Link")
def link(call: HostCall, handle: int) -> list[tuple[str, int, int, int]] | None:
    """Return what a module exports, from the last function to the first."""
    if handle == NIL:
        return None
    module = call.machine.engine.linked_of(handle).module
    if isinstance(module, HostModule):
        found = [(f.name, f.signature, -1, -1) for f in module.functions]
    else:
        found = [(e.name, e.signature, e.pc, e.type) for e in module.module.exports]
    return found[::-1]


def _fields(instruction: Instruction) -> _Fields:
    """Return an instruction as an Inst."""
    source, middle, destination = (instruction.operand(place) for place in "smd")
    bits = MODES[middle.mode].middle or 0
    modes = bits << 6 | source.mode << 3 | destination.mode
    words = (_address(source), middle.value & _HALF, _address(destination))
    return (instruction.opcode, modes, *words)


def _address(operand: Operand) -> int:
    if operand.mode in _INDIRECT:
        return operand.value << 16 | operand.base & _HALF
    return operand.value


# Making modules


@binding.function(
    "newmod: fn(name: string, ss, nlink: int, inst: array of Inst, data: ref Niladt): Nilmod"
)
def newmod(call: HostCall, name: str, extent: int, links: int, code: int, data: int) -> int:
    """Make a module of instructions and its data."""
    heap = call.heap
    if NIL in (code, data) or heap.type_of(data) <= STACK or not _are_instructions(heap, code):
        _fail(call, "nil parameters")
        return NIL
    if not 0 <= links <= _MOST_LINKS:
        _fail(call, "bad nlink")
        return NIL
    try:
        instructions = tuple(_instructions(heap, code))
    except LookupError:
        _fail(call, "bad branch addr")
        return NIL
    size, pointers = heap.types[heap.type_of(data)]
    shape = TypeDescriptor(0, size, _map(pointers, size))
    # Whoever has the data besides may change all of it.
    shared = (Export(-1, -1, 0, DATA_EXPORT),)
    module = Module(name, instructions, (shape,), size, exports=shared, stack_extent=max(0, extent))
    loaded = LoadedModule(module, name, None)
    linked = Linked(loaded, (_NO_CODE,) * links, ())
    return call.machine.engine.new_handle(heap.retain(data), linked)


@binding.function("dnew: fn(size: int, map: array of byte): ref Niladt")
def dnew(call: HostCall, size: int, pointers: memoryview | None) -> int:
    """Make an object for the data of a module: nil where the map has pointers, else zero."""
    if pointers is None or size < 0:
        return NIL
    return call.heap.new_record(_shape(call.heap, -1, size, bytes(pointers)))


@binding.function("tnew: fn(mp: Nilmod, size: int, map: array of byte): int")
def tnew(call: HostCall, handle: int, size: int, pointers: memoryview | None) -> int:
    """Add a type to a made module and return its number."""
    made = _made(call, handle)
    if made is None or size < 0:
        return -1
    types = made.module.types
    shape = _shape(call.heap, len(types), size, bytes(pointers or b""))
    made.module = replace(made.module, types=(*types, shape))
    return shape.id


@binding.function("ext: fn(mp: Nilmod, idx, pc: int, tdesc: int): int")
def ext(call: HostCall, handle: int, index: int, pc: int, number: int) -> int:
    """Make a link of a made module lead to a function; return -1 if it cannot be verified."""
    made = _made(call, handle)
    if made is None:
        return -1
    engine = call.machine.engine
    links = list(engine.linked_of(handle).links)
    for place, what in ((number, "tdesc"), (pc, "pc"), (index, "idx")):
        count = {"tdesc": len(made.module.types), "pc": len(made.module.instructions)}
        if not 0 <= place < count.get(what, len(links)):
            _fail(call, f"bad {what}")
            return -1
    if _is_in_use(call, made):
        _fail(call, "module in use")
        return -1
    charge(call.heap, _TYPE)
    exports = (*made.module.exports, Export(pc, number, 0, str(index)))
    try:
        loaded = call.machine.loader.take(replace(made.module, exports=exports), made.path)
    except VerifyError as error:
        _fail(call, str(error))
        return -1
    call.machine.loader.forget(loaded)  # the handle has data of its own, and nobody finds it
    made.handles, loaded.handles = made.handles - 1, loaded.handles + 1
    links[index] = loaded.exports[-1]
    engine.relink(handle, Linked(loaded, tuple(links), ()))
    return 0


@binding.function("compile: fn(mp: Nilmod, flag: int): int")
def compile_(call: HostCall, handle: int, flag: int) -> int:
    """Do nothing: hot functions are compiled in any case."""
    return -1 if handle == NIL else 0


def _shape(heap: Heap, number: int, size: int, pointer_map: bytes) -> TypeDescriptor:
    """Return a type, the same for the same shape."""
    key = number, size, pointer_map
    if key not in heap.shapes:
        charge(heap, _TYPE)  # types stay
        heap.shapes[key] = TypeDescriptor(*key)
    return heap.shapes[key]


def _made(call: HostCall, handle: int) -> LoadedModule | None:
    """Return a module that newmod made; else set the error string."""
    if handle == NIL:
        _fail(call, "nil mp")
        return None
    linked = call.machine.engine.linked_of(handle)
    if isinstance(linked.module, HostModule) or linked.exports or linked.module.data != NIL:
        _fail(call, "need newmod")
        return None
    return linked.module


def _is_in_use(call: HostCall, made: LoadedModule) -> bool:
    """Whether a process runs code of a module, which was proved without what is added now."""
    engine = call.machine.engine
    processes = call.machine.scheduler.processes.values()
    return any(level.module is made for process in processes for level in levels(engine, process))


def _are_instructions(heap: Heap, code: int) -> bool:
    """Whether an object is an array of Inst."""
    return heap.type_of(code) == ARRAY and heap.types[heap.word(code + 4)] == (_INSTRUCTION, ())


def _instructions(heap: Heap, code: int) -> list[Instruction]:
    """Return the instructions of an array of Inst; raises LookupError for what is none."""
    length, data = heap.array_length(code), heap.array_data(code)
    return [_instruction(heap, data + i * _INSTRUCTION) for i in range(length)]


def _instruction(heap: Heap, at: int) -> Instruction:
    opcode, modes = heap.byte(at), heap.byte(at + 1)
    source, middle, destination = (heap.word(at + offset) for offset in (4, 8, 12))
    OPS[opcode]
    mode = MIDDLE_MODES[modes >> 6]
    middle &= _HALF
    if mode is Mode.IMMEDIATE and middle > _HALF >> 1:
        middle -= _HALF + 1
    between = Operand(mode, middle) if modes >> 6 else ABSENT
    ends = (_operand(modes >> 3 & 7, source), _operand(modes & 7, destination))
    return Instruction(opcode, ends[0], between, ends[1])


def _operand(bits: int, word: int) -> Operand:
    mode = Mode(bits)
    if not MODES[mode].values:
        return ABSENT
    if mode in _INDIRECT:
        return Operand(mode, word >> 16 & _HALF, word & _HALF)
    return Operand(mode, word)


def _map(pointers: Sequence[int], size: int) -> bytes:
    """Return the map of an object with pointers at these offsets."""
    bits = bytearray(-(-size // 32))
    for offset in pointers:
        bits[offset // 32] |= 0x80 >> offset % 32 // 4
    return bytes(bits)
