"""The debugger's command line: one command a line, from the user or from a script."""

from __future__ import annotations

import inspect
import io
import signal
import sys
from collections.abc import Callable
from functools import partial

from llmbol_cli import render
from llmbol_cli.program import Program, standard_streams
from llmbol_core.errors import Deadlock, LimitError, LlmbolError, UsageError, nearest
from llmbol_core.vm.debugger import Catch, Debugger, Way, is_number
from llmbol_core.vm.exceptions import Level
from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.observation import ObservedInterpreter
from llmbol_core.vm.places import Scope

_AROUND = 5
"""Instructions shown before and behind the current one."""

Action = Callable[["Console", str], None]
COMMANDS: dict[str, tuple[str, str, Action]] = {}
"""For each command: how it is written, what it does in a line, and the method that does it."""


class _Quit(Exception):
    """The user wants to leave."""


def command(usage: str) -> Callable[[Action], Action]:
    """Register a method as the command that its usage begins with; its docstring is the help."""

    def register(action: Action) -> Action:
        words = inspect.getdoc(action) or ""
        COMMANDS[usage.split()[0]] = (usage, words.removesuffix("."), action)
        return action

    return register


class Console:
    """Runs a program under the debugger and carries out commands whenever it stands still."""

    def __init__(self, program: Program, stdin: bytes) -> None:
        self._program, self._stdin = program, stdin
        self._debugger = Debugger(self._stopped)
        self._frame = 0
        self._goes_on = False
        self._last = ""
        self._is_script = not sys.stdin.isatty()
        self._has_failed = False

    def run(self) -> int:
        """Run the program until the user quits; return its exit status, 0 if it has none.

        A script with a command that could not be carried out fails.
        """
        status = 0
        old = signal.signal(signal.SIGINT, lambda *_: self._debugger.interrupt())
        try:
            while True:
                status = self._run_once()
                self._debugger.restart()
                self._read_commands()
        except _Quit:
            return status or int(self._has_failed and self._is_script)
        finally:
            signal.signal(signal.SIGINT, old)

    def _run_once(self) -> int:
        debugger = self._debugger
        engine = partial(ObservedInterpreter, observer=debugger)
        streams = standard_streams(io.BytesIO(self._stdin))
        with self._program.machine(streams, engine) as machine:
            debugger.inspector = Inspector(machine, self._program.read)
            try:
                outcome = self._program.run(machine)
            except (LimitError, Deadlock) as error:
                render.show(f"the program was stopped: {error}")
                return 1
        value = "" if outcome.value is None else f" and left {outcome.value}"
        render.show(f"the program ended with status {outcome.status}{value}")
        return outcome.status

    def _stopped(self, reason: str) -> None:
        """Say where the program stands and why, and carry out commands until it goes on."""
        self._frame = 0
        self._say_where(reason)
        for problem in self._debugger.inspector.problems:
            render.note(problem)
        self._debugger.inspector.problems.clear()
        self._read_commands()

    def _say_where(self, reason: str) -> None:
        level = self._level()
        process = self._debugger.stopped
        place = _place(self._debugger.inspector, level)
        instruction = self._debugger.inspector.code(level.module).text(level.pc)
        render.show(f"{reason}: process {process.pid} {place}: {instruction}")

    def _read_commands(self) -> None:
        self._goes_on = False
        while not self._goes_on:
            line = render.ask("(dis) ")
            if line is None:
                raise _Quit
            words = line.strip()
            if not words and not self._is_script:
                words = self._last
            self._last = words
            try:
                if words and not words.startswith("#"):
                    self._carry_out(words)
            except LlmbolError as error:
                self._has_failed = True
                render.note(f"error: {error}")

    def _carry_out(self, words: str) -> None:
        name, _, rest = words.partition(" ")
        matches = [known for known in COMMANDS if known.startswith(name)]
        if not matches:
            raise UsageError(f"unknown command {name!r}{nearest(name, COMMANDS)}: try help")
        COMMANDS[name if name in matches else matches[0]][2](self, rest.strip())

    def _level(self) -> Level:
        levels = self._debugger.inspector.levels(self._debugger.stopped)
        return levels[min(self._frame, len(levels) - 1)]

    def _go(self, way: Way, count: str = "") -> None:
        self._debugger.go(way, _number(count, "a count") if count else 1)
        self._goes_on = True

    # Commands, in the order of help; of several that begin alike the first one is meant

    @command("break LOCATION")
    def break_(self, rest: str) -> None:
        """Stop there: 12 (a pc), work (a function), :30 (a line), Util:12, Util:put, util.b:30."""
        made = self._debugger.add_breakpoint(_needed(rest, "a location, such as init or 12"))
        where = (
            f"{made.module} {made.pc}" if made.pc is not None else f"once {made.module} is loaded"
        )
        render.show(f"breakpoint {made.number}: {where}")

    @command("breakpoints")
    def breakpoints(self, rest: str) -> None:
        """List the breakpoints."""
        render.show(list(self._debugger.breakpoints))

    @command("continue")
    def continue_(self, rest: str) -> None:
        """Go on to the next breakpoint."""
        self._go(Way.CONTINUE)

    @command("catch all|unhandled|none")
    def catch(self, rest: str) -> None:
        """Stop at these exceptions; at first, at those that nothing handles."""
        known = {way.value: way for way in Catch}
        if rest not in known:
            raise UsageError(f"expected {', '.join(known)}, found {rest!r}{nearest(rest, known)}")
        self._debugger.catch = known[rest]

    @command("delete [NUMBER]")
    def delete(self, rest: str) -> None:
        """Delete a breakpoint, or all."""
        numbers = [b.number for b in self._debugger.breakpoints]
        for number in [_number(rest, "a breakpoint's number")] if rest else numbers:
            self._debugger.delete_breakpoint(number)

    @command("disassemble [LOCATION]")
    def disassemble(self, rest: str) -> None:
        """Print the instructions around a location, or around where the program is."""
        debugger = self._debugger
        process = debugger.process
        level = self._level() if process else None
        if rest:
            module, pc = debugger.locate(rest, process.module if process else None)
        else:
            debugger.stopped  # noqa: B018 -- raises if there is none
            assert level is not None
            module, pc = level.module, level.pc
        code = debugger.inspector.code(module)
        for at in range(
            max(pc - _AROUND, 0), min(pc + _AROUND + 1, len(module.module.instructions))
        ):
            arrow = ">" if level and (module, at) == (level.module, level.pc) else " "
            source = code.source(at) or ""
            function, text = code.function(at).name, code.text(at)
            render.show(f"{arrow} {function:12} {at:5}  {text:36} {source}".rstrip())

    @command("step [COUNT]")
    def step(self, rest: str) -> None:
        """Run one instruction, also into a function, or as many as COUNT says."""
        self._go(Way.STEP, rest)

    @command("stack")
    def stack(self, rest: str) -> None:
        """Show the calls that have not returned, the innermost first."""
        render.show(self._debugger.inspector.stack(self._debugger.stopped))

    @command("next [COUNT]")
    def next_(self, rest: str) -> None:
        """Run one instruction, or a call as a whole."""
        self._go(Way.NEXT, rest)

    @command("line [COUNT]")
    def line(self, rest: str) -> None:
        """Run to the next statement of the source, past calls."""
        self._go(Way.LINE, rest)

    @command("finish")
    def finish(self, rest: str) -> None:
        """Run until the function returns."""
        self._go(Way.FINISH)

    @command("frame [LEVEL]")
    def frame(self, rest: str) -> None:
        """Look at a call by its level on the stack; 0 is the innermost."""
        levels = self._debugger.inspector.levels(self._debugger.stopped)
        number = _number(rest, "a level") if rest else self._frame
        if number >= len(levels):
            raise UsageError(f"the stack has levels 0 to {len(levels) - 1}, not {number}")
        self._frame = number
        self._say_where(f"level {number}")

    @command("functions [MODULE]")
    def functions(self, rest: str) -> None:
        """List the functions of a module, or of the one that runs."""
        debugger = self._debugger
        module = debugger.module(rest) if rest else debugger.stopped.module
        for function in debugger.inspector.code(module).functions:
            kind = f"  {function.symbol.type}" if function.symbol else ""
            render.show(f"{function.pc:5}  {function.name}{kind}")

    @command("help [COMMAND]")
    def help(self, rest: str) -> None:
        """List the commands, which may be abbreviated."""
        if rest and not any(name.startswith(rest) for name in COMMANDS):
            raise UsageError(f"unknown command {rest!r}{nearest(rest, COMMANDS)}")
        for name, (usage, words, _) in sorted(COMMANDS.items()):
            if name.startswith(rest):
                render.show(f"{usage:26} {words}")

    @command("kill PID")
    def kill(self, rest: str) -> None:
        """End a process."""
        self._debugger.kill(_number(rest, "a process's number"))
        self._frame = 0

    @command("modules")
    def modules(self, rest: str) -> None:
        """List the modules that are loaded."""
        for module in self._debugger.modules:
            render.show(f"{module.module.name:16} {module.path}")

    @command("print [PLACE [TYPE]|NAME]")
    def print(self, rest: str) -> None:
        """Print 40(fp), 8(mp) string, 4(36(fp)) W, count, e.l.name or a[3]; or all of the frame."""
        scope = Scope(self._debugger.inspector, self._level())
        for shown in [scope.show(rest)] if rest else scope.variables():
            render.show(f"{shown.name}: {shown.type} = {shown.value}")

    @command("processes")
    def processes(self, rest: str) -> None:
        """List the processes."""
        self._debugger.stopped  # noqa: B018 -- raises if there is none
        render.show(self._debugger.inspector.processes())

    @command("process PID")
    def process(self, rest: str) -> None:
        """Look at another process; step and the like are about it then."""
        self._debugger.switch(_number(rest, "a process's number"))
        self._frame = 0
        self._say_where("switched")

    @command("quit")
    def quit(self, rest: str) -> None:
        """End the program and leave."""
        raise _Quit

    @command("run")
    def run_(self, rest: str) -> None:
        """Run the program again when it has ended."""
        if self._debugger.process is not None:
            raise UsageError("the program runs: continue goes on, quit ends it")
        self._goes_on = True


def _place(inspector: Inspector, level: Level) -> str:
    code = inspector.code(level.module)
    source = code.source(level.pc)
    text = f"{level.module.module.name}.{code.function(level.pc).name} {level.pc}"
    return text if source is None else f"{text} ({source})"


def _number(text: str, what: str) -> int:
    if not is_number(text):
        raise UsageError(f"expected {what}, found {text!r}")
    return int(text)


def _needed(text: str, what: str) -> str:
    if not text:
        raise UsageError(f"expected {what}")
    return text
