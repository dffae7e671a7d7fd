"""Handlers of the native interpreter for what compiled regions do differently, or not at all.

These are calls and returns, jumps through tables, and instructions on values in memory.
"""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.arena import HEADER, NIL, SMALL
from llmbol_core.vm.jit import decoded
from llmbol_core.vm.jit.cold import ColdLowerer, cold
from llmbol_core.vm.jit.lowering.link import square_root
from llmbol_core.vm.jit.lowering.operands import Place
from llmbol_core.vm.jit.runtime import EXTENT_ROWS, YIELDS, LinkKind, Machine, State, tag
from llmbol_core.vm.objects import LIST_HEADER
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

_FRAME = tag("frame")
_NIL = NIL - (1 << 32)


# Addresses and objects


@cold("lea")
def lea(out: ColdLowerer) -> None:
    """Store an address."""
    out.store(out.target("d"), "E", out.address_of_value("s"))


@cold("new", "newz")
def new(out: ColdLowerer) -> None:
    """Make a record, which has a block of its exact size."""
    kind, place = out.read("s"), out.target("d")
    size = out.call("type_size", kind)
    out.guard(out.value(f"icmp ugt i32 {size}, {SMALL - HEADER}"))
    room = out.value(f"and i32 {out.value(f'add i32 {size}, 3')}, -4")
    least = out.value(f"call i32 @llvm.smax.i32(i32 {room}, i32 4)")
    total = out.value(f"add i32 {least}, {HEADER}")
    clears = str(out.instruction.op.mnemonic == "newz").lower()
    values = f"i32 {total}, i32 {kind}, i1 {clears}"
    ref = out.value(f"call i32 @allocate(ptr %m, ptr %s, {values})")
    out.guard(out.value(f"icmp eq i32 {ref}, {_NIL}"))
    out.emit(f"call void @clear_value(ptr %m, ptr %s, i32 {ref}, i32 {kind})")
    out.give(place, ref)


@cold("newa", "newaz")
def newa(out: ColdLowerer) -> None:
    """Make an array."""
    length, kind, place = out.read("s"), out.read("m"), out.target("d")
    out.guard(out.value(f"icmp slt i32 {length}, 0"))
    ref = out.call("new_array", length, kind)
    out.guard(out.value(f"icmp eq i32 {ref}, {_NIL}"))
    out.give(place, ref)


# Copying; lists of what is more than a number


@cold("movm")
def movm(out: ColdLowerer) -> None:
    """Copy bytes."""
    out.must(out.call("copy_bytes", out.address("s"), out.read("m"), out.address("d")))


@cold("movmp")
def movmp(out: ColdLowerer) -> None:
    """Copy a value of a type."""
    out.must(out.call("copy_typed", out.address("s"), out.read("m"), out.address("d")))


def _head(out: ColdLowerer) -> str:
    """Return the address of the first value of a list; leave if it is nil."""
    ref = out.read("s")
    trap = traps.NIL_DEREFERENCE if out.instruction.op.mnemonic == "headm" else ""
    out.guard(out.value(f"icmp eq i32 {ref}, {_NIL}"), trap)
    return out.value(f"add i32 {ref}, {LIST_HEADER}")


@cold("headm")
def headm(out: ColdLowerer) -> None:
    """Copy bytes from the head of a list."""
    out.must(out.call("copy_bytes", _head(out), out.read("m"), out.address("d")))


@cold("headmp")
def headmp(out: ColdLowerer) -> None:
    """Copy the head of a list, a value of a type."""
    out.must(out.call("copy_typed", _head(out), out.read("m"), out.address("d")))


@cold("consm", "consmp")
def consmp(out: ColdLowerer) -> None:
    """Put a value of a type before a list."""
    place = out.target("d")
    tail = out.load(place, "I")
    ref = out.must(out.call("new_value_node", out.address("s"), out.read("m"), tail))
    out.store(place, "I", ref)


# Jumps


@cold("jmp")
def jmp(out: ColdLowerer) -> None:
    """Go to a label."""
    out.go(out.read_label())


def _to(out: ColdLowerer, pc: str, f: str = "%f", d: str = "%d") -> None:
    """Continue at a pc that came from memory, if it is one."""
    code = out.get(State.CODE, "ptr")
    header = out.value(f"getelementptr i8, ptr {code}, i64 -{decoded.SIZE}")
    count = out.value(f"load i32, ptr {header}")
    out.guard(out.value(f"icmp uge i32 {pc}, {count}"))
    out.go(_instruction(out, code, pc), f=f, d=d)


def _instruction(out: ColdLowerer, code: str, pc: str) -> str:
    at = out.value(f"mul i64 {out.value(f'zext i32 {pc} to i64')}, {decoded.SIZE}")
    return out.value(f"getelementptr i8, ptr {code}, i64 {at}")


@cold("goto")
def goto(out: ColdLowerer) -> None:
    """Go to an entry of a table, which has the number of its entries in the word before it."""
    number, table = out.read("s"), out.address("d")
    count = out.value(f"load i32, ptr {out.at(table, -4)}, align 1")
    out.guard(out.value(f"icmp uge i32 {number}, {count}"))
    address = out.value(f"add i32 {table}, {out.value(f'shl i32 {number}, 2')}")
    _to(out, out.value(f"load i32, ptr {out.at(address)}, align 1"))


@cold("case")
def case(out: ColdLowerer) -> None:
    """Go where a table of ranges says."""
    _to(out, out.call("case_of_word", out.read("s"), out.address("d")))


@cold("casel")
def casel(out: ColdLowerer) -> None:
    """Go where a table of ranges of bigs says."""
    value, table = out.read("s"), out.address("d")
    _to(out, out.value(f"call i32 @case_of_big(ptr %m, ptr %s, i64 {value}, i32 {table})"))


@cold("casec")
def casec(out: ColdLowerer) -> None:
    """Go where a table of strings says."""
    _to(out, out.call("case_of_text", out.read("s"), out.address("d")))


# Frames, calls, returns


def _make_frame(out: ColdLowerer, kind: str, size: str, place: Place) -> None:
    out.store(place, "K", out.must(out.call("push_frame", kind, size)))


@cold("frame")
def frame(out: ColdLowerer) -> None:
    """Make a frame of a type."""
    kind, place = out.read("s"), out.target("d")
    _make_frame(out, kind, out.call("frame_size", kind), place)


def _link(out: ColdLowerer, handle: str, number: str) -> list[str]:
    """Return pc, type and size of the frame of a link, which must be known, and the link."""
    out.guard(out.value(f"icmp eq i32 {handle}, {_NIL}"), traps.NOT_LOADED)
    link = out.call("link", handle, number, result="ptr")
    out.guard(out.value(f"icmp eq ptr {link}, null"))
    words = [out.value(f"getelementptr i64, ptr {link}, i64 {at}") for at in range(3)]
    return [*(out.value(f"load i32, ptr {word}") for word in words), link]


@cold("mframe")
def mframe(out: ColdLowerer) -> None:
    """Make a frame for a link."""
    handle, number, place = out.read("s"), out.read("m"), out.target("d")
    _, kind, size, _ = _link(out, handle, number)
    out.guard(out.value(f"icmp eq i32 {kind}, 0"))
    _make_frame(out, kind, size, place)


def _own_frame(out: ColdLowerer) -> str:
    """Return the address of the frame that runs."""
    return out.address_of("%f")


def _enter(out: ColdLowerer, start: str, caller: str) -> str:
    """Make a frame the one that runs, and return the pointer to it."""
    code = out.value(f"ptrtoint ptr {out.get(State.CODE, 'ptr')} to i64")
    distance = out.value(f"sub i64 {out.value('ptrtoint ptr %ip to i64')}, {code}")
    pc = out.value(f"trunc i64 {out.value(f'udiv i64 {distance}, {decoded.SIZE}')} to i32")
    words = {RETURN_PC: out.value(f"add i32 {pc}, 1"), CALLER: _own_frame(out), MODULE: caller}
    for offset, value in words.items():
        out.emit(f"store i32 {value}, ptr {out.at(start, offset)}, align 4")
    out.set(State.FP, start)
    return out.at(start)


@cold("call")
def call(out: ColdLowerer) -> None:
    """Enter a function of the same module."""
    f = _enter(out, out.read("s"), "0")
    out.go(out.read_label(), f=f)


_SWITCHED = (State.TYPES, State.FUNCTIONS, State.CODE)


def _enter_module(out: ColdLowerer, handle: str, record: str) -> tuple[str, str]:
    """Let the process run code of a handle; return pointers to its data and its code."""
    data = out.value(f"load i32, ptr {out.at(handle)}, align 4")
    out.set(State.HANDLE, handle)
    out.set(State.MP, data)
    word = ""
    for at, name in enumerate(_SWITCHED, 1):
        word = out.value(f"load i64, ptr {out.value(f'getelementptr i64, ptr {record}, i64 {at}')}")
        out.emit(f"store i64 {word}, ptr {out.state_word(name)}")
    return out.at(data), out.value(f"inttoptr i64 {word} to ptr")


def _record(out: ColdLowerer, handle: str) -> str:
    """Return the tables of a handle, which must be one of code."""
    record = out.call("links_of", handle, result="ptr")
    out.guard(out.value(f"icmp eq ptr {record}, null"))
    word = out.value(f"getelementptr i64, ptr {record}, i64 {len(_SWITCHED)}")
    out.guard(out.value(f"icmp eq i64 {out.value(f'load i64, ptr {word}')}, 0"))
    return record


@cold("mcall")
def mcall(out: ColdLowerer) -> None:
    """Enter a function of a module, or have the host called."""
    start, number, handle = out.read("s"), out.read("m"), out.read("d")
    pc, kind, _, link = _link(out, handle, number)
    outside, inside = out.label(), out.label()
    out.branch(out.value(f"icmp slt i32 {pc}, 0"), outside, inside)
    out.begin(outside)
    # Those that take a variable number of arguments, of size 0, look at the frame themselves.
    is_other = _is_other(out, start, kind)
    has_size = out.value(f"icmp ne i32 {out.call('type_size', kind)}, 0")
    out.guard(out.value(f"and i1 {is_other}, {has_size}"))
    _call_outside(out, start, pc, link)
    out.begin(inside)
    out.guard(_is_other(out, start, kind))
    record = _record(out, handle)
    f = _enter(out, start, out.get(State.HANDLE, "i32"))
    out.emit(f"call void @retain(ptr %m, i32 {handle})")
    d, code = _enter_module(out, handle, record)
    out.go(_instruction(out, code, pc), f=f, d=d)


def _is_other(out: ColdLowerer, start: str, kind: str) -> str:
    """Return whether a frame was made of another type."""
    made = out.value(f"load i32, ptr {out.at(start, TYPE)}, align 4")
    return out.value(f"icmp ne i32 {made}, {kind}")


def _call_outside(out: ColdLowerer, start: str, pc: str, link: str) -> None:
    """Call machine code for a function of the host if there is any, or have the engine call it."""
    root, other = out.label(), out.label()
    out.branch(out.value(f"icmp eq i32 {pc}, {LinkKind.SQUARE_ROOT:d}"), root, other)
    out.begin(root)
    # As ``call_hosted``: nothing is stored unless the frame can be dropped here.
    out.guard(out.value(f"icmp sgt i32 {out.get(State.EXTENT_COUNT, 'i32')}, {EXTENT_ROWS}"))
    square_root(out, start)
    out.must(out.call("pop_frame", start))
    out.next()
    out.begin(other)
    address = out.value(f"ptrtoint ptr {link} to i64")
    done = out.value(f"call i32 @call_hosted(ptr %m, ptr %s, i64 {address}, i32 {start})")
    left, over = out.label(), out.label()
    out.branch(out.value(f"icmp eq i32 {done}, 0"), left, over)
    out.begin(over)
    _yield(out, done)
    out.next()
    out.begin(left)
    out.guard(out.value(f"icmp sgt i32 {pc}, {LinkKind.HOST:d}"))
    for word, claim in ((Machine.WANTED, "ne i64"), (Machine.FUEL, "sle i64")):
        pointer = out.value(f"call ptr @machine(ptr %s, i64 {word:d})")
        out.guard(out.value(f"icmp {claim} {out.value(f'load i64, ptr {pointer}')}, 0"))
    index = out.value(f"sub i32 {LinkKind.HOST:d}, {pc}")
    for word, value in ((Machine.HOST_FUNCTION, index), (Machine.HOST_FRAME, start)):
        pointer = out.value(f"call ptr @machine(ptr %s, i64 {word:d})")
        out.emit(f"store i64 {out.value(f'zext i32 {value} to i64')}, ptr {pointer}")
    out.tail("@host")


@cold("ret")
def ret(out: ColdLowerer) -> None:
    """Leave a function; the bottom one ends the process."""
    start = _own_frame(out)
    pc, caller, handle = (
        out.value(f"load i32, ptr {out.at(start, at)}, align 4")
        for at in (RETURN_PC, CALLER, MODULE)
    )
    last, inner = out.label(), out.label()
    out.branch(out.value(f"icmp eq i32 {caller}, 0"), last, inner, rare=True)
    out.begin(last)
    exit_(out)
    out.begin(inner)
    is_same = out.value(f"icmp eq i32 {handle}, 0")
    gone = out.get(State.HANDLE, "i32")
    record = _record(out, out.value(f"select i1 {is_same}, i32 {gone}, i32 {handle}"))
    out.must(out.call("pop_frame", start))
    out.set(State.FP, caller)
    same, other = out.label(), out.label()
    out.branch(is_same, same, other)
    out.begin(same)
    out.go(_instruction(out, out.get(State.CODE, "ptr"), pc), f=out.at(caller))
    out.begin(other)
    d, code = _enter_module(out, handle, record)
    out.emit(f"call void @release(ptr %m, ptr %s, i32 {gone})")
    out.go(_instruction(out, code, pc), f=out.at(caller), d=d)


@cold("raise")
def raise_(out: ColdLowerer) -> None:
    """Raise a string or an object; continue where it is handled."""
    code = out.value(f"ptrtoint ptr {out.get(State.CODE, 'ptr')} to i64")
    distance = out.value(f"sub i64 {out.value('ptrtoint ptr %ip to i64')}, {code}")
    pc = out.value(f"trunc i64 {out.value(f'udiv i64 {distance}, {decoded.SIZE}')} to i32")
    out.must(out.call("raise_value", out.read("s"), pc))
    there = _instruction(out, out.get(State.CODE, "ptr"), out.get(State.PC, "i32"))
    f, d = (out.at(out.get(word, "i32")) for word in (State.FP, State.MP))
    out.go(there, f=f, d=d)


# Processes


@cold("exit")
def exit_(out: ColdLowerer) -> None:
    """End the process."""
    out.must(out.call("end_process"))
    out.emit(f"call void @save(ptr %s, ptr %ip, i64 {out.value('sub i64 %q, 1')})")
    out.tail("@switch")


def _spawn(out: ColdLowerer, start: str, pc: str, handle: str, record: str) -> None:
    tables = out.value(f"ptrtoint ptr {record} to i64")
    values = f"i32 {start}, i32 {pc}, i32 {handle}, i64 {tables}"
    done = out.must(out.value(f"call i32 @spawn(ptr %m, ptr %s, {values})"))
    _yield(out, done)


def _yield(out: ColdLowerer, done: str) -> None:
    """Let other processes run if the instruction asks for that."""
    on, yields = out.label(), out.label()
    out.branch(out.value(f"icmp eq i32 {done}, {YIELDS}"), yields, on, rare=True)
    out.begin(yields)
    following = out.value(f"getelementptr i8, ptr %ip, i64 {decoded.SIZE}")
    out.tail("@pause", ip=following, q=out.value("sub i64 %q, 1"))
    out.begin(on)


@cold("spawn")
def spawn(out: ColdLowerer) -> None:
    """Start a process in a function of the same module."""
    start, handle = out.read("s"), out.get(State.HANDLE, "i32")
    target = out.value(f"ptrtoint ptr {out.read_label()} to i64")
    distance = out.value(f"sub i64 {target}, {out.get(State.CODE)}")
    pc = out.value(f"trunc i64 {out.value(f'udiv i64 {distance}, {decoded.SIZE}')} to i32")
    _spawn(out, start, pc, handle, _record(out, handle))


@cold("mspawn")
def mspawn(out: ColdLowerer) -> None:
    """Start a process in a function of a module."""
    start, number, handle = out.read("s"), out.read("m"), out.read("d")
    pc, kind, _, _ = _link(out, handle, number)
    out.guard(out.value(f"icmp slt i32 {pc}, 0"))
    out.guard(_is_other(out, start, kind))
    _spawn(out, start, pc, handle, _record(out, handle))
