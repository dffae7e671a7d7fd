"""The control and status words of $Math for machine code: a process's word, as in ``ieee.py``."""

from __future__ import annotations

from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.ieee import CAREFUL, CONTROL, EXCEPTIONS, HAPPENED, WATCHED
from llmbol_core.vm.jit.builtins.math import give_number
from llmbol_core.vm.jit.hostcode import hosted
from llmbol_core.vm.jit.runtime import State
from llmbol_core.vm.jit.source import W, Word, inlined, narrow, state, wide


@inlined
def changed(frame: Word, old: Word) -> Word:
    """Return bits with those under a call's mask changed."""
    mask = W[frame + ARGUMENTS + 4]
    return (W[frame + ARGUMENTS] & mask) | (old & (mask ^ -1))


@hosted("Math.FPcontrol")
def math_fpcontrol(frame: Word) -> Word:
    """Set bits of the control word, if the process goes on as careful as it is; return the old."""
    word = narrow(state[State.FLOATING])
    old = word & CONTROL
    new = changed(frame, old) & CONTROL
    is_careful = CAREFUL if new != 0 or word & WATCHED else 0
    if is_careful != word & CAREFUL:
        return 0
    if not give_number(frame, old & W[frame + ARGUMENTS + 4]):
        return 0
    state[State.FLOATING] = wide(word ^ old | new)
    return 1


@hosted("Math.FPstatus")
def math_fpstatus(frame: Word) -> Word:
    """Set bits of the status word; return the old ones."""
    word = narrow(state[State.FLOATING])
    old = word >> HAPPENED & EXCEPTIONS
    new = changed(frame, old) & EXCEPTIONS
    if not give_number(frame, old & W[frame + ARGUMENTS + 4]):
        return 0
    state[State.FLOATING] = wide(word ^ old << HAPPENED | new << HAPPENED)
    return 1


@hosted("Math.getFPcontrol")
def math_get_fpcontrol(frame: Word) -> Word:
    """Return the control word."""
    return give_number(frame, narrow(state[State.FLOATING]) & CONTROL)


@hosted("Math.getFPstatus")
def math_get_fpstatus(frame: Word) -> Word:
    """Return the status word."""
    return give_number(frame, narrow(state[State.FLOATING]) >> HAPPENED & EXCEPTIONS)
