"""What module handles refer to."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.host import HostFunction, HostModule

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule


class Link(NamedTuple):
    """What a link leads to: code, or a function of the host; pc -1 stands for data."""

    pc: int
    type: int
    function: HostFunction | None = None


@dataclass(eq=False, slots=True)
class Linked:
    """The module and the links that the number in a module handle stands for."""

    module: LoadedModule | HostModule
    links: tuple[Link, ...]
    exports: Sequence[Link]
    native: dict[bool, array[int]] = field(default_factory=dict)
    """The same for native code, once that wants it: for processes that are careful, or not."""
