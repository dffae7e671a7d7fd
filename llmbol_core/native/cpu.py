"""The processor of this machine, as the compiler names it and as cached code is told apart by."""

from __future__ import annotations

import functools
from typing import NamedTuple


class Processor(NamedTuple):
    """The target that machine code is made for: platform triple, model and features."""

    triple: str
    name: str
    features: str


@functools.cache
def host_processor() -> Processor:
    """Return what code compiled here is for."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features().flatten()
    return Processor(llvm.get_default_triple(), llvm.get_host_cpu_name(), features)
