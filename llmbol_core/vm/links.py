"""What module handles lead to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.host import HostFunction, HostModule

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule


class Link(NamedTuple):
    """Something that a module handle leads to: code, or a host function; pc -1 stands for data."""

    pc: int
    type: int
    function: HostFunction | None = None


class Linked(NamedTuple):
    """What the links number in a module handle stands for."""

    module: LoadedModule | HostModule
    links: tuple[Link, ...]
    exports: Sequence[Link]
