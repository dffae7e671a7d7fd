"""How fast the engines run programs: milliseconds that each program measures of itself.

Run on an idle machine: ``python -m benchmarks.vm FOLDER [RUNS]``, where FOLDER holds NAME.dis for
the names below. Each takes the size as its argument and prints ``NAME N ms`` on standard error.
The interpreter runs a smaller size, its time is scaled by the work.
C twins are compiled if there is gcc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
TWINS = Path(__file__).parent / "c" / "twins.c"
IN_C = ("alu", "bigs", "fib", "mandel", "matmul", "sieve")


@dataclass(frozen=True)
class Row:
    """A program: its size, that for the interpreter, and how its work grows with the size."""

    name: str
    size: int
    small: int
    work: Callable[[int], float] = float


ROWS = [
    Row("alu", 60_000_000, 100_000),
    Row("arrays", 8000, 200),
    Row("bigs", 20_000_000, 50_000),
    Row("channels", 10_000, 5000),
    Row("dispatch", 10_000_000, 20_000),
    Row("fib", 37, 18, lambda n: 1.618034**n),
    Row("lists", 6000, 30),
    Row("mandel", 900, 30, lambda n: n * n),
    Row("matmul", 400, 25, lambda n: n**3),
    Row("nbody", 2_000_000, 500),
    Row("qsort", 3_000_000, 2000),
    Row("sieve", 10_000_000, 100_000),
    Row("strings", 10_000, 100),
    Row("trees", 19, 9, lambda n: 2.0**n),
]
_TAKEN = re.compile(r"(\d+) ms")


def milliseconds(command: list[str], cache: str) -> float:
    """Return what a program says that it took."""
    environment = {**os.environ, "LLMBOL_CACHE": cache}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = _TAKEN.search(done.stderr)
    assert found, done.stderr
    return float(found[1])


def measure(row: Row, folder: Path, twins: Path | None, runs: int) -> list[float | None]:
    """Return the times of one program: interpreter, cold, warm, C."""
    path = str(folder / f"{row.name}.dis")
    dis = [str(BIN / "dis"), "run", "--max-memory", "2G"]
    with tempfile.TemporaryDirectory() as cache:
        small = milliseconds([*dis, "--engine", "interpreter", path, str(row.small)], cache)
        interpreter = small * row.work(row.size) / row.work(row.small)
        command = [*dis, path, str(row.size)]
        cold = milliseconds(command, cache)
        warm = min(milliseconds(command, cache) for _ in range(runs))
    in_c = None
    if twins is not None and row.name in IN_C:
        command = [str(twins), row.name, str(row.size)]
        in_c = min(milliseconds(command, "") for _ in range(runs))
    return [interpreter, cold, warm, in_c]


def main() -> None:
    """Print a line for each program: the times, and how they relate."""
    folder = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    titles = f"{'interpreter':>13}{'cold':>8}{'warm':>8}{'C':>8}{'int/warm':>10}{'warm/C':>8}"
    print(f"{'':10}{'size':>10}{titles}")
    with tempfile.TemporaryDirectory() as made:
        twins = None
        if shutil.which("gcc"):
            twins = Path(made) / "twins"
            subprocess.run(["gcc", "-O2", "-o", str(twins), str(TWINS)], check=True)
        for row in ROWS:
            interpreter, cold, warm, in_c = measure(row, folder, twins, runs)
            assert interpreter
            assert cold
            assert warm
            line = f"{row.name:10}{row.size:>10}{interpreter:13.0f}{cold:8.0f}{warm:8.0f}"
            line += f"{in_c:8.0f}" if in_c else f"{'-':>8}"
            line += f"{interpreter / warm:10.0f}"
            line += f"{warm / in_c:8.1f}" if in_c else f"{'-':>8}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
