"""Mutated object files through reader, verifier and a bounded run: nothing but clear errors.

    python -m tests.vm.fuzz [--count N] [--seed S] [--corpus DIR ...] [--engines NAME ...]

Each file is one of the corpus, damaged in a few places (``mutations.py``). Whatever it does, it may
only end well or with an ``LlmbolError`` within its limits. Files are tried in worker processes, so
that a crash of the host is seen and named by its seed; the run prints what became of the files and
exits with 1 if one misbehaved. The same seed makes the same file.
"""

from __future__ import annotations

import io
import re
import resource
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock, LimitError, LlmbolError
from llmbol_core.vm.engines import engine as engine_of
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_module
from tests.vm.batches import attempted, command_line, until_interrupted
from tests.vm.mutations import mutated

HERE = Path(__file__).parent
LIMITS = Limits(memory=1 << 20, threads=20, instructions=3000, seconds=2.0)
SLOW = 10.0
"""Seconds of the processor after which a file counts as having hung."""
HOST_MEMORY = 8 << 30
"""Bytes of address space for a worker, of which a machine's arena takes half."""
_BATCH = 200


def corpus(folders: list[Path]) -> list[bytes]:
    """Return the object files below some folders, those that are not too long to try often."""
    files = sorted({path for folder in folders for path in folder.rglob("*.dis")})
    return [data for path in files if len(data := path.read_bytes()) < 20_000]


def try_file(data: bytes, engine: str = "interpreter") -> tuple[str, str]:
    """Take a file as far as it goes; return how far, and what it said there.

    Raises what should not happen.
    """
    try:
        module = read_module(data, "mutated")
    except LlmbolError:
        return "not read", ""
    out = io.BytesIO()
    streams = Streams(io.BytesIO(), out, out)
    made = engine_of(engine)
    with InfernoVM(HOST_MODULES, limits=LIMITS, streams=streams, engine=made) as machine:
        try:
            machine.load_module("mutated", module)
        except LlmbolError:
            return "refused", ""
        try:
            machine.execute("mutated", "init", [])
        except (LimitError, Deadlock) as error:
            # Where a limit strikes, and who waits then, is the engine's own affair.
            return f"ran: {type(error).__name__}", ""
        except LlmbolError as error:
            return f"ran: {type(error).__name__}", f"{error} {_timeless(out)}"
    return "ran to its end", _timeless(out)


def _timeless(out: io.BytesIO) -> str:
    """Return what a program wrote, without the times that it has measured."""
    return re.sub(r"\d+ ms", "ms", repr(out.getvalue()))


def try_seeds(
    files: list[bytes], seeds: range, engines: tuple[str, ...] = ("interpreter",)
) -> tuple[Counter[str], list[str]]:
    """Try a file for each seed; return what became of them, and the misbehaviour.

    Engines that do not agree misbehave; a program that has met a limit may have done more or less.
    """
    outcomes: Counter[str] = Counter()
    wrong = []
    for seed in seeds:
        started = time.process_time()
        try:
            ends = [try_file(mutated(files, seed), engine) for engine in engines]
            outcomes[ends[0][0]] += 1
            if len(set(ends)) > 1 and not any("Limit" in how for how, _ in ends):
                wrong.append(f"seed {seed}: engines differ: {ends}")
        except Exception:  # noqa: BLE001 -- anything but an LlmbolError is what we look for
            wrong.append(f"seed {seed}: {traceback.format_exc()}")
        if time.process_time() - started > SLOW:
            wrong.append(f"seed {seed}: took {time.process_time() - started:.1f} s")
    return outcomes, wrong


def hold_memory() -> None:
    """Turn a file that takes the host's memory into an exception."""
    resource.setrlimit(resource.RLIMIT_AS, (HOST_MEMORY, HOST_MEMORY))


def fuzz(
    files: list[bytes], seeds: range, workers: int, engines: tuple[str, ...]
) -> tuple[Counter[str], list[str]]:
    """Try many files in worker processes; a worker that dies is misbehaviour too."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    batches = [seeds[start : start + _BATCH] for start in range(0, len(seeds), _BATCH)]
    with ProcessPoolExecutor(workers, initializer=hold_memory) as pool, until_interrupted(pool):
        futures = [
            (pool.submit(attempted, try_seeds, files, batch, engines), batch) for batch in batches
        ]
        for number, (future, batch) in enumerate(futures, 1):
            try:
                found, bad = future.result()
            except BrokenProcessPool:
                wrong.append(f"seeds {batch.start} to {batch.stop}: a worker died")
                break
            outcomes += found
            wrong += bad
            if number % 50 == 0:
                print(f"{sum(outcomes.values())} files, {len(wrong)} wrong", file=sys.stderr)
    return outcomes, wrong


def main() -> None:
    """Fuzz as the command line says."""
    parser = command_line(__doc__, 10_000)
    parser.add_argument("--engines", nargs="+", default=["interpreter"], help="compared if several")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[HERE / "data"])
    options = parser.parse_args()
    files = corpus(options.corpus)
    outcomes, wrong = fuzz(
        files,
        range(options.seed, options.seed + options.count),
        options.workers,
        tuple(options.engines),
    )
    for what, number in outcomes.most_common():
        print(f"{number:9} {what}")
    print("\n".join(wrong[:20]))
    print(f"{sum(outcomes.values())} files of {len(files)} originals, {len(wrong)} misbehaved")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
