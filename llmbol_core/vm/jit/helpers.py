"""Helpers of machine code in LLVM's language: counting, releasing, allocating.

Reference counts are changed inline. An object that loses its last reference is taken apart by
the code in ``burial.py``.
"""

from __future__ import annotations

from llmbol_core.vm.arena import CHUNK, CHUNK_END, FREE_LISTS, HEADER, KIND, SMALL
from llmbol_core.vm.jit.runtime import Machine, State, tag

_COUNT = tag("count")
HELPERS = f"""
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i32 @llvm.abs.i32(i32, i1)
declare i32 @llvm.smax.i32(i32, i32)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare double @llvm.sqrt.f64(double)
declare i32 @llvm.usub.sat.i32(i32, i32)
declare ptr @llvm.frameaddress.p0(i32)
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare i64 @llvm.bswap.i64(i64)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

define internal ptr @at(ptr %m, i32 %r) alwaysinline {{
 %z = zext i32 %r to i64
 %p = getelementptr i8, ptr %m, i64 %z
 ret ptr %p
}}

; Have an object's header at hand soon.
define internal void @prefetch(ptr %m, ptr %s, i32 %r) alwaysinline {{
 %p = call ptr @at(ptr %m, i32 %r)
 %q = getelementptr i8, ptr %p, i64 {KIND}
 call void @llvm.prefetch.p0(ptr %q, i32 0, i32 3, i32 1)
 ret void
}}

; The same for what is outside of the arena.
define internal void @prefetch_host(ptr %m, ptr %s, i64 %a) alwaysinline {{
 %p = inttoptr i64 %a to ptr
 call void @llvm.prefetch.p0(ptr %p, i32 1, i32 3, i32 1)
 ret void
}}

define internal i32 @word(ptr %m, i32 %r, i64 %off) alwaysinline {{
 %p = call ptr @at(ptr %m, i32 %r)
 %q = getelementptr i8, ptr %p, i64 %off
 %v = load i32, ptr %q, align 4
 ret i32 %v
}}

define internal void @put(ptr %m, i32 %r, i64 %off, i32 %v) alwaysinline {{
 %p = call ptr @at(ptr %m, i32 %r)
 %q = getelementptr i8, ptr %p, i64 %off
 store i32 %v, ptr %q, align 4
 ret void
}}

; A word that the processes share.
define internal ptr @machine(ptr %s, i64 %word) alwaysinline {{
 %p = getelementptr i64, ptr %s, i64 {State.MACHINE:d}
 %machine = load ptr, ptr %p
 %q = getelementptr i64, ptr %machine, i64 %word
 ret ptr %q
}}

; Size, count and offsets of pointers of a type; those of type 0, none, if there is no such type.
define internal ptr @map(ptr %s, i32 %type) alwaysinline {{
 %cp = call ptr @machine(ptr %s, i64 {Machine.MAP_COUNT:d})
 %count = load i32, ptr %cp
 %known = icmp ult i32 %type, %count
 %number = select i1 %known, i32 %type, i32 0
 %p = call ptr @machine(ptr %s, i64 {Machine.MAPS:d})
 %maps = load ptr, ptr %p
 %z = zext i32 %number to i64
 %q = getelementptr i32, ptr %maps, i64 %z
 %i = load i32, ptr %q
 %iz = zext i32 %i to i64
 %r = getelementptr i32, ptr %maps, i64 %iz
 ret ptr %r
}}

define internal i64 @turned(ptr %m, ptr %s, i64 %value) alwaysinline {{
 %t = call i64 @llvm.bswap.i64(i64 %value)
 ret i64 %t
}}

define internal i64 @type_map(ptr %m, ptr %s, i32 %type) alwaysinline {{
 %p = call ptr @map(ptr %s, i32 %type)
 %i = ptrtoint ptr %p to i64
 ret i64 %i
}}

define internal i32 @type_number(ptr %s, i64 %i) alwaysinline {{
 %p = getelementptr i64, ptr %s, i64 {State.TYPES:d}
 %types = load ptr, ptr %p
 %q = getelementptr i32, ptr %types, i64 %i
 %v = load i32, ptr %q
 ret i32 %v
}}

define internal void @retain(ptr %m, i32 %r) alwaysinline {{
 %nil = icmp eq i32 %r, -1
 br i1 %nil, label %out, label %do
do:
 %p = call ptr @at(ptr %m, i32 %r)
 %q = getelementptr i8, ptr %p, i64 -16
 %c = load i32, ptr %q, align 4{_COUNT}
 %c1 = add i32 %c, 1
 store i32 %c1, ptr %q, align 4{_COUNT}
 br label %out
out:
 ret void
}}

define internal void @release(ptr %m, ptr %s, i32 %r) alwaysinline {{
 %nil = icmp eq i32 %r, -1
 br i1 %nil, label %out, label %do
do:
 %p = call ptr @at(ptr %m, i32 %r)
 %q = getelementptr i8, ptr %p, i64 -16
 %c = load i32, ptr %q, align 4{_COUNT}
 %last = icmp eq i32 %c, 1
 br i1 %last, label %dead, label %dec, !prof !0
dec:
 %c1 = call i32 @llvm.usub.sat.i32(i32 %c, i32 1)
 store i32 %c1, ptr %q, align 4{_COUNT}
 br label %out
dead:
 call preserve_mostcc void @last(ptr %m, ptr %s, i32 %r)
 br label %out
out:
 ret void
}}

; One reference less to a child; if it was the last, the child joins the dying.
define internal i32 @drop(ptr %m, ptr %s, i32 %r, i32 %dying) alwaysinline {{
 %nil = icmp eq i32 %r, -1
 br i1 %nil, label %out, label %do
do:
 %c = call i32 @word(ptr %m, i32 %r, i64 -16)
 %others = icmp ne i32 %c, 1
 br i1 %others, label %dec, label %dead, !prof !0
dec:
 %c1 = call i32 @llvm.usub.sat.i32(i32 %c, i32 1)
 call void @put(ptr %m, i32 %r, i64 -16, i32 %c1)
 br label %out
dead:
 call void @put(ptr %m, i32 %r, i64 -16, i32 %dying)
 br label %out
out:
 %next = phi i32 [%dying, %0], [%dying, %dec], [%r, %dead]
 ret i32 %next
}}

define internal preserve_mostcc void @last(ptr %m, ptr %s, i32 %ref) noinline {{
 call void @put(ptr %m, i32 %ref, i64 -16, i32 0)
 call void @bury(ptr %m, ptr %s, i32 %ref)
 ret void
}}

define internal void @keep(ptr %m, ptr %s, i32 %r) alwaysinline {{
 call void @retain(ptr %m, i32 %r)
 ret void
}}
"""
ALLOCATING = f"""
; A new block of so many bytes with its header, or nil; what it holds is zero if it is cleared.
define internal i32 @allocate(ptr %m, ptr %s, i32 %total, i32 %kind, i1 %clears) alwaysinline {{
 %head = add i32 %total, {FREE_LISTS}
 %first = call i32 @word(ptr %m, i32 %head, i64 0)
 %none = icmp eq i32 %first, -1
 br i1 %none, label %cut, label %pop
pop:
 %second = call i32 @word(ptr %m, i32 %first, i64 0)
 call void @put(ptr %m, i32 %head, i64 0, i32 %second)
 br label %made
cut:
 %fresh = call preserve_mostcc i32 @cut(ptr %m, ptr %s, i32 %total)
 %failed = icmp eq i32 %fresh, -1
 br i1 %failed, label %out, label %made
made:
 %ref = phi i32 [%first, %pop], [%fresh, %cut]
 call void @put(ptr %m, i32 %ref, i64 -16, i32 1)
 call void @put(ptr %m, i32 %ref, i64 -12, i32 %kind)
 call void @put(ptr %m, i32 %ref, i64 -8, i32 %total)
 call void @put(ptr %m, i32 %ref, i64 -4, i32 0)
 %p = call ptr @at(ptr %m, i32 %ref)
 %room = sub i32 %total, {HEADER}
 %cleared = select i1 %clears, i32 %room, i32 0
 %roomz = zext i32 %cleared to i64
 call void @llvm.memset.p0.i64(ptr align 16 %p, i8 0, i64 %roomz, i1 false)
 br label %out
out:
 %r = phi i32 [%ref, %made], [-1, %cut]
 ret i32 %r
}}

define internal preserve_mostcc i32 @cut(ptr %m, ptr %s, i32 %total) noinline {{
 %start = call i32 @word(ptr %m, i32 {CHUNK}, i64 0)
 %end = call i32 @word(ptr %m, i32 {CHUNK_END}, i64 0)
 %left = sub i32 %end, %start
 %up = add i32 %total, 15
 %block = and i32 %up, -16
 %fits = icmp uge i32 %left, %block
 br i1 %fits, label %take, label %host
take:
 %behind = add i32 %start, %block
 call void @put(ptr %m, i32 {CHUNK}, i64 0, i32 %behind)
 %ref = add i32 %start, {HEADER}
 ret i32 %ref
host:
 %new = call i32 @open_chunk(ptr %m, ptr %s, i32 %block)
 ret i32 %new
}}

; A block of any size, which is not cleared, or nil.
define internal i32 @new_block(ptr %m, ptr %s, i32 %total, i32 %kind) noinline {{
 %large = icmp ugt i32 %total, {SMALL}
 br i1 %large, label %host, label %small
host:
 %found = call i32 @take_large(ptr %m, ptr %s, i32 %total, i32 %kind)
 br label %out
small:
 %ref = call i32 @allocate(ptr %m, ptr %s, i32 %total, i32 %kind, i1 false)
 br label %out
out:
 %r = phi i32 [%found, %host], [%ref, %small]
 ret i32 %r
}}
"""
