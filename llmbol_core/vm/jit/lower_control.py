"""Machine code for the instructions that go elsewhere: jumps, cases, frames, calls, returns."""

from __future__ import annotations

from llmbol_core.vm.jit.lowering import Lowerer, lowering
from llmbol_core.vm.jit.runtime import tag

_RESULT, _ARGUMENT = 16, 32
_FRAME = tag("frame")


@lowering("jmp")
def jmp(out: Lowerer) -> None:
    """Go to a label."""
    out.go_to(out.instruction.destination.value)


@lowering("case")
def case(out: Lowerer) -> None:
    """Go where a table of ranges says, which nothing changes."""
    table = out.region.code.table(out.pc)
    assert table is not None
    value = out.read("s")
    labels: dict[int, str] = {}
    for _, _, target in table:
        labels.setdefault(target, out.label())
    cases = [
        f"i32 {number}, label %{labels[target]}"
        for low, high, target in table[:-1]
        for number in range(low, high)
    ]
    out.emit(f"switch i32 {value}, label %{labels[table[-1][2]]} [{' '.join(cases)}]")
    for target, label in labels.items():
        out.begin(label)
        if 0 <= target < len(out.region.code.instructions):
            out.go_to(target)
        else:
            out.guard("true")
            out.emit("unreachable")
