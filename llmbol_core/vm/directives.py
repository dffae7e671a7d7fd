"""The directives of Dis assembly: everything in a listing but instructions and labels.

``DIRECTIVES`` maps each name to a function that is called behind that name, reads what follows and
adds it to the ``Draft`` of the module. ``assembly.py`` describes the notation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from llmbol_core.errors import LlmbolError
from llmbol_core.vm.limbo import signature
from llmbol_core.vm.magic import OP_LIMIT
from llmbol_core.vm.module import (
    NAMES,
    DataKind,
    Datum,
    Export,
    Handler,
    Import,
    Instruction,
    Module,
    TypeDescriptor,
)
from llmbol_core.vm.tokens import Token, TokenStream

DEFAULT_STACK = 1024
Lookup = Callable[[str, str], int]
"""Returns the signature of a function of a built-in module, or raises LlmbolError."""


def no_built_ins(module: str, function: str) -> int:
    """Know no built-in module: always raises LlmbolError."""
    del function
    raise LlmbolError(f"no built-in module {module!r} is known here")


@dataclass
class Draft:
    """A module while its listing is read: what belongs to lists, and ``result`` with the rest."""

    stream: TokenStream
    built_ins: Lookup
    result: Module = field(default_factory=lambda: Module("", stack_extent=DEFAULT_STACK))
    instructions: list[Instruction] = field(default_factory=list)
    types: dict[int, TypeDescriptor] = field(default_factory=dict)
    data: list[Datum] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)
    imports: list[list[Import]] = field(default_factory=list)
    import_counts: list[int] = field(default_factory=list)
    handlers: list[Handler] = field(default_factory=list)
    label_counts: list[int] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    big_cases: set[int] = field(default_factory=set)
    """Offsets in the module data that the ``casel`` instructions so far name."""

    def once(self, token: Token) -> None:
        """Refuse a directive that comes twice."""
        if token.text in self.seen:
            raise self.stream.error(f"{token.text!r} comes twice", token)
        self.seen.add(token.text)

    def number(self, what: str, least: int = -OP_LIMIT, limit: int = OP_LIMIT) -> int:
        """Take an expression that must lie in least ..< limit."""
        token = self.stream.peek()
        value = self.stream.expression()
        if not least <= value < limit:
            why = f"{value} does not fit {what}: expected {least} to {limit - 1}"
            raise self.stream.error(why, token)
        return value

    def next_number(self, what: str, least: int = -OP_LIMIT) -> int:
        """Take a comma and a number."""
        self.stream.need(",")
        return self.number(what, least)

    def next_word(self, what: str) -> int:
        """Take a comma and a number that fits a word."""
        self.stream.need(",")
        return self.number(what, -1 << 31, 1 << 31)

    def type(self) -> int:
        """Take a type number, with or without ``$``; -1 is none."""
        self.stream.skip("$")
        return self.number("a type number", -1)

    def text(self, what: str) -> str:
        """Take a name in quotes."""
        token = self.stream.peek()
        text = self.stream.string(f"{what} in quotes")
        if 0 in text:
            raise self.stream.error("a name cannot hold a NUL", token)
        return text.decode(*NAMES)

    def hexadecimal(self) -> bytes:
        """Take bytes written as hexadecimal digits in quotes."""
        token = self.stream.peek()
        digits = self.stream.string("hexadecimal digits in quotes")
        try:
            return bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            raise self.stream.error("expected pairs of hexadecimal digits", token) from None

    def signed_name(self) -> tuple[int, str]:
        """Take ``signature,"name"``, the signature in one of its three forms."""
        token = self.stream.peek()
        if token.kind != "string":
            value = self.number("a signature", -1 << 31, 1 << 32) & 0xFFFFFFFF
            self.stream.need(",")
            return value, self.text("a name")
        told = self.text("a signature")
        self.stream.need(",")
        name = self.text("a name")
        return self.signature(told, name, token), name

    def signature(self, told: str, name: str, token: Token) -> int:
        """Return the signature of a Limbo type, or of a function of a built-in module."""
        try:
            return self.built_ins(told, name) if told.startswith("$") else signature(told)
        except LlmbolError as error:
            raise self.stream.error(str(error), token) from error


def _setting(field: str, take: Callable[[Draft], object]) -> Callable[[Draft, Token], None]:
    """Make a directive that comes once and sets a field of the module."""

    def directive(draft: Draft, token: Token) -> None:
        draft.once(token)
        draft.result = replace(draft.result, **{field: take(draft)})  # type: ignore[arg-type]

    return directive


def _module_name(draft: Draft) -> str:
    quoted = draft.stream.peek().kind == "string"
    return draft.text("") if quoted else draft.stream.name("the name of the module")


def _entry(draft: Draft, token: Token) -> None:
    draft.once(token)
    pc = draft.number("a pc")
    draft.stream.need(",")
    draft.result = replace(draft.result, entry_pc=pc, entry_type=draft.type())


def _desc(draft: Draft, token: Token) -> None:
    stream = draft.stream
    number = draft.type()
    if number in draft.types or number < 0:
        raise stream.error(f"type {number} {'comes twice' if number >= 0 else 'is none'}", token)
    size = draft.next_number("the size of a type", 0)
    pointers = b""
    if stream.skip(","):
        pointers = _pointer_list(draft, size) if stream.skip("(") else draft.hexadecimal()
    draft.types[number] = TypeDescriptor(number, size, pointers)


def _pointer_list(draft: Draft, size: int) -> bytes:
    """Take offsets of pointers up to ``)`` and return the map."""
    offsets = []
    while not draft.stream.skip(")"):
        token = draft.stream.peek()
        offset = draft.stream.expression()
        if offset % 4 or not 0 <= offset <= size - 4:
            raise draft.stream.error(f"no pointer fits at {offset} of {size} bytes", token)
        offsets.append(offset)
        if not draft.stream.skip(",") and draft.stream.peek().text != ")":
            raise draft.stream.expected("',' or ')'")
    return pointer_map(offsets)


def pointer_map(offsets: list[int]) -> bytes:
    """Return the shortest map with a bit for each of these offsets.

    >>> pointer_map([32, 44]).hex()
    '0090'
    """
    bits = bytearray(max(offsets) // 32 + 1 if offsets else 0)
    for offset in offsets:
        bits[offset // 32] |= 0x80 >> offset // 4 % 8
    return bytes(bits)


def _var(draft: Draft, token: Token) -> None:
    draft.once(token)
    if draft.stream.peek().text != "@mp":
        raise draft.stream.expected("'@mp', the module data")
    draft.stream.take()
    size = draft.next_number("the size of the module data", 0)
    draft.result = replace(draft.result, data_size=size)


def _integers(kind: DataKind, letter: str) -> Callable[[Draft, Token], None]:
    """Make the directive of a kind of integers, each taken modulo its width."""
    width = struct.calcsize(f">{letter}")

    def directive(draft: Draft, token: Token) -> None:
        in_list = letter == "I" and draft.stream.peek().text == "@ldt"
        offset = draft.number("an offset")
        values = []
        while draft.stream.skip(","):
            limit = 1 << (63 if letter == "I" and offset in draft.big_cases else 8 * width)
            values.append(draft.number(f"a {token.text}", -limit // 2, limit))
        if in_list:
            _begin_list(draft, values, token)
        elif letter == "I" and _is_big_case(draft, offset, values):
            _big_case(draft, offset, values)
        else:
            packed = [value & (1 << 8 * width) - 1 for value in values]
            payload = struct.pack(f">{len(values)}{letter}", *packed)
            draft.data.append(Datum(kind, offset, len(values), payload))

    return directive


def _is_big_case(draft: Draft, offset: int, values: list[int]) -> bool:
    """Whether this is a table of casel as ``limbo -S`` prints it, all in one line."""
    if offset not in draft.big_cases or not values or values[0] < 1:
        return False
    return len(values) == 3 * values[0] + 2


def _big_case(draft: Draft, offset: int, values: list[int]) -> None:
    """Lay out count, then (big low, big high, word pc, padding) each, then the default's pc."""
    words = {offset: values[0], offset + 8 + 24 * values[0]: values[-1]}
    words |= {offset + 24 + 24 * n: values[3 * n + 3] for n in range(values[0])}
    for at, value in words.items():
        draft.data.append(Datum(DataKind.DEFW, at, 1, struct.pack(">i", value)))
    for n in range(values[0]):
        payload = struct.pack(">qq", *values[3 * n + 1 : 3 * n + 3])
        draft.data.append(Datum(DataKind.DEFL, offset + 8 + 24 * n, 2, payload))


_REALS = {"Infinity": "7ff0000000000000", "Inf": "7ff0000000000000", "NaN": "7fffffffffffffff"}


def _real(draft: Draft, token: Token) -> None:
    offset = draft.number("an offset")
    values = []
    while draft.stream.skip(","):
        values.append(_real_value(draft))
    draft.data.append(Datum(DataKind.DEFF, offset, len(values), b"".join(values)))


def _real_value(draft: Draft) -> bytes:
    """Take one real as its eight bytes; ``NaN(0x7ff8000000000000)`` tells one of the many NaNs."""
    stream = draft.stream
    negative = stream.skip("-")
    token = stream.take()
    if token.kind in ("number", "real"):
        hexadecimal = token.text[:2] in ("0x", "0X")
        value = float(int(token.text, 16)) if hexadecimal else float(token.text)
        return struct.pack(">d", -value if negative else value)
    if token.text == "NaN" and stream.skip("("):
        bits = draft.number("eight bytes", 0, 1 << 64)
        stream.need(")")
        return bits.to_bytes(8, "big")
    if token.text not in _REALS:
        raise stream.error("expected a real number", token)
    found = bytes.fromhex(_REALS[token.text])
    return bytes((found[0] | 0x80,)) + found[1:] if negative else found


def _string(draft: Draft, token: Token) -> None:
    offset = draft.number("an offset")
    draft.stream.need(",")
    text = draft.stream.string("a string")
    draft.data.append(Datum(DataKind.DEFS, offset, len(text), text))


def _array(draft: Draft, token: Token) -> None:
    offset = draft.number("an offset")
    draft.stream.need(",")
    element = draft.type()
    length = draft.next_word("the length of an array")
    count = draft.number("a count", 0) if draft.stream.skip(",") else 1
    payload = struct.pack(">ii", element, length)
    draft.data.append(Datum(DataKind.DEFA, offset, count, payload))


def _indir(draft: Draft, token: Token) -> None:
    offset = draft.number("an offset")
    index = draft.next_word("the index of an element")
    count = draft.number("a count", 0) if draft.stream.skip(",") else 1
    draft.data.append(Datum(DataKind.DIND, offset, count, struct.pack(">i", index)))


def _apop(draft: Draft, token: Token) -> None:
    offset, count = 0, 1
    if draft.stream.peek().kind == "number" or draft.stream.peek().text == "-":
        offset, count = draft.number("an offset"), draft.next_number("a count", 0)
    draft.data.append(Datum(DataKind.DAPOP, offset, count, b""))


def _link(draft: Draft, token: Token) -> None:
    number = draft.type()
    pc = draft.next_number("a pc", -1)
    draft.stream.need(",")
    draft.exports.append(Export(pc, number, *draft.signed_name()))


def _ldts(draft: Draft, token: Token) -> None:
    draft.once(token)
    draft.stream.name("'@ldt', the import lists")
    draft.next_number("the number of import lists", 0)


def _begin_list(draft: Draft, values: list[int], token: Token) -> None:
    """Begin an import list: ``word @ldt+0,count``."""
    if len(values) != 1:
        raise draft.stream.error("an import list has one count", token)
    draft.imports.append([])
    draft.import_counts.append(values[0])


def _ext(draft: Draft, token: Token) -> None:
    draft.number("an offset")
    draft.stream.need(",")
    wanted = Import(*draft.signed_name())
    if not draft.imports:
        raise draft.stream.error("an import list should begin first: word @ldt+0,count", token)
    draft.imports[-1].append(wanted)


def _imports(draft: Draft, token: Token) -> None:
    place = draft.stream.peek()
    module = draft.text("the name of a built-in module")
    wanted = []
    while draft.stream.skip(","):
        place = draft.stream.peek()
        name = draft.text("the name of a function")
        wanted.append(Import(draft.signature(module, name, place), name))
    draft.imports.append(wanted)
    draft.import_counts.append(len(wanted))


def _exceptions(draft: Draft, token: Token) -> None:
    draft.once(token)
    # limbo also counts handlers of code that it then leaves out.
    draft.number("a number of exceptions", 0)


def _exception(draft: Draft, token: Token) -> None:
    draft.seen.add("exceptions")
    pc1 = draft.number("a pc")
    pc2, offset = draft.next_number("a pc"), draft.next_number("an offset")
    draft.stream.need(",")
    number = draft.type()
    count = draft.next_number("a number of labels", 0)
    typed = draft.next_number("a number of labels", 0)
    if count > 0xFFFF or typed > count:
        raise draft.stream.error(f"{typed} of {count} labels cannot be typed", token)
    draft.handlers.append(Handler(offset, pc1, pc2, number, (), typed, -1))
    draft.label_counts.append(count)


def _exctab(draft: Draft, token: Token) -> None:
    if not draft.handlers:
        raise draft.stream.error("an exception should come first", token)
    handler = draft.handlers[-1]
    if draft.stream.skip("*"):
        handler = handler._replace(default_pc=draft.next_number("a pc"))
    else:
        label = (draft.text("a pattern"), draft.next_number("a pc"))
        handler = handler._replace(labels=(*handler.labels, label))
    draft.handlers[-1] = handler


DIRECTIVES: dict[str, Callable[[Draft, Token], None]] = {
    "flags": _setting("flags", lambda draft: draft.number("the flags")),
    "stack": _setting("stack_extent", lambda draft: draft.number("a stack extent")),
    "signature": _setting("signature", Draft.hexadecimal),
    "source": _setting("source_path", lambda draft: draft.text("the path of the source")),
    "module": _setting("name", _module_name),
    "entry": _entry,
    "desc": _desc,
    "var": _var,
    "byte": _integers(DataKind.DEFB, "B"),
    "word": _integers(DataKind.DEFW, "I"),
    "long": _integers(DataKind.DEFL, "Q"),
    "real": _real,
    "string": _string,
    "array": _array,
    "indir": _indir,
    "apop": _apop,
    "link": _link,
    "ldts": _ldts,
    "ext": _ext,
    "imports": _imports,
    "exceptions": _exceptions,
    "exception": _exception,
    "exctab": _exctab,
}
