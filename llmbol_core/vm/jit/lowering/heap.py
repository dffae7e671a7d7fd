"""Machine code for the instructions on objects: references, records, arrays, lists, addresses."""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.arena import HEADER, SMALL
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.isa import ELEMENT_SIZES, TYPES, Mode
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.lowering.call import lea_for_result
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.lowering.operands import Place
from llmbol_core.vm.jit.runtime import tag
from llmbol_core.vm.objects import ARRAY, ARRAY_HEADER, LIST, LIST_HEADER

_HEADER = tag("header")
_ELEMENTS = {"consb": BYTE, "consw": WORD, "consl": BIG, "consf": REAL, "consp": POINTER}


@lowering("runt", "eclr")
def nothing(out: Lowerer) -> None:
    """Do nothing."""


@lowering("movp")
def movp(out: Lowerer) -> None:
    """Copy a reference."""
    ref, place = out.read("s"), out.target("d")
    out.emit(f"call void @retain(ptr %m, i32 {ref})")
    out.give(place, ref)


@lowering("lea")
def lea(out: Lowerer) -> None:
    """Store an address."""
    operand = out.instruction.source
    site = out.region.site_of(out.pc, out.instruction.destination)
    if operand.mode is Mode.IMMEDIATE:
        out.guard("true")
    elif site is not None:
        lea_for_result(out, site)
    else:
        address = out.address(operand)
        out.store(out.target("d"), "E", address)


@lowering("movpc")
def movpc(out: Lowerer) -> None:
    """Store a code address."""
    value = out.read("s")
    out.store(out.target("d"), "Q", value)


# Arrays


def _element(out: Lowerer) -> tuple[str, str, str]:
    """Return a pointer to an array, the address of its data and an index, checked."""
    array, index = out.array("s"), out.read("d")
    out.guard(out.value(f"icmp uge i32 {index}, {array.length}"), traps.BOUNDS)
    return array.header, array.data, index


@lowering(*ELEMENT_SIZES)
def ind(out: Lowerer) -> None:
    """Store the address of an element; nil has length 0, since nothing lies at its address."""
    _, data, index = _element(out)
    offset = out.value(f"mul i32 {index}, {ELEMENT_SIZES[out.instruction.op.mnemonic]}")
    out.store(out.target("m"), "E", out.value(f"add i32 {data}, {offset}"))


@lowering("indx")
def indx(out: Lowerer) -> None:
    """Store the address of an element of any size."""
    header, data, index = _element(out)
    where = out.value(f"getelementptr i8, ptr {header}, i64 4")
    number = out.value(f"load i32, ptr {where}, align 1{_HEADER}")
    size = out.value(f"load i32, ptr {out.value(f'call ptr @map(ptr %s, i32 {number})')}")
    offset = out.value(f"mul i32 {index}, {size}")
    out.store(out.target("m"), "E", out.value(f"add i32 {data}, {offset}"))


@lowering("lena")
def lena(out: Lowerer) -> None:
    """Store the length of an array."""
    out.store(out.target("d"), "W", out.array("s").length)


@lowering("slicea")
def slicea(out: Lowerer) -> None:
    """Replace an array by some of its elements."""
    start, end, place = out.read("s"), out.read("m"), out.target("d")
    array = out.load(place, "A")
    header = out.at(array)
    length = out.value(f"load i32, ptr {header}, align 1{_HEADER}")
    is_nil = out.value(f"icmp eq i32 {array}, -1")
    is_some = out.value(f"icmp ne i32 {start}, {end}")
    out.trap_if(out.value(f"and i1 {is_nil}, {is_some}"), traps.NIL_DEREFERENCE)
    out.guard(is_nil)
    out.guard(out.value(f"icmp ugt i32 {end}, {length}"), traps.BOUNDS)
    out.guard(out.value(f"icmp ugt i32 {start}, {end}"), traps.BOUNDS)
    kind, owner, data = (
        out.value(f"load i32, ptr {out.at(array, at)}, align 1{_HEADER}") for at in (4, 8, 12)
    )
    ref = allocated(out, ARRAY_HEADER, str(ARRAY))
    is_whole = out.value(f"icmp eq i32 {owner}, -1")
    root = out.value(f"select i1 {is_whole}, i32 {array}, i32 {owner}")
    out.emit(f"call void @retain(ptr %m, i32 {root})")
    size = out.value(f"load i32, ptr {out.value(f'call ptr @map(ptr %s, i32 {kind})')}")
    first = out.value(f"add i32 {data}, {out.value(f'mul i32 {start}, {size}')}")
    words = (out.value(f"sub i32 {end}, {start}"), kind, root, first)
    for at, value in enumerate(words):
        out.emit(f"store i32 {value}, ptr {out.at(ref, 4 * at)}, align 1")
    out.give(place, ref)


# Making objects


def type_number(out: Lowerer, number: int) -> str:
    """Return the heap's number for a type of the module."""
    return out.value(f"call i32 @type_number(ptr %s, i64 {number})")


def allocated(out: Lowerer, size: int, kind: str) -> str:
    """Return a new block, which holds anything; leave if memory is short."""
    return _block(out, (size + HEADER + 15) // 16 * 16, kind, clears=False)


def _block(out: Lowerer, total: int, kind: str, clears: bool) -> str:
    values = f"i32 {total}, i32 {kind}, i1 {str(clears).lower()}"
    ref = out.value(f"call i32 @allocate(ptr %m, ptr %s, {values})")
    out.guard(out.value(f"icmp eq i32 {ref}, -1"))
    return ref


@lowering("new", "newz")
def new(out: Lowerer) -> None:
    """Make a record of a type, which has a block of its exact size."""
    number = out.instruction.source.value
    types = out.region.code.module.types
    if not 0 <= number < len(types) or types[number].size > SMALL - HEADER:
        out.guard("true")
        return
    place = out.target("d")
    total = HEADER + max((types[number].size + 3) // 4 * 4, 4)
    is_clear = out.instruction.op.mnemonic == "newz"
    ref = _block(out, total, type_number(out, number), is_clear)
    for offset in types[number].pointers:
        out.emit(f"store i32 -1, ptr {out.at(ref, offset)}, align 1")
    out.give(place, ref)


@lowering("newa", "newaz")
def newa(out: Lowerer) -> None:
    """Make a small array; the interpreter makes others."""
    number = out.instruction.middle.value
    if not 0 <= number < len(out.region.code.module.types):
        out.guard("true")
        return
    length, place = out.read("s"), out.target("d")
    out.guard(out.value(f"icmp slt i32 {length}, 0"))
    kind = type_number(out, number)
    ref = out.value(f"call i32 @new_array(ptr %m, ptr %s, i32 {length}, i32 {kind})")
    out.guard(out.value(f"icmp eq i32 {ref}, -1"))
    out.give(place, ref)


# Lists


@lowering("consb", "consw", "consl", "consf", "consp")
def cons(out: Lowerer) -> None:
    """Prepend a value to a list."""
    role = out.instruction.op.role("s")
    assert role is not None
    value, place = out.read("s"), out.target("d")
    tail = out.load(place, "I")
    ref = allocated(out, LIST_HEADER + TYPES[role.type].size, str(LIST))
    if role.type == "P":
        out.emit(f"call void @retain(ptr %m, i32 {value})")
    node = out.at(ref)
    out.emit(f"store i32 {tail}, ptr {node}, align 1")
    kind = out.value(f"getelementptr i8, ptr {node}, i64 4")
    out.emit(f"store i32 {_ELEMENTS[out.instruction.op.mnemonic]}, ptr {kind}, align 1")
    head = out.value(f"getelementptr i8, ptr {node}, i64 {LIST_HEADER}")
    out.emit(f"store {llvm_type(role.type)} {value}, ptr {head}, align 1")
    out.store(place, "I", ref)


def _node(out: Lowerer) -> str:
    """Return the list that is read; leave if it is nil."""
    ref = out.read("s")
    out.guard(out.value(f"icmp eq i32 {ref}, -1"), traps.NIL_DEREFERENCE)
    return ref


@lowering("headb", "headw", "headl", "headf")
def head(out: Lowerer) -> None:
    """Copy the number at the head of a list."""
    role = out.instruction.op.role("d")
    assert role is not None
    ref, place = _node(out), out.target("d")
    value = out.load(Place(out.at(ref, LIST_HEADER), llvm_type(role.type)), role.type)
    out.store(place, role.type, value)


@lowering("headp")
def headp(out: Lowerer) -> None:
    """Copy the reference at the head of a list."""
    _copy_from(out, LIST_HEADER, "i32")


@lowering("tail")
def tail(out: Lowerer) -> None:
    """Copy the rest of a list."""
    _copy_from(out, 0, "i32")


def _copy_from(out: Lowerer, offset: int, kind: str) -> None:
    node, place = _node(out), out.target("d")
    ref = out.load(Place(out.at(node, offset), kind), "P")
    out.emit(f"call void @retain(ptr %m, i32 {ref})")
    out.give(place, ref)
