"""Memory outside of the arena that native code uses for one machine, and its clock."""

from __future__ import annotations

import sys
import time
from array import array

from llmbol_core.vm.host import STARTED
from llmbol_core.vm.jit.runtime import OUTPUT_BYTES, SCRATCH_BYTES, TEXT_ROOM, Machine
from llmbol_core.vm.jit.trapping import trap_names

_UTF32 = f"utf-32-{'le' if sys.byteorder == 'little' else 'be'}"


class Lent:
    """The memory that the words of a machine point to."""

    def __init__(self, words: array[int]) -> None:
        self._scratch, self._text = (
            array("q", bytes(SCRATCH_BYTES)),
            array("I", bytes(4 * TEXT_ROOM)),
        )
        self._output = array("B", bytes(OUTPUT_BYTES))
        self._traps = array("B", trap_names())
        words[Machine.SCRATCH] = self._scratch.buffer_info()[0]
        words[Machine.TEXT] = self._text.buffer_info()[0]
        words[Machine.OUTPUT] = self._output.buffer_info()[0]
        words[Machine.TRAPS] = self._traps.buffer_info()[0]
        words[Machine.STARTED] = nanoseconds() - (time.monotonic_ns() - STARTED)

    def text(self, count: int) -> str | None:
        """Return the formatted text; None if not all of it are characters."""
        try:
            return self._text[:count].tobytes().decode(_UTF32, "surrogatepass")
        except UnicodeDecodeError:
            return None

    def output(self, count: int) -> bytes:
        """Return the first bytes of the output."""
        return self._output[:count].tobytes()


def nanoseconds() -> int:
    """Return the nanoseconds of the clock that native code asks."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime_ns") else 0
