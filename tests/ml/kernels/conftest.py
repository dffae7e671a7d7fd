"""Kernels are tested for every instruction set that this machine can run."""

from __future__ import annotations

import pytest

from llmbol_core.ml.kernels.target import TARGETS
from llmbol_core.native.processor import host_processor

RUNNABLE = [name for name, row in TARGETS.items() if row.fits(host_processor())]


@pytest.fixture(params=RUNNABLE)
def target(request, monkeypatch):
    """Force one instruction set after the other."""
    monkeypatch.setenv("LLMBOL_KERNELS", request.param)
    return TARGETS[request.param]
