"""The fast engine: processes run in native code, and Python does the rest.

The native interpreter (``cold.py``) runs decoded instructions, switches from process to process and
enters machine code where there is some. It returns to Python with a process at an instruction that
only Python can run, that is not decoded yet or that is worth compiling, when no process is ready,
and when others than processes are to run. Nothing lives on the host's stack then, so that
exceptions, limits, files and everything else that is rare work as in the reference engine.

Until a program has run for a while, and on machines that cannot have it, there is no native
interpreter; the reference engine then runs everything.
"""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import handlers_control
from llmbol_core.vm.arena import ASTRAY
from llmbol_core.vm.exceptions import levels
from llmbol_core.vm.host import HostFunction
from llmbol_core.vm.ieee import CAREFUL
from llmbol_core.vm.jit import careful, stretches
from llmbol_core.vm.jit.guarding import type_maps
from llmbol_core.vm.jit.linktables import LinkTables
from llmbol_core.vm.jit.natives import Natives
from llmbol_core.vm.jit.population import Population
from llmbol_core.vm.jit.records import NativeProcess
from llmbol_core.vm.jit.runtime import (
    MOST_SLICE,
    RECORD_WORDS,
    How,
    Machine,
    Reason,
    State,
    Survey,
)
from llmbol_core.vm.jit.startup import (
    STARTUP,
    WORTH_COMPILING,
    WORTH_LOADING,
    NativeInterpreter,
    may_run_long,
)
from llmbol_core.vm.jit.upkeep import Upkeep
from llmbol_core.vm.links import Linked
from llmbol_core.vm.objects import LINKS
from llmbol_core.vm.process import TYPE

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.jit.compiler import Compiler, CompileStats, Native
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process

HOT = 2000
"""How often an instruction runs in the native interpreter before its function is compiled."""
_DEPTH = 16
"""How many innermost frames are considered when noting where time is spent."""

# Used at each call of the host: looking up a member of an enumeration takes longer.
_LEFT, _FUEL, _CURRENT = Machine.LEFT, Machine.FUEL, Machine.CURRENT
_RELEASED, _FREED, _OUTPUT_COUNT = Machine.RELEASED, Machine.FREED, Machine.OUTPUT_COUNT
_SIGNALS = Machine.SIGNALS
_HOST_FRAME, _HOST_FUNCTION = Machine.HOST_FRAME, Machine.HOST_FUNCTION
_HOST, _PYTHON, _PREPARING = Reason.HOST, Reason.PYTHON, (Reason.DECODE, Reason.HOT)
_OLDEST, _ENDED, _PROCESSES = Machine.OLDEST, Machine.ENDED, Machine.PROCESSES
_COMPONENTS = {Survey.CYCLES: "collect", Survey.FREE: "list_free"}
_AGAIN, _NEXT, _CALLED = How.AGAIN, How.NEXT, How.CALLED


class JitEngine(Population):
    """Runs processes of one machine in native code."""

    def __init__(
        self, machine: InfernoVM, channels: Channels, threshold: int = HOT, at_once: bool = False
    ) -> None:
        super().__init__(machine, channels)
        self.threshold, self.at_once = threshold, at_once
        self._base = self.heap.base
        self._idle = array("q", bytes(8 * RECORD_WORDS))
        """Stands for a process when none is running."""
        self._idle[State.MACHINE] = self.machine_address
        self._idle_address = self._idle.buffer_info()[0]
        self._run: Callable[[int | None, int, int], int]
        self._words[Machine.END] = len(self.heap.bytes)
        self._signals = 0
        """The function that native code asks for signals; none while it shares Python's lock."""
        self._native: NativeInterpreter | None = None
        self._version = 0
        """Of the native interpreter's components, as the tables here know them."""
        given = threshold, self.heap.plain_type, self.constant, self.guarded, self.modules
        self._natives = Natives(*given)
        self._tables: LinkTables | None = None
        self._maps = array("I")
        self._mapped = self._offered = 0
        self._functions: list[HostFunction] = []
        """Functions of the host, by their numbers in links."""
        self._upkeep = Upkeep(self.heap, self._words, self._survey, self.may_wait)

    @cached_property
    def compiler(self) -> Compiler:
        """The compiler of this machine; most programs end before they need it."""
        from llmbol_core.vm.jit.compiler import Compiler

        return Compiler(self.at_once, lambda: self.scheduler.until)

    @property
    def compiled(self) -> CompileStats | None:
        """What has been compiled so far, if anything."""
        return self.compiler.stats if "compiler" in self.__dict__ else None

    # Processes

    def enter_module(self, process: Process, handle: int) -> None:
        """Make a process run code of a module, and tell native code."""
        super().enter_module(process, handle)
        if self._native is not None:
            self._place(process, self.module_of(handle))

    def _place(self, process: Process, module: LoadedModule) -> None:
        """Tell native code where the tables of a process's module are."""
        assert isinstance(process, NativeProcess)
        assert self._tables is not None
        record, is_careful = process.record, bool(process.floating & CAREFUL)
        native = self._natives.of(module, is_careful)
        record[State.LINKS] = self._tables.place(is_careful)
        record[State.TYPES], record[State.FUNCTIONS], record[State.CODE] = native.tables
        record[State.SHARED] = self._shared

    def adapt(self, process: Process) -> None:
        """Let a process go on as its word says that tells how it computes with reals."""
        if self._native is not None:
            self._place(process, process.module)

    # Running

    def run(self, process: Process, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        """Run processes, this one first; return how many instructions ran, and whether to continue.

        At the end ``self.process`` is the process that ran last; the second result says whether it
        goes on.
        """
        if self._native is None and not self._start(process):
            return super().run(process, min(budget, WORTH_LOADING), one_stretch)
        STARTUP.improve()
        total = self._stretch(budget)
        if "compiler" in self.__dict__:
            return self._run_and_compile(process, total)
        return self._run_natively(process, total)

    def _run_and_compile(self, process: Process, total: int) -> tuple[int, bool]:
        """Run processes while another thread may compile; note where the time was spent."""
        self.compiler.poll()
        assert self._native is not None
        is_alone = not self.compiler.is_busy
        self._run = self._native.run if is_alone else self._native.share
        self._signals = stretches.SIGNALS if is_alone else 0
        if not self.compiler.watches:
            return self._run_natively(process, total)
        began = self.compiler.seconds_run
        found = self._run_natively(process, total)
        if found[1]:
            innermost = itertools.islice(levels(self, self.process), _DEPTH)
            natives = self._natives.all(bool(self.process.floating & CAREFUL))
            self.compiler.note(innermost, natives, self.compiler.seconds_run - began)
        return found

    def _run_natively(self, process: Process, total: int) -> tuple[int, bool]:
        self.process = process
        self._words[_CURRENT] = process.address
        self._renew()
        how, words = _AGAIN, self._words
        until = self._ends_at()
        while True:
            reason = self._enter(how)
            if reason == _HOST:
                how = self._call(self.process)
                words[_LEFT] -= 1
            elif reason in (Reason.SPENT, Reason.IDLE):
                self.keeps_turn = False
                return total - words[_LEFT], reason == Reason.SPENT
            elif reason == _PYTHON and words[_FUEL] <= 0:
                self.keeps_turn = not self.keeps_turn
                return total - words[_LEFT], True
            else:
                how = _AGAIN if self._help(reason) else _NEXT
            is_over = time.monotonic() >= until
            if is_over and reason in _PREPARING and not self.scheduler.is_late:
                stretches.begin(words, self.scheduler.until)
                until, is_over = self._ends_at(), False
            if is_over or words[_LEFT] <= 0:
                self.keeps_turn = not self.keeps_turn
                if how == _CALLED:
                    self.process.stack.pop_releasing(words[_HOST_FRAME])
                return total - words[_LEFT], how != _NEXT

    def _ends_at(self) -> float:
        """Return the moment of ``time.monotonic`` at which a stretch that begins now ends."""
        ends, until = time.monotonic() + stretches.SECONDS, self.scheduler.until
        return ends if until is None else min(ends, until)

    def _help(self, reason: int) -> bool:
        """Do what native code cannot; return whether the process continues."""
        process = self.process
        if reason == Reason.PYTHON:
            if self._upkeep.provide():
                return True
            most = 1 if process.module.is_verified else WORTH_LOADING
            if 0 <= process.pc < len(process.module.module.instructions):
                op = process.module.module.instructions[process.pc].op
                self._want(careful.name(op, bool(process.floating & CAREFUL)))
            used, goes_on = super().run(process, most)
            process.notice()
            self._words[Machine.LEFT] -= used
            return goes_on
        if reason == Reason.RETURN:
            then: int = handlers_control.ret(self, 0)
            return then != handlers_control.STOP
        if reason == Reason.DECODE:
            self._native_running(process).decoded.decode(process.pc)
        else:
            self._heat(process)
        return True

    def _want(self, name: str) -> None:
        """Get native code for an instruction or a function, if there can be some and it pays."""
        STARTUP.want(name, self.scheduler.until)
        self._renew()

    def _renew(self) -> None:
        """Use the components of the native interpreter that there are."""
        if self._version != STARTUP.version:
            self._version = STARTUP.version
            self._natives.renew()
            if self._tables is not None:
                self._tables.renew()

    def _call(self, process: Process) -> How:
        """Call a function of the host for the instruction at the process's pc."""
        frame = self._words[_HOST_FRAME]
        function = self._functions[self._words[_HOST_FUNCTION]]
        if function.native:
            self._want(function.native)
        try:
            wish = function.run(self._host_call(process, frame))
        except (Trap, *ASTRAY) as error:
            return _AGAIN if self._deliver(process, function.failed(error)) else _NEXT
        process.pc += 1
        process.notice()
        if wish is not None:
            process.called = function.module
            self.scheduler.wait(process, wish, lambda: process.stack.pop_releasing(frame))
            return _NEXT
        if frame == process.stack.base:
            process.stack.pop_releasing(frame)
            return _AGAIN
        return _CALLED

    def _stretch(self, budget: int) -> int:
        """Set how many instructions may run now, and return it."""
        words = self._words
        total, is_exact = (1, True) if budget <= 1 else stretches.allowed(self.scheduler.left)
        words[_LEFT], words[Machine.EXACT] = total, is_exact
        words[Machine.LOOK_AT] = max(total - MOST_SLICE, 0)
        self._upkeep.work_off()
        stretches.begin(words, self.scheduler.until)
        return total

    def _start(self, process: Process) -> bool:
        """Get the native interpreter if that is worthwhile; return whether it is there."""
        if self._base is None:
            return False
        ran = WORTH_COMPILING if self.at_once else self.scheduler.instructions
        if not ran and may_run_long(process.module.module):
            ran = WORTH_LOADING
        self._native = STARTUP.get(ran, self.scheduler.until, self.at_once)
        if self._native is None:
            return False
        self._run, self._signals = self._native.run, stretches.SIGNALS
        self._upkeep.keeps = True
        self._shared = self._idle[State.SHARED] = self._native.shared.buffer_info()[0]
        self._lend()
        self._natives.handlers = self._native.handlers
        given = self._words, self.heap, self._native.handlers, self._natives.of
        self._tables = LinkTables(*given, self.linked, self._functions)
        self._idle[State.LINKS] = self._tables.place(is_careful=False)
        for other in self.scheduler.processes.values():
            self._place(other, other.module)
        for number in self.linked:
            self._tables.describe(number)
        return True

    def _enter(self, how: How) -> int:
        """Let native code run the current process or the next one; return why it stopped."""
        words = self._words
        self._natives.forget_unloaded()
        if len(self.heap.types) != self._mapped:
            self._map_types()
        offers = self.channels.offers
        if len(offers.words) != self._offered:
            words[Machine.OFFERS], words[Machine.OFFER_COUNT] = offers.place
            self._offered = len(offers.words)
        record = self._idle_address if how == _NEXT else words[_CURRENT]
        words[_PROCESSES], words[_SIGNALS] = len(self.scheduler.processes), self._signals
        try:
            reason = self._run(self._base, record, how)
        finally:
            if words[_OLDEST] or words[_ENDED]:
                self._notice()
        current = words[_CURRENT]
        if current:
            self.process = self._known[current]
        if words[_OUTPUT_COUNT]:
            self.flush()
        if words[_RELEASED] or words[_FREED]:
            self._upkeep.release_some()
        return reason

    def collect(self) -> int:
        """Release all objects that only cycles keep; return how many."""
        found = self._upkeep.collect()
        return super().collect() if found < 0 else found

    def _survey(self, what: Survey) -> int:
        """Let native code work on the whole heap; -1 if there is none."""
        if self._native is None:
            return -1
        if what in _COMPONENTS:
            STARTUP.provide(_COMPONENTS[what], self.scheduler.until)
        if len(self.heap.types) != self._mapped:
            self._map_types()
        stretches.begin_survey(self._words, self.scheduler.until, what, self.heap.hurries)
        return self._native.survey(self._base, self._idle_address, what)

    def catch_up(self) -> None:
        """Free what was left for later."""
        self._upkeep.bury_pending()

    # What native code knows of modules, types and links

    def unload(self, module: LoadedModule) -> None:
        """Drop what is compiled of a module, as soon as native code is not running."""
        for process in self._known.values():
            process.take_raised()
        self._natives.unload(module)

    def _native_running(self, process: Process) -> Native:
        """Return the module whose code a process runs in native form."""
        return self._natives.of(process.module, bool(process.floating & CAREFUL))

    def _heat(self, process: Process) -> None:
        """Have a function that has run often compiled, or stop watching it."""
        native, pc = self._native_running(process), process.pc
        frame = self.heap.types[self.heap.word(process.fp + TYPE)]
        if not self.compiler.hot(native, pc, frame, self.scheduler.instructions):
            native.decoded.unwatch(pc)

    def _map_types(self) -> None:
        """Tell native code the sizes and pointers of all types of the heap."""
        self._maps, self._mapped = type_maps(self.heap), len(self.heap.types)
        self._words[Machine.MAPS] = self._maps.buffer_info()[0]
        self._words[Machine.MAP_COUNT] = self._mapped

    def new_handle(self, data: int, linked: Linked) -> int:
        """Return a module handle, and tell native code its links."""
        ref = super().new_handle(data, linked)
        if self._tables is not None:
            self._tables.describe(self.heap.words[(ref + LINKS) >> 2])
        return ref

    def relink(self, handle: int, linked: Linked) -> None:
        """Let a module handle stand for something else, also for native code and its guards."""
        super().relink(handle, linked)
        if self._tables is not None:
            self._tables.describe(self.heap.words[(handle + LINKS) >> 2])
        self._forget_links()

    def _forget_links(self) -> None:
        for known in self.guarded:
            known.forget_links()

    def _forget(self, handle: int) -> None:
        number = self.heap.words[(handle + LINKS) >> 2]
        super()._forget(handle)
        if self._tables is not None:
            self._tables.forget(number)
        self._forget_links()
