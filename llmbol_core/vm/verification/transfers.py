"""Guards of what channels carry: a value must have its pointers where the place has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from llmbol_core.vm.isa import WORD_SIZE, Mode
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.verification.effects import NO_PLACE, base_of, is_result
from llmbol_core.vm.verification.evidence import Evidence
from llmbol_core.vm.verification.guards import Guard, Of, Piece, value_pieces
from llmbol_core.vm.verification.origins import Access, Use
from llmbol_core.vm.verification.pointees import RECORD
from llmbol_core.vm.verification.slots import Kind
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.whole import CONSTANT, alt_entries, entry_place


class _Transfer(NamedTuple):
    """One transfer: the channel's operand and node, the place, and the way."""

    channel: Operand
    node: int
    place: Place
    sends: bool

    def guard(self, room: int, pieces: Iterable[Piece] = (), link: Operand = ABSENT) -> Guard:
        """Return the guard that compares the channel's values with a place."""
        of = Of.SENT if self.sends else Of.RECEIVED
        return Guard(self.channel, of, tuple(pieces), room, "N", link)


class Transfers:
    """Finds the guards of transfers.

    ``use`` notes accesses behind an address; ``fits`` tells whether pieces are proved;
    ``receive`` returns the functions as whose result a value is received, and how far into it.
    ``unsure`` are guards that lack the object that the address in a slot points into.
    """

    def __init__(
        self,
        evidence: Evidence,
        use: Callable[[int, int, Iterable[Piece]], None],
        fits: Callable[[int, Iterable[Piece]], bool],
        receive: Callable[[int, int], set[tuple[int, int]]],
    ) -> None:
        self._evidence, self._classes, self._use, self._fits = evidence, evidence.classes, use, fits
        self._receive = receive
        self.unsure: list[tuple[int, int, Guard]] = []

    def of_transfer(self, step: Step) -> Iterator[Guard]:
        """Yield the guards of send and recv."""
        sends = step.op.mnemonic == "send"
        channel, operand = (step.operand(place) for place in ("ds" if sends else "sd"))
        node, place = self._evidence.pointer(step, channel), CONSTANT
        if operand.mode not in NO_PLACE:
            place = step.place(operand)
        transfer = _Transfer(channel, node, place, sends)
        known = step.state.get(operand.base) if operand.mode is Mode.FP_INDIRECT else None
        is_address = known is not None and known.kind in (Kind.ELEMENT, Kind.ELSEWHERE)
        if place.frame >= 0 and place.layout is None:
            guard = transfer.guard(place.offset, link=Operand(Mode.FP, operand.base))
            yield guard._replace(kind="K")
        elif is_result(operand):
            yield from self._in_result(transfer, base_of(operand))
        elif place.layout is None and not is_address:
            yield from self._in_record(step, transfer, base_of(operand))
        else:
            yield from self._at_place(step, transfer, operand.base)

    def of_table(self, step: Step) -> Iterator[Guard]:
        """Yield the guards of the transfers that an alt table offers."""
        sends = step.state[step.operand("s").value].number
        for index, at in enumerate(alt_entries(step)):
            node, place = self._evidence.entry_channel(step, at), entry_place(step, at)
            transfer = _Transfer(Operand(Mode.FP, at), node, place or CONSTANT, index < sends)
            yield from self._at_place(step, transfer, at + WORD_SIZE)

    def _in_result(self, transfer: _Transfer, where: Operand) -> Iterator[Guard]:
        """Yield the guard of the function's own result, unless the receipt was noted."""
        usage, carried = self._evidence.usage, self._carried(transfer)
        written = {noted.what for noted in usage.origins.all[transfer.place.origin].noted}
        if not carried or not {Access(*piece) for piece in carried} <= written:
            for entry, offset in sorted(
                self._receive(transfer.place.origin, transfer.place.offset)
            ):
                guard = transfer.guard(offset, link=where)
                yield guard._replace(number=Operand(Mode.IMMEDIATE, entry))

    def _in_record(self, step: Step, transfer: _Transfer, where: Operand) -> Iterator[Guard]:
        """Yield the guards of a place in the record that a pointer leads to."""
        target, carried = self._evidence.load(step, step.place(where)), self._carried(transfer)
        if not carried:
            known = self._known(step, transfer, target)
            guard = transfer.guard(transfer.place.offset, link=where)._replace(kind=RECORD)
            yield from known if known is not None else [guard]
        elif not self._fits(target, carried):
            yield Guard(where, Of.RECORD, tuple(sorted(carried)))

    def _at_place(self, step: Step, transfer: _Transfer, slot: int) -> Iterator[Guard]:
        """Yield the guards of a known place, or of one whose address is in a slot."""
        place = transfer.place
        if place.layout is None and self._evidence.usage.origins.is_result(place.origin):
            yield from self._in_result(transfer, Operand(Mode.FP, slot))
        elif place.layout is not None:
            yield from self._compared(step, transfer)
        elif carried := self._carried(transfer):
            pieces = (p._replace(offset=p.offset - place.offset) for p in carried)
            self._use(place.origin, place.offset, pieces)
        else:
            known = self._known(step, transfer, self._classes.of_origin(place.origin))
            if known is None:
                self.unsure.append((step.pc, slot, transfer.guard(place.offset)))
            yield from known or ()

    def _carried(self, transfer: _Transfer) -> set[Piece]:
        """Return what is done with the place, if all values of the channel are known."""
        content = self._classes.field(transfer.node, "content")
        if not self._classes.is_made(transfer.node, "N") or self._classes.is_open(content):
            return set()
        use, at = Use.READ if transfer.sends else Use.WRITE, transfer.place.offset
        layouts = self._classes.layouts(content)
        return {piece for layout in layouts for piece in value_pieces(layout, at, use)}

    def _known(self, step: Step, transfer: _Transfer, target: int) -> list[Guard] | None:
        """Return the guards of a place in objects of one known layout, None if it is in others."""
        layouts = self._classes.layouts(target)
        are_values = self._classes.kinds(target) <= {RECORD, ""}
        if self._classes.is_open(target) or len(layouts) != 1 or not are_values:
            return None
        place = transfer.place._replace(layout=next(iter(layouts)))
        return list(self._compared(step, transfer._replace(place=place)))

    def _compared(self, step: Step, transfer: _Transfer) -> Iterator[Guard]:
        """Yield the guard of a place of known layout, if the transfer is not proved."""
        classes, place, layout = self._classes, transfer.place, transfer.place.layout
        assert layout is not None
        content, end = classes.field(transfer.node, "content"), layout.size
        if layout is self._evidence.found.data:
            end = self._evidence.usage.variables.end(place.offset)
        elif place.own and not transfer.sends:
            end = self._evidence.reach.end(step, place.offset)
        first = place.offset - WORD_SIZE + 1
        there = sorted(p - place.offset for p in layout.pointers if first <= p < end)
        pieces = (Piece(p, WORD_SIZE, Use.POINTER) for p in there)
        guard, layouts = transfer.guard(end - place.offset, pieces), classes.layouts(content)
        is_made = classes.is_made(transfer.node, "N") and not classes.is_open(content)
        is_fit = not any(guard.misfit(v.size, tuple(v.pointers)) for v in layouts)
        if not (is_made and layouts and is_fit):
            yield guard
