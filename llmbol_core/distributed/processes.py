"""A node's process on this machine, started, watched and ended by the broker.

It starts while the broker is still starting, and is told whom to connect to once that is known.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.security import Certificates, Role
from llmbol_core.distributed.settings import THREADS
from llmbol_core.distributed.state import StateDirectory, as_parent, bound_to_parent

LOOPBACK = "127.0.0.1"
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds from one start of a node to the next; doubled each time ..."""
HEALTHY_SECONDS = 5.0
"""... unless it lived this long."""
STOP_SECONDS = 2.0
_MODULE = "llmbol_core.distributed.worker"


class NodeProcess:
    """A node and its process, if it has one."""

    def __init__(
        self,
        node: ComputeNode,
        state: StateDirectory,
        address: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Prepare a node that listens on a numeric address: the node's own if None is given."""
        self.node = node
        self._state, self._address, self._inherited = state, address, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0

    @property
    def pid(self) -> int | None:
        """The number of the process, once there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, in a session of its own so that key strokes do not interrupt it."""
        now = time.monotonic()
        lived = now - self._started
        self._pause = 0.0 if lived > HEALTHY_SECONDS else self._pause * 2 or FIRST_PAUSE
        self._started = now
        # What the previous process had no time to remove.
        for left in self._state.scratch.glob(f"task@{self.node.name}@*"):
            shutil.rmtree(left, ignore_errors=True)
        log = self._state.open_log(self.node.name)
        try:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True, env=self._environment(), preexec_fn=bound_to_parent(),
            )  # fmt: skip
        finally:
            os.close(log)

    def meet(self, meeting: str) -> None:
        """Tell the node, in a line of JSON, where its scheduler and the broker's door are."""
        assert self._process is not None
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError), stdin:
            stdin.write(meeting.encode() + b"\n")

    def is_due(self) -> bool:
        """Return whether the process is dead and it is time for a new one."""
        if self._process is None or self._process.poll() is None:
            return False
        return time.monotonic() >= self._started + min(self._pause, LONGEST_PAUSE)

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the process; the next one starts without a pause, as this is no sign of trouble."""
        self._started = -math.inf
        if self._process is not None:
            self._process.kill()

    def join(self) -> None:
        """Wait until the process has ended, killing it if that takes long; remove what it left."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        threads = dict.fromkeys(THREADS, str(self.node.threads))
        own = {"LLMBOL_NODE": self.node.name, "LLMBOL_GUEST": "1" if self._address else ""}
        return {**self._inherited, **as_parent(), **threads, **own}

    def _command(self) -> list[str]:
        certificates = Certificates(self._state.tls)
        return [
            sys.executable, "-m", _MODULE,
            "--name", self.node.name, "--nthreads", "1", "--no-nanny",
            "--protocol", "tls", "--host", self._address or self.node.address,
            "--worker-port", str(self.node.port),
            "--no-dashboard",
            # Mapped files count as memory: Dask's own limit would kill nodes for large models.
            "--memory-limit", "0", "--death-timeout", "15",
            "--local-directory", str(self._state.scratch),
            "--preload", _MODULE,
            "--tls-ca-file", str(certificates.authority),
            "--tls-cert", str(certificates.certificate(Role.NODE)),
            "--tls-key", str(certificates.key(Role.NODE)),
        ]  # fmt: skip
