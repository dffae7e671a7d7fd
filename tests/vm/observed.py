"""Machines under observation, for the tests of the tools."""

from __future__ import annotations

import functools
import io

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.observation import ObservedInterpreter
from tests.vm.objects import DATA_DIRECTORY

PICKS = DATA_DIRECTORY / "picks.dis"


def read_data(path):
    """Return a file of the tests' data, as commands read what lies beside a module."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def watched(observer, stdout=None):
    """Return a machine whose instructions an observer is told of."""
    engine = functools.partial(ObservedInterpreter, observer=observer)
    streams = Streams(None, stdout or io.BytesIO(), io.BytesIO())
    machine = InfernoVM(HOST_MODULES, streams=streams, engine=engine)
    observer.inspector = Inspector(machine, read_data)
    return machine
