"""The processor of this machine: its names for the compiler, and for the keys of cached code."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
from typing import NamedTuple

from llmbol_core.errors import FileError
from llmbol_core.native.files import read_bytes


class Processor(NamedTuple):
    """The target that machine code is made for: platform triple, model and features."""

    triple: str
    name: str
    features: str


@functools.cache
def detected() -> Processor:
    """Return what the compiler says of this processor. Raises ImportError if there is none."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return Processor(llvm.get_default_triple(), llvm.get_host_cpu_name(), features)


@functools.cache
def compiler_version() -> str:
    """Return what identifies the compiler's version, found without loading it.

    Raises ImportError if there is none.
    """
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise ImportError("there is no llvmlite")
    try:
        return read_bytes(os.path.join(os.path.dirname(found.origin), "_version.py")).decode()
    except FileError:
        import llvmlite

        return str(llvmlite.__version__)


_SHOWN = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part",
          "Features")  # fmt: skip
"""The fields in which Linux says what code a processor can run."""


@functools.cache
def processor_identity() -> tuple[str, ...]:
    """Return texts that are equal only where code made here runs; without a compiler if possible.

    Two processes on one machine get the same.
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = file.read(1 << 14).partition("\n\n")[0].splitlines()
    except OSError:
        return tuple(detected())
    fields = dict(line.partition(":")[::2] for line in lines)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    found = [known[name] for name in _SHOWN if name in known]
    if not found:
        return tuple(detected())
    return (platform.system(), platform.machine(), *found)
