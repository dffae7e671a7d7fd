import os

import numpy as np  # noqa: F401 -- brings its BLAS
import pytest
from threadpoolctl import threadpool_info

from llmbol_core.errors import UsageError
from llmbol_core.native.threads import single_threaded_blas, thread_count


def blas_threads() -> list[int]:
    return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]


def test_thread_count(monkeypatch):
    monkeypatch.delenv("LLMBOL_THREADS", raising=False)
    assert 1 <= thread_count() <= (os.cpu_count() or 1)
    monkeypatch.setenv("LLMBOL_THREADS", "3")
    assert thread_count() == 3


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²", "1025", "9" * 5000])
def test_thread_count_refuses(monkeypatch, value):
    monkeypatch.setenv("LLMBOL_THREADS", value)
    with pytest.raises(UsageError, match="LLMBOL_THREADS must be a whole number from 1 to 1024"):
        thread_count()


def test_overlapping_limits_are_lifted_by_the_last():
    before = blas_threads()
    first, second = single_threaded_blas(), single_threaded_blas()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == before
