"""Tracing: a record of each instruction that runs, with the values it read and wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from llmbol_core.errors import Trap, UsageError, nearest
from llmbol_core.vm.isa import TYPES, Mode, OperandRole
from llmbol_core.vm.loader import LoadedModule
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.notation import PLACES
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


class _Plan(NamedTuple):
    """What is the same whenever an instruction runs: its text, and the operands to show."""

    function: str
    text: str
    operands: list[tuple[OperandRole, Operand]]


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
        self._plans: dict[tuple[LoadedModule, int], _Plan | None] = {}
        self._current: tuple[TraceRecord, list[tuple[OperandRole, int]]] | None = None

    @property
    def missed(self) -> UsageError | None:
        """Why nothing was shown, when the program has ended, if a function was asked for."""
        if self._wanted is None or self.records:
            return None
        hint = nearest(self._wanted, self.inspector.known_functions())
        return UsageError(f"no instruction of a function {self._wanted!r} ran{hint}")

    def before(self, process: Process) -> None:
        """Take down where the process is and what its instruction reads."""
        self._current = None
        place = process.module, process.pc
        if place not in self._plans:
            self._plans[place] = self._plan(*place)
        plan = self._plans[place]
        if plan is None:
            return
        found = []
        for role, operand in plan.operands:
            address = self.inspector.address(operand, process.fp, process.mp)
            if address is not None:
                found.append((role, address))
        value = self.inspector.values.of_letter
        read = {role.place: value(role.type, at) for role, at in found if role.reads}
        name = process.module.module.name
        record = TraceRecord(process.pid, name, plan.function, process.pc, plan.text, read, {})
        self._current = record, [(role, at) for role, at in found if role.writes]

    def _plan(self, module: LoadedModule, pc: int) -> _Plan | None:
        """Return what is the same whenever an instruction runs; None if it is not shown."""
        code = self.inspector.code(module)
        function = code.function(pc).name
        if self._wanted not in (None, function, f"{module.module.name}.{function}"):
            return None
        if pc >= len(module.module.instructions):
            return None  # a program that was not verified may run off its end, which raises
        instruction = module.module.instructions[pc]
        operands = [
            (role, _operand(instruction, role))
            for role in instruction.op.operands
            if role.place in PLACES and TYPES[role.type].kind not in _NAMED
        ]
        return _Plan(function, code.text(pc), operands)

    def after(self, process: Process) -> None:
        """Emit the record with what the instruction has written."""
        if self._current is None:
            return
        record, writes = self._current
        self._current = None
        value = self.inspector.values.of_letter
        written = {role.place: value(role.type, at) for role, at in writes}
        self._emit(replace(record, written=written))
        self.records += 1
        self.is_watching = self.records != self._limit

    def raised(self, process: Process, error: Trap | Raised) -> None:
        """Take down that the instruction raised an exception."""
        if self._current is not None:
            record, _ = self._current
            self._current = replace(record, raised=error.name), []


def _operand(instruction: Instruction, role: OperandRole) -> Operand:
    """Return an operand; the destination stands in for a middle one that may be absent."""
    operand = instruction.operand(role.place)
    other = instruction.op.role("d")
    if role.optional and operand.mode is Mode.NONE and other and other.type == role.type:
        return instruction.destination
    return operand
