from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmbol_core.distributed import control
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config
from llmbol_core.distributed.state import StateDirectory


def processes_of(state: StateDirectory) -> list[int]:
    """Return the processes that were started for a state directory and still run."""
    mark = f"LLMBOL_STATE={state.root}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            alive = entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
            if alive and mark in entry.joinpath("environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def eventually(condition: Callable[[], object], seconds: float = 40.0) -> bool:
    """Return whether a condition comes true in some time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def state_directory() -> Iterator[StateDirectory]:
    """Give a state directory, and have whatever runs in it gone in the end."""
    made = StateDirectory(Path(tempfile.mkdtemp(prefix="lb-")))
    yield made
    if made.is_held():
        control.stop(made)
    shutil.rmtree(made.root, ignore_errors=True)


@pytest.fixture(scope="module")
def state() -> Iterator[StateDirectory]:
    """A state directory of this module."""
    with state_directory() as made:
        yield made


def started(state: StateDirectory) -> StateDirectory:
    control.start(state, Config(tuple(local_nodes(2, ["inference"]))))
    return state


@pytest.fixture(scope="module")
def cluster(state: StateDirectory) -> StateDirectory:
    """A running cluster of two nodes, to do anything to."""
    return started(state)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[StateDirectory]:
    """One for modules that leave it as they find it, with two nodes."""
    with state_directory() as made:
        yield started(made)


@pytest.fixture
def client(cluster: StateDirectory) -> Iterator[Client]:
    with Client(cluster) as connected:
        yield connected
