"""Ways into and out of the function for a region, and the counting of its instructions.

Code that leaves a function before its end writes the slots back, and the frames that were never
made; its callers on the host's stack do the same and return too, so that the interpreter can
continue where the state says. All ways out end in two blocks: "exit" stores in the state where the
process is, and "unwind" writes the slots back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.isa import Effect
from llmbol_core.vm.jit.calls import RESULT, Site
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.loops import Loop, counted_loops
from llmbol_core.vm.jit.lowering.operands import Operands, nothing
from llmbol_core.vm.jit.lowering.reals import raised_room
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.runtime import LEAST_LEFT, LEFT, State, Status, tag
from llmbol_core.vm.module import Operand

if TYPE_CHECKING:
    from llmbol_core.vm.jit.unit import Unit


class Ways(Operands):
    """Emits the code around the instructions; ``unit`` holds the regions compiled with this one.

    ``by_values`` tells whether arguments and result are values, ``depth`` how many calls of itself
    have become part of the function on the way to this copy of it.
    """

    def __init__(self, region: Region, unit: Unit, by_values: bool, depth: int = 0) -> None:
        super().__init__(region, region.result if by_values else "")
        self.unit, self.by_values, self.depth = unit, by_values, depth
        self._left = _left_in_block(region)
        self._guarded: set[int] = set()
        self.loops = [] if region.code.is_careful else counted_loops(region)
        self._heads = {loop.head: set(loop.pcs) for loop in self.loops}
        self.copy: Loop | None = None
        """The loop whose second copy is being written."""
        self.links: dict[Operand, tuple[Any, ...]] = {}
        """What was looked up for frames in the slots they are in, for calls in the same stretch."""

    def callee(self, start: int) -> str:
        """Return the name of the function to call that takes values."""
        is_own = start == self.region.start and self.by_values
        deeper = is_own and self.depth < self.unit.depth(start)
        return copy_name(start, self.depth + 1 if deeper else 0)

    def _head(self) -> str:
        region = self.region
        parameters = "ptr noalias %m, ptr noalias %s, i32 %fp, i64 %q0"
        if not self.by_values:
            return f"define i64 @o{region.start}({parameters}, i32 %entry)"
        given = "".join(f", {region.slots[at]} %given{at}" for at in region.parameters)
        how = " alwaysinline" if self.depth else ""
        name = copy_name(region.start, self.depth)
        return f"define internal fastcc {returned(region)} @{name}({parameters}{given}){how}"

    def _is_closed(self) -> bool:
        """Whether the block that is being written has its last instruction."""
        return self.lines[-1].lstrip().startswith(("br ", "ret ", "switch ", "unreachable"))

    # Ways in

    def _begin(self) -> None:
        region = self.region
        self.lines.append("start:")
        for offset, type_ in region.slots.items():
            self.emit(f"%s{offset} = alloca {type_}")
        for offset in region.arrays:
            self.emit(f"%n{offset} = alloca i32")
            self.emit(f"%d{offset} = alloca i32")
        for offset in region.places:
            self.emit(f"%w{offset} = alloca i64")
        if region.code.is_careful:
            self.emit(raised_room())
        for loop in self.loops:
            self.emit(f"%end{loop.head} = alloca i32")
        for site in region.sites.by_frame.values():
            self._begin_site(site)
        if self.result:
            self.emit(f"%res = alloca {llvm_type(self.result)}")
            self.emit(f"store {llvm_type(self.result)} {nothing(self.result)}, ptr %res")
        for name, type_ in (("q", "i64"), ("top", "i32"), ("xpc", "i64"), ("xstatus", "i64")):
            self.emit(f"%{name} = alloca {type_}")
        self.emit("store i64 %q0, ptr %q")
        self.emit("%f = call ptr @at(ptr %m, i32 %fp)")
        self.emit(f"%mp = load i32, ptr {self.state_word(State.MP)}")
        self.emit("%d = call ptr @at(ptr %m, i32 %mp)")
        if self.by_values:
            self._take_arguments()
        else:
            self._enter()
        self.pc = region.start
        self._check_start()
        self.jump(self.block_of(region.start, from_outside=True))

    def _begin_site(self, site: Site) -> None:
        """Make room for what is known of a frame that is not made."""
        self.emit(f"%r{site.made} = alloca i32")
        if site.is_linked:
            self.emit(f"%k{site.made} = alloca i32")
        for offset, letter in site.arguments.items():
            self.emit(f"%a{site.made}.{offset} = alloca {llvm_type(letter)}")

    def block_of(self, target: int, from_outside: bool = False) -> str:
        """Return the block to which control goes from the current instruction to another one."""
        if self.copy is not None and target in self.copy.pcs:
            return f"u{target}"
        is_inside = self.pc in self._heads.get(target, ()) and not from_outside
        return f"p{target}" if target in self._heads and not is_inside else f"b{target}"

    def _take_arguments(self) -> None:
        """Begin with the slots as the caller gives them; those that it does not give are nil."""
        region = self.region
        for offset, type_ in region.slots.items():
            value = nothing(type_)
            if offset in region.parameters:
                value = f"%given{offset}"
            elif offset in region.frame.pointers:
                value = "-1"
            self.set_slot(offset, value)
        self.emit(f"store i32 {self.value(f'add i32 %fp, {region.size}')}, ptr %top")

    def _enter(self) -> None:
        """Begin at an entry, if the stack goes on behind this frame as it should."""
        region = self.region
        self.reload(region.slots)
        top = self.value(f"load i32, ptr {self.state_word(State.TOP)}")
        end = self.value(f"add i32 %fp, {region.size}")
        self.emit(f"store i32 {top}, ptr %top")
        cases = " ".join(
            f"i32 {number}, label %e{pc}" for pc, number in region.entries.items() if number
        )
        self.emit(f"switch i32 %entry, label %first [{cases}]")
        for pc, number in region.entries.items():
            self.begin(f"e{pc}" if number else "first")
            next_frame = self._next_frame(pc, top)
            is_elsewhere = self.value(f"icmp ne i32 {next_frame}, {end}")
            self.leave_if(is_elsewhere, pc, Status.INTERPRET)
            if not region.pending[pc]:
                self.emit(f"store i32 {end}, ptr %top")
            if number:
                self.jump(self.block_of(pc, from_outside=True))
            else:
                self.jump("begun")
        self.begin("begun")

    def _next_frame(self, pc: int, top: str) -> str:
        """Return where the frame begins that waits first at an entry, or where the stack ends."""
        for made in self.region.pending[pc][:1]:
            slot = self.region.code.instructions[made].destination
            return self.load(self.place(slot, "K"), "K")
        return top

    def leave_if(self, condition: str, pc: int, status: Status) -> None:
        """Leave with the process at an instruction if a condition holds."""
        leave, go_on = self.label(), self.label()
        self.branch(condition, leave, go_on, rare=True)
        self.begin(leave)
        for site in self.region.unmade(pc):
            self.make_frame(site)
        self.leave(pc, status)
        self.begin(go_on)

    def _check_start(self) -> None:
        """Leave if calls have filled the part of the host's stack that they may use, or time is up.

        Copies do without, since calls come through the function itself again and again.
        """
        if self.depth:
            return
        self._check_host_stack()
        self.check_budget(self.region.start)

    def _check_host_stack(self) -> None:
        instructions = self.region.code.instructions
        if not any(instructions[pc].op.effect is Effect.CALL for pc in self.region.native):
            return
        here = self.value("call ptr @host_stack()")
        limit = self.value(f"load ptr, ptr {self.state_word(State.NATIVE_STACK)}")
        full = self.value(f"icmp ult ptr {here}, {limit}")
        leave, go_on = self.label(), self.label()
        self.branch(full, leave, go_on, rare=True)
        self.begin(leave)
        self.leave(self.region.start, Status.RESUME)
        self.begin(go_on)

    # Ways out

    def guard(self, condition: str, trap: str = "") -> None:
        """Leave for the interpreter, which runs this instruction, if a condition holds."""
        go_on = self.label()
        self._guarded.add(self.pc)
        self.branch(condition, f"x{self.pc}", go_on, rare=True)
        self.begin(go_on)

    def leave(self, pc: int, status: Status) -> None:
        """Leave with the process at an instruction, before which no frame waits unmade.

        Numbers that nothing reads any more become 0, so that no register keeps them until then;
        but a process that waits may still offer them.
        """
        kept = self.region.live[pc] | set(self.region.frame.pointers)
        for offset, type_ in self.region.slots.items():
            if offset not in kept and status is not Status.WAIT:
                self.emit(f"store {type_} {nothing(type_)}, ptr %s{offset}")
        self.emit(f"store i64 {pc}, ptr %xpc")
        self.emit(f"store i64 {status:d}, ptr %xstatus")
        self.jump("exit")

    def check_budget(self, target: int) -> None:
        """Leave at ``target`` if no more instructions may run."""
        left = self.value("load i64, ptr %q")
        self.leave_if(self.value(f"icmp slt i64 {left}, 0"), target, Status.BUDGET)

    def unwind_if_left(self, left: str, waiting: Callable[[], None]) -> None:
        """Note what a call returned; if the process has left machine code, leave this function too.

        ``waiting`` emits what writes frames to memory that are not there yet.
        """
        behind, leave = self.label(), self.label()
        self.branch(self.value(f"icmp slt i64 {left}, {LEAST_LEFT}"), leave, behind, rare=True)
        self.begin(leave)
        waiting()
        self.jump("unwind")
        self.begin(behind)
        self.emit(f"store i64 {left}, ptr %q")

    def _count(self, more: int) -> None:
        """Change how many instructions may still run."""
        left = self.value(f"add i64 {self.value('load i64, ptr %q')}, {more}")
        self.emit(f"store i64 {left}, ptr %q")

    def _finish(self) -> None:
        for pc in sorted(self._guarded):
            self.begin(f"x{pc}")
            self._count(self._left[pc])
            for site in self.region.unmade(pc):
                self.make_frame(site)
            self.leave(pc, Status.INTERPRET)
        self.begin("exit")
        for word, name in ((State.PC, "xpc"), (State.STATUS, "xstatus"), (State.BUDGET, "q")):
            self.emit(
                f"store i64 {self.value(f'load i64, ptr %{name}')}, ptr {self.state_word(word)}"
            )
        self.emit(f"store i32 %fp, ptr {self.state_word(State.FP)}")
        top = self.value("load i32, ptr %top")
        self.emit(f"store i32 {top}, ptr {self.state_word(State.TOP)}")
        types = self.value(f"load i64, ptr {self.state_word(State.TYPES)}")
        self.emit(f"store i64 {types}, ptr {self.state_word(State.WAITING_TYPES)}")
        self.jump("unwind")
        self.begin("unwind")
        self.spill(self._kept())
        self._return(str(LEFT))

    def _kept(self) -> list[int]:
        """Return the slots to write back; whoever calls by values knows where the result goes."""
        region = self.region
        is_given = not self.result or RESULT in region.parameters
        return [offset for offset in region.slots if is_given or offset != RESULT]

    def _return(self, left: str) -> None:
        kind = returned(self.region) if self.by_values else "i64"
        if kind == "i64":
            self.emit(f"ret i64 {left}")
            return
        result = llvm_type(self.result)
        value = self.value(f"load {result}, ptr %res")
        pair = self.value(f"insertvalue {kind} poison, i64 {left}, 0")
        pair = self.value(f"insertvalue {kind} {pair}, {result} {value}, 1")
        self.emit(f"ret {kind} {pair}")

    def return_to_caller(self) -> None:
        """Return, with the result if that is a value."""
        self._return(self.value("load i64, ptr %q"))

    def make_frame(self, site: Site, type_number: str = "type_number") -> None:
        """Write a frame to memory that was not made; the header says where its result goes."""
        start = self.load(self.place(site.slot, "K"), "K")
        pointer = self.at(start)
        if site.is_linked:
            number = self.value(f"load i32, ptr %k{site.made}")
            self.emit(f"call void @begin_frame(ptr %m, ptr %s, i32 {start}, i32 {number})")
            words = {}
        else:
            number = self.value(f"call i32 @{type_number}(ptr %s, i64 {site.type})")
            words = {0: "0", 4: "0", 8: "0", 12: number}
            words |= dict.fromkeys(self.region.code.module.types[site.type].pointers, "-1")
        for offset, value in words.items():
            self._put(pointer, offset, "i32", value)
        self.put_contents(site, pointer)

    def put_contents(self, site: Site, pointer: str) -> None:
        """Store what was given for a frame that was not made."""
        self._put(pointer, RESULT, "i32", self.value(f"load i32, ptr %r{site.made}"))
        for offset, letter in site.arguments.items():
            kind = llvm_type(letter)
            value = self.value(f"load {kind}, ptr %a{site.made}.{offset}")
            self._put(pointer, offset, kind, value)

    def _put(self, pointer: str, offset: int, kind: str, value: str) -> None:
        slot = self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        self.emit(f"store {kind} {value}, ptr {slot}, align 1{tag('frame')}")


def _left_in_block(region: Region) -> dict[int, int]:
    """Return how many instructions there are from each one to the end of its block."""
    left: dict[int, int] = {}
    for pc in reversed(region.pcs):
        goes_on = pc + 1 in left and pc + 1 not in region.leaders
        left[pc] = 1 + (left[pc + 1] if goes_on else 0)
    return left


def copy_name(start: int, depth: int) -> str:
    """Return the name of the function that takes values, or of a copy of it."""
    return f"r{start}.{depth}" if depth else f"r{start}"


def returned(region: Region) -> str:
    """Return the LLVM type of what a region's function returns that takes values."""
    return f"{{i64, {llvm_type(region.result)}}}" if region.result else "i64"
