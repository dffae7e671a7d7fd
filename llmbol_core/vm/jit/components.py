"""The native interpreter in components: each is compiled when a program needs it.

The core is what every program needs. A component holds handlers of instructions, functions of
built-in modules, or one function that goes through much memory or text. Until it is loaded, Python
does what it would do: instructions and functions without native code are Python's anyway, and in
the table of shared functions there is one that declines in place of each that is missing.
"""

from __future__ import annotations

import functools

from llmbol_core.vm.jit.runtime import BURY, UPKEEP

CORE = "core"
_CAREFUL = "careful_"
OF_HEAP = (BURY, "alternative", "collect", "list_free")
"""Components that need nothing of what built-in modules need."""
_WELL = ("Math.dot", "Math.gemm", "Math.iamax", "Math.norm1", "Math.norm2", "Math.sort")
"""Functions of built-in modules that take long."""

# fmt: off
OPCODES = {
    "bigs": (
        "movl", "addl", "subl", "divl", "modl", "mull", "andl", "orl", "xorl", "shll", "shrl",
        "lsrl", "bnel", "bltl", "blel", "bgtl", "bgel", "beql", "cvtlf", "cvtfl", "cvtlw", "cvtwl",
        "headl", "consl", "casel", "indl",
    ),
    "channels": (
        "alt", "nbalt", "send", "recv", "newcb", "newcw", "newcf", "newcl", "newcp", "newcm",
        "newcmp", "spawn", "mspawn",
    ),
    "lists": (
        "consb", "consw", "consp", "consf", "consm", "consmp", "headb", "headw", "headp", "headf",
        "headm", "headmp", "tail", "lenl",
    ),
    "powers": (
        "mulx", "divx", "cvtxx", "mulx0", "divx0", "cvtxx0", "mulx1", "divx1", "cvtxx1", "cvtfx",
        "cvtxf", "expw", "expl", "expf",
    ),
    "reals": (
        "addf", "subf", "mulf", "divf", "negf", "beqf", "bnef", "bltf", "blef", "bgtf", "bgef",
        "cvtfw", "cvtwf", "cvtrf", "cvtfr", "indf", "movf",
    ),
    "text": (
        "cvtca", "cvtac", "cvtwc", "cvtcw", "cvtfc", "cvtcf", "cvtlc", "cvtcl", "insc", "indc",
        "addc", "lenc", "slicec", "beqc", "bnec", "bltc", "blec", "bgtc", "bgec", "casec",
    ),
}
# fmt: on
"""Instructions whose handlers are not part of the core."""
_OF = {mnemonic: name for name, mnemonics in OPCODES.items() for mnemonic in mnemonics}
_MORE = {
    "alt": ("alternative",), "nbalt": ("alternative",), "cvtfc": ("real_text",),
    "cvtcf": ("read_real",), "Sys.print": ("formatted",), "Sys.fprint": ("formatted",),
    "Sys.sprint": ("formatted",), "Sys.aprint": ("formatted",),
}  # fmt: skip
"""The functions of ``UPKEEP`` that instructions and functions of built-in modules call."""


@functools.cache
def needed(name: str) -> tuple[str, ...]:
    """Return the components that an instruction's handler or a built-in function consists of.

    Instructions of processes that are careful of how reals are rounded have names of their own.
    """
    found = [_OF[name]] if name in _OF else []
    if name.startswith(_CAREFUL):
        found.append("careful")
    elif name.startswith("Math."):
        found.append(name if name in _WELL else "math")
    elif name.startswith("Sys."):
        found.append("system")
    return (*found, *_MORE.get(name, ()))


ALL = (*OPCODES, "careful", "math", "system", *_WELL, *UPKEEP)
"""All components but the core."""
WELL = frozenset({*_WELL, *UPKEEP})
"""Components that are compiled well once a program has run for a while."""
