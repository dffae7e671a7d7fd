"""Machine code for calls through module handles: of other modules, and of references to functions.

A link's target is looked up where the frame is made, and again at the call unless that follows
in the same stretch of code; then it is enough that the operands are unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.vm.isa import Effect
from llmbol_core.vm.jit.calls import Site
from llmbol_core.vm.jit.lowering.call import (
    begin_site,
    call_by_values,
    found,
    make_waiting,
    result_place,
    write,
)
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.runtime import (
    FEW_POINTERS,
    LINK_HEADER,
    LINK_WORDS,
    YIELDS,
    LinkKind,
    State,
    Status,
    tag,
)
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

if TYPE_CHECKING:
    from llmbol_core.vm.jit.cold import ColdLowerer

_RESULT, _ARGUMENT = 16, 32
_FRAME = tag("frame")


def _word(out: Lowerer, word: State) -> str:
    return out.value(f"load i32, ptr {out.state_word(word)}")


class _Link:
    """A link of a module handle: the words that describe it."""

    def __init__(self, out: Lowerer, record: str, link: str) -> None:
        self._out, self.record, self.pointer = out, record, link
        self.pc = self._word(0)
        self.type, self.size = (out.value(f"trunc i64 {self._word(at)} to i32") for at in (1, 2))

    def _word(self, at: int) -> str:
        out = self._out
        where = out.value(f"getelementptr i64, ptr {self.pointer}, i64 {at}")
        return out.value(f"load i64, ptr {where}{tag('table')}")

    @property
    def pointers(self) -> str:
        """Where the frame's first pointers are: as many 16-bit offsets as fit in the word."""
        return self._word(3)


def _look_up(out: Lowerer, handle: str, number: str) -> _Link:
    out.guard(out.value(f"icmp eq i32 {handle}, -1"))
    record = out.value(f"call ptr @links_of(ptr %m, ptr %s, i32 {handle})")
    out.guard(out.value(f"icmp eq ptr {record}, null"))
    count = out.value(f"load i32, ptr {record}{tag('table')}")
    out.guard(out.value(f"icmp uge i32 {number}, {count}"))
    at = out.value(f"mul i64 {out.value(f'zext i32 {number} to i64')}, {LINK_WORDS}")
    at = out.value(f"add i64 {at}, {LINK_HEADER}")
    return _Link(out, record, out.value(f"getelementptr i64, ptr {record}, i64 {at}"))


def _call_in_sight(out: Lowerer) -> bool:
    """Whether straight code leads from here to the call for which a frame is made."""
    region = out.region
    instructions, slot = region.code.instructions, out.instruction.destination
    for pc in range(out.pc + 1, out.pc + 64):
        if pc not in region.native or pc in region.leaders:
            return False
        following = instructions[pc]
        if following.op.mnemonic == "mcall":
            return following.source == slot
        if following.op.effect is not Effect.NEXT:
            return False
    return False


@lowering("mframe")
def mframe(out: Lowerer) -> None:
    """Make a frame for a link."""
    handle, number, place = out.read("s"), out.read("m"), out.target("d")
    link = _look_up(out, handle, number)
    out.guard(out.value(f"icmp eq i32 {link.type}, 0"))
    start = out.value("load i32, ptr %top")
    top = out.value(f"add i32 {start}, {link.size}")
    out.guard(out.value(f"icmp ugt i32 {top}, {_word(out, State.LIMIT)}"))
    site = out.region.sites.by_frame.get(out.pc)
    if site is None:
        _begin_frame(out, link, start)
    else:
        begin_site(out, site)
        out.emit(f"store i32 {link.type}, ptr %k{site.made}")
    out.emit(f"store i32 {top}, ptr %top")
    out.store(place, "K", start)
    out.links.clear()
    if site is not None or _call_in_sight(out):
        out.links[out.instruction.destination] = (link, handle, number, start)


def _begin_frame(out: Lowerer, link: _Link, start: str) -> None:
    """Begin a frame whose links and pointers are nil; a few pointers are stored without a loop."""
    pointer = out.at(start)
    header = {0: "0", 4: "0", 8: "0", TYPE: link.type, _RESULT: "-1"}
    for offset, value in header.items():
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")
    offsets = link.pointers
    many, few, begun = out.label(), out.label(), out.label()
    out.branch(out.value(f"icmp eq i64 {offsets}, 0"), many, few, rare=True)
    out.begin(many)
    out.emit(f"call void @begin_frame(ptr %m, ptr %s, i32 {start}, i32 {link.type})")
    out.jump(begun)
    out.begin(few)
    for at in range(FEW_POINTERS):
        shifted = out.value(f"lshr i64 {offsets}, {16 * at}")
        where = out.value(f"and i64 {shifted}, 65535")
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {where}")
        out.emit(f"store i32 -1, ptr {slot}, align 4{_FRAME}")
    out.jump(begun)
    out.begin(begun)


@lowering("mcall")
def mcall(out: Lowerer) -> None:
    """Call a link's target if there is code for it; the interpreter calls others."""
    start, number, handle = out.read("s"), out.read("m"), out.read("d")
    link = _checked_link(out, start, number, handle)
    out.guard(out.value(f"icmp eq i32 {start}, {_word(out, State.BASE)}"))
    site = out.region.sites.by_call.get(out.pc)
    if site is not None:
        _call_in_registers(out, site, link, handle)
        _begin_frame(out, link, start)
        out.put_contents(site, out.at(start))
    slots = out.region.results_of(out.pc)
    out.spill(slots)
    code, outside = out.label(), out.label()
    is_code = out.value(f"icmp sge i64 {link.pc}, 0")
    out.branch(is_code, code, outside)
    out.begin(outside)
    became = _call_outside(out, start, link)
    out.reload(slots)
    out.leave_if(out.value(f"icmp eq i32 {became}, {YIELDS}"), out.pc + 1, Status.BUDGET)
    out.jump(out.block_of(out.pc + 1))
    out.begin(code)
    _enter_link(out, start, handle, link, slots)
    out.emit(f"store i32 {start}, ptr %top")
    out.emit(f"call void @release(ptr %m, ptr %s, i32 {handle})")
    out.jump(out.block_of(out.pc + 1))


def _call_in_registers(out: Lowerer, site: Site, link: _Link, handle: str) -> None:
    """Call the guessed target of a link, or take a root; continue if it is something else."""
    table = out.value(f"getelementptr i64, ptr {link.record}, i64 {_TABLES.index(State.CODE) + 1}")
    own = out.value(f"load i64, ptr {out.state_word(State.CODE)}")
    is_own = out.value(f"icmp eq i64 {own}, {out.value(f'load i64, ptr {table}')}")
    data = out.value(f"load i32, ptr {out.at(handle)}, align 4")
    is_own = out.value(f"and i1 {is_own}, {out.value(f'icmp eq i32 {data}, %mp')}")
    for target in out.unit.guesses(out.region, site):
        right, wrong = out.label(), out.label()
        is_right = out.value(f"icmp eq i64 {link.pc}, {target}")
        out.branch(out.value(f"and i1 {is_own}, {is_right}"), right, wrong)
        out.begin(right)
        _call_own(out, site, target, handle)
        out.jump(out.block_of(out.pc + 1))
        out.begin(wrong)
    if site.arguments == {_ARGUMENT: "F"} and out.region.gets_result(site, "F"):
        _take_root(out, site, link)


def _take_root(out: Lowerer, site: Site, link: _Link) -> None:
    """Store the square root of the argument if that is what a link is for; else continue."""
    root, other = out.label(), out.label()
    out.branch(out.value(f"icmp eq i64 {link.pc}, {LinkKind.SQUARE_ROOT:d}"), root, other)
    out.begin(root)
    x = out.value(f"load double, ptr %a{site.made}.{_ARGUMENT}")
    out.guard(out.value(f"fcmp ult double {x}, 0.0"))
    start = out.load(out.place(site.slot, "K"), "K")
    place = result_place(out, site, out.value(f"load i32, ptr %r{site.made}"))
    out.store(place, "F", out.value(f"call double @llvm.sqrt.f64(double {x})"))
    out.emit(f"store i32 {start}, ptr %top")
    out.jump(out.block_of(out.pc + 1))
    out.begin(other)


def _call_own(out: Lowerer, site: Site, target: int, handle: str) -> None:
    """Call a function of the same module, with the same data, through another handle."""
    caller = out.value(f"load i64, ptr {out.state_word(State.HANDLE)}")
    module = out.value(f"trunc i64 {caller} to i32")
    out.emit(f"call void @retain(ptr %m, i32 {handle})")
    _set(out, State.HANDLE, out.value(f"zext i32 {handle} to i64"))

    def write_header(start: str, address: str) -> None:
        number = out.value(f"load i32, ptr %k{site.made}")
        words = {RETURN_PC: str(out.pc + 1), CALLER: "%fp", MODULE: module, TYPE: number}
        write(out, start, words | {_RESULT: address})

    call_by_values(out, site, target, write_header)
    _set(out, State.HANDLE, caller)
    out.emit(f"call void @release(ptr %m, ptr %s, i32 {handle})")


def _checked_link(out: Lowerer, start: str, number: str, handle: str) -> _Link:
    """Return the link of a call, whose frame must be the topmost, and one that the link expects."""
    known = out.links.pop(out.instruction.source, None)
    if known is not None:
        link: _Link = known[0]
        for was, now in zip(known[1:], (handle, number, start), strict=True):
            out.guard(out.value(f"icmp ne i32 {was}, {now}"))
        return link
    link = _look_up(out, handle, number)
    made = out.value(f"load i32, ptr {out.at(start, TYPE)}, align 4{_FRAME}")
    out.guard(out.value(f"icmp ne i32 {made}, {link.type}"))
    end = out.value(f"add i32 {start}, {link.size}")
    out.guard(out.value(f"icmp ne i32 {end}, {out.value('load i32, ptr %top')}"))
    return link


def _call_outside(out: Lowerer, start: str, link: _Link) -> str:
    """Run machine code for a function of the host, if there is any; return its result."""
    root, other, done = out.label(), out.label(), out.label()
    out.branch(out.value(f"icmp eq i64 {link.pc}, {LinkKind.SQUARE_ROOT:d}"), root, other)
    out.begin(other)
    address = out.value(f"ptrtoint ptr {link.pointer} to i64")
    became = out.value(f"call i32 @call_hosted(ptr %m, ptr %s, i64 {address}, i32 {start})")
    out.guard(out.value(f"icmp eq i32 {became}, 0"))
    called = out.block
    out.jump(done)
    out.begin(root)
    square_root(out, start)
    rooted = out.block
    out.jump(done)
    out.begin(done)
    result = out.value(f"phi i32 [{became}, %{called}], [1, %{rooted}]")
    out.emit(f"store i32 {start}, ptr %top")
    return result


def square_root(out: Lowerer | ColdLowerer, start: str) -> None:
    """Do what the host's function does for numbers that have a root."""
    x = out.value(f"load double, ptr {out.at(start, _ARGUMENT)}, align 8")
    out.guard(out.value(f"fcmp ult double {x}, 0.0"))
    result = out.value(f"load i32, ptr {out.at(start, _RESULT)}, align 4")
    out.guard(out.value(f"icmp eq i32 {result}, -1"))
    root = out.value(f"call double @llvm.sqrt.f64(double {x})")
    out.emit(f"store double {root}, ptr {out.at(result)}, align 1")


_TABLES = (State.TYPES, State.FUNCTIONS, State.CODE)


def _enter_link(out: Lowerer, start: str, handle: str, link: _Link, slots: list[int]) -> None:
    """Call a function of the module of a handle, whose state takes the place of this one's.

    Where code and data stay the same only the handle changes.
    """
    tables = [
        out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {link.record}, i64 {at}')}")
        for at in (1, 2, 3)
    ]
    function = found(out, out.value(f"inttoptr i64 {tables[1]} to ptr"), link.pc)
    caller = out.value(f"load i64, ptr {out.state_word(State.HANDLE)}")
    pointer = out.at(start)
    module = out.value(f"trunc i64 {caller} to i32")
    for offset, value in ((RETURN_PC, str(out.pc + 1)), (CALLER, "%fp"), (MODULE, module)):
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")
    out.emit(f"call void @retain(ptr %m, i32 {handle})")
    data = out.value(f"load i32, ptr {out.at(handle)}, align 4")
    own = [out.value(f"load i64, ptr {out.state_word(word)}") for word in _TABLES]
    same = out.value(f"icmp eq i64 {tables[2]}, {own[2]}")
    same = out.value(f"and i1 {same}, {out.value(f'icmp eq i32 {data}, %mp')}")
    _set(out, State.HANDLE, out.value(f"zext i32 {handle} to i64"))
    _switch(out, same, tables, out.value(f"zext i32 {data} to i64"))
    left = out.value("load i64, ptr %q")
    left = out.value(f"call i64 {function}(ptr %m, ptr %s, i32 {start}, i64 {left})")
    out.reload(slots)

    def waiting() -> None:
        _set(out, State.WAITING_TYPES, own[0])
        make_waiting(out)

    out.unwind_if_left(left, waiting)
    _set(out, State.HANDLE, caller)
    _switch(out, same, own, out.value("zext i32 %mp to i64"))


def _switch(out: Lowerer, same: str, tables: list[str], data: str) -> None:
    """Store in the state whose code runs, unless that is unchanged."""
    other, done = out.label(), out.label()
    out.branch(same, done, other)
    out.begin(other)
    for word, value in zip(_TABLES, tables, strict=True):
        _set(out, word, value)
    _set(out, State.MP, data)
    out.jump(done)
    out.begin(done)


def _set(out: Lowerer, word: State, value: str) -> None:
    out.emit(f"store i64 {value}, ptr {out.state_word(word)}")
