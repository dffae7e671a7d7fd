"""How processes take turns in the native interpreter, in LLVM's language; see ``dispatch.py``."""

from __future__ import annotations

from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.runtime import Machine, Reason, State

HEAD = "ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q"
"""Arena, record, instruction, frame, module data, and how many instructions may still run."""

LOAD_PC = f""" %pp = getelementptr i64, ptr %s, i64 {State.PC:d}
 %pc = load i64, ptr %pp
 %cp = getelementptr i64, ptr %s, i64 {State.CODE:d}
 %code = load ptr, ptr %cp"""
LOAD_PLACE = f""" %at = mul i64 %pc, {decoded.SIZE}
 %next = getelementptr i8, ptr %code, i64 %at
 %fpp = getelementptr i64, ptr %s, i64 {State.FP:d}
 %fp = load i64, ptr %fpp
 %frame = getelementptr i8, ptr %m, i64 %fp
 %mpp = getelementptr i64, ptr %s, i64 {State.MP:d}
 %mp = load i64, ptr %mpp
 %data = getelementptr i8, ptr %m, i64 %mp"""
"""Text that loads where the process is: its instruction, frame and module data."""

TURNS = f"""
; Let a process have its turn, which is in the record given as %s.
define internal fastcc i64 @resume({HEAD}) noinline {{
 %lp = call ptr @machine(ptr %s, i64 {Machine.LEFT:d})
 %left = load i64, ptr %lp
 %none = icmp slt i64 %left, 1
 br i1 %none, label %stop, label %look
stop:
 ret i64 {Reason.SPENT:d}
look:
 %fp = getelementptr i64, ptr %s, i64 {State.FAULT:d}
 %fault = load i64, ptr %fp
 %faulty = icmp ne i64 %fault, 0
 br i1 %faulty, label %raise, label %go
raise:
 ret i64 {Reason.PYTHON:d}
go:
 %sp = call ptr @machine(ptr %s, i64 {Machine.SLICE:d})
 %slice = load i64, ptr %sp
 %given = call i64 @llvm.smin.i64(i64 %left, i64 %slice)
 %gp = call ptr @machine(ptr %s, i64 {Machine.GIVEN:d})
 store i64 %given, ptr %gp
 %r = musttail call fastcc i64 @continue(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %given)
 ret i64 %r
}}

; Go on where the record says; Python deals with a pc that is none.
define internal fastcc i64 @continue({HEAD}) noinline {{
{LOAD_PC}
 %head = getelementptr i8, ptr %code, i64 -{decoded.SIZE}
 %count = load i64, ptr %head
 %outside = icmp uge i64 %pc, %count
 br i1 %outside, label %tell, label %go
tell:
 %gp = call ptr @machine(ptr %s, i64 {Machine.GIVEN:d})
 store i64 0, ptr %gp
 ret i64 {Reason.PYTHON:d}
go:
{LOAD_PLACE}
 %h = load ptr, ptr %next
 %r = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %next, ptr %frame, ptr %data, i64 %q)
 ret i64 %r
}}

; Let the next process have its turn, if there is time; the state of this one is saved.
define internal fastcc i64 @switch({HEAD}) noinline {{
 %lp = call ptr @machine(ptr %s, i64 {Machine.LEFT:d})
 %left = load i64, ptr %lp
 %ap = call ptr @machine(ptr %s, i64 {Machine.LOOK_AT:d})
 %least = load i64, ptr %ap
 %asks = icmp sle i64 %left, %least
 br i1 %asks, label %ask, label %take
ask:
 %time = call i32 @switches(ptr %m, ptr %s)
 %late = icmp eq i32 %time, 0
 br i1 %late, label %idle, label %take
take:
 %record = call i64 @next_ready(ptr %m, ptr %s)
 %none = icmp eq i64 %record, 0
 br i1 %none, label %idle, label %go
idle:
 ret i64 {Reason.IDLE:d}
go:
 %next = inttoptr i64 %record to ptr
 %r = musttail call fastcc i64 @resume(ptr %m, ptr %next, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}

; Let others have their turn as soon as the process comes to where they may.
define internal fastcc i64 @slice_over({HEAD}) noinline {{
 %lp = call ptr @machine(ptr %s, i64 {Machine.LEFT:d})
 %left = load i64, ptr %lp
 %gp = call ptr @machine(ptr %s, i64 {Machine.GIVEN:d})
 %given = load i64, ptr %gp
 %unused = sub i64 1, %q
 %more = add i64 %given, %unused
 %spent = icmp sgt i64 %more, %left
 %wp = getelementptr i8, ptr %ip, i64 {decoded.PAUSE}
 %where = load i8, ptr %wp
 %may = icmp ne i8 %where, 0
 %stops = or i1 %spent, %may
 br i1 %stops, label %stop, label %go
stop:
 %r = musttail call fastcc i64 @pause(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
go:
 store i64 %more, ptr %gp
 %h = load ptr, ptr %ip
 %g = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 1)
 ret i64 %g
}}

; Let the next process have its turn, or this one again if there is no other.
define internal fastcc i64 @pause({HEAD}) noinline {{
 call void @save(ptr %s, ptr %ip, i64 %q)
 %lp = call ptr @machine(ptr %s, i64 {Machine.LEFT:d})
 %left = load i64, ptr %lp
 %none = icmp slt i64 %left, 1
 %time = call i32 @ends_slice(ptr %m, ptr %s)
 %late = icmp eq i32 %time, 0
 %spent = or i1 %none, %late
 br i1 %spent, label %stop, label %look
stop:
 ret i64 {Reason.SPENT:d}
look:
 %own = ptrtoint ptr %s to i64
 call void @make_ready(ptr %m, ptr %s, i64 %own)
 %r = musttail call fastcc i64 @switch(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}
"""
