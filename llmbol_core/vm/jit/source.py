"""The small part of Python in which the runtime of machine code is written, for LLVM.

A function marked ``@native`` is never called; its text is translated. What it can use::

    W[a] B[a] L[a] F[a]         word, byte, big, real at an address in the arena
    host[p] host_word[p] host_byte[p]    the same outside of it, where the address must be right
    state[State.X]              a word of the running process     machine[Machine.X]  of the machine
    + - * & | ^ << >> // %      at the width of their operands; >>, // and % are unsigned
    == != < <= > >=             signed; below(x, y) is x < y without signs
    and or not, if, while       as ever; any number is true unless it is 0; x in (A, B) of constants
    wide(x) extended(x) narrow(x)    to 64 bits, without and with the sign, and back to 32
    real(x) whole(x) bits(x)    a big as a real, a real as a big without its fraction, or its bits
    move(to, from, size) fill(to, byte, size)    bytes in the arena; values joined by commas are
                                assigned one after the other
    other functions marked native, those of ``helpers.py`` declared with ``external``, those of the
    C library declared with ``c_function``, constants; invoke(p, x) calls one at an address

Numbers have 32 bits (``Word``), 64 bits (``Big``) or are reals (``Real``), as their annotations or
the first values assigned to them say; different types do not mix. Each function also gets the
arena and the running process, which calls pass on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

Word: TypeAlias = int
Big: TypeAlias = int
Real: TypeAlias = float
_N = TypeVar("_N", int, float)
_F = TypeVar("_F", bound=Callable[..., Any])

_TYPES = {"Word": "i32", "Big": "i64", "Real": "double", "bool": "i1", "None": "void"}


class _Memory(Generic[_N]):
    """The meaning of subscripts in functions that are translated."""

    def __getitem__(self, address: int) -> _N:
        raise NotImplementedError

    def __setitem__(self, address: int, value: _N) -> None:
        raise NotImplementedError


W, B, L, host, host_word, host_byte, state, machine = (_Memory[int]() for _ in range(8))
F = _Memory[float]()


def _intrinsic(*arguments: float) -> int:
    """Stand for what calls of a name are translated to."""
    raise NotImplementedError


wide = extended = narrow = below = move = fill = whole = bits = invoke = _intrinsic
real: Callable[[int], float] = _intrinsic


class Function:
    """One function of the runtime: its name and its types."""

    def __init__(self, python: Callable[..., Any], attributes: str = "") -> None:
        self.python, self.name, self.attributes = python, python.__name__, attributes
        self.is_of_c = False
        notes = dict(python.__annotations__)
        self.result = _TYPES[notes.pop("return")]
        self.parameters = {name: _TYPES[note] for name, note in notes.items()}


FUNCTIONS: dict[str, Function] = {}
EXTERNAL: dict[str, Function] = {}


def native(python: _F) -> _F:
    """Mark a function to be translated."""
    _register(Function(python, "noinline"))
    return python


def _register(function: Function) -> None:
    assert function.name not in FUNCTIONS, f"there are two functions {function.name}"
    FUNCTIONS[function.name] = function


def inlined(python: _F) -> _F:
    """Mark a function to be translated and inlined wherever it is called."""
    _register(Function(python, "alwaysinline"))
    return python


def external(python: _F) -> _F:
    """Declare a function whose text stands elsewhere."""
    EXTERNAL[python.__name__] = Function(python)
    return python


def c_function(python: _F) -> _F:
    """Declare a function of the C library."""
    external(python)
    EXTERNAL[python.__name__].is_of_c = True
    return python
