"""Calls that pass arguments and results in registers: which ones, and what their frames hold.

A caller makes a frame, stores arguments in it and the address for the result, and calls::

    frame $2,40(fp)        the frame's address goes to 40(fp)
    subw  $1,32(fp),32(40(fp))
    lea   36(fp),16(40(fp))
    call  40(fp),$38

If the frame's slot and its contents are used in no other way the frame need not exist: it is known
where on the stack it would be, arguments are values, and the result comes back as one. Only when
the process leaves machine code are such frames written to memory.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from llmbol_core.vm.isa import TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.modulecode import UNKNOWN, Code, label_of
from llmbol_core.vm.module import ABSENT, Instruction, Operand

RESULT, ARGUMENTS = 16, 32
"""Where a frame has the address for the result, and where its arguments begin."""

Pending = tuple[int, ...]
"""The frames that were made but not yet called, by the instructions that made them."""

_STEPS_TO_RETURN = 8
_STRAIGHT = 64
_HARMLESS = frozenset({"movw", "movb", "movf", "movl", "movp", "jmp", "ret", "runt"})
"""Instructions that never leave machine code when their operands are direct."""


@dataclass
class Site:
    """One call: where its frame is made, of which type, and what is stored in it."""

    made: int
    type: int
    slot: Operand
    call: int = -1
    target: int = -1
    arguments: dict[int, str] = field(default_factory=dict)
    """Type letters of the arguments by their offset in the frame; P for all references."""
    address: Operand | None = None
    """The operand whose address is stored for the result."""

    @property
    def is_linked(self) -> bool:
        """Whether it is a call through a module handle, of which only running it tells more."""
        return self.type < 0


def value_letter(letter: str) -> str:
    """Return one letter for all types whose values are treated alike."""
    kind = TYPES[letter].kind
    if kind == "pointer":
        return "P"
    return letter if llvm_type(letter) != "i32" else "W"


def operand_for(instruction: Instruction, place: str) -> Operand:
    """Return an operand; the destination stands in for an absent middle one."""
    operand = instruction.operand(place) if place in "smd" else ABSENT
    if place == "m" and operand.mode is Mode.NONE:
        role = instruction.op.role("m")
        return instruction.destination if role is not None and role.optional else operand
    return operand


def pending_frames(code: Code, pcs: list[int], starts: set[int]) -> dict[int, Pending] | None:
    """Return the frames that wait for their call before each instruction.

    None waits where the code can be entered, at ``starts``. None if different ways to an
    instruction disagree.
    """
    before: dict[int, Pending] = dict.fromkeys(starts, ())
    work = [*starts]
    while work:
        pc = work.pop()
        after = _after(code, pc, before[pc])
        for target in code.targets(pc):
            if target not in before:
                before[target] = after
                work.append(target)
            elif before[target] != after:
                return None
    return before


def _after(code: Code, pc: int, waiting: Pending) -> Pending:
    instruction = code.instructions[pc]
    mnemonic = instruction.op.mnemonic
    if mnemonic in ("frame", "mframe"):
        return (*waiting, pc)
    if mnemonic in ("call", "mcall", "spawn", "mspawn"):
        slots = [code.instructions[at].destination for at in waiting]
        if instruction.source in slots:
            last = len(slots) - 1 - slots[::-1].index(instruction.source)
            return waiting[:last] + waiting[last + 1 :]
    return waiting


class Sites:
    """The calls of one function whose frames need not exist, by where the frames are made."""

    def __init__(self, code: Code, before: dict[int, Pending], native: set[int]) -> None:
        self._code, self._before, self._native = code, before, native
        self._entered = {t for pc in before for t in code.targets(pc) if t != pc + 1}
        self._entered.update(*(code.handlers(pc) for pc in before))
        self._found: dict[int, Site] = {}
        self._calls: dict[int, set[int]] = defaultdict(set)
        for pc in sorted(before):
            self._begin(pc)
        for pc in sorted(before):
            self._look_at(pc, pc in native)
        self.by_frame = {
            made: site
            for made, site in self._found.items()
            if site.call >= 0 and self._calls[site.call] == {made}
        }
        self.by_call = {site.call: site for site in self.by_frame.values()}

    def _begin(self, pc: int) -> None:
        """Begin with a frame if it is known where it would lie."""
        instruction = self._code.instructions[pc]
        if instruction.op.mnemonic == "mframe" and self._leads_to_call(pc):
            self._found[pc] = Site(pc, -1, instruction.destination)
        is_frame = instruction.op.mnemonic == "frame"
        if not is_frame or instruction.destination.mode is not Mode.FP:
            return
        number = instruction.source.value
        is_known = all(self._mnemonic(at) == "frame" for at in self._before[pc])
        if is_known and 0 <= number < len(self._code.module.types):
            self._found[pc] = Site(pc, number, instruction.destination)

    def _leads_to_call(self, made: int) -> bool:
        """Whether straight code leads from where a frame is made for a link to the call."""
        slot = self._code.instructions[made].destination
        if slot.mode is not Mode.FP or made not in self._native:
            return False
        for pc in range(made + 1, made + _STRAIGHT):
            if pc not in self._native or pc in self._entered:
                return False
            instruction = self._code.instructions[pc]
            if instruction.op.mnemonic == "mcall":
                return instruction.source == slot
            if instruction.op.effect is not Effect.NEXT or "frame" in instruction.op.mnemonic:
                return False
        return False

    def _mnemonic(self, pc: int) -> str:
        return self._code.instructions[pc].op.mnemonic

    def _look_at(self, pc: int, is_native: bool) -> None:
        """Note what an instruction does with the waiting frames."""
        instruction = self._code.instructions[pc]
        waiting = self._before[pc]
        for role in instruction.op.operands:
            operand = operand_for(instruction, role.place)
            for made in waiting:
                site = self._found.get(made)
                if site is not None and not self._is_usual(site, pc, role, operand, is_native):
                    del self._found[made]

    def _is_usual(
        self, site: Site, pc: int, role: OperandRole, operand: Operand, is_native: bool
    ) -> bool:
        """Whether an operand leaves a frame as it should be."""
        instruction = self._code.instructions[pc]
        slot = site.slot.value
        call = "mcall" if site.is_linked else "call"
        if operand == site.slot and instruction.op.mnemonic == call and role.place == "s":
            return is_native and self._note_call(site, pc)
        if operand.mode is Mode.FP:
            size = TYPES[role.type].size or 4
            if role.is_storage and (role.writes or role.type in "XY"):
                size = self._code.storage_size(instruction, role)
            return operand.value + size <= slot or operand.value >= slot + 4
        if operand.mode is not Mode.FP_INDIRECT or operand.base != slot:
            return True
        if self._code.instructions[self._last(pc)].destination != site.slot:
            return False
        if instruction.op.mnemonic == "lea" and role.place == "d" and operand.value == RESULT:
            is_first = site.address is None and instruction.source.mode is not Mode.IMMEDIATE
            site.address = instruction.source
            return is_native and is_first
        return is_native and self._note_argument(site, role, operand)

    def _last(self, pc: int) -> int:
        return self._before[pc][-1]

    def _note_call(self, site: Site, pc: int) -> bool:
        self._calls[pc].add(site.made)
        if site.is_linked:
            site.call = pc
            return self._last(pc) == site.made
        target = label_of(self._code.instructions[pc])
        is_first = site.call in (-1, pc)
        site.call, site.target = pc, target if target is not None else -1
        return is_first and site.target >= 0 and self._last(pc) == site.made

    @staticmethod
    def _note_argument(site: Site, role: OperandRole, operand: Operand) -> bool:
        letter = value_letter(role.type)
        known = site.arguments.setdefault(operand.value, letter)
        size = TYPES[letter].size
        alone = all(
            at == operand.value or at >= operand.value + size or at + TYPES[o].size <= operand.value
            for at, o in site.arguments.items()
        )
        return not role.is_storage and operand.value >= ARGUMENTS and known == letter and alone


def written_through(code: Code, start: int) -> int:
    """Return how many bytes a function may write at the address for its result."""
    size = 0
    for pc in code.reachable(start):
        instruction = code.instructions[pc]
        if instruction.op.mnemonic == "movpc":
            return UNKNOWN
        for role in instruction.op.operands:
            operand = operand_for(instruction, role.place)
            if operand.mode is Mode.FP and operand.value == RESULT:
                return UNKNOWN
            if operand.mode is Mode.FP_INDIRECT and operand.base == RESULT:
                if instruction.op.mnemonic == "lea":
                    return UNKNOWN
                known = TYPES[role.type].size or code.storage_size(instruction, role)
                size = max(size, operand.value + known)
    return min(size, UNKNOWN)


# Results


@dataclass(frozen=True)
class _Uses:
    """How one function uses the address for its result."""

    letters: frozenset[str]
    tails: frozenset[int]
    """The functions that write its result for it."""
    is_clean: bool


class Results:
    """Which functions of a module return their result in a register, and as what."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._uses: dict[int, _Uses] = {}
        self._letters: dict[int, str] = {}

    def letter(self, start: int) -> str:
        """Return the type letter of a function's result, or "" if it writes it to memory."""
        if start not in self._letters:
            group = self._group(start)
            letters = frozenset().union(*(self._of(at).letters for at in group))
            is_clean = all(self._of(at).is_clean for at in group)
            writes = all(any(self._of(to).letters for to in self._group(at)) for at in group)
            is_good = is_clean and writes and len(letters) == 1
            self._letters[start] = min(letters) if is_good else ""
        return self._letters[start]

    def has_tails(self, start: int) -> bool:
        """Whether other functions write a function's result for it."""
        return bool(self._of(start).tails)

    def _group(self, start: int) -> set[int]:
        """Return a function and all that may write its result."""
        found, work = {start}, [start]
        while work:
            for target in self._of(work.pop()).tails - found:
                found.add(target)
                work.append(target)
        return found

    def _of(self, start: int) -> _Uses:
        if start not in self._uses:
            self._uses[start] = _Scan(self._code, start).uses
        return self._uses[start]


class _Scan:
    """Looks at how a function uses the address for its result."""

    def __init__(self, code: Code, start: int) -> None:
        self._code = code
        self._pcs = code.reachable(start)
        self._letters: set[str] = set()
        self._tails: set[int] = set()
        self._writes: set[int] = set()
        is_clean = all(self._is_usual(pc) for pc in self._pcs)
        is_clean = is_clean and all(self._returns_behind(pc) for pc in self._writes)
        is_clean = is_clean and self._always_writes(start)
        self.uses = _Uses(frozenset(self._letters), frozenset(self._tails), is_clean)

    def _is_usual(self, pc: int) -> bool:
        """Whether an instruction uses the address only to write one whole value, or not at all."""
        instruction = self._code.instructions[pc]
        if instruction.op.mnemonic == "movpc":
            return False
        for role in instruction.op.operands:
            operand = operand_for(instruction, role.place)
            if operand.mode is Mode.FP and operand.value <= RESULT < operand.value + 8:
                return False
            if operand.mode is not Mode.FP_INDIRECT or operand.base != RESULT:
                continue
            if instruction.op.mnemonic == "lea" and role.place == "s":
                call = self._call_behind(pc)
                if operand.value or call is None:
                    return False
                self._tails.add(self._code.instructions[call].destination.value)
                self._writes.add(call)
            elif operand.value or role.is_storage or role.reads or not self._code.is_native(pc):
                return False
            else:
                self._letters.add(value_letter(role.type))
                self._writes.add(pc)
        return True

    def _call_behind(self, pc: int) -> int | None:
        """Return the call in whose frame ``lea`` stores the address, if that comes next."""
        frame = self._code.instructions[pc].destination
        following = (
            self._code.instructions[pc + 1] if pc + 1 < len(self._code.instructions) else None
        )
        if following is None or following.op.mnemonic != "call" or label_of(following) is None:
            return None
        is_frame = frame.mode is Mode.FP_INDIRECT and frame.value == RESULT
        return pc + 1 if is_frame and following.source == Operand(Mode.FP, frame.base) else None

    def _returns_behind(self, pc: int) -> bool:
        """Whether nothing can leave machine code between a write of the result and the return."""
        pc += 1
        for _ in range(_STEPS_TO_RETURN):
            if pc >= len(self._code.instructions) or pc in self._writes:
                return False
            instruction = self._code.instructions[pc]
            if instruction.op.effect is Effect.RETURN:
                return True
            if instruction.op.mnemonic not in _HARMLESS or not _is_direct(instruction):
                return False
            label = label_of(instruction)
            if instruction.op.mnemonic == "jmp":
                if label is None or label <= pc:
                    return False
                pc = label
            else:
                pc += 1
        return False

    def _always_writes(self, start: int) -> bool:
        """Whether the function cannot return without having written its result."""
        found, work = {start}, [start]
        while work:
            pc = work.pop()
            if pc in self._writes:
                continue
            if self._code.instructions[pc].op.effect is Effect.RETURN:
                return False
            for target in self._code.targets(pc):
                if target not in found:
                    found.add(target)
                    work.append(target)
        return True


def _is_direct(instruction: Instruction) -> bool:
    """Whether no operand is reached through an address."""
    operands = (instruction.source, instruction.middle, instruction.destination)
    return all(o.mode not in (Mode.FP_INDIRECT, Mode.MP_INDIRECT) for o in operands)
