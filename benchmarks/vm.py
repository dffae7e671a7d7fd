"""How fast the engines run programs: milliseconds that each program measures of itself.

Run on an idle machine: ``python -m benchmarks.vm FOLDER [RUNS] [NAME ...]``, where FOLDER holds
NAME.dis for the names below. Each takes the size as its argument and prints ``NAME N ms`` on
standard error. The interpreter and CPython run a smaller size; their time is scaled by the work.
C twins are compiled if there is gcc. ``INFERNO_EMU`` and ``INFERNODE_EMU`` may name commands that
run emulators of Inferno (``emu -c0`` interprets, ``-c1`` compiles), ``INFERNO_ROOT`` and
``INFERNODE_ROOT`` their trees, into whose ``tmp`` the programs are copied.

Milliseconds first; then how many times as long as the fast engine with a warm cache the others take
(``C`` says how many times as long as C the fast engine takes), with geometric means.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
TWINS = Path(__file__).parent / "c" / "twins.c"
IN_C = ("alu", "arrays", "bigs", "fib", "lists", "mandel", "matmul", "nbody", "qsort", "sieve",
        "trees")  # fmt: skip
MEMORY = "2G"


@dataclass(frozen=True)
class Row:
    """A program: its size, the one for slow engines, and how its work grows with the size."""

    name: str
    size: int
    small: int
    work: Callable[[int], float] = float


ROWS = [
    Row("alu", 100_000_000, 100_000),
    Row("arrays", 120_000_000, 100_000),
    Row("bigs", 100_000_000, 50_000),
    Row("channels", 2_000_000, 5000),
    Row("dispatch", 20_000_000, 20_000),
    Row("fib", 39, 20, lambda n: 1.618034**n),
    Row("lists", 16_000, 30),
    Row("mandel", 1800, 40, lambda n: n * n),
    Row("matmul", 900, 40, lambda n: n**3),
    Row("nbody", 1_500_000, 500),
    Row("qsort", 4_000_000, 4000, lambda n: n * math.log(n)),
    Row("sieve", 40_000_000, 100_000),
    Row("strings", 80_000_000, 100_000),
    Row("trees", 18, 10, lambda n: 2.0**n),
]
_TAKEN = re.compile(r"([\d.]+) ms")


def milliseconds(command: list[str], **environment: str) -> float:
    """Return what a program says that it took."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    found = _TAKEN.search(done.stderr + done.stdout)
    if found is None:
        raise SystemExit(f"{shlex.join(command)} told no time: {done.stderr or done.stdout}")
    return max(float(found[1]), 0.5)


@dataclass(frozen=True)
class Peers:
    """Other ways to run the programs: the C twins, and emulators with their trees."""

    twins: str
    emulators: dict[str, tuple[list[str], Path]] = field(default_factory=dict)

    @classmethod
    def found(cls, folder: str) -> Peers:
        """Compile the C twins in a folder, and take the emulators that are named."""
        twins = ""
        if shutil.which("gcc"):
            twins = str(Path(folder) / "twins")
            subprocess.run(["gcc", "-O2", "-o", twins, str(TWINS), "-lm"], check=True)
        emulators = {}
        for name in ("INFERNO", "INFERNODE"):
            command, tree = os.environ.get(f"{name}_EMU"), os.environ.get(f"{name}_ROOT")
            if command and tree:
                emulators[name.lower()] = shlex.split(command), Path(tree)
        return cls(twins, emulators)

    def emulated(self, program: Path, row: Row) -> dict[str, list[str]]:
        """Return the commands that run a program on the emulators, by what they are called."""
        commands = {}
        for name, (command, tree) in self.emulators.items():
            copy = tree / "tmp" / f"llmbol-{program.name}"
            shutil.copyfile(program, copy)
            for mode, what in (("-c0", "interpreter"), ("-c1", "JIT")):
                options = [mode, "-pheap=512m", "-pmain=512m", f"/tmp/{copy.name}", str(row.size)]
                commands[f"{name} {what}"] = [*command, *options]
        return commands


def measure(row: Row, folder: Path, peers: Peers, runs: int) -> dict[str, float]:
    """Return the milliseconds of one program, by peer: the least of several runs."""
    program = folder / f"{row.name}.dis"
    scale = row.work(row.size) / row.work(row.small)
    dis = [str(BIN / "dis"), "run", "--max-memory", MEMORY]
    python = [sys.executable, "-m", "benchmarks.twins", row.name, str(row.small)]
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as cache:
        small = [*dis, "--engine", "interpreter", str(program), str(row.small)]
        times["interpreter"] = milliseconds(small, LLMBOL_CACHE=cache) * scale
        full = [*dis, str(program), str(row.size)]
        times["cold"] = milliseconds(full, LLMBOL_CACHE=cache)
        commands = {"warm": full, **peers.emulated(program, row)}
        if peers.twins and row.name in IN_C:
            commands["C"] = [peers.twins, row.name, str(row.size)]
        for _ in range(runs):
            for name, command in commands.items():
                taken = milliseconds(command, LLMBOL_CACHE=cache)
                times[name] = min(times.get(name, taken), taken)
    times["CPython"] = milliseconds(python) * scale
    return times


def main() -> None:
    """Print two lines for each program: the times, and how they relate."""
    folder = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    rows = [row for row in ROWS if not sys.argv[3:] or row.name in sys.argv[3:]]
    ratios: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as made:
        peers = Peers.found(made)
        titles = ["interpreter", "cold", "warm", "C", "CPython"]
        titles += [f"{e} {what}" for e in peers.emulators for what in ("interpreter", "JIT")]
        print(f"{'':10}{'size':>12}" + "".join(f"{title:>21}" for title in titles))
        for row in rows:
            times = measure(row, folder, peers, runs)
            cells = []
            for title in titles:
                if title not in times:
                    cells.append(f"{'-':>21}")
                    continue
                ratio = times[title] / times["warm"]
                ratio = 1 / ratio if title == "C" else ratio
                ratios.setdefault(title, []).append(ratio)
                cells.append(f"{times[title]:12.0f} ({ratio:6.2f})")
            print(f"{row.name:10}{row.size:>12}" + "".join(cells), flush=True)
    means = {title: math.exp(sum(map(math.log, r)) / len(r)) for title, r in ratios.items()}
    cells = [f"{means[t]:21.2f}" if t in means else f"{'-':>21}" for t in titles]
    print(f"{'geometric mean':22}" + "".join(cells))


if __name__ == "__main__":
    main()
