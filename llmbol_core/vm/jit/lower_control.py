"""Machine code for the instructions that go elsewhere: jumps, cases, frames, calls, returns."""

from __future__ import annotations

from llmbol_core.vm.jit.lowering import Lowerer, lowering
from llmbol_core.vm.jit.region import frame_size
from llmbol_core.vm.jit.runtime import State, tag
from llmbol_core.vm.process import CALLER, RETURN_PC, TYPE

_RESULT = 16
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
        out.go_to(target)


@lowering("frame")
def frame(out: Lowerer) -> None:
    """Make a frame; the interpreter goes on with another piece of the stack if this one is full."""
    number = out.instruction.source.value
    types = out.region.code.module.types
    if not 0 <= number < len(types):
        out.guard("true")
        return
    place = out.target("d")
    start = out.value("load i32, ptr %top")
    top = out.value(f"add i32 {start}, {frame_size(types[number].size)}")
    limit = out.value(f"load i32, ptr {out.state_word(State.LIMIT)}")
    out.guard(out.value(f"icmp ugt i32 {top}, {limit}"))
    kind = out.value(f"call i32 @type_number(ptr %s, i64 {number})")
    pointer = out.at(start)
    header = {0: "0", 4: "0", 8: "0", TYPE: kind, _RESULT: "-1"}
    for offset, value in (header | dict.fromkeys(types[number].pointers, "-1")).items():
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")
    out.emit(f"store i32 {top}, ptr %top")
    out.store(place, "K", start)


@lowering("call")
def call(out: Lowerer) -> None:
    """Call a function of the module whose code there is; the interpreter calls others."""
    target = out.instruction.destination.value
    start = out.read("s")
    out.guard(out.value(f"icmp eq i32 {start}, {_word(out, State.BASE)}"))
    size = frame_size(out.region.code.module.types[out.region.frame_made(out.pc)].size)
    end = out.value(f"add i32 {start}, {size}")
    out.guard(out.value(f"icmp ne i32 {end}, {out.value('load i32, ptr %top')}"))
    function = f"@f{target}" if target in out.unit else _found(out, target)
    pointer = out.at(start)
    for offset, value in ((RETURN_PC, str(out.pc + 1)), (CALLER, "%fp")):
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")
    out.save_budget()
    status = out.value(f"call fastcc i32 {function}(ptr %m, ptr %s, i32 {start}, i32 0)")
    out.load_budget()
    out.emit(f"store i32 {start}, ptr %top")
    out.emit(f"store i32 {status}, ptr %xstatus")
    out.branch(out.value(f"icmp eq i32 {status}, 0"), f"b{out.pc + 1}", "unwind")


def _word(out: Lowerer, word: State) -> str:
    return out.value(f"load i32, ptr {out.state_word(word)}")


def _found(out: Lowerer, target: int) -> str:
    """Return the code of a function that was compiled at another time; leave if there is none."""
    table = out.value(f"load ptr, ptr {out.state_word(State.FUNCTIONS)}")
    slot = out.value(f"getelementptr ptr, ptr {table}, i64 {target}")
    function = out.value(f"load ptr, ptr {slot}")
    out.guard(out.value(f"icmp eq ptr {function}, null"))
    return function


@lowering("ret")
def ret(out: Lowerer) -> None:
    """Release the frame's references and return; the caller drops the frame."""
    region = out.region
    for offset in region.frame.pointers:
        slot = f"%s{offset}" if offset in region.slots else out.frame(offset)
        ref = out.value(f"load i32, ptr {slot}, align 4")
        out.emit(f"call void @release(ptr %m, ptr %s, i32 {ref})")
    out.save_budget()
    out.emit("ret i32 0")
