"""Exceptions: finding the handler, unwinding to it, and what happens where there is none.

An exception is a string, or an object whose first word is the string of its name. Handlers are
searched frame by frame from where it was raised, each module's in the order of its table. Typed
labels match objects, by exact name; patterns match strings, exactly or up to a trailing ``*``; a
default takes both. An object is seen by the frame that raised it and by that frame's caller; beyond
them only its name is passed on, as a string.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.errors import Trap
from llmbol_core.vm.arena import MANY, NIL
from llmbol_core.vm.module import Handler
from llmbol_core.vm.process import CALLER, LEAST_FRAME, MODULE, RETURN_PC, Process, Raised
from llmbol_core.vm.strings import for_exception

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter
    from llmbol_core.vm.loader import LoadedModule


class Level(NamedTuple):
    """One frame of the call stack: the module whose code runs in it, and at which instruction."""

    frame: int
    module: LoadedModule
    handle: int
    pc: int


class Caught(NamedTuple):
    """Where an exception is handled, and whether as an object."""

    level: Level
    handler: Handler
    pc: int
    is_object: bool


def deliver(engine: Interpreter, process: Process, error: Trap | Raised) -> bool:
    """Continue the process in its handler for an exception; false if it has none.

    The process's pc is that of the instruction that raised. An exception without a name skips all
    handlers. Takes over the reference to the exception's object.
    """
    heap = engine.heap
    if error.name:
        built_in = error.module if isinstance(error, Trap) else ""
        process.note_exception(process.pc, process.module, error.name, built_in)
    value = error.value if isinstance(error, Raised) else NIL
    caught = find_handler(engine, process, error.name, value != NIL) if error.name else None
    if caught is None:
        heap.release(value)
        return False
    process.environment.error = error.name
    frame, handler = caught.level.frame, caught.handler
    _unwind(engine, process, frame)
    if handler.type >= 0:
        heap.release_value(frame, caught.level.module.types[handler.type])
    if not caught.is_object:
        heap.release(value)
        value = for_exception(heap, error.name)
    heap.give(frame + handler.offset, value)
    process.pc = caught.pc
    return True


def find_handler(
    engine: Interpreter, process: Process, name: str, is_object: bool
) -> Caught | None:
    """Return where a process would handle an exception, raised as an object or a string."""
    for depth, level in enumerate(engine.handled_levels(process)):
        found = _match(level, name, is_object)
        if found is None and is_object and depth > 0:
            is_object = False
            found = _match(level, name, is_object)
        if found is not None:
            return Caught(level, *found, is_object)
    return None


def levels(engine: Interpreter, process: Process) -> Iterator[Level]:
    """Yield the frames of a process from the innermost."""
    level: Level | None = innermost(process)
    for number in range(engine.heap.limit // LEAST_FRAME):
        if level is None:
            return
        if not number % MANY:
            engine.heap.pause()
        yield level
        level = caller_of(engine, level)


def innermost(process: Process) -> Level:
    """Return the frame that a process is in."""
    return Level(process.fp, process.module, process.handle, process.pc)


def caller_of(engine: Interpreter, level: Level) -> Level | None:
    """Return the frame that a frame was called from, None for the bottom one."""
    word, frame = engine.heap.pointer, level.frame
    handle = word(frame + MODULE) or level.handle
    caller = word(frame + CALLER)
    if not caller:
        return None
    return Level(caller, engine.module_of(handle), handle, word(frame + RETURN_PC) - 1)


def _match(level: Level, name: str, is_object: bool) -> tuple[Handler, int] | None:
    """Return the first handler of a frame that takes an exception, and the pc where it begins."""
    for handler in level.module.module.handlers:
        if not handler.pc1 <= level.pc < handler.pc2:
            continue
        labels = handler.labels[: handler.typed] if is_object else handler.labels[handler.typed :]
        for pattern, pc in labels:
            if _fits(pattern, name):
                return handler, pc
        if handler.default_pc >= 0:
            return handler, handler.default_pc
    return None


def _fits(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def _unwind(engine: Interpreter, process: Process, target: int) -> None:
    """Drop all frames above one, called or not, and return to its module."""
    word = engine.heap.pointer
    frame = engine.foreign_frame(process.fp, target)
    while frame != target:
        handle = word(frame + MODULE)
        if handle:
            engine.leave_module(process, handle)
        frame = engine.foreign_frame(word(frame + CALLER), target)
    process.fp = target
    process.stack.pop_above(target)
