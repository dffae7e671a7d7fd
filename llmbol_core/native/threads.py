"""Threads: how many to use, and NumPy's BLAS limited to one of them.

A product must not depend on how many threads computed it; and on a machine shared with other
programs we decide how many threads there are, not a library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from llmbol_core.errors import UsageError

MOST_THREADS = 1024
"""How many threads can be asked for."""


def thread_count() -> int:
    """Return how many threads to use: ``LLMBOL_THREADS``, or else the processors we may run on."""
    wanted = os.environ.get("LLMBOL_THREADS", "").strip()
    if not wanted:
        affinity = getattr(os, "sched_getaffinity", None)  # not on every platform
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    is_number = wanted.isascii() and wanted.isdigit() and len(wanted) < 10
    if not is_number or not 1 <= int(wanted) <= MOST_THREADS:
        expected = f"a whole number from 1 to {MOST_THREADS}"
        raise UsageError(f"LLMBOL_THREADS must be {expected}, not {wanted!r}")
    return int(wanted)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit the BLAS libraries of this process to one thread while the block runs.

    The limit belongs to the process, so blocks that overlap in several threads share it: the first
    one sets it and the last one lifts it.
    """
    with _lock:
        if not _limits:
            _limits.append(_controller().limit(limits=1, user_api="blas"))
        else:
            _limits.append(None)
    try:
        yield
    finally:
        with _lock:
            if len(_limits) == 1:
                _limits.pop().restore_original_limits()
            else:
                _limits.pop()


_lock = threading.Lock()
_limits: list[Any] = []


@cache
def _controller() -> Any:
    """Return the list of loaded BLAS libraries; finding them takes milliseconds, so once."""
    import numpy as np  # noqa: F401 -- its BLAS must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
