from __future__ import annotations

import subprocess
import sys

import pytest

import llmbol_core
from llmbol_core.errors import LimitError, NoCluster

CODE = [0x00, 0x01, 0x05, 0xFF]


def test_a_machine_with_a_cluster_is_still_a_machine():
    with llmbol_core.create_vm(max_memory=1 << 20, max_threads=4, enable_distributed=True) as vm:
        vm.load_module("m", llmbol_core.BytecodeLoader.create_module(CODE))
        assert vm.execute("m", "main", []) == 5
        assert vm.get_stats().memory_limit == 1 << 20


def test_a_machine_takes_all_limits():
    with llmbol_core.create_vm(max_instructions=2, engine="interpreter") as vm:
        vm.load_module("m", llmbol_core.BytecodeLoader.create_module(CODE))
        with pytest.raises(LimitError, match="instruction limit"):
            vm.execute("m", "main", [])


def test_without_a_cluster_there_is_nothing_to_run_on(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_STATE", str(tmp_path))
    with llmbol_core.create_vm(enable_distributed=True) as vm:
        vm.load_module("m", llmbol_core.BytecodeLoader.create_module(CODE))
        with pytest.raises(NoCluster, match="start one with: cluster start"):
            vm.execute_distributed("m", "main", [])


def test_a_local_machine_does_not_pay_for_dask():
    code = (
        "import sys, llmbol_core; llmbol_core.create_vm(); llmbol_core.create_scheduler();"
        "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
