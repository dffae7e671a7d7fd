"""Machine code for the instructions on strings that need no new string.

Nil has length 0, since nothing lies at its address; characters are bytes unless that is negative.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, HEADER, SIZE
from llmbol_core.vm.jit.lowering import Lowerer, lowering

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
    out.guard(out.value(f"icmp uge i32 {index}, {_absolute(out, word)}"))
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


@lowering("insc")
def insc(out: Lowerer) -> None:
    """Replace or append a character where the string has room; the interpreter does the rest."""
    code, index, place = out.read("s"), out.read("m"), out.target("d")
    ref = out.load(place, "C")
    out.guard(out.value(f"icmp eq i32 {ref}, -1"))
    length = _length(out, ref)
    count, size = (
        out.value(f"load i32, ptr {out.at(ref, offset)}, align 1") for offset in (COUNT, SIZE)
    )
    out.guard(out.value(f"icmp ne i32 {count}, 1"))
    out.guard(out.value(f"icmp slt i32 {length}, 0"))
    out.guard(out.value(f"icmp ugt i32 {index}, {length}"))
    out.guard(out.value(f"icmp ugt i32 {code}, 255"))
    behind = out.value(f"add i32 {index}, {_DATA + HEADER + 1}")
    out.guard(out.value(f"icmp ugt i32 {behind}, {size}"))
    position = out.value(f"zext i32 {index} to i64")
    where = out.value(f"getelementptr i8, ptr {out.at(ref, _DATA)}, i64 {position}")
    out.emit(f"store i8 {out.value(f'trunc i32 {code} to i8')}, ptr {where}")
    longer = out.value(f"add i32 {index}, 1")
    new = out.value(f"call i32 @llvm.smax.i32(i32 {length}, i32 {longer})")
    out.emit(f"store i32 {new}, ptr {out.at(ref)}, align 1")
