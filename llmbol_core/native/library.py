"""Machine code in memory, and how Python calls it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Library:
    """Machine code in memory: callable as long as this object lives."""

    def __init__(self, resources: Any, addresses: dict[str, int]) -> None:
        self._resources, self.addresses = resources, addresses


def kept(thing: T) -> T:
    """Return an object that is not given up, not even when Python ends.

    Threads in machine code know nothing of that and go on until the process is over.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    return thing


def function(
    address: int, result: Any, *parameters: Any, keeps_lock: bool = True
) -> Callable[..., Any]:
    """Return a Python callable for machine code at an address, which keeps the GIL or not."""
    kind = ctypes.PYFUNCTYPE if keeps_lock else ctypes.CFUNCTYPE
    return kind(result, *parameters)(address)
