"""One region as machine code: frame slots in registers, ways in and out, scalar instructions.

The function for a region is ``fastcc i32 @f<pc>(ptr %m, ptr %s, i32 %fp, i32 %entry)``: %m is the
arena, %s the ``State``. It returns a ``Status``. Whatever leaves it before its end writes the slots
back and tells the state where the process is, so that the interpreter can go on there; the calls
above it on the host's stack write theirs back and return too. Every trap is such a way out, at the
instruction that traps and before that has changed anything.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmbol_core.vm.isa import PARAMETERS, TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.jit.emitter import Emitter, constant, llvm_type
from llmbol_core.vm.jit.expressions import lower_meaning
from llmbol_core.vm.jit.region import Region, operand_for
from llmbol_core.vm.jit.runtime import METADATA, State, Status, tag
from llmbol_core.vm.module import Instruction, Operand

_ALIGN = {"i8": 1, "i16": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_ENTRY_CHARGE = 16
"""Most instructions that entering a function counts as."""

_LOWERED_IN = tuple(f"llmbol_core.vm.jit.lower_{what}" for what in ("control", "heap", "text"))
"""Where instructions are lowered that are not scalar."""
_RUNTIME_IN = tuple(
    f"llmbol_core.vm.jit.{what}" for what in ("alternatives", "communication", "texts", "values")
)
"""Where functions of the runtime are written in Python."""

Lowering = Callable[["Lowerer"], None]
LOWERINGS: dict[str, Lowering] = {}
"""For each mnemonic without a meaning, what emits its code."""


def lowering(*mnemonics: str) -> Callable[[Lowering], Lowering]:
    """Register a function as what emits the code of some instructions."""

    def register(function: Lowering) -> Lowering:
        for mnemonic in mnemonics:
            LOWERINGS[mnemonic] = function
        return function

    return register


class Place(NamedTuple):
    """Where a value lies: a pointer, and the tag of the memory if it can be in one kind only."""

    pointer: str
    kind: str


class Lowerer(Emitter):
    """Emits the function of one region; ``unit`` holds those compiled with it."""

    def __init__(self, region: Region, unit: dict[int, Region]) -> None:
        super().__init__()
        self.region, self.unit = region, unit
        self.pc = region.start
        self.instruction: Instruction = region.code.instructions[self.pc]
        self._guarded: set[int] = set()

    def text(self) -> str:
        """Return the whole function."""
        region = self.region
        self._begin()
        self.jump(f"b{region.start}")
        for pc in region.pcs:
            self.pc, self.instruction = pc, region.code.instructions[pc]
            if not self._is_closed():
                self.jump(f"b{pc}")
            self.begin(f"b{pc}")
            self._lower()
        if not self._is_closed():
            self.emit("unreachable")
        self._finish()
        head = f"define fastcc i32 @f{region.start}(ptr %m, ptr %s, i32 %fp, i32 %entry) {{\n"
        return head + "\n".join(self.lines) + "\n}\n"

    def _is_closed(self) -> bool:
        """Whether the block that is being written has its last instruction."""
        return self.lines[-1].lstrip().startswith(("br ", "ret ", "switch ", "unreachable"))

    # Ways in

    def _begin(self) -> None:
        region = self.region
        self.lines.append("start:")
        for offset, type_ in region.slots.items():
            self.emit(f"%s{offset} = alloca {type_}")
        self.emit("%q = alloca i64")
        self.emit("%top = alloca i32")
        self.emit("%xpc = alloca i64")
        self.emit("%xstatus = alloca i32")
        self.emit("%f = call ptr @at(ptr %m, i32 %fp)")
        self.emit("%mp = " + f"load i32, ptr {self.state_word(State.MP)}")
        self.emit("%d = call ptr @at(ptr %m, i32 %mp)")
        self.load_budget()
        self.reload(region.slots)
        cases = " ".join(
            f"i32 {number}, label %e{pc}" for pc, number in region.entries.items() if number
        )
        self.emit(f"switch i32 %entry, label %first [{cases}]")
        self._enter_elsewhere()
        self.begin("first")
        self.emit(f"store i32 {self.value(f'add i32 %fp, {region.size}')}, ptr %top")
        self.pc = region.start
        self._check_host_stack()
        self.charge(min(len(region.pcs), _ENTRY_CHARGE), region.start)

    def _enter_elsewhere(self) -> None:
        for pc, number in self.region.entries.items():
            if number:
                self.begin(f"e{pc}")
                top = self.value(f"load i32, ptr {self.state_word(State.TOP)}")
                self.emit(f"store i32 {top}, ptr %top")
                self.jump(f"b{pc}")

    def _check_host_stack(self) -> None:
        """Leave if calls have filled the part of the host's stack that they may use."""
        instructions = self.region.code.instructions
        if not any(instructions[pc].op.effect is Effect.CALL for pc in self.region.native):
            return
        here = self.value("call ptr @llvm.frameaddress.p0(i32 0)")
        limit = self.value(f"load ptr, ptr {self.state_word(State.NATIVE_STACK)}")
        full = self.value(f"icmp ult ptr {here}, {limit}")
        go_on = self.label()
        leave = self.label()
        self.branch(full, leave, go_on, rare=True)
        self.begin(leave)
        self.leave(self.region.start, Status.RESUME)
        self.begin(go_on)

    # Ways out

    def guard(self, condition: str) -> None:
        """Leave for the interpreter, which runs this instruction, if a condition holds."""
        go_on = self.label()
        self._guarded.add(self.pc)
        self.branch(condition, f"x{self.pc}", go_on, rare=True)
        self.begin(go_on)

    def leave(self, pc: int, status: Status) -> None:
        """Leave with the process at an instruction."""
        self.emit(f"store i64 {pc}, ptr %xpc")
        self.emit(f"store i32 {status:d}, ptr %xstatus")
        self.jump("exit")

    def charge(self, count: int, target: int) -> None:
        """Count instructions; leave at ``target`` if no more may run."""
        left = self.value(f"sub i64 {self.value('load i64, ptr %q')}, {count}")
        self.emit(f"store i64 {left}, ptr %q")
        go_on, over = self.label(), self.label()
        self.branch(self.value(f"icmp slt i64 {left}, 0"), over, go_on, rare=True)
        self.begin(over)
        self.leave(target, Status.BUDGET)
        self.begin(go_on)

    def go_to(self, target: int) -> None:
        """Go to an instruction; going back is counted."""
        if target <= self.pc:
            self.charge(self.pc - target + 1, target)
        self.jump(f"b{target}")

    def _finish(self) -> None:
        for pc in sorted(self._guarded):
            self.begin(f"x{pc}")
            self.leave(pc, Status.INTERPRET)
        self.begin("exit")
        self.emit(f"store i64 {self.value('load i64, ptr %xpc')}, ptr {self.state_word(State.PC)}")
        self.emit(f"store i32 %fp, ptr {self.state_word(State.FP)}")
        top = self.value("load i32, ptr %top")
        self.emit(f"store i32 {top}, ptr {self.state_word(State.TOP)}")
        self.save_budget()
        self.jump("unwind")
        self.begin("unwind")
        self.spill(self.region.slots)
        self.emit(f"ret i32 {self.value('load i32, ptr %xstatus')}")

    def spill(self, slots: Iterable[int]) -> None:
        """Store slots in the frame."""
        for offset in slots:
            type_ = self.region.slots[offset]
            value = self.value(f"load {type_}, ptr %s{offset}")
            self.emit(f"store {type_} {value}, ptr {self.frame(offset)}, align 1{tag('frame')}")

    def reload(self, slots: Iterable[int]) -> None:
        """Load slots from the frame."""
        for offset in slots:
            type_ = self.region.slots[offset]
            value = self.value(f"load {type_}, ptr {self.frame(offset)}, align 1{tag('frame')}")
            self.emit(f"store {type_} {value}, ptr %s{offset}")

    # State

    def state_word(self, word: State) -> str:
        """Return a pointer to a word of the state."""
        return self.value(f"getelementptr i64, ptr %s, i64 {word:d}")

    def load_budget(self) -> None:
        """Take the budget from the state into a register."""
        budget = self.value(f"load i64, ptr {self.state_word(State.BUDGET)}")
        self.emit(f"store i64 {budget}, ptr %q")

    def save_budget(self) -> None:
        """Put the budget back into the state."""
        budget = self.value("load i64, ptr %q")
        self.emit(f"store i64 {budget}, ptr {self.state_word(State.BUDGET)}")

    # Operands

    def frame(self, offset: int) -> str:
        """Return a pointer into the frame."""
        return self.value(f"getelementptr i8, ptr %f, i64 {offset}")

    def at(self, address: str, offset: int = 0) -> str:
        """Return the pointer for an address in the arena, and what is added to it."""
        pointer = self.value(f"call ptr @at(ptr %m, i32 {address})")
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def operand(self, role: OperandRole) -> Operand:
        """Return the operand of a role; the destination stands in for an absent middle one."""
        return operand_for(self.instruction, role.place)

    def place(self, operand: Operand, letter: str) -> Place:
        """Return where an operand lies; an indirect one leaves if its base is nil."""
        offset = operand.value & 0xFFFF
        if operand.mode is Mode.FP:
            if offset in self.region.slots:
                return Place(f"%s{offset}", "slot")
            kind = "" if self.region.is_exposed(offset) else "frame"
            return Place(self.frame(offset), kind)
        if operand.mode is Mode.MP:
            return Place(self.value(f"getelementptr i8, ptr %d, i64 {offset}"), "")
        base = self.base(operand)
        if not self.region.is_element(operand):
            self.guard(self.value(f"icmp eq i32 {base}, -1"))
        kind = llvm_type(letter) if self.region.is_object(operand) else ""
        return Place(self.at(base, offset), kind)

    def base(self, operand: Operand) -> str:
        """Return the pointer that an indirect operand begins with."""
        in_frame = operand.mode is Mode.FP_INDIRECT
        slot = Operand(Mode.FP if in_frame else Mode.MP, operand.base & 0xFFFF)
        return self.load(self.place(slot, "P"), "P")

    def load(self, place: Place, letter: str) -> str:
        """Return the value at a place."""
        type_ = llvm_type(letter)
        if place.kind == "slot":
            return self.value(f"load {type_}, ptr {place.pointer}")
        return self.value(f"load {type_}, ptr {place.pointer}, align 1{tag(place.kind)}")

    def store(self, place: Place, letter: str, value: str) -> None:
        """Store a value at a place, without counting references."""
        type_ = llvm_type(letter)
        how = "" if place.kind == "slot" else f", align 1{tag(place.kind)}"
        self.emit(f"store {type_} {value}, ptr {place.pointer}{how}")

    def read(self, name: str) -> str:
        """Return the value of the operand at a place s, m or d."""
        role = self.instruction.op.role(name)
        assert role is not None
        operand = self.operand(role)
        if operand.mode is Mode.IMMEDIATE:
            return constant(operand.value, role.type if TYPES[role.type].size else "W")
        return self.load(self.place(operand, role.type), role.type)

    def target(self, name: str) -> Place:
        """Return where the operand that is written lies."""
        role = self.instruction.op.role(name)
        assert role is not None
        return self.place(self.operand(role), role.type)

    def give(self, place: Place, ref: str) -> None:
        """Store a reference that is counted already, and release the one that was there."""
        old = self.load(place, "P")
        self.store(place, "P", ref)
        self.emit(f"call void @release(ptr %m, ptr %s, i32 {old})")

    # Instructions

    def _lower(self) -> None:
        op = self.instruction.op
        if self.pc not in self.region.native or not self._is_usual():
            self.leave(self.pc, Status.INTERPRET)
        elif op.meaning is not None:
            self._lower_meaning()
        else:
            LOWERINGS[op.mnemonic](self)

    def _is_usual(self) -> bool:
        """Whether the operands are such that the instruction can run at all."""
        for role in self.instruction.op.operands:
            if role.place in PARAMETERS:
                continue
            mode = self.operand(role).mode
            if mode in (Mode.NONE, Mode.NONE6, Mode.NONE7) and not role.optional:
                return False
            if role.writes and mode is Mode.IMMEDIATE:
                return False
        return True

    def _lower_meaning(self) -> None:
        op = self.instruction.op
        assert op.meaning is not None
        values = {}
        for name, _ in op.reads:
            if name in PARAMETERS:
                slot = Operand(Mode.FP, PARAMETERS[name])
                values[name] = self.load(self.place(slot, "W"), "W")
            else:
                values[name] = self.read(name)
        is_branch = op.effect is Effect.BRANCH
        target = None if is_branch else self.target("d")
        result = lower_meaning(op.meaning, op, values, self)
        if target is not None:
            self.store(target, op.result, result)
            return
        label = self.instruction.destination.value
        yes = self.label()
        self.branch(result, yes, f"b{self.pc + 1}")
        self.begin(yes)
        self.go_to(label)


def unit_text(unit: dict[int, Region]) -> str:
    """Return the functions of regions that are compiled together, and how they are entered.

    What they call of the runtime is missing: see ``with_helpers``.
    """
    load_lowerings()
    parts = []
    for region in unit.values():
        parts.append(Lowerer(region, unit).text())
        parts.append(_entry(region.start))
    return "\n".join(parts)


def load_lowerings() -> None:
    """Import what registers itself in ``LOWERINGS``."""
    for module in _LOWERED_IN:
        importlib.import_module(module)


def with_helpers(*parts: str) -> str:
    """Return the text of functions together with what they call of the runtime."""
    from llmbol_core.vm.jit import expressions, helpers, linkage, source, translator

    for module in _RUNTIME_IN:
        importlib.import_module(module)
    text = "\n".join([helpers.HELPERS, linkage.LINKAGE, expressions.HELPERS, METADATA, *parts])
    called = {name for name in _CALL.findall(text) if name in source.FUNCTIONS}
    return text + translator.texts(called)


_CALL = re.compile(r"@(\w+)\(")


def _entry(start: int) -> str:
    """Return the function by which the native interpreter enters machine code."""
    return f"""define i64 @o{start}(ptr %m, ptr %s, i32 %fp, i64 %q, i32 %entry) {{
 %bp = getelementptr i64, ptr %s, i64 {State.BUDGET:d}
 store i64 %q, ptr %bp
 %r = call fastcc i32 @f{start}(ptr %m, ptr %s, i32 %fp, i32 %entry)
 %returned = icmp eq i32 %r, 0
 %left = load i64, ptr %bp
 %z = zext i32 %r to i64
 %sp = getelementptr i64, ptr %s, i64 {State.STATUS:d}
 store i64 %z, ptr %sp
 %result = select i1 %returned, i64 %left, i64 -1
 ret i64 %result
}}
"""
