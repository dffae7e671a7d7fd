"""What a kernel is, without its code: cheap to import where that code is on disk already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.kinds import KINDS, Kind

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.library import Operation

Author = Callable[..., None]
"""Writes a kernel's code: takes the ``Builder`` and a value or pointer for each parameter."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: a number, or where numbers of a type lie."""

    name: str
    kind: Kind
    is_pointer: bool


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function in machine code that computes some of the items of an operation.

    In machine code each is ``void kernel(i64 *arguments, i64 begin, i64 end, i64 thread)``; every
    argument takes a word.
    """

    name: str
    parameters: tuple[Parameter, ...]
    author: Author
    group: Group

    def operation(self, items: int, *arguments: Any, chunk: int = 0) -> Operation:
        """Return a call for a ``Program``; see ``library.operation``."""
        from llmbol_core.ml.kernels.library import operation

        return operation(self, items, arguments, chunk)

    def run(self, items: int, *arguments: Any, chunk: int = 0) -> None:
        """Compute all items, by the team in chunks of so many, or here if ``chunk`` is 0."""
        from llmbol_core.ml.kernels.library import run

        run([self.operation(items, *arguments, chunk=chunk)])


@dataclass(frozen=True, eq=False)
class Group:
    """Kernels that are compiled and kept together: those of one file."""

    name: str
    home: str = ""
    """Their file, if it is not one of this package's."""
    kernels: dict[str, Kernel] = field(default_factory=dict)

    def kernel(self, parameters: str, name: str = "") -> Callable[[Author], Kernel]:
        """Make the decorated author a kernel of this group.

        Parameters are written ``name:type``, with ``*`` for a pointer: ``x:f32* n:i64 eps:f32``.
        """

        def register(author: Author) -> Kernel:
            made = Kernel(name or author.__name__, _parsed(parameters), author, self)
            if made.name in self.kernels:
                raise ValueError(f"{self.name} has two kernels {made.name!r}")
            self.kernels[made.name] = made
            return made

        return register


def _parsed(text: str) -> tuple[Parameter, ...]:
    """Return the parameters that a text declares."""
    found = []
    for entry in text.split():
        name, kind = entry.split(":")
        found.append(Parameter(name, KINDS[kind.rstrip("*")], kind.endswith("*")))
    return tuple(found)
