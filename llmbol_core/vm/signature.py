"""The signatures by which links are checked, made from the canonical spelling of a type.

A signature is the MD5 digest of the spelling, its four little-endian words folded by exclusive or.
The spelling has a letter for each kind of type, the names of an ADT's fields but not those of
arguments, ``S`` before a ``self`` argument, ``y`` before a ``cyclic`` field, and ``@n`` where the
n-th record met appears again. Held to the signatures in Inferno's own object files by the tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping

from llmbol_core.vm.layout import (
    Adt,
    Basic,
    Field,
    Fixed,
    Function,
    ModuleType,
    Pick,
    Reference,
    Tuple,
    Type,
)

_KINDS = {"array": "A", "list": "L", "chan": "C", "ref": "R"}


def type_signature(kind: Type) -> int:
    """Return the signature of a function's type, or of any other."""
    return fold(spelling(kind))


def data_signature(data: Mapping[str, Type]) -> int:
    """Return the signature of a module's exported variables, given by name in any order."""
    speller = _Speller()
    return fold("".join(f"{name}:{speller.spell(kind)};" for name, kind in sorted(data.items())))


def fold(spelling: str) -> int:
    """Return the MD5 digest of a canonical spelling, folded into one word."""
    digest = hashlib.md5(spelling.encode(), usedforsecurity=False).digest()
    a, b, c, d = struct.unpack("<4I", digest)
    word: int = a ^ b ^ c ^ d
    return word


def spelling(kind: Type) -> str:
    """Return the canonical spelling of a type, from which its signature is made.

    >>> from llmbol_core.vm.layout import INT, STRING
    >>> spelling(Tuple.of([INT, Reference("list", STRING)]))
    't(i,Ls)'
    """
    return _Speller().spell(kind)


class _Speller:
    """Spells types canonically; a record met a second time is written ``@`` and its number."""

    def __init__(self) -> None:
        self._numbers: dict[Type, int] = {}

    def spell(self, kind: Type) -> str:
        """Return the spelling of a type, given all that was spelled before."""
        match kind:
            case Basic():
                return kind.letter
            case Fixed():
                return f"x{kind.scale:g}"
            case Reference():
                return _KINDS[kind.kind] + self.spell(kind.element)
            case Function():
                return self._function(kind)
        if kind in self._numbers:
            return f"@{self._numbers[kind]}"
        self._numbers[kind] = len(self._numbers) + 1
        return self._numbered(kind)

    def _numbered(self, kind: Type) -> str:
        match kind:
            case Tuple():
                return "t" + self._fields(kind.fields, named=False)
            case Pick():
                return "p" + self._fields(kind.own, named=True) + self.spell(kind.adt)
            case Adt():
                return self._adt(kind)
            case ModuleType():
                return self._module(kind)
        raise TypeError(f"no spelling for a {type(kind).__name__}")

    def _fields(self, fields: Iterable[Field], named: bool) -> str:
        return f"({','.join(self._field(part, named) for part in fields)})"

    def _field(self, part: Field, named: bool) -> str:
        marks = "S" * part.is_self + "y" * part.is_cyclic
        return f"{part.name}:" * named + marks + self.spell(part.type)

    def _function(self, kind: Function) -> str:
        arguments = self._fields(kind.arguments, named=False)
        raises = f"({','.join(kind.raises)})" if kind.raises else ""
        return "f" + "*" * kind.has_varargs + arguments + raises + self.spell(kind.result)

    def _adt(self, kind: Adt) -> str:
        text = "a" + self._fields(kind.fields, named=True)
        if not kind.picks:
            return text
        picks = (f"{name}=>{self.spell(pick)}" for name, pick in kind.picks.items())
        return f"{text[:-1]},{','.join(picks)})"

    def _module(self, kind: ModuleType) -> str:
        members = {**kind.data, **kind.functions}
        return "m{" + "".join(f"{n}:{self.spell(t)};" for n, t in members.items()) + "}"
