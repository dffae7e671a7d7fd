"""Taking dead objects apart, in LLVM's language.

``@bury`` follows lists, arrays and records with a work list threaded through the counts of the
dying objects, and leaves what the host knows about (handles, modules, channels) and large blocks to
the engine; what addresses may still lead into is emptied first (``outliving.py``). It remembers
where the pointers of a record are for the next one of the same type: the way from a record to its
child is then a single load. The first child is taken apart next, so that a tree's blocks are freed
in the order in which most programs make one, and the next tree lies as close together in memory as
this one did.
"""

from __future__ import annotations

from llmbol_core.vm.arena import FREE, FREE_LISTS, SMALL
from llmbol_core.vm.channels import RECEIVERS, SENDERS
from llmbol_core.vm.jit.pacing import SOME
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.objects import ARRAY, CHANNEL, HOSTED, LIST, MODULE, STRING
from llmbol_core.vm.remains import MARKED

BURIAL = f"""
define internal void @free(ptr %m, ptr %s, i32 %r) alwaysinline {{
 %size = call i32 @word(ptr %m, i32 %r, i64 -8)
 %large = icmp ugt i32 %size, {SMALL}
 br i1 %large, label %host, label %list
host:
 call void @free_large(ptr %m, ptr %s, i32 %r)
 ret void
list:
 %p = call ptr @at(ptr %m, i32 %r)
 %unused = getelementptr i8, ptr %p, i64 -16
 store i64 {FREE << 32}, ptr %unused, align 4
 %head = add i32 %size, {FREE_LISTS}
 %first = call i32 @word(ptr %m, i32 %head, i64 0)
 call void @put(ptr %m, i32 %r, i64 0, i32 %first)
 call void @put(ptr %m, i32 %head, i64 0, i32 %r)
 ret void
}}

; The size of a type among those that there are, which the count and the offsets of its pointers
; follow; type 0, which has none, stands for any other.
define internal ptr @map_among(ptr %maps, i32 %types, i32 %type) alwaysinline {{
 %known = icmp ult i32 %type, %types
 %number = select i1 %known, i32 %type, i32 0
 %numberz = zext i32 %number to i64
 %ip = getelementptr i32, ptr %maps, i64 %numberz
 %index = load i32, ptr %ip
 %indexz = zext i32 %index to i64
 %map = getelementptr i32, ptr %maps, i64 %indexz
 ret ptr %map
}}

; Free the objects of a list that is threaded through their counts, and what only they keep.
define internal void @bury(ptr %m, ptr %s, i32 %first) {{
start:
 %fp = call ptr @machine(ptr %s, i64 {Machine.FUEL:d})
 %fuel = load i64, ptr %fp
 %tired = icmp slt i64 %fuel, 1
 br i1 %tired, label %ask, label %begin
ask:
 %goes = call i32 @refuels(ptr %m, ptr %s)
 %stops = icmp eq i32 %goes, 0
 br i1 %stops, label %later, label %begin
later:
 call void @bury_later(ptr %m, ptr %s, i32 %first)
 ret void
begin:
 %from = phi i32 [%first, %start], [%first, %ask], [%rest, %look]
 %cp = call ptr @machine(ptr %s, i64 {Machine.MAP_COUNT:d})
 %types = load i32, ptr %cp
 %mp = call ptr @machine(ptr %s, i64 {Machine.MAPS:d})
 %maps = load ptr, ptr %mp
 br label %next
next:
 %r = phi i32 [%from, %begin], [%rest, %others], [%others0, %hosted]
 %more = phi i32 [{SOME}, %begin], [%more1, %others], [%more, %hosted]
 %lastkind = phi i32 [{FREE}, %begin], [%knownkind, %others], [%lastkind, %hosted]
 %lastnp = phi ptr [%maps, %begin], [%knownnp, %others], [%lastnp, %hosted]
 %lastn = phi i64 [0, %begin], [%knownn, %others], [%lastn, %hosted]
 %other = call i32 @word(ptr %m, i32 %r, i64 -16)
 %kind = call i32 @word(ptr %m, i32 %r, i64 -12)
 %work = call i32 @word(ptr %m, i32 %r, i64 -4)
 %flag = and i32 %work, {HOSTED}
 %ishosted = icmp ne i32 %flag, 0
 br i1 %ishosted, label %host, label %plain, !prof !0
plain:
 %differs = icmp ne i32 %kind, %lastkind
 br i1 %differs, label %kinds, label %record, !prof !0
kinds:
 switch i32 %kind, label %learn [
  i32 {STRING}, label %free
  i32 {LIST}, label %list
  i32 {ARRAY}, label %array
  i32 {CHANNEL}, label %channel
  i32 {MODULE}, label %host
 ]
learn:
 %rmap = call ptr @map_among(ptr %maps, i32 %types, i32 %kind)
 %rnp = getelementptr i32, ptr %rmap, i64 1
 %rn = load i32, ptr %rnp
 %rnz = zext i32 %rn to i64
 br label %record
record:
 %rkind = phi i32 [%lastkind, %plain], [%kind, %learn]
 %recnp = phi ptr [%lastnp, %plain], [%rnp, %learn]
 %recn = phi i64 [%lastn, %plain], [%rnz, %learn]
 %simple = icmp eq i64 %recn, 0
 br i1 %simple, label %free, label %field
field:
 %fleft = phi i64 [%recn, %record], [%fleft1, %field]
 %fdying = phi i32 [%other, %record], [%fdying1, %field]
 %fop = getelementptr i32, ptr %recnp, i64 %fleft
 %foff = load i32, ptr %fop
 %fslot = add i32 %r, %foff
 %fchild = call i32 @word(ptr %m, i32 %fslot, i64 0)
 %fdying1 = call i32 @drop(ptr %m, ptr %s, i32 %fchild, i32 %fdying)
 %fleft1 = sub i64 %fleft, 1
 %fmore = icmp ne i64 %fleft1, 0
 br i1 %fmore, label %field, label %free
host:
 %mark = and i32 %work, {MARKED}
 %ismarked = icmp ne i32 %mark, 0
 br i1 %ismarked, label %outlive, label %left0
outlive:
 %withown = call i32 @empty(ptr %m, ptr %s, i32 %r, i32 %other)
 br label %left0
left0:
 %others0 = phi i32 [%other, %host], [%withown, %outlive]
 call void @leave(ptr %m, ptr %s, i32 %r)
 br label %hosted
hosted:
 %end0 = icmp eq i32 %others0, 0
 br i1 %end0, label %out, label %next
channel:
 %buffered = call i32 @word(ptr %m, i32 %r, i64 8)
 %senders = call i32 @word(ptr %m, i32 %r, i64 {SENDERS})
 %receivers = call i32 @word(ptr %m, i32 %r, i64 {RECEIVERS})
 %waiting = or i32 %senders, %receivers
 %used = or i32 %waiting, %buffered
 %unused = icmp eq i32 %used, 0
 br i1 %unused, label %free, label %host
list:
 %ltype = call i32 @word(ptr %m, i32 %r, i64 4)
 %lmap = call ptr @map_among(ptr %maps, i32 %types, i32 %ltype)
 %lnp = getelementptr i32, ptr %lmap, i64 1
 %ln = load i32, ptr %lnp
 %lnone = icmp eq i32 %ln, 0
 br i1 %lnone, label %node, label %linked
linked:
 %tail = call i32 @word(ptr %m, i32 %r, i64 0)
 %withtail = call i32 @drop(ptr %m, ptr %s, i32 %tail, i32 %other)
 %lvalue = add i32 %r, 8
 br label %values
node:
 %node1 = phi i32 [%r, %list], [%tail1, %alike]
 %nleft = phi i32 [%more, %list], [%nleft1, %alike]
 %tail1 = call i32 @word(ptr %m, i32 %node1, i64 0)
 call void @free(ptr %m, ptr %s, i32 %node1)
 %nleft1 = sub i32 %nleft, 1
 %islast = icmp eq i32 %tail1, -1
 br i1 %islast, label %nodes, label %follow
follow:
 %tailp = call ptr @at(ptr %m, i32 %tail1)
 %tailhead = getelementptr i8, ptr %tailp, i64 -16
 %tailcount = load i64, ptr %tailhead, align 4
 %onlylist = icmp eq i64 %tailcount, {LIST << 32 | 1}
 %tailtype = call i32 @word(ptr %m, i32 %tail1, i64 4)
 %sametype = icmp eq i32 %tailtype, %ltype
 %both = and i1 %onlylist, %sametype
 br i1 %both, label %flags, label %unlike
flags:
 %tailwork = call i32 @word(ptr %m, i32 %tail1, i64 -4)
 %tailflag = and i32 %tailwork, {HOSTED}
 %unflagged = icmp eq i32 %tailflag, 0
 %further = icmp ne i32 %nleft1, 0
 %again2 = and i1 %unflagged, %further
 br i1 %again2, label %alike, label %unlike
alike:
 br label %node
unlike:
 %withrest = call i32 @drop(ptr %m, ptr %s, i32 %tail1, i32 %other)
 br label %nodes
nodes:
 %rest2 = phi i32 [%other, %node], [%withrest, %unlike]
 br label %freed
array:
 %owner = call i32 @word(ptr %m, i32 %r, i64 8)
 %isslice = icmp ne i32 %owner, -1
 br i1 %isslice, label %slice, label %whole
slice:
 %withowner = call i32 @drop(ptr %m, ptr %s, i32 %owner, i32 %other)
 br label %free
whole:
 %length = call i32 @word(ptr %m, i32 %r, i64 0)
 %atype = call i32 @word(ptr %m, i32 %r, i64 4)
 %adata = call i32 @word(ptr %m, i32 %r, i64 12)
 %empty = icmp eq i32 %length, 0
 br i1 %empty, label %free, label %values
values:
 %type = phi i32 [%ltype, %linked], [%atype, %whole]
 %where0 = phi i32 [%lvalue, %linked], [%adata, %whole]
 %count0 = phi i32 [1, %linked], [%length, %whole]
 %dying0 = phi i32 [%withtail, %linked], [%other, %whole]
 %map = call ptr @map_among(ptr %maps, i32 %types, i32 %type)
 %size = load i32, ptr %map
 %np = getelementptr i32, ptr %map, i64 1
 %n = load i32, ptr %np
 %none = icmp eq i32 %n, 0
 br i1 %none, label %free, label %value
value:
 %where = phi i32 [%where0, %values], [%where1, %some], [%where1, %paused]
 %count = phi i32 [%count0, %values], [%count1, %some], [%count1, %paused]
 %dying1 = phi i32 [%dying0, %values], [%dying3, %some], [%dying3, %paused]
 br label %pointer
pointer:
 %left = phi i32 [%n, %value], [%i, %pointer]
 %dying2 = phi i32 [%dying1, %value], [%dying3, %pointer]
 %i = sub i32 %left, 1
 %leftz = zext i32 %left to i64
 %op = getelementptr i32, ptr %np, i64 %leftz
 %off = load i32, ptr %op
 %slot = add i32 %where, %off
 %child = call i32 @word(ptr %m, i32 %slot, i64 0)
 %dying3 = call i32 @drop(ptr %m, ptr %s, i32 %child, i32 %dying2)
 %again0 = icmp ne i32 %i, 0
 br i1 %again0, label %pointer, label %valued
valued:
 %where1 = add i32 %where, %size
 %count1 = sub i32 %count, 1
 %again = icmp ne i32 %count1, 0
 br i1 %again, label %some, label %free
some:
 %part = and i32 %count1, {SOME - 1}
 %whole1 = icmp eq i32 %part, 0
 br i1 %whole1, label %paused, label %value
paused:
 %halts = call i32 @leaves_array(ptr %m, ptr %s, i32 %r, i32 %where1, i32 %count1, i32 %dying3)
 %halted = icmp ne i32 %halts, 0
 br i1 %halted, label %out, label %value
free:
 %rest0 = phi i32 [%other, %kinds], [%other, %channel], [%other, %record],
  [%withowner, %slice], [%other, %whole], [%dying0, %values], [%dying3, %valued],
  [%fdying1, %field]
 %knownkind0 = phi i32 [%lastkind, %kinds], [%lastkind, %channel], [%rkind, %record],
  [%lastkind, %slice], [%lastkind, %whole], [%lastkind, %values], [%lastkind, %valued],
  [%rkind, %field]
 %knownnp0 = phi ptr [%lastnp, %kinds], [%lastnp, %channel], [%recnp, %record],
  [%lastnp, %slice], [%lastnp, %whole], [%lastnp, %values], [%lastnp, %valued],
  [%recnp, %field]
 %knownn0 = phi i64 [%lastn, %kinds], [%lastn, %channel], [%recn, %record],
  [%lastn, %slice], [%lastn, %whole], [%lastn, %values], [%lastn, %valued],
  [%recn, %field]
 call void @free(ptr %m, ptr %s, i32 %r)
 %more0 = sub i32 %more, 1
 br label %freed
freed:
 %rest = phi i32 [%rest0, %free], [%rest2, %nodes]
 %more1 = phi i32 [%more0, %free], [%nleft1, %nodes]
 %knownkind = phi i32 [%knownkind0, %free], [%lastkind, %nodes]
 %knownnp = phi ptr [%knownnp0, %free], [%lastnp, %nodes]
 %knownn = phi i64 [%knownn0, %free], [%lastn, %nodes]
 %end = icmp eq i32 %rest, 0
 br i1 %end, label %gone, label %others
others:
 %enough = icmp eq i32 %more1, 0
 br i1 %enough, label %look, label %next, !prof !0
look:
 %leaves = call i32 @leaves(ptr %m, ptr %s, i32 %rest)
 %stay = icmp eq i32 %leaves, 0
 br i1 %stay, label %begin, label %out
gone:
 %single = icmp eq i32 %more1, {SOME - 1}
 br i1 %single, label %out, label %charge
charge:
 %dead = sub i32 {SOME}, %more1
 %cost = shl i32 %dead, 8
 %costz = zext i32 %cost to i64
 %now = load i64, ptr %fp
 %rest1 = sub i64 %now, %costz
 store i64 %rest1, ptr %fp
 br label %out
out:
 ret void
}}
"""
