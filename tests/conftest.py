"""What tests of every area use."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Whoever runs the tests in the background ignores SIGINT, which commands under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines may be busy: how long an example takes tells nothing of what it shows.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def rng():
    return np.random.default_rng(20250)


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a command that is gone when the block ends, however it ends."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
