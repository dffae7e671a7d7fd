"""Machine code for processes that are careful of how their reals are rounded: see ``ieee.py``."""

from __future__ import annotations

from collections.abc import Mapping

from llmbol_core.vm.isa import OPS

_TEXT_TO_REAL = "cvtcf"


def handlers(known: Mapping[str, int]) -> dict[str, int]:
    """Return the handlers of instructions for such processes, given those for all others."""
    python = {op.mnemonic: known["python"] for op in OPS if op.computes_reals}
    return {**known, **python, _TEXT_TO_REAL: known["python"]}
