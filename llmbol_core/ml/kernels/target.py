"""THE table of instruction sets that kernels are made for, best first, and the choice of one."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from llmbol_core.errors import UsageError, nearest
from llmbol_core.native.cpu import Processor
from llmbol_core.native.processor import host_processor


@dataclass(frozen=True)
class Target:
    """One instruction set."""

    name: str
    architecture: str
    """How the platform's triple begins; empty for any."""
    needs: tuple[str, ...]
    """Features that the processor must have, by LLVM's names."""
    lanes: int
    """How many float32 one vector register holds."""
    dot: str
    """How dot products of four bytes are made: ``vnni``, ``maddubs``, ``sdot`` or ``generic``."""
    processor: str = ""
    """The processor to compile for if this is not the best of the host's sets."""

    @property
    def fuses(self) -> bool:
        """Whether there is an instruction that multiplies and adds with one rounding."""
        return not self.architecture.startswith("x86") or "fma" in self.needs

    @property
    def has_half(self) -> bool:
        """Whether there are instructions that convert float16."""
        return not self.architecture.startswith("x86") or "f16c" in self.needs

    def fits(self, processor: Processor) -> bool:
        """Return whether a processor can run this code."""
        has = set(processor.features.split(","))
        return processor.triple.startswith(self.architecture) and all(
            f"+{feature}" in has for feature in self.needs
        )


_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq")

# fmt: off
TARGETS = {target.name: target for target in (
    #       name         triple     features                    lanes  dot        processor
    Target("avx512",    "x86_64",  (*_AVX512, "avx512vnni"),    16, "vnni",    "cascadelake"),
    Target("avx512bw",  "x86_64",  _AVX512,                     16, "maddubs", "skylake-avx512"),
    Target("avxvnni",   "x86_64",  (*_AVX2, "avxvnni"),          8, "vnni",    "alderlake"),
    Target("avx2",      "x86_64",  _AVX2,                        8, "maddubs", "haswell"),
    Target("sse4",      "x86_64",  ("sse4.1", "ssse3"),          4, "maddubs", "nehalem"),
    Target("generic",   "x86_64",  ("sse4.1",),                  4, "generic", "nehalem"),
    Target("neon",      "aarch64", ("neon", "dotprod"),          4, "sdot"),
    Target("apple",     "arm64",   (),                           4, "sdot"),
)}
# fmt: on

NONE = "none"
"""The name that stands for no kernels at all: NumPy does the work."""


def target() -> Target | None:
    """Return the instruction set to use: the best that fits, or the one that is forced.

    ``LLMBOL_KERNELS`` forces one by name; ``none``, or a machine without LLVM, gives None.
    """
    return _chosen(os.environ.get("LLMBOL_KERNELS", ""))


@functools.cache
def _chosen(forced: str) -> Target | None:
    if forced == NONE:
        return None
    if forced and forced not in TARGETS:
        known = f"{', '.join(TARGETS)} or {NONE}"
        hint = nearest(forced, [*TARGETS, NONE]) or f": expected {known}"
        raise UsageError(f"LLMBOL_KERNELS: no instruction set is named {forced!r}{hint}")
    try:
        host = host_processor()
    except ImportError:
        return None
    if not forced:
        return next((row for row in TARGETS.values() if row.fits(host)), None)
    if not TARGETS[forced].fits(host):
        raise UsageError(f"LLMBOL_KERNELS: this processor cannot run {forced!r}")
    return TARGETS[forced]


def processor_for(chosen: Target) -> Processor:
    """Return what to compile for: this host, or less of it if a lesser set was forced."""
    host = host_processor()
    best = next(row for row in TARGETS.values() if row.fits(host))
    if chosen is best:
        return host
    return Processor(host.triple, chosen.processor, "")
