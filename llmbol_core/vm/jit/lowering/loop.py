"""The second copy of a counted loop, and what comes before it: see ``loops.py``.

Before the copy is entered, all that could go wrong in it is ruled out, with 64-bit numbers that
cannot overflow: the slot stays on its side of the bound, indices lie in their arrays, elements in
the arena, and so many iterations may run.
"""

from __future__ import annotations

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.emitter import constant
from llmbol_core.vm.jit.loops import Access, Loop
from llmbol_core.vm.jit.lowering.operands import Operands

_WORTH = 8
"""Iterations from which on it pays to leave the checks out."""
_SPAN = 1 << 32
_FARTHEST = (1 << 31) - (1 << 18)
"""How far the slot may go, so that sums with constants do not overflow."""


def limit_loop(out: Operands, loop: Loop) -> tuple[str, str]:
    """Emit how far the loop's slot may go; return that, and whether it pays.

    The slot may take values up to there, but not that one.
    """
    up = loop.step > 0
    first = _wide(out, out.value(f"load i32, ptr %s{loop.slot}"))
    end = _first_bound(out, loop)
    holds = []
    for offset in sorted({access.array for access in loop.accesses.values()}):
        accesses = [a for a in loop.accesses.values() if a.array == offset]
        end, checks = _inside(out, accesses, first, end, up)
        holds += checks
    bound = _FARTHEST if up else -_FARTHEST
    end = out.value(f"call i64 @llvm.s{'min' if up else 'max'}.i64(i64 {end}, i64 {bound})")
    distance = out.value(f"sub i64 {end}, {first}" if up else f"sub i64 {first}, {end}")
    left = out.value("load i64, ptr %q")
    per_step = -(-len(loop.pcs) // abs(loop.step))
    cost = out.value(f"mul i64 {distance}, {per_step}")
    spent = out.value(f"icmp sgt i64 {cost}, {left}")
    most = out.value(f"sdiv i64 {left}, {len(loop.pcs)}")
    most = out.value(f"mul i64 {most}, {abs(loop.step)}")
    distance = out.value(f"select i1 {spent}, i64 {most}, i64 {distance}")
    end = out.value(f"add i64 {first}, {distance}" if up else f"sub i64 {first}, {distance}")
    holds.append(out.value(f"icmp sge i64 {distance}, {_WORTH * abs(loop.step)}"))
    claim = holds[0]
    for other in holds[1:]:
        claim = out.value(f"and i1 {claim}, {other}")
    return out.value(f"trunc i64 {end} to i32"), claim


def _wide(out: Operands, value: str) -> str:
    return out.value(f"sext i32 {value} to i64")


def _first_bound(out: Operands, loop: Loop) -> str:
    """Return the value with which the loop ends."""
    bound = loop.bound
    if loop.length:
        value = out.value(f"load i32, ptr %n{bound.value}")
    elif bound.mode is Mode.IMMEDIATE:
        value = constant(bound.value, "W")
    else:
        value = out.value(f"load i32, ptr %s{bound.value}")
    more = {"le": 1, "ge": -1}.get(loop.relation, 0) - loop.stepped
    return out.value(f"add i64 {_wide(out, value)}, {more}")


def _inside(
    out: Operands, accesses: list[Access], first: str, end: str, up: bool
) -> tuple[str, list[str]]:
    """Return how far all indices into one array stay inside, and what must hold at the start."""
    offset = accesses[0].array
    least, most = min(a.more for a in accesses), max(a.more for a in accesses)
    size = max(a.size for a in accesses)
    length = out.value(f"zext i32 {out.value(f'load i32, ptr %n{offset}')} to i64")
    data = out.value(f"zext i32 {out.value(f'load i32, ptr %d{offset}')} to i64")
    behind = out.value(f"add i64 {data}, {out.value(f'mul i64 {length}, {size}')}")
    holds = [out.value(f"icmp ult i64 {behind}, {_SPAN}")]
    if up:
        lowest = out.value(f"add i64 {first}, {least}")
        holds.append(out.value(f"icmp sge i64 {lowest}, 0"))
        limit = out.value(f"sub i64 {length}, {most}")
        return out.value(f"call i64 @llvm.smin.i64(i64 {end}, i64 {limit})"), holds
    highest = out.value(f"add i64 {first}, {most}")
    holds.append(out.value(f"icmp slt i64 {highest}, {length}"))
    return out.value(f"call i64 @llvm.smax.i64(i64 {end}, i64 {-1 - least})"), holds


def lower_unchecked(out: Operands, loop: Loop) -> bool:
    """Emit an instruction of the second copy if it is special there; return whether it is."""
    if out.pc in loop.sums:
        slot, more = loop.sums[out.pc]
        value = out.value(f"load i32, ptr %s{loop.slot}")
        out.set_slot(slot, out.value(f"add nsw i32 {value}, {more}"))
        return True
    access = loop.accesses.get(out.pc)
    if access is None:
        return False
    index = _wide(out, out.read("d"))
    data = out.value(f"zext i32 {out.value(f'load i32, ptr %d{access.array}')} to i64")
    place = out.value(f"add i64 {data}, {out.value(f'mul i64 {index}, {access.size}')}")
    target = out.target("m")
    out.store(target, "E", out.value(f"trunc i64 {place} to i32"))
    out.note_element(target, place)
    return True
