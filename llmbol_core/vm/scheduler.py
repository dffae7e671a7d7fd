"""Which process runs next: the ready ones in turn, sleepers, and work done outside.

A process runs for a slice of instructions and then goes behind the others. One that waits for the
host comes back before them. When nobody can run and nothing is under way that could change that,
the program is stuck, and says where.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from llmbol_core.errors import Deadlock, LimitError, Trap, UsageError
from llmbol_core.vm.arena import ASTRAY
from llmbol_core.vm.channels import Field, Offer
from llmbol_core.vm.host import Exchange, HostResult, Sleep, Turn, Until, Wish, Work, trap_of
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.process import Process

SLICE = 2048
"""Instructions that a process may run before the next one's turn."""
SLEEPS = "sleeps"
"""What a process waits for that sleeps."""
_SLICES_BETWEEN_COLLECTIONS = 256
_PLACES_SHOWN = 8
_REST = 20
"""Time between two searches for cycles at idle, in multiples of what the last one took."""

Finish = Callable[[], None]
_Then = Callable[[], HostResult]
_Asked = queue.SimpleQueue[Callable[[], None]]


class ReadyQueue(Protocol):
    """Processes that are ready to run, the next one first: the part of ``deque`` that is used."""

    def __len__(self) -> int: ...
    def __contains__(self, process: object, /) -> bool: ...

    def append(self, process: Process, /) -> None:
        """Add a process after the others."""

    def appendleft(self, process: Process, /) -> None:
        """Add a process before the others."""

    def popleft(self) -> Process:
        """Remove and return the first process."""

    def remove(self, process: Process, /) -> None:
        """Remove a process."""

    def clear(self) -> None:
        """Forget all of them."""


class Scheduler:
    """Runs the processes of one machine until the last one has ended."""

    def __init__(self, engine: Interpreter) -> None:
        self._engine = engine
        self.processes: dict[int, Process] = {}
        self.instructions = 0
        """Instructions run so far."""
        self.left: int | None = None
        """Instructions that may still run, if that is limited."""
        self.until: float | None = None
        """The moment of ``time.monotonic`` at which the program is stopped, if there is one."""
        self._is_at_work = False
        self._ready = engine.ready_queue(self.processes)
        self._sleepers: list[tuple[float, int, Process, Finish]] = []
        self._sleeps = 0
        self._waiting: list[tuple[Process, Until, Finish]] = []
        self._works: dict[int, Work] = {}
        """Work that processes still wait for, by their number."""
        self._working = 0
        self._slices = 0
        self._is_untidy = False
        """Whether a process has run since the last search for cycles at idle."""
        self._tidies_from = 0.0
        self._asked: _Asked = queue.SimpleQueue()
        """What other threads ask for, to be done between two slices."""

    @property
    def has_ready(self) -> bool:
        """Whether a process besides the running one could run."""
        return bool(self._ready)

    def add(self, process: Process) -> None:
        """Add a new process, to run after the others."""
        self.processes[process.pid] = process
        self._ready.append(process)

    def remove(self, process: Process) -> None:
        """Forget a process that has ended."""
        del self.processes[process.pid]

    def process(self, pid: int) -> Process:
        """Return a process by its number; raises UsageError if there is none."""
        if pid not in self.processes:
            known = ", ".join(map(str, sorted(self.processes))) or "none"
            raise UsageError(f"no process {pid}: there is {known}")
        return self.processes[pid]

    def withdraw(self, process: Process) -> None:
        """Keep a process that is not running from running again; the caller ends it."""
        if process in self._ready:
            self._ready.remove(process)
        self._sleepers = [entry for entry in self._sleepers if entry[2] is not process]
        heapq.heapify(self._sleepers)
        self._waiting = [entry for entry in self._waiting if entry[0] is not process]
        self._works.pop(process.pid, None)

    def is_running(self, process: Process) -> bool:
        """Whether a process is the running one."""
        lives = self.processes.get(process.pid) is process
        return self._is_at_work and lives and not process.waits_for and process not in self._ready

    def rouse(self, process: Process) -> None:
        """Make a process ready whatever it waits for; nothing to do for the running one."""
        is_running = self.is_running(process)
        self.withdraw(process)
        if not is_running:
            self.make_ready(process)

    def clear(self) -> None:
        """Forget who is ready, sleeping or working: all processes have ended."""
        self._ready.clear()
        self._sleepers.clear()
        self._waiting.clear()
        self._works.clear()
        self._working = 0
        self._asked = queue.SimpleQueue()

    def make_ready(self, process: Process) -> None:
        """Make a process ready that waited for another one."""
        process.waits_for = ""
        self._ready.append(process)

    def wait(self, process: Process, wish: Wish, finish: Finish) -> None:
        """Let a process wait for the host; ``finish`` is called before it goes on."""
        if isinstance(wish, Exchange):
            process.waits_for = "waits for a file server"
            offer = Offer(wish.channel, wish.sends, wish.address)

            def go_on() -> None:
                self._go_on(process, wish.then, finish)

            if self._engine.channels.communicate(process, offer, (go_on, wish.let_go)):
                go_on()
        elif isinstance(wish, Turn):
            self._go_on(process, lambda: None, finish)
        elif isinstance(wish, Sleep):
            self._sleeps += 1
            until = time.monotonic() + wish.seconds
            process.waits_for = SLEEPS
            heapq.heappush(self._sleepers, (until, self._sleeps, process, finish))
        elif isinstance(wish, Until):
            process.waits_for = "waits for another end"
            self._waiting.append((process, wish, finish))
        else:
            self._working += 1
            process.waits_for = "waits for the host"
            self._works[process.pid] = wish
            done = partial(self._finish, process, wish, finish)
            arguments = (self._asked, wish.run, done)
            threading.Thread(target=_work, args=arguments, daemon=True).start()

    def _go_on(self, process: Process, then: _Then, finish: Finish, is_first: bool = False) -> None:
        """Make a process ready whose wait is over, or start what it waits for next."""
        fault, after = process.fault, None
        try:
            after = then()
        except (Trap, *ASTRAY) as error:
            fault = trap_of(error, process.called)
        if process.pid not in self.processes:
            return  # what it waited for was its own end
        if after is not None:
            self.wait(process, after, finish)
            return
        try:
            finish()
        except (Trap, *ASTRAY) as error:
            fault = trap_of(error, process.called)
        if fault is not None:
            process.fail(fault)
        process.waits_for = ""
        (self._ready.appendleft if is_first else self._ready.append)(process)

    def run(self, most: int | None, until: float | None) -> None:
        """Run until no process is left, for so many instructions at most and until this time.

        Raises LimitError and Deadlock.
        """
        self.until, self._is_at_work = until, True
        try:
            self._run(most, until)
            if self._engine.heap.hosted:
                self._engine.catch_up()
        finally:
            self.until, self._is_at_work = None, False

    def _run(self, most: int | None, until: float | None) -> None:
        while self.processes:
            if not self._ready:
                self._engine.catch_up()
            self._poll(until)
            if not self.processes:
                return  # another thread has had the last one killed
            if not self._ready:
                self._engine.stuck()
                raise self._deadlock()
            process = self._ready.popleft()
            left = self.left = None if most is None else most - self.instructions
            budget = SLICE if left is None else min(SLICE, left)
            if budget <= 0:
                raise LimitError("instruction", f"the program ran {most} of them, {process.place}")
            self.check_time(process)
            self._is_untidy = True
            if self._run_on(process, budget):
                keeps_turn = self._engine.keeps_turn
                (self._ready.appendleft if keeps_turn else self._ready.append)(self._engine.process)
            self._slices += 1
            if self._engine.remains.is_due:
                self.free_remains(some=True)
            if self._slices % _SLICES_BETWEEN_COLLECTIONS == 0:
                self._engine.heap.tidy()

    def _run_on(self, process: Process, budget: int) -> bool:
        """Run a process until it may have to let others run; return whether it is still ready."""
        while True:
            used, goes_on = self._engine.run(process, budget)
            self.instructions += used
            process, budget = self._engine.process, 1
            is_over = not goes_on or (self.left is not None and used >= self.left)
            if is_over or len(self.processes) < 2 or process.pc in process.module.pauses:
                return goes_on
            if self.left is not None:
                self.left -= used
            self.check_time(process)

    def free_remains(self, some: bool = False) -> None:
        """Free the remains of objects that no process has an address in any more, or ``some``."""
        stacks = [words for p in self.processes.values() for words in p.stack.words()]
        offers = self._engine.channels.offers.words
        places = [offers[field :: len(Field)] for field in (Field.ADDRESS, Field.RESULT)]
        words = [*stacks, *places]
        self._engine.remains.free(words, 4 * sum(map(len, words)), some)

    @property
    def is_late(self) -> bool:
        """Whether the program's time is up."""
        return self.until is not None and time.monotonic() > self.until

    def check_time(self, process: Process | None = None) -> None:
        """Raise LimitError if the program's time is up, naming a process that was running."""
        if self.is_late:
            place = (process or self._engine.process).place
            raise LimitError("time", f"the program was stopped, {place}")

    def ask(self, what: Callable[[], None]) -> None:
        """Have the thread that runs the processes do something between two slices."""
        self._asked.put(what)

    def _poll(self, until: float | None) -> None:
        """Resume sleepers whose time has come, and whose work is done; wait if none is ready."""
        while True:
            now = time.monotonic()
            while self._sleepers and self._sleepers[0][0] <= now:
                _, _, process, finish = heapq.heappop(self._sleepers)
                self._go_on(process, lambda: None, finish)
            while self._take(0.0):
                pass
            if self._look_again():
                continue
            if self._ready:
                return
            if self._tidies(now):
                continue
            if not (self._working or self._sleepers):
                return
            moments = [self._sleepers[0][0]] if self._sleepers else []
            moments += [until] if until is not None else []
            moments += [self._tidies_from] if self._waiting and self._is_untidy else []
            if until is not None and now > until:
                raise LimitError("time", f"the program was stopped while it waited{self._places()}")
            self._take(max(0.0, min(moments) - now) if moments else None)

    def _tidies(self, now: float) -> bool:
        """Free what only cycles keep, if a process may be waiting for that and it is not too soon.

        A pipe, for instance, ends when nobody holds its other end.
        """
        is_early = now < self._tidies_from and bool(self._working or self._sleepers)
        if not self._waiting or not self._is_untidy or is_early:
            return False
        with suppress(*ASTRAY):
            self._engine.collect()
        self._is_untidy = False
        self._tidies_from = now + _REST * (time.monotonic() - now)
        return True

    def _take(self, seconds: float | None) -> bool:
        """Do what another thread asks for, waiting so long for that; false if it is nothing."""
        if seconds == 0.0 and self._asked.empty():
            return False
        try:
            self._asked.get(timeout=seconds)()
        except queue.Empty:
            return False
        return True

    def _finish(self, process: Process, work: Work, finish: Finish, get: Callable[[], Any]) -> None:
        """Resume a process whose work is done, if it still waits for that."""
        self._working -= 1
        if self._works.get(process.pid) is work:
            del self._works[process.pid]
            self._go_on(process, lambda: work.finish(get()), finish, is_first=True)

    def _look_again(self) -> bool:
        """Resume those for whom others have done what they waited for.

        Return true if they then wait again and none is ready.
        """
        some = [entry for entry in self._waiting if entry[1].ready()]
        for entry in some:
            process, wish, finish = entry
            if entry in self._waiting and wish.ready():
                self._waiting.remove(entry)
                self._go_on(process, wish.then, finish)
        return bool(some) and not self._ready

    def _deadlock(self) -> Deadlock:
        return Deadlock(f"every process waits for another one{self._places()}")

    def _places(self) -> str:
        known = [f"; {p.place} {p.waits_for}" for p in self.processes.values()]
        more = len(known) - _PLACES_SHOWN
        return "".join(known[:_PLACES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _work(asked: _Asked, run: Callable[[], Any], done: Callable[[Callable[[], Any]], None]) -> None:
    """Do work in a thread of its own; nothing here touches the machine."""
    try:
        result = run()
    except BaseException as error:  # noqa: BLE001 -- raised again in the machine's thread
        asked.put(partial(done, _raiser(error)))
        return
    asked.put(partial(done, lambda: result))


def _raiser(error: BaseException) -> Callable[[], Any]:
    def raise_again() -> None:
        raise error

    return raise_again
