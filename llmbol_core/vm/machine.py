"""The virtual machine: loads modules, runs them, keeps them to their limits.

    with InfernoVM(HOST_MODULES, limits=Limits(memory=16 << 20)) as vm:
        vm.load_module("m", "m.dis")
        vm.execute("m", "double", [21])

Several machines in one program share nothing. A machine is used by one thread at a time;
others get UsageError, but may kill its processes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmbol_core.errors import (
    Deadlock,
    FileError,
    LimitError,
    LinkError,
    Trap,
    UsageError,
    as_name,
    nearest,
)
from llmbol_core.vm.arena import ASTRAY, NIL
from llmbol_core.vm.channels import Channels
from llmbol_core.vm.environment import Environment, Streams
from llmbol_core.vm.errortext import shortened, uncapitalized
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import FileFault
from llmbol_core.vm.groups import kill, share
from llmbol_core.vm.host import ARGUMENTS, HostModule, Session
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.limits import Limits, Outcome, VMStats
from llmbol_core.vm.loader import LoadedModule, Loader
from llmbol_core.vm.module import Export, Module
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.offers import takes_pointer
from llmbol_core.vm.onethread import by_one_thread
from llmbol_core.vm.process import Process, roomy_extent
from llmbol_core.vm.processfiles import place_of, provide_system_files
from llmbol_core.vm.scheduler import Scheduler
from llmbol_core.vm.stopped import Stopped
from llmbol_core.vm.strings import new_strings

if TYPE_CHECKING:
    from llmbol_core.vm.guessing import Kind
    from llmbol_core.vm.inspection import ProcessInfo
    from llmbol_core.vm.layout import Function, Type

QUIET = "fail:"
"""What an exception begins with that ends a process without a message."""


@by_one_thread(
    "load_module", "unload_module", "execute", "take_back", "spawn", "wait", "run", "close",
    kill="kill_soon",
)  # fmt: skip
class InfernoVM:
    """A virtual machine with its memory, its modules and its processes."""

    def __init__(
        self,
        host_modules: Mapping[str, HostModule] | None = None,
        namespace: Namespace | None = None,
        limits: Limits | None = None,
        streams: Streams | None = None,
        verify: bool = True,
        engine: Callable[[InfernoVM, Channels], Interpreter] = Interpreter,
    ) -> None:
        self.limits = limits or Limits()
        self.streams = streams or Streams()
        self.environment = Environment.first(namespace or Namespace(), self.streams)
        self.heap = Heap(self.limits.memory)
        self.heap.collect = self._collect
        channels = Channels(
            self.heap,
            lambda pid: self.scheduler.processes[pid],
            lambda process: self.scheduler.make_ready(process),
        )
        self.engine = engine(self, channels)
        self.scheduler = self.engine.scheduler = Scheduler(self.engine)
        self.heap.pause = self.scheduler.check_time
        self.loader = Loader(self.engine, host_modules or {}, verify, self.streams.report)
        self._handles: dict[str, int] = {}
        self._failures: dict[int, Trap] = {}
        self._results: dict[int, int] = {}
        self.session, self._is_closed, self._stopped = Session(), False, Stopped(self)
        if self.environment.namespace.has_root:
            provide_system_files(self)

    def __enter__(self) -> InfernoVM:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    # What users call

    def load_module(
        self, name: str, module: Module | bytes | memoryview | str | os.PathLike[str]
    ) -> LoadedModule:
        """Load a module: a ``Module``, the bytes of an object file, or its path on the host.

        Its data lives until the machine is closed or another module is loaded under the name.
        Raises FileError, DisFormatError, VerifyError, LimitError and UsageError.
        """
        as_name(name)
        if self._is_closed:
            raise UsageError("the machine is closed")
        loaded = self.loader.given(module, name)
        handle = self.loader.first_instance(loaded)
        if name in self._handles:
            self.unload_module(name)
        self._handles[name] = handle
        return loaded

    def unload_module(self, name: str) -> None:
        """Forget a loaded module and its data. Raises LinkError if no module has this name."""
        loaded = self.engine.module_of(self._handle(name))
        self.heap.release(self._handles.pop(name))
        self.loader.forget(loaded)

    def execute(
        self, name: str, entry: str, arguments: Sequence[Any] = (), kind: Kind = None
    ) -> Any:
        """Call an exported function of a loaded module and return its result as a Python value.

        ``calling.py`` says how values go in and out; a ``ref`` or ``chan`` is lent as a number till
        ``calling.take_back``, and ``calling.lend`` makes one. The function's type is found by its
        signature unless ``kind`` gives it: ``"fn(x: int): string"``, or parsed. The ``init`` of an
        Inferno program takes the arguments as its argv. Raises LinkError, UsageError for values
        that do not fit, the Trap that nobody handled, LimitError and Deadlock.
        """
        handle, export, kind, values = self._callable(name, entry, arguments, kind)
        return self._call(handle, export, kind, values)

    def take_back(self, lent: int | None, kind: Type | str) -> None:
        """Release an ADT or a channel, which ``execute`` returned; UsageError if it is none."""
        from llmbol_core.vm import calling, limbo

        kind = limbo.parse_type(kind) if isinstance(kind, str) else kind
        calling.take_back(self.heap, lent, kind)

    def spawn(self, name: str, entry: str, arguments: Sequence[Any] = ()) -> int:
        """Start a function of a loaded module in a process of its own; return the process's number.

        It runs during ``wait`` and ``execute``; its result is dropped. Raises as ``execute`` does.
        """
        from llmbol_core.vm.calling import prepare

        handle, export, kind, values = self._callable(name, entry, arguments)
        result, fill = prepare(self.heap, self.engine.module_of(handle), export, kind, values)
        try:
            process = self._start(handle, export, fill)
        except BaseException:
            self.heap.release(result)
            raise
        self._results[process.pid] = result
        process.is_kept = True
        return process.pid

    def wait(self) -> None:
        """Run until all processes have ended; raises what ended one that ``spawn`` started."""
        self._failures, spawned = {}, list(self._results)
        try:
            self._run_processes()
        finally:
            self._end_all()
        for pid in spawned:
            if pid in self._failures:
                raise self._failures[pid]

    def processes(self) -> list[ProcessInfo]:
        """Return what each live process is doing, ordered by number."""
        from llmbol_core.vm.inspection import Inspector

        return Inspector(self).processes()

    def kill(self, pid: int) -> None:
        """End a process: at once, or after a call of a host function. UsageError if none has it."""
        kill(self, self.scheduler.process(pid))

    def kill_soon(self, pid: int) -> None:
        """End a process that another thread runs; raises as ``kill`` does."""
        process = self.scheduler.process(pid)
        self.scheduler.ask(lambda: kill(self, process))

    def run(self, path: str, arguments: Sequence[str] = (), host: bool = False) -> Outcome:
        """Run a program from the file tree it was granted, or from a path on the host.

        Its ``init`` gets path and arguments; stack code runs its ``main``. An exception that ends
        a process is reported and makes the status 1. One that begins with "fail:" is not reported,
        and counts only if it ends the first process.
        """
        loaded = self._program(path, host)
        offered = {export.name: export for export in loaded.module.exports}
        handle = self.loader.instance(loaded)
        try:
            if "init" not in offered and "main" in offered:
                return self._run_main(handle, offered["main"])
            export = loaded.exported("init")
            self._run_init(handle, export, [path, *arguments])
        except Trap as error:
            if error not in self._failures.values():  # nothing of the program has run yet
                self.streams.report(str(Trap(error.name, loaded.module.name)))
            return Outcome(1)
        finally:
            self.heap.release(handle)
        return Outcome(int(any(not e.name.startswith(QUIET) for e in self._failures.values())))

    def get_stats(self) -> VMStats:
        """Return what the machine holds (nothing once it is closed) and what it has done."""
        self._settle()
        if self._is_closed:
            with suppress(*ASTRAY):
                self.heap.make_room()
        return VMStats.of(self)

    def close(self) -> None:
        """Let everything go: processes, modules, open files."""
        self._end_all()
        self._is_closed = True
        self._stopped.close_files()
        if not self._stopped:
            self._release()
        self.heap.close_handles()
        self.environment.close()

    def _settle(self) -> None:
        """Let go of what is left of a program that was stopped."""
        self._stopped.let_go()
        if self._is_closed:
            self._release()

    def _release(self) -> None:
        """Release what no process holds."""
        # Of a heap that a program has damaged only what the host keeps can be let go.
        with suppress(*ASTRAY):
            for ref in (*self._handles.values(), *self.heap.end_lending()):
                self.heap.release(ref)
            self.loader.release()
            self.engine.release_constants()
        self._handles = {}

    # Processes

    def new_process(self, parent: Process | None, handle: int, frame: int) -> Process:
        """Return a process with a frame of a type, in a module whose handle it takes over."""
        if len(self.scheduler.processes) >= self.limits.threads:
            self.heap.release(handle)
            raise LimitError("process", f"the program has {self.limits.threads} of them")
        environment = (parent.environment if parent else self.environment).inherit()
        extent = self.engine.module_of(handle).module.stack_extent
        extent = extent if parent else roomy_extent(extent, self.heap.limit)
        self.engine.started = pid = self.engine.started + 1
        group, process = parent.group if parent else pid, None
        try:
            process = self.engine.new_process(pid, group, environment, extent)
            self.engine.begin(process, parent)
            self.engine.enter_module(process, handle)
            process.fp = process.stack.push(frame)
        except BaseException:
            if process is not None:
                process.stack.free()
                self.engine.forget_process(process)
            self.heap.release(handle)
            environment.close()
            raise
        return process

    def end(self, process: Process, error: Trap | None = None) -> None:
        """End a process, because it is done or because of an exception that nobody handles."""
        if error is not None and error.name:
            self._failures[process.pid] = error.brief()
            if not error.name.startswith(QUIET):
                self.streams.report(str(Trap(shortened(error.name), error.module, error.pc)))
        status = "killed" if process.is_killed else error.name if error is not None else ""
        share(self, process, status := shortened(status))
        message = f'{process.pid} "{error.module if error else place_of(process)}":{status}'
        self.engine.channels.withdraw(process)
        # What a program has damaged stays where it is, until the machine is closed.
        with suppress(Trap, *ASTRAY):
            process.stack.drop()
            process.stack.free()
            self.heap.release(process.handle)
            self.heap.release(self._results.pop(process.pid, NIL))
        self.scheduler.remove(process)
        self.engine.forget_process(process)
        process.environment.close(message)

    def _end_all(self) -> None:
        """End the processes that are left, or keep them for later if the program was stopped."""
        is_stopped = isinstance(sys.exc_info()[1], LimitError | KeyboardInterrupt)
        with self._stopped.quickly(is_stopped):
            for process in list(self.scheduler.processes.values()):
                self.end(process)
        self.scheduler.clear()

    def _collect(self) -> None:
        """Free what is not needed, because memory is short."""
        self.loader.tidy()
        self._settle()
        self.engine.collect()
        self.scheduler.free_remains()

    # Running programs

    def _program(self, path: str, host: bool) -> LoadedModule:
        if host:
            return self.loader.read_file(path)
        try:
            return self.loader.find(self.environment.namespace, path)
        except FileFault as error:
            raise FileError(path, uncapitalized(str(error))) from error

    def _run_init(self, handle: int, export: Export, argv: Sequence[str]) -> None:
        def fill(frame: int) -> None:
            loaded, at = self.engine.module_of(handle), ARGUMENTS + 4
            if takes_pointer(self.heap, loaded, export, at):
                self.heap.give(frame + at, new_strings(self.heap, argv))

        self._run(handle, export, fill)

    def _run_main(self, handle: int, export: Export) -> Outcome:
        from llmbol_core.vm.calling import main_type

        kind = main_type(self.engine.module_of(handle).module.name, export)
        return Outcome(0, self._call(handle, export, kind, []))

    def _call(self, handle: int, export: Export, kind: Function, values: Sequence[Any]) -> Any:
        """Call a function of a known type."""
        from llmbol_core.vm.calling import fetch, prepare

        result, fill = prepare(self.heap, self.engine.module_of(handle), export, kind, values)
        try:
            self._run(handle, export, fill)
            return fetch(self.heap, result, kind.result)
        finally:
            self.heap.release(result)

    def _callable(
        self, name: str, entry: str, arguments: Sequence[Any], kind: Kind = None
    ) -> tuple[int, Export, Function, Sequence[Any]]:
        """Return a loaded module's handle, its function, the function's type and arguments."""
        from llmbol_core.vm.calling import INIT
        from llmbol_core.vm.guessing import function_type, given

        most = self.heap.limit
        values, handle = given(arguments, most, name, entry), self._handle(name)
        export = self.engine.module_of(handle).exported(entry)
        found = function_type(name, export, values, kind, most)
        return handle, export, found, [None, values] if found is INIT else values

    def _handle(self, name: str) -> int:
        if as_name(name) not in self._handles:
            raise LinkError(name, f"no module of this name is loaded{nearest(name, self._handles)}")
        return self._handles[name]

    def _start(self, handle: int, export: Export, fill: Callable[[int], None]) -> Process:
        """Return a process that is about to run a function, whose frame has been filled."""
        frame = self.engine.module_of(handle).types[export.type]
        process = self.new_process(None, self.heap.retain(handle), frame)
        process.pc = export.pc
        self.scheduler.add(process)
        try:
            fill(process.fp)
        except BaseException:
            self.kill(process.pid)
            raise
        return process

    def _run(self, handle: int, export: Export, fill: Callable[[int], None]) -> None:
        """Run a function in a process, and all that it spawns; raises what ends the process."""
        self._failures = {}
        process = self._start(handle, export, fill)
        try:
            self._run_processes()
        except Deadlock:
            # Helpers that wait for a program that has ended are no news.
            if process.pid in self.scheduler.processes:
                raise
        finally:
            self._end_all()
        if process.pid in self._failures:
            raise self._failures[process.pid]

    def _run_processes(self) -> None:
        """Run until no process is left, within the limits."""
        seconds = self.limits.seconds
        self._settle()
        until = None if seconds is None else time.monotonic() + seconds
        with Session() as self.session:
            self.scheduler.run(self.limits.instructions, until)
