"""What a module's instructions do with its pointers: the evidence for ``pointees.py``.

It visits each reachable instruction once, with what is known of the frame there: what objects the
instruction makes, and what it stores where. Whatever comes from outside, or goes there, is open:
arguments and results of functions that others call or that lie in other modules, what is raised and
caught, module data that is exported, what is kept behind pointers that are open themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import DATA_EXPORT
from llmbol_core.vm.verification.effects import NO_PLACE, UNKNOWN
from llmbol_core.vm.verification.initial import bring_data
from llmbol_core.vm.verification.livein import Arguments
from llmbol_core.vm.verification.pointees import OPEN, RECORD, Classes
from llmbol_core.vm.verification.reach import Reach
from llmbol_core.vm.verification.slots import COPIES, FRAMES, POINTERS, Kind, Value, argument_key
from llmbol_core.vm.verification.structure import Layout, Structure
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.usage import Usage
from llmbol_core.vm.verification.whole import alt_entries, entry_place, value_layout

if TYPE_CHECKING:
    from llmbol_core.vm.module import Operand

_BY_OTHERS = -1
"""Stands for the list of imports by which the module itself was loaded."""


class Evidence:
    """The classes of a module's pointers, once ``run`` has been called for all instructions."""

    def __init__(self, found: Structure, usage: Usage, arguments: Arguments, reach: Reach) -> None:
        self._arguments, self.reach = arguments, reach
        self.found, self.usage = found, usage
        self.classes = Classes(usage.origins)
        self.module = found.module
        self.joins: dict[int, list[tuple[int, int]]] = {}
        """Where addresses are joined, by the origin that they begin with, and what is added."""
        self.links: dict[int, set[int]] = {}
        """Lists of imports by the classes of the handles that are linked by them."""
        self._loads: list[tuple[int, int]] = []
        self._entries: list[tuple[Step, int, Place]] = []
        """Entries of alt tables whose channels are not known to be arrays."""
        self._steps: dict[int, Step] = {}
        self.exports_data = any(e.name == DATA_EXPORT for e in self.module.exports)
        bring_data(found, self.classes, self.variable)

    # Nodes

    def node_of(self, value: Value | None) -> int:
        """Return the node of what a slot is known to hold."""
        if value is None or value.kind not in POINTERS:
            return OPEN
        return self.classes.of_origin(value.origin)

    def variable(self, offset: int) -> int:
        """Return the node of a pointer in the module data."""
        if self.exports_data:
            return OPEN
        return self.classes.of_origin(self.usage.origin("data", offset))

    def made(self, pc: int) -> int:
        """Return the node of what an instruction makes or loads."""
        return self.classes.of_origin(self.usage.origin("made", pc))

    def load(self, step: Step, place: Place, more: int = 0) -> int:
        """Return the node of a pointer at a place."""
        at = place.offset + more
        if place.own:
            return self.node_of(step.state.get(at))
        if place.frame >= 0:
            return self.node_of(step.state.get(argument_key(place.frame, at)))
        if place.layout is self.found.data:
            return self.variable(at)
        if place.origin >= 0:
            return self.classes.field(self.classes.of_origin(place.origin), "at", at)
        return OPEN

    def store(self, step: Step, place: Place, node: int, more: int = 0) -> None:
        """Note that a pointer is stored at a place."""
        if place.own or (place.frame >= 0 and place.layout is not None):
            return
        here = OPEN if place.frame >= 0 else self.load(step, place, more)
        self.classes.unite(here, node)

    def pointer(self, step: Step, operand: Operand) -> int:
        """Return the node of the pointer that an operand reads."""
        if operand.mode is Mode.FP or (known := step.pointer(operand)) is None:
            return self.load(step, step.place(operand))
        return self.node_of(known)

    # Everything

    def run(self, steps: Iterable[Step]) -> None:
        """Visit all instructions, and unite pointers that may share an object."""
        classes, usage = self.classes, self.usage
        self._steps = {step.pc: step for step in steps}
        classes.take_flows(self._arguments.is_dead)
        self._take_origins()
        entries = {e.pc: e.type for e in self.module.exports if e.pc >= 0}
        if self.module.has_entry:
            entries[self.module.entry_pc] = self.module.entry_type
        for entry, number in entries.items():
            self._open_function(entry, number)
        for number, origin in enumerate(list(usage.origins.all)):
            for flow in origin.flows:
                self.joins.setdefault(flow.source, []).append((number, flow.shift))
        for step in self._steps.values():
            self._look(step)
        classes.close()
        while self._transfer_elements():
            classes.close()
        for node, imports in self._loads:
            self.links.setdefault(classes.root(node), set()).add(imports)

    def _take_origins(self) -> None:
        """Open the origins of pointers of which the module tells nothing."""
        classes, usage = self.classes, self.usage
        for number, origin in enumerate(list(usage.origins.all)):
            if (
                origin.key[0] in ("exception", "unknown")
                or number in usage.unknown
                or (origin.key[0] == "data" and (origin.depth or self.exports_data))
            ):
                classes.unite(classes.of_origin(number), OPEN)
            elif origin.key[0] == "nil":
                _, _, at = origin.key
                assert isinstance(at, int)
                if self.exports_data or at in usage.variables.exposed:
                    classes.unite(classes.of_origin(number), self.variable(at))
            elif origin.key[0] == "text":
                classes.bring(classes.of_origin(number), "C")
        for pc, slot, number in usage.lost:
            if not self._arguments.is_dead(pc, slot):
                classes.unite(classes.of_origin(number), OPEN)

    def linked_by(self, origin: int) -> int | None:
        """Return the list of imports that links a handle; None if that is not known."""
        node = self.classes.of_origin(origin)
        if not self.classes.is_made(node, "Z"):
            return None
        found = self.links.get(self.classes.root(node), set())
        return next(iter(found)) if len(found) == 1 and _BY_OTHERS not in found else None

    def _open_function(self, entry: int, number: int) -> None:
        """Note that other modules call a function."""
        for slot in self._arguments.live[entry] & self.found.layouts[number].pointers:
            self.open_origin("parameter", entry, slot)
        self.open_result(entry)

    def open_origin(self, *key: object) -> None:
        """Note that anything may come from an origin."""
        self.classes.unite(self.classes.of_origin(self.usage.origin(*key)), OPEN)

    def result(self, entry: int) -> int:
        """Return the node of what a function writes as its result."""
        return self.classes.of_origin(self.usage.origin("result", entry))

    def open_result(self, entry: int) -> None:
        """Note that a function's result may go anywhere."""
        self.classes.unite(self.result(entry), OPEN)

    def _look(self, step: Step) -> None:
        for operand, role, _ in step.effects.touches:
            if role.writes and TYPES[role.type].kind == "pointer":
                self._make(step, operand, role)
        special = _SPECIAL.get(step.op.mnemonic)
        if special:
            special(self, step)

    def _make(self, step: Step, operand: Operand, role: OperandRole) -> None:
        """Note the pointer that an instruction writes."""
        made, mnemonic = self.made(step.pc), step.op.mnemonic
        source = step.operand("s")
        if mnemonic in ("movp", "tail"):
            self.classes.unite(made, self.pointer(step, source))
        elif mnemonic == "headp":
            head = self.classes.field(self.pointer(step, source), "head")
            self.classes.unite(made, self.classes.field(head, "at"))
        elif mnemonic in ("new", "newz"):
            self.classes.bring(made, RECORD, step.found.layouts[source.value])
        elif role.type == "P":
            self.classes.unite(made, OPEN)
        else:
            self.classes.bring(made, role.type)
            if mnemonic == "load":
                self._loads.append((made, step.operand("m").value))
            elif mnemonic == "self":
                self._loads.append((made, _BY_OTHERS))
        self.store(step, step.place(operand), made)

    # Arrays, lists, channels

    def _array(self, step: Step) -> None:
        layout = Layout(1, frozenset())
        if step.op.mnemonic != "cvtca":
            layout = step.found.layouts[step.operand("m").value]
        self.classes.bring(self.classes.field(self.made(step.pc), "element"), "", layout)

    def _slice(self, step: Step) -> None:
        self.classes.unite(self.made(step.pc), self.pointer(step, step.operand("d")))

    def _copy_elements(self, step: Step) -> None:
        elements = [
            self.classes.field(self.pointer(step, step.operand(place)), "element") for place in "sd"
        ]
        self.classes.unite(*elements)

    def _list(self, step: Step) -> None:
        made = self.made(step.pc)
        self.classes.unite(made, self.pointer(step, step.operand("d")))
        head, layout = self.classes.field(made, "head"), value_layout(step)
        self.classes.bring(head, "", layout)
        place = step.place(step.operand("s")) if layout.pointers else None
        for at in layout.pointers:
            assert place is not None
            self.classes.unite(self.classes.field(head, "at", at), self.load(step, place, at))

    def _head(self, step: Step) -> None:
        head = self.classes.field(self.pointer(step, step.operand("s")), "head")
        place = step.place(step.operand("d"))
        for at in value_layout(step).pointers:
            self.store(step, place, self.classes.field(head, "at", at), at)

    def _copy_value(self, step: Step) -> None:
        source, target = (step.place(step.operand(place)) for place in "sd")
        for at in step.found.layouts[step.operand("m").value].pointers:
            node = self.load(step, source, at)
            if step.held(source, at) is None:
                self.classes.unite(node, OPEN)
            self.store(step, target, node, at)

    def _channel(self, step: Step) -> None:
        content = self.classes.field(self.made(step.pc), "content")
        self.classes.bring(content, "", value_layout(step))

    def _transfer(self, step: Step) -> None:
        sends = step.op.mnemonic == "send"
        channel = self.pointer(step, step.operand("d" if sends else "s"))
        operand = step.operand("s" if sends else "d")
        if operand.mode not in NO_PLACE:
            self.transfer(step, channel, step.place(operand), not sends)

    def transfer(self, step: Step, channel: int, place: Place, receives: bool) -> None:
        """Note that values go between a channel and a place, which then share their pointers."""
        content, classes = self.classes.field(channel, "content"), self.classes
        if place.layout is None and place.origin >= 0:
            node = OPEN if place.frame >= 0 else classes.of_origin(place.origin)
            if OPEN in (content, node):
                classes.unite(content, node)
            else:
                classes.link(content, node, place.offset)
            return
        end = place.layout.size if place.layout else 0
        if place.layout is self.found.data:
            end = self.usage.variables.end(place.offset)
        for at in place.layout.pointers if place.layout else ():
            if place.offset <= at < end:
                field = classes.field(content, "at", at - place.offset)
                classes.unite(field, self.load(step, place, at - place.offset))
                if receives and at > place.offset and (place.own or place.frame >= 0):
                    # Nothing is known of what such a slot holds then.
                    classes.unite(field, OPEN)

    def _table(self, step: Step) -> None:
        places, classes = [entry_place(step, entry) for entry in alt_entries(step)], self.classes
        for entry, place in zip(alt_entries(step), places, strict=True):
            if place is None:
                continue
            channel = self.entry_channel(step, entry)
            self.transfer(step, channel, place, True)
            self._entries.append((step, channel, place))
            if place.own and places.count(place) > 1:
                classes.unite(classes.field(classes.field(channel, "content"), "at"), OPEN)

    def _transfer_elements(self) -> bool:
        """Note transfers of channels in arrays, after their indices; return if there are any."""
        classes = self.classes
        due = [e for e in self._entries if classes.is_open(e[1]) or classes.kinds(e[1]) != {"N"}]
        self._entries = [entry for entry in self._entries if entry not in due]
        for step, channel, place in due:
            elements = classes.field(classes.field(channel, "element"), "at")
            behind = place._replace(offset=place.offset + WORD_SIZE)
            self.transfer(step, elements, behind, True)
        return bool(due)

    def entry_channel(self, step: Step, at: int) -> int:
        """Return the node of the channel, or the array of channels, in an entry of an alt table."""
        known = step.state.get(at)
        if known is None:
            return OPEN
        if known.kind in COPIES:
            return self.classes.field(self.classes.of_origin(known.origin), "at", known.number)
        return self.classes.of_origin(known.origin)

    # Calls

    def _call(self, step: Step) -> None:
        step.check_call()
        assert step.entered
        entry, number = step.entered
        frame = step.operand("s").value
        for slot in step.found.layouts[number].pointers:
            passed = step.state.get(argument_key(frame, slot))
            if passed is None:
                continue
            parameter = self.classes.of_origin(self.usage.origin("parameter", entry, slot))
            self.classes.unite(parameter, self.node_of(passed))
        to, result = step.state.get(-frame), self.result(entry)
        if to is not None:
            self._keep_old(step, to, entry)
            self._open_slots(step, to, entry)
            self._result(step, to, lambda at: self.classes.field(result, "at", at))
            if to.kind in (Kind.ELSEWHERE, Kind.ELEMENT):
                shift = to.number if to.kind is Kind.ELSEWHERE else 0
                self.classes.link(result, self.classes.of_origin(to.origin), shift)

    def _keep_old(self, step: Step, to: Value, entry: int) -> None:
        """Note pointers that a function may leave unchanged at the place of its result."""
        for slot in step.layout.pointers if to.kind is Kind.SLOT else ():
            if to.number <= slot and slot - to.number not in self._arguments.returned(entry):
                returned = self.usage.origin("returned", step.pc, slot)
                node = self.classes.of_origin(returned)
                self.classes.unite(node, self.node_of(step.state.get(slot)))

    def _open_slots(self, step: Step, to: Value, entry: int) -> None:
        """Open a result of unknown size that goes to slots: nothing is known of these then."""
        if to.kind is Kind.SLOT and step.written(entry) >= UNKNOWN:
            for slot in step.layout.pointers:
                if slot >= to.number:
                    field = self.classes.field(self.result(entry), "at", slot - to.number)
                    self.classes.unite(field, OPEN)

    def _module_call(self, step: Step) -> None:
        frame = step.operand("s").value
        first = argument_key(frame, 0)
        for at, value in step.state.items():
            if first <= at < first + FRAMES:
                self.classes.unite(self.node_of(value), OPEN)
        to = step.state.get(-frame)
        if to is not None:
            self._result(step, to, lambda at: OPEN)
            if to.kind in (Kind.ELSEWHERE, Kind.ELEMENT):
                shift = to.number if to.kind is Kind.ELSEWHERE else 0
                self.classes.link(OPEN, self.classes.of_origin(to.origin), shift)

    def _result(self, step: Step, to: Value, field: Callable[[int], int]) -> None:
        """Note what a call may write to a slot, or into the module data."""
        if to.kind is Kind.DATA:
            for at in step.found.data.pointers:
                if to.number <= at < self.usage.variables.end(to.number):
                    self.classes.unite(self.variable(at), field(at - to.number))
        elif to.kind is Kind.SLOT:
            for index, handler in enumerate(self.module.handlers):
                if handler.pc1 <= step.pc < handler.pc2:
                    for slot in step.layout.pointers:
                        if slot >= to.number:
                            caught = self.usage.origin("caught", index, slot)
                            node = self.classes.of_origin(caught)
                            self.classes.unite(node, field(slot - to.number))

    def _raise(self, step: Step) -> None:
        self.classes.unite(self.pointer(step, step.operand("s")), OPEN)


_SPECIAL: dict[str, Callable[[Evidence, Step], None]] = {
    **dict.fromkeys(("newa", "newaz", "cvtca"), Evidence._array),
    "slicea": Evidence._slice,
    "slicela": Evidence._copy_elements,
    **dict.fromkeys((f"cons{t}" for t in ("b", "w", "l", "f", "p", "m", "mp")), Evidence._list),
    "headmp": Evidence._head,
    "movmp": Evidence._copy_value,
    **dict.fromkeys((f"newc{t}" for t in ("b", "w", "l", "f", "p", "m", "mp")), Evidence._channel),
    **dict.fromkeys(("send", "recv"), Evidence._transfer),
    **dict.fromkeys(("alt", "nbalt"), Evidence._table),
    **dict.fromkeys(("call", "spawn"), Evidence._call),
    **dict.fromkeys(("mcall", "mspawn"), Evidence._module_call),
    "raise": Evidence._raise,
}
