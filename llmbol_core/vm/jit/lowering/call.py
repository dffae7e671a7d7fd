"""Machine code for frames, calls and returns inside of a module.

There are three ways to call. If the frame need not exist and the function was compiled with the
caller, arguments and result are values. Otherwise the frame is written to memory, now at the
latest, and the function found in the unit or in the table of all that was compiled; if it is in
neither, the interpreter calls it.
"""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.calls import RESULT, Site
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.lowering.operands import Place, nothing
from llmbol_core.vm.jit.lowering.ways import returned
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.runtime import State, tag
from llmbol_core.vm.module import Operand
from llmbol_core.vm.process import CALLER, RETURN_PC, TYPE, frame_size

_FRAME = tag("frame")
_OWN_RESULT = Operand(Mode.FP_INDIRECT, 0, RESULT)


@lowering("frame")
def frame(out: Lowerer) -> None:
    """Make a frame; if this piece of the stack is full, the interpreter continues on another."""
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
    site = out.region.sites.by_frame.get(out.pc)
    if site is not None:
        begin_site(out, site)
    else:
        kind = out.value(f"call i32 @type_number(ptr %s, i64 {number})")
        header = {0: "0", 4: "0", 8: "0", TYPE: kind, RESULT: "-1"}
        header |= dict.fromkeys(types[number].pointers, "-1")
        write(out, start, header)
    out.emit(f"store i32 {top}, ptr %top")
    out.store(place, "K", start)


def begin_site(out: Lowerer, site: Site) -> None:
    """Begin with a frame that is not made."""
    out.emit(f"store i32 -1, ptr %r{site.made}")
    for offset, letter in site.arguments.items():
        out.emit(f"store {llvm_type(letter)} {nothing(letter)}, ptr %a{site.made}.{offset}")


def write(out: Lowerer, start: str, words: dict[int, str]) -> None:
    """Store words in a frame."""
    pointer = out.at(start)
    for offset, value in words.items():
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store i32 {value}, ptr {slot}, align 4{_FRAME}")


@lowering("call")
def call(out: Lowerer) -> None:
    """Call a function of the module that is compiled; the interpreter calls others."""
    site = out.region.sites.by_call.get(out.pc)
    if site is None:
        start = out.read("s")
        out.guard(out.value(f"icmp eq i32 {start}, {_word(out, State.BASE)}"))
        size = frame_size(out.region.code.module.types[out.region.frame_made(out.pc)].size)
        end = out.value(f"add i32 {start}, {size}")
        out.guard(out.value(f"icmp ne i32 {end}, {out.value('load i32, ptr %top')}"))
        _call_in_memory(out, start, out.instruction.destination.value)
    elif out.unit.takes_values(site):
        call_by_values(out, site, site.target, lambda *at: _write_header(out, site, *at))
    else:
        _call_through_memory(out, site)
    out.jump(out.block_of(out.pc + 1))


def _word(out: Lowerer, word: State) -> str:
    return out.value(f"load i32, ptr {out.state_word(word)}")


# Frames that exist


def found(out: Lowerer, table: str, target: str) -> str:
    """Return the code of a function that was compiled at another time; leave if there is none."""
    slot = out.value(f"getelementptr ptr, ptr {table}, i64 {target}")
    function = out.value(f"load ptr, ptr {slot}")
    out.guard(out.value(f"icmp eq ptr {function}, null"))
    return function


def _call_in_memory(out: Lowerer, start: str, target: int, made: Site | None = None) -> None:
    """Call a function whose frame is in memory, or is ``made`` when that is certain."""
    function = f"@f{target}"
    if target not in out.unit.regions:
        table = out.value(f"load ptr, ptr {out.state_word(State.FUNCTIONS)}")
        function = found(out, table, str(target))
    if made is not None:
        out.make_frame(made)
    write(out, start, {RETURN_PC: str(out.pc + 1), CALLER: "%fp"})
    left = out.value("load i64, ptr %q")
    rest = out.value(f"call i64 {function}(ptr %m, ptr %s, i32 {start}, i64 {left})")
    out.unwind_if_left(rest, lambda: make_waiting(out))
    out.emit(f"store i32 {start}, ptr %top")


def make_waiting(out: Lowerer) -> None:
    """Write to memory the frames that wait while another one is called."""
    called = out.instruction.source
    for site in out.region.unmade(out.pc):
        if site.slot != called:
            out.make_frame(site, "waiting_type_number")


def _call_through_memory(out: Lowerer, site: Site) -> None:
    """Call with a frame that did not exist; the result goes to its slot's memory."""
    start = out.load(out.place(site.slot, "K"), "K")
    address, letter = site.address, out.region.results.letter(site.target)
    comes_back = address is not None and address.mode is Mode.FP and bool(letter)
    comes_back = comes_back and address is not None and address.value in out.region.slots
    if comes_back and letter == "P" and address is not None:
        out.emit(f"store i32 -1, ptr {out.frame(address.value)}, align 4{_FRAME}")
    _call_in_memory(out, start, site.target, site)
    if comes_back and address is not None:
        kind = llvm_type(letter)
        value = out.value(f"load {kind}, ptr {out.frame(address.value)}, align 1{_FRAME}")
        _put_result(out, out.place(address, letter), letter, value)


def _put_result(out: Lowerer, place: Place, letter: str, value: str) -> None:
    if letter == "P":
        out.give(place, value)
    else:
        out.store(place, letter, value)


# Frames that do not


def call_by_values(
    out: Lowerer, site: Site, target: int, write_header: Callable[[str, str], None]
) -> None:
    """Call a function of the unit; should it be left, its frame gets a header."""
    callee = out.unit.regions[target]
    start = out.load(out.place(site.slot, "K"), "K")
    given = {
        offset: out.value(f"load {llvm_type(letter)}, ptr %a{site.made}.{offset}")
        for offset, letter in site.arguments.items()
    }
    address = out.value(f"load i32, ptr %r{site.made}")
    _leave_in_memory(out, callee, start, site, given)
    for offset, letter in site.arguments.items():
        is_dropped = offset in callee.slots and offset not in callee.parameters
        if is_dropped and letter == "P":
            out.emit(f"call void @release(ptr %m, ptr %s, i32 {given[offset]})")
    given[RESULT] = address
    values = ""
    for offset in callee.parameters:
        kind = callee.slots[offset]
        none = "-1" if offset in callee.frame.pointers else nothing(kind)
        values += f", {kind} {given.get(offset, none)}"
    left = out.value("load i64, ptr %q")
    kind, function = returned(callee), f"@{out.callee(target)}"
    got = out.value(
        f"call fastcc {kind} {function}(ptr %m, ptr %s, i32 {start}, i64 {left}{values})"
    )
    rest = out.value(f"extractvalue {kind} {got}, 0") if callee.result else got

    def waiting() -> None:
        write_header(start, address)
        make_waiting(out)

    out.unwind_if_left(rest, waiting)
    out.emit(f"store i32 {start}, ptr %top")
    if callee.result:
        value = out.value(f"extractvalue {kind} {got}, 1")
        _put_result(out, result_place(out, site, address), callee.result, value)


def _leave_in_memory(
    out: Lowerer, callee: Region, start: str, site: Site, given: dict[int, str]
) -> None:
    """Store the arguments that the function expects in memory, and nil for its other pointers."""
    pointer = out.at(start)
    inside = {offset: "-1" for offset in callee.frame.pointers if offset not in callee.slots}
    kinds = dict.fromkeys(inside, "i32")
    for offset, letter in site.arguments.items():
        if offset not in callee.slots:
            inside[offset], kinds[offset] = given[offset], llvm_type(letter)
    for offset, value in inside.items():
        slot = out.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        out.emit(f"store {kinds[offset]} {value}, ptr {slot}, align 1")


def _write_header(out: Lowerer, site: Site, start: str, address: str) -> None:
    """Write the header of a frame whose function has left machine code."""
    number = out.value(f"call i32 @waiting_type_number(ptr %s, i64 {site.type})")
    words = {RETURN_PC: str(out.pc + 1), CALLER: "%fp", 8: "0", TYPE: number, RESULT: address}
    write(out, start, words)


def result_place(out: Lowerer, site: Site, address: str) -> Place:
    """Return where a result that came back as a value goes."""
    operand = site.address
    assert operand is not None
    if operand.mode is Mode.FP or (out.result and operand == _OWN_RESULT):
        return out.place(operand, "W")
    return Place(out.at(address), "")


def lea_for_result(out: Lowerer, site: Site) -> None:
    """Note the address for the result of a call whose frame does not exist."""
    operand = out.instruction.source
    if out.result and operand == _OWN_RESULT:
        address = out.value(f"load i32, ptr %s{RESULT}")
    else:
        address = out.address(operand)
    out.emit(f"store i32 {address}, ptr %r{site.made}")


@lowering("ret")
def ret(out: Lowerer) -> None:
    """Release the frame's references and return; the caller drops the frame."""
    region = out.region
    for offset in region.frame.pointers:
        slot = f"%s{offset}" if offset in region.slots else out.frame(offset)
        ref = out.value(f"load i32, ptr {slot}, align 4")
        out.emit(f"call void @release(ptr %m, ptr %s, i32 {ref})")
    out.return_to_caller()
