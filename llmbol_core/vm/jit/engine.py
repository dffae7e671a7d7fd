"""The fast engine: an interpreter that moves to machine code where a program stays long.

Steps at the starts of functions and at loop heads are watched. One that has run often enough is
replaced by an entry to machine code, which runs until an instruction that only the interpreter
knows, a trap, the end of the slice or the function's return; the process is then wherever it says,
and the interpreter goes on from there. Nothing lives on the host's stack between two entries, so
that everything else (other processes, exceptions, limits, debugging) is as it always was.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.vm import handlers_control
from llmbol_core.vm.arena import HEADER, NIL
from llmbol_core.vm.handlers_control import SWITCH, YIELD
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.host import HostModule
from llmbol_core.vm.interpreter import Interpreter, Link, Linked
from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.jit.region import Code, Region, frame_size
from llmbol_core.vm.jit.runtime import LinkKind, Slow, State, Status
from llmbol_core.vm.jit.units import CompileStats, code_of, compile_unit, unit_of
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.objects import LINKS
from llmbol_core.vm.process import TYPE

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process
    from llmbol_core.vm.steps import Step

NATIVE_SLICE = 1 << 21
"""Instructions of machine code that a process may run before the next one's turn."""
HOT = 400
"""How often a step runs in the interpreter before its function is compiled."""
_ROOT_SIGNATURE = 0xA1D1FE48
"""Of fn(x: real): real."""

_TRIAL, _WORTH = 512, 24
"""Entries after which to judge one, and instructions that machine code must run for each."""

_Function = Callable[[int, int, int, int], int]


class Native:
    """What one machine has compiled of a module."""

    def __init__(self, loaded: LoadedModule, code: Code) -> None:
        self.loaded, self.code = loaded, code
        self.functions: dict[int, _Function] = {}
        self.regions: dict[int, Region] = {}
        self.types = array("I", loaded.types or [0])
        self.table = array("Q", bytes(8 * len(code.instructions)))
        self.libraries: list[Any] = []


class Watch:
    """A step that counts how often it runs, and compiles its function when that is often enough."""

    __slots__ = ("count", "engine", "loaded", "pc", "plain", "steps")

    def __init__(self, engine: JitEngine, loaded: LoadedModule, steps: list[Step], pc: int) -> None:
        self.engine, self.loaded, self.steps, self.pc = engine, loaded, steps, pc
        self.plain = steps[pc]
        self.count = 0

    def __call__(self, fp: int, mp: int) -> int:
        """Run the step, or the machine code that there now is for it."""
        self.count += 1
        if self.count > self.engine.threshold and self.engine.heat(self.loaded, self.pc, fp << 2):
            return self.steps[self.pc](fp, mp)
        return self.plain(fp, mp)


class Entry:
    """A step that enters machine code."""

    __slots__ = ("engine", "function", "left", "native", "number", "pc", "plain", "size", "used")

    def __init__(
        self, engine: JitEngine, native: Native, region: Region, pc: int, plain: Step
    ) -> None:
        self.engine, self.native, self.pc, self.plain = engine, native, pc, plain
        self.function = native.functions[region.start]
        self.number = region.entries[pc]
        self.size = region.size if self.number == 0 else 0
        self.left, self.used = _TRIAL, 0

    def __call__(self, fp: int, mp: int) -> int:
        """Enter the machine code, unless the interpreter is to run this instruction."""
        engine = self.engine
        if engine.bypass == self.pc:
            engine.bypass = -1
            return self.plain(fp, mp)
        if self.size and engine.process.stack.top != (fp << 2) + self.size:
            return self.plain(fp, mp)
        return engine.enter(self, fp << 2, mp << 2)


class JitEngine(Interpreter):
    """Runs processes of one machine; hot functions as machine code."""

    def __init__(self, machine: InfernoVM, channels: Channels, threshold: int = HOT) -> None:
        super().__init__(machine, channels)
        self.threshold = threshold
        self.bypass = -1
        """The pc of an instruction that the interpreter must run now, though it is an entry."""
        self.compiled = CompileStats()
        self._natives: dict[LoadedModule, Native] = {}
        self._base = self.heap.base
        self._state = array("q", bytes(8 * len(State)))
        self._state_address = self._state.buffer_info()[0]
        self._maps = array("I")
        self._links = array("Q")
        self._records: dict[int, array[int]] = {}
        self._mapped = 0
        self._native_left = self._native_used = 0
        self._error: BaseException | None = None
        self._slow = ctypes.PYFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)(
            self._on_slow
        )
        address = ctypes.cast(self._slow, ctypes.c_void_p).value
        assert address is not None
        self._state[State.SLOW] = address

    # Running

    def run(self, process: Process, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        """Run a process for some instructions, more in machine code; return how many ran."""
        left = self.scheduler.left
        self._native_left = NATIVE_SLICE if left is None else min(NATIVE_SLICE, left)
        self._native_used = 0
        used, goes_on = super().run(process, budget, one_stretch)
        return used + self._native_used, goes_on

    def enter(self, entry: Entry, fp: int, mp: int) -> int:
        """Run machine code from an entry on, and leave the process where that ends."""
        process, state, native = self.process, self._state, entry.native
        if self._native_left <= 0:
            process.pc = entry.pc
            return YIELD
        stack = process.stack
        if len(self.heap.types) != self._mapped:
            self._map_types()
        state[State.BUDGET] = budget = self._native_left
        state[State.TOP], state[State.LIMIT], state[State.BASE] = stack.top, stack.limit, stack.base
        state[State.MP] = mp
        state[State.HANDLE] = process.handle
        state[State.LINKS], state[State.LINK_COUNT] = self._links.buffer_info()
        state[State.TYPES] = native.types.buffer_info()[0]
        state[State.FUNCTIONS] = native.table.buffer_info()[0]
        status = entry.function(self._base or 0, self._state_address, fp, entry.number)
        used = budget - state[State.BUDGET]
        self._native_left -= used
        self._native_used += used
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if status == Status.RETURNED:
            return self._return(fp)
        process.pc = pc = state[State.PC]
        process.fp = state[State.FP]
        stack.top = state[State.TOP]
        if state[State.HANDLE] != process.handle:
            self.enter_module(process, state[State.HANDLE])
        if status == Status.BUDGET:
            return YIELD
        if status == Status.INTERPRET:
            self.bypass = pc
            self._judge(entry, used)
        return SWITCH

    def _judge(self, entry: Entry, used: int) -> None:
        """Give up an entry behind which machine code does too little before it leaves again."""
        entry.used += used
        entry.left -= 1
        if entry.left:
            return
        if self.threshold and entry.used < _TRIAL * _WORTH:
            entry.native.loaded.steps[entry.pc] = entry.plain
        entry.left, entry.used = _TRIAL, 0

    def _return(self, fp: int) -> int:
        """Drop the frame of the function that was entered; its references are released."""
        heap, process = self.heap, self.process
        number = heap.pointers[(fp + TYPE) >> 2]
        for offset in heap.types[number].pointers:
            heap.pointers[(fp + offset) >> 2] = NIL
        process.fp = fp
        process.stack.top = fp + ((max(heap.types[number].size, 32) + 7) & ~7)
        then: int = handlers_control.ret(self, 0)
        return then

    def _on_slow(self, what: int, value: int) -> int:
        """Do for machine code what it cannot; what goes wrong is raised when it has returned."""
        try:
            if what == Slow.RELEASE:
                self.heap.release(value)
            elif what == Slow.FREE:
                self.heap.free(value)
            else:
                ref: int | None = self.heap.allocate(value - HEADER)
                return NIL if ref is None else ref
        except BaseException as error:  # noqa: BLE001 -- raised again by enter
            self._error = error
        return NIL

    def _map_types(self) -> None:
        """Tell machine code the sizes and pointers of all types of the heap."""
        types = self.heap.types
        maps = array("I", [0] * len(types))
        for number, (size, pointers) in enumerate(types):
            maps[number] = len(maps)
            maps.extend([size, len(pointers), *pointers])
        self._maps, self._mapped = maps, len(types)
        self._state[State.MAPS] = maps.buffer_info()[0]
        self._state[State.MAP_COUNT] = len(types)

    # Links

    def new_handle(self, data: int, linked: Linked) -> int:
        """Return a module handle, whose links machine code then knows."""
        ref = super().new_handle(data, linked)
        if self._natives:
            self._describe(self.heap.words[(ref + LINKS) >> 2])
        return ref

    def _forget(self, handle: int) -> None:
        number = self.heap.words[(handle + LINKS) >> 2]
        super()._forget(handle)
        if number in self._records:
            self._links[number] = 0
            del self._records[number]

    def _describe(self, number: int) -> None:
        """Tell machine code what the links of a handle lead to."""
        linked = self.linked[number]
        tables = [0, 0]
        if not isinstance(linked.module, HostModule):
            native = self._native(linked.module)
            tables = [native.types.buffer_info()[0], native.table.buffer_info()[0]]
        record = array("q", [len(linked.links), *tables])
        for link in linked.links:
            size = frame_size(self.heap.types[link.type].size)
            record.extend([_kind(link), link.type, size])
        self._links.extend([0] * (number + 1 - len(self._links)))
        self._links[number] = record.buffer_info()[0]
        self._records[number] = record

    # Watching

    def install(self, module: LoadedModule, steps: list[Step], pc: int, step: Step) -> None:
        """Put the step of an instruction in its place, and watch where it leads."""
        present = steps[pc]
        if isinstance(present, Watch | Entry):
            present.plain = step
        else:
            steps[pc] = step
        if self._base is None or not module.is_verified:
            return
        instruction = module.module.instructions[pc]
        target = _watched(instruction, pc)
        if target is not None and 0 <= target < len(steps):
            self._watch(module, steps, target)

    def _watch(self, module: LoadedModule, steps: list[Step], pc: int) -> None:
        if not isinstance(steps[pc], Watch | Entry):
            steps[pc] = Watch(self, module, steps, pc)

    def steps(self, module: LoadedModule) -> list[Step]:
        """Return the steps of a module's instructions; exported functions are watched."""
        steps = super().steps(module)
        if self._base is not None and module.is_verified:
            for export in module.module.exports:
                if 0 <= export.pc < len(steps):
                    self._watch(module, steps, export.pc)
        return steps

    # Compiling

    def heat(self, loaded: LoadedModule, pc: int, fp: int) -> bool:
        """Compile the function at a pc; false if it is not to be."""
        steps = loaded.steps
        if not self._natives:
            self._native(loaded)
            for number in self.linked:
                self._describe(number)
        native = self._native(loaded)
        frame = self.heap.types[self.heap.word(fp + TYPE)]
        region = self._containing(native, pc) or _region(native.code, pc, frame)
        is_there = region.start in native.regions or self._compile(native, region)
        if not is_there or not isinstance(steps[pc], Entry):
            self._unwatch(steps, pc)
            return False
        return True

    @staticmethod
    def _unwatch(steps: list[Step], pc: int) -> None:
        watch = steps[pc]
        if isinstance(watch, Watch):
            steps[pc] = watch.plain

    def _native(self, loaded: LoadedModule) -> Native:
        """Return what is compiled of a module, so far."""
        native = self._natives.get(loaded)
        if native is None:
            native = self._natives[loaded] = Native(loaded, code_of(loaded.module))
        return native

    @staticmethod
    def _containing(native: Native, pc: int) -> Region | None:
        """Return the compiled region that can be entered at a pc."""
        for region in native.regions.values():
            if pc in region.entries:
                return region
        return None

    def _compile(self, native: Native, first: Region) -> bool:
        """Compile a region and what it calls; false if it is too long."""
        unit = unit_of(native.code, first)
        if unit is None:
            return False
        library = compile_unit(unit, self.compiled)
        native.libraries.append(library)
        for pc, region in unit.items():
            if pc not in native.regions:
                native.functions[pc] = _callable(library.addresses[f"e{pc}"])
                native.table[pc] = library.addresses[f"f{pc}"]
                native.regions[pc] = region
                self._install_entries(native, region)
        return True

    def _install_entries(self, native: Native, region: Region) -> None:
        steps = native.loaded.steps
        for pc in region.entries:
            present = steps[pc]
            if isinstance(present, Entry):
                continue
            plain = present.plain if isinstance(present, Watch) else present
            steps[pc] = Entry(self, native, region, pc, plain)


def _kind(link: Link) -> int:
    """Return a link's pc, or what it is instead."""
    if link.function is None:
        return link.pc if link.pc >= 0 else LinkKind.HOST
    is_root = link.function.signature == _ROOT_SIGNATURE and link.function.name == "sqrt"
    return LinkKind.SQUARE_ROOT if is_root else LinkKind.HOST


def _callable(address: int) -> _Function:
    from llmbol_core.native import llvm

    word, pointer = ctypes.c_uint32, ctypes.c_void_p
    return llvm.function(address, word, pointer, pointer, word, word)


def _region(code: Code, pc: int, frame: HeapType) -> Region:
    """Return the function that an instruction is part of, or what can be reached from there."""
    region = Region(code, code.function(pc), frame)
    return region if pc in region.entries else Region(code, pc, frame)


def _watched(instruction: Instruction, pc: int) -> int | None:
    """Return where an instruction leads that should be watched: back, or into a function."""
    label = instruction.destination
    if label.mode is not Mode.IMMEDIATE or not instruction.op.has_label:
        return None
    calls = instruction.op.effect is Effect.CALL or instruction.op.mnemonic == "spawn"
    return label.value if calls or label.value <= pc else None
