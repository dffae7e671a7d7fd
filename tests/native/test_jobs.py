"""Work in threads of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from llmbol_core.native.jobs import Job


def test_what_a_job_returns_or_raises_is_passed_on():
    job = Job(lambda: 6 * 7)
    assert job.wait()
    assert job.result() == 42
    job = Job(lambda: 1 // 0)
    assert job.wait()
    with pytest.raises(ZeroDivisionError):
        job.result()


def test_a_job_is_waited_for_as_long_as_it_may_take():
    ends = threading.Event()
    job = Job(lambda: ends.wait(60))
    assert not job.wait(time.monotonic() - 1)
    assert not job.wait(time.monotonic() + 0.01)
    ends.set()
    assert job.wait(time.monotonic() + 60)
    assert job.result()


JOB = "import time; from llmbol_core.native.jobs import Job; Job(lambda: {}); {}"


def _python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


def test_the_end_of_a_process_waits_for_jobs():
    ended = _python(JOB.format("(time.sleep(0.2), print('done', flush=True))", "print('end')"))
    assert (ended.returncode, ended.stdout) == (0, "end\ndone\n")


def test_a_command_that_fails_does_not_wait_for_jobs():
    end = "import sys; from llmbol_cli.entry import _end; _end(1)"
    ended = _python(JOB.format("time.sleep(60)", end))
    assert (ended.returncode, ended.stderr) == (1, "")
