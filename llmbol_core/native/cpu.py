"""The processor of this machine, as the compiler names it and as cached code is told apart by."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
from typing import NamedTuple


class Processor(NamedTuple):
    """The target that machine code is made for: platform triple, model and features."""

    triple: str
    name: str
    features: str


@functools.cache
def host_processor() -> Processor:
    """Return what code compiled here is for, by what was found before or by the compiler.

    Raises ImportError if there is none.
    """
    from llmbol_core.native.cache import ObjectCache, key_of

    key, cache = key_of("processor"), ObjectCache()
    data = cache.get(key)
    if data is None:
        data = "\n".join(_detected()).encode()
        cache.put(key, data)
    return Processor(*data.decode().split("\n"))


@functools.cache
def _detected() -> Processor:
    """Return what the compiler says of this processor."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return Processor(llvm.get_default_triple(), llvm.get_host_cpu_name(), features)


@functools.cache
def compiler_version() -> str:
    """Return what tells the compiler from other versions, found without loading it.

    Raises ImportError if there is none.
    """
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise ImportError("there is no llvmlite")
    with open(os.path.join(os.path.dirname(found.origin), "_version.py"), encoding="utf-8") as file:
        return file.read()


_SHOWN = ("vendor_id", "cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part",
          "Features")  # fmt: skip
"""What Linux says of a processor that tells what code it can run."""


@functools.cache
def processor_identity() -> tuple[str, ...]:
    """Return texts that are the same only where code made here runs; without a compiler if can be.

    Two processes on one machine get the same.
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = file.read(1 << 14).partition("\n\n")[0].splitlines()
    except OSError:
        return tuple(_detected())
    fields = dict(line.partition(":")[::2] for line in lines)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    found = [known[name] for name in _SHOWN if name in known]
    if not found:
        return tuple(_detected())
    return (platform.system(), platform.machine(), *found)
