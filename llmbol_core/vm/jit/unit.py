"""A unit: a function that is entered from outside, compiled together with those it calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.calls import RESULT, Site
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.lowering.lowerer import Lowerer, load_lowerings
from llmbol_core.vm.jit.lowering.ways import returned
from llmbol_core.vm.jit.region import SIZES, Region
from llmbol_core.vm.jit.runtime import LEAST_LEFT, LEFT, State, Status
from llmbol_core.vm.module import Operand

_MOST_IN_COPIES = 230
"""Instructions up to which copies of a recursive function are put into it."""
_OWN_RESULT = Operand(Mode.FP_INDIRECT, 0, RESULT)


@dataclass
class Unit:
    """Regions by where they start; the first is the one that is entered at all of its entries."""

    regions: dict[int, Region]

    @property
    def root(self) -> Region:
        """The region that was asked for."""
        return next(iter(self.regions.values()))

    def has_entries(self, start: int) -> bool:
        """Whether a function can be entered elsewhere than at its start.

        A function without loops need not: if the process leaves it, the rest is soon interpreted.
        """
        region = self.regions[start]
        is_fragment = region is self.root and region.is_fragment
        return bool(is_fragment or region.landings or region.heads) or start not in self.by_values

    def takes_values(self, site: Site) -> bool:
        """Whether a call passes arguments and result as values."""
        return site.target in self.by_values and self._fits(site, site.target)

    def guesses(self, region: Region, site: Site) -> list[int]:
        """Return the functions to which a call through a handle can pass values."""
        found = (pc for pc, _ in region.guesses(site))
        return [pc for pc in found if pc in self.by_values and self._fits(site, pc)]

    @cached_property
    def by_values(self) -> set[int]:
        """The functions whose arguments and result are values.

        These are all but those that cannot pass a result on: a function whose result another one
        writes requires that one to be called in this way too.
        """
        found = {start for start, region in self.regions.items() if not region.is_fragment}
        if self.root.heads and not self._is_called(self.root.start):
            found.discard(self.root.start)
        while True:
            bad = {at for at in found if not all(map(found.__contains__, self._tails(at)))}
            if not bad:
                return found
            found -= bad

    def depth(self, start: int) -> int:
        """Return how many levels of recursion are put into a function as copies."""
        region = self.regions[start]
        calls = sum(site.target == start for site in region.sites.by_call.values())
        if start not in self.by_values or not calls or region.heads:
            return 0
        depth, copies, size = 0, calls, len(region.pcs)
        while size + copies * len(region.pcs) <= _MOST_IN_COPIES:
            size += copies * len(region.pcs)
            depth, copies = depth + 1, copies * calls
        return depth

    def _is_called(self, start: int) -> bool:
        return any(
            site.target == start
            for region in self.regions.values()
            for site in region.sites.by_frame.values()
        )

    def _tails(self, start: int) -> list[int]:
        """Return the functions that write a function's result, -1 for one that does not fit."""
        region = self.regions[start]
        if not region.result:
            return []
        code, sites = region.code.instructions, region.sites.by_call
        # The call stands behind where the address is passed on.
        calls = [
            sites.get(pc + 1)
            for pc in region.pcs
            if code[pc].op.mnemonic == "lea" and code[pc].source == _OWN_RESULT
        ]
        return [
            site.target
            if site and site.target in self.regions and self._fits(site, site.target)
            else -1
            for site in calls
        ]

    def _fits(self, site: Site, target: int) -> bool:
        """Whether what a call passes is what a function expects."""
        callee = self.regions[target]
        if callee.result and site.address is None:
            return False
        for offset, letter in site.arguments.items():
            kind = llvm_type(letter)
            if offset in callee.slots:
                if callee.slots[offset] != kind:
                    return False
            elif any(
                at < offset + SIZES[kind] and offset < at + SIZES[callee.slots[at]]
                for at in callee.slots
            ):
                return False
        return True

    def text(self) -> str:
        """Return the unit's functions; what they call of the runtime is missing."""
        load_lowerings()
        parts = []
        for start, region in self.regions.items():
            if start in self.by_values:
                depths = range(self.depth(start) + 1)
                parts += [Lowerer(region, self, True, depth).text() for depth in depths]
            if self.has_entries(start):
                parts.append(Lowerer(region, self, False).text())
            parts.append(_from_memory(region) if start in self.by_values else _from_entry(region))
        return "\n".join(parts)


def _from_entry(region: Region) -> str:
    """Return the function that begins with a frame in memory, for one that can be entered."""
    start = region.start
    return f"""define i64 @f{start}(ptr %m, ptr %s, i32 %fp, i64 %q) {{
 %p = getelementptr i64, ptr %s, i64 {State.TOP:d}
 %top = add i32 %fp, {region.size}
 store i32 %top, ptr %p
 %end = call i64 @o{start}(ptr %m, ptr %s, i32 %fp, i64 %q, i32 0)
 ret i64 %end
}}
"""


def _from_memory(region: Region) -> str:
    """Return the function that takes the arguments from a frame in memory and stores the result.

    References that the function does not look at are released.
    """
    start = region.start
    lines = [f"define i64 @f{start}(ptr %m, ptr %s, i32 %fp, i64 %q) {{"]
    lines.append(" %f = call ptr @at(ptr %m, i32 %fp)")
    if region.result:
        lines += [
            f" %rp = getelementptr i8, ptr %f, i64 {RESULT}",
            " %r = load i32, ptr %rp",
            " %none = icmp eq i32 %r, -1",
            " br i1 %none, label %leave, label %go",
            "leave:",
            *_leave(region),
            "go:",
        ]
    values = ""
    for offset, kind in region.slots.items():
        if offset not in region.parameters and offset not in region.frame.pointers:
            continue
        lines.append(f" %p{offset} = getelementptr i8, ptr %f, i64 {offset}")
        lines.append(f" %a{offset} = load {kind}, ptr %p{offset}, align 1")
        if offset not in region.parameters:
            lines.append(f" call void @release(ptr %m, ptr %s, i32 %a{offset})")
    for offset in region.parameters:
        values += f", {region.slots[offset]} %a{offset}"
    kind = returned(region)
    lines.append(f" %got = call fastcc {kind} @r{start}(ptr %m, ptr %s, i32 %fp, i64 %q{values})")
    lines += _store_result(region) if region.result else [" ret i64 %got"]
    return "\n".join([*lines, "}", ""])


def _leave(region: Region) -> list[str]:
    """Return what lets the interpreter run a function whose result has nowhere to go."""
    words = {
        State.PC: f"i64 {region.start}", State.STATUS: f"i64 {Status.INTERPRET:d}",
        State.BUDGET: "i64 %q", State.FP: "i32 %fp", State.TOP: "i32 %end",
    }  # fmt: skip
    lines = [f" %end = add i32 %fp, {region.size}"]
    for word, value in words.items():
        lines.append(f" %w{word:d} = getelementptr i64, ptr %s, i64 {word:d}")
        lines.append(f" store {value}, ptr %w{word:d}")
    for word, name in ((State.TYPES, "types"), (State.WAITING_TYPES, "waiting")):
        lines.append(f" %{name} = getelementptr i64, ptr %s, i64 {word:d}")
    lines.append(" %table = load i64, ptr %types")
    lines.append(" store i64 %table, ptr %waiting")
    return [*lines, f" ret i64 {LEFT}"]


def _store_result(region: Region) -> list[str]:
    pair, kind = returned(region), llvm_type(region.result)
    lines = [
        f" %rest = extractvalue {pair} %got, 0",
        f" %left = icmp slt i64 %rest, {LEAST_LEFT}",
        " br i1 %left, label %out, label %store",
        "store:",
        f" %value = extractvalue {pair} %got, 1",
        " %place = call ptr @at(ptr %m, i32 %r)",
    ]
    if region.result == "P":
        lines.append(" %old = load i32, ptr %place, align 1")
    lines.append(f" store {kind} %value, ptr %place, align 1")
    if region.result == "P":
        lines.append(" call void @release(ptr %m, ptr %s, i32 %old)")
    return [*lines, " br label %out", "out:", " ret i64 %rest"]
