"""What native code does for processes that are careful of how their reals are rounded: ``ieee.py``.

Their instructions on reals have handlers of their own, where the processor is one whose rounding
``lowering/reals.py`` can set; elsewhere, and where it takes more than one operation, Python runs
them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from llmbol_core.vm.isa import OPS, Op

IS_X86 = platform.machine() in ("x86_64", "AMD64")
IS_ARM = platform.machine() in ("aarch64", "arm64")
_FOR_PYTHON = ("cvtcf",)
_UNROUNDED = (
    "FPcontrol", "FPstatus", "bits64real", "copysign", "fabs", "finite", "fmax", "fmin", "fmod",
    "getFPcontrol", "getFPstatus", "iamax", "ilogb", "isnan", "modf", "realbits64", "remainder",
    "sort",
)  # fmt: skip
"""Functions of $Math that do the same for all processes."""


def concerns(op: Op) -> bool:
    """Whether an instruction rounds or compares reals."""
    return op.computes_reals or op.mnemonic in _FOR_PYTHON


def is_native(op: Op) -> bool:
    """Whether there is native code for an instruction of such a process."""
    return not concerns(op) or ((IS_X86 or IS_ARM) and op.mnemonic not in _FOR_PYTHON)


def is_rounded(function: str) -> bool:
    """Whether a function of a built-in module, by its full name, does not so for all processes."""
    module, _, name = function.partition(".")
    return module == "Math" and name not in _UNROUNDED


def handled() -> Iterator[Op]:
    """Yield the opcodes that have handlers of their own for such processes."""
    return (op for op in OPS if concerns(op) and is_native(op))


def handler_name(op: Op) -> str:
    """Return the name in the table of handlers."""
    return f"careful_{op.mnemonic}"


def name(op: Op, is_careful: bool) -> str:
    """Return the name in the table of handlers for processes that are careful, or others."""
    return handler_name(op) if is_careful and concerns(op) else op.mnemonic


def handlers(known: Mapping[str, int]) -> dict[str, int]:
    """Return the handlers of instructions for such processes, given those for all others."""
    found = dict(known)
    for op in filter(concerns, OPS):
        found.pop(op.mnemonic, None)
        if is_native(op) and handler_name(op) in known:
            found[op.mnemonic] = known[handler_name(op)]
    return found
