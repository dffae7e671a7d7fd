"""What lies in the arena, as text: by a type letter of the instruction table, or by a Limbo type.

References tell by themselves whether they are strings, arrays, lists or other objects, so that they
can be shown without knowing a type. Nothing here changes anything; what a program has damaged
reads as ``?``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import heaptypes, strings
from llmbol_core.vm.arena import ASTRAY, HEAP, NIL
from llmbol_core.vm.host import HostModule
from llmbol_core.vm.isa import TYPES
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    REAL,
    STRING,
    Adt,
    Field,
    Fixed,
    Reference,
    Tuple,
    Type,
)
from llmbol_core.vm.objects import ARRAY, CHANNEL, LIST, LIST_HEADER, MODULE, STACK, Heap
from llmbol_core.vm.objects import STRING as TEXT
from llmbol_core.vm.symbols import resolved

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter

MOST_ITEMS = 10
MOST_CHARACTERS = 60
DEPTH = 3
"""How far references are followed."""

_NUMBERS: dict[str, Callable[[Heap, int], int | float]] = {
    "B": Heap.byte,
    "H": Heap.short,
    "W": Heap.word,
    "L": Heap.big,
    "R": Heap.float32,
    "F": Heap.real,
}
_BASIC: dict[Type, str] = {BYTE: "B", INT: "W", BIG: "L", REAL: "F"}
_ELEMENTS = {
    heaptypes.BYTE: BYTE,
    heaptypes.WORD: INT,
    heaptypes.BIG: BIG,
    heaptypes.REAL: REAL,
}


class Values:
    """Shows what lies in one machine's arena."""

    def __init__(self, engine: Interpreter) -> None:
        self._engine, self._heap = engine, engine.heap

    def of_letter(self, letter: str, address: int, depth: int = 0) -> str:
        """Return the value of a type letter at an address; a place is shown as its address."""
        kind = TYPES[letter].kind
        try:
            if kind == "storage":
                return f"@{address:x}"
            if kind == "address":
                return _address(self._heap.pointer(address))
            if kind == "pointer":
                return self.of_reference(self._heap.pointer(address), depth)
            return repr(_NUMBERS.get(letter, Heap.word)(self._heap, address))
        except (Trap, *ASTRAY):
            return "?"

    def of_type(self, kind: Type, address: int, depth: int = DEPTH) -> str:
        """Return the value of a Limbo type at an address."""
        try:
            return self._typed(resolved(kind), address, depth)
        except (Trap, *ASTRAY):
            return "?"

    def of_reference(self, ref: int, depth: int = DEPTH) -> str:
        """Return what a reference leads to."""
        try:
            return self._referred(ref, depth)
        except (Trap, *ASTRAY):
            return f"@{ref:x}?"

    # By Limbo's types

    def _typed(self, kind: Type, address: int, depth: int) -> str:
        heap = self._heap
        if kind in _BASIC:
            return self.of_letter(_BASIC[kind], address)
        if isinstance(kind, Fixed):
            return repr(heap.word(address) * kind.scale)
        if isinstance(kind, Tuple):
            return f"({', '.join(self._fields(kind.fields, address, depth, named=False))})"
        if isinstance(kind, Adt):
            return self._record(kind, address, depth)
        ref = heap.pointer(address)
        if ref == NIL and kind is STRING:
            return '""'
        if ref == NIL or not isinstance(kind, Reference) or kind.kind == "chan":
            return self._referred(ref, depth)
        found = heap.type_of(ref) if self._is_object(ref) else 0
        if kind.kind == "ref":
            if found <= STACK:
                return self._referred(ref, depth)
            return f"ref {self._typed(resolved(kind.element), ref, depth - 1)}" if depth else "ref"
        if found != (LIST if kind.kind == "list" else ARRAY):
            return self._referred(ref, depth)
        return self._row(kind, ref, depth)

    def _row(self, kind: Reference, ref: int, depth: int) -> str:
        """Return an array or a list."""
        heap, element = self._heap, kind.element
        if kind.kind == "list":
            places: Iterable[int] = (node + LIST_HEADER for node in heap.list_nodes(ref))
            return f"list {self._items(element, places, depth)}"
        length, data = heap.array_length(ref), heap.array_data(ref)
        size = heap.types[heap.word(ref + 4)].size
        places = range(data, data + length * size, size or 1)
        return f"array[{length}] {self._items(element, places, depth)}"

    def _items(self, element: Type, places: Iterable[int], depth: int) -> str:
        if not depth:
            return "{...}"
        first = list(itertools.islice(places, MOST_ITEMS + 1))
        words = [self._typed(resolved(element), at, depth - 1) for at in first[:MOST_ITEMS]]
        return f"{{{', '.join(words + ['...'] * (len(first) > MOST_ITEMS))}}}"

    def _record(self, kind: Adt, address: int, depth: int) -> str:
        name, fields = kind.name, kind.fields
        if kind.picks:
            tag, tags = self._heap.word(address), list(kind.picks)
            if not 0 <= tag < len(tags):
                return f"{name}.?"
            name, fields = f"{name}.{tags[tag]}", kind.picks[tags[tag]].fields
        return f"{name}({', '.join(self._fields(fields, address, depth, named=True))})"

    def _fields(self, fields: Iterable[Field], at: int, depth: int, named: bool) -> Iterable[str]:
        for part in fields:
            value = self._typed(resolved(part.type), at + part.offset, depth)
            yield f"{part.name}={value}" if named else value

    # By what the objects say

    def _is_object(self, ref: int) -> bool:
        """Whether a reference may lead to an object: damaged ones seldom look like this."""
        heap = self._heap
        return ref >= HEAP and ref % 16 == 0 and 0 < heap.type_of(ref) < len(heap.types)

    def _referred(self, ref: int, depth: int) -> str:
        heap = self._heap
        if ref == NIL:
            return "nil"
        if not self._is_object(ref):
            return f"@{ref:x}?"
        kind = heap.type_of(ref)
        if kind == TEXT:
            return self._text(ref)
        if kind == ARRAY:
            return self._array(ref, depth)
        if kind == LIST:
            return self._list(ref, depth)
        if kind == CHANNEL:
            _, capacity, count = (heap.word(ref + at) for at in (0, 4, 8))
            return f"chan, {count} of {capacity} buffered" if capacity else "chan"
        if kind == MODULE:
            module = self._engine.linked_of(ref).module
            return f"module {module.name if isinstance(module, HostModule) else module.module.name}"
        return "stack" if kind == STACK else f"@{ref:x} {self._words(ref, kind, depth)}"

    def _text(self, ref: int) -> str:
        count = strings.length(self._heap, ref)
        shown = min(count, MOST_CHARACTERS)
        codes = (strings.character(self._heap, ref, at) for at in range(shown))
        text = "".join(chr(code) if 0 <= code <= 0x10FFFF else "\ufffd" for code in codes)
        quoted = json.dumps(text, ensure_ascii=False)
        return quoted if shown == count else f"{quoted}... ({count} characters)"

    def _array(self, ref: int, depth: int) -> str:
        heap = self._heap
        length, number = heap.word(ref), heap.word(ref + 4)
        size, pointers = heap.types[number]
        kind = _ELEMENTS.get(number) or (BYTE if size == 1 else INT if size == 4 else None)
        if kind is not None and not pointers:
            return self._row(Reference("array", kind), ref, depth)
        data = heap.array_data(ref)
        places = range(data, data + length * size, size or 1)
        return f"array[{length}] {self._values(places, number, depth)}"

    def _list(self, ref: int, depth: int) -> str:
        places = (node + LIST_HEADER for node in self._heap.list_nodes(ref))
        return f"list {self._values(places, self._heap.word(ref + 4), depth)}"

    def _values(self, places: Iterable[int], number: int, depth: int) -> str:
        if not depth:
            return "{...}"
        first = list(itertools.islice(places, MOST_ITEMS + 1))
        words = [self._words(at, number, depth - 1) for at in first[:MOST_ITEMS]]
        return f"{{{', '.join(words + ['...'] * (len(first) > MOST_ITEMS))}}}"

    def _words(self, address: int, number: int, depth: int) -> str:
        """Return a value of one of the heap's types, of which only the references are known."""
        size, pointers = self._heap.types[number]
        if size < 4:
            return " ".join(str(self._heap.byte(address + at)) for at in range(size))
        if not depth and len(pointers) != size // 4:
            return f"({size} bytes)"
        parts = [
            self._referred(self._heap.pointer(address + at), max(depth - 1, 0))
            if at in pointers
            else str(self._heap.word(address + at))
            for at in range(0, min(size - 3, 4 * MOST_ITEMS), 4)
        ]
        parts += ["..."] * (size > 4 * MOST_ITEMS)
        return parts[0] if size == 4 else f"({', '.join(parts)})"


def _address(value: int) -> str:
    return "nil" if value == NIL else f"@{value:x}"
