"""Helpers of machine code in LLVM's language: links of module handles, frames, the host's stack."""

from __future__ import annotations

import platform

from llmbol_core.vm.jit.runtime import LINK_HEADER, LINK_WORDS, State

_STACK_REGISTERS = {"x86_64": "rsp", "AMD64": "rsp", "aarch64": "sp", "arm64": "sp"}


def _host_stack() -> str:
    """Return code that finds the end of the host's stack; a frame's address takes a register."""
    register = _STACK_REGISTERS.get(platform.machine())
    if register is None:
        return " %p = call ptr @llvm.frameaddress.p0(i32 0)"
    return f""" %i = call i64 @llvm.read_register.i64(metadata !{{!"{register}"}})
 %p = inttoptr i64 %i to ptr"""


LINKAGE = f"""
declare i64 @llvm.read_register.i64(metadata)

define internal ptr @host_stack() alwaysinline {{
{_host_stack()}
 ret ptr %p
}}

; The heap's number for a type of a frame that waits while machine code is left: it may be another
; module's.
define internal i32 @waiting_type_number(ptr %s, i64 %i) alwaysinline {{
 %p = getelementptr i64, ptr %s, i64 {State.WAITING_TYPES:d}
 %types = load ptr, ptr %p
 %q = getelementptr i32, ptr %types, i64 %i
 %v = load i32, ptr %q
 ret i32 %v
}}

; What is known of a handle's module and links, or null.
define internal ptr @links_of(ptr %m, ptr %s, i32 %handle) alwaysinline {{
 %number = call i32 @word(ptr %m, i32 %handle, i64 4)
 %z = zext i32 %number to i64
 %sp = getelementptr i64, ptr %s, i64 {State.LINKS:d}
 %tp = load ptr, ptr %sp
 %cp = getelementptr i64, ptr %tp, i64 1
 %known = load i64, ptr %cp
 %beyond = icmp uge i64 %z, %known
 %at = select i1 %beyond, i64 0, i64 %z
 %table = load ptr, ptr %tp
 %rp = getelementptr ptr, ptr %table, i64 %at
 %record = load ptr, ptr %rp
 ret ptr %record
}}

define internal i64 @tables_of(ptr %m, ptr %s, i32 %handle) {{
 %record = call ptr @links_of(ptr %m, ptr %s, i32 %handle)
 %i = ptrtoint ptr %record to i64
 ret i64 %i
}}

; What link i of a handle leads to, or null.
define internal ptr @link(ptr %m, ptr %s, i32 %handle, i32 %i) alwaysinline {{
 %record = call ptr @links_of(ptr %m, ptr %s, i32 %handle)
 %missing = icmp eq ptr %record, null
 br i1 %missing, label %none, label %there
there:
 %count = load i64, ptr %record
 %iz = zext i32 %i to i64
 %outside = icmp uge i64 %iz, %count
 br i1 %outside, label %none, label %found
found:
 %at = mul i64 %iz, {LINK_WORDS}
 %at1 = add i64 %at, {LINK_HEADER}
 %link = getelementptr i64, ptr %record, i64 %at1
 ret ptr %link
none:
 ret ptr null
}}

; Begin a frame of a type: its links and pointers are nil.
define internal void @begin_frame(ptr %m, ptr %s, i32 %fp, i32 %type) noinline {{
start:
 call void @put(ptr %m, i32 %fp, i64 0, i32 0)
 call void @put(ptr %m, i32 %fp, i64 4, i32 0)
 call void @put(ptr %m, i32 %fp, i64 8, i32 0)
 call void @put(ptr %m, i32 %fp, i64 12, i32 %type)
 call void @put(ptr %m, i32 %fp, i64 16, i32 -1)
 %map = call ptr @map(ptr %s, i32 %type)
 %np = getelementptr i32, ptr %map, i64 1
 %n = load i32, ptr %np
 %none = icmp eq i32 %n, 0
 br i1 %none, label %out, label %pointer
pointer:
 %i = phi i32 [0, %start], [%i1, %pointer]
 %iz = zext i32 %i to i64
 %op = getelementptr i32, ptr %np, i64 1
 %oq = getelementptr i32, ptr %op, i64 %iz
 %off = load i32, ptr %oq
 %slot = add i32 %fp, %off
 call void @put(ptr %m, i32 %slot, i64 0, i32 -1)
 %i1 = add i32 %i, 1
 %more = icmp ult i32 %i1, %n
 br i1 %more, label %pointer, label %out
out:
 ret void
}}
"""
