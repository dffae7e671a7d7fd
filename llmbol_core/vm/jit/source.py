"""Functions in a small part of Python as LLVM code: what the runtime of machine code is written in.

A function marked ``@native`` is never called; its text is translated. What it can use::

    W[a] B[a] L[a]              word, byte, big at an address in the arena
    host[p] host_word[p]        big, word at an address outside of it, which must be right
    state[State.X]              a word of the running process     machine[Machine.X]  of the machine
    + - * & | ^ << >> // %      at the width of their operands; >>, // and % are unsigned
    == != < <= > >=             signed; below(x, y) is x < y without signs
    and or not, if, while       as ever; any number is true unless it is 0
    wide(x) extended(x) narrow(x)    to 64 bits, without and with the sign, and back to 32
    move(to, from, size) fill(to, byte, size)    bytes in the arena; values joined by commas are
                                assigned one after the other
    other functions marked native, those of ``helpers.py`` declared with ``external``, constants

Numbers have 32 bits (``Word``) or 64 (``Big``), as their annotations or the first values that they
are given say; those of different widths do not mix. Each function also gets the arena and the
running process, which calls pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

Word: TypeAlias = int
Big: TypeAlias = int
_F = TypeVar("_F", bound=Callable[..., Any])

_TYPES = {"Word": "i32", "Big": "i64", "bool": "i1", "None": "void"}


class _Memory:
    """What subscripts stand for in functions that are translated."""

    def __getitem__(self, address: int) -> int:
        raise NotImplementedError

    def __setitem__(self, address: int, value: int) -> None:
        raise NotImplementedError


W, B, L, host, host_word, state, machine = (_Memory() for _ in range(7))


def _intrinsic(*arguments: int) -> int:
    """Stand for what calls of a name are translated to."""
    raise NotImplementedError


wide = extended = narrow = below = move = fill = _intrinsic


class Function:
    """One function of the runtime: its name and its types."""

    def __init__(self, python: Callable[..., Any], attributes: str = "") -> None:
        self.python, self.name, self.attributes = python, python.__name__, attributes
        notes = dict(python.__annotations__)
        self.result = _TYPES[notes.pop("return")]
        self.parameters = {name: _TYPES[note] for name, note in notes.items()}


FUNCTIONS: dict[str, Function] = {}
EXTERNAL: dict[str, Function] = {}


def native(python: _F) -> _F:
    """Mark a function to be translated."""
    FUNCTIONS[python.__name__] = Function(python, "noinline")
    return python


def inlined(python: _F) -> _F:
    """Mark a function to be translated and to become part of whatever calls it."""
    FUNCTIONS[python.__name__] = Function(python, "alwaysinline")
    return python


def external(python: _F) -> _F:
    """Declare a function whose text stands elsewhere."""
    EXTERNAL[python.__name__] = Function(python)
    return python
