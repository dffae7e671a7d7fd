"""Dis assembly in the making: functions with named slots, constants, calls of built-in modules.

The assembler does the rest: it numbers types and links and finds labels. Slots of a frame and words
of the module data are symbols, so that the listing reads as if somebody had written it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from llmbol_core.builtins import built_in
from llmbol_core.vm.layout import (
    ARGUMENTS,
    INT,
    STRING,
    Basic,
    Frame,
    Function,
    ModuleType,
    Type,
    frame,
)
from llmbol_core.vm.limbo import parse_declarations

NIL = "nil(mp)"
_MOVES = {"i": "movw", "r": "movf", "s": "movp"}


class Routine:
    """A function of the module: its slots, in the order they were named, and its code."""

    def __init__(self, name: str, arguments: Sequence[str] = (), comment: str = "") -> None:
        """Begin a function; its arguments are references, or words if ``:i`` follows the name."""
        self.name, self.comment = name, comment
        self.lines: list[str] = []
        self.slots: dict[str, int] = {}
        self.pointers: list[int] = []
        self.end = ARGUMENTS
        for argument in arguments:
            place, _, kind = argument.partition(":")
            self.slot(place, kind or "p")
        self.arguments = list(self.slots)

    def slot(self, name: str, kind: str = "p") -> str:
        """Return the operand of a place in the frame, which exists from the first use on.

        It holds a reference, a word (i) or a real (r).
        """
        if name not in self.slots:
            size = 8 if kind == "r" else 4
            self.end = -(-self.end // size) * size
            self.slots[name] = self.end
            if kind == "p":
                self.pointers.append(self.end)
            self.end += size
        return f"{self.name}.{name}(fp)"

    def code(self, text: str, comment: str = "") -> None:
        """Append an instruction."""
        self.lines.append(f"\t{text}" + f"\t# {comment}" * bool(comment))

    def label(self, name: str) -> str:
        """Append a label and return it."""
        self.lines.append(f"{name}:")
        return name


@dataclass
class Listing:
    """A module in the making: constants, functions, exports, imports."""

    routines: list[Routine] = field(default_factory=list)
    pointers: list[str] = field(default_factory=lambda: ["nil"])
    """Names of the words of module data that hold references, in order."""
    strings: dict[str, str] = field(default_factory=dict)
    reals: list[float] = field(default_factory=list)
    imports: dict[str, list[str]] = field(default_factory=dict)
    exports: list[tuple[str, int]] = field(default_factory=list)
    call_types: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    """Frames of calls with a variable number of arguments: size and offsets of references."""
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Arrays of string by the name of the word that refers to them."""
    words: list[str] = field(default_factory=list)
    """Names of the words of module data that hold numbers, zero at first."""
    _interfaces: dict[str, ModuleType] = field(default_factory=dict)

    def routine(self, name: str, arguments: Sequence[str] = (), comment: str = "") -> Routine:
        """Begin a function."""
        self.routines.append(Routine(name, arguments, comment))
        return self.routines[-1]

    def export(self, routine: Routine, signature: int) -> None:
        """Let other modules call a function."""
        self.exports.append((routine.name, signature))

    def pointer(self, name: str) -> str:
        """Return the operand of a new word of module data that holds a reference, nil at first."""
        self.pointers.append(name)
        return f"{name}(mp)"

    def word(self, name: str) -> str:
        """Return the operand of a word of module data, zero at first."""
        if name not in self.words:
            self.words.append(name)
        return f"{name}(mp)"

    def table(self, name: str, texts: Sequence[str]) -> str:
        """Return the operand of a constant array of string."""
        self.tables[name] = tuple(texts)
        return self.pointer(name)

    def string(self, text: str) -> str:
        """Return the operand of a constant string."""
        if not text:
            return NIL
        if text not in self.strings:
            self.strings[text] = f"text{len(self.strings)}"
            self.pointers.append(self.strings[text])
        return f"{self.strings[text]}(mp)"

    def real(self, value: float) -> str:
        """Return the operand of a constant real."""
        if value not in self.reals:
            self.reals.append(value)
        return f"real{self.reals.index(value)}(mp)"

    def load(self, routine: Routine, module: str) -> str:
        """Load a built-in module into a word of module data; return its operand."""
        handle = self.pointer(module.lower())
        number = list(self.imports).index(module)
        routine.code(f"load\t{self.string(f'${module}')},${number},{handle}")
        return handle

    def call(
        self,
        routine: Routine,
        function: str,
        arguments: Sequence[str | None],
        result: str | None = None,
        comment: str = "",
        extra: str = "",
    ) -> None:
        """Call a built-in function such as ``Sys.open``; an argument of None stays nil.

        Without a place for its result the function must return a word, which is forgotten. Of a
        function that takes any number of arguments, ``extra`` are the types of those: i and s.
        """
        module, _, name = function.partition(".")
        layout, place = self._link(module, name), routine.slot("call", "i")
        handle = f"{module.lower()}(mp)"
        fixed = [(part.type, part.offset) for part in layout.arguments]
        if layout.size:
            routine.code(f"mframe\t{handle},${function},{place}", comment)
        else:
            fixed = self._spread(fixed, extra)
            routine.code(f"frame\t${self._call_type(fixed)},{place}", comment)
        for (kind, offset), argument in zip(fixed, arguments, strict=True):
            if argument is not None:
                move = _MOVES[kind.letter] if isinstance(kind, Basic) else "movp"
                routine.code(f"{move}\t{argument},{offset}({place})")
        result = result or routine.slot("forgotten", "i")
        routine.code(f"lea\t{result},16({place})")
        routine.code(f"mcall\t{place},${function},{handle}")

    def invoke(self, routine: Routine, callee: Routine, arguments: Sequence[str] = ()) -> str:
        """Call a function of this module and return the operand of the frame that was used."""
        place = routine.slot("call", "i")
        routine.code(f"frame\t${_title(callee.name)},{place}")
        for argument, name in zip(arguments, callee.arguments, strict=True):
            move = "movp" if callee.slots[name] in callee.pointers else "movw"
            routine.code(f"{move}\t{argument},{callee.name}.{name}({place})")
        return place

    def number_list(self, routine: Routine, numbers: Sequence[int], name: str = "numbers") -> str:
        """Make a list of int and return the operand of the slot of this name that holds it."""
        place = routine.slot(name)
        routine.code(f"movp\t{NIL},{place}")
        for number in reversed(numbers):
            routine.code(f"consw\t${number},{place}")
        return place

    def _link(self, module: str, name: str) -> Frame:
        """Import a built-in function and return where its arguments lie."""
        names = self.imports.setdefault(module, [])
        if name not in names:
            names.append(name)
        if module not in self._interfaces:
            declared = parse_declarations(built_in(f"${module}").interface())[module]
            assert isinstance(declared, ModuleType)
            self._interfaces[module] = declared
        function = self._interfaces[module].members[name]
        assert isinstance(function, Function)
        return frame(function)

    def _spread(self, fixed: list[tuple[Type, int]], extra: str) -> list[tuple[Type, int]]:
        """Add arguments to those of a function that takes any number."""
        end = fixed[-1][1] + 4
        kinds = {"i": INT, "s": STRING}
        return fixed + [(kinds[letter], end + 4 * i) for i, letter in enumerate(extra)]

    def _call_type(self, fixed: Sequence[tuple[Type, int]]) -> str:
        offsets = tuple(offset for kind, offset in fixed if kind is not INT)
        row = (-(-(fixed[-1][1] + 4) // 8) * 8, offsets)
        if row not in self.call_types:
            self.call_types.append(row)
        return f"Call{self.call_types.index(row)}"

    # Text

    def text(self, name: str, purpose: str, entry: str) -> str:
        """Return the assembly of the whole module."""
        return "\n".join([f"# {purpose}", *self._lines(name, entry), ""])

    def _lines(self, name: str, entry: str) -> Iterator[str]:
        for routine in self.routines:
            yield ""
            if routine.comment:
                yield f"# {routine.comment}"
            yield f"{routine.name}:"
            yield from routine.lines
        yield from ("", "# frames: size and where references lie")
        yield f"\tentry\t{entry},{_title(entry)}"
        yield from self._types()
        yield from ("", "# module data")
        yield from self._data()
        yield from ("", f"\tmodule\t{name}")
        for label, signature in sorted(self.exports):
            yield f'\tlink\t{_title(label)},{label},{signature:#010x},"{label}"'
        yield f"\tldts\t@ldt,{len(self.imports)}"
        for module, names in self.imports.items():
            yield "\timports\t" + ",".join(map(quoted, (f"${module}", *names)))
        yield f'\tsource\t"{name.lower()}.s"'

    def _types(self) -> Iterator[str]:
        yield f"\tdesc\tData,{self._data_size()},({_joined(range(0, 4 * len(self.pointers), 4))})"
        for routine in self.routines:
            size = -(-routine.end // 8) * 8
            yield f"\tdesc\t{_title(routine.name)},{size},({_joined(routine.pointers)})"
            for slot, offset in routine.slots.items():
                yield f"{routine.name}.{slot} = {offset}"
        yield "\tdesc\tMark,1,()"
        yield "\tdesc\tText,4,(0)"
        for number, (size, offsets) in enumerate(self.call_types):
            yield f"\tdesc\tCall{number},{size},({_joined(offsets)})"

    def _data(self) -> Iterator[str]:
        yield f"\tvar\t@mp,{self._data_size()}"
        for number, pointer in enumerate(self.pointers):
            yield f"{pointer} = {4 * number}"
        for text, pointer in self.strings.items():
            yield f"\tstring\t@mp+{pointer},{quoted(text)}"
        for name, texts in self.tables.items():
            yield f"\tarray\t@mp+{name},$Text,{len(texts)}"
            yield f"\tindir\t@mp+{name},0"
            for number, text in enumerate(texts):
                yield f"\tstring\t@mp+{4 * number},{quoted(text)}"
            yield "\tapop"
        for number, name in enumerate(self.words, len(self.pointers)):
            yield f"{name} = {4 * number}"
            yield f"\tword\t@mp+{name},0"
        for number, value in enumerate(self.reals):
            yield f"real{number} = {self._reals_start() + 8 * number}"
            yield f"\treal\t@mp+real{number},{value!r}"

    def _reals_start(self) -> int:
        return -(-4 * (len(self.pointers) + len(self.words)) // 8) * 8

    def _data_size(self) -> int:
        return self._reals_start() + 8 * len(self.reals)


def _title(name: str) -> str:
    return name.capitalize()


def _joined(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def quoted(text: str) -> str:
    """Return a string as the assembler reads it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\0": "\\z", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'
