"""Tracing: a record of each instruction that runs, with the values it read and wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from llmbol_core.errors import Trap, nearest
from llmbol_core.vm.inspection import Access
from llmbol_core.vm.isa import TYPES
from llmbol_core.vm.notation import format_instruction
from llmbol_core.vm.observation import Observer
from llmbol_core.vm.process import Process, Raised

_NAMED = {"storage", "address", "label", "number"}
"""Kinds of operands whose text says as much as their value would."""


@dataclass(frozen=True)
class TraceRecord:
    """One instruction that ran.

    ``read`` and ``written`` are the values of its operands by place: s, m or d. An instruction that
    ``raised`` an exception has written nothing.
    """

    pid: int
    module: str
    function: str
    pc: int
    instruction: str
    read: dict[str, str]
    written: dict[str, str]
    raised: str | None = None

    def __str__(self) -> str:
        place = f"{self.pid} {self.module}.{self.function} {self.pc}"
        read, written = (
            " ".join(f"{place}={value}" for place, value in values.items())
            for values in (self.read, self.written)
        )
        result = f" -> {written}" if written else ""
        if self.raised is not None:
            result = f" raises {json.dumps(self.raised, ensure_ascii=False)}"
        return f"{place:<24} {self.instruction:<36} {read}{result}".rstrip()


class Tracer(Observer):
    """Gives ``emit`` a record of each instruction, or of those in one function.

    The function is named as in ``init`` or ``Module.init``. After ``limit`` records the program
    runs on without being watched.
    """

    def __init__(
        self,
        emit: Callable[[TraceRecord], None],
        function: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._emit, self._wanted, self._limit = emit, function, limit
        self.records = 0
        self.is_watching = limit is None or limit > 0
        self._current: tuple[TraceRecord, list[Access]] | None = None

    @property
    def problems(self) -> list[str]:
        """What the user should know when the program has ended: why something was not shown."""
        found = list(self.inspector.problems)
        if self._wanted is not None and not self.records:
            hint = nearest(self._wanted, self.inspector.known_functions())
            found.append(f"no instruction of a function {self._wanted!r} ran{hint}")
        return found

    def before(self, process: Process) -> None:
        """Take down where the process is and what its instruction reads."""
        self._current = None
        module, pc = process.module.module, process.pc
        function = self.inspector.function(process).name
        if self._wanted not in (None, function, f"{module.name}.{function}"):
            return
        if pc >= len(module.instructions):
            return  # a program that was not verified may run off its end, which raises
        instruction = module.instructions[pc]
        text, value = format_instruction(instruction), self.inspector.value
        shown = [
            (access, instruction.op.role(access.place))
            for access in self.inspector.accesses(process, instruction)
            if TYPES[access.letter].kind not in _NAMED and access.address is not None
        ]
        read = {access.place: value(access) for access, role in shown if role and role.reads}
        writes = [access for access, role in shown if role and role.writes]
        record = TraceRecord(process.pid, module.name, function, pc, text, read, {})
        self._current = record, writes

    def after(self, process: Process) -> None:
        """Emit the record with what the instruction has written."""
        if self._current is None:
            return
        record, writes = self._current
        self._current = None
        written = {access.place: self.inspector.value(access) for access in writes}
        self._emit(replace(record, written=written))
        self.records += 1
        self.is_watching = self.records != self._limit

    def raised(self, process: Process, error: Trap | Raised) -> None:
        """Take down that the instruction raised an exception."""
        if self._current is not None:
            record, _ = self._current
            self._current = replace(record, raised=error.name), []
