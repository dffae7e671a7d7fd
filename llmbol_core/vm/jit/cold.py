"""The native interpreter: runs decoded instructions, switches processes, enters machine code.

Each opcode has one handler, a function of

    %m the arena   %s the process's record   %ip the instruction (``decoded.py``)
    %f the frame   %d the module data        %q how many instructions may still run

that does the instruction's work and continues with the next one's handler. What an instruction does
is emitted by the same functions as for compiled regions; only where its operands are is looked up
as it runs. A guard that fails hands the instruction to Python, before it has changed anything.

What all this needs is in the record or in the machine's words whenever a handler leaves: the
program counter, and how many instructions have run. The frame is there as soon as it changes.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from llmbol_core.vm import traps
from llmbol_core.vm.isa import OPS, PARAMETERS, Effect, Mode, Op, OperandRole
from llmbol_core.vm.jit import careful, decoded
from llmbol_core.vm.jit.burial import BURIAL
from llmbol_core.vm.jit.communication import PYTHON
from llmbol_core.vm.jit.components import CORE, OF_HEAP, OPCODES, needed
from llmbol_core.vm.jit.dispatch import DISPATCH, INSTRUCTION, WAYS, way_to
from llmbol_core.vm.jit.emitter import Emitter, llvm_type
from llmbol_core.vm.jit.guarded import GUARDED
from llmbol_core.vm.jit.hostcode import HOSTED, TEXTS, load_hosted
from llmbol_core.vm.jit.library import SHARED_NAMES
from llmbol_core.vm.jit.lowering.expressions import lower_meaning
from llmbol_core.vm.jit.lowering.lowerer import (
    LOWERINGS,
    functions_text,
    handlers_text,
    load_lowerings,
    with_helpers,
)
from llmbol_core.vm.jit.lowering.operands import Array, Place, array_at
from llmbol_core.vm.jit.lowering.reals import lower_carefully, raised_room
from llmbol_core.vm.jit.runtime import BURY, OFTEN_CALLED, SHARED, UPKEEP, VALUE_READ, State, tag
from llmbol_core.vm.jit.trapping import TRAPPING, trapping
from llmbol_core.vm.jit.turns import HEAD, TURNS

_AT_NIL_ONLY = frozenset({
    "headb", "headf", "headl", "headp", "headw", "lena", "lenc", "movp", "tail",
})  # fmt: skip


def _traps_at_nil_only(op: Op) -> bool:
    """Whether an instruction that writes behind nil cannot trap for another reason before."""
    if op.meaning is None:
        return op.mnemonic in _AT_NIL_ONLY
    calls = (node.func for node in ast.walk(op.meaning) if isinstance(node, ast.Call))
    return not {"quo", "rem", "power"} & {ast.unparse(name) for name in calls}


class ColdInstruction:
    """A stand-in for an instruction whose operands are not known yet."""

    def __init__(self, op: Op) -> None:
        self.op = op


class ColdLowerer(Emitter):
    """Emits the handler of one opcode."""

    def __init__(
        self, op: Op, name: str = "", otherwise: str = "@python", is_careful: bool = False
    ) -> None:
        super().__init__()
        self.instruction = ColdInstruction(op)
        self._name, self._otherwise = name or f"op_{op.mnemonic}", otherwise
        self._guards: dict[str, str] = {}
        self._is_careful = is_careful

    def text(self) -> str:
        """Return the whole function."""
        op = self.instruction.op
        self.lines.append("start:")
        if self._is_careful:
            self.emit(raised_room())
        if op.meaning is not None:
            self._lower_meaning()
        else:
            emit: Callable[..., None] = COLD.get(op.mnemonic) or LOWERINGS[op.mnemonic]
            emit(self)
        if not self.lines[-1].lstrip().startswith(("ret ", "br ", "unreachable")):
            self.next()
        for trap, label in self._guards.items():
            self.begin(label)
            self.tail(trapping(trap) if trap else self._otherwise)
        body = "\n".join(self.lines)
        return f"define internal fastcc i64 @{self._name}({HEAD}) {{\n{body}\n}}\n"

    def _lower_meaning(self) -> None:
        op = self.instruction.op
        assert op.meaning is not None
        values = {name: self._parameter(name) or self.read(name) for name, _ in op.reads}
        lower = lower_carefully if self._is_careful else lower_meaning
        if op.effect is not Effect.BRANCH:
            target = self.target("d")
            self.store(target, op.result, lower(op.meaning, op, values, self))
            return
        result = lower(op.meaning, op, values, self)
        yes, no = self.label(), self.label()
        self.branch(result, yes, no)
        self.begin(yes)
        self.go(self.read_label())
        self.begin(no)

    def _parameter(self, name: str) -> str:
        if name not in PARAMETERS:
            return ""
        pointer = self.value(f"getelementptr i8, ptr %f, i64 {PARAMETERS[name]}")
        return self.value(f"load i32, ptr {pointer}, align 4")

    # Where control goes

    def guard(self, condition: str, trap: str = "") -> None:
        """Leave the instruction to Python, or raise an exception, if a condition holds."""
        go_on = self.label()
        leave = self._guards.setdefault(trap, f"x{len(self._guards)}")
        self.branch(condition, leave, go_on, rare=True)
        self.begin(go_on)

    def trap_if(self, condition: str, trap: str) -> None:
        """Raise an exception if a condition holds."""
        self.guard(condition, trap)

    def tail(self, function: str, **changed: str) -> None:
        """Continue in another function of the same kind, with some of the values changed."""
        names = {name: changed.get(name, f"%{name}") for name in ("m", "s", "ip", "f", "d", "q")}
        kinds = {"q": "i64"}
        passed = ", ".join(f"{kinds.get(name, 'ptr')} {value}" for name, value in names.items())
        result = self.value(f"musttail call fastcc i64 {function}({passed})")
        self.emit(f"ret i64 {result}")

    def next(self) -> None:
        """Continue with the next instruction."""
        self.go(self.value(f"getelementptr i8, ptr %ip, i64 {decoded.SIZE}"))

    def go(self, ip: str, f: str = "%f", d: str = "%d") -> None:
        """Continue with an instruction, as this one is done."""
        left = self.value("sub i64 %q, 1")
        go_on, over = self.label(), self.label()
        self.branch(self.value(f"icmp slt i64 {left}, 1"), over, go_on, rare=True)
        self.begin(over)
        self.tail("@slice_over", ip=ip, f=f, d=d, q=left)
        self.begin(go_on)
        self.run(ip, f=f, d=d, q=left)

    def run(self, ip: str, at: int = decoded.HANDLER, **changed: str) -> None:
        """Run the handler of an instruction."""
        where = self.value(f"getelementptr i8, ptr {ip}, i64 {at}") if at else ip
        self.tail(self.value(f"load ptr, ptr {where}"), ip=ip, **changed)

    def choose(self, value: str, *labels: str) -> None:
        """Go to the block with the number of a value; the last one is for all others."""
        cases = " ".join(f"i32 {n}, label %{label}" for n, label in enumerate(labels[:-1]))
        self.emit(f"switch i32 {value}, label %{labels[-1]} [{cases}]")

    # Operands

    def operand(self, role: OperandRole) -> int:
        """Return the number of an operand."""
        return "smd".index(role.place)

    def _pointer(self, name: str, trap: str = "") -> str:
        """Return where the operand at a place lies; leave, or trap, if its pointer is nil."""
        where = f"ptr %m, ptr %ip, ptr %f, ptr %d, i64 {'smd'.index(name)}"
        pointer = self.value(f"call ptr @operand({where})")
        self.guard(self.value(f"icmp eq ptr {pointer}, null"), trap)
        return pointer

    def read(self, name: str) -> str:
        """Return the value of the operand at a place s, m or d."""
        role = self.instruction.op.role(name)
        assert role is not None
        # What is read through nil traps, unless a number of a type is found to be none before.
        has_types = any(other.type == "D" for other in self.instruction.op.operands)
        trap = "" if has_types else traps.NIL_DEREFERENCE
        return self.load(Place(self._pointer(name, trap), ""), role.type)

    def array(self, name: str) -> Array:
        """Return the array that is read at a place."""
        return array_at(self, self.at(self.read(name)))

    def target(self, name: str) -> Place:
        """Return where the operand that is written lies."""
        is_sure = _traps_at_nil_only(self.instruction.op) and not self._is_careful
        trap = traps.NIL_DEREFERENCE if is_sure else ""
        return Place(self._pointer(name, trap), "")

    def address(self, name: str) -> str:
        """Return the address of the operand at a place."""
        return self.address_of(self._pointer(name))

    def address_of_value(self, name: str) -> str:
        """Return the address of the operand at a place, which it is itself for a constant."""
        at = "smd".index(name)
        mode = self.value(f"getelementptr i8, ptr %ip, i64 {decoded.MODES + at}")
        mode = self.value(f"load i8, ptr {mode}")
        is_constant = self.value(f"icmp eq i8 {mode}, {Mode.IMMEDIATE:d}")
        own = self.value(f"getelementptr i8, ptr %ip, i64 {decoded.OPERANDS + 8 * at}")
        constant = self.value(f"load i32, ptr {own}")
        return self.value(f"select i1 {is_constant}, i32 {constant}, i32 {self.address(name)}")

    def address_of(self, pointer: str) -> str:
        """Return the address in the arena that a pointer leads to."""
        there = self.value(f"ptrtoint ptr {pointer} to i64")
        start = self.value("ptrtoint ptr %m to i64")
        return self.value(f"trunc i64 {self.value(f'sub i64 {there}, {start}')} to i32")

    def read_label(self) -> str:
        """Return the instruction that the destination is."""
        field = self.value(f"getelementptr i8, ptr %ip, i64 {decoded.OPERANDS + 16}")
        return self.value(f"load ptr, ptr {field}")

    def load(self, place: Place, letter: str) -> str:
        """Return the value at a place."""
        return self.value(
            f"load {llvm_type(letter)}, ptr {place.pointer}, align 1{tag(place.kind)}"
        )

    def store(self, place: Place, letter: str, value: str) -> None:
        """Store a value at a place, without counting references."""
        kind = tag(place.kind)
        self.emit(f"store {llvm_type(letter)} {value}, ptr {place.pointer}, align 1{kind}")

    def give(self, place: Place, ref: str) -> None:
        """Store a reference that is counted already, and release the one that was there."""
        old = self.load(place, "P")
        self.store(place, "P", ref)
        self.emit(f"call void @release(ptr %m, ptr %s, i32 {old})")

    def at(self, address: str, offset: int = 0) -> str:
        """Return the pointer for an address in the arena, and what is added to it."""
        pointer = self.value(f"call ptr @at(ptr %m, i32 {address})")
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    # The record

    def state_word(self, word: State) -> str:
        """Return a pointer to a word of the record."""
        return self.value(f"getelementptr i64, ptr %s, i64 {word:d}")

    def get(self, word: State, kind: str = "i64") -> str:
        """Return a word of the record."""
        return self.value(f"load {kind}, ptr {self.state_word(word)}")

    def set(self, word: State, value: str) -> None:
        """Store a word of the record, given as 32 or, if it is a pointer, as 64 bits."""
        self.emit(
            f"store i64 {self.value(f'zext i32 {value} to i64')}, ptr {self.state_word(word)}"
        )


_Cold = Callable[[ColdLowerer], None]
COLD: dict[str, _Cold] = {}
"""The emitters of handlers for instructions that a compiled region treats differently."""


def cold(*mnemonics: str) -> Callable[[_Cold], _Cold]:
    """Register a function as the emitter of the handlers of some instructions."""

    def register(function: _Cold) -> _Cold:
        for mnemonic in mnemonics:
            COLD[mnemonic] = function
        return function

    return register


_NAMES: tuple[Callable[[Op], str], ...] = (lambda op: op.mnemonic, careful.handler_name)
_RET = next(op for op in OPS if op.mnemonic == "ret")
_SPECIAL = ("python", "undecoded", "count", "enter", "guarded")
_DECLINES = {"alternative": PYTHON, "collect": -1, "list_free": -1}
"""What functions of ``UPKEEP`` return, if not 0, when they have done nothing."""


_OWN_BURY = "bury_at_first"
"""What the core has for ``BURY`` until that is compiled well."""


def handled() -> Iterator[Op]:
    """Yield the opcodes that the native interpreter knows."""
    load_lowerings()
    for module in ("lower_cold", "lower_waiting"):
        importlib.import_module(f"llmbol_core.vm.jit.{module}")
    for op in OPS:
        if op.expression is not None or op.mnemonic in COLD or op.mnemonic in LOWERINGS:
            yield op


def _core_functions() -> dict[str, str]:
    """Return the functions of the core by the names of handlers and, after those, of the shared.

    In place of shared functions of other components there are some that decline.
    """
    apart = {mnemonic for mnemonics in OPCODES.values() for mnemonic in mnemonics}
    own = [op.mnemonic for op in handled() if op.mnemonic not in apart]
    found = {name: name for name in _SPECIAL} | {name: f"op_{name}" for name in own}
    shared = {name: name for name in OFTEN_CALLED}
    shared |= {name: _declining(_DECLINES.get(name, 0)) for name in (*UPKEEP, VALUE_READ)}
    shared[BURY] = _OWN_BURY
    shared |= {name: name for name in WAYS}
    return found | {SHARED + name: function for name, function in shared.items()}


def _declining(value: int) -> str:
    return f"decline_{value & 3}"


def _core_text() -> str:
    """Return the core of the interpreter in LLVM's language.

    Its functions are ``run`` and ``handlers``, which stores the addresses of ``_core_functions``.
    """
    functions = _core_functions()
    parts = [INSTRUCTION, DISPATCH, TURNS, GUARDED, TRAPPING]
    parts += [ColdLowerer(op).text() for op in handled() if op.mnemonic in functions]
    parts.append(ColdLowerer(_RET, "op_leave", "@tell_return").text())
    parts.append(BURIAL.replace(f"@{BURY}(", f"@{_OWN_BURY}("))
    parts += [
        f"define internal i32 @{_declining(value)}() {{\n ret i32 {value}\n}}"
        for value in sorted({0, *_DECLINES.values()})
    ]
    parts.append(handlers_text(functions.values()))
    return with_helpers(*parts, also=OFTEN_CALLED, elsewhere=(*UPKEEP, VALUE_READ))


def _handlers_text(names: Iterable[str]) -> str:
    """Return handlers of instructions as a component, in LLVM's language."""
    known = list(handled())
    ops, careful_ops = ({name(op): op for op in known} for name in _NAMES)
    parts = [INSTRUCTION]
    for name in names:
        op = ops.get(name) or careful_ops[name]
        parts.append(ColdLowerer(op, f"op_{name}", is_careful=name not in ops).text())
    parts.append(handlers_text(f"op_{name}" for name in names))
    text = with_helpers(*parts, elsewhere=SHARED_NAMES)
    return "".join([text, *(way_to(name) for name in WAYS if f"@{name}(" in text)])


def _hosted() -> tuple[Mapping[str, str], list[str]]:
    """Return functions by the names of built-in modules' functions, and what else they need."""
    load_hosted()
    return HOSTED, [text if isinstance(text, str) else text() for text in TEXTS]


def names_in(component: str) -> list[str]:
    """Return the names of the handlers and functions of a component, as ``handlers`` stores them.

    Names of shared functions begin with ``SHARED``.
    """
    if component == CORE:
        return list(_core_functions())
    if component in OPCODES:
        return list(OPCODES[component])
    if component in UPKEEP:
        both = (component, VALUE_READ) if component == "read_real" else (component,)
        return [SHARED + name for name in both]
    if component == "careful":
        return [careful.handler_name(op) for op in careful.handled()]
    return sorted(name for name in _hosted()[0] if component in needed(name))


def text_of(component: str) -> str:
    """Return a component in LLVM's language: what it holds, and ``handlers``."""
    if component == CORE:
        return _core_text()
    names = names_in(component)
    if component in OPCODES or component == "careful":
        return _handlers_text(names)
    if component in OF_HEAP:
        return functions_text([component])
    functions, given = _hosted()
    names = [functions.get(name, name.removeprefix(SHARED)) for name in names]
    return functions_text(names, given)
