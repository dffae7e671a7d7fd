"""Machine code in memory, and how Python calls it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


class Library:
    """Machine code in memory: callable as long as this object lives."""

    def __init__(self, resources: Any, addresses: dict[str, int]) -> None:
        self._resources, self.addresses = resources, addresses


def function(
    address: int, result: Any, *parameters: Any, keeps_lock: bool = True
) -> Callable[..., Any]:
    """Return a Python callable for machine code at an address, which keeps the GIL or not."""
    kind = ctypes.PYFUNCTYPE if keeps_lock else ctypes.CFUNCTYPE
    return kind(result, *parameters)(address)
