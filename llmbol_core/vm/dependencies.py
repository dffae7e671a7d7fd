"""Which modules a module loads: the constants that its load instructions name, and theirs in turn.

A path that a program computes cannot be known before it runs; such a load is listed by its pc.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from llmbol_core.errors import DisFormatError, LlmbolError
from llmbol_core.vm.isa import OPCODES, Mode
from llmbol_core.vm.module import DataKind, Module
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.payload import find

_LOAD = OPCODES["load"]


@dataclass(frozen=True)
class Load:
    """A load instruction: the path if it is a constant, and the number of the import list."""

    pc: int
    path: str | None
    imports: int


@dataclass(frozen=True)
class Dependency:
    """A module that another one loads; ``depth`` is 1 for what the file itself loads.

    The state is ``built-in``, ``itself``, ``found``, ``missing``, ``computed`` (``path`` then tells
    the pc), ``unknown`` where no tree was given to look in, or what is wrong with the file.
    """

    depth: int
    loaded_by: str
    path: str
    state: str


def loads(module: Module) -> list[Load]:
    """Return what a module loads, in the order of its instructions."""
    texts: dict[int, str] = {}
    depth = 0
    for item in module.data:
        depth += (item.kind is DataKind.DIND) - (item.kind is DataKind.DAPOP)
        if item.kind is DataKind.DEFS and not depth:
            texts[item.offset] = item.text
    found = []
    for pc, instruction in enumerate(module.instructions):
        if instruction.opcode == _LOAD:
            source, middle = instruction.source, instruction.middle
            path = texts.get(source.value) if source.mode is Mode.MP else None
            number = middle.value if middle.mode is Mode.IMMEDIATE else -1
            found.append(Load(pc, path, number))
    return found


def check_payload(module: Module, file: memoryview, path: str) -> None:
    """Raise DisFormatError if a file lacks the payload that its module asks ``$Ml`` for."""
    lists = [load.imports for load in loads(module) if load.path == "$Ml"]
    wanted = (i.name for n in lists if 0 <= n < len(module.imports) for i in module.imports[n])
    if find(file, path) is None and "payload" in wanted:
        why = "the program asks for its payload, but the file carries none or has lost its end"
        raise DisFormatError(path, len(file), why)


def dependencies(
    module: Module, path: str, built_in: Container[str], read: Callable[[str], bytes] | None
) -> list[Dependency]:
    """Return what a module loads and, if files can be read, what those load, each file once.

    ``read`` returns a file of the program's tree, or raises LlmbolError. A module stands before
    what it loads itself.
    """
    found: list[Dependency] = []
    seen = {path}

    def visit(parent: Module, name: str, depth: int) -> None:
        for wanted in dict.fromkeys(load.path or f"pc {load.pc}" for load in loads(parent)):
            state, child = (
                _look_up(wanted, built_in, read) if wanted not in seen else ("found", None)
            )
            found.append(Dependency(depth, name, wanted, state))
            if child is not None:
                seen.add(wanted)
                visit(child, wanted, depth + 1)

    visit(module, path, 1)
    return found


def _look_up(
    path: str, built_in: Container[str], read: Callable[[str], bytes] | None
) -> tuple[str, Module | None]:
    """Return the state of a path, and its module if that is a file."""
    if path.startswith("pc "):
        return "computed", None
    if path == "$self":
        return "itself", None
    if path.startswith("$"):
        return "built-in" if path in built_in else "missing", None
    if read is None:
        return "unknown", None
    try:
        data = read(path)
    except LlmbolError:
        return "missing", None
    try:
        return "found", read_module(data, path)
    except LlmbolError as error:
        return str(error), None
