"""Limits of a program, what it has used of them, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.errors import UsageError

if TYPE_CHECKING:
    from llmbol_core.vm.machine import InfernoVM

_UNITS = {"memory": "bytes", "threads": "processes", "instructions": "instructions"}


@dataclass(frozen=True)
class Limits:
    """What a program may use; None means no limit. Raises UsageError for what is no limit."""

    memory: int = 64 << 20
    """Bytes of the heap, and of what the host keeps for the program."""
    threads: int = 10_000
    """Dis processes that live at the same time."""
    instructions: int | None = None
    """Dis instructions in all."""
    seconds: float | None = None
    """Wall-clock time of one call."""

    def __post_init__(self) -> None:
        for name in ("memory", "threads", "instructions"):
            value = getattr(self, name)
            if name == "instructions" and value is None:
                continue
            if type(value) is not int or value < 1:
                raise UsageError(f"a limit of {value!r} {_UNITS[name]}: expected a number from 1")
        given: object = self.seconds
        if given is not None and not (isinstance(given, int | float) and given > 0):
            raise UsageError(f"a limit of {self.seconds!r} seconds: expected more than 0")


class Outcome(NamedTuple):
    """How a program ended: exit status, and the value that it left if it was stack code."""

    status: int
    value: float | None = None


@dataclass(frozen=True)
class VMStats:
    """What a machine holds and has done; memory is in bytes."""

    modules: int
    """Modules in use."""
    processes: int
    """Dis processes alive now."""
    processes_started: int
    instructions: int
    """Dis instructions run so far, by all processes."""
    objects: int
    """Objects in the heap."""
    memory_used: int
    memory_peak: int
    memory_limit: int

    @classmethod
    def of(cls, machine: InfernoVM) -> VMStats:
        """Return what a machine holds and has done."""
        heap, scheduler = machine.heap, machine.scheduler
        return cls(
            modules=len(machine.loader.modules),
            processes=len(scheduler.processes),
            processes_started=machine.engine.started,
            instructions=scheduler.instructions,
            objects=heap.objects,
            memory_used=heap.used,
            memory_peak=heap.peak,
            memory_limit=heap.limit,
        )
