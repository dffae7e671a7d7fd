"""What built-in functions do with whatever a program may give them, for ``test_border.py``.

The verifier knows the program's own module only: in a pointer that is passed on can be any object,
in a number any number. ``Border`` is a machine whose program calls each function of a built-in
module with what lies in its module data, where the tests put objects of all kinds (``KINDS``).
Among their numbers is the address of a string, which whoever takes a number for a pointer comes to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llmbol_core.builtins import HOST_MODULES, built_in
from llmbol_core.errors import Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.heaptypes import BIG, BYTE, HANDLE, POINTER, REAL, WORD
from llmbol_core.vm.host import HostFunction
from llmbol_core.vm.layout import NONE, Record, Type, frame
from llmbol_core.vm.layout import STRING as TEXT
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import ARRAY, CHANNEL, HOSTED, LIST, MODULE, STACK, STRING, Heap
from tests.vm import ledger

POINTERS, NUMBERS, RESULTS = 16, 128, 512
"""Where in the module data pointers to pass begin, numbers to pass, and the places of results."""
PLACE = 8
"""Where in the module data the object is that a result may go to."""
_ROOM = 128
_VARARGS = (0, -1, -1, 0, -1, -1, 0)
"""What is passed for ``*``: pointers, and words for ints and reals."""


class Part(NamedTuple):
    """A word of an argument: where it lies in the frame, and in the module data."""

    at: int
    given: int
    is_pointer: bool
    type: Type | None
    """The type of the argument, if this is the first word of it."""


def parts_of(module: str, function: HostFunction) -> list[Part]:
    """Return the words of a function's arguments, those for ``*`` included."""
    found, pointers, numbers = list[Part](), POINTERS, NUMBERS
    layout, end = frame(built_in(module).declared(function.name)), 32
    words: list[tuple[int, bool, Type | None]] = []
    for argument in layout.arguments:
        places = set(argument.type.pointers())
        end = argument.offset + argument.type.size
        words += [
            (argument.offset + at, at in places, None if at else argument.type)
            for at in range(0, argument.type.size, 4)
        ]
    if not function.frame.size:
        words += [(end + 4 * n, not kind, None) for n, kind in enumerate(_VARARGS)]
    for at, is_pointer, kind in words:
        given = pointers if is_pointer else numbers
        found.append(Part(at, given, is_pointer, kind))
        pointers, numbers = pointers + 4 * is_pointer, numbers + 4 * (not is_pointer)
    return found


# Objects of all kinds

Maker = Callable[[Heap, int], int]
"""Makes an object, given a number to put wherever there can be one."""


def _array(kind: int | TypeDescriptor, length: int, start: int = 0, end: int = -1) -> Maker:
    def make(heap: Heap, number: int) -> int:
        ref = heap.new_array(kind, length)
        element = heap.types[heap.word(ref + 4)]
        if not element.pointers:
            _fill(heap, heap.array_data(ref), element.size * length, number)
        if end < 0:
            return ref
        part = heap.new_slice(ref, start, end - start)
        heap.release(ref)
        return part

    return make


def _fill(heap: Heap, start: int, size: int, number: int) -> None:
    words = number.to_bytes(4, "little") * (size // 4 + 1)
    heap.view(start, size)[:] = words[:size]


def _of_pointers(*makers: Maker | None) -> Maker:
    def make(heap: Heap, number: int) -> int:
        ref = heap.new_array(POINTER, len(makers))
        for n, maker in enumerate(makers):
            heap.give(heap.array_data(ref) + 4 * n, maker(heap, number) if maker else NIL)
        return ref

    return make


def _record(size: int, *pointers: int, of: Maker | None = None) -> Maker:
    kind = TypeDescriptor(-1, size, _map(size, pointers))

    def make(heap: Heap, number: int) -> int:
        ref = heap.new_record(kind)
        for at in range(0, size - 3, 4):
            if at in pointers:
                heap.give(ref + at, of(heap, number) if of else NIL)
            else:
                heap.set_pointer(ref + at, number)
        return ref

    return make


def _map(size: int, pointers: Sequence[int]) -> bytes:
    bits = bytearray(-(-size // 32))
    for at in pointers:
        bits[at // 32] |= 0x80 >> at % 32 // 4
    return bytes(bits)


def _list(*kinds: int | TypeDescriptor, of: Maker | None = None) -> Maker:
    def make(heap: Heap, number: int) -> int:
        ref = NIL
        for kind in reversed(kinds):
            ref = heap.new_list(kind, ref)
            size, pointers = heap.types[heap.word(ref + 4)]
            for at in range(0, size - 3, 4):
                if at in pointers:
                    heap.give(heap.head(ref) + at, of(heap, number) if of else NIL)
                else:
                    heap.set_pointer(heap.head(ref) + at, number)
        return ref

    return make


def _text(text: str) -> Maker:
    return lambda heap, number: heap.new_text(text)


def _channel(kind: int, *values: int) -> Maker:
    def make(heap: Heap, number: int) -> int:
        return heap.new_channel(kind, len(values))

    return make


class _Stranger:
    """What the host keeps for an object that no built-in module made."""


_PAIR, _MIXED, _ODD, _NOTHING = (
    TypeDescriptor(-1, 16),
    TypeDescriptor(-1, 8, b"\x40"),
    TypeDescriptor(-1, 3),
    TypeDescriptor(-1, 0),
)
WIDE = "\u2603%s\U00010000"
KINDS: dict[str, Maker] = {
    "nil": lambda heap, number: NIL,
    "an empty string": _text(""),
    "a string": _text("text"),
    "a template": _text("%d %s %*d %g %c %x %5.3s%%%bd"),
    "a string of all verbs": _text("%q %e %o %X %G %s %d %d %r %.*f"),
    "a string with NUL": _text("a\0b"),
    "a wide string": _text(WIDE),
    "a name": _text("/x"),
    "bytes": _array(BYTE, 24),
    "no bytes": _array(BYTE, 0),
    "a slice of bytes": _array(BYTE, 24, 1, 18),
    "an empty slice": _array(BYTE, 24, 24, 24),
    "words": _array(WORD, 4),
    "bigs": _array(BIG, 4),
    "reals": _array(REAL, 4),
    "a slice of reals": _array(REAL, 4, 1, 3),
    "odd elements": _array(_ODD, 8),
    "elements of nothing": _array(_NOTHING, 5),
    "pairs": _array(_PAIR, 2),
    "elements with pointers": _array(_MIXED, 2),
    "strings": _of_pointers(_text("one"), None, _text(WIDE)),
    "arrays": _of_pointers(_array(WORD, 4), _array(BYTE, 4)),
    "no references": _of_pointers(),
    "a record": _record(16),
    "a small record": _record(4),
    "an empty record": _record(0),
    "a record like a slice": _record(16, 8, of=_array(REAL, 4)),
    "a record with a string": _record(8, 0, of=_text("named")),
    "a record with nil": _record(8, 0, 4),
    "a list of words": _list(WORD, WORD),
    "a shape": lambda heap, number: _list(WORD, WORD)(heap, 2),
    "a list of strings": _list(POINTER, POINTER, of=_text("item")),
    "a list of arrays": _list(POINTER, of=_array(BYTE, 4)),
    "a list of this and that": _list(WORD, POINTER, BIG, of=_text("item")),
    "a list of nothing": _list(_NOTHING),
    "a channel of words": _channel(WORD),
    "a channel of strings": _channel(POINTER, 0),
    "a stranger": lambda heap, number: heap.new_handle(_Stranger(), 0, HANDLE),
}
"""Objects by what they are. Built-in modules and what their functions return come on top."""


def shown(heap: Heap, ref: int, depth: int = 4) -> Any:
    """Return what an object holds, without addresses."""
    if ref == NIL:
        return None
    kind = heap.type_of(ref)
    if kind == STRING:
        return heap.string(ref)
    if kind == MODULE or depth == 0:
        return kind
    if kind == CHANNEL:
        return "channel", *heap.words[ref >> 2 : (ref >> 2) + 4].tolist()[1:3]
    if kind == LIST:
        number = heap.word(ref + 4)
        value = shown_value(heap, heap.head(ref), number, depth)
        return "list", value, shown(heap, heap.pointer(ref), depth - 1)
    if kind == ARRAY:
        number, start = heap.word(ref + 4), heap.array_data(ref)
        size = heap.types[number].size
        places = range(start, start + size * heap.array_length(ref), size) if size else ()
        values = [shown_value(heap, at, number, depth) for at in places]
        return "array", size, heap.array_length(ref), values
    work = heap.words[(ref >> 2) - 1] & HOSTED
    return "record", work, shown_value(heap, ref, kind, depth)


def shown_value(heap: Heap, at: int, number: int, depth: int) -> tuple[Any, ...]:
    """Return what a value of a type holds."""
    size, pointers = heap.types[number]
    data = bytearray(heap.view(at, size))
    for pointer in pointers:
        data[pointer : pointer + 4] = bytes(4)
    return bytes(data), *(shown(heap, heap.pointer(at + p), depth - 1) for p in pointers)


def fits(heap: Heap, kind: Type | None, ref: int) -> bool:
    """Whether an object is one that a function may take for one of a type, or nil."""
    if ref == NIL or kind is None or isinstance(kind, Record):
        return True
    number, text = heap.type_of(ref), str(kind)
    if kind == TEXT:
        return number == STRING
    if text.startswith("list of "):
        return number == LIST
    if text.startswith("array of "):
        return number == ARRAY
    return number > STACK if text.startswith("ref ") else number == MODULE


# Programs


class Border:
    """A machine whose program calls the functions of a built-in module."""

    def __init__(self, module: str, functions: Sequence[HostFunction], engine: Any) -> None:
        self.functions = functions
        self.module, self.out = module, io.BytesIO()
        self.parts = {f.name: parts_of(module, f) for f in self.functions}
        self._places: dict[TypeDescriptor, int] = {}
        self.machine = InfernoVM(
            HOST_MODULES, Namespace(), Limits(1 << 24), Streams(None, self.out), engine=engine
        )
        self.heap = self.machine.heap
        self.secret = self.heap.new_text("secret")
        self.heap.lent[self.secret, "test"] += 1
        self.machine.load_module("a", parse_assembly(self._text(), "a"))
        self._data = self.heap.pointer(self.machine._handles["a"])
        self.machine.execute("a", "begin", kind="fn()")
        self.made: dict[str, int] = {}
        """What functions of the module have returned, by the name of the function."""

    def _text(self) -> str:
        code, types, links = ["begin: load 0(mp),$0,4(mp)\n ret"], list[str](), list[str]()
        # What no instruction writes would count as constant.
        code += (f"movw 56(fp),{at}(mp)" for at in range(NUMBERS, RESULTS, 4))
        code += (f"movp 0(mp),{at}(mp)" for at in (PLACE, *range(POINTERS, NUMBERS, 4)))
        code.append("ret")
        imports = [f"word @ldt+0,{len(self.functions)}"]
        for number, function in enumerate(self.functions):
            imports.append(f'ext @ldt+0,{function.signature},"{function.name}"')
            parts = self.parts[function.name]
            made = f"mframe 4(mp),${number},48(fp)"
            if not function.frame.size:
                size = -(-(parts[-1].at + 4) // 8) * 8
                at = ",".join(str(p.at) for p in parts if p.is_pointer)
                types.append(f"desc ${len(types) + 2},{size},({at})")
                made = f"frame ${len(types) + 1},48(fp)"
            moves = [
                f" mov{'p' if p.is_pointer else 'w'} {p.given}(mp),{p.at}(48(fp))" for p in parts
            ]
            for how, address in self._addresses(function):
                call = f" mcall 48(fp),${number},4(mp)\n ret"
                code.append("\n".join([f"{how}{number}: {made}", *moves, address, call]))
                links.append(f'link 1,{how}{number},"fn()","{how}{number}"')
        links.append('link 1,begin,"fn()","begin"')
        pointers = [0, 4, PLACE, *range(POINTERS, NUMBERS, 4)]
        for descriptor, start in self._places.items():
            pointers += (start + at for at in descriptor.pointers)
        size = RESULTS + _ROOM * len(self._places)
        rows = [
            *code, "module A", "entry 0,1", f"desc $0,{size},({','.join(map(str, pointers))})",
            'desc $1,64,""', *types, f"var @mp,{size}", f'string @mp+0,"{self.module}"',
            "ldts @ldt,1", *imports, "word @ldt+0,0", *links,
        ]  # fmt: skip
        return "\n".join(rows)

    def _addresses(self, function: HostFunction) -> Iterator[tuple[str, str]]:
        """Yield ways to say where the result goes: by a letter, and code."""
        if built_in(self.module).declared(function.name).result is NONE:
            yield "f", ""
            return
        start = self._places.setdefault(function.result, RESULTS + _ROOM * len(self._places))
        yield "f", f" lea {start}(mp),16(48(fp))"
        yield "n", ""
        yield "r", f" lea 0({PLACE}(mp)),16(48(fp))"
        yield "e", f" indx {PLACE}(mp),52(fp),$0\n lea 0(52(fp)),16(48(fp))"

    def new(self, what: str) -> int:
        """Return an object of a kind, or another reference to what a function has returned."""
        if what in self.made:
            return self.heap.retain(self.made[what])
        return KINDS[what](self.heap, self.secret)

    def returned(self, name: str) -> str:
        """Return the type of what a function returns."""
        return str(built_in(self.module).declared(name).result)

    def put(self, offset: int, ref: int) -> None:
        """Put an object into the module data, which takes it over."""
        self.heap.give(self._data + offset, ref)

    def put_number(self, offset: int, number: int) -> None:
        """Put a word into the module data."""
        self.heap.set_pointer(self._data + offset, number & NIL)

    def kept(self, offset: int) -> int:
        """Return an object in the module data."""
        return self.heap.pointer(self._data + offset)

    def keep(self, function: HostFunction) -> None:
        """Keep the object that a function has returned, if it has made one of nothing alike."""
        kind, parts = self.returned(function.name), self.parts[function.name]
        if not kind.startswith("ref ") or any(str(part.type) == kind for part in parts):
            return
        ref = self.kept(self._places[function.result])
        if ref != NIL:
            self.heap.lent[self.heap.retain(ref), "test"] += 1
            self.made[function.name] = ref

    def call(self, function: HostFunction, how: str = "f") -> str:
        """Call a function with what lies in the module data; return what it raises."""
        number = self.functions.index(function)
        try:
            self.machine.execute("a", f"{how}{number}", kind="fn()")
        except Trap as trap:
            return str(trap)
        return ""

    def state(self, function: HostFunction) -> Any:
        """Return what a call has left: its arguments, its result, what was written."""
        heap, start = self.heap, self._places.get(function.result, RESULTS)
        refs = [p.given for p in self.parts[function.name] if p.is_pointer]
        left = [shown(heap, self.kept(at)) for at in (PLACE, *dict.fromkeys(refs))]
        number = heap.type_number(function.result)
        return left, shown_value(heap, self._data + start, number, 4), self.out.getvalue()

    def clear(self, function: HostFunction) -> None:
        """Drop all that was passed and returned."""
        for at in (PLACE, *range(POINTERS, NUMBERS, 4)):
            self.put(at, NIL)
        for at in function.result.pointers:
            self.put(self._places[function.result] + at, NIL)
        self.out.seek(0)
        self.out.truncate()

    def check(self) -> None:
        """Raise Forgery unless all references are counted, and the string is what it was."""
        ledger.check(self.machine)
        assert self.heap.string(self.secret) == "secret"
