"""Machine code for the instructions that copy values of more than one word.

A value is copied in pieces: slots of the frame that are in registers are pieces of their own, and
so are pointers. Values of many pieces, or whose pieces do not fit those of the other side, are left
to the runtime; slots in registers then go to memory and come back.
"""

from __future__ import annotations

from llmbol_core.vm.arena import HEADER, SMALL
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.emitter import LLVM_TYPES
from llmbol_core.vm.jit.lowering.heap import allocated, type_number
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.lowering.operands import Place
from llmbol_core.vm.jit.region import SIZES
from llmbol_core.vm.module import Operand
from llmbol_core.vm.objects import LIST, LIST_HEADER

_MOST_PIECES = 16
_LETTERS = {kind: letter for letter, kind in LLVM_TYPES.items()}
_PLAIN = {8: "i64", 4: "i32", 2: "i16", 1: "i8"}

Pieces = dict[int, str]
"""LLVM's types by where in the value they are."""


class Side:
    """Where a value is: in the frame, or at an address."""

    def __init__(self, out: Lowerer, operand: Operand | None = None, address: str = "") -> None:
        self._out, self.address = out, address
        self.start = -1
        self._direct: Operand | None = None
        if operand is None:
            return
        self.address = out.address(operand)
        if operand.mode in (Mode.FP, Mode.MP):
            self._direct = operand
            self.start = operand.value if operand.mode is Mode.FP else -1

    def slots(self, size: int) -> list[int]:
        """Return the slots in registers that hold some of the value."""
        return self._out.region.slots_in(self.start, size) if self.start >= 0 else []

    def place(self, at: int, kind: str) -> Place:
        """Return where a piece is."""
        out, direct = self._out, self._direct
        if direct is None:
            return Place(out.at(self.address, at), "")
        return out.place(Operand(direct.mode, direct.value + at), _LETTERS[kind])


def _pieces(out: Lowerer, sides: list[Side], size: int, pointers: tuple[int, ...]) -> Pieces:
    """Return the pieces of a value; none if there are too many or the sides do not fit."""
    found = dict.fromkeys(pointers, "i32")
    for side in sides:
        for slot in side.slots(size):
            kind = out.region.slots[slot]
            if found.setdefault(slot - side.start, kind) != kind:
                return {}
    reach = 0
    for at, kind in sorted(found.items()):
        if at < reach:
            return {}
        found |= _plain(reach, at)
        reach = at + SIZES[kind]
    if reach > size or size > 8 * _MOST_PIECES:
        return {}
    found |= _plain(reach, size)
    return found if len(found) <= _MOST_PIECES else {}


def _plain(start: int, end: int) -> Pieces:
    """Return pieces for bytes of no particular type."""
    found = {}
    while start < end:
        size = next(size for size in _PLAIN if size <= end - start)
        found[start] = _PLAIN[size]
        start += size
    return found


def _copy(out: Lowerer, source: Side, target: Side, size: int, pointers: tuple[int, ...]) -> bool:
    """Copy a value in pieces, with references counted; false, with nothing done, if that fails."""
    pieces = _pieces(out, [source, target], size, pointers)
    if not pieces and size:
        return False
    values = {at: _load(out, source, at, kind) for at, kind in pieces.items()}
    for at in pointers:
        out.emit(f"call void @retain(ptr %m, i32 {values[at]})")
    old = [_load(out, target, at, "i32") for at in pointers]
    for at, kind in pieces.items():
        out.store(target.place(at, kind), _LETTERS[kind], values[at])
    for ref in old:
        out.emit(f"call void @release(ptr %m, ptr %s, i32 {ref})")
    return True


def _load(out: Lowerer, side: Side, at: int, kind: str) -> str:
    return out.load(side.place(at, kind), _LETTERS[kind])


def _size(out: Lowerer) -> tuple[int, tuple[int, ...], str]:
    """Return bytes and pointers of the value, and the description that the runtime wants."""
    number, is_typed = out.instruction.middle.value, out.instruction.op.mnemonic.endswith("mp")
    if not is_typed:
        return number, (), str(number)
    type_ = out.region.code.module.types[number]
    return type_.size, type_.pointers, ""


def _move(out: Lowerer, source: Side, target: Side) -> None:
    """Copy a value as the instruction says."""
    size, pointers, number = _size(out)
    if _copy(out, source, target, size, pointers):
        return
    out.spill({*source.slots(size), *target.slots(size)})
    function = "copy_bytes" if number else "copy_typed"
    number = number or type_number(out, out.instruction.middle.value)
    out.must(out.call(function, source.address, number, target.address))
    out.reload(target.slots(size))


@lowering("movm", "movmp")
def movm(out: Lowerer) -> None:
    """Copy bytes, or a value of a type."""
    source = Side(out, out.instruction.source)
    _move(out, source, Side(out, out.instruction.destination))


@lowering("headm", "headmp")
def headm(out: Lowerer) -> None:
    """Copy the head of a list."""
    ref = out.read("s")
    out.guard(out.value(f"icmp eq i32 {ref}, -1"))
    head = Side(out, address=out.value(f"add i32 {ref}, {LIST_HEADER}"))
    _move(out, head, Side(out, out.instruction.destination))


@lowering("consm", "consmp")
def consm(out: Lowerer) -> None:
    """Put a value before a list."""
    size, pointers, number = _size(out)
    code, middle = out.region.code, out.instruction.middle.value
    index = len(code.module.types) + code.plain_sizes.index(size) if number else middle
    kind, source, place = (
        type_number(out, index),
        Side(out, out.instruction.source),
        out.target("d"),
    )
    tail = out.load(place, "I")
    if size + LIST_HEADER + HEADER > SMALL or not _pieces(out, [source], size, pointers):
        out.spill(source.slots(size))
        ref = out.must(out.call("new_value_node", source.address, kind, tail))
    else:
        ref = allocated(out, LIST_HEADER + size, str(LIST))
        for at, word in ((0, tail), (4, kind)):
            out.emit(f"store i32 {word}, ptr {out.at(ref, at)}, align 1")
        head = out.value(f"add i32 {ref}, {LIST_HEADER}")
        _fill(
            out, source, Side(out, address=head), _pieces(out, [source], size, pointers), pointers
        )
    out.store(place, "I", ref)


def _fill(
    out: Lowerer, source: Side, target: Side, pieces: Pieces, pointers: tuple[int, ...]
) -> None:
    """Copy a value to where there was none."""
    for at, kind in pieces.items():
        value = _load(out, source, at, kind)
        if at in pointers:
            out.emit(f"call void @retain(ptr %m, i32 {value})")
        out.store(target.place(at, kind), _LETTERS[kind], value)


@lowering("newcmp")
def new_channel(out: Lowerer) -> None:
    """Make a channel of values of a type."""
    number, place = out.instruction.source, out.target("d")
    if number.mode is not Mode.IMMEDIATE or not (
        0 <= number.value < len(out.region.code.module.types)
    ):
        out.guard("true")
        return
    kind = type_number(out, number.value)
    out.give(place, out.must(out.call("new_channel", kind, out.read("m"))))
