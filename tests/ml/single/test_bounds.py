"""Kernels of single operations keep within the arrays that they are given."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops import OPS
from llmbol_core.native.entry import is_possible
from tests.ml.single.test_single import CASES, check, drawn

pytestmark = pytest.mark.skipif(
    target() is None or not is_possible() or sys.platform != "linux",
    reason="there are no kernels, or no pages that may not be touched",
)


_NO_ACCESS = 0
"""PROT_NONE, which the module mmap does not have."""


def between_pages(x: np.ndarray[Any, Any], at_end: bool) -> np.ndarray[Any, Any]:
    """Return a copy that begins or ends where a page may not be touched."""
    page = mmap.PAGESIZE
    count = -(-x.nbytes // page) + 2
    room = np.frombuffer(mmap.mmap(-1, count * page), np.uint8)
    for number in (0, count - 1):
        place = ctypes.c_void_p(room.ctypes.data + number * page)
        assert ctypes.CDLL(None).mprotect(place, page, _NO_ACCESS) == 0
    start = (count - 1) * page - x.nbytes if at_end else page
    made: np.ndarray[Any, Any] = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    made[...] = x
    return made


def try_all(seed: int) -> None:
    """Run every operation on arrays between such pages: whatever touches one ends the process."""
    rng = np.random.default_rng(seed)
    for name, case in CASES.items():
        for number in range(12):
            shapes, attributes = case(rng)
            inputs = drawn(rng, name, shapes)
            given = [None if x is None else between_pages(x, number % 2 == 0) for x in inputs]
            more = {}
            if OPS[name].takes_out:
                full = OPS[name].conform(attributes)
                result = OPS[name].shape(*shapes, **full)
                more["out"] = between_pages(np.zeros(result, np.float32), number % 2 == 1)
            made = OPS[name].run(*given, **attributes, **more)
            check(name, np.array(made), inputs, attributes)


def test_nothing_beyond_the_arrays_is_touched():
    code = f"from {__name__} import try_all; try_all(3)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
