"""Results that are stored behind pointers: what functions write there must fit the objects.

The address is taken once the frame has been made; the call follows. A function of the same module
tells what it writes; for one of another module that is known when it is linked, or when it is
called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.verification.effects import INDIRECT, RESULT_PLACE, UNKNOWN, base_of, is_result
from llmbol_core.vm.verification.evidence import Evidence
from llmbol_core.vm.verification.guards import Guard, Of, Piece
from llmbol_core.vm.verification.needs import Shape, shape
from llmbol_core.vm.verification.origins import MOST_PLACES, Access, Use
from llmbol_core.vm.verification.slots import Kind
from llmbol_core.vm.verification.typeflow import Step
from llmbol_core.vm.verification.usage import LOST

_ADDRESSES = (Kind.ELEMENT, Kind.ELSEWHERE)
_FARTHEST = 1 << 16
"""Offset into a result up to which addresses are followed from one to the next."""


class _To(NamedTuple):
    """Where a result goes: of which frame, behind which pointers, and how far."""

    frame: int
    origin: int
    offset: int


class Returned:
    """Results stored behind pointers, by address; ``fits`` tells whether pieces are proved."""

    def __init__(self, evidence: Evidence, fits: Callable[[int, Iterable[Piece]], bool]) -> None:
        self._evidence, self._fits = evidence, fits
        self._addresses: dict[_To, list[Step]] = defaultdict(list)
        self._pieces: dict[_To, set[Piece]] = defaultdict(set)
        self._foreign: list[tuple[Step, _To]] = []
        self._own: list[tuple[Step, _To]] = []
        self._placed: list[Step] = []
        self._received: set[int] = set()

    def look(self, step: Step) -> None:
        """Note an address, a frame or a call."""
        mnemonic, target = step.op.mnemonic, step.operand("d")
        if mnemonic == "lea":
            is_result = target.mode is Mode.FP_INDIRECT and target.value == RESULT_PLACE
            source = step.operand("s")
            if is_result and source.mode in INDIRECT:
                place = step.place(source)
                self._addresses[_To(target.base, place.origin, place.offset)].append(step)
        else:
            self._look_at_call(step)

    def _look_at_call(self, step: Step) -> None:
        frame = step.operand("s").value
        to = step.state.get(-frame)
        if to is None or to.kind not in _ADDRESSES:
            if to is not None and step.op.mnemonic == "call":
                self._placed.append(step)
            return
        known = _To(frame, to.origin, to.number if to.kind is Kind.ELSEWHERE else 0)
        if step.op.mnemonic != "call":
            self._foreign.append((step, known))
            return
        self._own.append((step, known))
        origin = self._evidence.usage.origin("result", step.label())
        for noted in self._evidence.usage.origins.all[origin].noted:
            what = noted.what
            if isinstance(what, Access):
                piece = Piece(what.offset + known.offset, what.size, what.use)
                self._pieces[known].add(piece)

    def at_addresses(self) -> Iterator[tuple[int, int, Piece]]:
        """Yield the writes behind addresses, by origin and distance of the address."""
        for to, pieces in self._pieces.items():
            for step in self._addresses[to]:
                if self._is_address(step):
                    yield from ((to.origin, to.offset, piece) for piece in pieces)

    def guards(self) -> Iterator[tuple[Step, Guard]]:
        """Yield guards of the instructions that take the addresses; raises VerifyError."""
        for step, to in (*self._own, *self._foreign):
            if not self._addresses[to]:
                raise step.fail("it is not sure where the result goes")
        for to, pieces in self._pieces.items():
            for step in self._addresses[to]:
                source = step.operand("s")
                if is_result(source) or self._is_address(step):
                    continue
                if not self._fits(self._evidence.classes.of_origin(to.origin), pieces):
                    yield step, Guard(base_of(source), Of.RECORD, tuple(sorted(pieces)))

    def named(self) -> Iterator[tuple[int, set[tuple[int, int]]]]:
        """Yield calls of other modules whose results are written as those of own functions.

        With each come the entries of those functions, and the offset in their results.
        """
        for step, to in self._foreign:
            if names := self._names(to):
                yield step.pc, names

    def _names(self, to: _To) -> set[tuple[int, int]]:
        """Return the functions into whose results an address points, by entry, and how far into."""
        origins, found = self._evidence.usage.origins, set[tuple[int, int]]()
        work = [(to.origin, to.offset)] if to.origin >= 0 else []
        seen = set(work)
        for origin, offset in work:
            what, *rest = origins.all[origin].key
            if what == "result":
                found.add((cast(int, rest[0]), offset))
            flows = origins.all[origin].flows if what in ("result", "join") else ()
            more = {(flow.source, offset + flow.shift) for flow in flows if offset < _FARTHEST}
            work += more - seen
            seen |= more
            if len(seen) > MOST_PLACES:
                raise self._evidence.found.fail(-1, LOST)
        return found

    def unsure(self) -> Iterator[tuple[int, int, Guard]]:
        """Yield calls, slots of the addresses for their results, and guards.

        The guards still lack the object that the address points into.
        """
        for step, to in self._foreign:
            handle, number = step.operand("d"), step.operand("m")
            places = self._places(to)
            is_known = number.mode is Mode.IMMEDIATE
            if places and is_known and self._evidence.linked_by(step.origin(handle)) is not None:
                self._evidence.usage.need(step.origin(handle), number.value).results |= places
            elif not self._is_result(to):
                guard = Guard(ABSENT, Of.RESULT, (), to.offset, link=handle, number=number)
                yield step.pc, -to.frame, guard
        others = self._others()
        for step, to in self._own:
            entry = step.label()
            if entry in others and not self._places(to) and not self._is_result(to):
                number = Operand(Mode.IMMEDIATE, entry)
                yield step.pc, -to.frame, Guard(ABSENT, Of.RESULT, (), to.offset, number=number)

    def receive(self, origin: int, offset: int) -> set[tuple[int, int]]:
        """Note that a value of any type is received as a result; return of which functions."""
        names = self._names(_To(0, origin, offset))
        self._received |= {entry for entry, _ in names}
        return names

    def _others(self) -> set[int]:
        """Return the entries of functions whose results are not known from this module alone."""
        return self._received | {entry for _, names in self.named() for entry, _ in names}

    def wanted(self) -> dict[int, set[Shape]]:
        """Return where the module wants such results, by entry."""
        found = {entry: set[Shape]() for entry in self._others()}
        for step, to in self._own:
            if step.label() in found:
                found[step.label()] |= self._places(to)
        for step in self._placed:
            place = self._place(step)
            if step.label() in found:
                found[step.label()].add(place)
            elif step.written(step.label()) >= UNKNOWN:
                self._check(step, place)
        return found

    def _place(self, step: Step) -> Shape:
        """Return where in the frame, or in the module data, the result of a call goes."""
        to = step.state[-step.operand("s").value]
        if to.kind is Kind.DATA:
            end = self._evidence.usage.variables.end(to.number)
            return shape(step.found.data, to.number, end)
        return shape(step.layout, to.number, self._evidence.reach.end(step, to.number))

    def _check(self, step: Step, place: Shape) -> None:
        """Refuse a result that reaches beyond its place."""
        result = self._evidence.usage.origin("result", step.label())
        for noted in self._evidence.usage.origins.all[result].noted:
            what = noted.what
            if isinstance(what, Access) and what.use is not Use.READ:
                end = what.offset + what.size
                if end > place.size:
                    raise step.fail(
                        f"the result has {end} bytes, where there is room for {place.size}"
                    )

    def _places(self, to: _To) -> set[Shape]:
        """Return the layout from an address on, if all objects that it may point into are known.

        Nothing if they differ: then a guard finds out before the call which of them it is.
        """
        classes = self._evidence.classes
        node = classes.of_origin(to.origin)
        if classes.is_open(node) or not classes.kinds(node) <= {"R", ""}:
            return set()
        found = {shape(layout, to.offset) for layout in classes.layouts(node)}
        least = min(found, default=Shape(0, ()))
        agree = all(_within(place, least.size) == least.pointers for place in found)
        return found if agree else set()

    def _is_result(self, to: _To) -> bool:
        return self._evidence.usage.origins.is_result(to.origin)

    def _is_address(self, step: Step) -> bool:
        source = step.operand("s")
        known = step.state.get(source.base) if source.mode is Mode.FP_INDIRECT else None
        return known is not None and known.kind in _ADDRESSES


def _within(place: Shape, size: int) -> tuple[int, ...]:
    """Return the offsets of pointers in the first bytes of a place."""
    return tuple(at for at in place.pointers if at < size)
