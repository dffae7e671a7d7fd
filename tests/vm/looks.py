"""What the oracle looks at before an instruction runs: its operands, one by one and together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import ELEMENT_SIZES, TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.objects import ARRAY, CHANNEL
from llmbol_core.vm.verification.tables import TABLE_SHAPES
from tests.vm.areas import Area, Forgery

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule
    from tests.vm.oracle import Checking

_ABSENT = (Mode.NONE, Mode.NONE6, Mode.NONE7, Mode.IMMEDIATE)
_HEADER = 20


class Look:
    """One look at an instruction that is about to run."""

    def __init__(
        self, engine: Checking, module: LoadedModule, instruction: Instruction, fp: int, mp: int
    ) -> None:
        self.engine, self.heap, self.module = engine, engine.heap, module
        self.instruction, self.op, self.fp, self.mp = instruction, instruction.op, fp, mp

    def run(self) -> None:
        """Raise Forgery if the instruction does what it must not."""
        for role in self.op.operands:
            is_carried = role.type == "X" and not (self.op.role("m") and self._size(role))
            if role.place not in "smd" or role.type == "O" or is_carried:
                continue
            operand = self.instruction.operand(role.place)
            if operand.mode in _ABSENT:
                continue
            address = self._address(operand)
            if address is None:
                return  # a nil on the way: it traps
            self._look(role, operand, address)
        special = _SPECIAL.get(self.op.mnemonic)
        if special:
            special(self)

    def _address(self, operand: Operand) -> int | None:
        start = self.fp if operand.mode in (Mode.FP, Mode.FP_INDIRECT) else self.mp
        if operand.mode in (Mode.FP, Mode.MP):
            return start + operand.value
        base = self.heap.pointer(start + operand.base)
        return None if base == NIL else (base + operand.value) & 0xFFFFFFFF

    def _area(self, operand: Operand, address: int) -> Area:
        if operand.mode is Mode.FP:
            return Area(self.engine.frame_type(self.fp), operand.value, "the frame")
        if operand.mode is Mode.MP:
            return Area(self.heap.types[self.heap.type_of(self.mp)], operand.value, "the data")
        return self.engine.area(address)

    def _look(self, role: OperandRole, operand: Operand, address: int) -> None:
        area, kind = self._area(operand, address), TYPES[role.type]
        if area.what.endswith("frame") and area.offset < _HEADER:
            is_result = self.op.mnemonic == "lea" and area.offset == 16
            if not is_result:
                raise Forgery(f"{area.offset} is in the header of a frame")
        if area.locked and role.writes:
            raise Forgery("a constant is written")
        size = self._size(role)
        if area.offset + size > area.type.size:
            raise Forgery(f"{size} bytes at {area.offset} of the {area.type.size} of {area.what}")
        if role.type in TABLE_SHAPES:
            self._table(role, operand)
        elif role.type == "Y":
            self._value(area, size, self.value_type().pointers, role.writes)
        elif kind.kind == "pointer":
            self._pointer(area, address, role)
        elif role.writes and any(
            area.offset - 4 < p < area.offset + size for p in area.type.pointers
        ):
            raise Forgery(f"a number over a pointer at {area.offset} of {area.what}")

    def _size(self, role: OperandRole) -> int:
        if role.type == "Y":
            return self.value_type().size
        if role.type == "X" and self.op.role("m"):
            return self.instruction.middle.value
        return TYPES[role.type].size

    def _pointer(self, area: Area, address: int, role: OperandRole) -> None:
        if area.what == "remains" and not role.reads:
            return
        if area.offset not in area.type.pointers and area.what != "remains":
            raise Forgery(f"no pointer at {area.offset} of {area.what}")
        letter = role.type if role.reads else "P"
        self.engine.check_reference(self.heap.pointer(address), letter)

    def _value(self, area: Area, size: int, pointers: Iterable[int], writes: bool) -> None:
        if area.what == "remains":
            return
        first, end = area.offset - WORD_SIZE + 1, area.offset + size
        there = {p - area.offset for p in area.type.pointers if first <= p < end}
        missing = set(pointers) - there
        if missing or (writes and there - set(pointers)):
            raise Forgery(f"a value of other pointers at {area.offset} of {area.what}")

    def _table(self, role: OperandRole, operand: Operand) -> None:
        shape, heap = TABLE_SHAPES[role.type], self.heap
        first = operand.value - (0 if shape.header else WORD_SIZE)
        count = heap.word(self.mp + first)
        end = operand.value + shape.header + shape.stride * count + shape.tail
        for at in range(first, end, WORD_SIZE):
            if role.type != "U" and heap.word(self.mp + at) != heap.word(self.module.data + at):
                raise Forgery(f"the table at {first} was changed")

    # What concerns several operands

    def value_type(self) -> HeapType:
        """Return the type of the value that the instruction works on."""
        return self.heap.types[self.module.types[self.instruction.middle.value]]

    def reference(self, place: str) -> int:
        """Return the reference that an operand reads."""
        address = self._address(self.instruction.operand(place))
        return NIL if address is None else self.heap.pointer(address)

    def _head(self) -> None:
        ref = self.reference("s")
        if ref == NIL:
            return
        size, pointers = self.heap.types[self.heap.word(ref + 4)]
        role = self.op.role("d")
        assert role is not None
        if role.type == "Y":
            wanted = self.value_type()
            self._value(
                Area(HeapType(size, pointers), 0, "a head"), wanted.size, wanted.pointers, False
            )
        elif role.type == "P" and pointers[:1] != (0,):
            raise Forgery("the head is no pointer")
        if self._size(role) > size:
            raise Forgery("the head is too short")

    def _index(self) -> None:
        ref = self.reference("s")
        wanted = ELEMENT_SIZES.get(self.op.mnemonic, 0)
        if ref == NIL or not wanted:
            return
        if (size := self.heap.types[self.heap.word(ref + 4)].size) != wanted:
            raise Forgery(f"an element has {size} bytes, not {wanted}")

    def _bytes(self) -> None:
        ref = self.reference("s")
        if ref != NIL and self.heap.types[self.heap.word(ref + 4)].size != 1:
            raise Forgery("the array is none of bytes")

    def _transfer(self) -> None:
        sends = self.op.mnemonic == "send"
        channel, operand = (
            self.reference("ds"[not sends]),
            self.instruction.operand("sd"[not sends]),
        )
        if channel == NIL:
            return
        if operand.mode is Mode.IMMEDIATE:
            area: Area | None = Area(HeapType(4, ()), 0, "a constant", locked=True)
        else:
            address = self._address(operand)
            area = None if address is None else self._area(operand, address)
        if area is not None:
            self._carried(channel, area, not sends)

    def _carried(self, channel: int, area: Area, receives: bool) -> None:
        if channel in self.engine.remains._refs:
            return  # it traps
        if self.heap.type_of(channel) != CHANNEL:
            raise Forgery("the channel is none")
        size, pointers = self.heap.types[self.heap.word(channel)]
        if area.offset + size > area.type.size or (area.locked and receives):
            raise Forgery(f"a channel's {size} bytes at {area.offset} of {area.what}")
        self._value(area, size, pointers, receives)

    def _alt(self) -> None:
        table = self._address(self.instruction.source)
        assert table is not None
        sends, receives = self.heap.word(table), self.heap.word(table + 4)
        for index in range(sends + receives):
            at = table + 8 * (index + 1)
            channel, address = self.heap.pointer(at), self.heap.pointer(at + 4)
            self.engine.check_reference(channel)
            if NIL in (channel, address):
                return  # it traps
            area = self.engine.area(address)
            if self.heap.type_of(channel) != ARRAY:
                self._carried(channel, area, index >= sends)
                continue
            is_over = any(abs(p - area.offset) < WORD_SIZE for p in area.type.pointers)
            if index < sends or is_over:
                raise Forgery("an array of channels where none can be")
            data = self.heap.array_data(channel)
            for position in range(self.heap.array_length(channel)):
                element = self.heap.pointer(data + 4 * position)
                self.engine.check_reference(element, "N")
                if element != NIL:
                    self._carried(element, area._replace(offset=area.offset + 4), True)

    def _frame(self) -> None:
        """Look whether a frame to be called is the last one made, and fits."""
        address = self._address(self.instruction.source)
        assert address is not None
        frame, made = self.heap.pointer(address), self.engine.frames_made(self.engine.process)
        if made[-1:] != [frame]:
            raise Forgery("the frame to be called is not the last one made")

    def _return(self) -> None:
        if self.engine.frames_made(self.engine.process):
            raise Forgery("frames were made and not called")


_LETTERS = ("b", "w", "l", "f", "p", "m", "mp")
_SPECIAL: dict[str, Callable[[Look], None]] = {
    **dict.fromkeys((f"head{t}" for t in _LETTERS), Look._head),
    **dict.fromkeys((*ELEMENT_SIZES, "indx"), Look._index),
    **dict.fromkeys(("send", "recv"), Look._transfer),
    **dict.fromkeys(("alt", "nbalt"), Look._alt),
    **dict.fromkeys(("call", "mcall", "spawn", "mspawn"), Look._frame),
    "cvtac": Look._bytes,
    "ret": Look._return,
}
