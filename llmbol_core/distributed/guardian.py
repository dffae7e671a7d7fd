"""The guardian: holds the state directory and keeps a broker running in it.

It does nothing else, needs hardly any memory and so has no reason to die. If it does, the system
kills the broker, and with the broker the nodes. Run with ``--lease`` it stops when its standard
input ends, which is how a program's own cluster goes away with the program, its directory too.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from llmbol_core.distributed.settings import environment
from llmbol_core.distributed.state import StateDirectory, as_parent, bound_to_parent
from llmbol_core.errors import LlmbolError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a broker that died is started again; doubled each time ..."""
HEALTHY_SECONDS = 5.0
"""... unless it lived this long."""
STOP_SECONDS = 15.0
"""How long a broker may take to stop."""


class Guardian:
    """Runs brokers, one after the other, until asked to stop.

    It is given the lock of the state directory, held until its process ends, whatever ends it.
    """

    def __init__(self, state: StateDirectory, lock: int, *, lease: bool = False) -> None:
        self._state, self._lock = state, lock
        self._sources: list[int] = [0] if lease else []
        self._stopping = self._is_orphan = False

    def run(self) -> int:
        """Return 0 once a broker has stopped on request, 1 if none could be started."""
        os.umask(0o077)
        self._listen()
        pause = FIRST_PAUSE
        while True:
            start = time.monotonic()
            status = self._run_broker()
            if self._stopping or status == 0:
                break
            if self._state.read() is None:
                self._say(f"the broker did not start (status {status})")
                break
            pause = FIRST_PAUSE if time.monotonic() - start > HEALTHY_SECONDS else pause * 2
            self._say(f"the broker died (status {status}); starting another one in {pause:g} s")
            self._sleep(min(pause, LONGEST_PAUSE))
        self._state.forget()
        if self._is_orphan:
            import shutil

            shutil.rmtree(self._state.root, ignore_errors=True)
        os.close(self._lock)
        return 0 if self._stopping or status == 0 else 1

    def _run_broker(self) -> int:
        """Start a broker and return its exit status."""
        log = self._state.open_log("broker")
        try:
            broker = subprocess.Popen(
                [sys.executable, "-m", "llmbol_core.distributed.broker"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._state.root, env=environment(self._state.root) | as_parent(),
                preexec_fn=bound_to_parent(),
            )  # fmt: skip
        finally:
            os.close(log)
        while broker.poll() is None and not self._stopping:
            self._sleep(None)
        if broker.poll() is None:
            broker.terminate()
        try:
            return broker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            broker.kill()
            return broker.wait()

    def _listen(self) -> None:
        """Let signals wake ``_sleep``: a child that has ended, or a request to stop."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._signals = reader
        self._sources.append(reader)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(signum, lambda number, frame: None)

    def _sleep(self, seconds: float | None) -> None:
        """Wait until something happens, or so many seconds."""
        ready, _, _ = select.select(self._sources, [], [], seconds)
        if self._signals in ready:
            received = os.read(self._signals, 4096)
            self._stopping |= signal.SIGTERM in received or signal.SIGINT in received
        if 0 in ready and not os.read(0, 4096):
            self._stopping = self._is_orphan = True

    def _say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
        # Standard error may be a user's terminal, where this does not belong.
        with suppress(OSError), open(self._state.open_log("guardian"), "wb", 0) as log:
            log.write(line.encode())


def main() -> int:
    """Be the guardian of the state directory and with the lock named on the command line."""
    state, lock = StateDirectory(Path(sys.argv[1])), int(sys.argv[2])
    try:
        return Guardian(state, lock, lease="--lease" in sys.argv[3:]).run()
    except LlmbolError as error:
        os.write(2, f"{error}\n".encode())
        return 1


if __name__ == "__main__":
    sys.exit(main())
