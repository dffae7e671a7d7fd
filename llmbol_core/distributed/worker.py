"""What runs in a node's process: a Dask worker, and the work that it is given.

The work is ``run_batch``: rows of the table of jobs, one after the other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from llmbol_core.distributed.jobs import JOBS
from llmbol_core.distributed.parcels import Answer, ModelCache, Received
from llmbol_core.distributed.results import INLINE, Results
from llmbol_core.distributed.security import Certificates, Role
from llmbol_core.distributed.state import StateDirectory, die_with_parent
from llmbol_core.distributed.store import FileStore
from llmbol_core.distributed.task import Content, Outcome, Task, Verdict
from llmbol_core.distributed.wire import Connection
from llmbol_core.errors import FileError, LlmbolError

_models = ModelCache()


def dask_setup(server: Any) -> None:
    """Have the worker report what it has loaded; Dask calls this."""
    from llmbol_core.distributed import engine

    engine.prepare_worker(server, lambda: {"pid": os.getpid(), "cached": _models.hashes})


def run_batch(tasks: bytes) -> list[Outcome]:
    """Run tasks, a JSON list of them, in order; whatever goes wrong in one is its own outcome."""
    return [_attempt(Task.from_json(fields)) for fields in json.loads(tasks)]


def _attempt(task: Task) -> Outcome:
    start = time.perf_counter()
    verdict, error = Verdict.DONE, None
    content: Content = b""
    try:
        answer = _run(task)
        content, error = _keep(answer.data), answer.error
        if error is not None:
            verdict = Verdict.FAILED
    except LlmbolError as problem:
        verdict, error = Verdict.FAILED, str(problem)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        verdict, error = Verdict.ERROR, where + (problem.strerror or str(problem)).lower()
    except Exception as problem:  # noqa: BLE001 -- a bug in one task must not take others with it
        verdict, error = Verdict.ERROR, f"{type(problem).__name__}: {problem}"
    return Outcome(task.id, verdict, content, error, time.perf_counter() - start)


def _keep(data: bytes) -> Content:
    """Leave a large result where the broker finds it, if it is on this machine and has room."""
    if len(data) > INLINE and not _is_guest():
        with suppress(FileError):
            results = Results(StateDirectory.default().results)
            return results.leave(os.environ.get("LLMBOL_NODE", ""), data)
    return data


def _is_guest() -> bool:
    """Return whether the broker is on another machine."""
    return bool(os.environ.get("LLMBOL_GUEST"))


def _run(task: Task) -> Answer:
    """Run a task; one that brings files gets a directory of its own to work in."""
    state = StateDirectory.default()
    store = FileStore(Path(os.environ.get("LLMBOL_FILES") or state.files))
    excerpts = tuple(file for file in task.files if file.excerpt is not None and not _is_guest())
    files = []
    for file in (file for file in task.files if file not in excerpts):
        with closing(_Broker(state)) as broker:
            path = store.fetch(file.sha256, partial(broker.read, task.id, file.sha256))
            files.append((file.role, file.name, path))
    with closing(_Broker(state)) as broker:
        received = Received(
            dict(task.payload), tuple(files), _models, broker.ask, task.id, task.group or task.id,
            os.environ.get("LLMBOL_NODE", ""), excerpts,
        )  # fmt: skip
        run = JOBS[task.type].run
        try:
            return _in_scratch(received, run, state) if files else run(received)
        finally:
            if _is_guest():
                # Programs and models are used again; inputs would only fill this machine's disk.
                for file in (file for file in task.files if file.role == "input"):
                    store.remove(file.sha256)


def _in_scratch(
    received: Received, run: Callable[[Received], Answer], state: StateDirectory
) -> Answer:
    """Run a job in a directory of its own."""
    home = os.getcwd()
    scratch = tempfile.mkdtemp(prefix=f"task@{received.node}@", dir=state.scratch)
    try:
        os.chdir(scratch)
        return run(received)
    finally:
        os.chdir(home)
        shutil.rmtree(scratch, ignore_errors=True)


class _Broker:
    """Asks the broker; connects when the first thing is wanted."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._connection: Connection | None = None

    def read(self, id: str, sha256: str, offset: int) -> bytes:
        """Return the piece of a task's file at an offset; nothing at the end of the file."""
        return self.ask("fetch", {"sha256": sha256, "offset": offset, "task": id}, b"")[1]

    def ask(self, call: str, arguments: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        """Return the answer to a request."""
        if self._connection is None:
            certificates = Certificates(self._state.tls)
            self._connection = Connection(os.environ["LLMBOL_DOOR"], certificates, Role.NODE)
        return self._connection.call(call, arguments, body)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()


def main() -> None:
    """Be a worker, with the options of Dask's own program; standard input tells whom to meet."""
    os.umask(0o077)
    die_with_parent()
    # While this takes its time the broker starts too.
    from distributed.cli.dask_worker import main as dask_worker

    from llmbol_core.distributed import engine

    engine.admit(Role.BROKER)
    line = sys.stdin.readline()
    if not line:
        return
    meeting = json.loads(line)
    os.environ["LLMBOL_DOOR"] = meeting["door"]
    dask_worker([meeting["scheduler"], *sys.argv[1:]])


if __name__ == "__main__":
    main()
