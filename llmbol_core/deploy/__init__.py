"""A model as one sandboxed .dis file: compile it, open it, run it within limits."""

from llmbol_core.deploy.runner import RunResult, create_vm, run_file
from llmbol_core.vm.limits import Limits

__all__ = ["Limits", "RunResult", "create_vm", "run_file"]
