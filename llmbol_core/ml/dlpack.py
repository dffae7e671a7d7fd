"""bfloat16, for which NumPy has no type, through DLPack's protocol.

A capsule holds a DLManagedTensor, or one with a version in front. Of both all that is needed is the
DLTensor within: where numbers lie, on which device, of which type, their lengths and steps.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROCESSOR, _BFLOAT = 1, 4
"""DLPack's numbers of a device and of a family of types."""
_NAMES = {b"dltensor": 0, b"dltensor_versioned": 32}
"""Names of capsules that nobody has taken, and where their DLTensor begins."""


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Words:
    """Numbers of 16 bits within a capsule, which lives as long as they are looked at."""

    def __init__(self, capsule: Any, held: _DLTensor) -> None:
        shape = tuple(held.shape[i] for i in range(held.ndim))
        steps = tuple(2 * held.strides[i] for i in range(held.ndim)) if held.strides else None
        self.capsule = capsule
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(np.uint16).str,
            "data": ((held.data or 0) + held.byte_offset, False),
            "shape": shape,
            "strides": steps,
        }


def bfloat16_words(array: Any) -> NDArray[np.uint16] | None:
    """View bfloat16 numbers in the processor's memory as their bits; None for anything else."""
    capsule = array.__dlpack__()
    held = _held(capsule)
    if held is None or (held.code, held.bits, held.lanes) != (_BFLOAT, 16, 1):
        return None
    if held.device_type != _PROCESSOR:
        return None
    return np.asarray(_Words(capsule, held))


def as_bfloat16(capsule: Any) -> Any:
    """Return a capsule of numbers of 16 bits that declares them to be bfloat16."""
    held = _held(capsule)
    assert held is not None
    held.code = _BFLOAT
    return capsule


def _held(capsule: Any) -> _DLTensor | None:
    """Return what a capsule holds, None if that is something else."""
    api = ctypes.pythonapi
    is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_IsValid", api)
    )
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    for name, start in _NAMES.items():
        if is_valid(capsule, name):
            return _DLTensor.from_address(pointer(capsule, name) + start)
    return None
