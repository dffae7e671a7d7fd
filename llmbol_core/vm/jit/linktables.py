"""What native code knows of links: for each module handle, where its functions are.

There are two tables. Processes that are careful of how reals are rounded have one of their own: it
leads to code for them, and to Python for the functions of $Math that round.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from llmbol_core.vm.host import HostFunction, HostModule
from llmbol_core.vm.jit import careful
from llmbol_core.vm.jit.runtime import (
    LINK_HEADER,
    LINK_HOSTED,
    LINK_WORDS,
    LinkKind,
    Machine,
    few_pointers,
)
from llmbol_core.vm.process import frame_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmbol_core.vm.jit.compiler import Native
    from llmbol_core.vm.links import Link, Linked
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.objects import Heap

_NONE = (0, 0, 0)


class LinkTables:
    """The links of one machine's handles, by the numbers in the handles."""

    def __init__(
        self,
        words: array[int],
        heap: Heap,
        handlers: Mapping[str, int],
        native_of: Callable[[LoadedModule, bool], Native],
        linked: Mapping[int, Linked],
        functions: list[HostFunction],
    ) -> None:
        self._words, self._heap, self._handlers = words, heap, handlers
        self._native_of, self._linked = native_of, linked
        self._is_careful = False
        """Whether the table for careful processes is wanted."""
        self._functions = functions
        self._numbers: dict[int, int] = {}
        self._links = array("Q", [0]), array("Q", [0])
        self._records: tuple[dict[int, array[int]], ...] = {}, {}

    def place(self, is_careful: bool) -> int:
        """Return the address of the words that say where a table is."""
        if is_careful and not self._is_careful:
            self._is_careful = True
            for number in self._linked:
                self._describe(number, is_careful)
        word = Machine.CAREFUL_LINKS if is_careful else Machine.LINKS
        return int(self._words.buffer_info()[0]) + 8 * word

    def describe(self, number: int) -> None:
        """Tell native code what the links of a handle lead to."""
        self._describe(number, is_careful=False)
        if self._is_careful:
            self._describe(number, is_careful=True)

    def _describe(self, number: int, is_careful: bool) -> None:
        linked = self._linked[number]
        if is_careful not in linked.native:
            linked.native[is_careful] = self._described(linked, is_careful)
        record, links = linked.native[is_careful], self._links[is_careful]
        links.extend([0] * (number + 1 - len(links)))
        links[number] = record.buffer_info()[0]
        self._records[is_careful][number] = record
        at = Machine.CAREFUL_LINKS if is_careful else Machine.LINKS
        self._words[at], self._words[at + 1] = links.buffer_info()

    def _described(self, linked: Linked, is_careful: bool) -> array[int]:
        tables = _NONE
        if not isinstance(linked.module, HostModule) and linked.module.is_verified:
            tables = self._native_of(linked.module, is_careful).tables
        record = array("q", [len(linked.links), *tables])
        for link in linked.links:
            size, pointers = self._heap.types[link.type]
            is_known = link.function or tables[0]
            kind = self._kind(link, is_careful) if is_known else LinkKind.OTHER
            row = [kind, link.type, frame_size(size), few_pointers(pointers)]
            record.extend([*row, self._hosted(link, is_careful)])
        return record

    def _hosted(self, link: Link, is_careful: bool) -> int:
        """Return the address of machine code for a link's function of the host, or 0."""
        name = link.function.native if link.function else ""
        return 0 if is_careful and careful.is_rounded(name) else self._handlers.get(name, 0)

    def renew(self) -> None:
        """Tell native code of functions of the host for which there is machine code now."""
        for linked in self._linked.values():
            for is_careful, record in linked.native.items():
                for index, link in enumerate(linked.links):
                    at = LINK_HEADER + LINK_WORDS * index + LINK_HOSTED
                    record[at] = self._hosted(link, is_careful)

    def forget(self, number: int) -> None:
        """Forget a handle that is no more."""
        for links, records in zip(self._links, self._records, strict=True):
            if records.pop(number, None) is not None:
                links[number] = 0

    def _kind(self, link: Link, is_careful: bool) -> int:
        """Return a link's pc, or the ``LinkKind`` of another link."""
        function = link.function
        if function is None:
            return link.pc if link.pc >= 0 else LinkKind.OTHER
        if function.native == "Math.sqrt" and not is_careful:
            return LinkKind.SQUARE_ROOT
        number = self._numbers.setdefault(id(function), len(self._functions))
        if number == len(self._functions):
            self._functions.append(function)
        return LinkKind.HOST - number
