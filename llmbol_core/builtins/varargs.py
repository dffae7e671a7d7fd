"""The arguments that ``*`` stands for in a function that takes any number of them."""

from __future__ import annotations

from collections.abc import Sequence

from llmbol_core.vm.given import argument, text
from llmbol_core.vm.layout import ARGUMENTS, Field
from llmbol_core.vm.objects import Heap


class VarArguments:
    """The values of ``*``, taken one by one by a caller that knows their types.

    Words follow each other; bigs and reals lie at multiples of 8 from the frame's start. The frame
    is of the caller's making: it traps unless what comes before them is in it, too.
    """

    def __init__(self, heap: Heap, frame: int, fixed: Sequence[Field]) -> None:
        self._heap, self._frame, self._offset = heap, frame, ARGUMENTS
        for part in fixed:
            self._offset = part.offset
            self._take(part.type.size, is_pointer=[*part.type.pointers()] == [0])

    def word(self) -> int:
        """Take an int."""
        return self._heap.word(self._take(4))

    def reference(self) -> int:
        """Take an int, or a reference as one."""
        return self._heap.word(self._take(4, is_pointer=None))

    def big(self) -> int:
        """Take a big."""
        return self._heap.big(self._take(8))

    def real(self) -> float:
        """Take a real."""
        return self._heap.real(self._take(8))

    def string(self) -> str:
        """Take a string."""
        return text(self._heap, self._heap.pointer(self._take(4, is_pointer=True)))

    def _take(self, size: int, is_pointer: bool | None = False) -> int:
        at = -(-self._offset // size) * size
        self._offset = at + size
        return argument(self._heap, self._frame, at, size, is_pointer)
