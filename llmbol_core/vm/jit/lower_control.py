"""Machine code for the instructions that go elsewhere: jumps, cases, frames, calls, returns."""

from __future__ import annotations

from llmbol_core.vm.jit.lower_call import found, make_waiting
from llmbol_core.vm.jit.lowering import Lowerer, lowering
from llmbol_core.vm.jit.runtime import LinkKind, State, tag
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

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


def _word(out: Lowerer, word: State) -> str:
    return out.value(f"load i32, ptr {out.state_word(word)}")


# Functions of other modules, or of this one through a handle


class _Link:
    """A link of a module handle: words of what is known of it."""

    def __init__(self, out: Lowerer, handle: str, number: str) -> None:
        out.guard(out.value(f"icmp eq i32 {handle}, -1"))
        arguments = f"ptr %m, ptr %s, i32 {handle}, i32 {number}"
        self._out, self._link = out, out.value(f"call ptr @link({arguments})")
        out.guard(out.value(f"icmp eq ptr {self._link}, null"))
        self.pc, self.type, self.size = (self._word(at) for at in range(3))

    def _word(self, at: int) -> str:
        out = self._out
        return out.value(
            f"load i64, ptr {out.value(f'getelementptr i64, ptr {self._link}, i64 {at}')}"
        )


@lowering("mframe")
def mframe(out: Lowerer) -> None:
    """Make a frame for a link."""
    handle, number, place = out.read("s"), out.read("m"), out.target("d")
    link = _Link(out, handle, number)
    kind = out.value(f"trunc i64 {link.type} to i32")
    out.guard(out.value(f"icmp eq i32 {kind}, 0"))
    start = out.value("load i32, ptr %top")
    top = out.value(f"add i32 {start}, {out.value(f'trunc i64 {link.size} to i32')}")
    out.guard(out.value(f"icmp ugt i32 {top}, {_word(out, State.LIMIT)}"))
    out.emit(f"call void @begin_frame(ptr %m, ptr %s, i32 {start}, i32 {kind})")
    out.emit(f"store i32 {top}, ptr %top")
    out.store(place, "K", start)


@lowering("mcall")
def mcall(out: Lowerer) -> None:
    """Call what a link leads to, if there is code for it; the interpreter calls others."""
    start, number, handle = out.read("s"), out.read("m"), out.read("d")
    link = _Link(out, handle, number)
    made = out.value(f"load i32, ptr {out.at(start, TYPE)}, align 4{_FRAME}")
    out.guard(out.value(f"icmp ne i32 {made}, {out.value(f'trunc i64 {link.type} to i32')}"))
    out.guard(out.value(f"icmp eq i32 {start}, {_word(out, State.BASE)}"))
    end = out.value(f"add i32 {start}, {out.value(f'trunc i64 {link.size} to i32')}")
    out.guard(out.value(f"icmp ne i32 {end}, {out.value('load i32, ptr %top')}"))
    slots = out.region.results_of(out.pc)
    out.spill(slots)
    root, code = out.label(), out.label()
    is_root = out.value(f"icmp eq i64 {link.pc}, {LinkKind.SQUARE_ROOT:d}")
    out.branch(is_root, root, code)
    out.begin(root)
    _square_root(out, start)
    out.reload(slots)
    out.jump(f"b{out.pc + 1}")
    out.begin(code)
    out.guard(out.value(f"icmp slt i64 {link.pc}, 0"))
    kept, left = _enter_link(out, start, handle, link.pc)
    out.reload(slots)
    out.unwind_if_left(left, lambda: make_waiting(out))
    for word, value in kept.items():
        out.emit(f"store i64 {value}, ptr {out.state_word(word)}")
    out.emit(f"store i32 {start}, ptr %top")
    out.emit(f"call void @release(ptr %m, ptr %s, i32 {handle})")
    out.jump(f"b{out.pc + 1}")


def _square_root(out: Lowerer, start: str) -> None:
    """Do what the host's function does for numbers that have a root."""
    x = out.value(f"load double, ptr {out.at(start, _ARGUMENT)}, align 8")
    out.guard(out.value(f"fcmp ult double {x}, 0.0"))
    result = out.value(f"load i32, ptr {out.at(start, _RESULT)}, align 4")
    out.guard(out.value(f"icmp eq i32 {result}, -1"))
    root = out.value(f"call double @llvm.sqrt.f64(double {x})")
    out.emit(f"store double {root}, ptr {out.at(result)}, align 1")
    out.emit(f"store i32 {start}, ptr %top")


_SWITCHED = (State.HANDLE, State.MP, State.TYPES, State.FUNCTIONS, State.CODE)


def _enter_link(out: Lowerer, start: str, handle: str, target: str) -> tuple[dict[State, str], str]:
    """Call a function of the module of a handle, whose state takes the place of this one's."""
    record = out.value(f"call ptr @links_of(ptr %m, ptr %s, i32 {handle})")
    types, functions, code = (
        out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {record}, i64 {at}')}")
        for at in (1, 2, 3)
    )
    function = found(out, out.value(f"inttoptr i64 {functions} to ptr"), target)
    kept = {word: out.value(f"load i64, ptr {out.state_word(word)}") for word in _SWITCHED}
    caller = out.value(f"trunc i64 {kept[State.HANDLE]} to i32")
    pointer = out.at(start)
    for offset, value in ((RETURN_PC, str(out.pc + 1)), (CALLER, "%fp"), (MODULE, caller)):
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")
    out.emit(f"call void @retain(ptr %m, i32 {handle})")
    data = out.value(f"load i32, ptr {out.at(handle)}, align 4")
    new = (
        out.value(f"zext i32 {handle} to i64"), out.value(f"zext i32 {data} to i64"),
        types, functions, code,
    )  # fmt: skip
    for word, value in zip(_SWITCHED, new, strict=True):
        out.emit(f"store i64 {value}, ptr {out.state_word(word)}")
    left = out.value("load i64, ptr %q")
    left = out.value(f"call i64 {function}(ptr %m, ptr %s, i32 {start}, i64 {left})")
    return kept, left
