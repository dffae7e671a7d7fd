"""Threads that share lists of operations."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from llmbol_core.native import llvm
from llmbol_core.native.team import Team

TEXT = """
; arguments: array; adds 1 + 1000 * thread's use to each item, and sums the one before into it.
define void @mark(ptr %arguments, i64 %begin, i64 %end, i64 %thread) {
 %x = load ptr, ptr %arguments
 br label %loop
loop:
 %i = phi i64 [ %begin, %0 ], [ %i1, %loop ]
 %p = getelementptr i64, ptr %x, i64 %i
 %old = load i64, ptr %p
 %new = add i64 %old, 1
 store i64 %new, ptr %p
 %i1 = add i64 %i, 1
 %more = icmp ult i64 %i1, %end
 br i1 %more, label %loop, label %done
done:
 ret void
}
; adds up what lies in front, so that it sees whether all of it was done before
define void @total(ptr %arguments, i64 %begin, i64 %end, i64 %thread) {
 %x = load ptr, ptr %arguments
 %q = getelementptr ptr, ptr %arguments, i64 1
 %y = load ptr, ptr %q
 br label %loop
loop:
 %i = phi i64 [ 0, %0 ], [ %i1, %loop ]
 %s = phi i64 [ 0, %0 ], [ %s1, %loop ]
 %p = getelementptr i64, ptr %x, i64 %i
 %v = load i64, ptr %p
 %s1 = add i64 %s, %v
 %i1 = add i64 %i, 1
 %more = icmp ult i64 %i1, 1000
 br i1 %more, label %loop, label %done
done:
 %o = getelementptr i64, ptr %y, i64 %begin
 store i64 %s1, ptr %o
 ret void
}
"""


@pytest.fixture(scope="module")
def code():
    return llvm.load_object(llvm.compile_text(TEXT), ["mark", "total"])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_is_computed_once_and_before_the_next_operation(code, threads):
    team = Team(threads)
    x, y = np.zeros(1000, np.int64), np.zeros(3, np.int64)
    given = np.array([x.ctypes.data, y.ctypes.data], np.int64)
    mark = [code.addresses["mark"], given.ctypes.data, 1000, 7]
    total = [code.addresses["total"], given.ctypes.data, 3, 1]
    operations = np.array([mark, total] * 50, np.int64)
    for turn in range(1, 21):
        team.run(operations.ctypes.data, len(operations))
        assert (x == 50 * turn).all()
        assert y[0] == 50_000 * turn
        assert set(y) <= {0, 50_000 * turn}


def test_an_empty_list_and_an_empty_operation_do_nothing(code):
    team = Team(2)
    x = np.zeros(4, np.int64)
    given = np.array([x.ctypes.data], np.int64)
    team.run(given.ctypes.data, 0)
    assert not x.any()


def test_callers_share_a_team(code):
    team = Team(3)
    arrays = [np.zeros(4000, np.int64) for _ in range(4)]

    def work(x):
        given = np.array([x.ctypes.data], np.int64)
        operations = np.array([[code.addresses["mark"], given.ctypes.data, 4000, 64]] * 5, np.int64)
        for _ in range(200):
            team.run(operations.ctypes.data, len(operations))

    threads = [threading.Thread(target=work, args=(x,)) for x in arrays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((x == 1000).all() for x in arrays)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_gets_a_team_of_its_own(code):
    from llmbol_core.native.team import team

    team()
    child = os.fork()
    if not child:
        x = np.zeros(1000, np.int64)
        given = np.array([x.ctypes.data], np.int64)
        operations = np.array([[code.addresses["mark"], given.ctypes.data, 1000, 10]], np.int64)
        team().run(operations.ctypes.data, 1)
        os._exit(0 if (x == 1).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


LATE = """
import builtins, time
from llmbol_core.native import team

class Late:
    def __del__(self, sleep=time.sleep):
        sleep(0.05)

builtins.late = Late()  # goes last of all
team._SPINS = 1 << 40
team.Team(2)
time.sleep(0.05)
"""


def test_helpers_may_outlive_modules():
    assert subprocess.run([sys.executable, "-c", LATE], check=False).returncode == 0


def test_state_lies_in_lines_of_its_own():
    assert Team(1).address % 128 == 0
    assert ctypes.sizeof(ctypes.c_int64) == 8
