"""Instructions as Python functions: what the interpreter runs.

Each instruction becomes a *step*, a function of where the frame and the module data begin (in
words) that does the work and returns the next program counter. Its text follows from the row in
the instruction table and from the addressing modes; instructions that differ only in offsets share
it. ``addw 8(fp),4(16(fp))`` becomes, its numbers being bound later::

    def step(fp, mp):
        m = (W[a_m >> 2] if not (a_m := P[fp + m_base] + m_offset) & 3 else word(a_m))
        v = (((m + W[fp + s_index]) + 2147483648 & 4294967295) - 2147483648)
        a_d = P[fp + d_base] + d_offset
        if a_d & 3: set_word(a_d, v)
        else: W[a_d >> 2] = v
        return next_pc

For a scalar row the value is the row's meaning, spelled in Python; any other row has a handler in
``HANDLERS``, which is called with the engine and the operands in the order s, m, d: values of those
it reads, addresses of storage. What it returns goes to the operand that the row writes; a handler
``into`` its destination stores by itself and is given the address. Where the row's effect leaves
the sequence, the handler returns the next program counter and is told the one that follows.

Nothing checks addresses here: what lies outside of the arena's views raises IndexError, and so do
all places behind nil.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple, Protocol

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.ieee import Arithmetic
from llmbol_core.vm.isa import OPS, PARAMETERS, TYPES, WORD_SIZE, Effect, Mode, Op, OperandRole
from llmbol_core.vm.meaning import ARITHMETIC, translate
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.objects import STACK, Heap

Step = Callable[[int, int], int]
Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}
"""The handler of each mnemonic that has no meaning."""
_OF_CONSTANTS = ("send", "lea")
"""Opcodes that need the address of their source, even of an immediate."""
_INTO: set[str] = set()
_ROUNDED = ("cvtcf",)
"""Those whose handler computes a real."""


def handler(*mnemonics: str, into: bool = False) -> Callable[[Handler], Handler]:
    """Register a function as the handler of some instructions."""

    def register(function: Handler) -> Handler:
        for mnemonic in mnemonics:
            assert mnemonic not in HANDLERS, mnemonic
            HANDLERS[mnemonic] = function
            if into:
                _INTO.add(mnemonic)
        return function

    return register


class _Access(NamedTuple):
    """How values of some types lie in memory: the view, its item's size as a shift, accessors."""

    view: str
    shift: int
    get: str
    put: str


# fmt: off
_ACCESS = {
    #              view shift  at any address
    "B": _Access("B",  0,     "byte",    "set_byte"),
    "H": _Access("H",  1,     "short",   "set_short"),
    "W": _Access("W",  2,     "word",    "set_word"),
    "L": _Access("L",  3,     "big",     "set_big"),
    "R": _Access("R",  2,     "float32", "set_float32"),
    "F": _Access("F",  3,     "real",    "set_real"),
    "P": _Access("P",  2,     "pointer", "set_pointer"),
}
# fmt: on
_COUNTED = "PCAINZ"
_REGISTERS = {Mode.FP: "fp", Mode.FP_INDIRECT: "fp", Mode.MP: "mp", Mode.MP_INDIRECT: "mp"}
_INDIRECT = (Mode.MP_INDIRECT, Mode.FP_INDIRECT)
_ABSENT = (Mode.NONE, Mode.NONE6, Mode.NONE7)
_SHORT, _LONG = (1 << 16) - 1, (1 << 30) - 1
"""Masks of offsets: of an operand behind a pointer, and of any other."""


def _access(letter: str) -> _Access:
    """Return how values of a type lie in memory; those that are addresses lie like pointers."""
    kind = TYPES[letter].kind
    if kind in ("pointer", "address", "label"):
        return _ACCESS["P"]
    return _ACCESS[letter] if letter in _ACCESS else _ACCESS["W"]


class _Place(NamedTuple):
    """An operand as text. Its numbers are bound to NAME_offset, NAME_base and NAME_index."""

    name: str
    mode: Mode
    is_aligned: bool
    """Whether the offset is a multiple of its type's size."""

    @property
    def address(self) -> str:
        """The operand's address in bytes."""
        register = _REGISTERS[self.mode]
        if self.mode in _INDIRECT:
            return f"P[{register} + {self.name}_base] + {self.name}_offset"
        return f"(({register} << 2) + {self.name}_offset)"

    @property
    def is_direct(self) -> bool:
        """Whether the operand's index in a view is a constant plus the register."""
        return self.mode in (Mode.FP, Mode.MP) and self.is_aligned

    def item(self, shift: int) -> str:
        """Return the operand's index in a view of items of 1 << shift bytes."""
        register = _REGISTERS[self.mode]
        moved = {2: register, 3: f"({register} >> 1)"}.get(shift, f"({register} << {2 - shift})")
        return f"{moved} + {self.name}_index"

    def load(self, letter: str) -> str:
        """Return the operand's value, of a type."""
        if self.mode is Mode.IMMEDIATE:
            return f"{self.name}_offset"
        view, shift, get, _ = _access(letter)
        if self.is_direct:
            return f"{view}[{self.item(shift)}]"
        if shift == 0:
            return f"B[{self.address}]"
        at = f"a_{self.name}"
        is_odd = f"({at} := {self.address}) & {(1 << shift) - 1}"
        return f"({get}({at}) if {is_odd} else {view}[{at} >> {shift}])"

    def store(self, letter: str, value: str) -> list[str]:
        """Statements that store a value of a type."""
        view, shift, _, put = _access(letter)
        if letter in _COUNTED:
            return self._give(value)
        if self.is_direct:
            return [f"{view}[{self.item(shift)}] = {value}"]
        if shift == 0:
            return [f"B[{self.address}] = {value}"]
        at = f"a_{self.name}"
        return [
            f"v = {value}",
            f"{at} = {self.address}",
            f"if {at} & {(1 << shift) - 1}: {put}({at}, v)",
            f"else: {view}[{at} >> {shift}] = v",
        ]

    def _give(self, value: str) -> list[str]:
        """Statements that store a reference in place of another, which is released."""
        if not self.is_direct:
            return [f"v = {value}", f"give({self.address}, v)"]
        return [
            f"v = {value}",
            f"i = {self.item(2)}",
            "old = P[i]",
            "P[i] = v",
            f"if old != {NIL}: release(old)",
        ]


class _Shape(NamedTuple):
    """Everything that a step's text depends on."""

    opcode: int
    places: tuple[_Place, ...]


_NUMBERS = [f"{name}_{part}" for name in "smd" for part in ("offset", "base", "index")]


@functools.lru_cache(maxsize=4096)
def _compiled(shape: _Shape) -> CodeType:
    """Compile the function that makes steps of a shape."""
    op = OPS[shape.opcode]
    lines = [f"def make(h, {', '.join(_NUMBERS)}, next_pc):", " def step(fp, mp):"]
    lines += ["  " + line for line in _body(op, {place.name: place for place in shape.places})]
    return compile("\n".join([*lines, " return step"]), f"<{op.mnemonic}>", "exec")


def takes(op: Op, role: OperandRole, mode: Mode) -> bool:
    """Whether an operand of an instruction can have a mode at all."""
    if mode in _ABSENT:
        return role.optional
    if mode is not Mode.IMMEDIATE:
        return True
    return not role.writes and (not role.is_storage or op.mnemonic in _OF_CONSTANTS)


def _body(op: Op, places: dict[str, _Place]) -> list[str]:
    """Return the statements of a step, or one that traps if an operand's mode is impossible."""
    for role in op.operands:
        mode = places[role.place].mode if role.place in places else Mode.FP
        if not takes(op, role, mode):
            return [f"raise Trap({traps.ILLEGAL!r})"]
    return _scalar(op, places) if op.meaning else _handled(op, places)


def _scalar(op: Op, places: dict[str, _Place]) -> list[str]:
    """Return the statements of a step whose row says what it means."""
    if not op.computes_reals:
        return _computed(op, places)
    careful = _computed(op, places, is_careful=True)
    return ["if A.begin(E.process):", *(f" {line}" for line in careful), *_computed(op, places)]


def _computed(op: Op, places: dict[str, _Place], is_careful: bool = False) -> list[str]:
    """Return the statements that compute a value and what follows from it."""
    assert op.meaning is not None
    uses = [node.id for node in ast.walk(op.meaning) if isinstance(node, ast.Name)]
    before, loads = [], {}
    for name, letter in op.reads:
        if name in PARAMETERS:
            text = f"W[fp + {PARAMETERS[name] // WORD_SIZE}]"
        else:
            text = places[name].load(letter)
        loads[name] = f"string({text})" if letter == "C" else text
        if uses.count(name) > 1 or is_careful:
            before.append(f"{name} = {loads[name]}")
            loads[name] = name
    value = translate(op.meaning, op, loads, is_careful)
    if is_careful:
        before += [f"found = {value}", "A.end(E.process, next_pc - 1)"]
        value = "found"
    if op.effect is Effect.BRANCH:
        return [*before, f"return {places['d'].load('Q')} if {value} else next_pc"]
    return [*before, *places["d"].store(op.result, value), "return next_pc"]


def _handled(op: Op, places: dict[str, _Place]) -> list[str]:
    """Return the statements of a step that calls its handler."""
    arguments = ["E"]
    result: OperandRole | None = None
    for role in sorted(op.operands, key=lambda role: "smd".index(role.place)):
        place = places[role.place]
        if role.is_storage or (role.writes and (role.reads or op.mnemonic in _INTO)):
            is_constant = place.mode is Mode.IMMEDIATE
            arguments.append(place.load("W") if is_constant else place.address)
        elif role.writes:
            result = role
        elif place.mode in _ABSENT:
            arguments.append("0")
        elif role.type == "D" and place.mode is not Mode.IMMEDIATE:
            arguments.append(f"E.type_number({place.load('D')})")
        else:
            arguments.append(place.load(role.type))
    if op.effect is not Effect.NEXT:
        return [f"return h({', '.join([*arguments, 'next_pc'])})"]
    call = f"h({', '.join(arguments)})"
    if result is not None and result.type == "F" and op.mnemonic in _ROUNDED:
        call = f"A.ended({call}, E.process, next_pc - 1)"
    done = [call] if result is None else places[result.place].store(result.type, call)
    return [*done, "return next_pc"]


class _Engine(Protocol):
    """What steps use of an engine besides its heap and what handlers are given."""

    arithmetic: Arithmetic


class StepMaker:
    """Makes the steps of one engine: binds their text to its heap, and to numbers."""

    def __init__(self, engine: _Engine, heap: Heap) -> None:
        self._heap = heap
        self._environment = {
            "__builtins__": {},
            "E": engine,
            "A": engine.arithmetic,
            "Trap": Trap,
            "B": heap.bytes,
            "H": heap.shorts,
            "W": heap.words,
            "P": heap.pointers,
            "L": heap.bigs,
            "F": heap.reals,
            "R": heap.floats,
            "string": heap.string,
            "give": heap.give,
            "release": heap.release,
            **ARITHMETIC,
        }
        for access in _ACCESS.values():
            self._environment[access.get] = getattr(heap, access.get)
            self._environment[access.put] = getattr(heap, access.put)
        self._makers: dict[_Shape, Callable[..., Step]] = {}
        self._constants: dict[int, int] = {}

    def step(self, instruction: Instruction, types: list[int], next_pc: int) -> Step:
        """Return the step of an instruction in a module whose types have these heap numbers."""
        op = instruction.op
        places: list[_Place] = []
        numbers: list[float] = []
        for name in "smd":
            role = op.role(name)
            operand = _operand(instruction, op, name)
            if role is None:
                numbers += [0, 0, 0]
                continue
            most = _SHORT if operand.mode in _INDIRECT else _LONG
            offset, base = operand.value & most, operand.base & _SHORT
            shift = _access(role.type).shift
            places.append(_Place(name, operand.mode, not offset & (1 << shift) - 1))
            if operand.mode is Mode.IMMEDIATE:
                numbers += [self._immediate(role, operand.value, types), 0, 0]
            else:
                numbers += [offset, base >> 2, offset >> shift]
        make = self._maker(_Shape(op.number, tuple(places)))
        return make(HANDLERS.get(op.mnemonic), *numbers, next_pc)

    def release_constants(self) -> None:
        """Free the words made for immediates whose address was wanted."""
        while self._constants:
            self._heap.release(self._constants.popitem()[1])

    def _maker(self, shape: _Shape) -> Callable[..., Step]:
        maker = self._makers.get(shape)
        if maker is None:
            scope: dict[str, Any] = {}
            exec(_compiled(shape), self._environment, scope)
            maker = self._makers[shape] = scope["make"]
        return maker

    def _immediate(self, role: OperandRole, value: int, types: list[int]) -> float:
        """Return an immediate as the step reads it."""
        if role.is_storage:
            return self.constant(value)
        if role.type == "D":
            return types[value] if 0 <= value < len(types) else 0
        kind = TYPES[role.type].kind
        if kind in ("pointer", "address"):
            return value & 0xFFFFFFFF
        if kind == "float":
            return float(value)
        return value & 0xFF if role.type == "B" else value

    def constant(self, value: int) -> int:
        """Return the address of a word that holds an immediate."""
        if value not in self._constants:
            ref = self._heap.new_object(STACK, 8)
            self._heap.set_word(ref, value)
            self._constants[value] = ref
        return self._constants[value]


def _operand(instruction: Instruction, op: Op, name: str) -> Operand:
    """Return an operand; the destination stands in for the middle one of most instructions."""
    operand = instruction.operand(name)
    role = op.role(name)
    if name == "m" and operand.mode is Mode.NONE and role is not None:
        destination = op.role("d")
        if role.optional and destination is not None and destination.type == role.type:
            return instruction.destination
    return operand
