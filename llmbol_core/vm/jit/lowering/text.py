"""Machine code for the instructions on strings, and for conversions from and to them.

Nil has length 0, since nothing lies at its address; characters are bytes unless that is negative.
"""

from __future__ import annotations

from llmbol_core.vm import traps
from llmbol_core.vm.arena import COUNT, HEADER, SIZE
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, lowering
from llmbol_core.vm.jit.lowering.operands import Place
from llmbol_core.vm.jit.runtime import tag

_DATA = 4


def _length(out: Lowerer, ref: str) -> str:
    """Return the word that says how long a string is, and how wide its characters are."""
    return out.value(f"load i32, ptr {out.at(ref)}, align 1")


def _absolute(out: Lowerer, word: str) -> str:
    return out.value(f"call i32 @llvm.abs.i32(i32 {word}, i1 false)")


@lowering("lenc")
def lenc(out: Lowerer) -> None:
    """Store the number of characters."""
    word = _length(out, out.read("s"))
    out.store(out.target("d"), "W", _absolute(out, word))


@lowering("indc")
def indc(out: Lowerer) -> None:
    """Store a character."""
    ref, index, place = out.read("s"), out.read("m"), out.target("d")
    word = _length(out, ref)
    out.trap_if(out.value(f"icmp eq i32 {ref}, -1"), traps.NIL_DEREFERENCE)
    out.guard(out.value(f"icmp uge i32 {index}, {_absolute(out, word)}"), traps.BOUNDS)
    data = out.at(ref, _DATA)
    position = out.value(f"zext i32 {index} to i64")
    narrow, wide, done = out.label(), out.label(), out.label()
    out.branch(out.value(f"icmp slt i32 {word}, 0"), wide, narrow)
    out.begin(narrow)
    where = out.value(f"getelementptr i8, ptr {data}, i64 {position}")
    small = out.value(f"load i8, ptr {where}")
    first = out.value(f"zext i8 {small} to i32")
    out.jump(done)
    out.begin(wide)
    where = out.value(f"getelementptr i32, ptr {data}, i64 {position}")
    second = out.value(f"load i32, ptr {where}, align 1")
    out.jump(done)
    out.begin(done)
    out.store(place, "W", out.value(f"phi i32 [{first}, %{narrow}], [{second}, %{wide}]"))


def _call(out: Lowerer, function: str, *arguments: str, letter: str = "W") -> str:
    """Return the result of a function of the runtime; the first argument's type is given."""
    kinds = [llvm_type(letter)] + ["i32"] * (len(arguments) - 1)
    passed = "".join(f", {kind} {value}" for kind, value in zip(kinds, arguments, strict=True))
    return out.value(f"call i32 @{function}(ptr %m, ptr %s{passed})")


def _new(out: Lowerer, place: Place, ref: str) -> None:
    """Store the result of a function of the runtime, unless Python has to make it."""
    out.guard(out.value(f"icmp eq i32 {ref}, 0"))
    out.give(place, ref)


@lowering("insc")
def insc(out: Lowerer) -> None:
    """Replace or append a character: in place if the string is not shared and has room."""
    code, index, place = out.read("s"), out.read("m"), out.target("d")
    ref = out.load(place, "C")
    length = _length(out, ref)
    count, size = (out.value(f"load i32, ptr {out.at(ref, at)}, align 1") for at in (COUNT, SIZE))
    behind = out.value(f"add i32 {index}, {_DATA + HEADER + 1}")
    here, elsewhere, done = out.label(), out.label(), out.label()
    for claim in (
        f"icmp eq i32 {count}, 1",
        f"icmp ule i32 {index}, {length}",
        f"icmp sge i32 {length}, 0",
        f"icmp ult i32 {code}, 256",
        f"icmp ule i32 {behind}, {size}",
    ):
        go_on = out.label()
        out.branch(out.value(claim), go_on, elsewhere)
        out.begin(go_on)
    out.jump(here)
    out.begin(elsewhere)
    out.trap_if(out.value(f"icmp ugt i32 {index}, {_absolute(out, length)}"), traps.BOUNDS)
    _new(out, place, _call(out, "with_character", code, index, ref))
    out.jump(done)
    out.begin(here)
    position = out.value(f"zext i32 {index} to i64")
    where = out.value(f"getelementptr i8, ptr {out.at(ref, _DATA)}, i64 {position}")
    out.emit(f"store i8 {out.value(f'trunc i32 {code} to i8')}, ptr {where}{tag('i8')}")
    longer = out.value(f"add i32 {index}, 1")
    new = out.value(f"call i32 @llvm.smax.i32(i32 {length}, i32 {longer})")
    out.emit(f"store i32 {new}, ptr {out.at(ref)}, align 1")
    out.jump(done)
    out.begin(done)


@lowering("addc")
def addc(out: Lowerer) -> None:
    """Store the concatenation of two strings."""
    behind, before, place = out.read("s"), out.read("m"), out.target("d")
    _new(out, place, _call(out, "concatenate", before, behind, out.load(place, "C")))


@lowering("slicec")
def slicec(out: Lowerer) -> None:
    """Replace a string by a part of it."""
    start, end, place = out.read("s"), out.read("m"), out.target("d")
    ref = out.load(place, "C")
    beyond = out.value(f"icmp ugt i32 {end}, {_absolute(out, _length(out, ref))}")
    swapped = out.value(f"icmp ugt i32 {start}, {end}")
    out.trap_if(out.value(f"or i1 {beyond}, {swapped}"), traps.BOUNDS)
    _new(out, place, _call(out, "part", ref, start, end))


# Conversions


@lowering("cvtca", "cvtac")
def convert_bytes(out: Lowerer) -> None:
    """Store a string's bytes, or the string that bytes hold."""
    function = "to_bytes" if out.instruction.op.mnemonic == "cvtca" else "from_bytes"
    ref, place = out.read("s"), out.target("d")
    _new(out, place, _call(out, function, ref))


@lowering("cvtwc", "cvtlc")
def convert_number(out: Lowerer) -> None:
    """Store an integer's decimal text."""
    value, place = out.read("s"), out.target("d")
    if out.instruction.op.mnemonic == "cvtwc":
        value = out.value(f"sext i32 {value} to i64")
    _new(out, place, _call(out, "decimal", value, letter="L"))


@lowering("cvtcw", "cvtcl")
def convert_text(out: Lowerer) -> None:
    """Store the integer that a string begins with."""
    is_word = out.instruction.op.mnemonic == "cvtcw"
    ref, place = out.read("s"), out.target("d")
    end = _call(out, "digits_end", ref)
    out.guard(out.value(f"icmp slt i32 {end}, 0"))
    given = f"i32 {ref}, i32 {end}, i32 {int(is_word)}"
    value = out.value(f"call i64 @leading_integer(ptr %m, ptr %s, {given})")
    if is_word:
        for how, bound in (("smin", (1 << 31) - 1), ("smax", -(1 << 31))):
            value = out.value(f"call i64 @llvm.{how}.i64(i64 {value}, i64 {bound})")
        value = out.value(f"trunc i64 {value} to i32")
    out.store(place, "W" if is_word else "L", value)


@lowering("cvtfc")
def convert_real(out: Lowerer) -> None:
    """Store a real's shortest text."""
    value, place = out.read("s"), out.target("d")
    _new(out, place, out.value(f"call i32 @real_text(ptr %m, ptr %s, double {value})"))


@lowering("cvtcf")
def convert_to_real(out: Lowerer) -> None:
    """Store the real that a string begins with."""
    ref, place = out.read("s"), out.target("d")
    out.guard(out.value(f"icmp eq i32 {_call(out, 'read_real', ref)}, 0"))
    out.store(place, "F", out.value("call double @value_read(ptr %m, ptr %s)"))
