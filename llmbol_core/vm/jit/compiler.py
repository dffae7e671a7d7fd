"""What is compiled, and when: hot functions of modules, together with those they call.

Code is compiled quickly at first, and again as well as possible once it has run for about as long
as that takes, in this program and those before it, by another thread (``background.py``) if there
is a processor to spare. A program waits for code only for a fraction of the time that it runs:
until it can afford to wait for a unit, the native interpreter continues. Code that is in the cache
is used as soon as it is asked for.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llmbol_core.native.jobs import Job
from llmbol_core.vm.jit.kept import (
    CompileStats,
    Made,
    Sketch,
    Tier,
    cost_of,
    keep_seconds,
    keep_sketch,
    kept_unit,
    key_of_unit,
    seconds_kept,
    sketch_kept,
)
from llmbol_core.vm.jit.modulenative import Native, Quick

if TYPE_CHECKING:
    from llmbol_core.vm.exceptions import Level
    from llmbol_core.vm.heaptypes import HeapType
    from llmbol_core.vm.jit.background import Background, Order
    from llmbol_core.vm.jit.units import Source

__all__ = ["CompileStats", "Compiler", "Native"]

_T = TypeVar("_T")
_AT_ONCE = 0.2
"""Seconds that compiling well may take if it is not known yet how long the code will run."""
_WELL = 1.0
"""Seconds in all that compiling well may take for code that has not run yet."""
_GRACE, _SHARE = 0.25, 0.3
"""Seconds that a program may wait for code: at first, and more for each second that it has run."""
_WORTH_COMPILING = 5 << 19
"""Instructions that a program runs before anything is compiled: many are over sooner."""
_LONG_ENOUGH = 0.1
"""Seconds after which something is compiled all the same: the instructions are slow ones."""
_WORTH_A_LOOK = 0.02
"""Seconds that code from the cache runs before its source is looked at."""
_MORE, _WORTH_KEEPING = 1.5, 0.01
"""How much longer code has run, in all and in seconds, when the cache is told of it again."""
_PART = 0.5
"""The part of the time in a function that is taken to be spent in what it calls."""
_SLOWER = 4
"""How many times as long as expected compiling may take."""
_SOON, _LATER = 2, 8
"""How many times as often as before an instruction must run to be considered again."""


class _Late(Exception):
    """The program's time is up before something could be made."""


class Compiler:
    """Compiles for one machine; with ``at_once``, all that is asked for, and the program waits.

    ``until`` returns the moment of ``time.monotonic`` after which the program does not wait.
    """

    def __init__(
        self, at_once: bool = False, until: Callable[[], float | None] = lambda: None
    ) -> None:
        self.stats = CompileStats()
        self.watches = False
        """Whether it is worth reporting where the program spends its time."""
        self._at_once, self._until = at_once, until
        self._began, self._waited, self._well = time.perf_counter(), 0.0, 0.0
        self._order: Order | None = None
        self._orders: dict[int, Quick] = {}
        self._callees: dict[tuple[Native, int], set[Quick]] = {}
        """Functions compiled quickly that have been seen to be called by others."""

    def hot(self, native: Native, pc: int, frame: HeapType, ran: int) -> bool:
        """Have the function at a pc compiled, given its frame's layout.

        ``ran`` tells how many instructions the program has run. Return whether the pc is to be
        watched: it is an entry to machine code now, or may be later.
        """
        if native.decoded.is_entry(pc):
            return True
        began = time.perf_counter()
        made = _kept(native, pc, frame, (pc, native.code.function(pc)))
        if made is not None:
            self._install(Quick(native, pc, frame, None), made)
            self.stats.seconds += time.perf_counter() - began
            return native.decoded.is_entry(pc)
        is_short = ran < _WORTH_COMPILING and self.seconds_run < _LONG_ENOUGH
        if is_short and not self._at_once:
            native.decoded.watch_longer(pc, _SOON)
            return True
        try:
            return self._compile(native, pc, frame)
        except _Late:
            native.decoded.watch_longer(pc, 1)
            return True
        finally:
            self._waited += time.perf_counter() - began

    @property
    def seconds_run(self) -> float:
        """Seconds that the program has run, without those that it waited for code."""
        return time.perf_counter() - self._began - self._waited

    @property
    def is_busy(self) -> bool:
        """Whether another thread is compiling for this machine."""
        return self._order is not None and self._order.waiting > 0

    def poll(self) -> None:
        """Install what another thread has compiled."""
        order = self._order
        while order is not None and order.done:
            number, made, seconds = order.done.popleft()
            order.waiting -= 1
            quick = self._orders.pop(number)
            if isinstance(made, BaseException):
                raise made
            self.stats.seconds += seconds
            self._install(quick, made)

    def note(self, levels: Iterable[Level], natives: Mapping[Any, Native], seconds: float) -> None:
        """Note that the program has spent its time in some frames, the innermost first.

        Where it can be noticed is mostly in loops. What they call is seen less often than it runs,
        so once it has been seen, part of the time that is spent in the caller is taken to be its.
        """
        ran: dict[Quick, float] = {}
        called: Quick | None = None
        for depth, level in enumerate(levels):
            native = natives.get(level.module)
            if native is None:
                continue
            quick, caller = native.quick_at(level.pc), (native, native.code.function(level.pc))
            if called is not None and depth == 1:
                self._callees.setdefault(caller, set()).add(called)
            if depth == 0 and quick is None:
                ran |= dict.fromkeys(self._callees.get(caller, ()), _PART)
            called = quick
            if quick is not None:
                ran[quick] = 1.0
        for quick, part in ran.items():
            quick.seconds += seconds * part
            self._improve(quick)
            if not quick.is_ordered and quick.seconds > quick.kept * _MORE + _WORTH_KEEPING:
                quick.kept = quick.seconds
                keep_seconds(quick.key, quick.seconds)

    # Compiling

    def _thread(self) -> Background | None:
        from llmbol_core.vm.jit import background

        return None if self._at_once else background.background()

    def _is_left(self, native: Native, pc: int, frame: HeapType) -> bool:
        """Whether a unit is known to take too long for now, or was found by what is known."""
        sketch = native.sketches.get(pc)
        if sketch is None:
            sketch = sketch_kept(key_of_unit(native.code.identity, pc, frame))
        if sketch is None or self._at_once:
            return False
        native.sketches[pc] = sketch
        made = _kept(native, pc, frame, (sketch.start,))
        if made is not None:
            self._install(Quick(native, pc, frame, None), made)
            return native.decoded.is_entry(pc)
        if self._can_wait(cost_of(sketch.instructions, Tier.QUICK)):
            return False
        native.decoded.watch_longer(pc, _LATER)
        return True

    def _leave(self, native: Native, pc: int, frame: HeapType, source: Source) -> None:
        """Do not compile a unit for now."""
        native.decoded.watch_longer(pc, _LATER)
        sketch = Sketch(source.unit.root.start, source.instructions)
        if native.sketches.get(pc) != sketch:
            native.sketches[pc] = sketch
            keep_sketch(key_of_unit(native.code.identity, pc, frame), sketch)

    def _compile(self, native: Native, pc: int, frame: HeapType) -> bool:
        if self._is_left(native, pc, frame):
            return True
        if not self._at_once and not self._can_wait(cost_of(1, Tier.QUICK)):
            native.decoded.watch_longer(pc, _SOON)
            return True
        source = self._source(native, pc, frame)
        if source is None:
            return False
        made = _kept(native, pc, frame, (source.unit.root.start,))
        if made is not None:
            self._install(Quick(native, pc, frame, source), made)
            return native.decoded.is_entry(pc)
        cost = source.cost(Tier.BEST)
        thread, is_short = self._thread(), cost <= _AT_ONCE
        is_well = is_short and thread is None and self._well + cost <= _WELL
        tier = Tier.BEST if is_well else Tier.QUICK
        if not self._at_once and not self._can_wait(source.cost(tier)):
            tier = Tier.QUICK
            if not self._can_wait(source.cost(tier)):
                self._leave(native, pc, frame, source)
                return True
        tier = self._in_time(source, tier)
        self._well += cost if tier is Tier.BEST else 0.0
        quick = Quick(native, pc, frame, source)
        if thread is not None:
            thread.wait(source.cost(tier) * _SLOWER)
        self._make(quick, tier)
        if thread is not None:
            thread.wait()
        return native.decoded.is_entry(pc)

    def _apart(self, function: Callable[[], _T]) -> _T:
        """Call a function in another thread, so that the process can be stopped meanwhile.

        Raises what it raises, and _Late.
        """
        until = self._until()
        if until is not None and time.monotonic() >= until:
            raise _Late
        job = Job(function)
        if not job.wait(until):
            raise _Late
        return job.result()

    def _source(self, native: Native, pc: int, frame: HeapType) -> Source | None:
        """Return what an instruction's code is made from; None if it is too long to compile."""

        def found() -> Source | None:
            from llmbol_core.vm.jit.units import source_of

            return source_of(native.regions, pc, frame)

        return self._apart(found)

    def _can_wait(self, seconds: float) -> bool:
        """Whether the program can be kept waiting for so long."""
        return self._waited + seconds <= _GRACE + _SHARE * self.seconds_run

    def _in_time(self, source: Source, tier: Tier) -> Tier:
        """Return the tier for which there is time before the program's end, as the program waits.

        Raises _Late if there is not even time for the quick one.
        """
        until = self._until()
        if until is None:
            return tier
        self._apart(lambda: source.text)
        for possible in (tier, Tier.QUICK):
            if time.monotonic() + source.longest(possible) <= until:
                return possible
        raise _Late

    def _submit(self, thread: Background, quick: Quick) -> None:
        from llmbol_core.vm.jit.background import Order

        source = quick.source
        assert source is not None
        self._apart(lambda: source.text)
        if self._order is None:
            self._order = Order()
        gain = quick.seconds - source.cost(Tier.BEST)
        self._orders[thread.submit(self._order, source, gain)] = quick

    def _make(self, quick: Quick, tier: Tier) -> None:
        """Compile a unit now."""
        assert quick.source is not None
        began = time.perf_counter()
        made = self._apart(functools.partial(quick.source.compile, tier))
        self._install(quick, made)
        self.stats.seconds += time.perf_counter() - began

    def _improve(self, quick: Quick) -> None:
        """Have a unit compiled well if it has run for long enough.

        At the end of the process it waits for what another thread is compiling.
        """
        if quick.is_ordered or (quick.source is None and quick.seconds < _WORTH_A_LOOK):
            return
        if not self._is_worth(quick):
            return
        try:
            if quick.source is None:
                quick.source = self._source(quick.native, quick.pc, quick.frame)
            thread, source = self._thread(), quick.source
            quick.is_ordered = True
            if source is None:
                return
            if self._in_time(source, Tier.BEST) is not Tier.BEST:
                raise _Late
            if thread is not None:
                self._submit(thread, quick)
            else:
                self._make(quick, Tier.BEST)
        except _Late:
            quick.is_ordered = False

    def _is_worth(self, quick: Quick) -> bool:
        """Whether a unit has run for so long that it is worth compiling well.

        Another thread begins with it only if the program has run for as long as that takes: it may
        well be over before the code is there, which is lost then.
        """
        cost = cost_of(quick.instructions, Tier.BEST)
        if self._thread() is None:
            return quick.seconds > cost
        return quick.seconds > cost / 2 and self.seconds_run > cost

    def _install(self, quick: Quick, made: Made) -> None:
        from llmbol_core.native.image import load_object

        native = quick.native
        library = load_object(made.data, made.compiled.symbols)
        native.libraries.append(library)
        for part in made.compiled.parts:
            if native.install(part, library.addresses, made.tier):
                if made.tier is Tier.QUICK:
                    native.quick[part.start] = quick
                else:
                    native.quick.pop(part.start, None)
        quick.instructions = made.compiled.instructions
        if made.tier is Tier.QUICK and not quick.key:
            start = made.compiled.parts[0].start
            quick.key = key_of_unit(native.code.identity, start, quick.frame)
            if made.is_kept:
                quick.seconds = quick.kept = seconds_kept(quick.key)
        if not quick.is_ordered:
            self.stats.add(made, 0.0)
        self.watches = self.watches or made.tier is Tier.QUICK


def _kept(native: Native, pc: int, frame: HeapType, starts: Iterable[int]) -> Made | None:
    """Return code from the cache to enter at a pc, of a unit that begins at one of some."""
    for tier in (Tier.BEST, Tier.QUICK):
        for start in dict.fromkeys(starts):
            made = kept_unit(key_of_unit(native.code.identity, start, frame), tier)
            if made is not None and pc in made.compiled.parts[0].entries:
                return made
    return None
