"""The standard streams of a command: what becomes of those that are closed, full or not read."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from llmbol_cli.entry import CLOSED_PIPE
from llmbol_core.errors import FileError


def open_streams() -> None:
    """Give a closed stream nothing to read or a place to vanish; print what an encoding lacks."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 -- open until the process ends
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def to_stdout() -> Iterator[None]:
    """Say that it was standard output which the block could not write; end if nobody reads it.

    What is left to write is dropped. Raises FileError, and SystemExit for a pipe without a reader.
    """
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(CLOSED_PIPE)
        raise FileError.of(error, "standard output") from error


@contextmanager
def ended_by_closed_pipes() -> Iterator[None]:
    """Let the block's process end when it writes to a pipe that nobody reads any more."""
    number = getattr(signal, "SIGPIPE", None)  # not on every platform
    if number is None:
        yield
        return
    before = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, before)
