"""Where a process may be made to wait while others run, besides the instructions that wait.

Between two such places a process runs as if it were alone: an address that it takes at one
instruction leads to the same object at the next. Every loop and every function has such a place, so
that a process keeps others waiting at most for the length of its code.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.module import Module

_COMES_BACK = (Effect.CALL, Effect.WAIT)
MOVING = (Effect.JUMP, Effect.BRANCH)
"""Effects of instructions that lead elsewhere: anywhere if the label is kept in a word."""


def pauses(module: Module) -> frozenset[int]:
    """Return the instructions before which a process may have to wait.

    They are those that branches lead back to, that functions or handlers begin with, that calls
    return to, and that jump through a table or may go to an address.
    """
    return frozenset(_pauses(module))


def _pauses(module: Module) -> Iterator[int]:
    yield module.entry_pc
    yield from (export.pc for export in module.exports)
    for handler in module.handlers:
        yield from (pc for _, pc in handler.labels)
        yield handler.default_pc
    for pc, instruction in enumerate(module.instructions):
        op, label = instruction.op, instruction.destination
        is_call = op.effect is Effect.CALL or op.mnemonic == "spawn"
        if op.effect in _COMES_BACK:
            yield pc + 1
        if op.has_label and label.mode is Mode.IMMEDIATE:
            if is_call or label.value <= pc:
                yield label.value
        elif op.effect in MOVING:
            yield pc
