"""What the verifier says of slots, compared with what is there while a program runs.

For each instruction the verifier knows what the words of the frame hold: objects of a type, frames,
addresses, numbers; and of pointers which objects of the module they can lead to, unless they are
open. ``Claims`` compares that with the frame before the instruction runs, also where nothing is
done with it: so a wrong claim is found wherever it is made.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.loader import LoadedModule
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.objects import ARRAY, CHANNEL, LIST, LIST_HEADER, MODULE, STACK, STRING
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verification.changes import needed
from llmbol_core.vm.verification.evidence import Evidence
from llmbol_core.vm.verification.slots import FRAMES, POINTERS, RESULT, Kind, Value
from llmbol_core.vm.verification.structure import Layout
from llmbol_core.vm.verification.typeflow import Step
from llmbol_core.vm.verifier import _Flow, _flow
from tests.vm.areas import Forgery
from tests.vm.oracle import Checking

_KINDS = {STRING: "C", ARRAY: "A", LIST: "I", CHANNEL: "N", MODULE: "Z"}
_DEEPEST = 3
_FEW = 3
"""Elements and values of a container that are looked at."""
_SELDOM = 8
"""Instructions between two looks at the module data."""


def followed(module: Module) -> tuple[_Flow, Evidence]:
    """Return what the verifier knows of a module; raises VerifyError."""
    return _followed(write_module(module))


@lru_cache(maxsize=8)
def _followed(content: bytes) -> tuple[_Flow, Evidence]:
    flow = _flow(read_module(content, "followed"))
    return flow, flow.weigh()[0]


class Claims:
    """The claims about all modules of a machine; called before each instruction."""

    def __init__(self) -> None:
        self._known: dict[LoadedModule, _Claims] = {}

    def __call__(self, loaded: LoadedModule, pc: int, engine: Checking, fp: int, mp: int) -> None:
        if loaded not in self._known:
            self._known[loaded] = _Claims(loaded)
        self._known[loaded].check(pc, engine, fp, mp)


class Claiming(Checking):
    """The engine of ``oracle.py``, which also holds the verifier to its claims."""

    def __init__(self, machine: Any, channels: Any) -> None:
        super().__init__(machine, channels)
        self.claims = Claims()


class _Claims:
    def __init__(self, loaded: LoadedModule) -> None:
        self._loaded = loaded
        self._flow, self._evidence = followed(loaded.module)
        self._variables = self._flow.usage.variables
        self._used: dict[int, set[int]] = {}
        """Words of the frame that instructions take for more than numbers."""

    def check(self, pc: int, engine: Checking, fp: int, mp: int) -> None:
        """Raise Forgery if what is said of an instruction's frame is not so."""
        state, number = self._flow.states.get(pc), self._flow.frames.get(pc)
        if state is None or number is None:
            raise Forgery("this instruction cannot be reached")
        layout = self._flow.found.layouts[number]
        type_ = engine.frame_type(fp)
        if (type_.size, frozenset(type_.pointers)) != (layout.size, layout.pointers):
            raise Forgery("the frame is of another type")
        if pc not in self._used:
            step = Step(self._flow.found, self._flow.usage, pc, number, state)
            self._used[pc] = set(needed(step))
        starts = [v.number for at, v in state.items() if at >= 0 and v.kind is Kind.SLOT]
        start = min(starts, default=RESULT)
        for slot, value in state.items():
            if 0 <= slot < RESULT:
                if value.kind not in POINTERS and slot not in self._used[pc]:
                    continue
                is_live = self._is_live(pc, slot, start)
                self._check(engine, slot, value, fp + slot, fp, mp, is_live)
            elif slot >= FRAMES:
                frame = engine.heap.pointer(fp + slot // FRAMES - 1)
                self._check(engine, slot, value, frame + slot % FRAMES, fp, mp)
        if engine.count % _SELDOM == 0 and mp != NIL:
            self._check_data(engine, mp)

    def _is_live(self, pc: int, slot: int, start: int) -> bool:
        """Whether anybody may read a slot: of what nobody reads nothing is said."""
        known = self._evidence._arguments
        return slot >= start or slot in known.live[pc]

    def _check_data(self, engine: Checking, mp: int) -> None:
        for at in self._flow.found.data.pointers:
            ref = engine.heap.pointer(mp + at)
            is_free = at in self._variables.exposed or self._evidence.exports_data
            if self._variables.is_nil(at) and not is_free and ref != NIL:
                raise Forgery(f"{at}(mp) is not nil")
            self._check_class(engine, self._evidence.variable(at), ref, f"{at}(mp)")

    def _check(
        self,
        engine: Checking,
        slot: int,
        value: Value,
        address: int,
        fp: int,
        mp: int,
        is_live: bool = True,
    ) -> None:
        heap, number = engine.heap, value.number
        word = heap.word(address)
        what = f"slot {slot & 0xFFFF}, {value.kind.value} {number}"
        match value.kind:
            case Kind.NUMBER | Kind.CODE:
                is_so = word == (number & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)
            case Kind.SLOT:
                is_so = heap.pointer(address) == fp + number
            case Kind.DATA:
                is_so = heap.pointer(address) == mp + number
            case Kind.FRAME:
                frame = heap.pointer(address)
                is_so = frame not in engine.frames_made(engine.process) or (
                    engine.frame_type(frame) == heap.types[self._loaded.types[number]]
                )
            case Kind.OBJECT:
                ref = heap.pointer(address)
                is_so = ref == NIL or heap.type_of(ref) == self._loaded.types[number]
            case _:
                is_so = True
        if not is_so:
            raise Forgery(f"not so: {what}; it is {word & 0xFFFFFFFF:x}")
        if is_live and value.kind in POINTERS and value.origin >= 0:
            node = self._evidence.classes.of_origin(value.origin)
            self._check_class(engine, node, heap.pointer(address), what)

    def _check_class(
        self, engine: Checking, node: int, ref: int, what: str, depth: int = 0
    ) -> None:
        """Raise Forgery unless an object is one of those that a class of pointers leads to."""
        classes, heap = self._evidence.classes, engine.heap
        if ref == NIL or classes.is_open(node) or not engine.blocks.lives(ref):
            return
        kind = heap.type_of(ref)
        letter = "R" if kind > STACK else _KINDS.get(kind, "?")
        if letter not in classes.kinds(node):
            raise Forgery(f"{what} leads to a {letter}, not to {sorted(classes.kinds(node))}")
        if depth == _DEEPEST:
            return
        if letter == "R":
            self._check_value(engine, node, kind, [ref], what, depth)
        elif letter == "A":
            data, number = heap.array_data(ref), heap.word(ref + 4)
            size, count = heap.types[number].size, min(heap.array_length(ref), _FEW)
            places = [data + size * i for i in range(count)]
            self._check_value(engine, self._field(node, "element"), number, places, what, depth)
        elif letter == "I":
            head, number = self._field(node, "head"), heap.word(ref + 4)
            self._check_value(engine, head, number, [ref + LIST_HEADER], what, depth)
            self._check_class(engine, node, heap.pointer(ref), what, depth + 1)
        elif letter == "N":
            self._check_value(engine, self._field(node, "content"), heap.word(ref), [], what, depth)

    def _check_value(
        self, engine: Checking, node: int, number: int, places: list[int], what: str, depth: int
    ) -> None:
        """The same for values of a type in some places."""
        classes, type_ = self._evidence.classes, engine.heap.types[number]
        if node < 0 or classes.is_open(node):
            return
        layout = Layout(type_.size, frozenset(type_.pointers))
        if layout not in classes.layouts(node):
            raise Forgery(f"what {what} leads to has a value of another type: {layout}")
        for place in places:
            for at in type_.pointers:
                field = self._field(node, "at", at)
                ref = engine.heap.pointer(place + at)
                if field >= 0:
                    self._check_class(engine, field, ref, f"{what}, {at} behind", depth + 1)

    def _field(self, node: int, what: str, offset: int = 0) -> int:
        """Return a field of a class if anything is known of it, else -1."""
        classes = self._evidence.classes
        return classes._fields.get(classes.root(node), {}).get((what, offset), -1)
