"""Machine code for the instructions that jump inside a function: jumps, cases."""

from __future__ import annotations

from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering


@lowering("jmp")
def jmp(out: Lowerer) -> None:
    """Go to a label."""
    out.go_to(out.instruction.destination.value)


@lowering("case")
def case(out: Lowerer) -> None:
    """Go where a table of ranges says."""
    table = out.region.code.table(out.pc)
    value = out.read("s")
    if table is None:
        _go_through(out, out.call("case_of_word", value, _table(out)))
        return
    labels: dict[int, str] = {}
    for _, _, target in table:
        labels.setdefault(target, out.label())
    cases = [
        f"i32 {number}, label %{labels[target]}"
        for low, high, target in table[:-1]
        for number in range(low, high)
    ]
    out.emit(f"switch i32 {value}, label %{labels[table[-1][2]]} [{' '.join(cases)}]")
    _go_on(out, labels)


@lowering("casel")
def casel(out: Lowerer) -> None:
    """Go where a table of ranges of bigs says."""
    values = f"i64 {out.read('s')}, i32 {_table(out)}"
    _go_through(out, out.value(f"call i32 @case_of_big(ptr %m, ptr %s, {values})"))


@lowering("casec")
def casec(out: Lowerer) -> None:
    """Go where a table of strings says."""
    _go_through(out, out.call("case_of_text", out.read("s"), _table(out)))


@lowering("goto")
def goto(out: Lowerer) -> None:
    """Go to an entry of a table, which has the number of its entries in the word before it."""
    number, table = out.read("s"), _table(out)
    count = out.value(f"load i32, ptr {out.at(table, -4)}, align 1")
    out.guard(out.value(f"icmp uge i32 {number}, {count}"))
    at = out.value(f"add i32 {table}, {out.value(f'shl i32 {number}, 2')}")
    _go_through(out, out.value(f"load i32, ptr {out.at(at)}, align 1"))


def _table(out: Lowerer) -> str:
    return out.address(out.instruction.destination)


def _go_through(out: Lowerer, pc: str) -> None:
    """Go to an instruction if it is one to which the table led when the module was loaded."""
    labels = {target: out.label() for target in out.region.code.labels(out.pc) or ()}
    elsewhere = out.label()
    cases = " ".join(f"i32 {target}, label %{label}" for target, label in labels.items())
    out.emit(f"switch i32 {pc}, label %{elsewhere} [{cases}]")
    _go_on(out, labels)
    out.begin(elsewhere)
    out.guard("true")
    out.emit("unreachable")


def _go_on(out: Lowerer, labels: dict[int, str]) -> None:
    """Write the blocks from which control goes to instructions."""
    for target, label in labels.items():
        out.begin(label)
        if 0 <= target < len(out.region.code.instructions):
            out.go_to(target)
        else:
            out.guard("true")
            out.emit("unreachable")
