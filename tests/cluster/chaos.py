"""Chaos: processes are killed, stopped and starved at random while tasks are submitted and checked.

    python -m tests.cluster.chaos --faults 1000

What must come out, whatever happens: every task that was acknowledged ends once, with the right
result, and no process is left. Each fault is a row of FAULTS. The seed decides which faults come
when; what the processes are doing at that moment is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmbol_core.distributed import control
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import create_task
from llmbol_core.errors import ClusterError, LlmbolError
from tests.distributed.conftest import eventually, processes_of

NODES = 3
DISK_MB = 192
AHEAD = 300
"""How many tasks that have not ended there are at most."""
PATIENCE = 120.0
"""Seconds within which everything must have recovered, on a machine that does other work too."""

# Counts, inside the database, whatever is done to a task after its end.
_AUDIT = """
CREATE TABLE IF NOT EXISTS audit(id TEXT, was TEXT, became TEXT);
CREATE TRIGGER IF NOT EXISTS once AFTER UPDATE ON task
WHEN OLD.state IN ('done', 'failed', 'cancelled') OR NEW.state IN ('done', 'failed', 'cancelled')
BEGIN INSERT INTO audit VALUES(NEW.id, OLD.state, NEW.state); END;
"""


@dataclass
class Tally:
    """What happened so far."""

    faults: Counter[str] = field(default_factory=Counter)
    expected: dict[str, Any] = field(default_factory=dict)
    """The right result of each task that was acknowledged."""
    checked: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    orphans: list[int] = field(default_factory=list)
    twice: int = 0
    restarts: list[float] = field(default_factory=list)
    """Seconds from the death of a guardian until the nodes of the next one were up."""

    def lines(self) -> list[str]:
        """Return the tally for people."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return [
            f"faults       {self.faults.total()} ({kinds})",
            f"acknowledged {len(self.expected)}",
            f"checked      {self.checked}",
            f"lost         {len(self.expected) - self.checked - len(self.wrong)}",
            f"wrong        {len(self.wrong)} {self.wrong[:3] if self.wrong else ''}",
            f"duplicates   {self.twice}",
            f"orphans      {len(self.orphans)}",
            f"refused      {self.refused} requests while something was broken",
        ]

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        lost = len(self.expected) - self.checked
        return not (lost or self.wrong or self.twice or self.orphans)


class Chaos:
    """A cluster, somebody who uses it and somebody who breaks it."""

    def __init__(self, state: StateDirectory, seed: int) -> None:
        self.state, self.tally = state, Tally()
        # One for each thread, or the seed would decide nothing.
        self.random, self._user_random = random.Random(seed), random.Random(~seed)
        self.config = Config(tuple(local_nodes(NODES, ["inference"])))
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._open: list[str] = []

    def run(self, faults: int, pause: float) -> Tally:
        """Break things so many times, then let all tasks end and check everything."""
        self.state.prepare()
        Ledger(self.state.ledger, self.state.results).close()
        with contextlib.closing(sqlite3.connect(self.state.ledger)) as database:
            database.executescript(_AUDIT)
        control.start(self.state, self.config)
        user = threading.Thread(target=self._use)
        user.start()
        try:
            for _ in range(faults):
                time.sleep(self.random.uniform(0.1, 2 * pause))
                names, weights = zip(*((n, f.weight) for n, f in FAULTS.items()), strict=True)
                (name,) = self.random.choices(names, weights)
                FAULTS[name].make(self)
                self.tally.faults[name] += 1
                self._report()
                if not user.is_alive():
                    break
        finally:
            self._stop.set()
            user.join()
        if self._failure is not None:
            raise self._failure
        control.stop(self.state)
        eventually(lambda: not processes_of(self.state), 5)
        self.tally.orphans += processes_of(self.state)
        self._audit()
        return self.tally

    def _use(self) -> None:
        try:
            with Client(self.state) as client:
                number = 0
                while not self._stop.is_set():
                    if len(self._open) < AHEAD:
                        number += self._submit(client, number)
                    self._check(client, list(self._open), 0.2)
                deadline = time.monotonic() + PATIENCE
                while self._open and time.monotonic() < deadline:
                    self._check(client, list(self._open), 1.0)
        except BaseException as error:  # noqa: BLE001 -- the other thread tells it
            self._failure = error

    def _submit(self, client: Client, number: int) -> int:
        """Submit some tasks, again and again until they are acknowledged; return how many."""
        tasks = []
        for n in range(number, number + self._user_random.randint(1, 20)):
            seconds = self._user_random.choice((0, 0, 0.01, 0.2))
            echo = {"number": n, "square": n * n, "filler": "x" * (n % 7 * 1000)}
            if n % 97 == 0:
                # Too large for a row: in a file.
                echo["filler"] = "y" * 100_000
            options = {"priority": n % 3, "max_retries": 1000}
            tasks.append(
                create_task(f"t{n}", "probe", {"echo": echo, "seconds": seconds}, **options)
            )
        self._insist(lambda: client.submit(tasks))
        for task in tasks:
            self.tally.expected[task.id] = task.payload["echo"]
            self._open.append(task.id)
        return len(tasks)

    def _check(self, client: Client, ids: list[str], seconds: float) -> None:
        """Look whether tasks have ended, and whether their results are right."""
        try:
            arguments = {"ids": ids, "seconds": seconds}
            states = {row["id"]: row["state"] for row in client.call("wait", arguments)[0]}
            for id in ids:
                if states[id] in ("queued", "running"):
                    continue
                result = client.result(id)
                if states[id] == "done" and result.value == self.tally.expected[id]:
                    self.tally.checked += 1
                else:
                    self.tally.wrong.append(f"{id} {states[id]} {result.entry.error}")
                self._open.remove(id)
        except LlmbolError:
            self.tally.refused += 1
            time.sleep(0.1)

    def _insist(self, ask: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                ask()
                return
            except LlmbolError:
                self.tally.refused += 1
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _report(self) -> None:
        tally = self.tally
        if tally.faults.total() % 50 == 0:
            text = f"{tally.faults.total()} faults, {tally.checked} tasks checked\n"
            os.write(2, text.encode())

    def _audit(self) -> None:
        """Count what the database saw happen to tasks after their end."""
        with contextlib.closing(sqlite3.connect(self.state.ledger)) as database:
            (self.tally.twice,) = database.execute(
                "SELECT count(*) FROM (SELECT id FROM audit GROUP BY id HAVING count(*) > 1)"
            ).fetchone()

    # Faults

    def kill_node(self) -> None:
        """Kill a node's process."""
        self._signal_node(signal.SIGKILL)

    def stop_node(self) -> None:
        """Have a node hang."""
        self._signal_node(signal.SIGSTOP)

    def kill_broker(self) -> None:
        """Kill the broker."""
        running = self.state.read()
        if running is not None:
            running.broker.kill(signal.SIGKILL)

    def kill_two(self) -> None:
        """Kill two nodes at once."""
        self.kill_node()
        self.kill_node()

    def stop_node_and_kill_broker(self) -> None:
        """Have a node hang, and the broker die before it notices."""
        self.stop_node()
        self.kill_broker()

    def kill_guardian(self) -> None:
        """Kill the guardian: all must be gone soon; then start the cluster again."""
        running = self.state.read()
        if running is None:
            return
        running.guardian.kill(signal.SIGKILL)
        started = time.monotonic()
        if not eventually(lambda: not processes_of(self.state), 10):
            self.tally.orphans += processes_of(self.state)
        self._start()
        self.tally.restarts.append(time.monotonic() - started)

    def kill_guardian_of_a_hung_node(self) -> None:
        """Have a node hang, then kill the guardian."""
        self.stop_node()
        self.kill_guardian()

    def fill_disk(self) -> None:
        """Leave the ledger no room for a while."""
        balloon = self.state.root / "balloon"
        try:
            with open(balloon, "wb", 0) as file:
                with contextlib.suppress(OSError):
                    while file.write(bytes(1 << 20)):
                        pass
                with contextlib.suppress(OSError):
                    while file.write(bytes(1 << 10)):
                        pass
            time.sleep(self.random.uniform(0.5, 4))
        finally:
            balloon.unlink(missing_ok=True)

    def _start(self) -> None:
        """Start the cluster; on a machine that has much else to do it may take some attempts."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                control.start(self.state, self.config)
                return
            except ClusterError as error:
                os.write(2, f"not started: {error}\n".encode())
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _signal_node(self, signum: int) -> None:
        place, running = self.random.random(), self.state.read()
        alive = [node for node in running.nodes if node.is_alive()] if running else []
        if alive:
            alive[int(place * len(alive))].kill(signum)


@dataclass(frozen=True)
class Fault:
    """Something that breaks: how, and how often compared with the others."""

    make: Callable[[Chaos], None]
    weight: int


# fmt: off
FAULTS: dict[str, Fault] = {
    # name                 how                                    weight
    "kill-node":     Fault(Chaos.kill_node,                          40),
    "stop-node":     Fault(Chaos.stop_node,                          10),
    "kill-two":      Fault(Chaos.kill_two,                           12),
    "kill-broker":   Fault(Chaos.kill_broker,                        18),
    "stop+broker":   Fault(Chaos.stop_node_and_kill_broker,           6),
    "kill-guardian": Fault(Chaos.kill_guardian,                       6),
    "stop+guardian": Fault(Chaos.kill_guardian_of_a_hung_node,        2),
    "full-disk":     Fault(Chaos.fill_disk,                           6),
}
# fmt: on


@contextmanager
def small_disk() -> Iterator[Path]:
    """Yield a directory on a small disk of its own, which takes root to make; else on /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="lb-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def run(faults: int, seed: int, pause: float) -> Tally:
    """Return what came of so many faults."""
    with small_disk() as folder:
        if not os.path.ismount(folder):
            FAULTS.pop("full-disk", None)
        state = StateDirectory(folder)
        try:
            return Chaos(state, seed).run(faults, pause)
        finally:
            if state.is_held():
                control.stop(state)


def main() -> int:
    """Run as the options say; exit 1 if anything was lost, wrong, done twice or left over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between faults, about")
    options = parser.parse_args()
    started = time.monotonic()
    tally = run(options.faults, options.seed, options.pause)
    print("\n".join(tally.lines()))  # noqa: T201 -- a program
    print(f"seed {options.seed}, {time.monotonic() - started:.0f} s")  # noqa: T201
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main())
