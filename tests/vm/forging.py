"""Random programs that try to forge pointers: what the verifier accepts must run without a forgery.

    python -m tests.vm.forging [--count N] [--seed S] [--workers N] [--engine NAME]

Each starts as one of the attacks that the tests know; then instructions are changed, inserted,
removed and moved at random, again and again for as long as the verifier accepts the program
(``Forger``). What it accepts runs in an interpreter that checks every access by itself
(``oracle.py``) and the verifier's claims as well (``claims.py``). The same seed makes the same
program; the run prints how many were accepted and exits with 1 if one forged something.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import LlmbolError
from llmbol_core.vm.disassembly import format_assembly
from llmbol_core.vm.engines import engine as engine_of
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.isa import OPS, TYPES, Effect, Mode, Op, OperandRole
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import ABSENT, Instruction, Module, Operand, TypeDescriptor
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verifier import prove_module
from tests.vm import ledger
from tests.vm import test_attacks as attacks
from tests.vm.areas import Forgery, check_heap
from tests.vm.batches import UNSURE, command_line, try_all
from tests.vm.claims import Claiming
from tests.vm.oracle import Checking

_LIMITS = Limits(memory=32 << 20, threads=20, instructions=600, seconds=20.0)
_POINTERS, _WORDS = (32, 36, 40), (28, *range(44, 96, 4))
_DATA = (0, 4, 8, 12, 16)
_BATCH = 100

MIXED = partial(JitEngine, threshold=2, at_once=True)
"""An engine that compiles what has run twice, and interprets natively before that."""

Modules = dict[str, Module]


@cache
def known() -> list[Modules]:
    """Return the attacks of the tests as modules."""
    from tests.vm.test_breaches import BREACHES
    from tests.vm.test_detours import DETOURS, HONEST, modules_of
    from tests.vm.test_escapes import ESCAPES

    texts: list[Mapping[str, str]] = [
        *({"a": text} for text in (*attacks.ALONE.values(), *attacks.AGAIN.values())),
        *(dict(zip("abc", text, strict=False)) for text in attacks.BETWEEN.values()),
    ]
    attempts = (*DETOURS.values(), *ESCAPES.values(), *BREACHES.values())
    others = [*(code for code, _ in attempts), *HONEST.values()]
    return [
        *(
            {letter: attacks.assembled(letter, code, text) for letter, code in text.items()}
            for text in texts
        ),
        *map(modules_of, others),
    ]


class Forger:
    """Makes the random programs of one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._code = [
            (instruction, len(module.instructions))
            for modules in known()
            for module in modules.values()
            for instruction in module.instructions
        ]

    def program(self) -> Modules:
        """Return an attack with a few changes."""
        modules = dict(self._chance.choice(known()))
        for _ in range(self._chance.choice((1, 1, 2, 3, 4, 6))):
            letter = self._chance.choice(list(modules))
            modules[letter] = self._changed(modules[letter])
        return modules

    def changed(self, modules: Modules) -> Modules:
        """Return a program with one more change."""
        letter = self._chance.choice(list(modules))
        return {**modules, letter: self._changed(modules[letter])}

    def _changed(self, module: Module) -> Module:
        way = self._chance.choices(
            (
                self._operand,
                self._inserted,
                self._grafted,
                self._taken_out,
                self._opcode,
                self._type,
                self._moved,
            ),
            (8, 6, 4, 3, 3, 1, 3),
        )[0]
        return way(module) if module.instructions else module

    def _at(self, module: Module) -> int:
        return self._chance.randrange(len(module.instructions))

    def _with(self, module: Module, at: int, instruction: Instruction) -> Module:
        code = list(module.instructions)
        code[at] = instruction
        return replace(module, instructions=tuple(code))

    def _operand(self, module: Module) -> Module:
        """Give an instruction another operand."""
        at = self._at(module)
        instruction = module.instructions[at]
        roles = [role for role in instruction.op.operands if role.place in "smd"]
        if not roles:
            return module
        role = self._chance.choice(roles)
        operand = self._fitting(role, len(module.instructions), instruction.op)
        return self._with(module, at, _placed(instruction, role.place, operand))

    def _opcode(self, module: Module) -> Module:
        """Give an instruction another opcode of as many operands."""
        at = self._at(module)
        instruction = module.instructions[at]
        places = [role.place for role in instruction.op.operands]
        alike = [op for op in OPS if [role.place for role in op.operands] == places]
        return self._with(
            module, at, instruction._replace(opcode=self._chance.choice(alike).number)
        )

    def _inserted(self, module: Module) -> Module:
        """Put in an instruction: one of another program, or a new one."""
        at, count = self._at(module), len(module.instructions)
        if self._chance.randrange(2):
            instruction, other = self._chance.choice(self._code)
            label = instruction.destination
            if instruction.op.has_label and label.mode is Mode.IMMEDIATE:
                label = label._replace(value=label.value * count // other)
                instruction = instruction._replace(destination=label)
        else:
            instruction = self._new(count)
        return _shifted(module, at, instruction)

    def _grafted(self, module: Module) -> Module:
        """Put in a few instructions of another program that belong together."""
        code = self._chance.choice(list(self._chance.choice(known()).values())).instructions
        start, at = self._chance.randrange(max(len(code), 1)), self._at(module)
        run = code[start : start + self._chance.randrange(2, 7)]
        for index, instruction in reversed(list(enumerate(run))):
            label = instruction.destination
            if instruction.op.has_label and label.mode is Mode.IMMEDIATE:
                is_ahead = start + index <= label.value < start + len(run)
                behind = label.value * len(module.instructions) // len(code)
                to = at + label.value - start - index if is_ahead else behind
                instruction = instruction._replace(destination=label._replace(value=to))
            module = _shifted(module, at, instruction)
        return module

    def _new(self, count: int) -> Instruction:
        op = self._chance.choice(_OPS)
        instruction = Instruction(op.number, ABSENT, ABSENT, ABSENT)
        for role in op.operands:
            if role.place in "smd" and not (role.optional and self._chance.randrange(2)):
                operand = self._fitting(role, count, op)
                instruction = _placed(instruction, role.place, operand)
        return instruction

    def _taken_out(self, module: Module) -> Module:
        return _shifted(module, self._at(module), None)

    def _moved(self, module: Module) -> Module:
        """Put an instruction elsewhere, or twice."""
        instruction = module.instructions[self._at(module)]
        if self._chance.randrange(2):
            module = _shifted(module, module.instructions.index(instruction), None)
        if not module.instructions:
            return module
        return _shifted(module, self._at(module), instruction)

    def _type(self, module: Module) -> Module:
        """Flip a pointer of a type."""
        types = list(module.types)
        at = self._chance.randrange(1, len(types))
        kind, word = types[at], self._chance.randrange(max(types[at].size // 4, 1))
        pointers = bytearray(kind.pointer_map.ljust(word // 8 + 1, b"\0"))
        pointers[word // 8] ^= 0x80 >> word % 8
        types[at] = TypeDescriptor(at, kind.size, bytes(pointers))
        return replace(module, types=tuple(types))

    def _fitting(self, role: OperandRole, count: int, op: Op) -> Operand:
        """Return an operand that may do for a role."""
        numbers = {"D": range(1, 8), "Q": range(count), "J": (0,), "M": (0,)}.get(role.type, ())
        if role.place == "m" and op.mnemonic in ("movm", "consm", "headm"):
            numbers = (0, 4, 8, 12)
        elif role.reads and role.type in "WX" and not self._chance.randrange(3):
            numbers = (0, 1, 2, 77)
        if numbers:
            return Operand(Mode.IMMEDIATE, self._chance.choice(numbers))
        if role.type == "K":
            return Operand(Mode.FP, self._chance.choice((48, 52)))
        return self._place(role)

    def _place(self, role: OperandRole) -> Operand:
        """Return an operand in the frame, in the module data or behind something there."""
        choice, kind = self._chance.choice, TYPES[role.type]
        is_pointer = kind.kind == "pointer"
        slots = _POINTERS if is_pointer else _WORDS
        if kind.kind == "storage":
            slots = (*_POINTERS, *_WORDS)
        if role.place == "m":
            return Operand(Mode.FP, choice(slots))
        modes = (Mode.FP, Mode.FP, Mode.MP, Mode.FP_INDIRECT, Mode.FP_INDIRECT, Mode.MP_INDIRECT)
        match choice(modes):
            case Mode.FP:
                place = Operand(Mode.FP, choice(slots))
            case Mode.MP:
                place = Operand(Mode.MP, choice(_DATA if is_pointer else (20, 24, 28, 32)))
            case Mode.FP_INDIRECT:
                base = choice((*_POINTERS, *_POINTERS, 44, 44, 48, 52, 16))
                offsets = (16, 32, 36, 40, 44) if base in (48, 52) else (0, 0, 4, 8, 12)
                place = Operand(Mode.FP_INDIRECT, choice(offsets), base)
            case _:
                place = Operand(Mode.MP_INDIRECT, choice((0, 4, 8, 12)), choice(_DATA))
        # Bytes, and what may consist of them, can lie anywhere.
        is_odd = kind.size < 2 and not self._chance.randrange(6)
        return place._replace(value=place.value + choice((1, 2, 3))) if is_odd else place


_OPS = [
    op
    for op in OPS
    if op.effect not in (Effect.END, Effect.RETURN)
    and any(TYPES[role.type].kind in ("pointer", "storage", "address") for role in op.operands)
    and not any(role.type in "GSVU" for role in op.operands)
] + [op for op in OPS if op.mnemonic in ("movw", "beqw", "bnew", "jmp", "addw")] * 4
"""Instructions that have to do with pointers, and a few others."""


def _placed(instruction: Instruction, place: str, operand: Operand) -> Instruction:
    opcode, *ends = instruction
    ends["smd".index(place)] = operand
    return Instruction(opcode, *ends)


def entered_at(module: Module, moved: Callable[[int], int]) -> Module:
    """Let exports and handlers follow instructions that were moved."""
    return replace(
        module,
        exports=tuple(e._replace(pc=moved(e.pc)) for e in module.exports),
        handlers=tuple(
            h._replace(
                pc1=moved(h.pc1),
                pc2=moved(h.pc2),
                default_pc=moved(h.default_pc),
                labels=tuple((name, moved(pc)) for name, pc in h.labels),
            )
            for h in module.handlers
        ),
    )


def _shifted(module: Module, at: int, instruction: Instruction | None) -> Module:
    """Put an instruction in, or take one out, and let all labels follow."""
    step = 1 if instruction else -1

    def moved(pc: int) -> int:
        return pc + step if pc > at or (pc == at and instruction) else pc

    def kept(old: Instruction) -> Instruction:
        label = old.destination
        if old.op.has_label and label.mode is Mode.IMMEDIATE:
            return old._replace(destination=label._replace(value=moved(label.value)))
        return old

    before, behind = module.instructions[:at], module.instructions[at:]
    inside = (*before, instruction, *behind) if instruction else (*before, *behind[1:])
    code = tuple(kept(i) if i is not instruction else i for i in inside)
    return entered_at(replace(module, instructions=code), moved)


def verifies(modules: Modules) -> bool:
    """Whether the verifier accepts all modules of a program."""
    try:
        for module in modules.values():
            prove_module(module)
    except LlmbolError:
        return False
    return True


def outcome(modules: Modules, folder: Path, engine: str = "") -> str:
    """Run a program that verifies, in the oracle or on a named engine; return how it ends.

    An engine runs it twice, the second time with the machine code of the first; then every
    reference must be counted right, and nothing be left at the end. Raises Forgery.
    """
    for letter, module in modules.items():
        (folder / f"{letter}.dis").write_bytes(write_module(module))
    if not engine:
        return _run(folder, Claiming, 1)
    made = MIXED if engine == "mixed" else engine_of(engine)
    return _run(folder, made, 2)


def _run(folder: Path, engine: Callable[..., Interpreter], times: int) -> str:
    """Run a program a few times in one machine; return how it ends."""
    out = io.BytesIO()
    streams, ends = Streams(stdout=out, stderr=out), set[str]()
    with InfernoVM(HOST_MODULES, Namespace(folder), _LIMITS, streams, engine=engine) as machine:
        for _ in range(times):
            try:
                machine.run("/a.dis")
                how = "ended"
            except LlmbolError as error:
                how = type(error).__name__
            machine._settle()
            ledger.check(machine)
            # How often what was said before a limit struck is the engine's own affair, too.
            said = out.getvalue()
            ends.add(how if how in UNSURE or not said else f"broken: {said!r}")
            out.seek(out.truncate(0))
            if how in UNSURE:
                break
        check_heap(machine.heap)
        if isinstance(machine.engine, Checking):
            machine.engine.check_counts()
            machine.engine.blocks.check_freed()
    machine.heap.make_room()
    if machine.heap.objects:
        raise Forgery(f"{machine.heap.objects} objects are left")
    if len(ends) > 1 and not ends & set(UNSURE):
        raise Forgery(f"it ends in several ways: {ends}")
    return max(ends, key=lambda end: end in UNSURE)


def try_seeds(seeds: range, engine: str = "") -> tuple[Counter[str], list[str]]:
    """Try a program for each seed, changed further for as long as it is accepted."""
    found: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            forger = Forger(seed)
            modules = forger.program()
            for _ in range(12):
                try:
                    if not verifies(modules):
                        found["refused"] += 1
                        break
                    found["accepted"] += 1
                    how = outcome(modules, Path(folder))
                    found[how.partition(":")[0]] += 1
                    if engine and how not in UNSURE:
                        native = outcome(modules, Path(folder), engine)
                        found[engine] += 1
                        if native != how and native not in UNSURE:
                            raise Forgery(f"{engine} gives {native}, not {how}")
                except Exception:  # noqa: BLE001 -- Forgery, and whatever else should not be
                    wrong.append(f"seed {seed}: {traceback.format_exc(limit=-2)}\n{text(modules)}")
                    break
                modules = forger.changed(modules)
    return found, wrong


def text(modules: Modules) -> str:
    """Return a program as it is written."""
    return "\n".join(map(format_assembly, modules.values()))


def main() -> None:
    """Try as many as the command line says."""
    parser = command_line(__doc__, 2000)
    parser.add_argument("--engine", default="", help="run them on this one, too, and compare")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    attempt = partial(try_seeds, engine=options.engine)
    found, wrong = try_all(attempt, seeds, _BATCH, options.workers)
    print(f"{found['accepted']} programs were accepted, {wrong} forged something")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
