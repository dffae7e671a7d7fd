"""Machines with the built-in modules: limits that make sense, programs that end at theirs."""

from typing import Any

import pytest

from llmbol_core import deploy
from llmbol_core.errors import UsageError
from llmbol_core.vm.stackcode import BytecodeLoader


@pytest.mark.parametrize(
    "limits",
    [
        {"max_memory": -1},
        {"max_memory": 0},
        {"max_memory": "64M"},
        {"max_memory": 1.5},
        {"max_threads": 0},
        {"max_instructions": 0},
        {"max_seconds": 0},
        {"max_seconds": float("nan")},
        {"max_seconds": "1"},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(UsageError, match="expected"):
        deploy.create_vm(**limits)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_second", r" \(did you mean 'max_seconds'"),
        ("timeout", ": expected max_instructions, "),
    ],
)
def test_options_that_do_not_exist_are_refused(name, hint):
    options: Any = {name: 1}
    with pytest.raises(UsageError, match=f"unknown option '{name}'{hint}"):
        deploy.create_vm(**options)


def test_stack_code_executes():
    with deploy.create_vm(max_memory=1 << 20, max_threads=1) as vm:
        vm.load_module("m", BytecodeLoader.create_module([0x00, 0x01, 0x05, 0xFF]))
        assert vm.execute("m", "main", []) == 5
        assert vm.get_stats().memory_limit <= 1 << 20


def test_running_a_file_gives_what_it_printed(tmp_path):
    from llmbol_core.vm.objectfile import write_module

    program = tmp_path / "five.dis"
    program.write_bytes(write_module(BytecodeLoader.create_module([0x01, 0x05, 0xFF])))
    assert deploy.run_file(str(program)) == deploy.RunResult(b"5\n", b"", 0)
