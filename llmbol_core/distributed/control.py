"""Starting and stopping clusters: the one of a state directory, and a program's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from llmbol_core.distributed.client import Client
from llmbol_core.distributed.guardian import Guardian
from llmbol_core.distributed.node import check_port
from llmbol_core.distributed.report import ClusterStatus, Config
from llmbol_core.distributed.settings import environment
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.errors import ClusterError, NoCluster

Progress = Callable[[int, int, str], None]

START_SECONDS = 180.0
"""How long a cluster may take to start on a machine that is busy."""
STOP_SECONDS = 20.0
_LOOK = 0.03
_ROOM = 1 << 16
"""Free bytes below which neither a ledger can be made nor an error be logged."""


def start(
    state: StateDirectory,
    config: Config,
    progress: Progress = lambda done, total, note: None,
) -> ClusterStatus:
    """Start a cluster that lives on when this program ends; return when all nodes are up.

    Raises ClusterError if one runs in the state directory already or a node cannot start.
    """
    guardian, failure = _launch(state, config, subprocess.DEVNULL)
    try:
        status = _await_nodes(state, config, guardian, failure, progress)
    except BaseException:
        guardian.terminate()
        guardian.wait()
        raise
    # We do not wait for this child: it outlives us, and init adopts it.
    guardian.returncode = 0
    return status


def run(state: StateDirectory, config: Config) -> None:
    """Be the cluster's guardian until somebody stops it or this process gets a signal."""
    lock = _prepare(state, config)
    failure = Failure(state)
    if Guardian(state, lock).run() != 0:
        raise failure.error()


def stop(
    state: StateDirectory,
    drain: bool = False,
    timeout: float | None = None,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Stop the cluster of a state directory; return when all its processes are gone.

    ``Client.stop`` describes draining; if that takes longer than the time-out, in seconds, the
    cluster is not stopped but keeps running, and ClusterError is raised.
    """
    if state.remote() is not None:
        with Client(state) as client:
            client.stop(drain, timeout, progress)
        return
    # A cluster that is just starting publishes its address in a moment.
    _await(lambda: state.read() is not None or not state.is_held(), START_SECONDS)
    running = state.running()
    try:
        with Client(state) as client:
            client.stop(drain, timeout, progress)
    except ClusterError:
        if drain:
            raise
        # The broker does not answer, but the guardian can end it.
        running.guardian.kill(signal.SIGTERM)
    if not _await(lambda: not state.is_held(), STOP_SECONDS):
        running.guardian.kill(signal.SIGKILL)
        if not _await(lambda: not state.is_held(), STOP_SECONDS):
            raise ClusterError(f"the guardian, process {running.guardian.pid}, does not end")
    everyone = (running.broker, *running.nodes)
    _await(lambda: not any(process.is_alive() for process in everyone), STOP_SECONDS)
    state.clean_up()


class OwnCluster:
    """A cluster that belongs to this program and goes away with it, whatever ends the program."""

    def __init__(self, config: Config, progress: Progress = lambda done, total, note: None) -> None:
        self.state = StateDirectory(Path(tempfile.mkdtemp(prefix="llmbol-")))
        try:
            self._guardian, failure = _launch(self.state, config, subprocess.PIPE, "--lease")
            _await_nodes(self.state, config, self._guardian, failure, progress)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the cluster and forget all about it."""
        guardian = getattr(self, "_guardian", None)
        if guardian is not None:
            guardian.stdin.close()
            try:
                guardian.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                guardian.kill()
                guardian.wait()
        shutil.rmtree(self.state.root, ignore_errors=True)


class Failure:
    """Finds out why a cluster does not start, from what it has logged since this was made."""

    def __init__(self, state: StateDirectory, nodes: Iterable[str] = ()) -> None:
        self._state = state
        self._starts = {name: state.log_size(name) for name in ("broker", "guardian", *nodes)}

    def error(self) -> ClusterError:
        """Return the error of a cluster whose guardian has ended."""
        why = self._tail("broker") or self._tail("guardian") or self._why_nothing_was_logged()
        return ClusterError(f"the cluster did not start: {why}")

    def late(self, names: Iterable[str]) -> ClusterError:
        """Return the error of a cluster some of whose processes were not up in time.

        It quotes their logs, which are gone with the cluster if that is a program's own.
        """
        said = {name: self._tail(name) for name in names}
        listed = ", ".join(f"{name} ({tail})" if tail else name for name, tail in said.items())
        return ClusterError(f"not up after {START_SECONDS:g} s: {listed}")

    def _tail(self, name: str) -> str:
        return self._state.log_tail(name, self._starts[name])

    def _why_nothing_was_logged(self) -> str:
        space = os.statvfs(self._state.root)
        if space.f_bavail * space.f_frsize < _ROOM:
            return f"no space left on the device of {self._state.root}"
        return "its guardian was killed"


def _prepare(state: StateDirectory, config: Config) -> int:
    """Take the lock, check what can be checked in advance, write the broker's configuration.

    Returns the lock's descriptor: only who holds it may touch what is in the directory.
    """
    state.prepare()
    if (remote := state.remote()) is not None:
        raise ClusterError(
            f"{state.root} is for the cluster at {remote}: set LLMBOL_STATE to another directory "
            "or end that with: cluster connect --forget"
        )
    lock = state.hold()
    try:
        for node in config.nodes:
            check_port(node)
        state.clean_up()
        config.write(state.config)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _launch(
    state: StateDirectory, config: Config, stdin: int, *options: str
) -> tuple[subprocess.Popen[bytes], Failure]:
    """Start a guardian, which inherits the lock."""
    lock = _prepare(state, config)
    failure = Failure(state, [node.name for node in config.nodes])
    module = "llmbol_core.distributed.guardian"
    try:
        with open(state.open_log("guardian"), "ab", 0) as log:
            guardian = subprocess.Popen(
                [sys.executable, "-m", module, str(state.root), str(lock), *options],
                start_new_session=True, pass_fds=[lock], stdin=stdin, stdout=log, stderr=log,
                cwd=state.root, env=environment(state.root),
            )  # fmt: skip
    finally:
        os.close(lock)
    return guardian, failure


def _await_nodes(
    state: StateDirectory,
    config: Config,
    guardian: subprocess.Popen[bytes],
    failure: Failure,
    progress: Progress,
) -> ClusterStatus:
    """Return the cluster's status when all its nodes are up."""
    deadline, total = time.monotonic() + START_SECONDS, len(config.nodes)
    status: ClusterStatus | None = None
    with Client(state) as client:
        while time.monotonic() < deadline:
            if guardian.poll() == 0:
                raise ClusterError("the cluster was stopped before its nodes were up")
            if guardian.poll() is not None:
                raise failure.error()
            status = _status(client) if state.read() is not None else None
            if status is not None:
                progress(status.nodes_up, total, "nodes")
                if status.nodes_up == total:
                    return status
            time.sleep(_LOOK)
    raise failure.late([n.name for n in status.nodes if n.state != "up"] if status else ["broker"])


def _status(client: Client) -> ClusterStatus | None:
    try:
        return client.status()
    except NoCluster:
        return None


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether a condition came true within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True
