"""Profiling: how often each instruction runs, and what each function and each stack costs.

Costs are counted in instructions, so that they are the same in every run. The engine counts in the
steps themselves, and attributes each stretch of them that runs in one frame to its function. A call
of a built-in function is one instruction of its caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.process import CALLER, Process

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.steps import Step

DEEPEST = 100
"""Calls beyond so many that have not returned are one entry in the stacks."""


@dataclass(frozen=True)
class FunctionCost:
    """What a function cost: ``own`` instructions, and ``total`` with all that it called."""

    module: str
    function: str
    calls: int
    own: int
    total: int
    percent: float


@dataclass(frozen=True)
class InstructionCount:
    """How often an instruction ran."""

    module: str
    function: str
    pc: int
    source: str | None
    instruction: str
    count: int
    percent: float


@dataclass(frozen=True)
class Profile:
    """What a program cost: its functions, and the instructions that ran most often."""

    instructions: int
    processes: int
    functions: tuple[FunctionCost, ...]
    hottest: tuple[InstructionCount, ...]


class _Function(NamedTuple):
    """A function of a loaded module."""

    module: str
    name: str


class _Cost:
    """The cost of one function so far."""

    def __init__(self) -> None:
        self.calls = self.own = self.total = 0


class _Node:
    """A stack of functions: the one that runs on it, and what runs on top of it."""

    def __init__(self) -> None:
        self.own = 0
        self.above: dict[_Function, _Node] = {}

    def child(self, function: _Function) -> _Node:
        return self.above.setdefault(function, _Node())


class _Call(NamedTuple):
    """A call that has not returned, and when it began; a recursive one does not count again."""

    frame: int
    function: _Function
    node: _Node
    start: int
    is_outermost: bool


class _ProcessStack:
    """The calls of one process, and how many instructions it has run."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.active: set[_Function] = set()
        self.total = 0


class Profiler:
    """Collects what one machine runs. Set ``inspector`` before it does."""

    def __init__(self) -> None:
        self.inspector: Inspector
        self._costs: dict[_Function, _Cost] = {}
        self._root = _Node()
        self._stacks: dict[int, _ProcessStack] = {}
        self._counts: list[tuple[LoadedModule, list[int]]] = []

    def profile(self, most: int = 20) -> Profile:
        """Return what was counted: all functions, and so many instructions, by their cost."""
        for stack in self._stacks.values():
            while stack.calls:
                self._pop(stack)
        instructions = sum(cost.own for cost in self._costs.values())
        functions = [
            FunctionCost(f.module, f.name, c.calls, c.own, c.total, _percent(c.own, instructions))
            for f, c in self._costs.items()
        ]
        functions.sort(key=lambda f: (-f.own, f.module, f.function))
        hottest = self._hottest(most, instructions)
        return Profile(instructions, len(self._stacks), tuple(functions), hottest)

    def collapsed(self) -> Iterator[str]:
        """Yield each stack with its own cost, outermost function first, as flame graphs want it.

        ``Main.init;Main.work 120``
        """
        pending = [("", self._root)]
        while pending:
            path, node = pending.pop()
            if node.own:
                yield f"{path} {node.own}"
            for function, above in sorted(node.above.items(), reverse=True):
                name = f"{function.module}.{function.name}".replace(";", ":").replace(" ", "_")
                pending.append((f"{path};{name}" if path else name, above))

    def _hottest(self, most: int, instructions: int) -> tuple[InstructionCount, ...]:
        rows = [
            (count, at, pc)
            for at, (_, counts) in enumerate(self._counts)
            for pc, count in enumerate(counts)
            if count
        ]
        rows.sort(key=lambda row: (-row[0], row[1], row[2]))
        return tuple(self._row(*row, instructions) for row in rows[:most])

    def _row(self, count: int, at: int, pc: int, instructions: int) -> InstructionCount:
        loaded = self._counts[at][0]
        code, source = self.inspector.code(loaded), self.inspector.code(loaded).source(pc)
        return InstructionCount(
            loaded.module.name,
            code.function(pc).name,
            pc,
            None if source is None else str(source),
            code.text(pc),
            count,
            _percent(count, instructions),
        )

    # While the program runs

    def counted(self, module: LoadedModule, steps: list[Step]) -> list[Step]:
        """Return steps that count themselves and do what those given do."""
        counts = [0] * len(steps)
        self._counts.append((module, counts))

        def counting(pc: int) -> Step:
            def step(fp: int, mp: int) -> int:
                counts[pc] += 1
                return steps[pc](fp, mp)

            return step

        return [counting(pc) for pc in range(len(steps))]

    def attribute(self, process: Process, frame: int, instructions: int) -> None:
        """Attribute a stretch of instructions to the function whose frame a process was in."""
        stack = self._stacks[process.pid]
        call = stack.calls[-1]
        assert call.frame == frame
        stack.total += instructions
        call.node.own += instructions
        self._costs[call.function].own += instructions

    def enter(self, process: Process) -> None:
        """Find out in which call a process is, by its frame: a new one, or one that went on."""
        stack = self._stacks.setdefault(process.pid, _ProcessStack())
        calls, frame = stack.calls, process.fp
        if calls and calls[-1].frame == frame:
            return
        caller = self.inspector.machine.heap.pointer(frame + CALLER)
        while calls and calls[-1].frame not in (frame, caller):
            self._pop(stack)
        if not calls or calls[-1].frame != frame:
            self._push(stack, process)

    def _push(self, stack: _ProcessStack, process: Process) -> None:
        code = self.inspector.function(process)
        function = _Function(process.module.module.name, code.name)
        node = stack.calls[-1].node if stack.calls else self._root
        if len(stack.calls) < DEEPEST:
            node = node.child(function)
        is_outermost = function not in stack.active
        stack.active.add(function)
        stack.calls.append(_Call(process.fp, function, node, stack.total, is_outermost))
        self._costs.setdefault(function, _Cost()).calls += 1

    def _pop(self, stack: _ProcessStack) -> None:
        call = stack.calls.pop()
        if call.is_outermost:
            stack.active.remove(call.function)
            self._costs[call.function].total += stack.total - call.start


class ProfiledInterpreter(Interpreter):
    """The reference engine, which counts what it runs."""

    def __init__(self, machine: InfernoVM, channels: Channels, profiler: Profiler) -> None:
        self._profiler = profiler
        super().__init__(machine, channels)

    def run(self, process: Process, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        """Run a process for a number of instructions; return how many, and whether it goes on."""
        self.process = process
        used, goes_on = 0, process.fault is None or self._take_fault(process)
        while goes_on and used < budget:
            self._profiler.enter(process)
            frame = process.fp
            more, goes_on = super().run(process, budget - used, one_stretch=True)
            self._profiler.attribute(process, frame, more)
            used += more
            if one_stretch:
                break
        return used, goes_on

    def steps(self, module: LoadedModule) -> list[Step]:
        """Return the steps of a module's instructions; they count themselves."""
        return self._profiler.counted(module, super().steps(module))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
