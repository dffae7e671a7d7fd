"""Which accesses are proved by a module's evidence, and which are left to guards.

An access behind a pointer is proved if the module makes all objects that the pointer can lead to
(``pointees.py``), and it fits every one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from llmbol_core.vm.evidence import Evidence
from llmbol_core.vm.guards import Guard, Of, Piece, misfit, value_pieces
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Operand
from llmbol_core.vm.needs import Need, Part, link_number, shape
from llmbol_core.vm.origins import Access, Use
from llmbol_core.vm.pointees import RECORD
from llmbol_core.vm.results import is_result
from llmbol_core.vm.returned import Returned, base_of
from llmbol_core.vm.slots import Kind
from llmbol_core.vm.structure import Layout
from llmbol_core.vm.typeflow import RESULT_PLACE, Place, Step
from llmbol_core.vm.usage import KINDS
from llmbol_core.vm.whole import alt_entries, entry_place, value_layout

_INDIRECT = (Mode.FP_INDIRECT, Mode.MP_INDIRECT)
_STRIDES = {"indb": 1, "indw": 4, "indf": 8, "indl": 8}
_LETTERS = ("b", "w", "l", "f", "p", "m", "mp")
_NO_PLACE = (Mode.IMMEDIATE, Mode.NONE, Mode.NONE6, Mode.NONE7)


class Leftover:
    """The guards of a module, by instruction, once ``run`` has been called."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence, self._classes = evidence, evidence.classes
        self.guards: dict[int, list[Guard]] = defaultdict(list)
        self.refused: list[tuple[int, str]] = []
        self._uses: dict[int, set[Piece]] = defaultdict(set)
        """What is done with elements, by the origin of their address."""
        self._indices: list[Step] = []
        self._words: list[tuple[Step, int, Operand]] = []
        """Loads of words that may be addresses of module data, and origins of their handles."""
        self._handles: set[int] = set()
        self._returned = Returned(evidence, self._fits)
        self._frames: list[Step] = []
        self._needs: dict[tuple[int, int, int], Need] = defaultdict(Need)
        """What is done with frames that may be of any function, by slot, handle's origin, link."""

    def run(self, steps: Iterable[Step]) -> None:
        """Find the guards."""
        for step in steps:
            self._look(step)
        for origin, piece in self._returned.elements():
            self._uses[origin].add(piece)
        for step in self._indices:
            self._guard_elements(step)
        for step, guard in self._returned.guards():
            self._guard(step, guard)
        for step in self._frames:
            self._guard_link(step)
        self._guard_handles()

    def _guard(self, step: Step, guard: Guard) -> None:
        if guard not in self.guards[step.pc]:
            self.guards[step.pc].append(guard)

    def _look(self, step: Step) -> None:
        for role in step.instruction.op.operands:
            operand = step.operand(role.place) if role.place in "smd" else Operand(Mode.NONE)
            if operand.mode in _NO_PLACE:
                continue
            if operand.mode in _INDIRECT:
                self._look_behind(step, operand, self._pieces(step, role, operand))
            if role.type in KINDS and role.reads:
                self._look_at_kind(step, operand, role.type)
        special = _SPECIAL.get(step.instruction.op.mnemonic)
        if special:
            special(self, step)

    def _look_at_index(self, step: Step) -> None:
        self._indices.append(step)

    def _look_at_frame_made(self, step: Step) -> None:
        self._frames.append(step)
        self._returned.look(step)

    def _look_at_address(self, step: Step) -> None:
        self._returned.look(step)

    def _look_at_bytes(self, step: Step) -> None:
        """Guard an array that is taken for one of bytes."""
        self._guard_element(step, step.operand("s"), (Piece(0, 1, Use.READ),), 1)

    # Records

    def _pieces(self, step: Step, role: OperandRole, operand: Operand) -> tuple[Piece, ...]:
        """Return what an instruction does behind a pointer."""
        at, type_ = operand.value, TYPES[role.type]
        use = Use.WRITE if role.writes else Use.READ
        if type_.kind == "pointer":
            return (Piece(at, WORD_SIZE, Use.POINTER),)
        if not role.is_storage:
            return (Piece(at, type_.size, use),)
        if role.type == "X" and step.instruction.op.role("m"):
            size = step.operand("m").value
            return (Piece(at, size, use),) if size else ()
        if role.type == "Y":
            return value_pieces(step.found.layouts[step.operand("m").value], at, use)
        return ()

    def _look_behind(self, step: Step, operand: Operand, pieces: tuple[Piece, ...]) -> None:
        """Guard an access behind a pointer if it is not proved."""
        is_frame = operand.mode is Mode.FP_INDIRECT
        if not pieces or (is_frame and operand.base == RESULT_PLACE):
            return
        place = step.place(operand)
        if place.frame >= 0 or (place.layout is not None and place.origin < 0) or place.own:
            self._look_at_frame(step, place, pieces)
            return
        known = step.state.get(operand.base) if is_frame else None
        where = Operand(Mode.FP if is_frame else Mode.MP, operand.base)
        if known is not None and known.kind in (Kind.ELEMENT, Kind.ELSEWHERE):
            shift = known.number if known.kind is Kind.ELSEWHERE else 0
            found = {piece._replace(offset=piece.offset + shift) for piece in pieces}
            self._uses[known.origin] |= found
            return
        if known is not None and known.kind is Kind.OBJECT:
            return
        if known is not None and known.kind is Kind.WORD:
            self._handles.add(known.origin)
            self._guard(step, Guard(where, Of.RECORD, pieces))
            return
        if step.instruction.op.mnemonic == "movw" and pieces == (Piece(0, WORD_SIZE, Use.READ),):
            self._words.append((step, place.origin, where))
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
            is_pointer = piece.use is Use.POINTER
            need.stores.add(Part(piece.offset, piece.size, is_pointer))

    def _look_at_call(self, step: Step) -> None:
        """Note where the result of a function of another module goes."""
        self._returned.look(step)
        frame = step.operand("s").value
        made, result = step.state[frame], step.state.get(-frame)
        if made.kind is not Kind.FOREIGN_FRAME or result is None:
            return
        need = self._needs[frame, made.origin, made.number]
        if result.kind is Kind.SLOT:
            need.results.add(shape(step.layout, result.number))
        elif result.kind is Kind.DATA:
            end = self._evidence.usage.variables.end(result.number)
            need.results.add(shape(step.found.data, result.number, end))

    def _guard_link(self, step: Step) -> None:
        """Guard the making of a frame if it is not known for which function that is."""
        handle, middle = step.operand("s"), step.operand("m")
        origin = step.origin(handle)
        if self._evidence.linked_by(origin) and middle.mode is Mode.IMMEDIATE and middle.value >= 0:
            return
        number = link_number(middle)
        need = self._needs[step.operand("d").value, origin, number]
        self._guard(step, Guard(handle, Of.LINK, kind="Z", link=middle, need=need))

    def _fits(self, node: int, pieces: Iterable[Piece]) -> bool:
        """Whether pieces are in all objects of a class."""
        return self._classes.is_made(node, RECORD) and fits_all(self._classes.layouts(node), pieces)

    def _look_at_kind(self, step: Step, operand: Operand, letter: str) -> None:
        node = self._evidence.pointer(step, operand)
        if not self._classes.is_made(node, letter):
            self._guard(step, Guard(operand, Of.KIND, kind=letter))

    def _guard_handles(self) -> None:
        """Guard the words that are taken for addresses of module data."""
        behind = self._evidence.usage.origins
        found = {source for origin in self._handles for source in behind.sources(origin, True)}
        for step, origin, where in self._words:
            if origin in found and not self._classes.is_made(self._classes.of_origin(origin), "Z"):
                self.guards[step.pc] = [g for g in self.guards[step.pc] if g.where != where]
                self._guard(step, Guard(where, Of.KIND, kind="Z"))

    # Arrays and lists

    def _guard_elements(self, step: Step) -> None:
        """Guard an index if what is done with the element is not proved."""
        origin = step.origin(step.operand("s"))
        pieces = self._uses_of(step.usage.behind(origin, "element")) if origin >= 0 else ANY
        size = _STRIDES.get(step.instruction.op.mnemonic, 0)
        self._guard_element(step, step.operand("s"), pieces, size)

    def _uses_of(self, element: int) -> tuple[Piece, ...]:
        """Return what is done with an element's address, wherever that gets."""
        found, seen = set[Piece](), {(element, 0)}
        work = [(element, 0)]
        while work:
            origin, shift = work.pop()
            for piece in self._uses[origin]:
                found.add(piece._replace(offset=piece.offset + shift))
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
        """Guard the copying of elements between arrays of which not all is known."""
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
        sends = step.instruction.op.mnemonic == "send"
        channel, operand = (step.operand(place) for place in ("ds" if sends else "sd"))
        place = Place(Layout(WORD_SIZE, frozenset()), 0)
        if operand.mode not in _NO_PLACE:
            place = step.place(operand)
        node = self._evidence.pointer(step, channel)
        self._guard_transfer(step, channel, node, place, sends, operand)

    def _look_at_table(self, step: Step) -> None:
        """Guard the transfers that an alt table offers."""
        sends = step.state[step.operand("s").value].number
        for index, at in enumerate(alt_entries(step)):
            node = self._evidence.entry_channel(step, at)
            place = entry_place(step, at) or Place(Layout(WORD_SIZE, frozenset()), 0)
            channel = Operand(Mode.FP, at)
            self._guard_transfer(step, channel, node, place, index < sends, Operand(Mode.NONE))

    def _guard_transfer(
        self, step: Step, channel: Operand, node: int, place: Place, sends: bool, operand: Operand
    ) -> None:
        """Guard a transfer between a channel and a place, if it is not proved."""
        if place.layout is not None:
            guard = self._transfer_guard(channel, node, place, sends)
            if guard is not None:
                self._guard(step, guard)
            return
        content = self._classes.field(node, "content")
        layouts = self._classes.layouts(content)
        use, target = Use.READ if sends else Use.WRITE, self._classes.of_origin(place.origin)
        base = step.state.get(operand.base) if operand.mode is Mode.FP_INDIRECT else None
        is_address = base is not None and base.kind in (Kind.ELEMENT, Kind.ELSEWHERE)
        if self._classes.is_made(node, "N") and not self._classes.is_open(content) and layouts:
            pieces = tuple(p for v in layouts for p in value_pieces(v, place.offset, use))
            if is_result(operand):
                self._guard_received_result(step, channel, place, operand, pieces)
            elif is_address or operand.mode is Mode.NONE:
                self._uses[place.origin] |= set(pieces)
            elif not self._fits(target, pieces):
                self._guard(step, Guard(base_of(operand), Of.RECORD, pieces))
        elif not self._classes.is_open(target) and len(self._classes.layouts(target)) == 1:
            known = place._replace(layout=next(iter(self._classes.layouts(target))))
            guard = self._transfer_guard(channel, node, known, sends)
            if guard is not None:
                self._guard(step, guard)
        elif operand.mode is not Mode.NONE and not is_address:
            of = Of.SENT if sends else Of.RECEIVED
            self._guard(step, Guard(channel, of, (), place.offset, "N", base_of(operand)))

    def _guard_received_result(
        self, step: Step, channel: Operand, place: Place, operand: Operand, pieces: Pieces
    ) -> None:
        """Guard a result that is received if not all of it was noted as written."""
        noted = {n.what for n in self._evidence.usage.origins.all[place.origin].noted}
        if not {Access(piece.offset, piece.size, piece.use) for piece in pieces} <= noted:
            guard = Guard(channel, Of.RECEIVED, (), place.offset, "N", base_of(operand))
            self._guard(step, guard)

    def _transfer_guard(
        self, channel: Operand, node: int, place: Place, sends: bool
    ) -> Guard | None:
        """Return what guards a transfer, if that is not proved."""
        content = self._classes.field(node, "content")
        layouts = self._classes.layouts(content)
        of = Of.SENT if sends else Of.RECEIVED
        is_made = self._classes.is_made(node, "N") and not self._classes.is_open(content)
        assert place.layout is not None
        room = self._room(place)
        there = sorted(
            p - place.offset
            for p in place.layout.pointers
            if place.offset <= p < place.offset + room
        )
        pieces = tuple(Piece(p, WORD_SIZE, Use.POINTER) for p in there)
        guard = Guard(channel, of, pieces, room, "N")
        is_fit = not any(guard.misfit(v.size, tuple(v.pointers)) for v in layouts)
        return None if is_made and layouts and is_fit else guard

    def _room(self, place: Place) -> int:
        assert place.layout is not None
        if place.layout is self._evidence.found.data:
            return self._evidence.usage.variables.end(place.offset) - place.offset
        return place.layout.size - place.offset


Pieces = tuple[Piece, ...]
ANY: Pieces = ()


def fits_all(layouts: Iterable[Layout], pieces: Iterable[Piece]) -> bool:
    """Whether there are layouts, and pieces are in all of them."""
    known = list(layouts)
    return bool(known) and not any(
        misfit(piece, layout.size, layout.pointers) for layout in known for piece in pieces
    )


_SPECIAL: dict[str, Callable[[Leftover, Step], None]] = {
    **dict.fromkeys((*_STRIDES, "indx"), Leftover._look_at_index),
    "mframe": Leftover._look_at_frame_made,
    **dict.fromkeys(("lea", "call"), Leftover._look_at_address),
    **dict.fromkeys(("mcall", "mspawn"), Leftover._look_at_call),
    **dict.fromkeys((f"head{t}" for t in _LETTERS), Leftover._look_at_head),
    **dict.fromkeys(("send", "recv"), Leftover._look_at_transfer),
    "cvtac": Leftover._look_at_bytes,
    "slicela": Leftover._look_at_copied,
    **dict.fromkeys(("alt", "nbalt"), Leftover._look_at_table),
}
