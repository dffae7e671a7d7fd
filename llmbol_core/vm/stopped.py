"""Processes of a program that was stopped from outside: they are taken apart when there is time.

Whoever stops a program wants it to be over at once, but thousands of processes, or millions of
frames and objects, take a while to take apart. None of them runs any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process

_MANY, _MANY_PIECES, _MANY_OFFERS = 64, 4, 4096
"""How many processes, pieces of a stack, and offers are taken apart at once."""


class Stopped:
    """The stopped processes of one machine."""

    def __init__(self, machine: InfernoVM) -> None:
        self._machine = machine
        self._processes: list[Process] = []

    def __bool__(self) -> bool:
        return bool(self._processes)

    @contextmanager
    def quickly(self, is_stopped: bool) -> Iterator[None]:
        """If the program is stopped, keep the end of its processes from taking long.

        If they are many or large, they are moved out of the machine for later.
        """
        heap, processes = self._machine.heap, self._machine.scheduler.processes
        if is_stopped and (
            len(processes) > _MANY
            or len(self._machine.engine.channels.offers) > _MANY_OFFERS
            or any(process.stack.pieces > _MANY_PIECES for process in processes.values())
        ):
            self._processes += processes.values()
            processes.clear()
        heap.hurries = is_stopped
        try:
            yield
        finally:
            heap.hurries = False

    def close_files(self) -> None:
        """Close the files that they have open."""
        for descriptors in {process.environment.descriptors for process in self._processes}:
            for number in descriptors.numbers:
                descriptors.close(number)

    def let_go(self) -> None:
        """End them as any other process."""
        processes = self._machine.scheduler.processes
        while self._processes:
            process = self._processes.pop()
            processes[process.pid] = process
            self._machine.end(process)
