"""How long the commands take to start: wall time of whole processes, median of several runs.

Run on an idle machine: ``python -m benchmarks.startup [RUNS]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

# fmt: off
# what                limit in seconds  command
ROWS = [
    ("python -c pass",          None,   [sys.executable, "-c", "pass"]),
    ("dis --help",              0.25,   [BIN / "dis", "--help"]),
    ("nn --help",               0.25,   [BIN / "nn", "--help"]),
    ("cluster --help",          0.25,   [BIN / "cluster", "--help"]),
    ("dis run hello.dis",       0.30,   [BIN / "dis", "run", "hello.dis"]),
]
# fmt: on


def seconds(command: list[str | Path], folder: str) -> float:
    """Return the wall time of one run, which must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print one line a command: median, limit, verdict."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as folder:
        source = ROOT / "specs" / "programs" / "hello.s"
        seconds([BIN / "dis", "asm", source, "-o", "hello.dis"], folder)
        print(f"{'command':20} {'median s':>9} {'limit s':>8}")
        for name, limit, command in ROWS:
            median = statistics.median(seconds(command, folder) for _ in range(runs))
            verdict = "" if limit is None else "  ok" if median < limit else "  TOO SLOW"
            print(f"{name:20} {median:9.3f} {limit or '-':>8}{verdict}")


if __name__ == "__main__":
    main()
