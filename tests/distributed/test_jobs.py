from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from llmbol_core.distributed.arrays import array_bytes, array_of
from llmbol_core.distributed.jobs import JOBS, job
from llmbol_core.distributed.task import Task, Verdict
from llmbol_core.distributed.worker import run_batch
from llmbol_core.errors import UsageError


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_described_and_refuses_unknown_fields(name):
    assert JOBS[name].summary
    with pytest.raises(UsageError, match="has no field 'zzz'"):
        JOBS[name].pack({"zzz": 1})
    assert len(inspect.signature(JOBS[name].run).parameters) == 1


def test_a_misspelled_field_or_type_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'model'"):
        JOBS["inference"].pack({"modle": "m.gguf", "input": [[1]]})
    with pytest.raises(UsageError, match="lacks the field 'input'"):
        JOBS["inference"].pack({"model": "m.gguf"})
    with pytest.raises(UsageError, match="did you mean 'inference'"):
        job("inferense")


def test_files_keep_the_names_that_the_program_was_given():
    packed = JOBS["run"].pack({"program": "a/p.dis", "inputs": ["d/x.npy", "/tmp/y.npy"]})
    assert [(f.role, f.name) for f in packed.files] == [
        ("program", "p.dis"), ("input", "d/x.npy"), ("input", "y.npy"),
    ]  # fmt: skip
    json.dumps(packed.payload)
    with pytest.raises(UsageError, match="the same name"):
        JOBS["run"].pack({"program": "p.dis", "inputs": ["../x.npy", "/tmp/x.npy"]})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"program": ""}, "'' is no name of a file: expected the path of the program"),
        ({"program": None}, "None is no name of a file"),
        ({"program": "p", "inputs": ["a", ""]}, "expected the path of the input"),
        ({"program": "p", "max_memory": 0}, "a limit of 0 for memory"),
    ],
)
def test_payloads_that_make_no_sense_are_refused(payload, message):
    with pytest.raises(UsageError, match=message):
        JOBS["run"].pack(payload)


def test_arrays_survive_the_journey():
    for value in ([[1, 2], [3, 4]], np.arange(6, dtype=np.float32).reshape(2, 3).T, 0.5):
        assert np.array_equal(array_of(array_bytes(value)), np.asarray(value, np.float32))
    with pytest.raises(UsageError, match="no array of numbers"):
        array_bytes([["a"]])


def test_one_bad_task_does_not_spoil_a_batch():
    tasks = [
        Task("good", "probe", {"echo": {"a": [1]}, "seconds": 0}),
        Task("bad", "probe", {}),
        Task("good2", "probe", {"echo": None, "seconds": 0}),
    ]
    outcomes = run_batch(json.dumps([task.to_json() for task in tasks]).encode())
    assert [outcome.verdict for outcome in outcomes] == [
        Verdict.DONE, Verdict.ERROR, Verdict.DONE,
    ]  # fmt: skip
    assert isinstance(outcomes[0].data, bytes)
    assert json.loads(outcomes[0].data) == {"a": [1]}
    assert outcomes[1].error == "KeyError: 'seconds'"
