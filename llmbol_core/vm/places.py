"""What a debugger can be asked to print: places in a frame, in module data, and variables by name.

    40(fp)  8(mp)  4(36(fp))     a place, as the disassembler writes it
    count  e.l.name  a[3].x      a variable and parts of it, where a symbol file tells their types

Behind a place may stand a type: a letter of the instruction table, or a type of Limbo such as
``list of string``. Without one a place is shown as the frame's pointer map tells: a reference, or a
word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llmbol_core.errors import LlmbolError, Trap, UsageError, nearest
from llmbol_core.vm.arena import ASTRAY, NIL
from llmbol_core.vm.exceptions import Level
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.isa import TYPES, Mode
from llmbol_core.vm.layout import Adt, Field, Record, Reference, Type
from llmbol_core.vm.limbo import parse_type
from llmbol_core.vm.module import Operand
from llmbol_core.vm.process import TYPE
from llmbol_core.vm.symbols import resolved

_DIRECT = re.compile(r"(\d{1,9})\((fp|mp)\)")
_INDIRECT = re.compile(r"(\d{1,9})\((\d{1,9})\((fp|mp)\)\)")
_NAME = re.compile(r"[^\W\d]\w*")
_PART = re.compile(r"\.([^\W\d]\w*)|\[(\d{1,9})\]")
_ARGUMENTS = 32


@dataclass(frozen=True)
class Shown:
    """A place and what lies there."""

    name: str
    type: str
    value: str


class Scope:
    """What can be seen from one call of a function."""

    def __init__(self, inspector: Inspector, level: Level) -> None:
        self._inspector, self._level = inspector, level
        self._heap, self._values = inspector.machine.heap, inspector.values
        code = inspector.code(level.module)
        function = code.function(level.pc).symbol
        self._locals: dict[str, Field] = function.variables if function else {}
        self._globals = code.symbols.variables if code.symbols else {}
        self._data = _data(inspector, level)

    def show(self, text: str) -> Shown:
        """Return the value that a text means. Raises UsageError."""
        place, _, kind = text.strip().partition(" ")
        operand = _operand(place)
        if operand is not None:
            return self._show_place(place, operand, kind.strip())
        if kind:
            raise UsageError(f"a type can follow a place such as 40(fp), not {place!r}")
        return self._show_variable(place)

    def variables(self) -> list[Shown]:
        """Return all arguments and locals; without a symbol file, all words of the frame."""
        if self._locals:
            return [self._variable(field, self._level.frame) for field in self._locals.values()]
        return list(self._slots())

    def _slots(self) -> Iterator[Shown]:
        size, _ = self._frame_type()
        for offset in range(_ARGUMENTS, size - 3, 4):
            yield self._show_place(f"{offset}(fp)", Operand(Mode.FP, offset), "")

    # Places

    def _show_place(self, name: str, operand: Operand, kind: str) -> Shown:
        address = self._inspector.address(operand, self._level.frame, self._data)
        if address is None:
            raise UsageError(f"{name} is nowhere: there is no object at {operand.base}")
        kind = kind or self._letter(operand)
        if kind in TYPES:
            return Shown(name, TYPES[kind].name, self._values.of_letter(kind, address, 2))
        try:
            wanted = parse_type(kind)
        except LlmbolError as error:
            raise UsageError(f"{kind!r} is neither a type of Limbo nor a type letter") from error
        return Shown(name, str(wanted), self._values.of_type(wanted, address))

    def _letter(self, operand: Operand) -> str:
        """Return P for a place that holds a reference, as far as is known, else W."""
        types = self._level.module.types
        if operand.mode is Mode.FP:
            known = self._frame_type()
        else:
            known = self._heap.types[types[0] if operand.mode is Mode.MP and types else 0]
        return "P" if operand.value in known.pointers else "W"

    def _frame_type(self) -> HeapType:
        try:
            return self._heap.types[self._heap.word(self._level.frame + TYPE)]
        except ASTRAY:
            raise UsageError("the frame is damaged") from None

    # Variables

    def _variable(self, field: Field, base: int) -> Shown:
        value = self._values.of_type(field.type, base + field.offset)
        return Shown(field.name, str(field.type), value)

    def _show_variable(self, text: str) -> Shown:
        found = _NAME.match(text)
        if not found:
            raise UsageError(f"{text!r} is neither a place such as 40(fp) nor a variable")
        field, base = self._look_up(found[0])
        kind, address, at = resolved(field.type), base + field.offset, found.end()
        while at < len(text):
            part = _PART.match(text, at)
            if not part:
                raise UsageError(f"expected .field or [index], found {text[at:]!r}")
            try:
                kind, address = self._part(kind, address, part, text[:at])
            except (Trap, *ASTRAY):
                raise UsageError(f"{text[:at]} is damaged") from None
            at = part.end()
        return Shown(text, str(kind), self._values.of_type(kind, address))

    def _look_up(self, name: str) -> tuple[Field, int]:
        if name in self._locals:
            return self._locals[name], self._level.frame
        if name in self._globals:
            return self._globals[name], self._data
        known = {**self._locals, **self._globals}
        if not known:
            raise UsageError(
                f"no variable {name!r}: no symbol file tells any; print places: 40(fp)"
            )
        raise UsageError(f"no variable {name!r}{nearest(name, known)}")

    def _part(self, kind: Type, address: int, part: re.Match[str], name: str) -> tuple[Type, int]:
        """Return type and address of a field or an element."""
        if part[2] is not None:
            return self._element(kind, address, int(part[2]), name)
        if isinstance(kind, Reference) and kind.kind == "ref":
            address, kind = self._heap.pointer(address), resolved(kind.element)
            if address == NIL:
                raise UsageError(f"{name} is nil")
        fields = {field.name: field for field in self._fields(kind, address)}
        if part[1] not in fields:
            hint = nearest(part[1], fields) if fields else f": it is of type {kind}"
            raise UsageError(f"{name} has no field {part[1]!r}{hint}")
        field = fields[part[1]]
        return resolved(field.type), address + field.offset

    def _fields(self, kind: Type, address: int) -> tuple[Field, ...]:
        if isinstance(kind, Adt) and kind.picks:
            picks, tag = list(kind.picks.values()), self._heap.word(address)
            return picks[tag].fields if 0 <= tag < len(picks) else kind.fields
        return kind.fields if isinstance(kind, Record) else ()

    def _element(self, kind: Type, address: int, index: int, name: str) -> tuple[Type, int]:
        if not isinstance(kind, Reference) or kind.kind != "array":
            raise UsageError(f"{name} is no array: it is of type {kind}")
        ref = self._heap.pointer(address)
        length = self._heap.array_length(ref)
        if index >= length:
            raise UsageError(f"{name} has {length} elements, no number {index}")
        size = self._heap.types[self._heap.word(ref + 4)].size
        return resolved(kind.element), self._heap.array_data(ref) + index * size


def _data(inspector: Inspector, level: Level) -> int:
    """Return where the module data of a frame's code begins."""
    try:
        return inspector.machine.heap.pointer(level.handle)
    except ASTRAY:
        return NIL


def _operand(text: str) -> Operand | None:
    """Return the operand that a text such as ``4(36(fp))`` means, if any."""
    if found := _DIRECT.fullmatch(text):
        return Operand(Mode.FP if found[2] == "fp" else Mode.MP, int(found[1]))
    if found := _INDIRECT.fullmatch(text):
        mode = Mode.FP_INDIRECT if found[3] == "fp" else Mode.MP_INDIRECT
        return Operand(mode, int(found[1]), int(found[2]))
    return None
