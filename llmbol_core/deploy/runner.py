"""Running a Dis file as a whole: with a machine of its own, a file tree, limits, and its output.

This is what ``dis run`` does at the terminal and what a compute node does with a task.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import UsageError, nearest
from llmbol_core.vm import engines
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM


class Options(TypedDict, total=False):
    """What ``create_vm`` can be given besides."""

    max_instructions: int | None
    max_seconds: float | None
    namespace: Namespace | None
    streams: Streams | None
    verify: bool
    engine: str


@dataclass(frozen=True)
class RunResult:
    """What a program printed, and its exit status."""

    stdout: bytes
    stderr: bytes
    status: int


def create_vm(
    max_memory: int = Limits.memory,
    max_threads: int = Limits.threads,
    **options: Unpack[Options],
) -> InfernoVM:
    """Return a machine with the built-in modules; it can reach no file unless a namespace is given.

    ``max_memory`` is in bytes; ``max_threads`` counts Dis processes that live at the same time;
    ``max_instructions`` counts those of all processes together, ``max_seconds`` the time of one
    call. ``namespace`` and ``streams`` are its files, ``engine`` is auto, interpreter or jit, and
    without ``verify`` it runs what cannot be verified. Raises UsageError for what is none of these.
    """
    known = Options.__annotations__
    for name in options.keys() - known:
        hint = nearest(name, known) or f": expected {', '.join(known)}"
        raise UsageError(f"unknown option {name!r}{hint}")
    most = options.get("max_instructions"), options.get("max_seconds")
    limits = Limits(max_memory, max_threads, *most)
    files, streams = options.get("namespace"), options.get("streams")
    engine, verify = engines.engine(options.get("engine", "auto")), options.get("verify", True)
    return InfernoVM(HOST_MODULES, files, limits, streams, verify, engine)


def run_file(
    path: str,
    arguments: Sequence[str] = (),
    granted: Iterable[str] = (),
    limits: Limits | None = None,
    stdin: bytes = b"",
) -> RunResult:
    """Run a program that can read the granted files and nothing else; return what it printed.

    Raises FileError, DisFormatError or VerifyError if it is no program, LimitError at a limit.
    """
    out, err = io.BytesIO(), io.BytesIO()
    namespace, streams = Namespace(granted=granted), Streams(io.BytesIO(stdin), out, err)
    engine = engines.engine("auto")
    with InfernoVM(HOST_MODULES, namespace, limits, streams, engine=engine) as machine:
        outcome = machine.run(path, arguments, host=True)
    if outcome.value is not None:
        out.write(f"{outcome.value}\n".encode())
    return RunResult(out.getvalue(), err.getvalue(), outcome.status)
