"""Random programs of many processes, disturbed by collections, failed allocations, short turns.

    python -m tests.vm.turmoil [--count N] [--seed S] [--workers N] [--ways NAME ...]

Each program of ``crowds.py`` runs on the engines in several ways: cycles are collected every few
allocations, some allocations fail, turns are cut short. After turns and at the end every reference
count must be right (``ledger.py``), and nothing may be left once the machine is closed. Where
nothing but cycle collections disturbs, a program tells the same on all engines. The same seed makes
the same program and the same disturbance, apart from what depends on time.
"""

from __future__ import annotations

import functools
import io
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from llmbol_core.errors import LlmbolError, Trap
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import FileFault
from llmbol_core.vm.host import RESULT, HostCall, HostModule, HostResult, Sleep, Turn
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.jit import stretches
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.processfiles import ProcessFiles
from tests.vm import ledger
from tests.vm.areas import Forgery, check_heap
from tests.vm.batches import UNSURE, command_line, try_all
from tests.vm.claims import Claiming
from tests.vm.crowds import FUNCTIONS, crowd
from tests.vm.oracle import Checking
from tests.vm.programs import host_module

_FEW, _MANY = 4000, 18_000
"""Instructions that the oracle, and the other engines, may run: machine code is hot code."""
_MOST = 500
"""How many allocations and turns are all disturbed and checked; of later ones only some are."""
_BATCH = 10

ENGINES: dict[str, Callable[..., Interpreter]] = {
    "interpreter": Interpreter,
    "oracle": Claiming,
    "auto": functools.partial(JitEngine, threshold=1 << 30, at_once=True),
    "jit": functools.partial(JitEngine, threshold=0, at_once=True),
}


class Way(NamedTuple):
    """How a program is run: on which engine, and what disturbs it."""

    engine: str
    searches: bool = False
    """Whether cycles are collected at allocations."""
    fails: bool = False
    """Whether allocations fail."""
    hurries: bool = False
    """Whether turns end early; the program is a wild one then."""


WAYS = {
    "plain": Way("interpreter"),
    "oracle": Way("oracle", searches=True),
    "failing-oracle": Way("oracle", fails=True),
    "hurried-oracle": Way("oracle", searches=True, fails=True, hurries=True),
    "auto": Way("auto", searches=True),
    "hurried-auto": Way("auto", searches=True, fails=True, hurries=True),
    "jit": Way("jit", searches=True),
    "hurried-jit": Way("jit", searches=True, fails=True, hurries=True),
}


class Disturber:
    """Disturbs one machine at random."""

    def __init__(self, machine: InfernoVM, way: Way, chance: random.Random) -> None:
        self._machine, self._way, self._chance = machine, way, chance
        self._every = chance.choice((1, 1, 2, 3, 10))
        self._count = self._turns = 0
        self._failures = sorted(chance.randrange(400) for _ in range(chance.choice((1, 2, 8))))
        self._left = 0
        """How many of the next allocations fail."""
        heap, engine = machine.heap, machine.engine
        self._allocate = heap.allocate
        heap.allocate = self._allocated  # type: ignore[method-assign]
        self._run = engine.run
        engine.run = self._ran  # type: ignore[method-assign]
        if isinstance(engine, JitEngine) and (way.searches or way.fails):
            self._provide = engine._upkeep.provide
            engine._upkeep.provide = self._provided  # type: ignore[method-assign]

    def _search(self) -> None:
        if self._way.searches and self._count < _MOST and self._count % self._every == 0:
            self._machine.heap.make_room()

    def _allocated(self, size: int, is_record: bool = False, clears: bool = True) -> int | None:
        self._count += 1
        if self._way.fails and self._failures and self._count >= self._failures[0]:
            del self._failures[0]
            self._left = self._chance.choice((3, 3, 3, 4, 6, 12))
        if self._left:
            self._left -= 1
            return None
        self._search()
        ref = self._allocate(size, is_record, clears)
        if self._way.engine in ("auto", "jit"):
            self._machine.heap._close_chunk()  # so that machine code has to ask for the next one
        return ref

    def _provided(self) -> bool:
        """Refuse native code its memory most of the time, so that Python makes the object."""
        if self._chance.random() < 0.8:
            self._machine.engine._words[Machine.WANTED] = 0  # type: ignore[attr-defined]
            return False
        self._search()
        return self._provide()

    def _ran(self, process: Any, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        if self._way.hurries:
            budget = min(budget, self._chance.choice((1, 1, 2, 5, 40)))
        found = self._run(process, budget, one_stretch)
        self._turns += 1
        if self._turns < _MOST or self._chance.random() < 0.02:
            ledger.check(self._machine)
        return found

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let native code run for short stretches if the way hurries."""
        allowed = stretches.allowed

        def shorter(left: int | None) -> tuple[int, bool]:
            total, is_exact = allowed(left)
            return (min(total, self._chance.choice((1, 2, 7, 50))), is_exact)

        with mock.patch.object(stretches, "SECONDS", 60.0):
            if not self._way.hurries:
                yield
                return
            with mock.patch.object(stretches, "allowed", shorter):
                yield


def _host(told: list[str]) -> dict[str, HostModule]:
    """Return the built-in module that crowds call; it notes what it is told."""

    def number(call: HostCall) -> int:
        return call.heap.word(call.frame + 32)

    def tell(call: HostCall) -> None:
        told.append(f"{call.process.pid} tells {number(call)}")
        call.heap.set_word(call.heap.pointer(call.frame + RESULT), len(told))

    def control(call: HostCall, what: str) -> None:
        processes = sorted(call.machine.scheduler.processes)
        chosen = processes[number(call) % len(processes)]
        told.append(f"{call.process.pid} asks {chosen}: {what}")
        try:
            ProcessFiles(call.machine)._control(chosen, what)
        except FileFault as fault:
            told.append(str(fault))

    def group(call: HostCall) -> None:
        call.process.group = call.process.pid

    def share(call: HostCall) -> None:
        mode = ("propagate", "notifyleader")[number(call) & 1]
        control(call, f"exceptions {mode}")

    def sleep(call: HostCall) -> HostResult:
        return (Sleep(0.0), Turn(None), Sleep(0.0005))[number(call) % 3]

    made: dict[str, Callable[[HostCall], HostResult]]
    made = {"tell": tell, "group": group, "share": share, "sleep": sleep}
    for what in ("kill", "killgrp"):
        made[what] = functools.partial(control, what=what)
    assert set(made) == set(FUNCTIONS)
    module: dict[str, HostModule] = host_module(**made)
    return module


def outcome(modules: dict[str, Module], way: Way, folder: Path, seed: int = 0) -> str:
    """Run a program; return all that it told, and how it ended. Raises Forgery."""
    for letter, module in modules.items():
        (folder / f"{letter}.dis").write_bytes(write_module(module))
    out, told = io.BytesIO(), list[str]()
    streams, namespace = Streams(stdout=out, stderr=out), Namespace(folder)
    engine, most = ENGINES[way.engine], _FEW if way.engine == "oracle" else _MANY
    limits = Limits(memory=1 << 20, threads=30, instructions=most, seconds=60.0)
    with InfernoVM(_host(told), namespace, limits, streams, engine=engine) as machine:
        disturber = Disturber(machine, way, random.Random(seed))
        with disturber.at_work():
            try:
                machine.load_module("a", folder / "a.dis")
                machine.spawn("a", "init", [])
                machine.wait()
                how = "ended"
            except Trap as error:
                how = str(error)
            except LlmbolError as error:
                how = type(error).__name__
            machine._settle()
            ledger.check(machine)
            if isinstance(machine.engine, Checking):
                check_heap(machine.heap)
    machine.heap.make_room()
    if machine.heap.objects or machine.heap.reserved:
        raise Forgery(f"{machine.heap.objects} objects are left")
    return "\n".join([*told, out.getvalue().decode(), how])


def try_seeds(seeds: range, ways: tuple[str, ...] = tuple(WAYS)) -> tuple[Counter[str], list[str]]:
    """Run each seed's program in some ways; return how often each ended how, and what was wrong."""
    found: Counter[str] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            wanted = ""
            for name in ways:
                way = WAYS[name]
                try:
                    how = outcome(crowd(seed, way.hurries), way, Path(folder), seed)
                    found[f"{name} {how.splitlines()[-1].partition(':')[0]}"] += 1
                    if way.fails or how.endswith(UNSURE):
                        continue
                    wanted = wanted or how
                    if how != wanted:
                        raise Forgery(f"{name} gives\n{how}\nbut another way\n{wanted}")
                except Exception:  # noqa: BLE001 -- Forgery, and whatever else should not be
                    wrong.append(f"seed {seed}, {name}: {traceback.format_exc(limit=-6)}")
    return found, wrong


def main() -> None:
    """Try as many as the command line says."""
    parser = command_line(__doc__, 1000)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    attempt = functools.partial(try_seeds, ways=tuple(options.ways))
    found, wrong = try_all(attempt, seeds, _BATCH, options.workers)
    print(f"{sum(found.values())} runs, {wrong} of them wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
