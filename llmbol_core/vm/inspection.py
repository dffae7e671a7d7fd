"""Looking into a machine: its processes, their stacks, and what instructions read and write.

An ``Inspector`` only reads. It knows functions and source lines by symbol files where it is given a
way to read them: ``read`` returns what a file beside a module holds, or None if there is none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmbol_core.errors import FormatError, Trap
from llmbol_core.vm.arena import ASTRAY
from llmbol_core.vm.codemap import CodeMap, CodeRange
from llmbol_core.vm.exceptions import Level, levels
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.symbols import Symbols, read_symbols, symbol_path
from llmbol_core.vm.values import Values

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process

MOST_LEVELS = 1000
_FIELD = 0xFFFF
"""Offsets are unsigned numbers of 16 bits."""


@dataclass(frozen=True)
class ProcessInfo:
    """A process: where it is, by function and instruction, and what it waits for, if anything."""

    pid: int
    group: int
    state: str
    module: str
    function: str
    pc: int
    source: str | None
    waits_for: str | None


@dataclass(frozen=True)
class StackLevel:
    """A call that has not returned; level 0 is the innermost. ``frame`` is an address."""

    level: int
    module: str
    function: str
    pc: int
    source: str | None
    frame: int


class Inspector:
    """Shows the state of one machine."""

    def __init__(
        self, machine: InfernoVM, read: Callable[[str], bytes | None] = lambda path: None
    ) -> None:
        self.machine, self._read = machine, read
        self.values = Values(machine.engine)
        self.problems: list[str] = []
        """Why symbol files were left out."""
        self._maps: dict[int, tuple[LoadedModule, CodeMap]] = {}

    # Code

    def code(self, loaded: LoadedModule) -> CodeMap:
        """Return what is known of a module's code."""
        known = self._maps.get(id(loaded))
        if known is None:
            # The module is kept, so that its id stays its own.
            known = (loaded, CodeMap(loaded.module, self._symbols(loaded)))
            self._maps[id(loaded)] = known
        return known[1]

    def function(self, process: Process) -> CodeRange:
        """Return the function that a process is in."""
        return self.code(process.module).function(process.pc)

    def known_functions(self) -> set[str]:
        """Return the names of the functions in all modules that were looked at."""
        maps = [code for _, code in self._maps.values()]
        names = {(code.module.name, f.name) for code in maps for f in code.functions}
        return {name for _, name in names} | {f"{module}.{name}" for module, name in names}

    def _symbols(self, loaded: LoadedModule) -> Symbols | None:
        path = symbol_path(loaded.path)
        data = self._read(path)
        if data is None:
            return None
        try:
            symbols = read_symbols(data, path)
        except FormatError as error:
            self.problems.append(str(error))
            return None
        have, want = len(symbols.sources), len(loaded.module.instructions)
        if have != want:
            why = f"it tells of {have} instructions, the module has {want}"
            self.problems.append(f"{path}: belongs to another version of {loaded.path}: {why}")
            return None
        return symbols

    # Processes

    def processes(self) -> list[ProcessInfo]:
        """Return what each process is doing, by number."""
        alive = sorted(self.machine.scheduler.processes.items())
        return [self.describe(process) for _, process in alive]

    def describe(self, process: Process) -> ProcessInfo:
        """Return what a process is doing."""
        pc = _pc(process)
        code = self.code(process.module)
        return ProcessInfo(
            process.pid,
            process.group,
            "waits" if process.waits_for else "ready",
            process.module.module.name,
            code.function(pc).name,
            pc,
            _text(code.source(pc)),
            process.waits_for or None,
        )

    def levels(self, process: Process) -> list[Level]:
        """Return the frames of a process from the innermost, with the pc of each."""
        found: list[Level] = []
        try:
            for level in itertools.islice(levels(self.machine.engine, process), MOST_LEVELS):
                found.append(level)
        except (Trap, *ASTRAY):
            pass
        return [found[0]._replace(pc=_pc(process)), *found[1:]] if found else []

    def stack(self, process: Process) -> list[StackLevel]:
        """Return the calls that a process is in, the innermost first."""
        return [self._level(number, level) for number, level in enumerate(self.levels(process))]

    def _level(self, number: int, level: Level) -> StackLevel:
        code = self.code(level.module)
        name, source = code.function(level.pc).name, _text(code.source(level.pc))
        return StackLevel(number, level.module.module.name, name, level.pc, source, level.frame)

    def address(self, operand: Operand, fp: int, mp: int) -> int | None:
        """Return where an operand lies, or None if it is absent or lies nowhere."""
        value, base = operand.value & _FIELD, operand.base & _FIELD
        heap = self.machine.heap
        try:
            match operand.mode:
                case Mode.FP:
                    return fp + value
                case Mode.MP:
                    return mp + value
                case Mode.FP_INDIRECT:
                    return heap.pointer(fp + base) + value
                case Mode.MP_INDIRECT:
                    return heap.pointer(mp + base) + value
        except ASTRAY:
            pass
        return None


def _pc(process: Process) -> int:
    """Return the instruction that a process is about to run, or waits in."""
    return process.pc - 1 if process.waits_for else process.pc


def _text(source: object) -> str | None:
    return None if source is None else str(source)
