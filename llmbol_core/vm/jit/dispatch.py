"""What the native interpreter does between instructions, in LLVM's language.

All functions that take the values of ``HEAD`` call each other instead of returning, so that the
host's stack does not grow. One that does return tells the engine why: by a number of ``Reason``.
"""

from __future__ import annotations

import re

from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.guarded import GUARDED
from llmbol_core.vm.jit.library import SHARED_NAMES
from llmbol_core.vm.jit.runtime import (
    HOST_STACK,
    LEAST_LEFT,
    How,
    Machine,
    Reason,
    State,
    Status,
    Survey,
)
from llmbol_core.vm.jit.trapping import TRAPPING
from llmbol_core.vm.jit.turns import HEAD, LOAD_PC, LOAD_PLACE, TURNS
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

INSTRUCTION = f"""
; Where an operand lies, or null if that is behind nil.
define internal ptr @operand(ptr %m, ptr %ip, ptr %f, ptr %d, i64 %number) alwaysinline {{
 %at = getelementptr i8, ptr %ip, i64 {decoded.MODES}
 %where = getelementptr i8, ptr %at, i64 %number
 %mode = load i8, ptr %where
 %fields = getelementptr i8, ptr %ip, i64 {decoded.OPERANDS}
 %own = getelementptr i64, ptr %fields, i64 %number
 %isframe = trunc i8 %mode to i1
 %register = select i1 %isframe, ptr %f, ptr %d
 %first = load i32, ptr %own
 %offset = zext i32 %first to i64
 %special = and i8 %mode, 6
 %usual = icmp eq i8 %special, 0
 br i1 %usual, label %direct, label %other
direct:
 %p = getelementptr i8, ptr %register, i64 %offset
 ret ptr %p
other:
 %isown = icmp eq i8 %special, 2
 br i1 %isown, label %immediate, label %indirect
immediate:
 ret ptr %own
indirect:
 %second = getelementptr i32, ptr %own, i64 1
 %base = load i32, ptr %second
 %basez = zext i32 %base to i64
 %slot = getelementptr i8, ptr %register, i64 %basez
 %ref = load i32, ptr %slot, align 1
 %isnil = icmp eq i32 %ref, -1
 %refz = zext i32 %ref to i64
 %object = getelementptr i8, ptr %m, i64 %refz
 %there = getelementptr i8, ptr %object, i64 %offset
 %found = select i1 %isnil, ptr null, ptr %there
 ret ptr %found
}}

; Note where the process is, and how much it has run.
define internal void @save(ptr %s, ptr %ip, i64 %q) {{
 %cp = getelementptr i64, ptr %s, i64 {State.CODE:d}
 %code = load i64, ptr %cp
 %at = ptrtoint ptr %ip to i64
 %distance = sub i64 %at, %code
 %pc = udiv i64 %distance, {decoded.SIZE}
 %pp = getelementptr i64, ptr %s, i64 {State.PC:d}
 store i64 %pc, ptr %pp
 %gp = call ptr @machine(ptr %s, i64 {Machine.GIVEN:d})
 %given = load i64, ptr %gp
 %used = sub i64 %given, %q
 store i64 0, ptr %gp
 %lp = call ptr @machine(ptr %s, i64 {Machine.LEFT:d})
 %left = load i64, ptr %lp
 %rest = sub i64 %left, %used
 store i64 %rest, ptr %lp
 ret void
}}
"""
"""What all handlers use."""

DISPATCH = f"""
define internal fastcc i64 @python({HEAD}) noinline {{
 call void @save(ptr %s, ptr %ip, i64 %q)
 ret i64 {Reason.PYTHON:d}
}}

define internal fastcc i64 @host({HEAD}) noinline {{
 call void @save(ptr %s, ptr %ip, i64 %q)
 ret i64 {Reason.HOST:d}
}}

define internal fastcc i64 @undecoded({HEAD}) noinline {{
 call void @save(ptr %s, ptr %ip, i64 %q)
 ret i64 {Reason.DECODE:d}
}}

; Count how often an instruction runs.
define internal fastcc i64 @count({HEAD}) noinline {{
 %cp = getelementptr i8, ptr %ip, i64 {decoded.COUNT}
 %count = load i32, ptr %cp
 %less = sub i32 %count, 1
 store i32 %less, ptr %cp
 %hot = icmp slt i32 %less, 0
 br i1 %hot, label %tell, label %go
tell:
 call void @save(ptr %s, ptr %ip, i64 %q)
 ret i64 {Reason.HOT:d}
go:
 %own = getelementptr i8, ptr %ip, i64 {decoded.OWN}
 %h = load ptr, ptr %own
 %r = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}

; Enter machine code, and go on where it leaves the process.
define internal fastcc i64 @enter({HEAD}) noinline {{
 %sizep = getelementptr i8, ptr %ip, i64 {decoded.FRAME}
 %size = load i32, ptr %sizep
 %start = icmp ne i32 %size, 0
 %fpp = getelementptr i64, ptr %s, i64 {State.FP:d}
 %fp = load i32, ptr %fpp
 %end = add i32 %fp, %size
 %tp = getelementptr i64, ptr %s, i64 {State.TOP:d}
 %top = load i32, ptr %tp
 %differs = icmp ne i32 %end, %top
 %misplaced = and i1 %start, %differs
 %xp = call ptr @machine(ptr %s, i64 {Machine.EXACT:d})
 %exact = load i64, ptr %xp
 %counts = icmp ne i64 %exact, 0
 %refuses = or i1 %misplaced, %counts
 br i1 %refuses, label %interpret, label %native
interpret:
 %own = getelementptr i8, ptr %ip, i64 {decoded.OWN}
 %h = load ptr, ptr %own
 %i = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %i
native:
 %here = call ptr @llvm.frameaddress.p0(i32 0)
 %least = getelementptr i8, ptr %here, i64 -{HOST_STACK}
 %np = getelementptr i64, ptr %s, i64 {State.NATIVE_STACK:d}
 store ptr %least, ptr %np
 %ep = getelementptr i8, ptr %ip, i64 {decoded.ENTRY}
 %entry = load ptr, ptr %ep
 %numberp = getelementptr i8, ptr %ip, i64 {decoded.NUMBER}
 %number = load i32, ptr %numberp
 %left = call i64 %entry(ptr %m, ptr %s, i32 %fp, i64 %q, i32 %number)
 %gone = icmp slt i64 %left, {LEAST_LEFT}
 br i1 %gone, label %elsewhere, label %returned
returned:
 %r = musttail call fastcc i64 @returned(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %left)
 ret i64 %r
elsewhere:
 %bp = getelementptr i64, ptr %s, i64 {State.BUDGET:d}
 %rest = load i64, ptr %bp
 %e = musttail call fastcc i64 @left(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %rest)
 ret i64 %e
}}

; Leave the function whose machine code has returned; it has released its references.
define internal fastcc i64 @returned({HEAD}) noinline {{
 %fpp = getelementptr i64, ptr %s, i64 {State.FP:d}
 %fp = load i32, ptr %fpp
 %caller = call i32 @word(ptr %m, i32 %fp, i64 {CALLER})
 %handle = call i32 @word(ptr %m, i32 %fp, i64 {MODULE})
 %pc = call i32 @word(ptr %m, i32 %fp, i64 {RETURN_PC})
 %bp = getelementptr i64, ptr %s, i64 {State.BASE:d}
 %base = load i32, ptr %bp
 %first = icmp eq i32 %fp, %base
 %last = icmp eq i32 %caller, 0
 %stays = icmp eq i32 %handle, 0
 %moves = xor i1 %stays, true
 %rare0 = or i1 %first, %last
 %rare = or i1 %rare0, %moves
 %tp = getelementptr i64, ptr %s, i64 {State.TOP:d}
 br i1 %rare, label %again, label %pop
again:
 %kind = call i32 @word(ptr %m, i32 %fp, i64 {TYPE})
 call void @clear_value(ptr %m, ptr %s, i32 %fp, i32 %kind)
 %size = call i32 @frame_size(ptr %m, ptr %s, i32 %kind)
 %top = add i32 %fp, %size
 %topz = zext i32 %top to i64
 store i64 %topz, ptr %tp
 %frame = call ptr @at(ptr %m, i32 %fp)
 %more = add i64 %q, 1
 %l = musttail call fastcc i64 @op_leave(ptr %m, ptr %s, ptr %ip, ptr %frame, ptr %d, i64 %more)
 ret i64 %l
pop:
 %fpz = zext i32 %fp to i64
 store i64 %fpz, ptr %tp
 %callerz = zext i32 %caller to i64
 store i64 %callerz, ptr %fpp
 %pcz = zext i32 %pc to i64
 %pp = getelementptr i64, ptr %s, i64 {State.PC:d}
 store i64 %pcz, ptr %pp
 %stp = getelementptr i64, ptr %s, i64 {State.STATUS:d}
 store i64 {Status.RETURNED:d}, ptr %stp
 %r = musttail call fastcc i64 @left(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}

; Let Python leave that function.
define internal fastcc i64 @tell_return({HEAD}) noinline {{
 %rest = sub i64 %q, 1
 call void @save(ptr %s, ptr %ip, i64 %rest)
 ret i64 {Reason.RETURN:d}
}}

; Go on where machine code has left the process.
define internal fastcc i64 @left({HEAD}) noinline {{
{LOAD_PC}
{LOAD_PLACE}
 %stp = getelementptr i64, ptr %s, i64 {State.STATUS:d}
 %status = load i32, ptr %stp
 %waits = icmp eq i32 %status, {Status.WAIT:d}
 br i1 %waits, label %wait, label %runs
wait:
 call void @save(ptr %s, ptr %next, i64 %q)
 %w = musttail call fastcc i64 @switch(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %w
runs:
 %paused = icmp eq i32 %status, {Status.BUDGET:d}
 br i1 %paused, label %over, label %tired
over:
 %o = musttail call fastcc i64 @pause(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %o
tired:
 %spent = icmp slt i64 %q, 1
 br i1 %spent, label %late, label %look
late:
 %n = musttail call fastcc i64 @slice_over(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %n
look:
 switch i32 %status, label %go [i32 {Status.INTERPRET:d}, label %interpret]
interpret:
 %own = getelementptr i8, ptr %next, i64 {decoded.OWN}
 %h = load ptr, ptr %own
 %i = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %i
go:
 %g = load ptr, ptr %next
 %r = musttail call fastcc i64 %g(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %r
}}

; What the engine calls to look through the heap: a number of ``Survey``. See garbage.py.
define i32 @survey(ptr %m, ptr %s, i32 %what) {{
 switch i32 %what, label %cycles [i32 {Survey.FREE:d}, label %free
  i32 {Survey.DYING:d}, label %dying i32 {Survey.FRAMES:d}, label %frames
  i32 {Survey.CALLED_FRAMES:d}, label %frames i32 {Survey.HANDLED:d}, label %handled
  i32 {Survey.FOREIGN:d}, label %foreign i32 {Survey.PENDING:d}, label %pending]
pending:
 %oldest = call i32 @take_pending(ptr %m, ptr %s)
 call void @bury(ptr %m, ptr %s, i32 %oldest)
 ret i32 0
handled:
 %is_there = call i32 @find_handled(ptr %m, ptr %s)
 ret i32 %is_there
foreign:
 %frame = call i32 @find_foreign(ptr %m, ptr %s)
 ret i32 %frame
frames:
 %fp = call ptr @machine(ptr %s, i64 {Machine.TABLE:d})
 %start = load i32, ptr %fp
 %ep = call ptr @machine(ptr %s, i64 {Machine.STACK:d})
 %end = load i32, ptr %ep
 %left = icmp eq i32 %what, {Survey.FRAMES:d}
 %are_left = zext i1 %left to i32
 %done = call i32 @release_frames(ptr %m, ptr %s, i32 %start, i32 %end, i32 %are_left)
 ret i32 %done
free:
 %found = call i32 @list_free(ptr %m, ptr %s)
 ret i32 %found
dying:
 %dp = call ptr @machine(ptr %s, i64 {Machine.DYING:d})
 %first = load i32, ptr %dp
 call void @bury(ptr %m, ptr %s, i32 %first)
 ret i32 0
cycles:
 %freed = call i32 @collect(ptr %m, ptr %s)
 ret i32 %freed
}}

; What the engine calls: let the process have its turn, the next one that is ready, or this one
; after a call of the host, whose frame is dropped.
define i64 @run(ptr %m, ptr %s, i32 %how) {{
 switch i32 %how, label %this [i32 {How.NEXT:d}, label %other i32 {How.CALLED:d}, label %called]
other:
 %o = call fastcc i64 @switch(ptr %m, ptr %s, ptr null, ptr null, ptr null, i64 0)
 ret i64 %o
called:
 %hp = call ptr @machine(ptr %s, i64 {Machine.HOST_FRAME:d})
 %frame = load i64, ptr %hp
 %address = trunc i64 %frame to i32
 call void @release_frame(ptr %m, ptr %s, i32 %address)
 %tp = getelementptr i64, ptr %s, i64 {State.TOP:d}
 store i64 %frame, ptr %tp
 br label %this
this:
 %r = call fastcc i64 @resume(ptr %m, ptr %s, ptr null, ptr null, ptr null, i64 0)
 ret i64 %r
}}
"""

_WAY = re.compile(rf"define internal fastcc i64 @(\w+)\({re.escape(HEAD)}\)")
WAYS = tuple(_WAY.findall(DISPATCH + TURNS + GUARDED + TRAPPING))
"""The functions of the core that handlers continue in."""


def way_to(name: str) -> str:
    """Return the text of a function that continues in the one of the core that has its name."""
    return f"""
define internal fastcc i64 @{name}({HEAD}) noinline {{
 %tp = getelementptr i64, ptr %s, i64 {State.SHARED:d}
 %table = load ptr, ptr %tp
 %wp = getelementptr ptr, ptr %table, i64 {len(SHARED_NAMES) + WAYS.index(name)}
 %way = load ptr, ptr %wp
 %r = musttail call fastcc i64 %way(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}
"""
