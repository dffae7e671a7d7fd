"""What traps, for the native interpreter: it goes on in a handler by itself if there is one.

A guard can tell which exception the reference engine would raise. If native code finds no handler
for it, or cannot go there, Python runs the instruction, and raises.
"""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.isa import ZERO_DIVIDE
from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.runtime import State
from llmbol_core.vm.jit.turns import HEAD, LOAD_PC, LOAD_PLACE

TRAPS = (
    traps.NIL_DEREFERENCE, traps.BOUNDS, ZERO_DIVIDE, traps.NOT_LOADED, traps.TYPE_CHECK,
)  # fmt: skip
"""The exceptions that guards tell of."""
ROW = 32
"""Bytes of a row of the table of their names: the length, and the text."""


def trap_names() -> bytes:
    """Return the table of the names of ``TRAPS``."""
    return b"".join(bytes([len(name), *name.encode()]).ljust(ROW, b"\0") for name in TRAPS)


def trapping(trap: str) -> str:
    """Return the name of the function that raises an exception at the current instruction."""
    return f"@trap_{TRAPS.index(trap)}"


def _text(trap: str) -> str:
    return f"""
define internal fastcc i64 {trapping(trap)}({HEAD}) noinline {{
 %cp0 = getelementptr i64, ptr %s, i64 {State.CODE:d}
 %code0 = load i64, ptr %cp0
 %here = ptrtoint ptr %ip to i64
 %distance = sub i64 %here, %code0
 %pc0 = udiv i64 %distance, {decoded.SIZE}
 %pc1 = trunc i64 %pc0 to i32
 %done = call i32 @raise_trap(ptr %m, ptr %s, i32 {TRAPS.index(trap)}, i32 %pc1)
 %l = sub i64 %q, 1
 %unhandled = icmp eq i32 %done, 0
 br i1 %unhandled, label %tell, label %handled
tell:
 %t = musttail call fastcc i64 @python(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %t
handled:
{LOAD_PC}
{LOAD_PLACE}
 %over = icmp slt i64 %l, 1
 br i1 %over, label %late, label %go
late:
 %o = musttail call fastcc i64 @slice_over(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %l)
 ret i64 %o
go:
 %h = load ptr, ptr %next
 %r = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %l)
 ret i64 %r
}}
"""


TRAPPING = "".join(map(_text, TRAPS))
