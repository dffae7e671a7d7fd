"""Python functions as functions of a built-in module, declared once in Limbo's notation.

    sys = Binding("Sys", "FD: adt { fd: int; };")

    @sys.function("sleep: fn(period: int): int")
    def sleep(call: HostCall, period: int) -> int | Pending: ...

From the declaration follow the signature for linking, the frame of a call, how arguments become
Python values and results become Dis values, and the module's Limbo interface. What passes:

    int byte big    int                     array of byte        memoryview, writable; None if nil
    real            float                   array of int, real   the same, of its items
    string          str                     list of T            list
    (T, U), Adt     tuple, nested           ref Adt              what ``reference`` says
    * (varargs)     VarArguments            anything else        int, the reference itself

A result may also be given as bytes (array of byte) or as any sequence (a list, an array, a tuple).
A reference in an argument is borrowed from the frame; one in a result is given away. A function
that must wait returns Sleep, with result 0, or Pending, Until or an Exchange, whose ``then``
returns the result or the next thing to wait for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from functools import cache, cached_property, partial
from textwrap import dedent, indent
from typing import Any, Literal, NamedTuple, TypeVar

from llmbol_core.builtins.varargs import VarArguments
from llmbol_core.vm import given
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.host import (
    RESULT,
    Exchange,
    Functions,
    HostCall,
    HostFunction,
    HostModule,
    HostResult,
    Sleep,
    Turn,
    Until,
    Work,
)
from llmbol_core.vm.layout import (
    NONE,
    Adt,
    Basic,
    Field,
    Frame,
    Function,
    Record,
    Reference,
    Type,
    frame,
    pointer_map,
)
from llmbol_core.vm.limbo import parse_declarations, parse_type
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.signature import type_signature

Decode = Callable[[Heap, int], Any]
"""Reads the value at an address."""
Encode = Callable[[Heap, int, Any], None]
"""Stores a value at an address, releasing what was there."""
Direct = Callable[[HostCall], HostResult]
"""A function that reads and writes the frame of its call itself."""
Implementation = TypeVar("Implementation", bound=Callable[..., Any])

_MANY = 1 << 12
"""Items between two looks at whether the program's time is up."""
_ITEMS: dict[str, Literal["B", "i", "d", "q"]] = {"b": "B", "i": "i", "r": "d", "B": "q"}
_NUMBERS = {"b": BYTE, "i": WORD, "r": REAL, "B": BIG, "s": POINTER}


class Pending(NamedTuple):
    """A result that takes its time: ``run`` works in another thread, away from the machine.

    ``then`` makes the function's result of what ``run`` returns, in the machine's thread again, or
    the next thing to wait for.
    """

    run: Callable[[], Any]
    then: Callable[[Any], Any]


class _Typed(NamedTuple):
    """A function's type and what follows from it."""

    kind: Function
    layout: Frame
    descriptor: TypeDescriptor
    signature: int


class Handled(NamedTuple):
    """How references to an ADT pass: ``decode`` gets a reference, ``encode`` makes one."""

    decode: Callable[[Heap, int], Any]
    encode: Callable[[Heap, Any], int]


class Binding:
    """A built-in module in the making: its Limbo name, its types, its functions.

    The first lines of ``types`` may declare constants too; they are for Limbo programs only.
    ``native`` names functions that machine code may do by itself, if it knows how.
    """

    def __init__(self, name: str, types: str = "", native: Collection[str] = ()) -> None:
        self.name = name
        self._text, self._native = types, native
        self._handled: dict[str, Handled] = {}
        self._makers: dict[str, Callable[[Frame, Function], Direct]] = {}
        self._declarations: dict[str, str] = {}
        self._types: dict[str, _Typed] = {}

    def reference(
        self, adt: str, decode: Callable[[Heap, int], Any], encode: Callable[[Heap, Any], int]
    ) -> None:
        """Say how ``ref adt`` passes; ``decode`` is given nil too."""
        self._handled[adt] = Handled(decode, encode)

    def function(self, declaration: str) -> Callable[[Implementation], Implementation]:
        """Bind a Python function to its declaration; it is given the call, then the arguments.

        A method of an ADT is declared as ``Adt.method``, and in the ADT for the interface.
        """

        def bind(implementation: Implementation) -> Implementation:
            self._declare(
                declaration,
                lambda layout, kind: self._runner(layout, kind.has_varargs, implementation),
            )
            return implementation

        return bind

    def direct(
        self, declaration: str
    ) -> Callable[[Callable[[Frame], Direct]], Callable[[Frame], Direct]]:
        """Bind what makes a function of a frame's layout: it reads and writes the frame itself."""

        def bind(make: Callable[[Frame], Direct]) -> Callable[[Frame], Direct]:
            self._declare(declaration, lambda layout, kind: make(layout))
            return make

        return bind

    def include(self, other: Binding, adt: str) -> None:
        """Bind what another module has of an ADT that both declare."""
        self._handled[adt] = other._handled[adt]
        for name in other._makers:
            if name.startswith(f"{adt}."):
                self._makers[name] = other._makers[name]
                self._declarations[name] = other._declarations[name]

    def _declare(self, declaration: str, make: Callable[[Frame, Function], Direct]) -> None:
        names, _, text = declaration.partition(":")
        for name in names.replace(",", " ").split():
            self._makers[name] = make
            self._declarations[name] = text.strip()

    @property
    def module(self) -> HostModule:
        """The module that a machine can be given."""
        return HostModule(f"${self.name}", Functions(sorted(self._makers), self._made))

    def _made(self, name: str) -> HostFunction:
        """Return a function, whose declaration is looked at only now."""
        typed = self._typed(self._declarations[name])
        run = self._makers[name](typed.layout, typed.kind)
        native = f"{self.name}.{name}" if name in self._native else ""
        kind = typed.kind.result
        result = TypeDescriptor(-1, kind.size, pointer_map(kind.size, kind.pointers()))
        module = f"${self.name}"
        return HostFunction(name, typed.signature, typed.descriptor, run, native, result, module)

    def _typed(self, text: str) -> _Typed:
        """Return what follows from the text of a function's type."""
        if text not in self._types:
            kind = parse_type(text, self._scope)
            assert isinstance(kind, Function), f"{text} is no function"
            layout = frame(kind)
            descriptor = TypeDescriptor(-1, layout.size, layout.map)
            self._types[text] = _Typed(kind, layout, descriptor, type_signature(kind))
        return self._types[text]

    @cached_property
    def _scope(self) -> dict[str, Type]:
        return parse_declarations(self._text, f"${self.name}")

    def declared(self, name: str) -> Function:
        """Return the type that a function was declared with."""
        return self._typed(self._declarations[name]).kind

    def interface(self) -> str:
        """Return the Limbo interface file of the module."""
        types = indent(dedent(self._text).strip("\n"), "\t")
        members = sorted(item for item in self._declarations.items() if "." not in item[0])
        functions = [f"\t{name}:\t{text};\n" for name, text in members]
        head = f'{self.name}: module\n{{\n\tPATH:\tcon "${self.name}";\n\n'
        return head + types + "\n\n" * bool(types) + "".join(functions) + "};\n"

    def _runner(
        self, layout: Frame, has_varargs: bool, implementation: Callable[..., Any]
    ) -> Callable[[HostCall], HostResult]:
        """Return what a call does: decode, run, encode."""
        plan = [(self.decoder(part.type), part.offset) for part in layout.arguments]
        encode = None if layout.result is NONE else self.encoder(layout.result)

        def run(call: HostCall) -> HostResult:
            heap, at = call.heap, call.frame
            others = [VarArguments(heap, at, layout.arguments)] if has_varargs else []
            arguments = [decode(heap, at + offset) for decode, offset in plan]
            result = implementation(call, *arguments, *others)
            return settle(result, partial(_finish, encode, heap, at))

        return run

    # Values

    def decoder(self, kind: Type) -> Decode:
        """Return what reads a value of a type."""
        if isinstance(kind, Basic):
            return _BASIC_DECODERS[kind.letter]
        if isinstance(kind, Record):
            return self._record_decoder(kind.fields)
        if not isinstance(kind, Reference):
            return given.module
        element = kind.element
        if kind.kind == "ref" and isinstance(element, Adt) and element.name in self._handled:
            decode = self._handled[element.name].decode
            return lambda heap, at: decode(heap, heap.pointer(at))
        if kind.kind == "array" and isinstance(element, Basic) and element.letter in _ITEMS:
            return _array_decoder(_ITEMS[element.letter])
        if kind.kind == "list":
            return _list_decoder(self.decoder(element), element)
        return Heap.pointer

    def encoder(self, kind: Type) -> Encode:
        """Return what stores a value of a type."""
        if isinstance(kind, Basic):
            return _BASIC_ENCODERS[kind.letter]
        if isinstance(kind, Record):
            return self._record_encoder(kind.fields)
        make = self._maker(kind)
        return lambda heap, at, value: heap.give(at, make(heap, value))

    def _record_decoder(self, fields: Sequence[Field]) -> Decode:
        plan = [(self.decoder(part.type), part.offset) for part in fields]
        return lambda heap, at: tuple(decode(heap, at + offset) for decode, offset in plan)

    def _record_encoder(self, fields: Sequence[Field]) -> Encode:
        plan = [(self.encoder(part.type), part.offset) for part in fields]

        def encode(heap: Heap, at: int, values: Sequence[Any]) -> None:
            for (store, offset), value in zip(plan, values, strict=False):
                store(heap, at + offset, value)

        return encode

    def _maker(self, kind: Type) -> Callable[[Heap, Any], int]:
        """Return what makes a reference for a Python value; an int is one already."""
        if not isinstance(kind, Reference):
            return lambda heap, value: int(value)
        element = kind.element
        if kind.kind == "ref" and isinstance(element, Adt) and element.name in self._handled:
            return self._handled[element.name].encode
        if kind.kind in ("array", "list"):
            fill = self._array_maker(element) if kind.kind == "array" else self._list_maker(element)
            return partial(_filled, fill)
        return lambda heap, value: NIL if value is None else int(value)

    def _array_maker(self, element: Type) -> Callable[[Heap, Any], int]:
        if isinstance(element, Basic) and element.letter == "b":
            return Heap.new_bytes
        number, store = _number(element), self.encoder(element)

        def make(heap: Heap, values: Sequence[Any]) -> int:
            ref = heap.new_array(number, len(values))
            start = heap.array_data(ref)
            try:
                for i, value in enumerate(values):
                    store(heap, start + i * element.size, value)
            except BaseException:
                heap.release(ref)
                raise
            return ref

        return make

    def _list_maker(self, element: Type) -> Callable[[Heap, Any], int]:
        number, store = _number(element), self.encoder(element)

        def make(heap: Heap, values: Sequence[Any]) -> int:
            ref = NIL
            try:
                for i, value in enumerate(reversed(values)):
                    if not i % _MANY:
                        heap.pause()
                    ref = heap.new_list(number, ref)
                    store(heap, heap.head(ref), value)
            except BaseException:
                heap.release(ref)
                raise
            return ref

        return make


def settle(result: Any, finish: Callable[[Any], None]) -> HostResult:
    """Pass a function's result to ``finish``, once there is one; return what to wait for first."""
    if isinstance(result, Pending):
        then = result.then
        return Work(result.run, lambda found: settle(then(found), finish))
    if isinstance(result, Exchange | Until):
        following = result.then
        return result._replace(then=lambda: settle(following(), finish))
    if isinstance(result, Sleep | Turn):
        finish(result.value if isinstance(result, Turn) else 0)
        return result
    finish(result)
    return None


def _filled(fill: Callable[[Heap, Any], int], heap: Heap, value: Any) -> int:
    """Return a reference to an array or list of values; an int is one already."""
    if isinstance(value, int):
        return value
    return NIL if value is None else fill(heap, value)


def _finish(encode: Encode | None, heap: Heap, frame: int, result: Any) -> None:
    """Store a result where the caller wants it."""
    if encode is not None:
        encode(heap, heap.pointer(frame + RESULT), result)


def _array_decoder(item: Literal["B", "i", "d", "q"]) -> Decode:
    size = struct.calcsize(item)

    def decode(heap: Heap, at: int) -> Any:
        ref = heap.pointer(at)
        if ref == NIL:
            return None
        return given.numbers(heap, ref, size).cast(item)

    return decode


def _list_decoder(decode: Decode, element: Type) -> Decode:
    def decode_list(heap: Heap, at: int) -> list[Any]:
        found: list[Any] = []
        for node in given.nodes(heap, heap.pointer(at), element):
            if not len(found) % _MANY:
                heap.pause()
            found.append(decode(heap, heap.head(node)))
        return found

    return decode_list


@cache
def _number(element: Type) -> TypeDescriptor | int:
    """Return what stands for a type of elements in the heap: one descriptor for each type."""
    if isinstance(element, Basic):
        return _NUMBERS[element.letter]
    if isinstance(element, Record):
        return TypeDescriptor(-1, element.size, element.map)
    return POINTER


def _signed(value: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


# fmt: off
_BASIC_DECODERS: dict[str, Decode] = {
    "b": Heap.byte,
    "i": Heap.word,
    "B": Heap.big,
    "r": Heap.real,
    "s": lambda heap, at: given.text(heap, heap.pointer(at)),
}
_BASIC_ENCODERS: dict[str, Encode] = {
    "b": lambda heap, at, value: heap.set_byte(at, value & 0xFF),
    "i": lambda heap, at, value: heap.set_word(at, _signed(value, 32)),
    "B": lambda heap, at, value: heap.set_big(at, _signed(value, 64)),
    "r": Heap.set_real,
    "s": lambda heap, at, value: heap.give(at, heap.new_string(value)),
}
# fmt: on
