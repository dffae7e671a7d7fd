"""How the native interpreter comes to an instruction with guards, in LLVM's language."""

from __future__ import annotations

from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.runtime import Reason, State
from llmbol_core.vm.jit.turns import HEAD

GUARDED = f"""
; Look whether an instruction may run, and run it.
define internal fastcc i64 @guarded({HEAD}) noinline {{
 %cp = getelementptr i64, ptr %s, i64 {State.CODE:d}
 %code = load i64, ptr %cp
 %at = ptrtoint ptr %ip to i64
 %distance = sub i64 %at, %code
 %pc = udiv i64 %distance, {decoded.SIZE}
 %first = inttoptr i64 %code to ptr
 %gp = getelementptr i8, ptr %first, i64 {decoded.GUARDS}
 %table = load ptr, ptr %gp
 %bp = getelementptr i64, ptr %table, i64 %pc
 %block = load i64, ptr %bp
 %arena = ptrtoint ptr %m to i64
 %frame = ptrtoint ptr %f to i64
 %data = ptrtoint ptr %d to i64
 %fz = sub i64 %frame, %arena
 %dz = sub i64 %data, %arena
 %fp = trunc i64 %fz to i32
 %mp = trunc i64 %dz to i32
 %ok = call i32 @passes(ptr %m, ptr %s, i64 %block, i32 %fp, i32 %mp)
 %refused = icmp eq i32 %ok, 0
 br i1 %refused, label %tell, label %go
tell:
 call void @save(ptr %s, ptr %ip, i64 %q)
 ret i64 {Reason.PYTHON:d}
go:
 %own = inttoptr i64 %block to ptr
 %h = load ptr, ptr %own
 %r = musttail call fastcc i64 %h(ptr %m, ptr %s, ptr %ip, ptr %f, ptr %d, i64 %q)
 ret i64 %r
}}
"""
