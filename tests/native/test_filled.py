"""Functions that put where arrays lie into a table."""

import ctypes
import gc
import sys

import numpy as np
import pytest

from llmbol_core.native.entry import is_possible
from llmbol_core.native.filled import on_filled

pytestmark = pytest.mark.skipif(not is_possible(), reason="there are no such functions here")


@pytest.mark.parametrize("is_long", [False, True])
def test_addresses_come_before_the_run(is_long):
    bases, seen = (ctypes.c_int64 * 4)(9, 9, 9, 9), []
    kept = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(
        lambda *words: seen.append((*words, *bases))
    )
    address = ctypes.cast(kept, ctypes.c_void_p).value or 0
    made = on_filled(ctypes.addressof(bases), 3, (address, 1, 2, 3, 4), is_long, kept)
    x, y = np.zeros((2, 3), np.float32), np.zeros(5, np.float32)
    references = sys.getrefcount(y)
    for _ in range(100):
        assert made(x, None, y) is y
    gc.collect()
    assert sys.getrefcount(y) == references
    assert seen == [(1, 2, 3, 4, x.ctypes.data, 0, 9, y.ctypes.data)] * 100
