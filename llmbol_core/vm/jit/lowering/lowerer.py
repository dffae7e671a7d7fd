"""One region as machine code: frame slots in registers, ways in and out, scalar instructions.

A region becomes up to three functions, each of which takes the arena %m, the ``State`` %s, the
frame's address %fp and how many instructions may still run, %q, and returns what is left of that::

    i64 @o<pc>(%m, %s, %fp, %q, %entry)      begins at any entry, with the slots in memory
    {i64, T} @r<pc>(%m, %s, %fp, %q, ...)    begins at the start; arguments and result are values
    i64 @f<pc>(%m, %s, %fp, %q)              begins at the start, with the frame in memory

``LEFT`` means that the process has left machine code: the state then says where it is.
Code that leaves a function before its end writes the slots back, and the frames that were never
made; its callers on the host's stack do the same and return too, so that the interpreter can
continue. Every trap is such a way out, at the instruction that traps and before it has changed
anything. Instructions are counted block by block, as the interpreter counts them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Sequence

from llmbol_core.vm.arena import KIND, WORK
from llmbol_core.vm.isa import PARAMETERS, Effect, Mode
from llmbol_core.vm.jit.decoded import GUARDS
from llmbol_core.vm.jit.guarding import row_offset, wanted
from llmbol_core.vm.jit.loops import Loop
from llmbol_core.vm.jit.lowering.expressions import lower_meaning
from llmbol_core.vm.jit.lowering.loop import limit_loop, lower_unchecked
from llmbol_core.vm.jit.lowering.reals import lower_carefully
from llmbol_core.vm.jit.lowering.ways import Ways
from llmbol_core.vm.jit.runtime import State, tag
from llmbol_core.vm.module import Operand
from llmbol_core.vm.remains import MARKED
from llmbol_core.vm.steps import takes
from llmbol_core.vm.verification.guards import Guard, Of

_LOWERED_IN = tuple(
    f"llmbol_core.vm.jit.lowering.{what}"
    for what in ("control", "call", "channel", "heap", "link", "list", "storage", "text")
)
"""The modules in which instructions that are not scalar are lowered."""
_RUNTIME_IN = tuple(
    f"llmbol_core.vm.jit.{what}"
    for what in ("alternatives", "blocks", "children", "communication", "garbage", "guarding",
                 "holes", "hostcode", "outliving", "pacing", "raising", "readings",
                 "reals", "spawning", "stacks", "texts", "values")
)  # fmt: skip
"""The modules with functions of the runtime that are written in Python."""

_HEADER = tag("header")
Lowering = Callable[["Lowerer"], None]
LOWERINGS: dict[str, Lowering] = {}
"""The emitter of each mnemonic that has no meaning."""


def lowering(*mnemonics: str) -> Callable[[Lowering], Lowering]:
    """Register a function as the emitter of some instructions."""

    def register(function: Lowering) -> Lowering:
        for mnemonic in mnemonics:
            LOWERINGS[mnemonic] = function
        return function

    return register


class Lowerer(Ways):
    """Emits a function of one region."""

    def text(self) -> str:
        """Return the whole function."""
        region = self.region
        self._begin()
        self._lower_all(region.pcs, "b")
        for loop in self.loops:
            self._lower_copy(loop)
        self.copy = None
        self._finish()
        return f"{self._head()} {{\n" + "\n".join(self.lines) + "\n}\n"

    def _lower_all(self, pcs: Sequence[int], letter: str) -> None:
        """Emit instructions in blocks whose names begin with a letter."""
        for pc in pcs:
            self.pc, self.instruction = pc, self.region.code.instructions[pc]
            if pc in self.region.leaders:
                if not self._is_closed():
                    self.pc -= 1
                    self.jump(self.block_of(pc))
                    self.pc += 1
                self.begin(f"{letter}{pc}")
                self._begin_block(pc)
            if not self._is_closed():
                self._lower()
        if not self._is_closed():
            self.emit("unreachable")

    def _begin_block(self, pc: int) -> None:
        loop = self.copy
        if loop is not None and pc == loop.head:
            slot = self.value(f"load i32, ptr %s{loop.slot}")
            end = self.value(f"load i32, ptr %end{pc}")
            goes_on = self.value(f"icmp {'slt' if loop.step > 0 else 'sgt'} i32 {slot}, {end}")
            inside = self.label()
            self.branch(goes_on, inside, f"b{pc}")
            self.begin(inside)
        self._count(-self._left[pc])

    def _lower_copy(self, loop: Loop) -> None:
        """Emit the copy of a loop without checks, and the decision how far it may run."""
        self.copy, self.pc = None, loop.head
        self.begin(f"p{loop.head}")
        end, is_worth_it = limit_loop(self, loop)
        self.emit(f"store i32 {end}, ptr %end{loop.head}")
        self.branch(is_worth_it, f"u{loop.head}", f"b{loop.head}")
        self.copy = loop
        self._lower_all(loop.pcs, "u")

    def go_to(self, target: int) -> None:
        """Go to an instruction; a jump backwards requires that instructions are left."""
        if target <= self.pc and self.copy is None:
            self.check_budget(target)
        self.jump(self.block_of(target))

    # Instructions

    def _lower(self) -> None:
        op, loop = self.instruction.op, self.copy
        if self.pc in self.region.native:
            self._check()
        if loop is not None and self.pc == loop.test:
            self.jump(self.block_of(next(t for t in self._targets() if t in loop.pcs)))
        elif loop is not None and lower_unchecked(self, loop):
            return
        elif self.pc not in self.region.native or not self._is_usual():
            self.guard("true")
            self.emit("unreachable")
        elif op.meaning is not None:
            self._lower_meaning()
        else:
            LOWERINGS[op.mnemonic](self)

    def _check(self) -> None:
        """Leave if an object is not what the instruction assumes it to be."""
        for index, guard in enumerate(self.region.code.guards.get(self.pc, ())):
            asked = wanted(guard)
            assert asked is not None
            ref = self.load(self.place(guard.where, "P"), "P")
            check, go_on = self.label(), self.label()
            self.branch(self.value(f"icmp eq i32 {ref}, -1"), go_on, check)
            self.begin(check)
            if guard.of is Of.LINK:
                self._check_link(guard, ref, index)
            elif guard.of is Of.MARKED:
                work = self.value(f"load i32, ptr {self.at(ref, WORK)}, align 4{_HEADER}")
                self.must(self.value(f"and i32 {work}, {MARKED}"))
            elif asked.kind:
                kind = self.value(f"load i32, ptr {self.at(ref, KIND)}, align 4{_HEADER}")
                self.guard(self.value(f"icmp ne i32 {kind}, {asked.kind}"))
            if asked.at != 1:
                number = self.value(f"load i32, ptr {self.at(ref, asked.at)}, align 4{_HEADER}")
                sizes = f"i32 {asked.least}, i32 {asked.most}"
                masks = f"i64 {asked.pointers}, i64 {asked.numbers}"
                given = f"ptr %m, ptr %s, i32 {number}, {sizes}, {masks}"
                self.guard(self.value(f"call i1 @misfits({given})"))
            self.jump(go_on)
            self.begin(go_on)

    def _check_link(self, guard: Guard, handle: str, index: int) -> None:
        """Leave if a link is not one of the last that passed its guard."""
        code = self.value(f"load ptr, ptr {self.state_word(State.CODE)}")
        where = self.value(f"getelementptr i8, ptr {code}, i64 {GUARDS}")
        table = self.value(f"load ptr, ptr {where}")
        entry = self.value(f"getelementptr i64, ptr {table}, i64 {self.pc}")
        block = self.value(f"load i64, ptr {entry}")
        self.guard(self.value(f"icmp eq i64 {block}, 0"))
        row = self.value(f"add i64 {block}, {row_offset(index)}")
        given = f"ptr %m, ptr %s, i64 {row}, i32 {handle}, i32 {self.read('m')}"
        known = self.value(f"call i32 @known_link({given})")
        self.guard(self.value(f"icmp eq i32 {known}, 0"))

    def _targets(self) -> list[int]:
        return self.region.code.targets(self.pc)

    def _is_usual(self) -> bool:
        """Whether the operands are such that the instruction can run at all."""
        for role in self.instruction.op.operands:
            if role.place in PARAMETERS:
                continue
            if not takes(self.instruction.op, role, self.operand(role).mode):
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
        is_careful = self.region.code.is_careful and op.computes_reals
        lower = lower_carefully if is_careful else lower_meaning
        result = lower(op.meaning, op, values, self)
        if target is not None:
            self.store(target, op.result, result)
            return
        label = self.instruction.destination.value
        if label > self.pc:
            self.branch(result, self.block_of(label), self.block_of(self.pc + 1))
            return
        yes = self.label()
        self.branch(result, yes, self.block_of(self.pc + 1))
        self.begin(yes)
        self.go_to(label)


def load_lowerings() -> None:
    """Import the modules that register in ``LOWERINGS``."""
    for module in _LOWERED_IN:
        importlib.import_module(module)


def load_runtime() -> None:
    """Import the functions of the runtime."""
    for module in _RUNTIME_IN:
        importlib.import_module(module)


def with_helpers(*parts: str, also: Iterable[str] = (), elsewhere: Sequence[str] = ()) -> str:
    """Return the text of functions, of those of the runtime that they call, and of some more.

    Those named ``elsewhere`` are called through the table of ``SHARED_NAMES`` instead.
    """
    from llmbol_core.vm.jit import guarding, helpers, library, linkage
    from llmbol_core.vm.jit.burial import BURIAL
    from llmbol_core.vm.jit.lowering import expressions, reals
    from llmbol_core.vm.jit.runtime import BURY

    load_runtime()
    buried = library.stub(BURY) if BURY in elsewhere else BURIAL
    helping = [helpers.ALLOCATING, buried, guarding.MISFITS, linkage.LINKAGE, expressions.HELPERS]
    if any(reals.PREFIX in part for part in parts):
        helping.append(reals.helpers())
    return _with_called([*helping, *parts], also, elsewhere)


def functions_text(names: Sequence[str], given: Iterable[str] = ()) -> str:
    """Return the text of functions that work by themselves, and ``handlers``.

    Only to free objects they call another component. ``given`` is text that they need.
    """
    from llmbol_core.vm.jit import library
    from llmbol_core.vm.jit.burial import BURIAL
    from llmbol_core.vm.jit.guarding import MISFITS
    from llmbol_core.vm.jit.helpers import ALLOCATING
    from llmbol_core.vm.jit.runtime import BURY

    load_runtime()
    elsewhere = () if BURY in names else (BURY,)
    buried = library.stub(BURY) if elsewhere else BURIAL
    parts = [ALLOCATING, buried, MISFITS, *given, handlers_text(names)]
    return _with_called(parts, names, elsewhere)


def handlers_text(names: Iterable[str]) -> str:
    """Return a function that stores the addresses of others in a table."""
    stores = "".join(
        f" %p{n} = getelementptr ptr, ptr %t, i64 {n}\n store ptr @{name}, ptr %p{n}\n"
        for n, name in enumerate(names)
    )
    return f"define void @handlers(ptr %t) {{\n{stores} ret void\n}}\n"


def _with_called(parts: Sequence[str], also: Iterable[str] = (), absent: Sequence[str] = ()) -> str:
    from llmbol_core.vm.jit import helpers, library, pacing, source
    from llmbol_core.vm.jit.runtime import METADATA

    text = "\n".join([helpers.HELPERS, METADATA, pacing.CLOCK, *parts])
    called = {n for n in (*_CALL.findall(text), *also) if n in source.FUNCTIONS}
    return f"{text}\n{library.texts(called, absent)}"


_CALL = re.compile(r"@(\w+)\(")
