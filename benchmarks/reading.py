"""The bandwidth of memory: how long it takes to read so many bytes and do nothing with them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.rows import Work
from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import i64
from llmbol_core.native.threads import thread_count

GROUP = Group("reading", __file__)
STREAMS = 4
"""Places that are read in turn: memory gives more to several than to one."""
ITEM = 256
"""Bytes of each at a time."""


@GROUP.kernel("x:u8* out:i64* apart:i64")
def read_all(k: Any, x: Any, out: Any, apart: Any) -> None:
    """Read so many bytes of each stream an item; streams begin so far apart."""
    sums = [k.variable(k.zeros(i64, 4)) for _ in range(8)]
    for item in k.items():
        for stream in range(STREAMS):
            here = x.at(apart * stream + item * ITEM).of(i64)
            for i, total in enumerate(sums):
                total.value = total.value ^ here.load(4 * i, 4)
    whole = sums[0].value
    for total in sums[1:]:
        whole = whole ^ total.value
    out.add_atomic(whole.sum())


def reading(data: np.ndarray[Any, Any]) -> Work:
    """Return what reads an array in one piece, by all threads."""
    items = data.nbytes // (STREAMS * ITEM)
    chunk = -(-items // (8 * thread_count()))
    raw = data.reshape(-1).view(np.uint8)
    return partial(read_all.run, items, raw, np.zeros(1, "i8"), items * ITEM, chunk=chunk)
