"""The processes of a machine as files: /prog/N shows process N and takes requests.

ctl      kill, killgrp, exceptions propagate, exceptions notifyleader
wait     a message for each process that ends: this one, and those that it spawns after opening
status   number, group, owner, time, state, size, module     pgrp, nsgrp   numbers of groups
stack    its frames    fd    its open files    ns    its directory    exception    its last one
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from llmbol_core.vm.environment import Variables
from llmbol_core.vm.files.hosttree import Path
from llmbol_core.vm.files.madetree import MadeTree, ShownFiles, missing, no_directory
from llmbol_core.vm.files.openfile import EPERM, OREAD, OWNER, OWRITE, FileFault, OpenFile
from llmbol_core.vm.groups import SHARING, kill, members
from llmbol_core.vm.handles import charge
from llmbol_core.vm.process import IN_ALT, RECEIVES, SENDS
from llmbol_core.vm.systemfiles import (
    DescriptorFiles,
    VariableFiles,
    describe_open_file,
    text_file,
)

if TYPE_CHECKING:
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process

BUILT_IN = "$Sys"
"""The module in which the process is that reads a file."""
EXITED = "thread exited"
STATES = {"": "ready", SENDS: "send", RECEIVES: "recv", IN_ALT: "alt"}
_MOST_WAITING = 1024
_KB = 1024
_INSTRUCTION = 12
"""Bytes that an instruction takes, as Inferno counts."""


def provide_system_files(machine: InfernoVM) -> None:
    """Show what the machine keeps for its programs as /env, /fd and /prog in their tree.

    So is /chan, where programs serve files of their own, and /dev, unless the tree has them.
    """

    def asking() -> Environment:
        return machine.engine.process.environment

    names = machine.environment.namespace
    machine.environment.variables = Variables(partial(charge, machine.heap))
    trees: tuple[tuple[str, str, MadeTree], ...] = (
        ("#e", "/env", VariableFiles(asking)),
        ("#d", "/fd", DescriptorFiles(asking)),
        ("#p", "/prog", ProcessFiles(machine)),
    )
    for device, name, tree in trees:
        names.provide(device, tree)
        names.provide(name, tree)
    for device, name in (("#c", "/dev"), ("#s", "/chan")):
        tree = ShownFiles(device[1], partial(names.shown_in, (name[1:],)))
        names.provide(device, tree)
        try:
            names.stat(name)
        except FileFault:
            names.provide(name, tree)


class ProcessFiles(MadeTree):
    """A directory for each process."""

    device = "p"

    def __init__(self, machine: InfernoVM) -> None:
        self._machine = machine
        self._texts: dict[str, Callable[[Process], str]] = {
            "exception": lambda process: process.last_exception,
            "fd": _descriptors,
            "ns": lambda process: f"cd {_directory(process)}\n",
            "nsgrp": lambda process: f"{id(process.environment.namespace) & 0xFFFFFF:11} ",
            "pgrp": lambda process: f"{process.group:11} ",
            "stack": self._stack,
            "status": self._status,
        }

    def names(self, path: Path) -> list[str]:
        """List the processes, or the files of one."""
        processes = self._machine.scheduler.processes
        if not path:
            return [str(pid) for pid in sorted(processes)]
        if path[0] not in map(str, processes):
            raise missing()
        files = ["ctl", "wait", *self._texts]
        if len(path) == 1:
            return files
        if path[1] not in files or len(path) > 2:
            raise missing()
        raise no_directory()

    def permission(self, path: Path) -> int:
        """Return what can be done: write to ctl, read everything else."""
        return 0o200 if path[1] == "ctl" else 0o444

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Open a file of a process."""
        number, name = int(path[0]), path[1]
        if name == "ctl":
            if access != OWRITE:
                raise FileFault(EPERM)
            return _Control(text, access, lambda request: self._control(number, request))
        if name == "wait":
            if access != OREAD:
                raise FileFault(EPERM)
            self._machine.engine.observe()
            return _Wait(text, self._process(number).environment)
        return text_file(text, access, lambda: self._texts[name](self._process(number)))

    def _process(self, number: int) -> Process:
        try:
            return self._machine.scheduler.processes[number]
        except KeyError:
            raise FileFault(EXITED) from None

    def _control(self, number: int, request: str) -> None:
        """Do what is requested of a process; the effect on the requesting one is immediate."""
        process, words = self._process(number), request.split()
        self._do(process, words)
        asking, scheduler = self._machine.engine.process, self._machine.scheduler
        if (fault := asking.fault) is not None and scheduler.is_running(asking):
            asking.fault = None
            raise fault

    def _do(self, process: Process, words: list[str]) -> None:
        match words:
            case ["kill"]:
                kill(self._machine, process)
            case ["killgrp"]:
                for member in members(self._machine, process):
                    if member is not self._machine.engine.process:
                        kill(self._machine, member)
            case ["exceptions", mode]:
                if process.group != process.pid:
                    raise FileFault(EPERM)
                if mode not in SHARING:
                    raise FileFault("bad process or channel control request")
                self._machine.engine.observe()
                process.sharing = mode
            case ["restricted" | "private"]:
                pass  # nothing here grants more than that
            case _:
                known = f'unknown control message "{" ".join(words)}"'
                raise FileFault(known if words else "empty control message")

    def _status(self, process: Process) -> str:
        module = process.module.module
        size = (module.data_size + _INSTRUCTION * len(module.instructions)) // _KB
        name = place_of(process)
        if process is self._machine.engine.process:
            name = f"{name}[{BUILT_IN}]"
        elif name != module.name:
            name = f"{module.name}[{name}]"
        numbers = f"{process.pid:8} {process.group:8} {OWNER:>10} {0:4}:00.0"
        return f"{numbers} {_state(process):>10} {size:5}K {name}"

    def _stack(self, process: Process) -> str:
        from llmbol_core.vm.exceptions import levels

        lines = []
        for level in levels(self._machine.engine, process):
            data = self._machine.heap.pointer(level.handle)
            numbers = f"{level.frame:08x} {level.pc:08x} {data:08x} {0:08x} 0"
            lines.append(f"{numbers} {level.module.path}\n")
        return "".join(lines)


def _state(process: Process) -> str:
    """Return what Inferno calls the state of a process."""
    return STATES.get(process.waits_for, "release")


def place_of(process: Process) -> str:
    """Return the name of the module that a process is in."""
    return process.called if _state(process) == "release" else process.module.module.name


def _directory(process: Process) -> str:
    return "/" + "/".join(process.environment.namespace.directory)


def _descriptors(process: Process) -> str:
    found = process.environment.descriptors
    lines = [describe_open_file(number, found[number]) for number in found.numbers]
    return f"{_directory(process)}\n" + "".join(lines)


class _Control(OpenFile):
    """A file that takes one request in each write."""

    def __init__(self, path: str, mode: int, obey: Callable[[str], None]) -> None:
        super().__init__(path, mode)
        self._obey = obey

    def _write(self, data: bytes, offset: int) -> int:
        self._obey(data.decode(errors="replace"))
        return len(data)


class _Wait(OpenFile):
    """Messages about processes that have ended; each read returns one of them."""

    is_stream = True
    waits_for_processes = True

    def __init__(self, path: str, environment: Environment) -> None:
        super().__init__(path, OREAD)
        self._messages: deque[bytes] = deque()
        self._environment = environment
        self._is_open = True
        environment.on_end = self._take

    def is_ready(self) -> bool:
        """Say whether a process has ended."""
        return bool(self._messages)

    def close(self) -> None:
        """Let nobody be told any more."""
        self._is_open = False
        self._messages.clear()

    def _take(self, message: str) -> None:
        if self._is_open and sum(map(len, self._messages)) < _MOST_WAITING:
            self._messages.append(message.encode())

    def _read(self, count: int, offset: int) -> bytes:
        return self._messages.popleft()[:count] if self._messages else b""
