"""Results that go behind pointers: what functions write there must fit the objects.

The address is taken when the frame has been made; the call follows. A function of the same module
says what it writes; of one of another module that is known when it is linked, or when it is called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from llmbol_core.vm.evidence import Evidence
from llmbol_core.vm.guards import Guard, Of, Piece
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.needs import shape
from llmbol_core.vm.origins import Access, Use
from llmbol_core.vm.slots import Kind
from llmbol_core.vm.typeflow import RESULT_PLACE, Step

_ADDRESSES = (Kind.ELEMENT, Kind.ELSEWHERE)


class _To(NamedTuple):
    """Where a result goes: of which frame, behind which pointers, and how far."""

    frame: int
    origin: int
    offset: int


class Returned:
    """Results that go behind pointers, by the address; ``fits`` tells whether pieces are proved."""

    def __init__(self, evidence: Evidence, fits: Callable[[int, Iterable[Piece]], bool]) -> None:
        self._evidence, self._fits = evidence, fits
        self._addresses: dict[_To, list[Step]] = defaultdict(list)
        self._pieces: dict[_To, set[Piece]] = defaultdict(set)
        self._made: dict[tuple[int, int, int], list[Step]] = defaultdict(list)
        self._foreign: list[tuple[Step, _To]] = []
        self._own: list[tuple[Step, _To]] = []

    def look(self, step: Step) -> None:
        """Note an address, a frame or a call."""
        mnemonic, target = step.instruction.op.mnemonic, step.operand("d")
        if mnemonic == "lea":
            is_result = target.mode is Mode.FP_INDIRECT and target.value == RESULT_PLACE
            source = step.operand("s")
            if is_result and source.mode in (Mode.FP_INDIRECT, Mode.MP_INDIRECT):
                place = step.place(source)
                self._addresses[_To(target.base, place.origin, place.offset)].append(step)
        elif mnemonic == "mframe":
            known = (target.value, step.origin(step.operand("s")), step.operand("m").value)
            self._made[known].append(step)
        else:
            self._look_at_call(step)

    def _look_at_call(self, step: Step) -> None:
        frame = step.operand("s").value
        to = step.state.get(-frame)
        if to is None or to.kind not in _ADDRESSES:
            return
        known = _To(frame, to.origin, to.number if to.kind is Kind.ELSEWHERE else 0)
        if step.instruction.op.mnemonic != "call":
            self._foreign.append((step, known))
            return
        self._own.append((step, known))
        origin = self._evidence.usage.origin("result", step.label())
        for noted in self._evidence.usage.origins.all[origin].noted:
            what = noted.what
            if isinstance(what, Access) and what.use is not Use.READ:
                piece = Piece(what.offset + known.offset, what.size, what.use)
                self._pieces[known].add(piece)

    def elements(self) -> Iterator[tuple[int, Piece]]:
        """Yield what is done with elements, by the origin of their address."""
        for to, pieces in self._pieces.items():
            for step in self._addresses[to]:
                if self._is_address(step):
                    yield from ((to.origin, piece) for piece in pieces)

    def guards(self) -> Iterator[tuple[Step, Guard]]:
        """Yield guards of the instructions that take the addresses; raises VerifyError."""
        for step, to in (*self._own, *self._foreign):
            if not self._addresses[to]:
                raise step.fail("it is not sure where the result goes")
        for to, pieces in self._pieces.items():
            for step in self._addresses[to]:
                source = step.operand("s")
                if source.base == RESULT_PLACE or self._is_address(step):
                    continue
                if not self._fits(self._evidence.classes.of_origin(to.origin), pieces):
                    yield step, Guard(base_of(source), Of.RECORD, tuple(sorted(pieces)))
        for step, to in self._foreign:
            yield from self._foreign_guards(step, to)

    def _foreign_guards(self, call: Step, to: _To) -> Iterator[tuple[Step, Guard]]:
        classes, made = self._evidence.classes, call.state[to.frame]
        node = classes.of_origin(to.origin)
        layouts = classes.layouts(node)
        if layouts and not classes.is_open(node) and classes.kinds(node) <= {"R", ""}:
            need = self._evidence.usage.need(made.origin, made.number)
            need.results |= {shape(layout, to.offset) for layout in layouts}
            return
        for step in self._addresses[to]:
            if step.operand("s").base == RESULT_PLACE or self._is_address(step):
                continue
            for frame in self._made[to.frame, made.origin, made.number]:
                where, handle = base_of(step.operand("s")), frame.operand("s")
                number = frame.operand("m")
                if number.mode is Mode.IMMEDIATE:
                    kind = str(number.value)
                    yield step, Guard(where, Of.RESULT, (), to.offset, kind, handle)

    def _is_address(self, step: Step) -> bool:
        source = step.operand("s")
        known = step.state.get(source.base) if source.mode is Mode.FP_INDIRECT else None
        return known is not None and known.kind in _ADDRESSES


def base_of(operand: Operand) -> Operand:
    """Return the slot of the pointer that an indirect operand begins with."""
    is_frame = operand.mode is Mode.FP_INDIRECT
    return Operand(Mode.FP if is_frame else Mode.MP, operand.base)
