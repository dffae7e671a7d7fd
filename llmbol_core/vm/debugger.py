"""The debugger: where a program is to stop, and how it continues from there.

It observes the reference engine. Before an instruction at which the program is to stop, and when an
exception is raised, it calls ``on_stop``. While that runs the program is stopped and can be
inspected; ``step``, ``finish`` and the like say how it is to continue. One process is the current
one; the others run in their turn whenever it does.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from llmbol_core.errors import Trap, UsageError, nearest
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.codemap import CodeMap
from llmbol_core.vm.exceptions import find_handler
from llmbol_core.vm.loader import LoadedModule
from llmbol_core.vm.observation import Observer
from llmbol_core.vm.process import Process, Raised


class Catch(enum.Enum):
    """Which exceptions stop a program."""

    ALL = "all"
    UNHANDLED = "unhandled"
    NONE = "none"


@dataclass(frozen=True)
class Breakpoint:
    """A place to stop at; pc is None until a module with such a place is loaded."""

    number: int
    location: str
    module: str | None
    pc: int | None


class Way(enum.Enum):
    """How a stopped program goes on."""

    CONTINUE = "to the next breakpoint"
    STEP = "one instruction, also into a function"
    NEXT = "one instruction or a whole call"
    LINE = "to the next statement of the source, past calls"
    FINISH = "out of the function"


@dataclass(frozen=True)
class _Goal:
    """Where a process is to stop: in one of some frames, out of a statement."""

    way: Way
    pid: int = 0
    frames: frozenset[int] = frozenset()
    frame: int = 0
    statement: int = -1
    count: int = 1


class Debugger(Observer):
    """Stops a machine and calls ``on_stop`` with the reason, first before the first instruction.

    ``process`` is the current one while the machine stands still.
    """

    def __init__(self, on_stop: Callable[[str], None]) -> None:
        self._on_stop = on_stop
        self.process: Process | None = None
        self.breakpoints: list[Breakpoint] = []
        self.modules: list[LoadedModule] = []
        self.catch = Catch.UNHANDLED
        self._goal = _Goal(Way.CONTINUE)
        self._numbers = 0
        self._pending: str | None = "start"
        self._is_stopped = False
        self._runs: Process | None = None

    # What the observed engine tells

    def loaded(self, module: LoadedModule) -> None:
        """Set the breakpoints that waited for this module."""
        self.modules.append(module)
        for at, known in enumerate(self.breakpoints):
            if known.pc is None and known.module == module.module.name:
                self.breakpoints[at] = self._resolve(known.number, known.location, module)

    def before(self, process: Process) -> None:
        """Stop here if that was asked for."""
        reason, self._pending = self._pending, None
        reason = reason or self._breakpoint(process) or self._reached(process)
        if reason is not None:
            self._stop(process, reason)

    def raised(self, process: Process, error: Trap | Raised) -> None:
        """Stop at an exception, before any frame is left."""
        if self.catch is Catch.NONE or not error.name:
            return
        is_object = isinstance(error, Raised) and error.value != NIL
        engine = self.inspector.machine.engine
        caught = find_handler(engine, process, error.name, is_object)
        if caught is None:
            self._stop(process, f"exception {error.name!r}, which nothing handles")
        elif self.catch is Catch.ALL:
            place = f"{caught.level.module.module.name} {caught.pc}"
            self._stop(process, f"exception {error.name!r}, handled at {place}")

    def stuck(self) -> None:
        """Stop at a deadlock; whatever is done then, the program ends."""
        alive = self.inspector.machine.scheduler.processes
        self._stop(next(iter(alive.values())), "no process can go on")

    def restart(self) -> None:
        """Get ready to watch the program from its start; the breakpoints stay."""
        self.modules, self._goal, self._pending = [], _Goal(Way.CONTINUE), "start"

    def interrupt(self) -> None:
        """Stop before the next instruction, or at once if every process waits for something.

        May be called from a signal handler. Raises KeyboardInterrupt if nothing has run yet.
        """
        if self._is_stopped:
            return
        if self._pending is not None:
            raise KeyboardInterrupt
        alive = list(self.inspector.machine.scheduler.processes.values())
        if alive and all(process.waits_for for process in alive):
            self._stop(alive[0], "interrupted")
        else:
            self._pending = "interrupted"

    def _stop(self, process: Process, reason: str) -> None:
        self.process, self._runs, self._is_stopped = process, process, True
        self._goal = _Goal(Way.CONTINUE)
        try:
            self._on_stop(reason)
        finally:
            self.process, self._is_stopped = None, False

    def _breakpoint(self, process: Process) -> str | None:
        pc, module = process.pc, process.module.module.name
        for known in self.breakpoints:
            if known.pc == pc and known.module == module:
                return f"breakpoint {known.number}"
        return None

    def _reached(self, process: Process) -> str | None:
        """Return why the goal is reached, or None."""
        goal = self._goal
        if goal.way is Way.CONTINUE:
            return None
        if goal.pid not in self.inspector.machine.scheduler.processes:
            return f"process {goal.pid} has ended"
        if process.pid != goal.pid:
            return None
        if goal.way is not Way.STEP and process.fp not in goal.frames:
            return None
        if goal.way is Way.LINE and process.fp == goal.frame:
            return None if self._statement(process) == goal.statement else "line"
        if goal.count > 1:
            self._goal = self._aim(process, goal.way, goal.count - 1)
            return None
        return goal.way.name.lower()

    # How to go on

    def go(self, way: Way, count: int = 1) -> None:
        """Go on when ``on_stop`` returns; several steps are one after the other."""
        process = self.stopped
        # Another process that is ready comes to its instruction first, and has not run it then.
        comes_first = process is not self._runs and not process.waits_for
        self._goal = self._aim(process, way, count + (comes_first and way in (Way.STEP, Way.NEXT)))

    def _aim(self, process: Process, way: Way, count: int) -> _Goal:
        frames = [level.frame for level in self.inspector.levels(process)]
        targets = frozenset(frames[1:] if way is Way.FINISH else frames)
        return _Goal(way, process.pid, targets, process.fp, self._statement(process), count)

    def _statement(self, process: Process) -> int:
        """Return the number of the statement that a process is in, or that of its instruction."""
        symbols, pc = self.inspector.code(process.module).symbols, process.pc
        return symbols.statements[pc] if symbols and pc < len(symbols.statements) else pc

    @property
    def stopped(self) -> Process:
        """The current process of a program that stands still. Raises UsageError."""
        if self.process is None:
            raise UsageError("the program does not run: run starts it")
        return self.process

    def switch(self, pid: int) -> Process:
        """Make another process the current one. Raises UsageError."""
        alive = self.inspector.machine.scheduler.processes
        self.process = alive[self._known(pid)]
        return self.process

    def kill(self, pid: int) -> None:
        """End a process. Raises UsageError."""
        self.inspector.machine.kill(self._known(pid))
        if self.process is not None and self.process.pid == pid:
            alive = self.inspector.machine.scheduler.processes
            self.process = next(iter(alive.values()), None)

    def _known(self, pid: int) -> int:
        alive = self.inspector.machine.scheduler.processes if self.process else {}
        if pid not in alive:
            raise UsageError(f"no process {pid}: there is {', '.join(map(str, alive)) or 'none'}")
        return pid

    # Breakpoints

    def add_breakpoint(self, location: str) -> Breakpoint:
        """Stop at a place (see ``locate``), in ``Module:...`` once it is loaded. Raises UsageError.

        >>> Debugger(print).add_breakpoint("Util:put")
        Breakpoint(number=1, location='Util:put', module='Util', pc=None)
        """
        current = None if self.process is None else self.process.module
        made = self._resolve(self._numbers + 1, location, current)
        self._numbers += 1
        self.breakpoints.append(made)
        return made

    def delete_breakpoint(self, number: int) -> None:
        """Do not stop there any more. Raises UsageError."""
        left = [known for known in self.breakpoints if known.number != number]
        if len(left) == len(self.breakpoints):
            known = ", ".join(str(b.number) for b in left) or "none"
            raise UsageError(f"no breakpoint {number}: there is {known}")
        self.breakpoints = left

    def _resolve(self, number: int, location: str, current: LoadedModule | None) -> Breakpoint:
        head, colon, _ = location.partition(":")
        is_loaded = any(module.module.name == head for module in self.modules)
        if colon and head and not is_loaded and not _is_source(head):
            return Breakpoint(number, location, head, None)
        module, pc = self.locate(location, current)
        return Breakpoint(number, location, module.module.name, pc)

    def locate(self, location: str, current: LoadedModule | None) -> tuple[LoadedModule, int]:
        """Return the module and the pc that a text means. Raises UsageError.

        ``12`` is a pc, ``work`` a function, ``:30`` a line of the module's source; ``Util:12``,
        ``Util:put`` (or ``Util.put``) and ``util.b:30`` are in other modules or files.
        """
        head, colon, rest = location.rpartition(":")
        if colon and (not head or _is_source(head)):
            if not is_number(rest):
                raise UsageError(f"{rest!r} is no line number")
            return self._line(head, int(rest), current)
        module = self.module(head) if colon else _present(current)
        if is_number(rest):
            return module, self._checked(module, int(rest))
        name, _, function = rest.partition(".")
        if function and any(name == other.module.name for other in self.modules):
            module, rest = self.module(name), function
        return module, self.inspector.code(module).find(rest).pc

    def module(self, name: str) -> LoadedModule:
        """Return a loaded module by its name. Raises UsageError."""
        by_name = {module.module.name: module for module in self.modules}
        if name not in by_name:
            raise UsageError(f"no module {name!r} is loaded{nearest(name, by_name)}")
        return by_name[name]

    def _checked(self, module: LoadedModule, pc: int) -> int:
        count = len(module.module.instructions)
        if pc >= count:
            raise UsageError(f"{module.module.name} has instructions 0 to {count - 1}, not {pc}")
        return pc

    def _line(self, file: str, line: int, current: LoadedModule | None) -> tuple[LoadedModule, int]:
        modules = self.modules if file else [_present(current)]
        maps = [(module, self.inspector.code(module)) for module in modules]
        for module, code in maps:
            pcs = code.symbols.pcs_of_line(line, file) if code.symbols else []
            if pcs:
                return module, min(pcs)
        raise UsageError(_no_line(file, line, [code for _, code in maps]))


def is_number(text: str) -> bool:
    """Whether a text is a number that counts something here."""
    return text.isdecimal() and len(text) < 10


def _is_source(name: str) -> bool:
    """Whether a name is that of a Limbo source file."""
    return name.endswith((".b", ".m"))


def _present(current: LoadedModule | None) -> LoadedModule:
    if current is None:
        raise UsageError("the program does not run: name the module, as in Module:function")
    return current


def _no_line(file: str, line: int, maps: list[CodeMap]) -> str:
    known = [code.symbols for code in maps if code.symbols]
    if not known:
        return (
            "no source lines are known: compile with limbo -g, and keep the .sbl file by the .dis"
        )
    names = {name for symbols in known for name in symbols.files}
    if file and file not in names:
        return f"no code comes from {file!r}{nearest(file, names)}"
    wanted = file or known[0].files[0]
    lines = sorted({s.line for symbols in known for s in symbols.sources if s.file == wanted})
    after = next((other for other in lines if other > line), lines[-1] if lines else 0)
    return f"no code comes from line {line} of {wanted}: line {after} has some"
