"""The commands as processes of their own: what the installed scripts call.

A process that has said all it had to say ends at once. Taking the interpreter apart, which nobody
sees, would take a sixth of the time of a short command.

Only what the interpreter has loaded anyway is imported here: an interruption while the rest is
loaded shall end the command quietly.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

CLOSED_PIPE = 141
"""The status of a command that wrote to a pipe that nobody read any more, as shells show it."""
_PATIENCE = 0.5
"""Seconds that the end of a process waits for code that serves those after it."""


def dis() -> NoReturn:
    """Run ``dis``."""
    _run("dis")


def nn() -> NoReturn:
    """Run ``nn``."""
    _run("nn")


def cluster() -> NoReturn:
    """Run ``cluster``."""
    _run("cluster")


def _run(command: str) -> NoReturn:
    try:
        from importlib import import_module

        main: Callable[[], NoReturn] = import_module(f"llmbol_cli.{command}").main
        main()
    except SystemExit as end:
        if isinstance(end.code, int):
            _end(end.code)
        raise
    except KeyboardInterrupt:  # so early that nothing has begun
        _end(130)
    raise AssertionError("a command ends by exiting")


def _end(status: int) -> None:
    """End the process, its threads and handlers of the exit done; return if output is not.

    It waits a little for code that is being compiled, if it has not failed and was not stopped.
    """
    if "llmbol_core.native.jobs" in sys.modules:
        sys.modules["llmbol_core.native.jobs"].wait_for_jobs(0.0 if status else _PATIENCE)
    import atexit
    import threading

    getattr(threading, "_shutdown")()  # noqa: B009 -- what the interpreter itself begins with
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter knows what to say of it
    if status == CLOSED_PIPE:
        _end_as_others_do()
    os._exit(status)


def _end_as_others_do() -> None:
    """Let the signal end the process that ends those that do not ask for a pipe's errors."""
    import signal

    number = getattr(signal, "SIGPIPE", None)  # not on every platform
    if number is not None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
