"""The driver: chunks of a batch, each through a whole list of operations while it is in the cache.

    arguments  records, bases, samples, chunk
    records    for each thread the address of its record
    record     patches, operations, then four words for each patch and each operation
    patch      where an address is to be written, which base it starts from, bytes for each
               sample, and bytes from the beginning of a sample; with a base of -1 the number of
               samples in the chunk is written, times the first number plus the second
    operation  function, its arguments, items for each sample, items in any case

An item of the driver is a chunk: so many samples, the last one what is left. Before the operations
run, the addresses of inputs and outputs are moved to the samples of the chunk.
"""

from __future__ import annotations

import functools
from typing import Any

from llmbol_core.native.code import library

_TEXT = """
define void @network(ptr %arguments, i64 %begin, i64 %end, i64 %thread) {
start:
 %records = load ptr, ptr %arguments
 %p1 = getelementptr i64, ptr %arguments, i64 1
 %p2 = getelementptr i64, ptr %arguments, i64 2
 %p3 = getelementptr i64, ptr %arguments, i64 3
 %bases = load ptr, ptr %p1
 %samples = load i64, ptr %p2
 %chunk = load i64, ptr %p3
 %own = getelementptr ptr, ptr %records, i64 %thread
 %record = load ptr, ptr %own
 %patches = load i64, ptr %record
 %r1 = getelementptr i64, ptr %record, i64 1
 %operations = load i64, ptr %r1
 %first = getelementptr i64, ptr %record, i64 2
 %words = mul i64 %patches, 4
 %list = getelementptr i64, ptr %first, i64 %words
 %any = icmp slt i64 %begin, %end
 br i1 %any, label %chunks, label %out
chunks:
 %c = phi i64 [ %begin, %start ], [ %c1, %done ]
 %from = mul i64 %c, %chunk
 %rest = sub i64 %samples, %from
 %short = icmp slt i64 %rest, %chunk
 %n = select i1 %short, i64 %rest, i64 %chunk
 br label %patching
patching:
 %i = phi i64 [ 0, %chunks ], [ %i1, %patch ]
 %more = icmp slt i64 %i, %patches
 br i1 %more, label %patch, label %running
patch:
 %io = mul i64 %i, 4
 %a0 = getelementptr i64, ptr %first, i64 %io
 %a1 = getelementptr i64, ptr %a0, i64 1
 %a2 = getelementptr i64, ptr %a0, i64 2
 %a3 = getelementptr i64, ptr %a0, i64 3
 %place = load ptr, ptr %a0
 %which = load i64, ptr %a1
 %bytes = load i64, ptr %a2
 %more.bytes = load i64, ptr %a3
 %counts = icmp slt i64 %which, 0
 %places = select i1 %counts, i64 0, i64 %which
 %basep = getelementptr i64, ptr %bases, i64 %places
 %found = load i64, ptr %basep
 %base = select i1 %counts, i64 0, i64 %found
 %times = select i1 %counts, i64 %n, i64 %from
 %moved = mul i64 %times, %bytes
 %offset = add i64 %moved, %more.bytes
 %address = add i64 %base, %offset
 store i64 %address, ptr %place
 %i1 = add i64 %i, 1
 br label %patching
running:
 %j = phi i64 [ 0, %patching ], [ %j1, %operation ]
 %next = icmp slt i64 %j, %operations
 br i1 %next, label %operation, label %done
operation:
 %jo = mul i64 %j, 4
 %o0 = getelementptr i64, ptr %list, i64 %jo
 %o1 = getelementptr i64, ptr %o0, i64 1
 %o2 = getelementptr i64, ptr %o0, i64 2
 %o3 = getelementptr i64, ptr %o0, i64 3
 %f = load ptr, ptr %o0
 %a = load ptr, ptr %o1
 %per = load i64, ptr %o2
 %fixed = load i64, ptr %o3
 %varying = mul i64 %per, %n
 %items = add i64 %varying, %fixed
 call void %f(ptr %a, i64 0, i64 %items, i64 %thread)
 %j1 = add i64 %j, 1
 br label %running
done:
 %c1 = add i64 %c, 1
 %left = icmp slt i64 %c1, %end
 br i1 %left, label %chunks, label %out
out:
 ret void
}
"""


_PATCHES = """
define void @patch(ptr %arguments, i64 %begin, i64 %end, i64 %thread) {
 %p1 = getelementptr i64, ptr %arguments, i64 1
 %p2 = getelementptr i64, ptr %arguments, i64 2
 %bases = load ptr, ptr %arguments
 %count = load i64, ptr %p1
 br label %each
each:
 %i = phi i64 [ 0, %0 ], [ %i1, %one ]
 %more = icmp slt i64 %i, %count
 br i1 %more, label %one, label %out
one:
 %io = mul i64 %i, 3
 %a0 = getelementptr i64, ptr %p2, i64 %io
 %a1 = getelementptr i64, ptr %a0, i64 1
 %a2 = getelementptr i64, ptr %a0, i64 2
 %place = load ptr, ptr %a0
 %which = load i64, ptr %a1
 %bytes = load i64, ptr %a2
 %basep = getelementptr i64, ptr %bases, i64 %which
 %base = load i64, ptr %basep
 %address = add i64 %base, %bytes
 store i64 %address, ptr %place
 %i1 = add i64 %i, 1
 br label %each
out:
 ret void
}
"""
"""An operation that moves addresses to the beginning of inputs and outputs: ``bases``, how many
patches, and for each where an address is to be written, which base it starts from, and bytes."""


def address(name: str) -> int:
    """Return where the machine code of ``network`` or ``patch`` is, made now if it has to be."""
    made: int = _library().addresses[name]
    return made


@functools.cache
def _library() -> Any:
    return library("network", _TEXT + _PATCHES, ["network", "patch"])
