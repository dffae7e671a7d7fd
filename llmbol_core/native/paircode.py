"""The machine code of ``pairs``, in LLVM's assembly language."""

from __future__ import annotations

from enum import IntEnum

from llmbol_core.native.cfunction import loads
from llmbol_core.native.entry import DATA, DESCR, FLAGS, FLOAT, NDIM, SHAPE, STRIDES


class Word(IntEnum):
    """Words of a record."""

    TYPE = 0
    DESCRIPTOR = 1
    NONE = 2
    NEW = 3
    COUNT = 4
    IS_TURNED = 5
    MOST = 6
    KERNEL = 7
    WIDTH = 8
    ROOM = 9
    TURNED_KERNEL = 10
    TURNED_WIDTH = 11
    SHARES = 12
    TURNED_SHARES = 13
    TEAM = 14
    RUN = 15
    MUCH = 16
    LARGE = 17
    SIZE = 18


_WRITEABLE = 0x400
"""NumPy's flag of an array that may be written to."""

_BODY = f"""
define ptr @pair(ptr %self, ptr %given, i64 %count) {{
 %recordp = getelementptr i8, ptr %self, i64 {DATA}
 %record = load ptr, ptr %recordp
 %list = alloca [16 x i64], align 8
 %lengths = alloca [2 x i64], align 8
 %operation = alloca [4 x i64], align 8
WORDS
 %two = icmp uge i64 %count, 2
 %four = icmp ule i64 %count, 4
 %fits = and i1 %two, %four
 br i1 %fits, label %begin, label %other
begin:
 %x = load ptr, ptr %given
 %at.y = getelementptr ptr, ptr %given, i64 1
 %y = load ptr, ptr %at.y
 %hasbias = icmp ugt i64 %count, 2
 br i1 %hasbias, label %third, label %pairs
third:
 %at.third = getelementptr ptr, ptr %given, i64 2
 %given3 = load ptr, ptr %at.third
 br label %pairs
pairs:
 %bias = phi ptr [ %none, %begin ], [ %given3, %third ]
 br label %x.check
CHECK x x2 y.check
x2:
CHECK2 x
 br label %y.check
CHECK y y2 other
y2:
CHECK2 y
 %x.s1ok = icmp eq i64 %x.s1, 4
 %x.rest = and i64 %x.s0, -9223372036854775805
 %x.s0ok = icmp eq i64 %x.rest, 0
 %x.ok = and i1 %x.s0ok, %x.s1ok
 ; y [K, N] may have its rows or its columns without gaps.
 %istr = icmp ne ptr %is_turned, null
 %k = select i1 %istr, i64 %y.d1, i64 %y.d0
 %n = select i1 %istr, i64 %y.d0, i64 %y.d1
 %ks = select i1 %istr, i64 %y.s1, i64 %y.s0
 %ns = select i1 %istr, i64 %y.s0, i64 %y.s1
 %inrows = icmp eq i64 %ns, 4
 %incolumns = icmp eq i64 %ks, 4
 %y.pitch = select i1 %incolumns, i64 %ns, i64 %ks
 %y.rest = and i64 %y.pitch, -9223372036854775805
 %y.even = icmp eq i64 %y.rest, 0
 %either = or i1 %inrows, %incolumns
 %y.ok = and i1 %y.even, %either
 %fit = icmp eq i64 %x.d1, %k
 %ok1 = and i1 %x.ok, %y.ok
 %ok2 = and i1 %ok1, %fit
 %mk = mul i64 %x.d0, %k
 %work = mul i64 %mk, %n
 %some = icmp sgt i64 %work, 0
 %nmost = ptrtoint ptr %most to i64
 %few = icmp slt i64 %work, %nmost
 ; None of the lengths is so great that the products of them would not be right.
 %lengths1 = or i64 %x.d0, %k
 %lengths2 = or i64 %lengths1, %n
 %near = icmp ult i64 %lengths2, 1048576
 %ok3 = and i1 %ok2, %some
 %ok4 = and i1 %few, %near
 ; A kernel that is not there yet computes nothing.
 %function = select i1 %incolumns, ptr %turned_kernel, ptr %kernel
 %known = icmp ne ptr %function, null
 %ok6 = and i1 %known, %ok4
 %ok5 = and i1 %ok3, %ok6
 br i1 %ok5, label %isbias, label %other
isbias:
 %plain = icmp eq ptr %bias, %none
 br i1 %plain, label %target, label %bias.check
CHECK bias bias2 other
bias2:
 %bias.shp = getelementptr i8, ptr %bias, i64 {SHAPE}
 %bias.shape = load ptr, ptr %bias.shp
 %bias.d0 = load i64, ptr %bias.shape
 %bias.stp = getelementptr i8, ptr %bias, i64 {STRIDES}
 %bias.strides = load ptr, ptr %bias.stp
 %bias.s0 = load i64, ptr %bias.strides
 %bias.fits = icmp eq i64 %bias.d0, %n
 %bias.dense = icmp eq i64 %bias.s0, 4
 %bias.ok = and i1 %bias.fits, %bias.dense
 br i1 %bias.ok, label %target, label %other
target:
 %isgiven = icmp eq i64 %count, 4
 br i1 %isgiven, label %fourth, label %make
make:
 store i64 %x.d0, ptr %lengths
 %lengthsn = getelementptr i64, ptr %lengths, i64 1
 store i64 %n, ptr %lengthsn
 %made = call ptr %new(ptr %type, i32 2, ptr %lengths, i32 {FLOAT}, ptr null, ptr null, i32 0,
                       i32 0, ptr null)
 %failed = icmp eq ptr %made, null
 br i1 %failed, label %done, label %go
fourth:
 %at.fourth = getelementptr ptr, ptr %given, i64 3
 %given4 = load ptr, ptr %at.fourth
 br label %given4.check
CHECK given4 room2 other
room2:
CHECK2 given4
 %given4.flp = getelementptr i8, ptr %given4, i64 {FLAGS}
 %given4.flags = load i32, ptr %given4.flp
 %given4.write = and i32 %given4.flags, {_WRITEABLE}
 %given4.ok1 = icmp ne i32 %given4.write, 0
 %given4.ok2 = icmp eq i64 %given4.d0, %x.d0
 %given4.ok3 = icmp eq i64 %given4.d1, %n
 %given4.ok4 = icmp eq i64 %given4.s1, 4
 %given4.rest = and i64 %given4.s0, -9223372036854775805
 %given4.ok5 = icmp eq i64 %given4.rest, 0
 %given4.ok6 = and i1 %given4.ok1, %given4.ok2
 %given4.ok7 = and i1 %given4.ok3, %given4.ok4
 %given4.ok8 = and i1 %given4.ok5, %given4.ok6
 %given4.ok9 = and i1 %given4.ok7, %given4.ok8
 br i1 %given4.ok9, label %count4, label %other
count4:
 call void %count_one(ptr %given4)
 br label %go
go:
 %out = phi ptr [ %made, %make ], [ %given4, %count4 ]
 %out.dp = getelementptr i8, ptr %out, i64 {DATA}
 %out.data = load ptr, ptr %out.dp
 %out.stp = getelementptr i8, ptr %out, i64 {STRIDES}
 %out.strides = load ptr, ptr %out.stp
 %out.s0 = load i64, ptr %out.strides
 %op = sdiv i64 %out.s0, 4
 %xp = sdiv i64 %x.s0, 4
 %yp = sdiv i64 %y.pitch, 4
 %widthp = select i1 %incolumns, ptr %turned_width, ptr %width
 %w = ptrtoint ptr %widthp to i64
 %up = add i64 %n, %w
 %up1 = sub i64 %up, 1
 %items = udiv i64 %up1, %w
 store ptr %x.data, ptr %list
 %l1 = getelementptr i64, ptr %list, i64 1
 store ptr %y.data, ptr %l1
 %l2 = getelementptr i64, ptr %list, i64 2
 store ptr %out.data, ptr %l2
 %l3 = getelementptr i64, ptr %list, i64 3
 store ptr %room, ptr %l3
 %from = select i1 %incolumns, i64 3, i64 4
 %sizes = getelementptr i64, ptr %list, i64 %from
 store i64 %x.d0, ptr %sizes
 %z1 = getelementptr i64, ptr %sizes, i64 1
 store i64 %k, ptr %z1
 %z2 = getelementptr i64, ptr %sizes, i64 2
 store i64 %n, ptr %z2
 %z3 = getelementptr i64, ptr %sizes, i64 3
 store i64 %xp, ptr %z3
 %z4 = getelementptr i64, ptr %sizes, i64 4
 store i64 %yp, ptr %z4
 %z5 = getelementptr i64, ptr %sizes, i64 5
 store i64 %op, ptr %z5
 ; Threads share what takes long to multiply, or to read.
 %nmuch = ptrtoint ptr %much to i64
 %ismuch = icmp sge i64 %work, %nmuch
 %nlarge = ptrtoint ptr %large to i64
 %numbers = mul i64 %k, %n
 %islarge = icmp sge i64 %numbers, %nlarge
 %worthy = or i1 %ismuch, %islarge
 %isteam = icmp ne ptr %team, null
 %divides = icmp ugt i64 %items, 1
 %can = and i1 %isteam, %divides
 %together = and i1 %worthy, %can
 br i1 %together, label %jointly, label %alone
alone:
 call void %function(ptr %list, i64 0, i64 %items, i64 0)
 br label %computed
jointly:
 %partsp = select i1 %incolumns, ptr %turned_shares, ptr %shares
 %parts = ptrtoint ptr %partsp to i64
 %upitems = add i64 %items, %parts
 %upitems1 = sub i64 %upitems, 1
 %share = udiv i64 %upitems1, %parts
 store ptr %function, ptr %operation
 %o1 = getelementptr i64, ptr %operation, i64 1
 store ptr %list, ptr %o1
 %o2 = getelementptr i64, ptr %operation, i64 2
 store i64 %items, ptr %o2
 %o3 = getelementptr i64, ptr %operation, i64 3
 store i64 %share, ptr %o3
 call void %run(ptr %team, ptr %operation, i64 1)
 br label %computed
computed:
 br i1 %plain, label %done, label %add
add:
 %bias.dp = getelementptr i8, ptr %bias, i64 {DATA}
 %bias.data = load ptr, ptr %bias.dp
 br label %rows
rows:
 %r = phi i64 [ 0, %add ], [ %r1, %rowdone ]
 %ro = mul i64 %r, %op
 %rowp = getelementptr float, ptr %out.data, i64 %ro
 br label %columns
columns:
 %c = phi i64 [ 0, %rows ], [ %c1, %columns ]
 %bp = getelementptr float, ptr %bias.data, i64 %c
 %b = load float, ptr %bp, align 1
 %sp = getelementptr float, ptr %rowp, i64 %c
 %s = load float, ptr %sp, align 1
 %sum = fadd float %s, %b
 store float %sum, ptr %sp, align 1
 %c1 = add i64 %c, 1
 %morec = icmp slt i64 %c1, %n
 br i1 %morec, label %columns, label %rowdone
rowdone:
 %r1 = add i64 %r, 1
 %morer = icmp slt i64 %r1, %x.d0
 br i1 %morer, label %rows, label %done
done:
 %result = phi ptr [ %made, %make ], [ %out, %computed ], [ %out, %rowdone ]
 ret ptr %result
other:
 call void %count_one(ptr %none)
 ret ptr %none
}}
"""
_CHECK = f"""
NAME.check:
 %NAME.tp = getelementptr i8, ptr %NAME, i64 8
 %NAME.type = load ptr, ptr %NAME.tp
 %NAME.isarray = icmp eq ptr %NAME.type, %type
 br i1 %NAME.isarray, label %NAME.array, label %other
NAME.array:
 %NAME.dsp = getelementptr i8, ptr %NAME, i64 {DESCR}
 %NAME.descr = load ptr, ptr %NAME.dsp
 %NAME.isfloat = icmp eq ptr %NAME.descr, %descriptor
 %NAME.ndp = getelementptr i8, ptr %NAME, i64 {NDIM}
 %NAME.axes = load i32, ptr %NAME.ndp
 %NAME.hasaxes = icmp eq i32 %NAME.axes, AXES
 %NAME.good = and i1 %NAME.isfloat, %NAME.hasaxes
 br i1 %NAME.good, label %NEXT, label %other
"""
"""Checks that a value is an array of float32 with so many axes."""
_LOADS = f"""
 %NAME.dp = getelementptr i8, ptr %NAME, i64 {DATA}
 %NAME.data = load ptr, ptr %NAME.dp
 %NAME.shp = getelementptr i8, ptr %NAME, i64 {SHAPE}
 %NAME.shape = load ptr, ptr %NAME.shp
 %NAME.d0 = load i64, ptr %NAME.shape
 %NAME.d1p = getelementptr i64, ptr %NAME.shape, i64 1
 %NAME.d1 = load i64, ptr %NAME.d1p
 %NAME.stp = getelementptr i8, ptr %NAME, i64 {STRIDES}
 %NAME.strides = load ptr, ptr %NAME.stp
 %NAME.s0 = load i64, ptr %NAME.strides
 %NAME.s1p = getelementptr i64, ptr %NAME.strides, i64 1
 %NAME.s1 = load i64, ptr %NAME.s1p
"""
"""Reads where the data of a matrix are, its lengths and strides."""


def text() -> str:
    """Return the code, with the words in capitals replaced."""
    words = loads(word for word in Word if word is not Word.SIZE)
    words = words.replace("%count =", "%count_one =")
    lines = []
    for line in _BODY.replace("WORDS", words).splitlines():
        kind, *names = line.split()[:3] or [""]
        if kind == "CHECK":
            axes = "1" if names[0] == "bias" else "2"
            check = _CHECK.replace("NAME", names[0]).replace("NEXT", names[1])
            lines.append(check.replace("AXES", axes))
        elif kind == "CHECK2":
            lines.append(_LOADS.replace("NAME", names[0]))
        else:
            lines.append(line)
    return "\n".join(lines)
