"""Which accesses are proved by a module's evidence; the others are left to guards.

An access behind a pointer is proved if the module makes all objects that the pointer can lead to
(``pointees.py``), and the access fits every one of them. That is decided in two rounds:

- First each instruction by itself. What it does behind a pointer is proved, or guarded right
  there. What it does behind an address that an earlier one took (of an element, of a field) is only
  noted, with the address's origin and the distance from there; and so is what it does with a
  frame for a function of another module.
- Then the instructions that take addresses and make frames are checked for all that was noted:
  ``indx`` and its like for the elements of their arrays, ``lea`` for its record, ``mframe`` and
  calls for the function that their link leads to. Addresses are followed to where ways meet, and to
  those that are taken behind them.

``returned.py`` does the same for results, ``transfers.py`` for the values of channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from llmbol_core.vm.isa import ELEMENT_SIZES, TYPES, WORD_SIZE, Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.verification.effects import (
    INDIRECT,
    RESULT_PLACE,
    UNKNOWN,
    Touch,
    base_of,
    is_result,
)
from llmbol_core.vm.verification.evidence import Evidence
from llmbol_core.vm.verification.guards import Guard, Of, Piece, fits_all, value_pieces
from llmbol_core.vm.verification.handled import landings, made_just_before, targets
from llmbol_core.vm.verification.needs import Need, Part, Shape, link_number, shape
from llmbol_core.vm.verification.origins import MOST_PLACES, Use
from llmbol_core.vm.verification.pointees import RECORD
from llmbol_core.vm.verification.returned import Returned
from llmbol_core.vm.verification.slots import COPIES, POINTERS, Kind, Value
from llmbol_core.vm.verification.transfers import Transfers
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.usage import KINDS, LOST
from llmbol_core.vm.verification.whole import alt_entries, value_layout

_HOLDING = (*POINTERS, Kind.WORD)
"""What may hold the object in which an address is taken."""
_LETTERS = ("b", "w", "l", "f", "p", "m", "mp")


class Leftover:
    """The guards of a module, by instruction, once ``run`` has been called."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence, self._classes = evidence, evidence.classes
        self.guards: dict[int, list[Guard]] = defaultdict(list)
        self.wanted: dict[int, set[Shape]] = {}
        """Places for results that functions of other modules write, by entry."""
        self.unsure: dict[int, list[tuple[int, Guard]]] = defaultdict(list)
        """Guards that still lack the object that an address points into, and the address's slot."""
        self._uses: dict[int, set[Piece]] = defaultdict(set)
        """Accesses behind addresses, by origin; their offsets count from the origin."""
        self._at: dict[tuple[int, int], set[Piece]] = defaultdict(set)
        """The same by origin and by the distance of the address from it, as ``lea`` takes it."""
        self._further: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
        """Addresses that ``lea`` takes behind other addresses, all by origin and distance."""
        self._addresses: list[Step] = []
        self._indices: list[Step] = []
        self._words: list[tuple[Step, Operand]] = []
        """Loads of words that may be channels, or addresses of module data, and their sources."""
        self._channels: set[Value] = set()
        """Such words that alt takes for channels."""
        self._handles: set[int] = set()
        self._returned = Returned(evidence, self._fits)
        self._transfers = Transfers(evidence, self._use, self._fits, self._returned.receive)
        self._frames: list[Step] = []
        self._calls: list[tuple[Step, Need]] = []
        self._targets = landings(evidence.found.module)
        self._needs: dict[tuple[int, int, int], Need] = defaultdict(Need)
        """Uses of frames for functions of other modules, by slot, handle's origin, and link."""

    def run(self, steps: Iterable[Step]) -> None:
        """Find the guards."""
        by_pc = {step.pc: step for step in steps}
        for step in by_pc.values():
            self._targets.update(targets(step))
            self._look(step)
        self._guard_channels()
        for origin, distance, piece in self._returned.at_addresses():
            self._uses[origin].add(piece)
            self._at[origin, distance].add(piece)
        for step in self._indices:
            self._guard_elements(step)
        for step in self._addresses:
            self._guard_address(step)
        for step, guard in self._returned.guards():
            self._guard(step, guard)
        for pc, slot, guard in (*self._returned.unsure(), *self._transfers.unsure):
            self.unsure[pc].append((slot, guard))
        self.wanted = self._returned.wanted()
        self._take_results()
        for step in self._frames:
            made = step.operand("d").value, step.origin(step.operand("s"))
            need = self._needs[*made, link_number(step.operand("m"))]
            self._guard_link(step, step.operand("s"), need)
        for step, need in self._calls:
            if not made_just_before(step, by_pc, self._targets):
                self._guard_link(step, step.operand("d"), need)
        self._guard_handles()

    def _guard(self, step: Step, guard: Guard) -> None:
        if guard not in self.guards[step.pc]:
            self.guards[step.pc].append(guard)

    def _look(self, step: Step) -> None:
        for touch in step.effects.touches:
            operand, role, _ = touch
            if operand.mode in INDIRECT:
                self._look_behind(step, operand, self._pieces(step, touch))
            if role.type in KINDS and role.reads:
                self._look_at_kind(step, operand, role.type)
        special = _SPECIAL.get(step.op.mnemonic)
        if special:
            special(self, step)

    def _look_at_index(self, step: Step) -> None:
        self._indices.append(step)

    def _look_at_frame_made(self, step: Step) -> None:
        self._frames.append(step)

    def _look_at_address(self, step: Step) -> None:
        self._returned.look(step)
        source = step.operand("s")
        if step.op.mnemonic == "call" or source.mode not in INDIRECT or is_result(source):
            return
        known = step.state.get(source.base) if source.mode is Mode.FP_INDIRECT else None
        if known and known.kind is Kind.ELSEWHERE:
            place = step.place(source)
            self._further[known.origin, known.number].add((place.origin, place.offset))
        elif step.operand("d").mode is Mode.FP and (not known or known.kind in _HOLDING):
            self._addresses.append(step)

    def _look_at_bytes(self, step: Step) -> None:
        """Guard an array that is used as one of bytes."""
        self._guard_element(step, step.operand("s"), (Piece(0, 1, Use.READ),), 1)

    # Records

    def _pieces(self, step: Step, touch: Touch) -> tuple[Piece, ...]:
        """Return what an instruction does behind a pointer."""
        operand, role, size = touch
        at, use = operand.value, Use.WRITE if role.writes else Use.READ
        if TYPES[role.type].kind == "pointer":
            return (Piece(at, size, Use.POINTER),)
        if role.type == "Y":
            return value_pieces(step.found.layouts[step.operand("m").value], at, use)
        return (Piece(at, size, use),) if 0 < size < UNKNOWN else ()

    def _look_behind(self, step: Step, operand: Operand, pieces: tuple[Piece, ...]) -> None:
        """Guard an access behind a pointer if it is not proved."""
        is_frame = operand.mode is Mode.FP_INDIRECT
        known = step.state.get(operand.base) if is_frame else None
        if known is not None and known.kind is Kind.WORD:
            self._handles.add(known.origin)
        if not pieces or (is_frame and operand.base == RESULT_PLACE):
            return
        place = step.place(operand)
        if place.frame >= 0 or (place.layout is not None and place.origin < 0) or place.own:
            self._look_at_frame(step, place, pieces)
            return
        where = Operand(Mode.FP if is_frame else Mode.MP, operand.base)
        if step.op.mnemonic == "movw" and pieces == (Piece(operand.value, WORD_SIZE, Use.READ),):
            self._words.append((step, operand))
        if known is not None and known.kind in (Kind.ELEMENT, Kind.ELSEWHERE):
            shift = known.number if known.kind is Kind.ELSEWHERE else 0
            self._use(known.origin, shift, pieces)
            return
        if known is not None and known.kind is Kind.OBJECT:
            return
        if known is not None and known.kind is Kind.WORD:
            self._guard(step, Guard(where, Of.RECORD, pieces))
            return
        node = self._evidence.load(step, step.place(where))
        if not self._fits(node, pieces):
            self._guard(step, Guard(where, Of.RECORD, pieces))

    def _look_at_frame(self, step: Step, place: Place, pieces: tuple[Piece, ...]) -> None:
        """Note a store into a frame of unknown type."""
        if place.frame < 0 or place.layout is not None or place.offset == RESULT_PLACE:
            return
        made = step.state[place.frame]
        need = self._needs[place.frame, made.origin, made.number]
        for piece in pieces:
            need.stores.add(Part(*piece))

    def _use(self, origin: int, shift: int, pieces: Iterable[Piece]) -> None:
        """Note accesses behind an address at a distance from its origin."""
        found = {piece._replace(offset=piece.offset + shift) for piece in pieces}
        self._uses[origin] |= found
        self._at[origin, shift] |= found

    def _look_at_call(self, step: Step) -> None:
        """Note what is needed of the function of another module."""
        self._returned.look(step)
        frame = step.operand("s").value
        made, result = step.state[frame], step.state.get(-frame)
        if made.kind is Kind.FOREIGN_FRAME:
            need = self._needs[frame, made.origin, made.number]
        else:
            layout = step.found.layouts[made.number]
            need = Need(frames={shape(layout, 0)})
        self._calls.append((step, need))
        if result is not None and result.kind is Kind.SLOT:
            end = self._evidence.reach.end(step, result.number)
            need.results.add(shape(step.layout, result.number, end))
        elif result is not None and result.kind is Kind.DATA:
            end = self._evidence.usage.variables.end(result.number)
            need.results.add(shape(step.found.data, result.number, end))

    def _take_results(self) -> None:
        """Note where functions of other modules return their results, and for which functions."""
        names = dict(self._returned.named())
        for step, need in self._calls:
            need.named |= names.get(step.pc, set())
            handle, middle = step.origin(step.operand("d")), step.operand("m")
            known = self._evidence.usage.need(handle, link_number(middle))
            known.results |= need.results
            known.named |= need.named

    def _guard_link(self, step: Step, handle: Operand, need: Need) -> None:
        """Guard the use of a function if it is not known which one it is."""
        middle, linked = step.operand("m"), self._evidence.linked_by(step.origin(handle))
        if linked is None or middle.mode is not Mode.IMMEDIATE or middle.value < 0:
            self._guard(step, Guard(handle, Of.LINK, kind="Z", link=middle, need=need))

    def _fits(self, node: int, pieces: Iterable[Piece]) -> bool:
        """Whether pieces are in all objects of a class."""
        return self._classes.is_made(node, RECORD) and fits_all(self._classes.layouts(node), pieces)

    def _look_at_kind(self, step: Step, operand: Operand, letter: str) -> None:
        node = self._evidence.pointer(step, operand)
        if not self._classes.is_made(node, letter):
            self._guard(step, Guard(operand, Of.KIND, kind=letter))

    def _guard_handles(self) -> None:
        """Guard the words that are used as addresses of module data."""
        usage = self._evidence.usage
        found = {s for origin in self._handles for s in usage.origins.sources(origin, True)}
        for step, source in self._words:
            origin = step.place(source).origin
            is_made = self._classes.is_made(self._classes.of_origin(origin), "Z")
            if not source.value and origin in found and not is_made:
                self._unguard(step, source)
                self._guard(step, Guard(base_of(source), Of.KIND, kind="Z"))

    def _guard_channels(self) -> None:
        """Guard the words that alt takes for channels: they must have been read from pointers."""
        usage, found = self._evidence.usage, list(self._channels)
        for value in found:
            origin = usage.origins.all[value.origin]
            flows = origin.flows if origin.key[0] == "join" else ()
            more = (value._replace(origin=flow.source, tags=flow.tags) for flow in flows)
            found += [one for one in more if one not in found]
        for step, source in list(self._words):
            place = step.place(source)
            if any(value[1:] == (place.offset, place.origin, place.tags) for value in found):
                self._unguard(step, source)
                self._look_behind(step, source, (Piece(source.value, WORD_SIZE, Use.POINTER),))

    def _unguard(self, step: Step, source: Operand) -> None:
        """Drop the guard of a word, so that another one can take its place."""
        guards = self.guards.pop(step.pc, [])
        self.guards[step.pc] += [guard for guard in guards if guard.where != base_of(source)]

    # Arrays and lists

    def _guard_elements(self, step: Step) -> None:
        """Guard an index if the accesses to the element are not proved."""
        element = step.usage.behind(step.origin(step.operand("s")), "element")
        pieces = self._uses_of(element)
        size = ELEMENT_SIZES.get(step.op.mnemonic, 0)
        self._guard_element(step, step.operand("s"), pieces, size)

    def _guard_address(self, step: Step) -> None:
        """Guard the taking of an address in a record if the accesses there are not proved."""
        place, where = step.place(step.operand("s")), base_of(step.operand("s"))
        pieces, work = set[Piece](), [(place.origin, place.offset)]
        for origin, distance in work:
            pieces |= self._at[origin, distance]
            work += self._further[origin, distance] - set(work)
            for other, shift in self._evidence.joins.get(origin, ()):
                if shift == distance:
                    found = self._uses_of(other)
                    pieces |= {piece._replace(offset=piece.offset + shift) for piece in found}
        if pieces and not self._fits(self._evidence.load(step, step.place(where)), pieces):
            self._guard(step, Guard(where, Of.RECORD, tuple(sorted(pieces))))

    def _uses_of(self, element: int) -> tuple[Piece, ...]:
        """Return all accesses behind an element's address, wherever it is copied to."""
        found, seen = set[Piece](), {(element, 0)}
        work = [(element, 0)]
        while work:
            origin, shift = work.pop()
            for piece in self._uses[origin]:
                found.add(piece._replace(offset=piece.offset + shift))
            if len(seen) > MOST_PLACES:
                raise self._evidence.found.fail(-1, LOST)
            for other, more in self._evidence.joins.get(origin, ()):
                if (other, shift + more) not in seen:
                    seen.add((other, shift + more))
                    work.append((other, shift + more))
        return tuple(sorted(found))

    def _guard_element(
        self, step: Step, operand: Operand, pieces: tuple[Piece, ...], size: int
    ) -> None:
        array = self._evidence.pointer(step, operand)
        element = self._classes.field(array, "element")
        layouts = self._classes.layouts(element)
        is_sized = all(layout.size == size for layout in layouts if size)
        is_made = self._classes.is_made(array, "A") and not self._classes.is_open(element)
        if is_made and is_sized and fits_all(layouts, pieces):
            return
        self._guard(step, Guard(operand, Of.ELEMENT, pieces, size, "A"))

    def _look_at_copied(self, step: Step) -> None:
        """Guard the copying of elements between arrays that are not fully known."""
        arrays = [self._evidence.pointer(step, step.operand(place)) for place in "sd"]
        element = self._classes.field(arrays[0], "element")
        is_made = all(self._classes.is_made(array, "A") for array in arrays)
        if not is_made or len(self._classes.layouts(element)) != 1:
            self._guard(step, Guard(step.operand("d"), Of.ELEMENT, (), 0, "A"))

    def _look_at_head(self, step: Step) -> None:
        layout = value_layout(step)
        pieces = value_pieces(layout, 0, Use.READ)
        node = self._evidence.pointer(step, step.operand("s"))
        heads = self._classes.field(node, "head")
        is_made = self._classes.is_made(node, "I") and not self._classes.is_open(heads)
        if not (is_made and fits_all(self._classes.layouts(heads), pieces)):
            self._guard(step, Guard(step.operand("s"), Of.HEAD, pieces, kind="I"))

    # Channels

    def _look_at_transfer(self, step: Step) -> None:
        for guard in self._transfers.of_transfer(step):
            self._guard(step, guard)

    def _look_at_table(self, step: Step) -> None:
        entries = (step.state.get(at) for at in alt_entries(step))
        self._channels |= {known for known in entries if known and known.kind in COPIES}
        for guard in self._transfers.of_table(step):
            self._guard(step, guard)


_SPECIAL: dict[str, Callable[[Leftover, Step], None]] = {
    **dict.fromkeys((*ELEMENT_SIZES, "indx"), Leftover._look_at_index),
    "mframe": Leftover._look_at_frame_made,
    **dict.fromkeys(("lea", "call"), Leftover._look_at_address),
    **dict.fromkeys(("mcall", "mspawn"), Leftover._look_at_call),
    **dict.fromkeys((f"head{t}" for t in _LETTERS), Leftover._look_at_head),
    **dict.fromkeys(("send", "recv"), Leftover._look_at_transfer),
    "cvtac": Leftover._look_at_bytes,
    "slicela": Leftover._look_at_copied,
    **dict.fromkeys(("alt", "nbalt"), Leftover._look_at_table),
}
